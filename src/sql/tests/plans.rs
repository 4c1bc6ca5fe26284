//! What plans leave out: files whose part of an answer manifests have, and those that a limit makes needless.

use super::*;
use arrow::{array::AsArray, datatypes::Int64Type, util::display::array_value_to_string};
use icecore_fuzz::{Rng, SeedableRng, StdRng, pick};

/// Two types on three days, six files.
async fn committed() -> House {
    let house = House::new().await;
    house.take(1..60);
    house.commit().await;
    house.trim();
    assert_eq!(house.files("SELECT id FROM events").await, 6);
    house
}

/// The first columns of an answer, a text for each row, in the order of the texts.
async fn sorted_rows(house: &House, sql: &str, columns: usize) -> Vec<String> {
    let batches = house.ask(asked(sql)).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let mut rows = Vec::new();
    for batch in batches {
        for at in 0..batch.num_rows() {
            let values = batch.columns()[..columns].iter();
            let values = values.map(|column| array_value_to_string(column, at).unwrap());
            rows.push(values.collect::<Vec<_>>().join("|"));
        }
    }
    rows.sort_unstable();
    rows
}

/// The numbers in the first column of an answer, in its order.
async fn seqs(house: &House, sql: &str) -> Vec<i64> {
    let batches = house.ask(asked(sql)).await.unwrap();
    let column =
        |batch: &RecordBatch| batch.column(0).as_primitive::<Int64Type>().values().to_vec();
    batches.iter().flat_map(column).collect()
}

#[tokio::test]
async fn files_whose_manifest_has_the_answer_are_not_read() {
    let house = committed().await;
    for (sql, files) in [
        ("SELECT type, count(*) FROM events GROUP BY type", 0),
        ("SELECT date_trunc('day', ts) AS day, count(*) FROM events GROUP BY day", 0),
        ("SELECT CAST(ts AS DATE) AS day, type, count(actor) FROM events GROUP BY day, type", 0),
        ("SELECT DISTINCT type FROM events", 0),
        ("SELECT min(type), max(type) FROM events", 0),
        ("SELECT count(id), count(actor), count(user_id) FROM events", 0),
        ("SELECT count(*) FROM events WHERE type = 'order'", 0),
        ("SELECT count(*) FROM events WHERE type IN ('order', 'nothing')", 0),
        ("SELECT count(*) FROM events WHERE ts >= '2025-10-10' AND ts < '2025-10-11'", 0),
        ("SELECT count(*) FROM events WHERE seq < 1000 AND (seq > 0 OR id = 'x')", 0),
        // The second half of a day, and all of the next.
        ("SELECT count(*) FROM events WHERE ts >= '2025-10-10T12:00:00Z'", 2),
        // The last day has the greatest, and the first one the least.
        ("SELECT max(seq) FROM events", 2),
        ("SELECT count(*), max(seq), min(ts) FROM events", 4),
        ("SELECT type, max(seq) FROM events GROUP BY type", 2),
        // No row of one type has an actor, and none at all a user.
        ("SELECT actor, count(*) FROM events GROUP BY actor", 3),
        ("SELECT type, actor, max(seq) FROM events GROUP BY type, actor", 4),
        ("SELECT count(DISTINCT actor) FROM events", 3),
        ("SELECT DISTINCT user_id FROM events", 0),
        // Rows tell these.
        ("SELECT date_trunc('hour', ts) AS hour, count(*) FROM events GROUP BY hour", 6),
        ("SELECT key, count(*) FROM events GROUP BY key", 6),
        ("SELECT count(DISTINCT key) FROM events", 6),
        ("SELECT max(id) FROM events", 6),
        ("SELECT type, count(*), sum(seq) FROM events GROUP BY type", 6),
        ("SELECT count(*) FILTER (WHERE type = 'order') FROM events", 6),
    ] {
        assert_eq!(house.files(sql).await, files, "{sql}");
    }
    expect_test::expect![[r#"
        +-------+----------+--------+---------+
        | type  | count(*) | lowest | highest |
        +-------+----------+--------+---------+
        | call  | 30       | 1      | 59      |
        | order | 29       | 2      | 58      |
        +-------+----------+--------+---------+"#]]
    .assert_eq(
        &house
            .shown(
                "SELECT type, count(*), min(seq) AS lowest, max(seq) AS highest FROM events GROUP BY type ORDER BY type",
            )
            .await,
    );
}

#[tokio::test]
async fn a_text_that_is_the_same_in_all_rows_of_a_file_is_as_one_that_is_read() {
    let house = committed().await;
    for (condition, rows) in [
        ("type IN ('call', id)", 30),
        ("type NOT IN ('call', id)", 29),
        ("id IN ('call', type)", 0),
        ("CASE WHEN type = 'order' THEN length(id) ELSE 0 END > 0", 29),
        ("concat(type, '-', id) LIKE 'call-%'", 30),
        ("upper(type) = 'ORDER' AND id <> type", 29),
        ("(type IS NULL OR type > 'call') AND length(id) > 0", 29),
    ] {
        let sql = format!("SELECT count(*) FROM events WHERE {condition}");
        assert_eq!(house.count(&sql).await, rows, "{condition}");
    }
    // The sum is what only rows tell.
    let sql = "SELECT type, upper(type), count(*), sum(seq) FROM events GROUP BY 1, 2";
    assert_eq!(sorted_rows(&house, sql, 3).await, ["call|CALL|30", "order|ORDER|29"]);
}

#[tokio::test]
async fn rows_of_the_log_are_added_to_what_manifests_count() {
    let house = committed().await;
    house.take(60..65);
    let counts = "SELECT type, count(*), max(seq) AS highest FROM events GROUP BY type";
    assert_eq!(sorted_rows(&house, counts, 3).await, ["call|32|63", "order|32|64"]);
    assert_eq!(house.files("SELECT type, count(*) FROM events GROUP BY type").await, 0);
    assert_eq!(house.count("SELECT count(*) FROM events WHERE type = 'call'").await, 32);
    assert_eq!(house.count("SELECT max(seq) FROM events").await, 64);
}

#[tokio::test]
async fn a_file_with_deleted_rows_is_read() {
    let house = committed().await;
    let two = file_of(&house, 2).await;
    let deletes = position_deletes(&[(two.file_path(), 0)]);
    commit_deletes(&house, &[], vec![(two.partition().clone(), deletes)]).await;
    let counts = "SELECT type, count(*), min(seq) AS lowest FROM events GROUP BY type";
    assert_eq!(sorted_rows(&house, counts, 3).await, ["call|30|1", "order|28|4"]);
    assert_eq!(house.files("SELECT type, count(*) FROM events GROUP BY type").await, 1);
    assert_eq!(house.count("SELECT count(*) FROM events WHERE type = 'order'").await, 28);
}

#[tokio::test]
async fn a_part_of_a_union_is_read_where_the_other_is_known() {
    let house = committed().await;
    let both = "SELECT type FROM events UNION ALL SELECT key AS kind FROM events";
    let counts = format!("SELECT type, count(*) FROM ({both}) WHERE type <> 'k3' GROUP BY type");
    assert_eq!(
        sorted_rows(&house, &counts, 2).await,
        [
            "call|30", "k0|5", "k1|6", "k2|6", "k4|6", "k5|6", "k6|6", "k7|6", "k8|6", "k9|6",
            "order|29",
        ],
    );
    let counts = format!("SELECT count(*), min(type), max(type) FROM ({both})");
    assert_eq!(sorted_rows(&house, &counts, 3).await, ["118|call|order"]);
}

const KEYS: [&[&str]; 8] = [
    &[],
    &["type"],
    &["type", "date_trunc('day', ts)"],
    &["CAST(ts AS DATE)"],
    &["date_trunc('month', ts)"],
    &["date_trunc('hour', ts)"],
    &["actor"],
    &["type", "seq > 0"],
];
const MEASURES: [&str; 12] = [
    "count(*)",
    "count(1)",
    "count(actor)",
    "count(user_id)",
    "count(duration_ms)",
    "min(seq)",
    "max(seq)",
    "min(ts)",
    "max(date_trunc('day', ts))",
    "max(type)",
    "min(key)",
    "max(duration_ms)",
];
const MORE_CONDITIONS: [&str; 8] = [
    "true",
    "ts >= '2025-10-10'",
    "ts < TIMESTAMP '2025-10-11 00:00:00' AND type <> 'order'",
    "CAST(ts AS DATE) > DATE '2025-10-09'",
    "date_trunc('day', ts) IN (TIMESTAMP '2025-10-10', TIMESTAMP '2025-10-12')",
    "type = 'order' AND seq >= 2 AND seq <= 58",
    "seq < 1000 AND actor IS NOT NULL",
    "NOT (type = 'call') OR seq > 0",
];
/// Statements that are asked both ways.
const CASES: usize = 120;

#[tokio::test]
async fn an_answer_is_the_same_with_and_without_what_manifests_say() {
    let house = committed().await;
    house.take(60..90);
    house.commit().await;
    house.trim();
    let deleted = file_of(&house, 17).await;
    let deletes = position_deletes(&[(deleted.file_path(), 1)]);
    commit_deletes(&house, &[], vec![(deleted.partition().clone(), deletes)]).await;
    house.take(90..97);
    let mut random = StdRng::seed_from_u64(68);
    for _ in 0..CASES {
        let mut columns = pick(&mut random, &KEYS).to_vec();
        let places: Vec<String> = (1..=columns.len()).map(|at| at.to_string()).collect();
        let grouped = match places.is_empty() {
            true => String::new(),
            false => format!(" GROUP BY {}", places.join(", ")),
        };
        for _ in 0..random.random_range(1..4) {
            columns.push(*pick(&mut random, &MEASURES));
        }
        let condition = match random.random_range(0..2) {
            0 => pick(&mut random, &CONDITIONS),
            _ => pick(&mut random, &MORE_CONDITIONS),
        };
        let named = columns.iter().enumerate().map(|(at, column)| format!("{column} AS c{at}"));
        let named = named.collect::<Vec<_>>().join(", ");
        let behind = format!("FROM events WHERE {condition}{grouped}");
        let sql = format!("SELECT {named} {behind}");
        // Only rows tell how long the texts are, so every file is read for it.
        let all = format!("SELECT {named}, sum(length(id)) AS letters {behind}");
        let expected = sorted_rows(&house, &all, columns.len()).await;
        assert_eq!(sorted_rows(&house, &sql, columns.len()).await, expected, "{sql}");
    }
}

#[tokio::test]
async fn a_limit_reads_the_files_with_the_first_rows_first() {
    let house = committed().await;
    house.take(60..65);
    for (sql, first) in [
        ("SELECT seq FROM events ORDER BY ts DESC LIMIT 3", [64, 63, 62]),
        ("SELECT seq FROM events ORDER BY seq DESC LIMIT 3", [64, 63, 62]),
        ("SELECT seq FROM events WHERE type = 'call' ORDER BY ts DESC, seq LIMIT 3", [63, 61, 59]),
        ("SELECT seq FROM events WHERE key LIKE 'k%' ORDER BY ts DESC LIMIT 3", [64, 63, 62]),
        ("SELECT seq + 0 FROM events ORDER BY ts DESC LIMIT 3", [64, 63, 62]),
    ] {
        let plan = house.shown(&format!("EXPLAIN {sql}")).await;
        assert!(plan.contains("reverse_row_groups=true"), "{sql}: {plan}");
        let mut expected = first.map(|seq: i64| seq.to_string());
        expected.sort_unstable();
        assert_eq!(sorted_rows(&house, sql, 1).await, expected, "{sql}");
    }
    let plan = house.shown("EXPLAIN SELECT seq FROM events ORDER BY seq LIMIT 3").await;
    assert!(plan.contains("sort_order_for_reorder=["), "{plan}");
    assert!(!plan.contains("reverse_row_groups"), "{plan}");
}

#[tokio::test]
async fn a_sort_stays_beside_subqueries_when_its_column_is_left_out() {
    let house = committed().await;
    let joined = "SELECT a.id FROM events a JOIN events b ON a.seq = b.seq";
    let behind = "WHERE a.seq > (SELECT min(seq) FROM events) ORDER BY a.seq";
    let plan = house.shown(&format!("EXPLAIN {joined} {behind}")).await;
    assert!(plan.contains("ScalarSubqueryExec") && plan.contains("SortExec"), "{plan}");
    assert!(!plan.contains("OutputRequirementExec"), "{plan}");
}

#[tokio::test]
async fn an_order_beside_a_subquery_is_that_beside_its_value() {
    let house = committed().await;
    let from = "FROM events a JOIN events b ON a.seq = b.seq WHERE a.seq > BOUND";
    for sql in [
        format!("SELECT a.seq {from} ORDER BY a.ts DESC, a.seq"),
        format!("SELECT a.seq {from} ORDER BY a.ts DESC, a.seq OFFSET 5"),
        format!("SELECT a.seq {from} ORDER BY a.ts DESC, a.seq LIMIT 7 OFFSET 5"),
        format!("SELECT (SELECT a.seq {from} ORDER BY a.ts DESC, a.seq LIMIT 1 OFFSET 3) AS n"),
        format!("SELECT a.seq {from} UNION ALL SELECT seq + 1000 FROM events ORDER BY 1 DESC"),
        "SELECT seq FROM (SELECT seq, row_number() OVER (ORDER BY ts, seq DESC) AS n FROM events WHERE seq > BOUND) AS t ORDER BY n DESC"
            .to_owned(),
    ] {
        let expected = seqs(&house, &sql.replace("BOUND", "3")).await;
        assert!(!expected.is_empty(), "{sql}");
        let beside = sql.replace("BOUND", "(SELECT min(seq) + 2 FROM events)");
        assert_eq!(seqs(&house, &beside).await, expected, "{beside}");
    }
}

#[tokio::test]
async fn a_limit_answers_as_the_whole_order_does() {
    let house = committed().await;
    let deleted = file_of(&house, 58).await;
    let deletes = position_deletes(&[(deleted.file_path(), 0)]);
    commit_deletes(&house, &[], vec![(deleted.partition().clone(), deletes)]).await;
    house.take(60..65);
    for order in [
        "ts, seq",
        "ts DESC, seq",
        "seq DESC",
        "actor NULLS FIRST, seq DESC",
        "actor DESC NULLS LAST, seq",
        "key, seq",
        "type DESC, ts DESC, seq",
        "user_id, seq",
    ] {
        for condition in ["true", "seq % 3 = 0", "actor IS NOT NULL", "type = 'call' OR seq < 9"] {
            let all = format!("SELECT seq FROM events WHERE {condition} ORDER BY {order}");
            let some = format!("{all} LIMIT 7");
            let expected = seqs(&house, &all).await;
            assert_eq!(seqs(&house, &some).await, expected[..7], "{some}");
        }
    }
}

#[tokio::test]
async fn a_summary_has_the_aggregates_of_any_query() {
    let house = House::new().await;
    house.take(1..2);
    for values in
        ["('1.5'), ('NaN'), ('2.5')", "('-0.0'), ('0.0'), ('-0.0')", "('-inf'), ('1'), (NULL)"]
    {
        let rows = format!("(SELECT CAST(v AS double) AS x FROM (VALUES {values}) AS t(v)) AS s");
        let plain = format!(
            "SELECT CAST(min(x) AS text), CAST(max(x) AS text), approx_distinct(CAST(x AS text)), avg(x), stddev(x) FROM {rows}"
        );
        let summary = sorted_rows(&house, &format!("SUMMARIZE SELECT x FROM {rows}"), 7).await;
        let [summary] = summary.as_slice() else { panic!("{summary:?}") };
        let facts: Vec<&str> = summary.split('|').skip(2).collect();
        assert_eq!(vec![facts.join("|")], sorted_rows(&house, &plain, 5).await, "{values}");
    }
}
