use super::*;
use crate::grammar::Grammar;

fn rewritten(sql: &str) -> Result<String, String> {
    let mut statement = Parser::parse_sql(&Grammar::default(), sql).unwrap().remove(0);
    rewrite(&mut statement)?;
    Ok(statement.to_string())
}

fn check(path: &str, filter: &str) {
    let found = sql_of(path).unwrap_or_else(|| panic!("{path} is refused"));
    assert_eq!(found, format!("SELECT * FROM events{filter}"), "{path}");
}

fn between(from: &str, until: &str) -> String {
    format!(
        " WHERE ts >= CAST('{from}:00:00Z' AS TIMESTAMPTZ) AND ts < CAST('{until}:00:00Z' AS TIMESTAMPTZ)"
    )
}

#[test]
fn a_path_is_a_range_of_time() {
    let year = between("2026-01-01T00", "2027-01-01T00");
    check("r2://events/2026/**/*.jsonl", &year);
    check("events/2026/*/*/*/*.parquet", &year);
    check("events/2026/**", &year);
    let month = between("2026-12-01T00", "2027-01-01T00");
    check("s3://any-bucket/events/2026/12/**/*.parquet", &month);
    check("events/2026/12/**/**/*", &month);
    let day = between("2024-02-29T00", "2024-03-01T00");
    check("events/2024/02/29/*/*.jsonl.gz", &day);
    check("events/2024/2/29/*.parquet", &day);
    let hour = between("2026-11-20T23", "2026-11-21T00");
    check("r2://events/events/2026/11/20/23/*.parquet", &hour);
    check("events/**/*.parquet", "");
}

#[test]
fn a_level_behind_a_pattern_is_a_condition() {
    check("events/*/11/**/*.parquet", " WHERE date_part('month', ts) = 11");
    let year = between("2026-01-01T00", "2027-01-01T00");
    check("events/2026/**/14/*.parquet", &format!("{year} AND date_part('hour', ts) = 14"));
    check("events/2026/*/20/*/*.parquet", &format!("{year} AND date_part('day', ts) = 20"));
}

#[test]
fn other_paths_are_refused() {
    for path in [
        "",
        "/etc/passwd",
        "file:///etc/passwd",
        "https://example.com/events/2026/**/*.parquet",
        "r2://events",
        "r2:///events/2026/**/*.parquet",
        "events",
        "events/2026/one.parquet",
        "events/2026/*.csv",
        "events/2026/../../*.parquet",
        "events/../2026/**/*.parquet",
        "events//2026/**/*.parquet",
        "events/./2026/**/*.parquet",
        "events/{2025,2026}/**/*.parquet",
        "events/202[56]/**/*.parquet",
        "events/20?6/**/*.parquet",
        "events/26/**/*.parquet",
        "events/2026/13/**/*.parquet",
        "events/2026/02/30/**/*.parquet",
        "events/2026/11/20/24/*.parquet",
        "events/2026/11/20/14/05/*.parquet",
        "events/**/11/**/*.parquet",
        "events/year=2026/**/*.parquet",
        "2026/**/*.parquet",
        "cdc/worker/*/deltas/*.parquet",
        "cdc/worker/users/*.parquet",
        "cdc/worker/../deltas/*.parquet",
        "cdc/worker/us'ers/deltas/*.parquet",
        "other/2026/**/*.parquet",
    ] {
        assert_eq!(sql_of(path), None, "{path}");
    }
}

#[test]
fn a_call_becomes_a_query_of_its_name() {
    assert_eq!(
        rewritten(
            "SELECT ts FROM READ_PARQUET('events/**/*.parquet', filename=true, hive_partitioning := false)"
        ),
        Ok("SELECT ts FROM (SELECT * FROM events) AS read_parquet".to_owned())
    );
    let found =
        rewritten("SELECT * FROM read_json_auto('cdc/w/users/deltas/*.jsonl') AS c").unwrap();
    assert!(found.contains("collection = 'users'") && found.ends_with(") AS c"), "{found}");
    // What reads no path keeps its name, and is refused elsewhere.
    let other = "SELECT * FROM read_csv('x')";
    assert_eq!(rewritten(other), Ok(other.to_owned()));
}

#[test]
fn what_is_refused_says_what_is_accepted() {
    let check = |sql: &str, expected: &str| {
        let text = rewritten(sql).unwrap_err();
        assert!(text.contains(expected), "{sql}: {text}");
    };
    check("SELECT * FROM read_parquet('/etc/passwd')", "'events/2026/11/20/14/*.parquet'");
    check("SELECT * FROM read_parquet(['events/**/*.parquet'])", "UNION ALL");
    check("SELECT * FROM read_parquet($1)", "is a text");
    check("SELECT * FROM read_parquet()", "needs a path");
    let with_option =
        |option: &str| format!("SELECT * FROM read_json('events/**/*.jsonl', {option})");
    check(&with_option("records='x'"), "no option");
    check(&with_option("filename='x'"), "no option");
    check(
        "WITH events AS (SELECT 1) SELECT * FROM read_parquet('events/**/*.parquet')",
        "another one",
    );
}
