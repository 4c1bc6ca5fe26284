//! What the service keeps for itself: the names of its tables, their place, and whose rows are whose.

use crate::{
    access::Guarded,
    harness::{TestServer, config, events},
};
use icecore_catalog::metastore::{Metastore, ObjectKey, Properties};
use icecore_lake::clock::Clock;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

async fn metastore(folder: &TempDir) -> Metastore {
    Metastore::sqlite(&folder.path().join("icecore.db")).await.unwrap()
}

fn rows_of(namespace: &str, ids: std::ops::Range<u32>, filler: usize) -> Value {
    let data = "x".repeat(filler);
    let list: Vec<Value> = ids
        .map(|n| json!({"id": format!("e-{n}"), "type": "t", "ns": namespace, "data": {"text": data}}))
        .collect();
    json!({ "events": list })
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_claims_the_rows_of_another_namespace() {
    let guarded = Guarded::start().await;
    let writer = json!({ "name": "evil", "scopes": ["write:evil", "ingest:evil"] });
    let writer = guarded.token(&writer).await;
    let sent = rows_of("vic", 0..3, 1);
    assert_eq!(guarded.call(Method::POST, &guarded.admin, "/ingest", &sent).await.0, 200);
    let claim = json!({ "icecore.ns": "vic" });
    let (namespaces, own) = ("/catalog/v1/namespaces", "/catalog/v1/namespaces/evil/properties");
    let made = json!({ "namespace": ["evil"], "properties": claim });
    let (status, answer) = guarded.call(Method::POST, &writer, namespaces, &made).await;
    assert_eq!(status, 400, "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("icecore.ns"), "{answer}");
    let made = json!({ "namespace": ["evil"], "properties": {"owner": "me"} });
    assert_eq!(guarded.call(Method::POST, &writer, namespaces, &made).await.0, 200);
    for update in [json!({ "updates": claim }), json!({ "removals": ["icecore.ns"] })] {
        assert_eq!(guarded.call(Method::POST, &writer, own, &update).await.0, 400, "{update}");
    }
    // A claim that was made while it was not refused is none.
    let store = metastore(&guarded.server.folder).await;
    let claim = Properties::from([("icecore.ns".to_owned(), "vic".to_owned())]);
    store.update_namespace(&vec!["evil".to_owned()], &claim, &[]).await.unwrap();
    let count = json!({ "sql": "SELECT count(*) FROM events" });
    let (status, answer) = guarded.call(Method::POST, &writer, "/v1/evil/sql", &count).await;
    assert!(status == 404 || answer["rows"] == json!([[0]]), "{answer}");
    let sent = rows_of("evil", 0..2, 1);
    assert_eq!(guarded.call(Method::POST, &writer, "/ingest", &sent).await.0, 200);
    let (_, answer) = guarded.call(Method::POST, &writer, "/v1/evil/sql", &count).await;
    assert_eq!(answer["rows"], json!([[2]]), "{answer}");
    let (status, answer) = guarded.call(Method::POST, &writer, "/v1/evil/commit", &json!({})).await;
    assert_eq!((status, &answer["seq"]), (200, &json!(2)), "{answer}");
    guarded.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_have_a_table_called_events_and_it_stays_the_clients() {
    let server = TestServer::start().await;
    let at = "/catalog/v1/namespaces";
    assert_eq!(server.call(Method::POST, at, &json!({"namespace": ["a"]})).await.0, 200);
    let who = json!({"id": 1, "name": "who", "type": "string", "required": false});
    let table = json!({"name": "events", "schema": {"type": "struct", "fields": [who]}});
    let (status, made) = server.call(Method::POST, &format!("{at}/a/tables"), &table).await;
    assert_eq!(status, 200, "{made}");
    let count = json!({ "sql": "SELECT count(*) FROM events" });
    assert_eq!(server.query("a", &count).await.1["rows"], json!([[0]]));
    // Acknowledged is in the log; the reason why it goes no further is told, and no answer lacks it.
    assert_eq!(server.ingest(&rows_of("a", 0..3, 1)).await.0, 200);
    for (path, body) in [("/v1/a/commit", json!({})), ("/v1/a/sql", count)] {
        let (status, answer) = server.call(Method::POST, path, &body).await;
        let text = answer["error"].as_str().unwrap();
        assert_eq!((status, &answer["code"]), (503, &json!("UNAVAILABLE")), "{path}: {answer}");
        assert!(text.contains("`a.events`") && text.contains("rename it"), "{path}: {answer}");
    }
    let tables = server.rows("a", "SHOW TABLES").await;
    assert!(tables.to_string().contains("events"), "{tables}");
    let (_, now) = server.call(Method::GET, &format!("{at}/a/tables/events"), &json!({})).await;
    assert_eq!(now["metadata-location"], made["metadata-location"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_with_a_type_that_is_not_read_is_told_by_its_column_and_hinders_no_other() {
    let server = TestServer::start().await;
    let at = "/catalog/v1/namespaces";
    assert_eq!(server.call(Method::POST, at, &json!({"namespace": ["a"]})).await.0, 200);
    let mut file = String::new();
    for (name, column) in [("plain", "n"), ("odd", "shape")] {
        let column = json!({"id": 1, "name": column, "type": "long", "required": false});
        let table = json!({"name": name, "schema": {"type": "struct", "fields": [column]}});
        let (status, made) = server.call(Method::POST, &format!("{at}/a/tables"), &table).await;
        assert_eq!(status, 200, "{made}");
        file = made["metadata-location"].as_str().unwrap().to_owned();
    }
    // As a catalog of a later version leaves it.
    let folder = server.stop().await;
    let path = file.strip_prefix("file://").unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    std::fs::write(path, text.replace("\"long\"", "\"geometry\"")).unwrap();
    let config = config(&folder, &[]);
    let server = TestServer::start_with(folder, &config, Clock::system()).await;
    let tables =
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'a' ORDER BY 1";
    assert_eq!(server.rows("a", tables).await, json!([["odd"], ["plain"]]));
    assert!(server.rows("a", "SHOW TABLES").await.to_string().contains("odd"));
    assert_eq!(server.rows("a", "SELECT count(*) FROM plain").await, json!([[0]]));
    for sql in ["SELECT * FROM odd", "SELECT count(*) FROM plain, odd", "DESCRIBE odd"] {
        let (status, answer) = server.query("a", &json!({ "sql": sql })).await;
        let text = answer["error"].as_str().unwrap_or_default();
        assert_eq!(status, 404, "{sql}: {answer}");
        assert!(
            ["`odd`", "`shape`", "`geometry`"].iter().all(|part| text.contains(part)),
            "{text}"
        );
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_does_not_take_the_services_tables_away() {
    let server = TestServer::start().await;
    for (name, range) in [("one", 0..3), ("two", 0..5)] {
        assert_eq!(server.ingest(&rows_of(name, range, 1)).await.0, 200);
        server.commit(name).await;
    }
    let path = "/v1/one/tables/events";
    let (status, answer) = server.call(Method::DELETE, path, &json!({})).await;
    assert_eq!(status, 400, "{answer}");
    let target = json!({"ns": "two", "name": "mine"});
    let (status, answer) = server.call(Method::POST, &format!("{path}/rename"), &target).await;
    assert_eq!(status, 400, "{answer}");
    assert_eq!(server.rows("one", "SELECT count(*) FROM events").await, json!([[3]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_takes_no_rows_leaves_the_log_to_the_others() {
    let settings = [("wal.bytes_max", "16MiB")];
    let server = TestServer::start_in(tempfile::tempdir().unwrap(), &settings).await;
    // A table of somebody else.
    let at = "/catalog/v1/namespaces";
    assert_eq!(server.call(Method::POST, at, &json!({"namespace": ["stuck"]})).await.0, 200);
    let who = json!({"id": 1, "name": "who", "type": "string", "required": false});
    let table = json!({"name": "t", "schema": {"type": "struct", "fields": [who]}});
    assert_eq!(server.call(Method::POST, &format!("{at}/stuck/tables"), &table).await.0, 200);
    let (store, levels) = (metastore(&server.folder).await, vec!["stuck".to_owned()]);
    store
        .rename_table(ObjectKey::new(&levels, "t"), ObjectKey::new(&levels, "events"))
        .await
        .unwrap();
    assert_eq!(server.ingest(&rows_of("stuck", 0..1, 1)).await.0, 200);
    let (status, answer) = server.call(Method::POST, "/v1/stuck/commit", &json!({})).await;
    assert_eq!(status, 503, "{answer}");
    assert!(answer["error"].as_str().unwrap().contains("stuck.events"), "{answer}");

    let filler = 500_000;
    let mut taken = 1;
    let refused = loop {
        let body = rows_of("stuck", taken..taken + 1, filler).to_string();
        let response = server.post("/ingest", "application/json", body).await;
        match response.status().as_u16() {
            200 => taken += 1,
            status => break (status, response),
        }
        assert!(taken < 16, "half of the log is full of one namespace");
    };
    assert_eq!(refused.0, 503);
    assert!(refused.1.headers().contains_key("retry-after"));
    let text = refused.1.text().await.unwrap();
    assert!(text.contains("stuck.events") && text.contains("icecore.managed"), "{text}");
    assert_eq!(server.get("/readyz").await.status(), 200);
    // Three times what the log may hold passes by.
    for round in 0..12 {
        let sent = rows_of("well", round * 8..(round + 1) * 8, filler);
        let (status, answer) = server.ingest(&sent).await;
        assert_eq!(status, 200, "{round} {answer}");
        server.commit("well").await;
    }
    let (status, answer) =
        server.query("stuck", &json!({ "sql": "SELECT count(who) FROM events" })).await;
    assert_eq!((status, &answer["code"]), (503, &json!("UNAVAILABLE")), "{answer}");
    let metrics = server.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("icecore_flush_failing_tables 1\n"), "{metrics}");
    assert!(metrics.contains("icecore_flush_failing_seconds{table=\"stuck.events\"}"), "{metrics}");
    let count = json!([[taken]]);
    assert_eq!(server.rows("well", "SELECT count(*) FROM events").await, json!([[96]]));

    // Once the name is free what was acknowledged goes to the table that it belongs to.
    store
        .rename_table(ObjectKey::new(&levels, "events"), ObjectKey::new(&levels, "t"))
        .await
        .unwrap();
    server.commit("stuck").await;
    assert_eq!(server.rows("stuck", "SELECT count(*) FROM events").await, count);
    assert_eq!(server.ingest(&rows_of("stuck", 100..101, filler)).await.0, 200);
    let metrics = server.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("icecore_flush_failing_tables 0\n"), "{metrics}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_that_is_closed_to_its_token_tells_nothing() {
    let guarded = Guarded::start().await;
    let sent = events(0..1);
    assert_eq!(guarded.call(Method::POST, &guarded.admin, "/ingest", &sent).await.0, 200);
    guarded.call(Method::POST, &guarded.admin, "/v1/shop.example/commit", &json!({})).await;
    let request = json!({ "name": "t", "namespace": "shop_example", "scopes": ["ingest:other"] });
    let token = guarded.token(&request).await;
    let (_, answer) = guarded.post(&token, "/ingest", &json!([{"id": "x", "type": "t"}])).await;
    assert!(!answer.to_string().contains("shop.example"), "{answer}");
    guarded.server.stop().await;
}

/// The ids of three snapshots of `events` in the namespace `a`.
async fn three_snapshots(guarded: &Guarded, writer: &str) -> Vec<i64> {
    let mut snapshots = Vec::new();
    for range in [0..2, 2..4, 4..6] {
        let sent = rows_of("a", range, 1);
        assert_eq!(guarded.call(Method::POST, writer, "/ingest", &sent).await.0, 200);
        let (_, made) = guarded.call(Method::POST, writer, "/v1/a/commit", &json!({})).await;
        snapshots.push(made["snapshots"]["events"].as_i64().unwrap());
    }
    snapshots
}

/// The update that has a branch or tag name a snapshot, with more members.
fn set_ref(name: &str, kind: &str, snapshot: i64, more: &Value) -> Value {
    let mut update = json!({"action": "set-snapshot-ref", "ref-name": name, "type": kind,
        "snapshot-id": snapshot});
    update.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    update
}

#[tokio::test(flavor = "multi_thread")]
async fn history_of_the_services_tables_is_an_admins_to_shorten() {
    let guarded = Guarded::start().await;
    let writer = json!({ "name": "w", "scopes": ["write:a", "ingest:a"] });
    let writer = guarded.token(&writer).await;
    let owner = json!({ "name": "o", "scopes": ["admin:a"] });
    let owner = guarded.token(&owner).await;
    let snapshots = three_snapshots(&guarded, &writer).await;
    let (table, refs) = ("/catalog/v1/namespaces/a/tables/events", "/v1/a/tables/events/refs");
    for (name, kind) in [("tag", "tag"), ("branch", "branch")] {
        let made = json!({ "name": name, "type": kind, "snapshot": snapshots[1] });
        let (status, answer) = guarded.call(Method::POST, &writer, refs, &made).await;
        assert_eq!(status, 200, "{answer}");
    }
    let set = |name, kind, at: usize, more| set_ref(name, kind, snapshots[at], &more);
    let expire = json!({"action": "remove-snapshots", "snapshot-ids": [snapshots[0]]});
    let property = |key: &str| json!({"action": "set-properties", "updates": {key: "1"}});
    let taken = [
        expire.clone(),
        json!({"action": "remove-snapshot-ref", "ref-name": "tag"}),
        json!({"action": "remove-snapshot-ref", "ref-name": "branch"}),
        set("tag", "tag", 2, json!({})),
        set("branch", "branch", 0, json!({})),
        set("tag", "tag", 1, json!({"max-ref-age-ms": 1})),
        set("branch", "branch", 1, json!({"max-snapshot-age-ms": 1})),
        set("main", "branch", 2, json!({"max-snapshot-age-ms": 1})),
        set("tag", "branch", 1, json!({})),
        property("history.expire.max-snapshot-age-ms"),
        property("gc.enabled"),
        property("icecore.retention"),
        property("icecore.tags"),
    ];
    for update in &taken {
        let body = json!({ "requirements": [], "updates": [update] });
        let (status, answer) = guarded.call(Method::POST, &writer, table, &body).await;
        assert_eq!(status, 403, "{update} {answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains("`admin`"), "{answer}");
        let name = json!({ "namespace": ["a"], "name": "events" });
        let body = json!({"table-changes": [{"identifier": name, "requirements": [], "updates": [update]}]});
        let path = "/catalog/v1/transactions/commit";
        let (status, answer) = guarded.call(Method::POST, &writer, path, &body).await;
        assert_eq!(status, 403, "{update} {answer}");
    }
    let drop = format!("{refs}/tag");
    assert_eq!(guarded.call(Method::DELETE, &writer, &drop, &json!({})).await.0, 403);
    // What takes nothing away is every writer's: a new name, a branch that goes on, other properties.
    for update in [
        set("new", "tag", 0, json!({"max-ref-age-ms": 5})),
        set("branch", "branch", 2, json!({})),
        set("tag", "tag", 1, json!({})),
        property("owner"),
    ] {
        let body = json!({ "requirements": [], "updates": [update] });
        let (status, answer) = guarded.call(Method::POST, &writer, table, &body).await;
        assert_eq!(status, 200, "{update} {answer}");
    }
    assert_eq!(guarded.call(Method::DELETE, &owner, &drop, &json!({})).await.0, 200);
    let body = json!({ "requirements": [], "updates": [expire] });
    let untagged = json!({"requirements": [], "updates": [{"action": "remove-snapshot-ref", "ref-name": "new"}]});
    assert_eq!(guarded.call(Method::POST, &owner, table, &untagged).await.0, 200);
    let (status, answer) = guarded.call(Method::POST, &owner, table, &body).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["metadata"]["snapshots"].as_array().unwrap().len(), 2);
    // Tables of clients are their writers'.
    let column = json!({"id": 1, "name": "n", "type": "long", "required": false});
    let own = json!({"name": "own", "schema": {"type": "struct", "fields": [column]}});
    let made = guarded.call(Method::POST, &writer, "/catalog/v1/namespaces/a/tables", &own).await;
    assert_eq!(made.0, 200);
    let body = json!({"requirements": [], "updates": [property("history.expire.max-ref-age-ms")]});
    let path = "/catalog/v1/namespaces/a/tables/own";
    assert_eq!(guarded.call(Method::POST, &writer, path, &body).await.0, 200);
    guarded.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_view_takes_the_name_of_a_table_of_the_service() {
    let server = TestServer::start().await;
    let at = "/catalog/v1/namespaces";
    for levels in [json!(["a"]), json!(["a", "b"])] {
        let made = server.call(Method::POST, at, &json!({ "namespace": levels })).await;
        assert_eq!(made.0, 200);
    }
    let view = |name: &str| {
        let who = json!({"id": 1, "name": "who", "type": "long", "required": false});
        json!({"name": name, "schema": {"type": "struct", "schema-id": 0, "fields": [who]}, "properties": {},
            "view-version": {"version-id": 1, "timestamp-ms": 1, "schema-id": 0, "summary": {},
                "default-namespace": ["a"],
                "representations": [{"type": "sql", "sql": "select 1", "dialect": "spark"}]}})
    };
    let views = format!("{at}/a/views");
    let (status, made) = server.call(Method::POST, &views, &view("v")).await;
    assert_eq!(status, 200, "{made}");
    for name in ["events", "dead_letters"] {
        let ident = |name: &str| json!({"namespace": ["a"], "name": name});
        let rename = json!({"source": ident("v"), "destination": ident(name)});
        let register = json!({"name": name, "metadata-location": made["metadata-location"]});
        for (path, body) in [
            (views.as_str(), view(name)),
            ("/catalog/v1/namespaces/a/register-view", register),
            ("/catalog/v1/views/rename", rename),
        ] {
            let (status, answer) = server.call(Method::POST, path, &body).await;
            assert_eq!(status, 400, "{path}: {answer}");
            let message = answer["error"]["message"].as_str().unwrap();
            assert!(message.contains("give the view another name"), "{path}: {message}");
        }
        // No events have a namespace of several levels.
        let (status, answer) =
            server.call(Method::POST, &format!("{at}/a%1Fb/views"), &view(name)).await;
        assert_eq!(status, 200, "{answer}");
    }
    assert_eq!(server.ingest(&rows_of("a", 0..3, 1)).await.0, 200);
    server.commit("a").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_property_that_the_service_could_not_go_by_is_refused() {
    let server = TestServer::start().await;
    let sent = rows_of("a", 0..3, 1);
    assert_eq!(server.call(Method::POST, "/ingest", &sent).await.0, 200);
    server.commit("a").await;
    let events = "/catalog/v1/namespaces/a/tables/events";
    let set = |key: &str, value: &str| {
        let update = json!({"action": "set-properties", "updates": {key: value}});
        json!({"requirements": [], "updates": [update]})
    };
    for (key, value, why) in [
        ("icecore.compaction", "maybe", "write `on` or `off`"),
        ("icecore.retention", "bad", "is not TYPE=DAYS, such as webhook.*=30d"),
        ("icecore.promoted-paths", "data", "write `column.member:type`"),
        ("icecore.rebase-appends", "no", "write `true` or `false`"),
    ] {
        let (status, answer) = server.call(Method::POST, events, &set(key, value)).await;
        assert_eq!(status, 400, "{key} {answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(&format!("`{key}`")) && message.contains(why), "{message}");
    }
    for (key, value) in [("icecore.compaction", "off"), ("icecore.retention", "t=30d")] {
        let (status, answer) = server.call(Method::POST, events, &set(key, value)).await;
        assert_eq!(status, 200, "{key} {answer}");
    }
    server.stop().await;
}
