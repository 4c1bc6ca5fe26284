//! SQL beyond the tables of one namespace: metadata tables, other namespaces, views of the catalog.

use crate::{
    access::Guarded,
    harness::{TestServer, events},
};
use serde_json::{Value, json};

const NAMESPACE: &str = "shop.example";

/// A server whose table `events` has two snapshots, of 20 and 10 rows.
async fn with_snapshots() -> TestServer {
    let server = TestServer::start().await;
    for range in [0..20, 20..30] {
        assert_eq!(server.ingest(&events(range)).await.0, 200);
        server.commit(NAMESPACE).await;
    }
    server
}

async fn number(server: &TestServer, sql: &str) -> i64 {
    let rows = server.rows(NAMESPACE, sql).await;
    rows[0][0].as_i64().unwrap_or_else(|| panic!("`{sql}`: {rows}"))
}

async fn refused(server: &TestServer, sql: &str) -> String {
    let (status, answer) = server.query(NAMESPACE, &json!({ "sql": sql })).await;
    assert_eq!(status, 400, "`{sql}`: {answer}");
    answer["error"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metadata_table_is_read_by_each_of_its_names() {
    let server = with_snapshots().await;
    for table in [
        "snapshots",
        "history",
        "files",
        "all_files",
        "manifests",
        "partitions",
        "refs",
        "entries",
        "metadata_log_entries",
    ] {
        let mut counts = Vec::new();
        for name in [
            format!("events.{table}"),
            format!("\"events${table}\""),
            format!("shop_example.events.{table}"),
            format!("shop_example.\"events${table}\""),
            format!("icecore.shop_example.\"events${table}\""),
        ] {
            counts.push(number(&server, &format!("SELECT count(*) FROM {name}")).await);
            let sql = format!("SELECT * FROM {name} AS m LIMIT 3");
            assert!(!server.rows(NAMESPACE, &sql).await[0].is_null(), "{name}");
        }
        assert!(0 < counts[0] && counts.iter().all(|count| *count == counts[0]), "{counts:?}");
    }
    // A table of ours that has no row yet has no file.
    assert_eq!(number(&server, "SELECT count(*) FROM dead_letters.files").await, 0);
    let listed = server.rows(NAMESPACE, "SHOW TABLES").await.to_string();
    assert!(listed.contains("\"events\"") && !listed.contains('$'), "{listed}");
    let columns = server.rows(NAMESPACE, "DESCRIBE events.snapshots").await.to_string();
    assert!(columns.contains("committed_at") && columns.contains("summary"), "{columns}");
    let columns = server.rows(NAMESPACE, "SHOW COLUMNS FROM events.refs").await.to_string();
    assert!(columns.contains("min_snapshots_to_keep"), "{columns}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_tables_agree_with_the_table() {
    let server = with_snapshots().await;
    for (sql, expected) in [
        ("SELECT count(*) FROM events.snapshots", 2),
        ("SELECT sum(record_count) FROM events.files", 30),
        ("SELECT sum(record_count) FROM events.all_files", 30),
        ("SELECT sum(record_count) FROM events.partitions", 30),
        ("SELECT sum(data_file['record_count']) FROM events.entries WHERE status < 2", 30),
        ("SELECT count(*) FROM events.refs WHERE name = 'main' AND type = 'BRANCH'", 1),
        ("SELECT count(*) FROM events.history WHERE is_current_ancestor", 2),
        // Without an alias the last part qualifies columns.
        ("SELECT count(*) FROM events.snapshots WHERE snapshots.parent_id IS NULL", 1),
        (
            "SELECT count(*) FROM events.snapshots s JOIN events.history h USING (snapshot_id)
             WHERE s.committed_at <= h.made_current_at",
            2,
        ),
        ("SELECT count(*) FROM events.partitions WHERE partition['type'] = 'rpc.call'", 1),
        ("SELECT count(DISTINCT latest_snapshot_id) FROM events.metadata_log_entries", 2),
        ("SELECT count(*) FROM events e, events.refs r WHERE r.name = 'main'", 30),
        ("WITH snapshots AS (SELECT 1 AS a) SELECT a FROM snapshots", 1),
    ] {
        assert_eq!(number(&server, sql).await, expected, "{sql}");
    }
    // The files of the past, with the snapshots of now.
    let first =
        server.rows(NAMESPACE, "SELECT min_by(snapshot_id, committed_at) FROM events.snapshots");
    let first = first.await[0][0].clone();
    let past = |sql: &str| json!({ "sql": sql, "as_of": first });
    let sql = "SELECT sum(record_count), (SELECT count(*) FROM events.snapshots) FROM events.files";
    let (status, answer) = server.query(NAMESPACE, &past(sql)).await;
    assert_eq!((status, &answer["rows"]), (200, &json!([[20, 2]])), "{answer}");
    // Bounds are values of their columns.
    let sql = "SELECT min(readable_metrics['seq']['lower_bound']), max(readable_metrics['seq']['upper_bound']) FROM events.files";
    assert_eq!(server.rows(NAMESPACE, sql).await, json!([[1, 30]]));
    assert!(refused(&server, "SELECT * FROM events.nothing").await.contains("outside"));
    assert!(refused(&server, "SELECT * FROM orders.files").await.contains("outside"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_table_wins_and_two_meanings_are_refused() {
    let server = with_snapshots().await;
    let catalog = "/catalog/v1/namespaces";
    let post = |path: String, body: Value| {
        let server = &server;
        async move {
            let response = server.post(&path, "application/json", body.to_string()).await;
            assert_eq!(response.status(), 200, "{path}");
        }
    };
    let id = json!({"id": 1, "name": "id", "type": "string", "required": false});
    let table = |name: &str| json!({"name": name, "schema": {"type": "struct", "fields": [id]}});
    post(format!("{catalog}/shop_example/tables"), table("events$files")).await;
    assert_eq!(number(&server, "SELECT count(*) FROM \"events$files\"").await, 0);
    assert_eq!(number(&server, "SELECT count(*) FROM events.files").await, 0);
    post(catalog.to_owned(), json!({"namespace": ["events"]})).await;
    post(format!("{catalog}/events/tables"), table("refs")).await;
    let text = refused(&server, "SELECT * FROM events.refs").await;
    assert!(text.contains("means two tables") && text.contains("icecore.events.refs"), "{text}");
    assert_eq!(number(&server, "SELECT count(*) FROM icecore.events.refs").await, 0);
    assert_eq!(number(&server, "SELECT count(*) FROM \"events$refs\"").await, 1);
    server.stop().await;
}

async fn asked(guarded: &Guarded, token: &str, sql: &str) -> (u16, Value) {
    guarded.post(token, "/v1/shop/sql", &json!({ "sql": sql })).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_reads_the_namespaces_that_its_token_may_read() {
    let guarded = Guarded::with_events().await;
    let both = json!({ "name": "both", "scopes": ["read:shop", "read:other"] });
    let one = json!({ "name": "one", "scopes": ["read:shop"] });
    let (both, one) = (guarded.token(&both).await, guarded.token(&one).await);
    for sql in [
        "SELECT count(*) FROM events JOIN other.events AS o USING (id)",
        "SELECT count(*) FROM shop.events JOIN other.events ON shop.events.id = other.events.id",
        "SELECT sum(record_count) FROM other.events.files",
        "SELECT count(*) FROM icecore.other.events",
        "SELECT count(*) FROM other.events FOR SEQ AS OF 1",
        "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'other' AND table_name = 'events'",
    ] {
        let (status, answer) = asked(&guarded, &both, sql).await;
        assert_eq!((status, &answer["rows"]), (200, &json!([[1]])), "`{sql}`: {answer}");
    }
    let (_, tables) = asked(&guarded, &both, "SHOW TABLES FROM other").await;
    assert!(tables["rows"].to_string().contains("dead_letters"), "{tables}");
    for (token, expected) in [(&both, json!([["other"], ["shop"]])), (&one, json!([["shop"]]))] {
        for sql in [
            "SHOW SCHEMAS",
            "SHOW DATABASES LIKE '%o%'",
            "SELECT schema_name FROM information_schema.schemata ORDER BY 1",
        ] {
            let (status, answer) = asked(&guarded, token, sql).await;
            assert_eq!((status, &answer["rows"]), (200, &expected), "`{sql}`: {answer}");
        }
    }
    // What may not be read answers as what is not there.
    for sql in [
        "SELECT * FROM NS.events",
        "SELECT * FROM icecore.NS.events",
        "SELECT * FROM NS.nothing",
        "SELECT * FROM NS.events FOR SEQ AS OF 1",
        "SELECT * FROM NS.events FOR VERSION AS OF 3",
        "SELECT * FROM NS.events FOR BOOKMARK AS OF 'b'",
        "SELECT * FROM NS.events.files",
        "SELECT * FROM NS.\"events$files\"",
        "EXPLAIN SELECT * FROM events JOIN NS.events o USING (id)",
        "DESCRIBE NS.events",
        "SHOW TABLES FROM NS",
        "SHOW COLUMNS FROM NS.events",
        "SHOW CREATE TABLE NS.events",
        "SHOW CREATE VIEW NS.events",
        "SHOW SCHEMAS LIKE 'NS'",
        "SELECT * FROM information_schema.columns WHERE table_schema = 'NS'",
        "SELECT count(*) FROM information_schema.schemata WHERE 'NS' = schema_name",
    ] {
        let (status, there) = asked(&guarded, &one, &sql.replace("NS", "other")).await;
        let (_, missing) = asked(&guarded, &one, &sql.replace("NS", "bunko")).await;
        let text = |answer: &Value, name: &str| {
            let told = [&answer["error"], &answer["code"], &answer["rows"]];
            json!(told).to_string().replace(name, "NS")
        };
        assert_eq!(text(&there, "other"), text(&missing, "bunko"), "`{sql}`");
        assert!(
            status == 400 || there["rows"] == json!([]) || there["rows"] == json!([[0]]),
            "{there}"
        );
    }
    guarded.server.stop().await;
}

pub(crate) fn view(
    name: &str,
    namespace: &str,
    columns: &[&str],
    queries: &[(&str, &str)],
) -> Value {
    let fields = columns
        .iter()
        .enumerate()
        .map(|(at, name)| json!({"id": at + 1, "name": name, "type": "string", "required": false}));
    let queries =
        queries.iter().map(|(dialect, sql)| json!({"type": "sql", "dialect": dialect, "sql": sql}));
    json!({
        "name": name,
        "schema": {"type": "struct", "schema-id": 0, "fields": fields.collect::<Vec<_>>()},
        "view-version": {
            "version-id": 1, "timestamp-ms": 1_760_000_000_000_i64, "schema-id": 0, "summary": {},
            "default-namespace": [namespace], "representations": queries.collect::<Vec<_>>(),
        },
        "properties": {},
    })
}

async fn add_view(guarded: &Guarded, namespace: &str, view: &Value) {
    let path = format!("/catalog/v1/namespaces/{namespace}/views");
    let (status, answer) = guarded.post(&guarded.admin, &path, view).await;
    assert_eq!(status, 200, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn views_of_the_catalog_are_read_by_the_rights_of_who_asks() {
    let guarded = Guarded::with_events().await;
    let one = guarded.token(&json!({ "name": "one", "scopes": ["read:shop"] })).await;
    let trino = [
        ("trino", "SELECT id, \"type\" FROM events"),
        ("spark", "SELECT `id`, type t FROM events"),
    ];
    add_view(&guarded, "shop", &view("kinds", "shop", &["docNo", "kind"], &trino)).await;
    let second = [("spark", "SELECT k.kind FROM kinds k JOIN shop.kinds USING (kind)")];
    add_view(&guarded, "shop", &view("nested", "shop", &["kind"], &second)).await;
    add_view(
        &guarded,
        "shop",
        &view("foreign", "other", &["id"], &[("trino", "SELECT id FROM events")]),
    )
    .await;
    add_view(
        &guarded,
        "shop",
        &view("odd", "shop", &["id"], &[("trino", "SELECT id FROM events FETCH FIRST 1 ROW ONLY")]),
    )
    .await;
    add_view(&guarded, "shop", &view("a", "shop", &["id"], &[("duckdb", "SELECT id FROM b")]))
        .await;
    add_view(&guarded, "shop", &view("b", "shop", &["id"], &[("duckdb", "SELECT id FROM a")]))
        .await;
    add_view(
        &guarded,
        "shop",
        &view("wide", "shop", &["x", "y"], &[("duckdb", "SELECT id FROM events")]),
    )
    .await;
    let definition = format!("CREATE VIEW \"shop\".\"kinds\" AS {}", trino[0].1);
    let drawn = [("duckdb", "SELECT uuid() AS id FROM events")];
    add_view(&guarded, "shop", &view("drawn", "shop", &["id"], &drawn)).await;
    for (sql, expected) in [
        ("SELECT \"docNo\", kind FROM kinds", json!([["0", "a"]])),
        ("SELECT docno FROM shop.kinds WHERE kind = 'a'", json!([["0"]])),
        ("SHOW CREATE VIEW kinds", json!([["icecore", "shop", "kinds", definition]])),
        ("SELECT count(*) FROM nested", json!([[1]])),
        ("SELECT count(*) FROM nested FOR SEQ AS OF 1", json!([[1]])),
        // A name in the statement does not change what a view reads.
        ("WITH events AS (SELECT 'z' AS id) SELECT k.docno FROM kinds k, events", json!([["0"]])),
    ] {
        let (status, answer) = asked(&guarded, &one, sql).await;
        assert_eq!((status, &answer["rows"]), (200, &expected), "`{sql}`: {answer}");
    }
    for (name, reason) in [
        ("foreign", "outside namespace"),
        ("odd", "its query in the dialect `trino`"),
        ("a", "reads itself"),
        ("drawn", "draws values"),
        ("wide", "its query has 1 columns, and the view 2"),
    ] {
        let (status, answer) = asked(&guarded, &one, &format!("SELECT * FROM {name}")).await;
        let text = answer["error"].as_str().unwrap_or_default();
        assert!(status == 400 && text.contains(reason) && text.contains(name), "{answer}");
    }
    // Nobody sees more at a point.
    let past = "SELECT * FROM foreign FOR SEQ AS OF 1";
    let (status, answer) = asked(&guarded, &one, past).await;
    assert!(status == 400 && answer["error"].to_string().contains("outside namespace"), "{answer}");
    let (status, answer) = asked(&guarded, &guarded.admin, past).await;
    assert_eq!((status, &answer["rows"]), (200, &json!([["0"]])), "{answer}");
    let (status, answer) = asked(&guarded, &guarded.admin, "SELECT * FROM foreign").await;
    assert_eq!((status, &answer["rows"]), (200, &json!([["0"]])), "{answer}");
    guarded.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn views_are_read_to_a_bounded_depth() {
    let guarded = Guarded::with_events().await;
    for depth in 0..18 {
        let below = if depth == 0 { "events".to_owned() } else { format!("v{}", depth - 1) };
        let query = format!("SELECT id FROM {below}");
        let made = view(&format!("v{depth}"), "shop", &["id"], &[("trino", &query)]);
        add_view(&guarded, "shop", &made).await;
    }
    let (status, answer) = asked(&guarded, &guarded.admin, "SELECT * FROM v15").await;
    assert_eq!((status, &answer["rows"]), (200, &json!([["0"]])), "{answer}");
    let (status, answer) = asked(&guarded, &guarded.admin, "SELECT * FROM v16").await;
    assert!(status == 400 && answer["error"].as_str().unwrap().contains("16 levels"), "{answer}");
    // Tables behind views count: 2 to the power of the depth.
    let double = [("trino", "SELECT a.id FROM v0 a UNION ALL SELECT id FROM v0")];
    add_view(&guarded, "shop", &view("w0", "shop", &["id"], &double)).await;
    for depth in 1..9 {
        let below = depth - 1;
        let query = format!("SELECT id FROM w{below} UNION ALL SELECT id FROM w{below}");
        let made = view(&format!("w{depth}"), "shop", &["id"], &[("trino", &query)]);
        add_view(&guarded, "shop", &made).await;
    }
    let (status, answer) = asked(&guarded, &guarded.admin, "SELECT count(*) FROM w8").await;
    assert!(status == 400 && answer["error"].as_str().unwrap().contains("250 tables"), "{answer}");
    // So do rows of constants, 20 to the power of the depth: nobody could walk through the last one.
    for depth in 0..9 {
        let below = if depth == 0 { String::new() } else { format!(" FROM c{}", depth - 1) };
        let column = if depth == 0 { "'x' AS id" } else { "id" };
        let query = vec![format!("SELECT {column}{below}"); 20].join(" UNION ALL ");
        add_view(
            &guarded,
            "shop",
            &view(&format!("c{depth}"), "shop", &["id"], &[("trino", &query)]),
        )
        .await;
    }
    let (status, answer) = asked(&guarded, &guarded.admin, "SELECT count(*) FROM c0").await;
    assert_eq!((status, &answer["rows"]), (200, &json!([[20]])), "{answer}");
    let (status, answer) = asked(&guarded, &guarded.admin, "SELECT count(*) FROM c8").await;
    assert!(status == 400 && answer["error"].as_str().unwrap().contains("250 tables"), "{answer}");
    guarded.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_reads_its_own_namespace_and_its_own_dialect() {
    let guarded = Guarded::with_events().await;
    let namespaces = "/catalog/v1/namespaces";
    let create = async |path: &str, body: Value| {
        let (status, answer) = guarded.post(&guarded.admin, path, &body).await;
        assert_eq!(status, 200, "{path}: {answer}");
    };
    let id = json!({"id": 1, "name": "id", "type": "string", "required": false});
    let table = json!({"name": "t", "schema": {"type": "struct", "fields": [id]}});
    create(namespaces, json!({"namespace": ["a"]})).await;
    create(namespaces, json!({"namespace": ["a", "b"]})).await;
    create(&format!("{namespaces}/a%1Fb/tables"), table).await;
    let mut far = view("far", "a", &["id"], &[("trino", "SELECT id FROM t")]);
    far["view-version"]["default-namespace"] = json!(["a", "b"]);
    add_view(&guarded, "shop", &far).await;
    let sql = "SELECT count(*) FROM far";
    let (status, answer) = asked(&guarded, &guarded.admin, sql).await;
    assert_eq!((status, &answer["rows"]), (200, &json!([[0]])), "{answer}");
    // The same name in SQL for another namespace: its tables are not taken for those of the view.
    create(namespaces, json!({"namespace": ["a.b"]})).await;
    let (status, answer) = asked(&guarded, &guarded.admin, sql).await;
    let text = answer["error"].as_str().unwrap_or_default();
    assert!(status == 400 && text.contains("another namespace in SQL"), "{answer}");
    // Text in Spark, a column here.
    let queries = [("spark", "SELECT id FROM events WHERE type = \"id\"")];
    add_view(&guarded, "shop", &view("quoted", "shop", &["id"], &queries)).await;
    let (status, answer) = asked(&guarded, &guarded.admin, "SELECT * FROM quoted").await;
    let text = answer["error"].as_str().unwrap_or_default();
    assert!(status == 400 && text.contains("double quotes"), "{answer}");
    guarded.server.stop().await;
}
