use super::*;
use crate::references::{self, QueryScope, WantedTables};

fn check_refused(sql: &str, expected: &str) {
    match check(sql) {
        Err(error @ (SqlError::Invalid(_) | SqlError::Syntax { .. })) => {
            let text = error.to_string();
            assert!(text.contains(expected), "`{sql}` was refused with `{text}`");
        }
        other => panic!("`{sql}` gave {other:?}"),
    }
}

#[test]
fn queries_are_accepted() {
    for sql in [
        "SELECT 1",
        "SELECT * FROM events WHERE type = 'a' AND ts > now() ORDER BY seq LIMIT 10;",
        "WITH a AS (SELECT 1 AS x) SELECT x FROM a UNION ALL SELECT 2",
        "VALUES (1, 'a'), (2, 'b')",
        "EXPLAIN SELECT * FROM events",
        "EXPLAIN ANALYZE SELECT count(*) FROM events",
        "SELECT a, sort, top AS b, view FROM t",
        "SELECT a, \"sort\" FROM t ORDER BY a, sort DESC",
        "SELECT a, b, FROM t",
        "SHOW TABLES",
        "SHOW COLUMNS FROM events",
        "SHOW SCHEMAS",
        "SHOW CREATE TABLE events",
        "DESCRIBE events",
        "SELECT \"repeat\" FROM events",
        "SELECT date_bin(INTERVAL '1 hour', ts), count(*) FROM events GROUP BY 1",
        "SELECT id FROM events WHERE seq BETWEEN $1 AND $2",
    ] {
        check(sql).unwrap_or_else(|error| panic!("`{sql}` was refused: {error}"));
    }
}

#[test]
fn only_the_plan_of_a_query_takes_a_row_limit() {
    assert!(check("SELECT 1").unwrap().is_query);
    assert!(check("WITH a AS (SELECT 1) SELECT * FROM a").unwrap().is_query);
    assert!(!check("EXPLAIN SELECT 1").unwrap().is_query);
    assert!(!check("SHOW TABLES").unwrap().is_query);
    let summary = check("SUMMARIZE events FOR VERSION AS OF 'nightly'").unwrap();
    assert!(summary.is_query && summary.is_summary && summary.versions.len() == 1);
    check_refused("SUMMARIZE", "does not parse");
    check_refused("SUMMARIZE DROP TABLE events", "");
}

#[test]
fn everything_that_is_no_query_is_refused() {
    for sql in [
        "INSERT INTO events VALUES (1)",
        "DELETE FROM events",
        "UPDATE events SET id = 'x'",
        "CREATE TABLE t (a INT)",
        "CREATE EXTERNAL TABLE t (a INT) STORED AS CSV LOCATION '/etc/passwd'",
        "CREATE VIEW v AS SELECT 1",
        "DROP TABLE events",
        "COPY events TO '/tmp/x'",
        "SET datafusion.execution.batch_size = 1",
        "SHOW ALL",
        "EXPLAIN INSERT INTO events VALUES (1)",
        "EXPLAIN ANALYZE DELETE FROM events",
        "BEGIN",
        "PREPARE p AS SELECT 1",
        "TRUNCATE TABLE events",
    ] {
        let refused = matches!(check(sql), Err(SqlError::Invalid(_) | SqlError::Syntax { .. }));
        assert!(refused, "`{sql}` was accepted");
    }
    check_refused("DELETE FROM events", "only queries are allowed");
    check_refused("SHOW VIEWS", "/catalog/v1/namespaces/NAMESPACE/views");
    check_refused("EXPLAIN ANALYZE DELETE FROM events", "only queries are allowed");
    check_refused("SELECT 1 INTO t", "only queries are");
    check_refused("SELECT * FROM events FOR UPDATE", "FOR UPDATE");
    check_refused("WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a", "only queries are allowed");
}

#[test]
fn exactly_one_statement_is_allowed() {
    check_refused("SELECT 1; SELECT 2", "exactly one statement");
    check_refused("", "exactly one statement");
    check_refused("SELEC 1", "does not parse");
}

#[test]
fn table_functions_are_series_and_lists_alone() {
    check_refused("SELECT * FROM read_csv('/etc/passwd')", "table function `read_csv`");
    check_refused("SELECT * FROM events, LATERAL range(3)", "`range`");
    check_refused("SELECT * FROM range(stop => 3)", "table function `range`");
    check_refused("SELECT * FROM range(3) TABLESAMPLE (1)", "`range`");
    check_refused("SELECT * FROM generate_series(1, 3) WITH ORDINALITY", "`generate_series`");
    check_refused("SELECT * FROM unnest([1]) WITH ORDINALITY", "WITH ORDINALITY");
    // They are no tables of the namespace.
    let series = check("SELECT range FROM range(3), generate_series(1, 2) g, unnest([1])").unwrap();
    let wanted = references::wanted(&series.statement, "n", QueryScope::Namespace).unwrap();
    assert_eq!(wanted.wanted, WantedTables::Named(Vec::new()));
    let values = check("SELECT array_length(Range(1, 1000000000)), unnest([1])").unwrap();
    for more in [series, values] {
        assert!(more.reads_tables(), "its work is more than its length");
    }
    assert!(!check("SELECT [1], \"range\"").unwrap().reads_tables());
}

#[test]
fn long_and_deep_statements_are_refused() {
    let plus = format!("SELECT 1{}", " + 1".repeat(20_000 / 8));
    check_refused(&plus, "operators");
    let many = format!("SELECT {}", "1 OR ".repeat(20_000));
    check_refused(&many, "longer than");
    let unions = format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(300));
    check_refused(&unions, "UNION");
    let deep = format!("SELECT {}1{}", "(".repeat(150), ")".repeat(150));
    check_refused(&deep, "nested");
    check_refused(&format!("SELECT {} true", "NOT ".repeat(200)), "nested");
    let cases = format!("SELECT {}1{}", "CASE WHEN true THEN ".repeat(150), " END".repeat(150));
    check_refused(&cases, "nested");
    let nested = |n: usize| {
        let inner = "seq IN (SELECT seq FROM events WHERE ".repeat(n);
        format!("SELECT 1 FROM events WHERE {inner}true{}", ")".repeat(n))
    };
    check(&nested(8)).unwrap();
    check_refused(&nested(9), "queries in expressions");
    let joins = |n: usize| format!("SELECT 1 FROM events{}", " CROSS JOIN events".repeat(n));
    check(&joins(40)).unwrap();
    check_refused(&joins(41), "more than 40 JOINs");
    check_refused(&format!("SELECT 1 FROM a{}", ", a".repeat(40)), "more than 40 tables");
    check_refused(&format!("SELECT '{}'", "x".repeat(70_000)), "longer than");
}

#[test]
fn a_statement_at_the_bounds_is_accepted_without_overflow() {
    check(&format!("SELECT 1{}", " + 1".repeat(OPERATORS_MAX - 10))).unwrap();
    check(&format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(SET_OPERATIONS_MAX))).unwrap();
}

#[test]
fn comparisons_with_lists_within_one_another_are_refused() {
    let nested = |word: &str, times: usize| {
        let one = |inner: String, _| format!("(true = {word}(array[{inner}, true]))");
        format!("SELECT {}", (0..times).fold("true".to_owned(), one))
    };
    check(&nested("ALL", 4)).unwrap();
    check(&nested("ALL", 5)).unwrap_err();
    check(&format!("SELECT true >= ANY({})", &nested("ALL", 4)[7..])).unwrap_err();
}

#[test]
fn common_table_expressions_that_double_are_refused() {
    let mut sql = String::from("WITH c0 AS (SELECT 1 AS x)");
    for n in 1..30 {
        sql += &format!(", c{n} AS (SELECT a.x FROM c{0} a, c{0} b)", n - 1);
    }
    check_refused(&format!("{sql} SELECT * FROM c29"), "more than 250 tables");
    check("WITH a AS (SELECT * FROM events), b AS (SELECT * FROM a, a c) SELECT * FROM b, b d")
        .unwrap();
}

#[test]
fn recursion_and_long_chains_of_common_table_expressions_are_refused() {
    let endless =
        "WITH RECURSIVE t AS (SELECT 'x' AS s UNION ALL SELECT s || s FROM t) SELECT * FROM t";
    check_refused(endless, "WITH RECURSIVE is not available");
    check_refused(&format!("SELECT * FROM ({endless})"), "WITH RECURSIVE is not available");
    let chain = |n: usize| {
        let links: String =
            (1..n).map(|n| format!(", c{n} AS (SELECT x FROM c{})", n - 1)).collect();
        format!("WITH c0 AS (SELECT 1 AS x){links} SELECT * FROM c{}", n - 1)
    };
    check(&chain(CTES_MAX)).unwrap();
    check_refused(&chain(CTES_MAX + 1), "more than 50 common table expressions");
    let nested = |n: usize| {
        let one = |inner: String, n: usize| format!("WITH c{n} AS ({inner}) SELECT a FROM c{n}");
        (0..n).fold("SELECT 1 AS a".to_owned(), one)
    };
    check(&nested(WITH_DEPTH_MAX)).unwrap();
    check(&format!("{0} UNION ALL SELECT a FROM ({0}) q", nested(WITH_DEPTH_MAX / 2))).unwrap();
    let deep = nested(WITH_DEPTH_MAX + 1);
    check_refused(&deep, "more than 8 queries with WITH inside of one another");
    check_refused(&format!("SELECT 1 IN (SELECT a FROM ({deep}) q)"), "more than 8 queries with");
}

#[test]
fn what_doubles_with_each_query_or_column_is_refused() {
    check_refused("SELECT (id, id) FROM events", "tuples cannot be compared");
    check("SELECT count(*) FROM events GROUP BY CUBE(a, b, c), ROLLUP(d, e)").unwrap();
    let cubes = "SELECT count(*) FROM events GROUP BY CUBE(a, b, c, d, e, f), CUBE(g, h, i, j, k)";
    check_refused(cubes, "more than 10 columns");
    check("SELECT e.*, f.* FROM events e, events f").unwrap();
    check_refused(&format!("SELECT *{} FROM events", ", *".repeat(10)), "`*` more than 10 times");
}
