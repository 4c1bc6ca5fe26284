use super::*;
use crate::guard;
use std::fmt::Write;

/// The versions of a statement, a line each, and what is left of it.
fn points(sql: &str) -> String {
    let checked = guard::check(sql).unwrap_or_else(|error| panic!("`{sql}`: {error}"));
    let mut text = String::new();
    for TableVersion { name, table, point, .. } in &checked.versions {
        let kind = match point {
            VersionPoint::Time(expr) => format!("time {expr}"),
            VersionPoint::Version(expr) => format!("version {expr}"),
            VersionPoint::Bookmark(expr) => format!("bookmark {expr}"),
            VersionPoint::Seq(expr) => format!("seq {expr}"),
            VersionPoint::BranchSeq(seq, branch) => format!("seq {seq} of {branch}"),
            VersionPoint::SeqRange(first, last) => format!("seq {first} to {last}"),
        };
        writeln!(text, "{name} | {table} | {kind}").unwrap();
    }
    text + &checked.statement.to_string()
}

fn check_point(behind: &str, expected: &str) {
    let sql = format!("SELECT id FROM events {behind}");
    let found = points(&sql);
    let lines: Vec<&str> = found.lines().collect();
    let [version, statement] = lines.as_slice() else { panic!("`{sql}` gave {found}") };
    let (name, point) = version.split_once(" | events | ").unwrap();
    assert_eq!(point, expected, "`{sql}`");
    assert!(statement.contains(&format!("FROM \"{name}\" ")), "`{sql}` gave {statement}");
}

fn check_refused(sql: &str, expected: &str) {
    let error = guard::check(sql).expect_err(sql).to_string();
    assert!(error.contains(expected), "`{sql}` was refused with {error}");
}

#[test]
fn every_spelling_is_a_point() {
    let time = "TIMESTAMP '2026-11-20 12:00:00'";
    for spelled in [
        format!("FOR SYSTEM_TIME AS OF {time}"),
        format!("for system_time as of {time} AS e"),
        format!("AS e FOR SYSTEM_TIME AS OF {time}"),
        format!("e FOR TIMESTAMP AS OF {time}"),
        format!("TIMESTAMP AS OF {time}"),
        format!("TIMESTAMP AS OF {time} e"),
        format!("AT (TIMESTAMP => {time})"),
        format!("AT(TIMESTAMP => {time}) AS e"),
    ] {
        check_point(&spelled, &format!("time {time}"));
    }
    for (spelled, point) in [
        ("FOR VERSION AS OF 42", "version 42"),
        ("FOR SYSTEM_VERSION AS OF 42", "version 42"),
        ("FOR VERSION AS OF 'nightly'", "version 'nightly'"),
        ("VERSION AS OF 42", "version 42"),
        ("VERSION AS OF 'main' WHERE seq < 3", "version 'main'"),
        ("/* then */ VERSION -- spark\n AS OF $1", "version $1"),
        ("AT (VERSION => 'nightly') e JOIN users u ON u.id = e.id", "version 'nightly'"),
        ("FOR BOOKMARK AS OF '00-1'", "bookmark '00-1'"),
        ("BOOKMARK AS OF '00-1'", "bookmark '00-1'"),
        ("FOR SEQ AS OF 17", "seq 17"),
        ("AT (SEQ => 17)", "seq 17"),
        ("FOR SEQ AS OF 17 OF BRANCH 'trial' AS e", "seq 17 of 'trial'"),
        ("e for seq as of 17 of branch 'trial'", "seq 17 of 'trial'"),
        ("SEQ AS OF $1 OF BRANCH $2 WHERE seq < 3", "seq $1 of $2"),
        ("AT (SEQ => 17 OF BRANCH 'trial') e", "seq 17 of 'trial'"),
        ("BETWEEN SEQ 3 AND 9", "seq 3 to 9"),
        ("BETWEEN SEQ $1 AND $2 AS e", "seq $1 to $2"),
        ("FOR TIMESTAMP AS OF now() - INTERVAL '7 days'", "time now() - INTERVAL '7 days'"),
    ] {
        check_point(spelled, point);
    }
}

#[test]
fn a_table_may_be_there_at_several_points() {
    let found = points(
        "SELECT n.id FROM events n LEFT JOIN shop.events VERSION AS OF 3 t ON n.id = t.id, \
         events VERSION AS OF 3 AS u, events FOR SEQ AS OF 4",
    );
    assert_eq!(
        found,
        "events FOR VERSION AS OF 3 | events | version 3\n\
         events FOR VERSION AS OF 3  | events | version 3\n\
         events FOR SEQ AS OF 4 | events | seq 4\n\
         SELECT n.id FROM events n LEFT JOIN shop.\"events FOR VERSION AS OF 3\" t ON n.id = t.id, \
         \"events FOR VERSION AS OF 3 \" AS u, \"events FOR SEQ AS OF 4\" AS events"
    );
    let sql = "SELECT a.id FROM shop.events FOR SEQ AS OF 4 a, Shop.Events FOR SEQ AS OF 4 b, \"Shop\".events FOR SEQ AS OF 4 c";
    let versions = guard::check(sql).unwrap().versions;
    let schemas: Vec<Option<&str>> =
        versions.iter().map(|version| version.schema.as_deref()).collect();
    // Each spelling has an entry of its own.
    assert_eq!(schemas, [Some("shop"), Some("shop"), Some("Shop")]);
}

#[test]
fn the_name_of_another_table_is_not_taken() {
    let sql = "SELECT a.id FROM \"events FOR SEQ AS OF 4\" a, events FOR SEQ AS OF 4 b";
    let checked = guard::check(sql).unwrap();
    assert_eq!(checked.versions[0].name, "events FOR SEQ AS OF 4 ");
    let long = |end: &str| format!("events FOR VERSION AS OF '{}{end}'", "x".repeat(500));
    let sql = format!("SELECT a.id FROM {} a, {} b", long("1"), long("2"));
    let versions = guard::check(&sql).unwrap().versions;
    assert_ne!(versions[0].name, versions[1].name);
    assert!(versions[0].name.len() < 200, "{}", versions[0].name);
    // Points of two tables have other words, too, and the same point has the same ones.
    let of_users = |end: &str| long(end).replace("events", "users");
    let sql = format!("{sql}, {} c, {} d", of_users("3"), of_users("1"));
    let versions = guard::check(&sql).unwrap().versions;
    let words: Vec<&str> = versions.iter().map(TableVersion::words).collect();
    assert!(words[2] != words[0] && words[2] != words[1] && words[3] == words[0], "{words:?}");
}

#[test]
fn columns_with_the_words_of_a_version_are_columns() {
    for sql in [
        "SELECT version AS of FROM events",
        "SELECT id, version AS of, seq AS of2 FROM events",
        "SELECT DISTINCT seq AS of FROM events",
        "SELECT e.version AS of FROM events e",
        "SELECT id FROM events WHERE version BETWEEN seq AND 10",
        "SELECT id, lsn BETWEEN seq AND 10 FROM events",
        "SELECT ts AT TIME ZONE 'UTC' FROM events",
        "SELECT version, seq FROM events AS version",
        "SELECT timestamp '2026-11-20 12:00:00' AS of",
        "SELECT q.of FROM (SELECT version AS of FROM events) q",
        "SELECT id FROM events WHERE id IN (SELECT DISTINCT seq AS of FROM events)",
    ] {
        let checked = guard::check(sql).unwrap_or_else(|error| panic!("`{sql}`: {error}"));
        assert!(checked.versions.is_empty(), "`{sql}`");
    }
}

#[test]
fn a_version_of_something_else_than_a_table_is_refused() {
    let place = "a version stands behind the name of a table";
    check_refused("SELECT * FROM (SELECT 1) FOR VERSION AS OF 3", place);
    check_refused("SELECT * FROM (SELECT 1) VERSION AS OF 3", place);
    check_refused("SELECT * FROM events e VERSION AS OF 3", place);
    check_refused("SELECT * FROM (SELECT 1) q AT (VERSION => 3)", place);
    check_refused("SELECT 1 FOR VERSION AS OF 3", place);
    check_refused("SELECT * FROM events AT (VERSION => 3, 4)", "AT (…) takes one point");
    check_refused("SELECT * FROM events FOR SYSTEM_TIME FROM 1 TO 2", "takes AS OF and one time");
    check_refused("SELECT * FROM events VERSION AS OF", "does not parse");
    let branch = "OF BRANCH stands behind a seq";
    check_refused("SELECT * FROM events FOR VERSION AS OF 3 OF BRANCH 'b'", branch);
    check_refused("SELECT * FROM events FOR SEQ AS OF 3 OF BRANCH b", branch);
    let many: String =
        (0..33).map(|n| format!("JOIN events VERSION AS OF {n} t{n} ON true ")).collect();
    check_refused(&format!("SELECT 1 FROM events {many}"), "more than 32 tables a version");
}

#[test]
fn a_common_table_expression_has_no_versions_where_its_name_is_known() {
    let cte = "is a common table expression here";
    check_refused("WITH events AS (SELECT 1) SELECT * FROM events VERSION AS OF 3", cte);
    check_refused(
        "WITH events AS (SELECT 1) SELECT * FROM (SELECT * FROM Events FOR SEQ AS OF 3) q",
        cte,
    );
    check_refused("WITH e AS (SELECT 1), f AS (SELECT * FROM e VERSION AS OF 3) SELECT 1", cte);
    for sql in [
        "WITH events AS (SELECT * FROM events VERSION AS OF 3) SELECT * FROM events",
        "WITH a AS (SELECT * FROM events VERSION AS OF 3), events AS (SELECT 1) SELECT * FROM a",
        "WITH events AS (SELECT 1) SELECT * FROM shop.events VERSION AS OF 3",
        "SELECT * FROM events VERSION AS OF 3 e, (WITH events AS (SELECT 1 AS x) SELECT x FROM events) q",
    ] {
        guard::check(sql).unwrap_or_else(|error| panic!("`{sql}`: {error}"));
    }
}

#[test]
fn two_tables_that_are_called_the_same_need_an_alias() {
    let same = "two tables of one FROM are called `events`";
    check_refused("SELECT 1 FROM events JOIN events VERSION AS OF 3 ON true", same);
    check_refused("SELECT 1 FROM events VERSION AS OF 3, events VERSION AS OF 4", same);
    check_refused("SELECT 1 FROM users events, events VERSION AS OF 4", same);
    let fine = "SELECT 1 FROM events JOIN events VERSION AS OF 3 AS old ON true";
    guard::check(fine).unwrap();
}

#[test]
fn values_of_the_request_stand_in_points() {
    let checked = guard::check("SELECT id FROM events VERSION AS OF $2 WHERE seq = $1").unwrap();
    assert_eq!(checked.params_max, 2);
    let point = &checked.versions[0].point;
    let params = [serde_json::json!(1), serde_json::json!("it's")];
    let filled = point.with_params(&params).unwrap();
    let VersionPoint::Version(expr) = &filled else { panic!("{filled:?}") };
    assert_eq!(text_of(expr), Some("it's"));
    let error = point.with_params(&params[..1]).unwrap_err().to_string();
    assert!(error.contains("names $2"), "{error}");
}

#[test]
fn literals_with_a_zone_keep_it() {
    let shown = |sql: &str| {
        let checked = guard::check(&format!("SELECT 1 FROM events TIMESTAMP AS OF {sql}")).unwrap();
        let VersionPoint::Time(expr) = &checked.versions[0].point else { panic!("{sql}") };
        assert!(!is_of_rows(expr));
        with_zones(expr).to_string()
    };
    assert_eq!(
        shown("TIMESTAMP '2026-11-20 12:00:00+01:00' - INTERVAL '1 day'"),
        "TIMESTAMPTZ '2026-11-20 12:00:00+01:00' - INTERVAL '1 day'"
    );
    let local = "TIMESTAMP '2026-10-25 02:30:00' AT TIME ZONE 'Europe/Berlin'";
    assert_eq!(shown(local), local);
}
