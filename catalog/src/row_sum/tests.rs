use super::*;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use serde_json::json;
use std::collections::HashMap;

fn sum_of(hashes: &[u128]) -> RowSum {
    let mut sum = RowSum::default();
    hashes.iter().for_each(|hash| sum.add(*hash));
    sum
}

#[test]
fn a_sum_is_of_its_rows_whatever_their_order_and_their_parts() {
    let mut random = StdRng::seed_from_u64(46);
    for _ in 0..500 {
        let count = random.random_range(0..60);
        let mut hashes: Vec<u128> = (0..count).map(|_| random.random()).collect();
        let whole = sum_of(&hashes);
        hashes.shuffle(&mut random);
        assert_eq!(sum_of(&hashes), whole);
        let (one, other) = hashes.split_at(random.random_range(0..=count));
        assert_eq!(sum_of(one).merge(sum_of(other)), whole);
        assert_eq!(whole.minus(sum_of(one)), sum_of(other));
        let mut undone = whole;
        hashes.iter().for_each(|hash| undone.remove(*hash));
        assert_eq!(undone, RowSum::default());
    }
}

#[test]
fn rows_that_are_there_twice_are_told() {
    let (one, other) = (sum_of(&[7]), sum_of(&[9]));
    assert_ne!(one, other, "the same count");
    let twice = sum_of(&[7, 7, 9, 9]);
    assert_ne!(twice, sum_of(&[7, 9]));
    assert_ne!(twice.minus(sum_of(&[7, 9])), RowSum::default(), "a sum and not an exclusive or");
}

#[test]
fn a_sum_is_read_as_it_was_written() {
    let many = sum_of(&[u128::MAX, 1 << 90, 5]);
    let fewer_than_none = RowSum::default().minus(many);
    assert_eq!(fewer_than_none.rows(), -3);
    for sum in [RowSum::default(), many, fewer_than_none] {
        assert_eq!(sum.to_string().parse::<RowSum>(), Ok(sum));
    }
    assert_eq!(sum_of(&[255]).to_string(), "1:000000000000000000000000000000ff");
    for text in [
        "",
        "1",
        "1:",
        "1:ff",
        ":000000000000000000000000000000ff",
        "1:+00000000000000000000000000000ff",
    ] {
        assert_eq!(text.parse::<RowSum>(), Err(InvalidRowSum), "{text}");
    }
}

/// A table of these snapshots, each built on the one with the id before it.
fn table(snapshots: &[Snapshot]) -> TableMetadata {
    let listed = snapshots.iter().map(|snapshot| {
        let id = snapshot.snapshot_id();
        let mut summary = json!(snapshot.summary().additional_properties);
        summary["operation"] = json!("overwrite");
        json!({
            "snapshot-id": id, "parent-snapshot-id": (1 < id).then_some(id - 1),
            "sequence-number": id, "timestamp-ms": 1_000, "manifest-list": "file:///w/t/metadata/l.avro",
            "summary": summary, "schema-id": 0,
        })
    });
    serde_json::from_value(json!({
        "format-version": 2, "table-uuid": "7f0c6a76-3f0d-4d59-a1f8-4b1f0b0b6a11",
        "location": "file:///w/t", "last-sequence-number": 9, "last-updated-ms": 1_000,
        "last-column-id": 1, "current-schema-id": 0, "default-spec-id": 0,
        "schemas": [{ "type": "struct", "schema-id": 0, "fields": [] }],
        "partition-specs": [{ "spec-id": 0, "fields": [] }], "last-partition-id": 999,
        "sort-orders": [{ "order-id": 0, "fields": [] }], "default-sort-order-id": 0,
        "snapshots": listed.collect::<Vec<_>>(),
    }))
    .unwrap()
}

#[test]
fn what_the_log_brought_is_told_as_far_back_as_snapshots_are_retained() {
    let (three, two, one) = (sum_of(&[1, 2, 3]), sum_of(&[4, 5]), sum_of(&[3]));
    let change = |added, removed| Some(RowChange { added, removed });
    let first = entries(None, &Operation::Append, change(three, RowSum::default()));
    let first = snapshot(1, first);
    let fewer = entries(Some(&first), &Operation::Delete, change(RowSum::default(), one));
    // The third one is of another engine.
    let (fewer, theirs) = (snapshot(2, fewer), snapshot(3, Vec::new()));
    let next = entries(Some(&theirs), &Operation::Overwrite, change(two, one));
    let next = snapshot(4, next);
    let all = table(&[first, fewer.clone(), theirs.clone(), next.clone()]);
    for (head, rows) in [
        (None, RowSum::default()),
        (Some(1), three),
        (Some(2), three),
        (Some(3), three),
        (Some(4), three.merge(two)),
        (Some(9), RowSum::default()),
    ] {
        assert_eq!(acked(&all, head), rows, "{head:?}");
    }
    assert_eq!(acked(&table(&[fewer, theirs, next.clone()]), Some(4)), three.merge(two));
    assert_eq!(acked(&table(&[next]), Some(4)), two, "nobody knows what was before");
}

fn snapshot(id: i64, entries: Vec<(&'static str, String)>) -> Snapshot {
    let entries = entries.into_iter().map(|(key, value)| (key.to_owned(), value));
    let additional_properties: HashMap<String, String> = entries.collect();
    Snapshot::builder()
        .with_snapshot_id(id)
        .with_parent_snapshot_id(None)
        .with_sequence_number(1)
        .with_timestamp_ms(1)
        .with_manifest_list("m")
        .with_summary(Summary { operation: Operation::Append, additional_properties })
        .build()
}

#[test]
fn totals_go_on_from_the_last_snapshot_that_nobody_summed_up() {
    let (three, two, one) = (sum_of(&[1, 2, 3]), sum_of(&[4, 5]), sum_of(&[3]));
    let change = |added, removed| Some(RowChange { added, removed });
    let none = RowSum::default();
    let first = snapshot(1, entries(None, &Operation::Append, change(three, none)));
    assert_eq!(RecordedSums::of(&first), RecordedSums { rows: three, removed: none, basis: None });
    let merged = snapshot(2, entries(Some(&first), &Operation::Replace, None));
    assert_eq!(RecordedSums::of(&merged), RecordedSums::of(&first));
    let fewer = snapshot(3, entries(Some(&merged), &Operation::Delete, change(none, one)));
    let left = RecordedSums { rows: three.minus(one), removed: one, basis: None };
    assert_eq!(RecordedSums::of(&fewer), left);
    let of_another = snapshot(4, Vec::new());
    assert!(entries(Some(&of_another), &Operation::Replace, None).is_empty());
    let merged = entries(Some(&of_another), &Operation::Replace, change(two, two));
    let since = RecordedSums { rows: none, removed: none, basis: Some(4) };
    assert_eq!(RecordedSums::of(&snapshot(7, merged)), since);
    let next = snapshot(5, entries(Some(&of_another), &Operation::Append, change(two, none)));
    let since = RecordedSums { rows: two, removed: none, basis: Some(4) };
    assert_eq!(RecordedSums::of(&next), since);
    let unknown = snapshot(6, entries(Some(&next), &Operation::Overwrite, None));
    assert_eq!(RecordedSums::of(&unknown).basis, Some(6));
}
