use super::*;
use crate::grammar::Grammar;
use datafusion::sql::sqlparser::parser::Parser;

fn tables() -> TableColumns {
    let columns = |names: &[&str], is_of_events| {
        let column = |name: &&str| RelationColumn { name: (*name).to_owned(), is_of_events };
        names.iter().map(column).collect()
    };
    let events: Vec<RelationColumn> =
        columns(&["id", "type", "ts", "key", "collection", "meta", "do_class", "method"], true);
    HashMap::from([
        (("n".to_owned(), "events".to_owned()), events.clone()),
        (("other".to_owned(), "events".to_owned()), events),
        (("theirs".to_owned(), "events".to_owned()), columns(&["id", "key"], false)),
        (("n".to_owned(), "own".to_owned()), columns(&["id", "key", "pk", "statusCode"], false)),
    ])
}

fn check(sql: &str, expected: &str) {
    let parsed = |sql: &str| Parser::parse_sql(&Grammar::default(), sql).unwrap().remove(0);
    let mut statement = parsed(sql);
    resolve(&mut statement, "n", &tables());
    assert_eq!(statement.to_string(), parsed(expected).to_string(), "{sql}");
}

#[test]
fn an_alias_is_the_name_of_its_column_in_every_clause() {
    check(
        "SELECT max(timestamp) OVER (PARTITION BY DOCID) FROM events WHERE \"table\" = 'a' ORDER BY pk",
        "SELECT max(ts) OVER (PARTITION BY key) FROM events WHERE collection = 'a' ORDER BY key",
    );
    check(
        "SELECT count(*) FROM events e GROUP BY e.docId HAVING min(_meta) > 'a'",
        "SELECT count(*) FROM events e GROUP BY e.key HAVING min(meta) > 'a'",
    );
    check(
        "SELECT count(*) FROM events a JOIN events b ON a.docId = b.pk",
        "SELECT count(*) FROM events a JOIN events b ON a.key = b.key",
    );
    check("SELECT 1 FROM events WHERE docId = docId", "SELECT 1 FROM events WHERE key = key");
}

#[test]
fn a_table_is_the_one_of_its_namespace() {
    check(
        "SELECT events.docId FROM other.events WHERE pk = '1'",
        "SELECT events.key AS docId FROM other.events WHERE key = '1'",
    );
    let same = "SELECT docId FROM theirs.events WHERE pk = '1'";
    check(same, same);
}

#[test]
fn a_column_keeps_the_name_that_it_was_selected_by() {
    check("SELECT docId, e.pk FROM events e", "SELECT key AS docId, e.key AS pk FROM events e");
    // Two of one name keep what tells them apart.
    check(
        "SELECT a.docId, b.docId, a.pk FROM events a JOIN events b ON a.id = b.id",
        "SELECT a.key, b.key, a.key AS pk FROM events a JOIN events b ON a.id = b.id",
    );
    check("SELECT docId AS d FROM events", "SELECT key AS d FROM events");
    check(
        "SELECT docId FROM (SELECT docId FROM events) ORDER BY docId",
        "SELECT docId FROM (SELECT key AS docId FROM events) ORDER BY docId",
    );
}

#[test]
fn an_alias_goes_through_queries_that_have_its_column() {
    check(
        "SELECT count(docId) FROM (SELECT * FROM events) q",
        "SELECT count(key) FROM (SELECT * FROM events) q",
    );
    check(
        "WITH q AS (SELECT e.* FROM events e) SELECT 1 FROM q WHERE q.timestamp > now()",
        "WITH q AS (SELECT e.* FROM events e) SELECT 1 FROM q WHERE q.ts > now()",
    );
    check(
        "SELECT * FROM events UNION ALL SELECT * FROM events ORDER BY timestamp",
        "SELECT * FROM events UNION ALL SELECT * FROM events ORDER BY ts",
    );
    check(
        "SELECT 1 FROM events e WHERE EXISTS (SELECT 1 FROM own WHERE own.id = e.docId)",
        "SELECT 1 FROM events e WHERE EXISTS (SELECT 1 FROM own WHERE own.id = e.key)",
    );
    check("EXPLAIN SELECT max(docId) FROM events", "EXPLAIN SELECT max(key) FROM events");
}

#[test]
fn a_column_of_another_table_is_not_taken_for_the_one_that_is_meant() {
    check(
        "SELECT 1 FROM events e WHERE EXISTS (SELECT 1 FROM own WHERE own.id = docId)",
        "SELECT 1 FROM events e WHERE EXISTS (SELECT 1 FROM own WHERE own.id = \"e\".key)",
    );
    check(
        "SELECT 1 FROM events, own WHERE docId = own.id",
        "SELECT 1 FROM events, own WHERE \"events\".key = own.id",
    );
    check(
        "SELECT 1 FROM (SELECT * FROM events) AS a(docId), own WHERE docId = pk",
        "SELECT 1 FROM (SELECT * FROM events) AS a(docId), own WHERE docId = pk",
    );
}

#[test]
fn members_of_the_durable_object_are_columns() {
    check("SELECT \"do\".class FROM events", "SELECT do_class AS class FROM events");
    check("SELECT e.\"do\".class AS c FROM events e", "SELECT e.do_class AS c FROM events e");
    check("SELECT max(\"do\"['class']) FROM events", "SELECT max(do_class) FROM events");
    check("SELECT max(\"do\".method) FROM events", "SELECT max(method) FROM events");
    check(
        "SELECT max(\"do\".key) FROM events AS \"do\"",
        "SELECT max(\"do\".key) FROM events AS \"do\"",
    );
}

#[test]
fn the_durable_object_is_a_value_too() {
    let whole =
        "CASE WHEN (do_class IS NULL) THEN NULL ELSE ({'class': do_class, 'method': method}) END";
    check("SELECT \"do\" FROM events", &format!("SELECT {whole} AS \"do\" FROM events"));
    check(
        "SELECT max(e.\"do\") FROM events e",
        &format!(
            "SELECT max({}) FROM events e",
            whole.replace("do_class", "e.do_class").replace(": method", ": e.method")
        ),
    );
    for sql in
        ["SELECT \"do\" FROM own", "SELECT \"do\" FROM (SELECT 1 AS \"do\", do_class FROM events)"]
    {
        check(sql, sql);
    }
}

#[test]
fn other_names_keep_their_meaning() {
    for sql in [
        // A column of the name.
        "SELECT pk, STATUSCODE FROM own",
        "SELECT max(pk) FROM events, own",
        // No column of events.
        "SELECT docId FROM own",
        "SELECT docId FROM (SELECT 1 AS key)",
        "SELECT docId FROM (SELECT upper(key) AS key FROM events)",
        "WITH events AS (SELECT 1 AS key) SELECT docId FROM events",
        // Names that the statement gives.
        "SELECT id AS timestamp FROM events ORDER BY timestamp",
        "SELECT count(*), type AS pk FROM events GROUP BY pk",
        "SELECT pk FROM (SELECT id FROM events) AS q(pk)",
        // Quotes make a name exact.
        "SELECT \"DOCID\" FROM events",
        // The column is not there.
        "SELECT max(durationMs), max(\"do\".colo), max(\"do\".nothing) FROM events",
    ] {
        check(sql, sql);
    }
}
