//! Fuzz test of statements: whatever is asked is answered or refused, in its time, without taking
//! the machine's memory. How to run it for longer: crate `icecore-fuzz`.

use crate::sql::{SqlOptions, slots::SlotsMax, tests::House};
use futures::TryStreamExt;
use icecore_engine::{allowed, error::SqlError, guard, references::QueryScope};
use icecore_fuzz::{Rng, StdRng, pick, run};
use icecore_lake::metrics::Metrics;
use icecore_schemas::{query::SqlRequest, service_table::ServiceTables};
use std::time::{Duration, Instant};

/// Memory of the queries.
const MEMORY_BYTES: usize = 128 << 20;
/// What one statement may add to the memory of the process: what queries may reckon, and about as
/// much for what is not reckoned. Other tests run in the same process.
const RESIDENT_BYTES_MAX: usize = 1 << 30;
/// Longest a statement may run.
const TIMEOUT: Duration = Duration::from_millis(800);
/// Longest until it is answered, on a busy machine.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// Longest until its threads are free again: a kernel of one batch may run past the answer.
const RELEASE_TIME_MAX: Duration = Duration::from_secs(60);
const CONCURRENT_MAX: usize = 2;
/// Deepest expression.
const DEPTH_MAX: u32 = 4;
/// Longest text that is written out.
const TEXT_BYTES_MAX: usize = 20_000;

/// Functions, the kinds of their arguments and of their answer: text, pattern, integer, float, time,
/// list, nested list, json, any.
const SIGNATURES: &[(&str, &str, char)] = &[
    ("replace", "ttt", 't'),
    ("repeat", "ti", 't'),
    ("lpad", "tit", 't'),
    ("rpad", "tit", 't'),
    ("concat", "ttttt", 't'),
    ("concat_ws", "tttt", 't'),
    ("regexp_replace", "tptG", 't'),
    ("regexp_match", "tp", 'l'),
    ("regexp_like", "tp", 'a'),
    ("regexp_count", "tp", 'i'),
    ("regexp_instr", "tp", 'i'),
    ("translate", "ttt", 't'),
    ("overlay", "ttii", 't'),
    ("encode", "tE", 't'),
    ("decode", "tE", 'a'),
    ("upper", "t", 't'),
    ("initcap", "t", 't'),
    ("reverse", "t", 't'),
    ("left", "ti", 't'),
    ("right", "ti", 't'),
    ("substr", "tii", 't'),
    ("substr_index", "tti", 't'),
    ("split_part", "tti", 't'),
    ("levenshtein", "tt", 'i'),
    ("find_in_set", "tt", 'i'),
    ("strpos", "tt", 'i'),
    ("chr", "i", 't'),
    ("to_hex", "i", 't'),
    ("factorial", "i", 'i'),
    ("gcd", "ii", 'i'),
    ("lcm", "ii", 'i'),
    ("power", "ff", 'f'),
    ("power", "ii", 'i'),
    ("round", "fi", 'f'),
    ("trunc", "fi", 'f'),
    ("log", "ff", 'f'),
    ("date_bin", "IS", 'S'),
    ("date_trunc", "US", 'S'),
    ("date_part", "US", 'f'),
    ("to_char", "St", 't'),
    ("to_timestamp", "tt", 'S'),
    ("to_timestamp_nanos", "i", 'S'),
    ("to_timestamp", "f", 'S'),
    ("from_unixtime", "i", 'S'),
    ("make_date", "iii", 'a'),
    ("make_time", "iii", 'a'),
    ("to_date", "tt", 'a'),
    ("digest", "tD", 'a'),
    ("json_extract", "jt", 't'),
    ("json_extract_string", "jt", 't'),
    ("json_get", "jt", 't'),
    ("json_get_array", "jt", 'l'),
    ("json_length", "j", 'i'),
    ("make_array", "ttt", 'l'),
    ("make_array", "lll", 'n'),
    ("array_append", "lt", 'l'),
    ("array_prepend", "tl", 'l'),
    ("array_concat", "lll", 'l'),
    ("array_union", "ll", 'l'),
    ("array_intersect", "ll", 'l'),
    ("array_except", "ll", 'l'),
    ("array_to_string", "lt", 't'),
    ("array_to_string", "ltt", 't'),
    ("string_to_array", "tt", 'l'),
    ("array_slice", "liii", 'l'),
    ("array_element", "li", 't'),
    ("array_replace_all", "ltt", 'l'),
    ("array_remove_n", "lti", 'l'),
    ("array_position", "lti", 'i'),
    ("array_sort", "l", 'l'),
    ("array_distinct", "l", 'l'),
    ("array_has_any", "ll", 'a'),
    ("flatten", "n", 'l'),
    ("coalesce", "ttt", 't'),
    ("coalesce", "iii", 'i'),
    ("nullif", "tt", 't'),
    ("nullif", "ii", 'i'),
    ("greatest", "ttt", 't'),
    ("greatest", "iii", 'i'),
    ("nvl2", "ttt", 't'),
    ("nvl2", "iii", 'i'),
];
const NUMBERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "2",
    "7",
    "30",
    "1000",
    "100000",
    "2147483647",
    "-2147483648",
    "4294967296",
    "9223372036854775807",
    "-9223372036854775808",
    "NULL",
    "seq",
    "seq * seq",
];
const FLOATS: &[&str] = &[
    "0.0",
    "-0.0",
    "1e308",
    "-1e308 * 10",
    "1e-320",
    "0.5",
    "NULL",
    "CAST('NaN' AS DOUBLE)",
    "CAST('inf' AS DOUBLE)",
    "CAST(seq AS DOUBLE)",
    "99999999999999999999999999999999999999.5",
];
const TIMES: &[&str] = &[
    "ts",
    "now()",
    "NULL",
    "TIMESTAMP '0001-01-01'",
    "TIMESTAMP '9999-12-31T23:59:59'",
    "ts + INTERVAL '1000000 years'",
    "ts - INTERVAL '9 months 3 days'",
    "to_timestamp_micros(seq)",
    "DATE '2026-02-28'",
    "CAST(9223372036854775807 AS TIMESTAMP)",
];
const INTERVALS: &[&str] = &[
    "INTERVAL '1 second'",
    "INTERVAL '0 seconds'",
    "INTERVAL '-1 day'",
    "INTERVAL '1 month'",
    "INTERVAL '1 nanosecond'",
    "INTERVAL '178956970 years'",
    "NULL",
];
const UNITS: &[&str] = &["'hour'", "'week'", "'century'", "'epoch'", "'x'", "NULL", "type"];
const PATTERNS: &[&str] = &[
    "'.'",
    "''",
    "'(.*)(.*)(.*)(.*)$'",
    "'(a|b|)*'",
    "'\\w{50}'",
    "'(\\w{100}){9}'",
    "'((\\w{100}){100}){100}'",
    "'('",
    "'x{0,1000}{0,1000}'",
    "'\\p{L}{200}'",
    "'^(e|e-)+$'",
    "NULL",
    "id",
    "'[' || id",
    "'(?i)E'",
    "'\\b'",
    "'(?P<n>.)'",
];
const TYPES: &[&str] = &[
    "VARCHAR",
    "INT",
    "BIGINT",
    "DOUBLE",
    "DECIMAL(38, 10)",
    "DECIMAL(76, 76)",
    "TIMESTAMP",
    "DATE",
    "TIME",
    "BOOLEAN",
    "BYTEA",
    "SMALLINT",
    "INTERVAL",
    "BIGINT UNSIGNED",
    "DECIMAL(5, -3)",
];
const OPERATORS: &[&str] =
    &["+", "-", "*", "/", "%", "&", "|", "<<", ">>", "=", "<", "IS DISTINCT FROM", "AND", "OR"];

const JOIN_CONDITIONS: &[&str] =
    &["true", "j.type = j0.type", "j.seq < j0.seq", "j.id || j0.id ~ 'e'", "j.seq % 3 = j0.seq"];

#[derive(Debug)]
struct Case {
    sql: String,
    params: Vec<serde_json::Value>,
}

#[test]
fn fuzz_statements_are_answered_or_refused_within_their_bounds() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let house = runtime.block_on(async {
        let options = SqlOptions {
            memory_bytes_max: MEMORY_BYTES,
            timeout_max: TIMEOUT,
            rows_max: 10_000,
            concurrent: SlotsMax { all: CONCURRENT_MAX, namespace: CONCURRENT_MAX, token: 1 },
            metrics: Metrics::default(),
            tables: ServiceTables::default(),
            filters_visibility: false,
            workers: None,
        };
        let house = House::with(options).await;
        house.take(1..3_000);
        house.commit().await;
        house.trim();
        house.take(3_000..5_000);
        house
    });
    run(
        70,
        |random| Case { sql: statement(random), params: params(random) },
        |case, _| runtime.block_on(check(&house, case)),
    );
}

#[expect(clippy::disallowed_methods, reason = "how long a statement takes is what is tested")]
async fn check(house: &House, case: &Case) {
    let resident = resident_peak();
    let started = Instant::now();
    let named = guard::check(&case.sql).map_or(0, |checked| checked.params_max);
    let params = case.params.iter().take(named).cloned().collect();
    let request = SqlRequest { sql: case.sql.clone(), params, ..SqlRequest::default() };
    let outcome = async {
        let answer = house
            .sql
            .query(&[house.ns.name().to_owned()], QueryScope::Namespace, None, request)
            .await?;
        answer.batches.try_for_each(|_| async { Ok(()) }).await
    };
    if let Err(error) = outcome.await {
        assert!(!matches!(error, SqlError::Internal(_) | SqlError::Busy(_)), "{error:?}");
        let text = error.to_string();
        assert!(!text.is_empty() && text.len() < 3_000, "{} bytes: {text}", text.len());
    }
    let answered = started.elapsed();
    assert!(answered < ANSWER_TIME_MAX, "answered after {answered:?}");
    let idle = tokio::time::timeout(RELEASE_TIME_MAX, house.sql.idle());
    assert!(idle.await.is_ok(), "its thread is not free after {RELEASE_TIME_MAX:?}");
    let grown = resident_peak().saturating_sub(resident);
    assert!(grown < RESIDENT_BYTES_MAX, "the process grew by {} MiB", grown >> 20);
}

/// The most memory the process ever had; 0 where that is not told.
fn resident_peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok());
    kib.unwrap_or(0) << 10
}

fn params(random: &mut StdRng) -> Vec<serde_json::Value> {
    let length = if random.random_range(0..10) == 0 { 500_000 } else { 40 };
    vec!["x".repeat(length).into(), random.random::<i64>().into(), serde_json::Value::Null]
}

fn statement(random: &mut StdRng) -> String {
    let body = match random.random_range(0..10) {
        0 => doubling(random),
        1 => {
            let more: String = (0..random.random_range(1..5))
                .map(|n| format!(" JOIN events j{n} ON {}", pick(random, JOIN_CONDITIONS)))
                .collect();
            format!(
                "SELECT count(*), max({}) FROM events j{more}",
                pick(random, &["j.id || j0.id", "j.seq"])
            )
        }
        2 => format!(
            "SELECT {}, {} OVER (PARTITION BY {} ORDER BY seq ROWS {} PRECEDING) FROM events",
            expr(random, 1, 't'),
            aggregate(random),
            expr(random, 2, 'a'),
            pick(random, &["1", "UNBOUNDED", "18446744073709551615", "1000"]),
        ),
        3 | 4 => format!(
            "SELECT {}, {} FROM events WHERE {} GROUP BY {}",
            aggregate(random),
            aggregate(random),
            expr(random, 3, 'b'),
            pick(random, &["type", "id", "CUBE(type, id, seq)", "id || id", "1", "ROLLUP(type)"]),
        ),
        5 => wide(random),
        _ => {
            let columns: Vec<String> =
                (0..random.random_range(1..4)).map(|_| expr(random, DEPTH_MAX, 'a')).collect();
            let filter = expr(random, 3, 'b');
            let order = expr(random, 2, 'a');
            format!("SELECT {} FROM events WHERE {filter} ORDER BY {order}", columns.join(", "))
        }
    };
    match random.random_range(0..12) {
        0 => format!("EXPLAIN {body}"),
        1 => format!("EXPLAIN VERBOSE {body}"),
        2 => format!("SELECT * FROM ({body}) LIMIT {}", pick(random, NUMBERS)),
        3 => format!("({body}) UNION ALL ({body})"),
        _ => body,
    }
}

/// Queries around queries, each with its column several times in one.
fn doubling(random: &mut StdRng) -> String {
    const STEPS: &[&str] = &[
        "x || x",
        "concat(x, x, x)",
        "replace(x, 'e', x)",
        "[x, x]",
        "array_concat(x, x)",
        "x + x",
        "coalesce(x, x)",
        "encode(x, 'hex')",
        "CASE WHEN x = x THEN x ELSE x END",
        "lpad(x, 99999, x)",
        "regexp_replace(x, '.', x, 'g')",
        "greatest(x, x)",
        "upper(x || x)",
        "array_to_string([x, x], x)",
    ];
    let step = *pick(random, STEPS);
    let first = *pick(random, &["id", "seq", "'abc'", "[id]", "repeat(id, 1000)", "$1"]);
    let mut sql = format!("SELECT {first} AS x FROM events");
    for _ in 0..random.random_range(2..45) {
        let step = if random.random_range(0..8) == 0 { pick(random, STEPS) } else { step };
        let limit = *pick(random, &["", "", " LIMIT 100", " WHERE x IS NOT NULL"]);
        sql = format!("SELECT {step} AS x FROM ({sql}){limit}");
    }
    let last = *pick(random, &["x", "count(x)", "max(x)", "array_agg(x)", "count(DISTINCT x)"]);
    format!("SELECT {last} FROM ({sql})")
}

/// Long lists of everything.
fn wide(random: &mut StdRng) -> String {
    let part = expr(random, 2, 't');
    let times = random.random_range(2..2_000).min(60_000 / (part.len() + 10)).max(2);
    let list = |separator: &str| vec![part.as_str(); times].join(separator);
    match random.random_range(0..6) {
        0 => format!("SELECT id FROM events WHERE id IN ({})", list(", ")),
        1 => format!("SELECT id FROM events WHERE {} = 'x'", list(" = 'x' OR ")),
        2 => format!("SELECT concat({}) FROM events", list(", ")),
        3 => format!("SELECT [{}] FROM events", list(", ")),
        4 => {
            let columns: Vec<String> = (0..times).map(|n| format!("{part} AS c{n}")).collect();
            format!("SELECT {} FROM events", columns.join(", "))
        }
        _ => format!("VALUES ({})", list("), (")),
    }
}

fn aggregate(random: &mut StdRng) -> String {
    let value = expr(random, 3, 'a');
    match random.random_range(0..6) {
        0 => format!("string_agg({}, {})", expr(random, 3, 't'), text(random)),
        1 => format!("array_agg({value})"),
        2 => format!("percentile_cont({}) WITHIN GROUP (ORDER BY {value})", pick(random, FLOATS)),
        3 => format!("approx_percentile_cont({value}, {})", pick(random, FLOATS)),
        4 => format!("nth_value({value}, {})", pick(random, NUMBERS)),
        _ => {
            let name = pick(random, allowed::AGGREGATE);
            let distinct = pick(random, &["", "DISTINCT "]);
            format!("{name}({distinct}{value})")
        }
    }
}

fn expr(random: &mut StdRng, depth: u32, kind: char) -> String {
    if kind == 'b' {
        return condition(random, depth);
    }
    if depth == 0 {
        return leaf(random, kind);
    }
    let kind = if kind == 'a' { *pick(random, &['t', 't', 'i', 'f', 'S', 'l', 'a']) } else { kind };
    let below = |random: &mut StdRng, kind| expr(random, depth - 1, kind);
    match (kind, random.random_range(0..14)) {
        ('a', _) => {
            let name = pick(random, allowed::SCALAR);
            let count = random.random_range(0..4);
            let arguments: Vec<String> = (0..count).map(|_| below(random, 'a')).collect();
            format!("{name}({})", arguments.join(", "))
        }
        ('t', 0) => format!("({} || {})", below(random, 't'), below(random, 't')),
        ('i' | 'f', 0) => {
            let operator = pick(random, OPERATORS);
            format!("({} {operator} {})", below(random, 'i'), below(random, kind))
        }
        ('t', 1) => format!("CAST({} AS VARCHAR)", below(random, 'a')),
        ('i' | 'f' | 'S', 1) => {
            format!("TRY_CAST({} AS {})", below(random, 'a'), pick(random, TYPES))
        }
        ('t' | 'i' | 'l', 2) => format!(
            "CASE WHEN {} THEN {} ELSE {} END",
            condition(random, depth - 1),
            below(random, kind),
            below(random, kind)
        ),
        ('t' | 'i' | 'f' | 'l' | 'S' | 'n', 3..12) => {
            let fitting: Vec<_> = SIGNATURES.iter().filter(|(_, _, made)| *made == kind).collect();
            let (name, kinds, _) = pick(random, &fitting);
            let arguments: Vec<String> = kinds.chars().map(|kind| below(random, kind)).collect();
            format!("{name}({})", arguments.join(", "))
        }
        _ => leaf(random, kind),
    }
}

fn condition(random: &mut StdRng, depth: u32) -> String {
    if depth == 0 {
        return (*pick(random, &["true", "seq % 2 = 0", "actor IS NULL", "NULL", "type = 'call'"]))
            .into();
    }
    let value = expr(random, depth - 1, 't');
    match random.random_range(0..8) {
        0 => format!("{} ~ {}", expr(random, depth - 1, 't'), pick(random, PATTERNS)),
        1 => format!("{} LIKE {}", expr(random, depth - 1, 't'), expr(random, depth - 1, 't')),
        2 => format!("{} SIMILAR TO {}", expr(random, depth - 1, 't'), pick(random, PATTERNS)),
        3 => format!("{value} IN (SELECT id FROM events WHERE {})", condition(random, depth - 1)),
        4 => format!("({} AND {})", condition(random, depth - 1), condition(random, depth - 1)),
        5 => format!("{value} BETWEEN {value} AND {}", expr(random, depth - 1, 't')),
        6 => format!("EXISTS (SELECT 1 FROM events o WHERE o.id = {value})"),
        _ => format!("{value} < {}", expr(random, depth - 1, 't')),
    }
}

fn leaf(random: &mut StdRng, kind: char) -> String {
    let from = |random: &mut StdRng, list: &[&str]| (*pick(random, list)).to_owned();
    match kind {
        'i' => from(random, NUMBERS),
        'f' => from(random, FLOATS),
        'S' => from(random, TIMES),
        'I' => from(random, INTERVALS),
        'U' => from(random, UNITS),
        'p' => from(random, PATTERNS),
        'G' => from(random, &["'g'", "'gi'", "'x'", "NULL", "''"]),
        'E' => from(random, &["'hex'", "'base64'", "'x'"]),
        'D' => from(random, &["'sha512'", "'blake3'", "'x'"]),
        'l' => from(random, &["[id, type]", "[NULL, id]", "['a', 'b', id]", "NULL"]),
        'n' => from(random, &["[[id], [id, id]]", "[]", "[['a'], NULL]"]),
        'j' => from(random, &["'{\"a\": [1, {\"b\": \"\\u0041\"}]}'", "id", "repeat('[', 9999)"]),
        't' => text(random),
        _ => {
            let kind = *pick(random, &['i', 'f', 'S', 't', 't', 'l']);
            leaf(random, kind)
        }
    }
}

fn text(random: &mut StdRng) -> String {
    match random.random_range(0..12) {
        0..4 => "id".into(),
        4 => "type".into(),
        5 => "actor".into(),
        6 => "$1".into(),
        7 => "NULL".into(),
        8 => {
            let length = random.random_range(0..=TEXT_BYTES_MAX);
            format!(
                "'{}'",
                pick(random, &["x", "%", "_", "%c", "ŉ", "\\1", "$0"]).repeat(length / 2)
            )
        }
        9 => format!("repeat(id, {})", pick(random, NUMBERS)),
        10 => (*pick(random, &["''", "'\u{0}'", "'%Y%c'", "'e'", "'\\1\\1\\1'", "'ß😀'"])).into(),
        _ => "'e-1'".into(),
    }
}
