//! Answers of SQL: right as the standard has them, or refused with a reason.
//!
//! The cases are in `answers/*.txt`: a statement, then `=` and the rows, or `!` and texts of which one
//! is in the error (`*` stands for any). Each runs over rows that are in the log alone, and those that read
//! them again when they are in a data file.

use crate::harness::{TestServer, events};
use serde_json::{Value, json};

const BROKEN_OFF: &str = "the answer broke off";

fn rows() -> Value {
    json!([
        {"id": "e1", "type": "order", "ts": "2024-03-10T01:30:00Z", "actor": "a", "version": 1, "duration_ms": 1.5},
        {"id": "e2", "type": "order", "ts": "2024-03-10T12:00:00.123456Z", "version": 2, "duration_ms": 2.5},
        {"id": "e3", "type": "call", "ts": "2024-03-31T23:59:59.999999Z", "actor": "b"},
        {"id": "e4", "type": "call", "ts": "1601-01-01T00:00:00Z", "version": i64::MAX, "duration_ms": 52.1},
        {"id": "e5", "type": "order", "ts": "9999-12-31T00:00:00Z", "actor": "a", "version": 3},
    ])
}

async fn server() -> TestServer {
    let server = TestServer::start().await;
    let path = "/ingest?backfill=true";
    let sent = json!({ "events": rows().as_array().unwrap().iter().map(|row| {
        let mut row = row.clone();
        row["ns"] = json!("n");
        row
    }).collect::<Vec<_>>() });
    let (status, answer) = server.ingest_at(path, &sent).await;
    assert_eq!((status, &answer["received"]), (200, &json!(5)), "{answer}");
    server
}

async fn check(file: &str) {
    let server = server().await;
    for place in ["the log", "a data file"] {
        let mut wrong = Vec::new();
        for block in file.split("\n\n") {
            let lines: Vec<&str> =
                block.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
            let Some((expected, statement)) = lines.split_last() else { continue };
            let statement = statement.join("\n");
            // Where the rows are is nothing to a statement that reads none.
            if place == "a data file" && !statement.to_lowercase().contains("events") {
                continue;
            }
            let body = json!({ "sql": statement }).to_string();
            let request = server.http.post(format!("{}/v1/n/sql", server.url)).body(body);
            // An error behind the head of the answer breaks it off.
            let (status, text) = match request.send().await {
                Ok(response) => {
                    let status = response.status().as_u16();
                    (status, response.text().await.unwrap_or_else(|_| BROKEN_OFF.to_owned()))
                }
                Err(_) => (0, BROKEN_OFF.to_owned()),
            };
            let answer = serde_json::from_str(&text).unwrap_or(json!({ "error": text }));
            if !is_as_expected(expected, status, &answer) {
                wrong.push(format!("{statement}\n  expected {expected}\n  got {status} {answer}"));
            }
        }
        assert!(wrong.is_empty(), "over rows in {place}:\n{}", wrong.join("\n"));
        server.commit("n").await;
    }
    server.stop().await;
}

#[tokio::test]
async fn there_is_one_zero_before_a_commit_as_after_it() {
    let server = TestServer::start().await;
    let sent = r#"{"events":[{"id":"1","type":"a","ns":"n","duration_ms":0.0},{"id":"2","type":"a","ns":"n","duration_ms":-0.0}]}"#;
    assert_eq!(server.post("/ingest", "application/json", sent).await.status(), 200);
    let zeros = "SELECT count(*), count(DISTINCT duration_ms), count(*) FILTER (WHERE duration_ms < 0) \
                 FROM events WHERE duration_ms = 0";
    for place in ["the log", "a data file"] {
        assert_eq!(server.rows("n", zeros).await, json!([[2, 1, 0]]), "{place}");
        server.commit("n").await;
    }
    server.stop().await;
}

#[tokio::test]
async fn integers_in_params_are_exact() {
    let server = TestServer::start().await;
    server.ingest(&events(0..1)).await;
    let sql = "SELECT CAST($1 AS text), CAST($2 AS text)";
    let asked = json!({ "sql": sql, "params": [u64::MAX, i64::MIN] });
    let (_, answer) = server.query("shop.example", &asked).await;
    assert_eq!(answer["rows"], json!([[u64::MAX.to_string(), i64::MIN.to_string()]]), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn a_failing_condition_says_what_failed_in_words() {
    let server = TestServer::start().await;
    server.ingest(&events(0..3)).await;
    for place in ["the log", "a data file"] {
        let sql = json!({ "sql": "SELECT id FROM events WHERE id = 10" });
        let (status, answer) = server.query("shop.example", &sql).await;
        let text = answer["error"].as_str().unwrap_or_default();
        assert!(status == 400 && text.contains("Cannot cast string"), "{place}: {answer}");
        assert!(!text.contains("Error("), "{place}: {answer}");
        server.commit("shop.example").await;
    }
    server.stop().await;
}

fn is_as_expected(expected: &str, status: u16, answer: &Value) -> bool {
    let (kind, expected) = expected.split_at(2);
    match kind {
        "= " => {
            let rows: Value = serde_json::from_str(expected).unwrap();
            status == 200 && same(&answer["rows"], &rows)
        }
        "! " => {
            let error = answer["error"].as_str().unwrap_or_default();
            let told = expected == "*"
                || error == BROKEN_OFF
                || expected.split('|').any(|text| error.contains(text));
            // The error may come behind the first rows, but it has to come.
            !error.is_empty() && told
        }
        _ => panic!("a case ends with `= rows` or `! text`, not `{kind}{expected}`"),
    }
}

/// Numbers are equal by value: `1` is `1.0`.
pub(crate) fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(l, r)| same(l, r))
        }
        (Value::Number(l), Value::Number(r)) => l == r || l.as_f64() == r.as_f64(),
        (left, right) => left == right,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nulls_count_as_the_standard_says() {
    check(include_str!("answers/nulls.txt")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_fit_or_fail() {
    check(include_str!("answers/numbers.txt")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn times_of_all_years_and_zones() {
    check(include_str!("answers/time.txt")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_clause_is_passed_over() {
    check(include_str!("answers/clauses.txt")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_drawn_is_drawn_once_for_each_row() {
    check(include_str!("answers/draws.txt")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spellings_of_other_dialects() {
    check(include_str!("answers/dialect.txt")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_of_params_is_equal_to_a_decimal_and_to_a_float() {
    let server = server().await;
    let sql = "SELECT d = $1 AS a, d IN ($2, $1) AS b, x = $1 AS c, n = $3 AS d, $4 = 0.0 AS e \
        FROM (VALUES (CAST('811550.37' AS decimal(9,2)), 811550.37, 7)) t(d, x, n)";
    let request = json!({ "sql": sql, "params": [811550.37, 8.21, 7.0, -0.0] });
    let (status, answer) = server.query("n", &request).await;
    assert_eq!(
        (status, &answer["rows"]),
        (200, &json!([[true, true, true, true, true]])),
        "{answer}"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seq_that_is_not_there_yet_is_waited_for() {
    let server = server().await;
    let query = |min_seq: u64| json!({ "sql": "SELECT count(*) FROM events", "min_seq": min_seq });
    let later = json!({ "events": [{"id": "e6", "type": "order", "ns": "n"}] });
    let request = query(6);
    let (asked, sent) = tokio::join!(server.query("n", &request), server.ingest(&later));
    assert_eq!(sent.0, 200);
    assert_eq!((asked.0, &asked.1["rows"]), (200, &json!([[6]])), "{}", asked.1);
    let (status, answer) = server.query("n", &query(7)).await;
    assert_eq!((status, &answer["code"]), (503, &json!("NOT_YET")), "{answer}");
    let mut hurried = query(7);
    hurried["timeout_ms"] = json!(100);
    assert_eq!(server.query("n", &hurried).await.0, 503);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_shows_no_place_of_the_machine() {
    let server = server().await;
    server.commit("n").await;
    let rows = server.rows("n", "EXPLAIN SELECT id FROM events WHERE seq > 1").await.to_string();
    let place = server.folder.path().display().to_string();
    assert!(rows.contains(".parquet"), "{rows}");
    assert!(!rows.contains(place.trim_start_matches('/')), "{rows}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_arrow_answer_has_types_that_every_client_knows() {
    let server = server().await;
    let sql = "SELECT id, actor, make_array(id) AS l, x'00' AS b, seq, seq FROM events";
    let request = server
        .http
        .post(format!("{}/v1/n/sql", server.url))
        .header("accept", "application/vnd.apache.arrow.stream")
        .json(&json!({ "sql": sql }));
    let bytes = request.send().await.unwrap().bytes().await.unwrap();
    let reader = arrow::ipc::reader::StreamReader::try_new(&bytes[..], None).unwrap();
    let types = format!("{:?}", reader.schema());
    assert!(!types.contains("View") && types.contains("Utf8"), "{types}");
    let names: Vec<String> =
        reader.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["id", "actor", "l", "b", "seq", "seq"]);
    let rows: usize = reader.map(|batch| batch.unwrap().num_rows()).sum();
    assert_eq!(rows, 5);
    server.stop().await;
}

#[tokio::test]
async fn columns_are_called_as_their_expressions_are_written() {
    let server = TestServer::start().await;
    server.ingest(&events(0..3)).await;
    let names = async |sql: &str| {
        let (status, answer) = server.query("shop.example", &json!({ "sql": sql })).await;
        assert_eq!(status, 200, "{sql}: {answer}");
        let columns = answer["columns"].as_array().unwrap().iter();
        columns.map(|column| column["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    for (sql, expected) in [
        ("SELECT 1, 'a', 1 + 2, NULL", vec!["1", "'a'", "1 + 2", "NULL"]),
        (
            "SELECT Count(*), count(*) FILTER (WHERE type = 'rpc.call') FROM events",
            vec!["Count(*)", "count(*) FILTER (WHERE type = 'rpc.call')"],
        ),
        ("SELECT type, e.id, max(seq) AS m FROM events e GROUP BY 1, 2", vec!["type", "id", "m"]),
        ("SELECT seq IN (1, 2), mod(seq, 2) FROM events", vec!["seq IN (1, 2)", "mod(seq, 2)"]),
        ("SELECT 1 UNION ALL SELECT 2", vec!["1"]),
        ("(SELECT 1 ORDER BY 1)", vec!["1"]),
        ("WITH t AS (SELECT seq FROM events) SELECT sum(seq) FROM t", vec!["sum(seq)"]),
        ("VALUES (1, 2)", vec!["column1", "column2"]),
        ("SELECT 1, t.*, 2 FROM (VALUES (1, 2)) t(a, b)", vec!["1", "a", "b", "2"]),
        ("SELECT 1, 1", vec!["1", "1"]),
    ] {
        assert_eq!(names(sql).await, expected, "{sql}");
    }
    // In every format, and without a row.
    let request = json!({ "sql": "SELECT 1 + 1 WHERE false" }).to_string();
    let answer = server.http.post(format!("{}/v1/shop.example/sql", server.url));
    let answer = answer.header("accept", "text/csv").body(request).send().await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "1 + 1\n");
    server.stop().await;
}

#[tokio::test]
async fn tables_are_described_in_the_words_of_answers() {
    let server = TestServer::start().await;
    server.ingest(&events(0..3)).await;
    let tables = server.rows("shop.example", "SHOW TABLES").await;
    let names: Vec<&str> =
        tables.as_array().unwrap().iter().map(|row| row[2].as_str().unwrap()).collect();
    assert_eq!(names, ["dead_letters", "events", "audit"], "the namespace's own come first");
    let described = server.rows("shop.example", "DESCRIBE events").await;
    let types: Vec<(&Value, &Value)> =
        described.as_array().unwrap().iter().map(|row| (&row[0], &row[1])).collect();
    let (_, answer) =
        server.query("shop.example", &json!({ "sql": "SELECT * FROM events LIMIT 0" })).await;
    let columns: Vec<(&Value, &Value)> = answer["columns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| (&column["name"], &column["type"]))
        .collect();
    assert_eq!(types, columns);
    assert_eq!(described[0], json!(["id", "varchar", "NO"]));
    let shown = server.rows("shop.example", "SHOW CREATE TABLE events").await;
    let text = shown[0][3].as_str().unwrap();
    let start = "CREATE TABLE \"shop_example\".\"events\" (\"id\" varchar NOT NULL, ";
    assert!(text.starts_with(start), "{text}");
    let functions = server.rows("shop.example", "SHOW FUNCTIONS LIKE 'p9_'").await;
    let expected = json!([["p90", "aggregate"], ["p95", "aggregate"], ["p99", "aggregate"]]);
    assert_eq!(functions, expected);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_is_found_in_another_case_through_every_query_below() {
    let server = TestServer::start().await;
    let namespace = json!({ "namespace": ["n"] });
    assert_eq!(server.ingest_at("/catalog/v1/namespaces", &namespace).await.0, 200);
    let names = ["orderId", "aB", "Ab"];
    let fields = names
        .iter()
        .zip(1..)
        .map(|(name, id)| json!({ "id": id, "name": name, "required": false, "type": "long" }));
    let table = json!({ "name": "cased", "schema": { "type": "struct", "fields": fields.collect::<Vec<_>>() } });
    assert_eq!(server.ingest_at("/catalog/v1/namespaces/n/tables", &table).await.0, 200);
    // The table has no rows, so the one that each query finds is its own.
    for sql in [
        "SELECT orderid FROM (SELECT orderId FROM cased UNION ALL SELECT 7) t WHERE t.ORDERID > 1",
        "WITH w AS (SELECT orderId FROM cased UNION ALL SELECT 7) SELECT max(OrderID) FROM w",
        "WITH w AS (SELECT * FROM cased), v AS (SELECT ORDERID AS x FROM w) SELECT 7 FROM (SELECT count(x) AS c FROM v) u WHERE c = 0",
        "WITH w AS (SELECT 7 AS orderId) SELECT w.ORDERID FROM w LEFT JOIN (SELECT ORDERID FROM cased) d ON w.orderid = d.orderId",
        "SELECT orderId FROM (SELECT 7 AS orderid) t WHERE ORDERID NOT IN (SELECT OrderId FROM cased)",
        "SELECT orderId FROM (SELECT 7 AS ORDERID) t WHERE NOT EXISTS (SELECT 1 FROM cased c WHERE c.orderid = t.orderID)",
    ] {
        assert_eq!(server.rows("n", sql).await, json!([[7]]), "{sql}");
    }
    // What has a list of names, or is rewritten to something that has one.
    for sql in [
        "SELECT v FROM (SELECT orderid FROM cased UNION ALL SELECT 7) q(v)",
        "SELECT coalesce(q.v, 7) FROM (SELECT c.\"orderId\" FROM (SELECT 1 AS x) d LEFT JOIN cased c ON c.orderId = d.x) q(v)",
        "WITH w(v) AS (SELECT \"orderId\" FROM cased UNION ALL SELECT 7) SELECT v FROM w",
        "SELECT v FROM (SELECT 7 AS \"A.b\") q(v)",
        "SELECT q.a FROM (SELECT * FROM cased UNION ALL SELECT 7, 8, 9) q(a, b, c)",
        "WITH q(a, b, c) AS (SELECT * FROM cased UNION ALL SELECT 7, 8, 9) SELECT a FROM q WHERE b = 8",
        "SELECT a FROM (SELECT * FROM cased UNION ALL SELECT 7, 8, 9) q(a) WHERE \"aB\" = 8",
        "WITH q(a, b) AS (SELECT * FROM cased UNION ALL SELECT 7, 8, 9) SELECT a FROM q WHERE \"Ab\" = 9",
        "SELECT x FROM (SELECT * FROM (SELECT * FROM cased UNION ALL SELECT 7, 8, 9) q(a, b, c)) r(x, y, z) WHERE r.y = 8",
        "SELECT a FROM (SELECT * FROM cased UNION ALL SELECT 7, 8, 9) q(a, b, c) JOIN (SELECT 7 AS a) r USING (a) ORDER BY q.b, a",
        "SELECT q.ORDERID FROM (SELECT * FROM cased UNION ALL SELECT 7, 8, 9) q(orderId, b, c) ORDER BY orderid",
        "WITH w(orderId) AS (SELECT 7) SELECT w.ORDERID FROM w LEFT JOIN cased c ON c.orderid = w.orderId",
        "WITH v(a) AS (WITH w(b) AS (SELECT 7 AS \"C.d\") SELECT b FROM w) SELECT a FROM v",
        "SELECT coalesce(q.a, 7) FROM (SELECT 1 AS x) d LEFT JOIN cased q(a, b, c) ON q.a = d.x",
        "SELECT b FROM (SELECT max(\"orderId\"), 7 FROM cased) q(a, b) WHERE a IS NULL",
        "SELECT -v FROM (SELECT -\"orderId\" AS \"orderId\" FROM (SELECT orderId FROM cased UNION ALL SELECT 7 UNION ALL SELECT 1) t ORDER BY \"orderId\" LIMIT 1) q(v)",
        "SELECT x FROM (SELECT 7 AS x) t WHERE x NOT IN (SELECT \"orderId\" FROM cased)",
        "SELECT x FROM (SELECT 7 AS x) t WHERE x > ALL (SELECT orderid FROM cased)",
        "SELECT x FROM (SELECT 7 AS x) t WHERE NOT coalesce(x = ANY (SELECT orderid FROM cased), false)",
        "SELECT 7 AS x EXCEPT ALL SELECT orderId FROM cased",
    ] {
        assert_eq!(server.rows("n", sql).await, json!([[7]]), "{sql}");
    }
    let many = "SELECT a FROM (SELECT * FROM cased) q(a, b, c, d)";
    let (status, answer) = server.query("n", &json!({ "sql": many })).await;
    assert!(status == 400 && answer["error"].to_string().contains("only 4 names"), "{answer}");
    for (sql, column) in [
        ("SELECT ab FROM (SELECT * FROM cased) t", "ab"),
        ("WITH w AS (SELECT * FROM cased) SELECT ab FROM w", "ab"),
        // A name that a statement gives in quotes is its own, as docs/sql.md says.
        ("SELECT userid FROM (SELECT 7 AS \"userId\") t", "userid"),
    ] {
        let (status, answer) = server.query("n", &json!({ "sql": sql })).await;
        let told = answer["error"].as_str().unwrap_or_default();
        assert!(
            status == 400 && told.contains(&format!("no column `{column}`")),
            "{sql}: {answer}"
        );
        assert!(told.contains("did you mean `"), "{sql}: {answer}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_behind_a_join_with_using_has_one_name_for_the_shared_column() {
    let server = TestServer::start().await;
    assert_eq!(server.ingest(&events(0..1)).await.0, 200);
    let (a, b) = ("(SELECT 1 AS id, 2 AS v) a", "(SELECT 3 AS id, 4 AS w) b");
    let left = format!("({a} LEFT JOIN {b} USING (id)) AS q(x, y, z)");
    let natural = format!("({a} NATURAL LEFT JOIN {b}) AS q(x, y, z)");
    for table in [&left, &natural, &format!("(SELECT q.* FROM {left}) AS r")] {
        for columns in ["*", "x, y, z"] {
            let sql = format!("SELECT {columns} FROM {table}");
            assert_eq!(server.rows("shop.example", &sql).await, json!([[1, 2, null]]), "{sql}");
        }
    }
    let chain =
        format!("({a} LEFT JOIN {b} USING (id) JOIN (SELECT 1 AS id, 5 AS u) c USING (id))");
    let sql = format!("SELECT x, y, z, u FROM {chain} AS q(x, y, z, u)");
    assert_eq!(server.rows("shop.example", &sql).await, json!([[1, 2, null, 5]]), "{sql}");
    let many = format!("SELECT x FROM ({a} LEFT JOIN {b} USING (id)) AS q(x, y, z, u)");
    let (status, answer) = server.query("shop.example", &json!({ "sql": many })).await;
    assert_eq!(status, 400, "{answer}");
    // ON makes no column one with another.
    let on = format!("SELECT x, y, z, u FROM ({a} LEFT JOIN {b} ON a.id = b.id) AS q(x, y, z, u)");
    assert_eq!(server.rows("shop.example", &on).await, json!([[1, 2, null, null]]));
    server.stop().await;
}
