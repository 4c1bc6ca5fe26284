use super::{Metrics, OutcomeLabel, RequestLabels, StatusLabel, TableLabel};
use std::collections::BTreeSet;

/// Every metric by its name, with one value where it has labels.
fn names() -> BTreeSet<String> {
    let metrics = Metrics::default();
    let table = TableLabel { table: "a.events".to_owned() };
    metrics.flush_failing_since.get_or_create(&table).set(1);
    metrics.columns_left_out.get_or_create(&table).set(1);
    metrics.query.get_or_create(&OutcomeLabel { outcome: "ok" }).observe(0.1);
    metrics.http_replies.get_or_create(&StatusLabel::of(200)).inc();
    let (method, route) = ("GET".to_owned(), "/healthz".to_owned());
    let labels = RequestLabels { method, route, status: "2xx" };
    metrics.http_request.get_or_create(&labels).observe(0.1);
    metrics.count_job("flush", "idle", std::time::Duration::ZERO);
    let text = metrics.text();
    let mut kind = "";
    let mut names = BTreeSet::new();
    for line in text.lines() {
        if let Some(of) = line.strip_prefix("# TYPE ") {
            let (name, of) = of.split_once(' ').unwrap();
            kind = of;
            let total = if kind == "counter" { "_total" } else { "" };
            names.insert(format!("{name}{total}"));
        }
    }
    assert!(!kind.is_empty(), "{text}");
    names
}

#[test]
fn every_metric_is_in_the_operators_manual_and_nothing_else_is() {
    let manual = include_str!("../../../docs/operations.md");
    let rows = manual.lines().filter_map(|line| line.strip_prefix("| `icecore_"));
    let listed = rows.map(|row| format!("icecore_{}", row.split(['`', '{']).next().unwrap()));
    assert_eq!(listed.collect::<BTreeSet<String>>(), names());
}

#[test]
fn a_status_outside_of_http_counts_as_a_failure() {
    assert_eq!(StatusLabel::of(204).status, "2xx");
    assert_eq!(StatusLabel::of(99).status, "5xx");
    assert_eq!(StatusLabel::of(999).status, "5xx");
}
