//! Collections in SQL: the documents as they are and as they were, whatever of them is in the log, in the table of
//! events or in the collection's own table.

use crate::{
    access::Guarded,
    harness::{TestServer, config},
    metadata_tables::view,
    process,
};
use icecore_lake::clock::Clock;
use serde_json::{Value, json};

const NS: &str = "shop";
const DOCUMENTS: &str = "SELECT key, json_get_int(doc, 'n'), op, version, seq FROM cdc_users";
/// Events of [`sent`], which have the numbers from 1.
const LAST: u64 = 9;
/// Nothing is refreshed unless a test asks for it.
const SETTINGS: &[(&str, &str)] =
    &[("compaction.enabled", "off"), ("collections.refresh_interval", "24h")];

#[expect(clippy::needless_pass_by_value, reason = "a test writes the members in place")]
fn change(op: &str, key: &str, members: Value) -> Value {
    let mut event = json!({"ns": NS, "op": op, "collection": "users", "key": key});
    let given = event.as_object_mut().unwrap();
    given.extend(members.as_object().unwrap().clone());
    event
}

/// Changes of four documents. The collection is emptied between them.
fn sent() -> Vec<Value> {
    vec![
        change("c", "ann", json!({"id": "1", "after": {"n": 1}, "bookmark": "b1"})),
        change("c", "bea", json!({"id": "2", "after": {"n": 1}, "bookmark": "b2"})),
        change("u", "ann", json!({"id": "3", "patch": {"n": 2}, "bookmark": "b3"})),
        change("d", "bea", json!({"id": "4", "bookmark": "b4"})),
        json!({"id": "5", "ns": NS, "type": "cdc.truncate", "collection": "users"}),
        change("c", "cay", json!({"id": "6", "after": {"n": 6}})),
        change("u", "dan", json!({"id": "7", "after": {"n": 7}})),
        change(
            "u",
            "cay",
            json!({"id": "8", "patch": [{"op": "replace", "path": "/n", "value": 8}]}),
        ),
        change("c", "bea", json!({"id": "9", "after": {"n": 9}})),
    ]
}

async fn send(server: &TestServer, events: &[Value]) {
    let (status, answer) = server.ingest(&json!({ "events": events })).await;
    assert_eq!(status, 200, "{answer}");
}

async fn refresh(server: &TestServer, collection: &str) {
    let path = format!("/v1/{NS}/collections/{collection}/refresh");
    let answer = server.post(&path, "application/json", "").await;
    let (status, text) = (answer.status(), answer.text().await.unwrap());
    assert_eq!(status, 200, "{text}");
}

async fn start() -> TestServer {
    TestServer::start_in(tempfile::tempdir().unwrap(), SETTINGS).await
}

async fn asked(server: &TestServer, request: &Value) -> Value {
    let (status, answer) = server.query(NS, request).await;
    assert_eq!(status, 200, "{request}: {answer}");
    answer
}

/// The documents as each event up to this one left them.
async fn states(server: &TestServer, last: u64) -> Vec<Value> {
    let mut states = Vec::new();
    for seq in 0..=last {
        let sql = format!("{DOCUMENTS} FOR SEQ AS OF {seq} ORDER BY key");
        states.push(server.rows(NS, &sql).await);
    }
    states
}

fn expected() -> Vec<Value> {
    let (bea, cay) = (json!(["bea", 1, "c", 1, 2]), json!(["cay", 6, "c", 1, 6]));
    let dan = json!(["dan", 7, "u", 1, 7]);
    let (ann, changed) = (json!(["ann", 1, "c", 1, 1]), json!(["ann", 2, "u", 2, 3]));
    let last = json!(["cay", 8, "u", 2, 8]);
    vec![
        json!([]),
        json!([ann]),
        json!([ann, bea]),
        json!([changed, bea]),
        json!([changed]),
        json!([]),
        json!([cay]),
        json!([cay, dan]),
        json!([last, dan]),
        json!([["bea", 9, "c", 1, 9], last, dan]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_those_of_each_event_wherever_it_is() {
    let server = start().await;
    for event in sent() {
        send(&server, &[event]).await;
    }
    assert_eq!(states(&server, LAST).await, expected(), "in the log");
    server.commit(NS).await;
    assert_eq!(states(&server, LAST).await, expected(), "in the table");
    refresh(&server, "users").await;
    assert_eq!(states(&server, LAST).await, expected(), "in the collection's table");
    let now = format!("{DOCUMENTS} ORDER BY key");
    assert_eq!(server.rows(NS, &now).await, expected()[9]);
    // Some documents changed since the refresh, and others did not.
    send(&server, &[change("u", "dan", json!({"id": "10", "patch": {"n": 10}}))]).await;
    send(&server, &[change("d", "bea", json!({"id": "11"}))]).await;
    let rows = json!([["cay", 8, "u", 2, 8], ["dan", 10, "u", 2, 10]]);
    assert_eq!(server.rows(NS, &now).await, rows, "each sees what it wrote");
    assert_eq!(states(&server, LAST).await, expected());
    refresh(&server, "users").await;
    assert_eq!(server.rows(NS, &now).await, rows);
    for (sql, rows) in [
        (format!("{DOCUMENTS} WHERE key = 'dan'"), json!([["dan", 10, "u", 2, 10]])),
        (format!("{DOCUMENTS} WHERE key = 'bea'"), json!([])),
        (
            "SELECT count(*), max(updated_at) IS NOT NULL FROM cdc_users".to_owned(),
            json!([[2, true]]),
        ),
        ("SELECT docId FROM cdc_users WHERE seq < 9".to_owned(), json!([["cay"]])),
    ] {
        assert_eq!(server.rows(NS, &sql).await, rows, "{sql}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_is_read_at_every_kind_of_point() {
    let server = start().await;
    send(&server, &sent()[..2]).await;
    let first = server.commit(NS).await["events"].clone();
    let listed: Value = server.get("/v1/shop/tables/events/snapshots").await.json().await.unwrap();
    let ms = listed["snapshots"][0]["timestamp_ms"].as_i64().unwrap();
    let at = crate::harness::rfc3339(ms);
    refresh(&server, "users").await;
    send(&server, &sent()[2..4]).await;
    server.commit(NS).await;
    send(&server, &sent()[4..]).await;
    let sql = format!("{DOCUMENTS} ORDER BY key");
    for (request, state) in [
        (json!({ "sql": sql, "as_of": first }), 2),
        (json!({ "sql": sql, "as_of": "main" }), 4),
        (json!({ "sql": sql, "as_of": at }), 2),
        (json!({ "sql": format!("{DOCUMENTS} FOR VERSION AS OF {first} ORDER BY key") }), 2),
        (json!({ "sql": format!("{DOCUMENTS} FOR BOOKMARK AS OF 'b3' ORDER BY key") }), 3),
        (
            json!({ "sql": format!("{DOCUMENTS} FOR BOOKMARK AS OF $1 ORDER BY key"), "params": ["b1"] }),
            1,
        ),
        (json!({ "sql": sql.replace("cdc_users", "\"cdc_users@main\"") }), 4),
        (json!({ "sql": sql.replace("cdc_users", "\"cdc_users@~1\"") }), 2),
        (json!({ "sql": sql }), 9),
    ] {
        assert_eq!(asked(&server, &request).await["rows"], expected()[state], "{request}");
    }
    // A snapshot of the collection's own table is a point, too.
    let own = "SELECT max(snapshot_id) FROM cdc_users.snapshots";
    let own = server.rows(NS, own).await[0][0].clone();
    let request = json!({ "sql": sql, "as_of": own });
    let answer = asked(&server, &request).await;
    assert_eq!((&answer["rows"], &answer["basis"]["seq"]), (&expected()[2], &json!(2)));
    let request = json!({ "sql": sql, "basis": answer["basis"] });
    assert_eq!(asked(&server, &request).await["rows"], expected()[2], "{request}");
    for (sql, status, text) in [
        ("SELECT * FROM cdc_users BETWEEN SEQ 2 AND 3", 400, "FOR SEQ AS OF 3"),
        ("SELECT * FROM cdc_users FOR VERSION AS OF 42", 404, "42"),
        ("SELECT * FROM cdc_users FOR BOOKMARK AS OF 'none'", 404, "none"),
        ("SELECT * FROM cdc_others.files", 400, "cdc_others"),
        ("SELECT fold_changes(1)", 400, "fold_changes"),
    ] {
        let (found, answer) = server.query(NS, &json!({ "sql": sql })).await;
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(found == status && error.contains(text), "{sql}: {answer}");
    }
    check_single_documents(&server).await;
    server.stop().await;
}

/// A document by its key is the one that the collection has, from the event on up to which its table is.
async fn check_single_documents(server: &TestServer) {
    for (seq, state) in expected().iter().enumerate().skip(2) {
        for key in ["ann", "bea", "cay"] {
            let expected = state.as_array().unwrap().iter().find(|row| row[0] == key);
            let path = format!("/v1/{NS}/collections/users/docs/{key}?at=seq:{seq}");
            let answer = server.get(&path).await;
            let status = answer.status().as_u16();
            let found: Value = answer.json().await.unwrap();
            let row = ["key", "doc", "op", "version", "seq"].map(|member| match member {
                "doc" => &found["doc"]["n"],
                _ => &found[member],
            });
            let row = (status == 200).then(|| json!(row));
            assert_eq!(row.as_ref(), expected, "{path}: {status} {found}");
        }
    }
}

/// The table function says what the comparison by hand says, and what the route says.
async fn check_differences(server: &TestServer) {
    for (points, expected) in [
        ("'seq:2'", json!([["ann", "changed", 1, 2], ["bea", "removed", 1, null]])),
        ("'bookmark:b1', 'bookmark:b2'", json!([["bea", "added", null, 1]])),
        ("'seq:4', 'branch:main'", json!([])),
    ] {
        let sql = format!(
            "SELECT key, change, json_get_int(before, 'n'), json_get_int(after, 'n') \
             FROM collection_diff('users', {points}) ORDER BY key"
        );
        assert_eq!(asked(server, &json!({ "sql": sql })).await["rows"], expected, "{points}");
    }
    let path = format!("/v1/{NS}/collections/users/diff?from=seq:2");
    let diff: Value = server.get(&path).await.json().await.unwrap();
    assert_eq!((&diff["changed"], &diff["removed"]), (&json!(1), &json!(1)), "{diff}");
    for (point, expected) in [("bookmark:none", 404), ("~1", 400), ("seq:x", 400)] {
        let sql = format!("SELECT * FROM collection_diff('users', '{point}')");
        let (status, answer) = server.query(NS, &json!({ "sql": sql })).await;
        assert_eq!(status, expected, "{point}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_of_now_are_compared_with_those_of_before_and_a_basis_repeats_both() {
    let server = start().await;
    send(&server, &sent()[..3]).await;
    refresh(&server, "users").await;
    send(&server, &sent()[3..4]).await;
    let sql = "SELECT coalesce(a.key, b.key), json_get_int(a.doc, 'n'), json_get_int(b.doc, 'n') \
         FROM cdc_users AS a FULL JOIN cdc_users FOR SEQ AS OF 2 AS b ON a.key = b.key \
         WHERE a.doc IS DISTINCT FROM b.doc ORDER BY 1";
    let answer = asked(&server, &json!({ "sql": sql })).await;
    let rows = json!([["ann", 2, 1], ["bea", null, 1]]);
    assert_eq!((&answer["rows"], &answer["basis"]["seq"]), (&rows, &json!(4)), "{answer}");
    assert!(answer["basis"]["snapshots"]["cdc_users"].is_i64(), "{answer}");
    let of_all = asked(&server, &json!({ "sql": "SELECT count(*) FROM cdc_none" })).await;
    assert!(of_all["basis"]["snapshots"]["cdc_none"].is_null(), "{of_all}");
    check_differences(&server).await;
    let call = "SELECT key, change FROM collection_diff('users', 'seq:2') ORDER BY key";
    let of_call = asked(&server, &json!({ "sql": call })).await;
    let differing = json!([["ann", "changed"], ["bea", "removed"]]);
    // It is the same after what came later, and wherever it is then.
    send(&server, &sent()[4..]).await;
    for _ in 0..2 {
        for (request, rows) in [
            (json!({ "sql": sql, "basis": answer["basis"] }), &rows),
            (json!({ "sql": call, "basis": of_call["basis"] }), &differing),
            (
                json!({ "sql": "SELECT count(*) FROM cdc_none", "basis": of_all["basis"] }),
                &of_all["rows"],
            ),
        ] {
            let again = asked(&server, &request).await;
            assert_eq!((&again["rows"], &again["basis"]), (rows, &request["basis"]));
        }
        server.commit(NS).await;
        refresh(&server, "users").await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn collections_have_the_names_that_their_events_give_them() {
    let server = start().await;
    let names = ["Order Items", "x_deltas", "a@b", "o'x", "events"];
    let event = |name: &&str| json!({"id": name, "ns": NS, "op": "c", "collection": name, "key": "k", "after": {"of": name}});
    send(&server, &names.iter().map(event).collect::<Vec<_>>()).await;
    let other = json!({"id": "o", "ns": "other", "op": "c", "collection": "users", "key": "k", "after": {}});
    send(&server, &[other]).await;
    let count = async |table: &str| {
        let sql = format!("SELECT key, json_get_str(doc, 'of') FROM {table}");
        server.rows(NS, &sql).await
    };
    for round in ["from events", "from tables"] {
        for name in names {
            let rows = count(&format!("\"collections/{name}\"")).await;
            assert_eq!(rows, json!([["k", name]]), "{round}: {name}");
        }
        assert_eq!(count("\"cdc_Order Items\"").await, json!([["k", "Order Items"]]), "{round}");
        assert_eq!(count("cdc_events").await, json!([["k", "events"]]), "{round}");
        // The view over changes keeps its name.
        let deltas = server.rows(NS, "SELECT count(*) FROM cdc_x_deltas").await;
        assert_eq!(deltas, json!([[0]]), "{round}");
        let other = server.rows(NS, "SELECT key FROM other.cdc_users").await;
        assert_eq!(other, json!([["k"]]), "{round}");
        for name in ["Order%20Items", "x_deltas", "a@b"] {
            refresh(&server, name).await;
        }
    }
    // A view of the catalog has its name before a collection without a table.
    let query = "SELECT key AS pk FROM events WHERE id = 'o''x'";
    let body = view("cdc_theirs", NS, &["pk"], &[("duckdb", query)]).to_string();
    let path = "/catalog/v1/namespaces/shop/views";
    assert_eq!(server.post(path, "application/json", body).await.status(), 200);
    assert_eq!(server.rows(NS, "SELECT pk FROM cdc_theirs").await, json!([["k"]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_a_list_of_documents() {
    let server = start().await;
    send(&server, &sent()).await;
    let sql = "SELECT document_versions(seq, op, ts, after, patch, store, actor, bookmark, id) AS versions \
         FROM events WHERE collection = 'users' AND key = 'cay'";
    let versions = server.rows(NS, sql).await[0][0].clone();
    let versions: Vec<(&Value, &Value)> =
        versions.as_array().unwrap().iter().map(|it| (&it["version"], &it["seq"])).collect();
    assert_eq!(versions, [(&json!(1), &json!(6)), (&json!(2), &json!(8))]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_see_every_row_sees_no_collection() {
    let guarded = Guarded::start_with(&[("visibility.filter", "on")]).await;
    let sent = json!({ "events": [change("c", "ann", json!({"id": "1", "after": {"n": 1}}))] });
    assert_eq!(guarded.post(&guarded.admin, "/ingest", &sent).await.0, 200);
    let reader = guarded.token(&json!({"name": "reader", "scopes": ["read.team:shop"]})).await;
    for round in ["without a table", "with a table"] {
        for sql in [
            "SELECT key FROM cdc_users",
            "SELECT key FROM shop.cdc_users FOR SEQ AS OF 1",
            "SELECT key FROM collection_diff('users', 'seq:0')",
        ] {
            let request = json!({ "sql": sql });
            let (status, answer) = guarded.post(&guarded.admin, "/v1/shop/sql", &request).await;
            assert_eq!((status, &answer["rows"]), (200, &json!([["ann"]])), "{round}: {answer}");
            let (status, answer) = guarded.post(&reader, "/v1/shop/sql", &request).await;
            assert_eq!((status, &answer["code"]), (403, &json!("FORBIDDEN")), "{round}: {answer}");
        }
        let path = "/v1/shop/collections/users/refresh";
        assert_eq!(guarded.post(&guarded.admin, path, &Value::Null).await.0, 200);
    }
    let request = json!({ "sql": "SELECT lower_bounds FROM cdc_users.files" });
    assert_eq!(guarded.post(&reader, "/v1/shop/sql", &request).await.0, 403);
    guarded.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_fold_collections_as_the_server_itself_does() {
    let server = start().await;
    send(&server, &sent()[..4]).await;
    server.commit(NS).await;
    refresh(&server, "users").await;
    send(&server, &sent()[4..]).await;
    assert_eq!(states(&server, LAST).await, expected());
    let folder = server.stop().await;
    let mut config = config(&folder, SETTINGS);
    config.worker_program = Some(process::binary());
    let server = TestServer::start_with(folder, &config, Clock::system()).await;
    assert_eq!(states(&server, LAST).await, expected());
    let sql = format!("{DOCUMENTS} ORDER BY key");
    assert_eq!(server.rows(NS, &sql).await, expected()[9]);
    server.stop().await;
}
