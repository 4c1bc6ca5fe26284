use super::*;
use iceberg::{
    TableUpdate,
    spec::{
        FormatVersion, NestedField, Operation, PrimitiveType, Schema, Snapshot, SnapshotReference,
        SnapshotRetention, SortOrder, Summary, TableMetadataBuilder, Type, UnboundPartitionSpec,
    },
};
use std::{collections::HashMap, sync::Arc};

const NOW_MS: i64 = 1_000 * DAY_MS + 12 * HOUR_MS + 30 * MINUTE_MS;

/// Snapshots of these ages, the newest last; ids from 1.
fn aged(ages_ms: impl IntoIterator<Item = i64>) -> Vec<SnapshotCandidate> {
    let candidate = |(sequence, age_ms)| SnapshotCandidate {
        id: sequence,
        parent: None,
        sequence,
        at_ms: NOW_MS - age_ms,
        is_of_branch: false,
        is_change: false,
        is_dropped: false,
    };
    (1..).zip(ages_ms).map(candidate).collect()
}

/// `count` snapshots, one every `every_ms`, the newest of them `from_age_ms` old.
fn steady(count: usize, every_ms: i64, from_age_ms: i64) -> Vec<i64> {
    (0..count as i64).rev().map(|i| from_age_ms + i * every_ms).collect()
}

fn kept(mut snapshots: Vec<SnapshotCandidate>, named: &[i64]) -> Vec<SnapshotCandidate> {
    let (named, leased) = (named.iter().copied().collect(), LeasedSnapshots::default());
    let removed: HashSet<i64> = thin(&mut snapshots, &named, &leased, NOW_MS).into_iter().collect();
    snapshots.retain(|s| !removed.contains(&s.id));
    snapshots.sort_unstable_by_key(|s| s.sequence);
    snapshots
}

#[test]
fn snapshots_of_branches_take_no_place_of_those_of_main() {
    let main = steady(300, MINUTE_MS, 5 * MINUTE_MS);
    let alone = kept(aged(main.iter().copied()), &[]);
    let mut all = aged(main.iter().copied());
    let branches = aged(steady(1_000, 100, 0)).into_iter().map(|it| SnapshotCandidate {
        id: it.id + 10_000,
        sequence: it.sequence + 10_000,
        is_of_branch: true,
        ..it
    });
    all.extend(branches);
    let kept = kept(all, &[10_001]);
    let (of_branches, of_main): (Vec<_>, Vec<_>) = kept.into_iter().partition(|it| it.is_of_branch);
    let ids = |all: &[SnapshotCandidate]| all.iter().map(|it| it.id).collect::<Vec<_>>();
    assert_eq!(ids(&of_main), ids(&alone));
    assert_eq!(of_branches.len(), NEWEST_OF_BRANCHES + 1);
    assert_eq!(of_branches[0].id, 10_001);
}

#[test]
fn snapshots_of_a_dropped_branch_expire_with_the_time_in_full() {
    let (in_full_ms, leased) = (DAY_MS, LeasedSnapshots::default());
    let mut all = aged([3 * DAY_MS, 2 * DAY_MS + HOUR_MS, 2 * DAY_MS, HOUR_MS]);
    let is_of_branch = |it: SnapshotCandidate| SnapshotCandidate { is_of_branch: true, ..it };
    for (is_dropped, expected) in [(false, vec![]), (true, vec![2, 3])] {
        // The first is of `main`, and the others of the branch.
        for one in &mut all[1..] {
            *one = SnapshotCandidate { is_dropped, ..is_of_branch(*one) };
        }
        let mut snapshots = all.clone();
        let mut removed =
            thin_beyond(&mut snapshots, &HashSet::new(), &leased, (NOW_MS, in_full_ms));
        removed.sort_unstable();
        assert_eq!(removed, expected, "{is_dropped}");
    }
}

#[test]
fn the_newest_stay_in_full_and_older_ones_once_a_minute_an_hour_and_a_day() {
    let newest = steady(NEWEST_IN_FULL, 1_000, 0);
    for (from_age_ms, every_ms, width) in [
        (10 * MINUTE_MS, 1_000, MINUTE_MS),
        (2 * HOUR_MS, MINUTE_MS, HOUR_MS),
        (2 * DAY_MS, HOUR_MS, DAY_MS),
    ] {
        let mut ages = steady(100, every_ms, from_age_ms);
        let steps: HashSet<i64> = ages.iter().map(|age| (NOW_MS - age).div_euclid(width)).collect();
        ages.extend(&newest);
        let kept = kept(aged(ages.clone()), &[]);
        assert_eq!(kept.len(), NEWEST_IN_FULL + steps.len(), "width {width}");
        for old in &kept[..steps.len()] {
            let later_in_step = ages.iter().any(|age| {
                let at_ms = NOW_MS - age;
                at_ms > old.at_ms && at_ms.div_euclid(width) == old.at_ms.div_euclid(width)
            });
            assert!(!later_in_step, "the last of its step stays");
        }
    }
}

#[test]
fn what_is_older_than_ninety_days_goes() {
    let mut ages = steady(200, DAY_MS, 91 * DAY_MS);
    ages.extend(steady(NEWEST_IN_FULL, 1_000, 0));
    assert_eq!(kept(aged(ages), &[]).len(), NEWEST_IN_FULL);
}

#[test]
fn the_oldest_go_when_thinning_is_not_enough() {
    // 60 minutes, 23 hours, 80 days: more than a hundred steps that each keep one.
    let mut ages = steady(80, DAY_MS, DAY_MS + HOUR_MS);
    ages.extend(steady(22, HOUR_MS, HOUR_MS + MINUTE_MS));
    ages.extend(steady(50, MINUTE_MS, 8 * MINUTE_MS));
    ages.extend(steady(NEWEST_IN_FULL, 1_000, 0));
    let all = aged(ages);
    let excess = all.len() - SNAPSHOTS_MAX;
    let kept = kept(all.clone(), &[]);
    assert_eq!(kept.len(), SNAPSHOTS_MAX);
    assert_eq!(kept[0].id, all[excess].id);
}

#[test]
fn named_snapshots_stay_whatever_their_age() {
    let mut ages = steady(300, DAY_MS, 200 * DAY_MS);
    ages.extend(steady(NEWEST_IN_FULL, 1_000, 0));
    let kept = kept(aged(ages), &[1, 17, 300]);
    let oldest: Vec<i64> = kept.iter().take(3).map(|s| s.id).collect();
    assert_eq!(oldest, [1, 17, 300]);
    assert_eq!(kept.len(), NEWEST_IN_FULL + 3);
}

#[test]
fn named_snapshots_and_the_newest_stay_even_above_the_bound() {
    let all = aged(steady(700, 1_000, 0));
    let named: Vec<i64> = (1..=650).collect();
    let kept = kept(all, &named);
    assert!(named.iter().all(|id| kept.iter().any(|s| s.id == *id)));
    assert_eq!(kept.last().unwrap().id, 700);
}

#[test]
fn thinning_again_keeps_a_subset_and_does_nothing_more_at_once() {
    let mut ages = steady(3_000, 7_000, 30 * MINUTE_MS);
    ages.extend(steady(NEWEST_IN_FULL, 1_000, 0));
    let once = kept(aged(ages), &[]);
    let twice = kept(once.clone(), &[]);
    assert_eq!(once.len(), twice.len());
}

/// The same snapshots, of which these are no appends.
fn changed(all: &[SnapshotCandidate], ids: &[i64]) -> Vec<SnapshotCandidate> {
    let change =
        |it: &SnapshotCandidate| SnapshotCandidate { is_change: ids.contains(&it.id), ..*it };
    all.iter().map(change).collect()
}

/// The ids of those that are kept, up to this one.
fn kept_until(last: i64, all: Vec<SnapshotCandidate>) -> Vec<i64> {
    kept(all, &[]).iter().map(|it| it.id).filter(|id| *id <= last).collect()
}

#[test]
fn snapshots_that_are_no_appends_stay_for_a_week() {
    // The first is of four in the morning, and the last of each hour stays.
    let mut ages = steady(40, 10 * MINUTE_MS, 2 * HOUR_MS);
    ages.extend(steady(NEWEST_IN_FULL, 1_000, 0));
    let all = aged(ages);
    assert_eq!(kept_until(40, all.clone()), [6, 12, 18, 24, 30, 36, 40]);
    let changed = changed(&all, &[3, 10, 12]);
    assert_eq!(kept_until(40, changed), [3, 6, 10, 12, 18, 24, 30, 36, 40]);
    for (days, expected) in [(6, vec![1, 2]), (8, vec![2])] {
        let mut ages = vec![days * DAY_MS + 2 * HOUR_MS, days * DAY_MS + HOUR_MS];
        ages.extend(steady(NEWEST_IN_FULL, 1_000, 0));
        let all = aged(ages).into_iter();
        let all = all.map(|it| SnapshotCandidate { is_change: it.id == 1, ..it }).collect();
        assert_eq!(kept_until(2, all), expected, "{days} days");
    }
}

#[test]
fn no_more_than_fifty_that_are_no_appends_stay() {
    let mut ages = steady(300, 10 * MINUTE_MS, 2 * HOUR_MS);
    ages.extend(steady(NEWEST_IN_FULL, 1_000, 0));
    let all = aged(ages);
    let mut expected = kept_until(300, all.clone());
    expected.extend(300 - CHANGES_MAX as i64 + 1..=300);
    expected.sort_unstable();
    expected.dedup();
    let changes: Vec<i64> = (1..=300).collect();
    assert_eq!(kept_until(300, changed(&all, &changes)), expected);
}

#[test]
fn those_that_are_no_appends_outlast_older_and_younger_ones_that_are() {
    let changes = steady(CHANGES_MAX, 2 * HOUR_MS, 30 * HOUR_MS);
    let mut ages = steady(80, DAY_MS, DAY_MS + HOUR_MS);
    ages.extend(&changes);
    ages.extend(steady(22, HOUR_MS, HOUR_MS + MINUTE_MS));
    ages.extend(steady(50, MINUTE_MS, 8 * MINUTE_MS));
    ages.extend(steady(NEWEST_IN_FULL, 1_000, 0));
    ages.sort_unstable_by_key(|age| std::cmp::Reverse(*age));
    let is_change = |it: &SnapshotCandidate| changes.contains(&(NOW_MS - it.at_ms));
    let all = aged(ages).into_iter();
    let all = all.map(|it| SnapshotCandidate { is_change: is_change(&it), ..it }).collect();
    let kept = kept(all, &[]);
    assert_eq!(kept.len(), SNAPSHOTS_MAX);
    assert_eq!(kept.iter().filter(|it| it.is_change).count(), CHANGES_MAX);
    assert_eq!(kept.iter().filter(|it| it.at_ms > NOW_MS - 7 * MINUTE_MS).count(), NEWEST_IN_FULL);
}

/// A table with one snapshot a second, the newest at [`NOW_MS`].
fn table(count: i64, managed: bool) -> TableMetadata {
    let field = NestedField::required(1, "id", Type::Primitive(PrimitiveType::Long));
    let schema = Schema::builder().with_fields([Arc::new(field)]).build().unwrap();
    let properties = HashMap::from([(MANAGED.to_owned(), managed.to_string())]);
    let builder = TableMetadataBuilder::new(
        schema,
        UnboundPartitionSpec::default(),
        SortOrder::unsorted_order(),
        "file:///w/t".to_owned(),
        FormatVersion::V2,
        properties,
    );
    let mut builder = builder.unwrap();
    for id in 1..=count {
        let snapshot = Snapshot::builder()
            .with_snapshot_id(id)
            .with_parent_snapshot_id((id > 1).then_some(id - 1))
            .with_sequence_number(id)
            .with_timestamp_ms(NOW_MS - (count - id) * 1_000)
            .with_manifest_list(format!("file:///w/t/metadata/snap-{id}.avro"))
            .with_summary(Summary {
                operation: Operation::Append,
                additional_properties: HashMap::new(),
            })
            .with_schema_id(0)
            .build();
        builder = builder.set_branch_snapshot(snapshot, "main").unwrap();
    }
    // Only the last one was `main` in the end, as after as many commits.
    let json = serde_json::to_value(builder.build().unwrap().metadata).unwrap();
    serde_json::from_value(json).unwrap()
}

fn not_leased(table: &TableMetadata) -> Vec<i64> {
    snapshots_to_remove(table, &LeasedSnapshots::default(), NOW_MS)
}

#[test]
fn nothing_is_removed_up_to_the_bound_and_its_slack() {
    let bound = (SNAPSHOTS_MAX + SNAPSHOTS_SLACK) as i64;
    assert!(not_leased(&table(bound, true)).is_empty());
    let removed = not_leased(&table(bound + 1, true));
    assert!(removed.len() > SNAPSHOTS_SLACK);
    assert!(!removed.contains(&(bound + 1)));
}

#[test]
fn tables_of_others_are_never_thinned() {
    assert!(not_leased(&table(1_000, false)).is_empty());
}

#[test]
fn branches_and_tags_protect_their_snapshots() {
    let table = table(600, true);
    let tagged = not_leased(&table)[0];
    let reference = SnapshotReference::new(tagged, SnapshotRetention::Tag { max_ref_age_ms: None });
    let update = TableUpdate::SetSnapshotRef { ref_name: "audit".to_owned(), reference };
    let table = update.apply(table.into_builder(None)).unwrap().build().unwrap().metadata;
    assert_eq!(refs::of(&table)["audit"].snapshot_id, tagged);
    assert!(!not_leased(&table).contains(&tagged));
}

fn leased(table: &TableMetadata, main: &[i64], others: &[i64]) -> LeasedSnapshots {
    let ids = |ids: &[i64]| ids.iter().copied().collect();
    let leases = lease::LeasedIds { main: ids(main), others: ids(others) };
    LeasedSnapshots::of(table, &leases)
}

#[test]
fn what_came_after_a_leased_snapshot_of_main_stays_with_it() {
    let table = table(700, true);
    let held = leased(&table, &[100], &[50]);
    let removed = snapshots_to_remove(&table, &held, NOW_MS);
    assert!(!removed.is_empty());
    assert!(removed.iter().all(|id| *id < 100 && *id != 50), "{removed:?}");
    // Those that stay by themselves are the same as without leases.
    let without = not_leased(&table);
    let more: Vec<i64> = without.iter().filter(|id| !removed.contains(id)).copied().collect();
    assert!(more.iter().all(|id| 100 <= *id || *id == 50), "{more:?}");
    assert!(removed.iter().all(|id| without.contains(id)));
}

#[test]
fn what_leases_hold_is_bounded() {
    let table = table(2_000, true);
    let all: Vec<i64> = (1..=2_000).collect();
    let held = leased(&table, &all, &[]);
    assert_eq!(held.ids().count(), lease::LEASED_MAX);
    let newest = 2_001 - lease::LEASED_MAX as i64;
    assert!((newest..=2_000).all(|id| held.has(id)), "the newest are among them");
    let left = 2_000 - snapshots_to_remove(&table, &held, NOW_MS).len();
    // The newest ones stay by themselves, and take no place beside.
    assert!(left <= SNAPSHOTS_MAX + lease::LEASED_MAX - NEWEST_IN_FULL, "{left}");
}

#[test]
fn a_table_that_leases_hold_above_its_bound_is_thinned_now_and_then() {
    let table = table(600, true);
    let held = leased(&table, &[30], &[]);
    assert!(is_overgrown(&table));
    assert!(snapshots_to_remove(&table, &held, NOW_MS).is_empty(), "a few are left alone");
}

#[test]
fn a_lease_of_a_snapshot_that_main_left_holds_it_alone() {
    let table = table(5, true);
    assert_eq!(leased(&table, &[9], &[]), LeasedSnapshots::default());
    assert_eq!(leased(&table, &[], &[2]).ids().collect::<Vec<_>>(), [2]);
}
