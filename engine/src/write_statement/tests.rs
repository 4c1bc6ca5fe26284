use super::*;
use crate::guard;

fn taken(sql: &str) -> WriteStatement {
    take(sql).unwrap().unwrap()
}

fn plain(text: &str) -> ColumnName {
    ColumnName { text: text.to_owned(), is_quoted: false }
}

#[test]
fn a_created_table_is_its_name_and_a_query() {
    let sql = "CREATE TABLE Daily AS\nSELECT type, count(*) AS n FROM events GROUP BY type;";
    let statement = taken(sql);
    assert_eq!((statement.namespace, statement.table.as_str()), (None, "daily"));
    let kind =
        WriteKind::Create { if_not_exists: false, replaces: false, partition_by: Vec::new() };
    assert_eq!(statement.kind, kind);
    assert_eq!(statement.query.len(), sql.len());
    assert!(statement.query.trim_start().starts_with("SELECT type"), "{}", statement.query);
    guard::check(&statement.query).unwrap();
}

#[test]
fn the_parts_of_a_created_table_are_read() {
    let statement = taken(
        "create table if not exists \"My\".shop.\"Daily T\" using iceberg partitioned by (type, day(ts)) as (with a as (values (1)) select * from a)",
    );
    assert_eq!(statement.namespace.as_deref(), Some("My.shop"));
    assert_eq!(statement.table, "Daily T");
    let partition_by = vec![
        PartitionColumn { column: plain("type"), is_by_day: false },
        PartitionColumn { column: plain("ts"), is_by_day: true },
    ];
    assert_eq!(
        statement.kind,
        WriteKind::Create { if_not_exists: true, replaces: false, partition_by }
    );
    let replacing = taken("CREATE OR REPLACE TABLE t AS SELECT 1");
    let partition_by = Vec::new();
    let kind = WriteKind::Create { if_not_exists: false, replaces: true, partition_by };
    assert_eq!(replacing.kind, kind);
    assert!(statement.query.trim_start().starts_with("(with a"), "{}", statement.query);
}

#[test]
fn an_insert_has_columns_or_none() {
    let statement = taken("INSERT INTO t (a, \"B\") VALUES (1, 'é')");
    let quoted = ColumnName { text: "B".to_owned(), is_quoted: true };
    let columns = Some(vec![plain("a"), quoted]);
    assert_eq!(statement.kind, WriteKind::Insert { columns });
    assert_eq!(statement.query.trim_start(), "VALUES (1, 'é')");
    for sql in ["insert into t values (1)", "/* x */ INSERT INTO TABLE t ((SELECT 1))"] {
        assert_eq!(taken(sql).kind, WriteKind::Insert { columns: None }, "{sql}");
    }
}

#[test]
fn places_in_errors_are_those_of_the_statement() {
    let statement = taken("INSERT INTO té (a)\n  SELECT count(*) fro events");
    match guard::check(&statement.query) {
        Err(SqlError::Syntax { line, column, .. }) => assert_eq!((line, column), (2, 23)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn other_statements_are_not_taken() {
    for sql in [
        "SELECT 1",
        "CREATE VIEW v AS SELECT 1",
        "CREATE OR REPLACE VIEW v AS SELECT 1",
        "CREATE OR TABLE t AS SELECT 1",
        "CREATE TEMPORARY TABLE t AS SELECT 1",
        "DROP TABLE t",
        "UPDATE t SET a = 1",
        "DELETE FROM t",
        "COPY t TO 'x'",
        "\"insert\" into t values (1)",
        "",
    ] {
        assert_eq!(take(sql).unwrap(), None, "{sql}");
    }
}

#[test]
fn what_cannot_be_written_is_told() {
    for (sql, told) in [
        ("CREATE OR REPLACE TABLE IF NOT EXISTS t AS SELECT 1", "leave OR REPLACE"),
        ("CREATE TABLE t (a int)", "takes its columns from its query"),
        ("CREATE TABLE t", "needs AS"),
        ("CREATE TABLE t AS DELETE FROM x", "SELECT, WITH, VALUES or FROM"),
        ("CREATE TABLE t PARTITIONED BY (bucket(4, a)) AS SELECT 1 AS a", "day(…)"),
        ("CREATE TABLE t USING delta AS SELECT 1", "Iceberg"),
        ("INSERT OVERWRITE t SELECT 1", "INSERT INTO"),
        ("INSERT INTO t DEFAULT VALUES", "SELECT, WITH, VALUES or FROM"),
        ("INSERT INTO t (a SELECT 1", "`)` is missing"),
        ("INSERT INTO", "the name of a table"),
    ] {
        let error = take(sql).unwrap_err().to_string();
        assert!(error.contains(told), "{sql}: {error}");
    }
}

#[test]
fn a_column_is_found_by_its_name() {
    let names = || ["id", "Id", "userId"].into_iter();
    assert_eq!(plain("Id").find(names()), Some(1));
    assert_eq!(plain("USERID").find(names()), Some(2));
    assert_eq!(plain("ID").find(names()), None, "two differ by case alone");
    let quoted = ColumnName { text: "userid".to_owned(), is_quoted: true };
    assert_eq!(quoted.find(names()), None);
}
