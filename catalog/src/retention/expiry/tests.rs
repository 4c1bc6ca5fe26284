use super::*;
use crate::{
    commit::COMPACTION,
    metadata_file::refs,
    retention::{COLLECTION, MANAGED, lease::LeasedIds},
};
use iceberg::{
    TableUpdate,
    spec::{
        FormatVersion, NestedField, Operation, PrimitiveType, Schema, Snapshot, SortOrder, Summary,
        TableMetadataBuilder, Type, UnboundPartitionSpec,
    },
};
use std::{collections::HashMap, sync::Arc};

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 3_600_000;
const NOW_MS: i64 = 1_000 * DAY_MS;

/// A table whose snapshots have these ages, the oldest first, with ids from 1.
fn table(ages_ms: &[i64], properties: &[(&str, &str)]) -> TableMetadata {
    let lines: Vec<(i64, Option<i64>, &str)> = (1..)
        .zip(ages_ms)
        .map(|(id, age_ms)| (*age_ms, (id > 1).then_some(id - 1), MAIN_BRANCH))
        .collect();
    branched(&lines, properties)
}

/// The same with the parent of each snapshot, and its branch.
fn branched(snapshots: &[(i64, Option<i64>, &str)], properties: &[(&str, &str)]) -> TableMetadata {
    let field = NestedField::required(1, "id", Type::Primitive(PrimitiveType::Long));
    let schema = Schema::builder().with_fields([Arc::new(field)]).build().unwrap();
    let text = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    let builder = TableMetadataBuilder::new(
        schema,
        UnboundPartitionSpec::default(),
        SortOrder::unsorted_order(),
        "file:///w/t".to_owned(),
        FormatVersion::V2,
        properties.iter().map(text).collect::<HashMap<String, String>>(),
    );
    let mut builder = builder.unwrap();
    for (id, (age_ms, parent, branch)) in (1..).zip(snapshots) {
        let snapshot = Snapshot::builder()
            .with_snapshot_id(id)
            .with_parent_snapshot_id(*parent)
            .with_sequence_number(id)
            .with_timestamp_ms(NOW_MS - age_ms)
            .with_manifest_list(format!("file:///w/t/metadata/snap-{id}.avro"))
            .with_summary(Summary {
                operation: Operation::Append,
                additional_properties: HashMap::new(),
            })
            .with_schema_id(0)
            .build();
        builder = builder.set_branch_snapshot(snapshot, branch).unwrap();
    }
    // Only the last one was `main` in the end, as after as many commits.
    let json = serde_json::to_value(builder.build().unwrap().metadata).unwrap();
    serde_json::from_value(json).unwrap()
}

fn named(table: TableMetadata, name: &str, id: i64, retention: SnapshotRetention) -> TableMetadata {
    let reference = SnapshotReference::new(id, retention);
    let update = TableUpdate::SetSnapshotRef { ref_name: name.to_owned(), reference };
    update.apply(table.into_builder(None)).unwrap().build().unwrap().metadata
}

fn check(table: &TableMetadata, is_named: bool, snapshots: &[i64], gone: &[&str]) {
    let found =
        expired(table, &refs::of(table), &LeasedSnapshots::default(), NOW_MS, is_named).unwrap();
    let names: Vec<&str> = found.refs.keys().map(String::as_str).collect();
    assert_eq!((found.snapshots.as_slice(), names.as_slice()), (snapshots, gone));
}

const FOUR: &[i64] = &[20 * DAY_MS, 10 * DAY_MS, 6 * DAY_MS, DAY_MS];

#[test]
fn nothing_of_another_engines_table_expires_unless_somebody_asks() {
    check(&table(FOUR, &[]), false, &[], &[]);
    check(&table(FOUR, &[]), true, &[1, 2, 3], &[]);
    let week = (7 * DAY_MS).to_string();
    check(&table(FOUR, &[(MAX_SNAPSHOT_AGE, &week)]), false, &[1, 2], &[]);
    check(&table(FOUR, &[(MAX_SNAPSHOT_AGE, &week), (MIN_SNAPSHOTS, "3")]), false, &[1], &[]);
    // How many stay at least says nothing of when others go.
    check(&table(FOUR, &[(MIN_SNAPSHOTS, "3")]), false, &[], &[]);
}

#[test]
fn the_head_of_main_stays_however_old_it_is() {
    check(&table(FOUR, &[(MAX_SNAPSHOT_AGE, "1")]), false, &[1, 2, 3], &[]);
}

#[test]
fn branches_and_tags_hold_what_they_name_until_they_expire_themselves() {
    let tag = |age| SnapshotRetention::Tag { max_ref_age_ms: age };
    let kept = named(table(FOUR, &[]), "kept", 1, tag(None));
    check(&kept, true, &[2, 3], &[]);
    check(&named(kept, "short", 2, tag(Some(9 * DAY_MS))), true, &[2, 3], &["short"]);
    let branch = SnapshotRetention::branch(Some(2), None, None);
    check(&named(table(FOUR, &[]), "side", 3, branch), true, &[1], &[]);
    let aged = [(MAX_REF_AGE, "1"), (MAX_SNAPSHOT_AGE, "1")];
    let all = named(table(FOUR, &aged), "side", 3, SnapshotRetention::branch(None, None, None));
    check(&named(all, "kept", 2, tag(None)), false, &[1, 2, 3], &["kept", "side"]);
}

#[test]
fn a_branch_with_an_age_of_its_own_takes_nothing_from_a_line_without() {
    let branch = SnapshotRetention::branch(None, Some(DAY_MS), None);
    check(&named(table(FOUR, &[]), "side", 3, branch), false, &[], &[]);
}

#[test]
fn a_table_that_forbids_it_or_says_nonsense_stays_as_it_is() {
    for (key, value, why) in [
        (GC_ENABLED, "false", "gc.enabled"),
        (GC_ENABLED, "False", "gc.enabled"),
        (MAX_SNAPSHOT_AGE, "5d", "no positive number"),
        (MIN_SNAPSHOTS, "0", "no positive number"),
        (MAX_SNAPSHOT_AGE, "99999999999999999999", "larger than 9223372036854775807"),
        (MAX_SNAPSHOT_AGE, "-99999999999999999999", "no positive number"),
    ] {
        let table = table(FOUR, &[(MANAGED, "true"), (key, value)]);
        let (refs, leased) = (refs::of(&table), LeasedSnapshots::default());
        let refused = expired(&table, &refs, &leased, NOW_MS, true).unwrap_err();
        assert!(refused.contains(why), "{refused}");
        // Not to collect can be meant so, a number that is none cannot.
        assert_eq!(has_fault(&table), key != GC_ENABLED, "{key}");
        assert_eq!(fault(key, value).is_some(), key != GC_ENABLED, "{key}");
    }
    check(&table(FOUR, &[(GC_ENABLED, "true")]), true, &[1, 2, 3], &[]);
    // One from before values were looked at: other engines take it for `false`.
    for (value, is_fault) in [("no", true), (" false ", false)] {
        let table = table(FOUR, &[(GC_ENABLED, value)]);
        let (refs, leased) = (refs::of(&table), LeasedSnapshots::default());
        let refused = expired(&table, &refs, &leased, NOW_MS, true).unwrap_err();
        assert!(refused.contains(&format!("`{GC_ENABLED}` is `{value}`")), "{refused}");
        assert_eq!(has_fault(&table), is_fault, "{value}");
    }
    assert_eq!(gc_obstacle(&table(FOUR, &[(GC_ENABLED, " True")])), None);
    assert!(fault(GC_ENABLED, "no").unwrap().contains("write `true` or `false`"));
    assert_eq!(fault("owner", "no"), None);
}

#[test]
fn of_a_table_of_the_service_snapshots_stay_for_ninety_days() {
    // The second one was the newest until twenty days ago.
    let ages = [100 * DAY_MS, 95 * DAY_MS, 20 * DAY_MS, 19 * HOUR_MS];
    let ours = [(MANAGED, "true")];
    check(&table(&ages, &ours), false, &[1], &[]);
    check(&table(&ages, &ours), true, &[1], &[]);
    let tagged =
        named(table(&ages, &ours), "t", 1, SnapshotRetention::Tag { max_ref_age_ms: None });
    check(&tagged, false, &[], &[]);
    // What its properties ask for holds beside it.
    check(&table(&ages, &[(MANAGED, "true"), (MIN_SNAPSHOTS, "6")]), false, &[], &[]);
    let day = DAY_MS.to_string();
    let short = [(MANAGED, "true"), (MAX_SNAPSHOT_AGE, &*day)];
    check(&table(&ages, &short), false, &[1, 2, 3], &[]);
    check(&table(&[400 * DAY_MS], &ours), false, &[], &[]);
    // Readers of yesterday had the one of long ago, until the one after it came.
    check(&table(&[300 * DAY_MS, 200 * DAY_MS, HOUR_MS], &ours), false, &[1], &[]);
    check(&table(&[300 * DAY_MS, 200 * DAY_MS, 91 * DAY_MS], &ours), false, &[1, 2], &[]);
}

#[test]
fn of_many_snapshots_the_newest_stay_and_of_older_ones_one_a_day() {
    let newest = (0..400).map(|number| 20 * DAY_MS + number * HOUR_MS);
    let older = (0..48).map(|number| 60 * DAY_MS + number * HOUR_MS);
    let mut ages: Vec<i64> = newest.chain(older).collect();
    ages.reverse();
    // They are of three days in UTC, and the last of each stays: one is of midnight.
    let gone: Vec<i64> = (1..=48).filter(|id| ![23, 47, 48].contains(id)).collect();
    check(&table(&ages, &[(MANAGED, "true")]), false, &gone, &[]);
}

#[test]
fn of_many_snapshots_in_little_time_none_stays_after_a_day_but_the_last_of_a_day() {
    let burst = |age_ms: i64| -> Vec<i64> {
        (0..450).rev().map(|second| age_ms + second * 1_000).collect()
    };
    let ours = [(MANAGED, "true")];
    // The newest is of midnight; it and the one before it are the last of their days.
    let gone: Vec<i64> = (1..449).collect();
    check(&table(&burst(2 * DAY_MS), &ours), false, &gone, &[]);
    // Those that were current for two minutes stay, and so does the last one before a pause.
    let slow: Vec<i64> = (0..20).rev().map(|number| 2 * DAY_MS + number * 2 * MINUTE_MS).collect();
    check(&table(&slow, &ours), false, &[], &[]);
    let pause =
        [2 * DAY_MS + 200 * 1_000, 2 * DAY_MS + 199 * 1_000, 2 * DAY_MS + 1_000, 2 * DAY_MS];
    check(&table(&pause, &ours), false, &[1], &[]);
    // Within a day the newest 400 stay, and of older ones the last of an hour.
    let gone: Vec<i64> = (1..50).collect();
    check(&table(&burst(20 * HOUR_MS), &ours), false, &gone, &[]);
}

/// The same table, with other entries in the summary of a snapshot.
fn told(table: &TableMetadata, id: i64, entries: &[(&str, &str)]) -> TableMetadata {
    let mut json = serde_json::to_value(table).unwrap();
    let snapshots = json["snapshots"].as_array_mut().unwrap();
    let snapshot = snapshots.iter_mut().find(|it| it["snapshot-id"] == id).unwrap();
    for (key, value) in entries {
        snapshot["summary"][*key] = serde_json::Value::from(*value);
    }
    serde_json::from_value(json).unwrap()
}

#[test]
fn of_many_snapshots_in_little_time_those_that_are_no_appends_stay_for_a_week() {
    let burst = |age_ms: i64, properties: &[(&str, &str)]| {
        let ages: Vec<i64> = (0..450).rev().map(|second| age_ms + second * 1_000).collect();
        table(&ages, properties)
    };
    let ours = burst(2 * DAY_MS, &[(MANAGED, "true")]);
    let all: Vec<i64> = (1..449).collect();
    let others: Vec<i64> = (1..449).filter(|id| *id != 100).collect();
    for operation in ["delete", "overwrite", "replace"] {
        check(&told(&ours, 100, &[("operation", operation)]), false, &others, &[]);
    }
    check(&told(&ours, 100, &[("operation", "append")]), false, &all, &[]);
    let compacted = [("operation", "replace"), (COMPACTION, "merged")];
    check(&told(&ours, 100, &compacted), false, &all, &[]);
    let delete = [("operation", "delete")];
    let old = burst(8 * DAY_MS, &[(MANAGED, "true")]);
    check(&told(&old, 100, &delete), false, &all, &[]);
    // Each refresh of a collection's table overwrites it.
    let computed = burst(2 * DAY_MS, &[(MANAGED, "true"), (COLLECTION, "users")]);
    check(&told(&computed, 100, &[("operation", "overwrite")]), false, &all, &[]);
}

#[test]
fn commits_to_a_branch_take_nothing_from_the_time_for_which_main_is_read() {
    // `main` had the first one until six hours ago, and the day has a later one of the branch.
    let snapshots = [
        (30 * HOUR_MS, None, MAIN_BRANCH),
        (30 * HOUR_MS - 10_000, Some(1), "side"),
        (29 * HOUR_MS, Some(2), "side"),
        (6 * HOUR_MS, Some(1), MAIN_BRANCH),
    ];
    check(&branched(&snapshots, &[(MANAGED, "true")]), false, &[], &[]);
}

#[test]
fn what_a_client_holds_stays_whatever_the_table_says() {
    let table = table(FOUR, &[(MAX_SNAPSHOT_AGE, "1")]);
    let leases = LeasedIds { main: HashSet::from([3]), others: HashSet::from([1]) };
    let leased = LeasedSnapshots::of(&table, &leases);
    let found = expired(&table, &refs::of(&table), &leased, NOW_MS, false).unwrap();
    assert_eq!(found.snapshots, [2]);
}
