//! Statements in which names mean several things at once: versions of tables, tables of other namespaces,
//! metadata tables, names of members, views.

use crate::{harness::TestServer, metadata_tables::view};
use serde_json::{Value, json};

const NAMESPACE: &str = "shop";

pub(crate) fn changes(namespace: &str, numbers: std::ops::Range<u32>) -> Value {
    let change = |number: u32| json!({ "id": format!("{namespace}-{number}"), "ns": namespace, "op": "c", "collection": "users", "docId": format!("u-{number}"), "doc": { "n": number } });
    json!({ "events": numbers.map(change).collect::<Vec<_>>() })
}

/// A server whose namespace `shop` has two changes in a first snapshot, one in a second and one in the log, and
/// `other` has three. The answer is the first snapshot.
pub(crate) async fn server() -> (TestServer, i64) {
    let server = TestServer::start().await;
    for (namespace, numbers) in [("shop", 1..3), ("other", 1..4), ("shop", 3..4), ("shop", 4..5)] {
        let is_last = numbers.end == 5;
        let (status, answer) = server.ingest(&changes(namespace, numbers)).await;
        assert_eq!(status, 200, "{answer}");
        if !is_last {
            server.commit(namespace).await;
        }
    }
    let sql = "SELECT min_by(snapshot_id, committed_at) FROM events.snapshots";
    let first = server.rows(NAMESPACE, sql).await[0][0].as_i64().unwrap();
    (server, first)
}

async fn asked(server: &TestServer, request: &Value) -> Value {
    let (status, answer) = server.query(NAMESPACE, request).await;
    assert_eq!(status, 200, "{request}: {answer}");
    answer
}

async fn refused(server: &TestServer, request: &Value) -> String {
    let (status, answer) = server.query(NAMESPACE, request).await;
    assert_eq!(status, 400, "{request}: {answer}");
    answer["error"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_statement_reads_versions_namespaces_and_metadata() {
    let (server, first) = server().await;
    let versions = format!(
        "FROM events LEFT JOIN events FOR VERSION AS OF {first} AS old ON events.docId = old.docId"
    );
    let mixed = format!(
        "SELECT count(*), count(old.id), count(o.id), min(s.n) {versions} \
         LEFT JOIN other.events AS o ON o.docId = events.docId \
         CROSS JOIN (SELECT count(*) AS n FROM events.snapshots) AS s"
    );
    let answer = asked(&server, &json!({ "sql": mixed })).await;
    assert_eq!(answer["rows"], json!([[4, 2, 3, 2]]));
    // `seq` counts in each namespace.
    let basis = &answer["basis"];
    let seqs = [&basis["seq"], &basis["namespaces"]["other"]["seq"]];
    assert_eq!(seqs, [&json!(4), &json!(3)], "{answer}");
    assert_eq!(server.ingest(&changes("other", 4..5)).await.0, 200);
    let request = json!({ "sql": mixed, "basis": basis });
    let again = asked(&server, &request).await;
    assert_eq!((&again["rows"], &again["basis"]), (&answer["rows"], basis));
    let joined = "SELECT count(*) FROM events JOIN other.events AS o ON o.docId = events.docId";
    assert_eq!(server.rows(NAMESPACE, joined).await, json!([[4]]));
    let request = json!({ "sql": joined, "basis": basis });
    assert_eq!(asked(&server, &request).await["rows"], json!([[3]]));
    let own = format!("SELECT count(*), (SELECT count(*) FROM events.snapshots) {versions}");
    let answer = asked(&server, &json!({ "sql": own })).await;
    assert_eq!((&answer["rows"], &answer["basis"]["seq"]), (&json!([[4, 2]]), &json!(4)));
    let basis = &answer["basis"];
    assert_eq!(server.ingest(&changes("shop", 5..6)).await.0, 200);
    let again = asked(&server, &json!({ "sql": own, "basis": basis })).await;
    assert_eq!((&again["rows"], &again["basis"]), (&answer["rows"], basis));
    let text = refused(&server, &json!({ "sql": mixed, "basis": basis })).await;
    assert!(text.contains("the basis has no snapshot of table `events`"), "{text}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_members_are_those_of_versions_and_other_namespaces_too() {
    let (server, first) = server().await;
    for (sql, rows) in [
        (
            "SELECT docId, old.doc FROM events FOR SEQ AS OF 1 AS old".to_owned(),
            json!([["u-1", "{\"n\":1}"]]),
        ),
        (
            format!("SELECT pk FROM \"events@{first}\" ORDER BY docId"),
            json!([["u-1"], ["u-2"]]),
        ),
        ("SELECT docId FROM other.events WHERE events.pk = 'u-3'".to_owned(), json!([["u-3"]])),
        (
            "SELECT count(DISTINCT docId) FROM other.events, events.metadata_log_entries m WHERE m.timestamp IS NOT NULL".to_owned(),
            json!([[3]]),
        ),
    ] {
        assert_eq!(server.rows(NAMESPACE, &sql).await, rows, "{sql}");
    }
    let answer = asked(&server, &json!({ "sql": "SELECT docId FROM other.events" })).await;
    assert_eq!(answer["columns"][0]["name"], "docId", "{answer}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_of_levels_is_not_the_one_of_a_like_name() {
    let (server, _) = server().await;
    assert_eq!(server.ingest(&changes("a_b", 1..4)).await.0, 200);
    // Until there is one that is called so, another text of the same name is meant.
    let count = json!({ "sql": "SELECT count(*) FROM \"a.b\".events" });
    assert_eq!(asked(&server, &count).await["rows"], json!([[3]]));
    let at = "/catalog/v1/namespaces";
    for levels in [json!(["a"]), json!(["a", "b"])] {
        let body = json!({ "namespace": levels }).to_string();
        assert_eq!(server.post(at, "application/json", body).await.status(), 200, "{levels}");
    }
    let n = json!({"id": 1, "name": "n", "type": "long", "required": false});
    for name in ["t", "events"] {
        let table = json!({"name": name, "schema": {"type": "struct", "fields": [n]}}).to_string();
        let path = format!("{at}/a%1Fb/tables");
        assert_eq!(server.post(&path, "application/json", table).await.status(), 200, "{name}");
    }
    for (table, expected) in [("\"a.b\".t", 0), ("\"a.b\".events", 0), ("a_b.events", 3)] {
        let request = json!({ "sql": format!("SELECT count(*) FROM {table}") });
        assert_eq!(asked(&server, &request).await["rows"], json!([[expected]]), "{table}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_of_tables_is_read_as_they_are() {
    let (server, first) = server().await;
    let count = "SELECT count(*) FROM things";
    let past = asked(&server, &json!({ "sql": count, "as_of": first })).await;
    assert_eq!(past["rows"], json!([[2]]));
    let now = asked(&server, &json!({ "sql": count })).await;
    assert_eq!(now["rows"], json!([[4]]));
    assert_eq!(server.ingest(&changes("shop", 5..6)).await.0, 200);
    let again = asked(&server, &json!({ "sql": count, "basis": now["basis"] })).await;
    assert_eq!(again["rows"], json!([[4]]));
    for (sql, rows) in [
        (count.to_owned(), json!([[5]])),
        ("SELECT count(*) FROM other.things".to_owned(), json!([[3]])),
        ("SELECT max(pk) FROM other.cdc_users_deltas".to_owned(), json!([["u-3"]])),
        ("SELECT count(*) FROM other.events FOR SEQ AS OF 2".to_owned(), json!([[2]])),
        ("SELECT count(*) FROM other.events VERSION AS OF 'main'".to_owned(), json!([[3]])),
        ("SELECT count(*) FROM icecore.other.things FOR SEQ AS OF 2".to_owned(), json!([[2]])),
        (
            "SELECT count(*), count(a.id), count(b.id) FROM other.events AS n \
             LEFT JOIN other.events FOR SEQ AS OF 1 AS a ON a.id = n.id \
             LEFT JOIN events FOR SEQ AS OF 1 AS b ON b.docId = n.docId"
                .to_owned(),
            json!([[3, 1, 1]]),
        ),
        (format!("SELECT count(*) FROM things VERSION AS OF {first}"), json!([[2]])),
        (format!("SELECT count(*) FROM \"things@{first}\""), json!([[2]])),
        (format!("SELECT sum(record_count) FROM \"events@{first}\".files"), json!([[2]])),
        (format!("SELECT sum(record_count) FROM \"events@{first}$files\""), json!([[2]])),
    ] {
        assert_eq!(server.rows(NAMESPACE, &sql).await, rows, "{sql}");
    }
    for table in [
        "\"events$snapshots\" VERSION AS OF 3",
        "events.files FOR VERSION AS OF 3",
        "other.\"events$snapshots\" FOR VERSION AS OF 3",
        "system.audit FOR VERSION AS OF 3",
    ] {
        let text = refused(&server, &json!({ "sql": format!("SELECT 1 FROM {table}") })).await;
        assert!(text.contains("has no versions"), "{table}: {text}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_of_the_catalog_reads_changes_and_no_paths() {
    let (server, first) = server().await;
    for (name, column, query) in [
        ("users", "id", "SELECT id FROM things WHERE \"table\" = 'users'"),
        ("theirs", "pk", "SELECT docId FROM other.events"),
        ("filed", "id", "SELECT id FROM read_parquet('events/2026/**/*.parquet')"),
        ("past", "id", "SELECT id FROM events VERSION AS OF 1"),
        ("forks", "name", "SELECT name FROM branches"),
        ("states", "id", "SELECT snapshot_id FROM \"events$snapshots\""),
    ] {
        let body = view(name, NAMESPACE, &[column], &[("duckdb", query)]).to_string();
        let path = "/catalog/v1/namespaces/shop/views";
        assert_eq!(server.post(path, "application/json", body).await.status(), 200, "{name}");
    }
    let sql = "SELECT count(*), max(id) FROM users";
    assert_eq!(server.rows(NAMESPACE, sql).await, json!([[4, "u-4"]]));
    assert_eq!(server.rows(NAMESPACE, "SELECT max(pk) FROM theirs").await, json!([["u-3"]]));
    for (name, reason) in [
        ("filed", "view `shop.filed` cannot be read: it reads by a path"),
        ("past", "view `shop.past` cannot be read: it gives a table a version"),
    ] {
        let text = refused(&server, &json!({ "sql": format!("SELECT * FROM {name}") })).await;
        assert!(text.contains(reason), "{text}");
    }
    // The point of a view is that of the tables below, and so is that of the request.
    let past = json!({ "sql": "SELECT count(*) FROM users", "as_of": first });
    assert_eq!(asked(&server, &past).await["rows"], json!([[2]]));
    let past = format!("SELECT count(*) FROM users FOR VERSION AS OF {first}");
    assert_eq!(server.rows(NAMESPACE, &past).await, json!([[2]]));
    let theirs = "SELECT max(pk) FROM theirs FOR SEQ AS OF 2";
    assert_eq!(server.rows(NAMESPACE, theirs).await, json!([["u-2"]]));
    // A namespace that is called as those tables are has none of them.
    let odd = json!({ "namespace": ["other FOR SEQ AS OF 2"] }).to_string();
    let made = server.post("/catalog/v1/namespaces", "application/json", odd).await;
    assert_eq!(made.status(), 200);
    let both = format!("{theirs} AS t, \"other FOR SEQ AS OF 2\".events");
    let text = refused(&server, &json!({ "sql": both })).await;
    assert!(text.contains("outside namespace"), "{text}");
    let cut =
        "SELECT count(*), max(u.id), (SELECT count(*) FROM users) FROM users FOR SEQ AS OF 2 AS u";
    let answer = asked(&server, &json!({ "sql": cut })).await;
    assert_eq!(answer["rows"], json!([[2, "u-2", 4]]));
    assert_eq!(server.ingest(&changes("shop", 5..6)).await.0, 200);
    assert_eq!(server.rows(NAMESPACE, cut).await, json!([[2, "u-2", 5]]));
    let again = asked(&server, &json!({ "sql": cut, "basis": answer["basis"] })).await;
    assert_eq!((&again["rows"], &again["basis"]), (&answer["rows"], &answer["basis"]));
    // What has no versions would be told as it is now.
    assert_eq!(server.rows(NAMESPACE, "SELECT count(*) FROM forks").await, json!([[0]]));
    for name in ["forks", "states"] {
        let past = json!({ "sql": format!("SELECT * FROM {name} FOR SEQ AS OF 2") });
        let text = refused(&server, &past).await;
        assert!(text.contains("` has no versions"), "{text}");
    }
    let past = json!({ "sql": "SELECT * FROM users VERSION AS OF 3" });
    let (status, answer) = server.query(NAMESPACE, &past).await;
    assert_eq!((status, &answer["code"]), (404, &json!("NOT_FOUND")), "{answer}");
    check_refused_versions(&server).await;
    server.stop().await;
}

/// Versions that a view, or a table behind one, does not have.
async fn check_refused_versions(server: &TestServer) {
    for (sql, reason) in [
        ("SELECT * FROM theirs FOR BOOKMARK AS OF 'none'", "view `theirs` takes no BOOKMARK"),
        ("SELECT * FROM users FOR BOOKMARK AS OF 'none'", "view `users` takes no BOOKMARK"),
        ("SELECT * FROM past FOR SEQ AS OF 2", "view `shop.past` FOR SEQ AS OF 2 cannot be read"),
        ("SELECT * FROM \"users@v2\"", "view `users` takes no version in its name"),
        ("SELECT * FROM nobody", "it has `dead_letters`, `events`, `filed`, `forks`"),
    ] {
        let text = refused(server, &json!({ "sql": sql })).await;
        assert!(text.contains(reason), "{sql}: {text}");
    }
    // Which namespace a table is of is told where it is not that of the request.
    for sql in
        ["SELECT 1 FROM other.events VERSION AS OF 'no'", "SELECT 1 FROM theirs VERSION AS OF 'no'"]
    {
        let (status, answer) = server.query(NAMESPACE, &json!({ "sql": sql })).await;
        assert_eq!(status, 404, "{sql}: {answer}");
        let text = answer["error"].as_str().unwrap();
        assert!(text.contains("table `other.events` has no branch or tag `no`"), "{sql}: {text}");
    }
}
