use super::*;
use serde_json::json;

const NOW_MS: i64 = 10_000;

/// A table with these snapshots: id, parent, time; and this log: time, snapshot. `main` is at the last
/// of the log, or of the snapshots where there is none.
fn table(snapshots: &[(i64, Option<i64>, i64)], log: &[(i64, i64)]) -> TableMetadata {
    let current = log.last().map(|(_, id)| *id).or(snapshots.last().map(|(id, ..)| *id));
    let updated_ms = log.iter().map(|(at, _)| *at).fold(9_000, i64::max);
    let listed = snapshots.iter().map(|(id, parent, at)| {
        json!({
            "snapshot-id": id, "parent-snapshot-id": parent, "sequence-number": id,
            "timestamp-ms": at, "manifest-list": "file:///w/t/metadata/l.avro",
            "summary": { "operation": "append" }, "schema-id": 0,
        })
    });
    let logged = log.iter().map(|(at, id)| json!({ "timestamp-ms": at, "snapshot-id": id }));
    serde_json::from_value(json!({
        "format-version": 2, "table-uuid": "7f0c6a76-3f0d-4d59-a1f8-4b1f0b0b6a11",
        "location": "file:///w/t", "last-sequence-number": 9, "last-updated-ms": updated_ms,
        "last-column-id": 1, "current-schema-id": 0, "default-spec-id": 0,
        "schemas": [{ "type": "struct", "schema-id": 0, "fields": [] }],
        "partition-specs": [{ "spec-id": 0, "fields": [] }], "last-partition-id": 999,
        "sort-orders": [{ "order-id": 0, "fields": [] }], "default-sort-order-id": 0,
        "current-snapshot-id": current, "snapshots": listed.collect::<Vec<_>>(),
        "snapshot-log": logged.collect::<Vec<_>>(),
        "refs": {
            "main": { "type": "branch", "snapshot-id": current },
            "first": { "type": "tag", "snapshot-id": snapshots[0].0 },
        },
    }))
    .unwrap()
}

fn check(table: &TableMetadata, as_of: &AsOf, expected: Result<i64, &str>) {
    let found = resolve(as_of, "t", Some(table), NOW_MS).map_err(|cause| cause.to_string());
    match (&found, expected) {
        (Ok(id), Ok(expected)) => assert_eq!(*id, expected, "{as_of:?}"),
        (Err(text), Err(part)) => assert!(text.contains(part), "{text}"),
        _ => panic!("{as_of:?}: {found:?} instead of {expected:?}"),
    }
}

/// What going back through the parents of the current snapshot finds for a time.
fn ancestor_at(table: &TableMetadata, ms: i64) -> Option<i64> {
    ancestors::of(table, table.current_snapshot_id())
        .find(|snapshot| snapshot.timestamp_ms() <= ms)
        .map(|snapshot| snapshot.snapshot_id())
}

const LINE: &[(i64, Option<i64>, i64)] =
    &[(1, None, 1_000), (2, Some(1), 2_000), (3, Some(2), 3_000)];

#[test]
fn a_time_means_the_snapshot_that_was_current_then() {
    let table = table(LINE, &[(1_000, 1), (2_000, 2), (3_000, 3)]);
    for (ms, expected) in [(1_000, 1), (1_999, 1), (2_000, 2), (2_999, 2), (9_000, 3), (15_000, 3)]
    {
        check(&table, &AsOf::Time(ms), Ok(expected));
    }
    let first =
        "no snapshot at 1970-01-01T00:00:00.999Z; the first one is from 1970-01-01T00:00:01";
    check(&table, &AsOf::Time(999), Err(first));
    check(&table, &AsOf::Time(15_001), Err("1970-01-01T00:00:15.001Z is in the future"));
    check(&table, &AsOf::Snapshot(2), Ok(2));
    check(&table, &AsOf::Snapshot(7), Err("no snapshot 7"));
    check(&table, &AsOf::Reference("first".into()), Ok(1));
    check(&table, &AsOf::Reference("main".into()), Ok(3));
    check(&table, &AsOf::Reference("now".into()), Err("with its zone"));
}

#[test]
fn a_snapshot_that_was_rolled_back_is_the_answer_for_its_time() {
    let table = table(LINE, &[(1_000, 1), (2_000, 2), (3_000, 3), (4_000, 1)]);
    check(&table, &AsOf::Time(3_500), Ok(3));
    check(&table, &AsOf::Time(4_000), Ok(1));
    assert_eq!(ancestor_at(&table, 3_500), Some(1), "ancestors know nothing of it");
}

#[test]
fn a_snapshot_of_a_branch_is_no_answer_before_it_came_into_main() {
    // 2 was written to a branch, which `main` was moved forward to at last.
    let table = table(LINE, &[(1_000, 1), (5_000, 3)]);
    check(&table, &AsOf::Time(3_500), Ok(1));
    check(&table, &AsOf::Time(5_000), Ok(3));
    assert_eq!(ancestor_at(&table, 3_500), Some(3), "it was written by then");
}

#[test]
fn of_entries_of_one_millisecond_the_last_one_holds() {
    let table = table(LINE, &[(1_000, 1), (3_000, 2), (3_000, 3)]);
    check(&table, &AsOf::Time(3_000), Ok(3));
    check(&table, &AsOf::Time(2_999), Ok(1));
}

#[test]
fn a_time_before_a_gap_is_refused_with_the_nearest_that_can_be_read() {
    // 3 was removed, and with it what the log had before 4.
    let four: &[(i64, Option<i64>, i64)] =
        &[(1, None, 1_000), (2, Some(1), 2_000), (4, Some(3), 4_000)];
    let table = table(four, &[(4_000, 4)]);
    for (ms, kept) in [(3_500, 2), (2_000, 2), (1_500, 1)] {
        let nearest = format!(
            "is not known: snapshots were removed; the next time that can be read is \
             1970-01-01T00:00:04.000Z; the nearest snapshot before it is {kept} of \
             1970-01-01T00:00:0{kept}.000Z, to be named by its id"
        );
        check(&table, &AsOf::Time(ms), Err(&nearest));
        check(&table, &AsOf::Snapshot(kept), Ok(kept));
    }
    check(&table, &AsOf::Time(500), Err("the next time that can be read is 1970-01-01T00:00:04"));
    let removed = "snapshot 3 of table `t` was removed; the next one that is kept is 4 of 1970-01-01T00:00:04";
    check(&table, &AsOf::Snapshot(3), Err(removed));
    let nearest = |as_of: AsOf| resolve(&as_of, "t", Some(&table), NOW_MS).unwrap_err().nearest();
    assert_eq!(nearest(AsOf::Snapshot(3)), ["4"]);
    assert_eq!(nearest(AsOf::Time(3_500)), ["1970-01-01T00:00:04.000Z", "2"]);
    assert_eq!(nearest(AsOf::Snapshot(7)), <[String; 0]>::default(), "it never had that one");
    check(&table, &AsOf::Time(4_000), Ok(4));
    // 4 is a branch's and later than 2, which is main's own.
    let snapshots = [LINE, &[(4, Some(1), 2_200)]].concat();
    let cut = self::table(&snapshots, &[(3_000, 3)]);
    check(&cut, &AsOf::Time(2_500), Err("the nearest snapshot before it is 2 of"));
}

#[test]
fn a_log_that_names_a_snapshot_that_is_gone_answers_for_no_other() {
    let kept: &[(i64, Option<i64>, i64)] = &[(1, None, 1_000), (3, Some(2), 3_000)];
    let gap = table(kept, &[(1_000, 1), (2_000, 2), (3_000, 3)]);
    check(&gap, &AsOf::Time(1_999), Ok(1));
    check(&gap, &AsOf::Time(2_000), Err("the next time that can be read is 1970-01-01T00:00:03"));
    let bare = table(LINE, &[]);
    check(
        &bare,
        &AsOf::Time(2_500),
        Err("is not known: its snapshot log does not tell; the nearest"),
    );
}

#[test]
fn a_branch_is_read_with_the_columns_of_now() {
    let table = table(LINE, &[(1_000, 1), (2_000, 2), (3_000, 3)]);
    let is_past = |as_of: AsOf| has_past_columns(&as_of, &table);
    assert!(is_past(AsOf::Snapshot(3)) && is_past(AsOf::Time(3_000)));
    assert!(is_past(AsOf::Reference("first".into())));
    assert!(!is_past(AsOf::Reference("main".into())));
}

#[test]
fn a_table_without_metadata_has_no_point_in_time() {
    let none = |as_of: &AsOf| resolve(as_of, "t", None, NOW_MS).unwrap_err().to_string();
    assert!(none(&AsOf::Time(1)).ends_with("it has none yet"));
    assert_eq!(none(&AsOf::Snapshot(1)), "table `t` has no snapshot 1");
    assert!(none(&AsOf::Time(15_001)).contains("in the future"));
}

#[test]
fn a_time_after_which_snapshots_are_dated_in_the_future_is_refused() {
    let late = 90_000_000;
    let ahead = table(LINE, &[(1_000, 1), (2_000, 2), (NOW_MS + AHEAD_MAX_MS, 3)]);
    let table = table(
        &[(1, None, 1_000), (2, Some(1), late), (3, Some(2), late + 1)],
        &[(1_000, 1), (late, 2), (late + 1, 3)],
    );
    for ms in [1_001, NOW_MS, NOW_MS + 100_000] {
        check(&table, &AsOf::Time(ms), Err("its snapshot 2 is dated 1970-01-02T01:00:00.000Z"));
    }
    check(&table, &AsOf::Time(900), Err("no snapshot at"));
    for (ms, expected) in [(1_000, 1), (late, 2), (late + 1, 3)] {
        check(&table, &AsOf::Time(ms), Ok(expected));
    }
    // A writer's clock may be ahead by so much.
    check(&ahead, &AsOf::Time(NOW_MS), Ok(2));
}
