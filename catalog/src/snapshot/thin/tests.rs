use super::*;
use crate::{
    commit,
    snapshot::{
        NewSnapshot, ReadManifests, branch, build, obsolete::reads::HistoryReads, tests::Table,
        timestamp_ms, unused_id,
    },
};
use iceberg::spec::{DataFile, FormatVersion, Operation, Snapshot, SnapshotRetention, Summary};

async fn add(table: &mut Table, new: NewSnapshot) -> i64 {
    let (storage, base) = (&table.storage, &table.metadata);
    let built = build(storage, base, &new, &ReadManifests::default(), table.now_ms).await.unwrap();
    table.apply(built.updates);
    built.snapshot_id
}

/// A table of too many snapshots, of which the first has a file that the second replaces, and what was
/// worked out for it.
async fn overgrown() -> (Table, DataFile, SnapshotThinning) {
    let mut table = Table::new(FormatVersion::V2, true);
    let old = table.file("a");
    let read = add(&mut table, NewSnapshot { added: vec![old.clone()], ..NewSnapshot::default() });
    let read = Some(read.await);
    let replace = NewSnapshot {
        operation: Operation::Replace,
        read,
        added: vec![table.file("a")],
        removed: vec![old.clone()],
        summary: [(commit::COMPACTION.to_owned(), commit::MERGED.to_owned())].into(),
        ..NewSnapshot::default()
    };
    add(&mut table, replace).await;
    for _ in 0..=retention::SNAPSHOTS_MAX + retention::SNAPSHOTS_SLACK {
        add(&mut table, NewSnapshot::default()).await;
    }
    let plan = planned(&table).await;
    (table, old, plan)
}

async fn planned(table: &Table) -> SnapshotThinning {
    let known = &mut HistoryReads::default();
    let reader = HistoryReader { storage: &table.storage, base: &table.metadata, known };
    thin(reader, &LeasedSnapshots::default(), table.now_ms).await.unwrap().unwrap()
}

fn set_branch(table: &mut Table, name: &str, snapshot_id: i64) {
    table.set_ref(name, snapshot_id, SnapshotRetention::branch(None, None, None));
}

/// A snapshot of another branch, on top of the head of `main`.
async fn add_beside(table: &mut Table) {
    let head = table.metadata.current_snapshot_id().unwrap();
    let id = add(table, NewSnapshot::default()).await;
    set_branch(table, "other", id);
    set_branch(table, "main", head);
}

/// A snapshot of another engine on the head, with this list.
fn add_listed(table: &mut Table, id: i64, list: String) {
    let snapshot = Snapshot::builder()
        .with_snapshot_id(id)
        .with_parent_snapshot_id(table.metadata.current_snapshot_id())
        .with_sequence_number(table.metadata.next_sequence_number())
        .with_timestamp_ms(timestamp_ms(&table.metadata, table.now_ms))
        .with_manifest_list(list)
        .with_summary(Summary {
            operation: Operation::Append,
            additional_properties: HashMap::new(),
        })
        .with_schema_id(0)
        .build();
    table.apply(branch::onto(&table.metadata, None, snapshot).unwrap());
}

/// The snapshots that go, the oldest first.
fn going(plan: &SnapshotThinning, table: &Table) -> Vec<SnapshotRef> {
    let snapshots = plan.removed.iter().filter_map(|id| table.metadata.snapshot_by_id(*id));
    let mut snapshots: Vec<SnapshotRef> = snapshots.map(Arc::clone).collect();
    snapshots.sort_by_key(|snapshot| snapshot.sequence_number());
    snapshots
}

/// Whether a plan holds for the table as it is now, with these snapshots named.
async fn follows(
    plan: &mut SnapshotThinning,
    before: &TableMetadata,
    table: &Table,
    named: &[i64],
) -> bool {
    let known = &mut HistoryReads::default();
    let reader = HistoryReader { storage: &table.storage, base: &table.metadata, known };
    plan.follow(before, reader, &named.iter().copied().collect()).await.unwrap()
}

#[tokio::test]
async fn what_was_worked_out_before_leaves_what_came_since() {
    let (mut table, old, mut plan) = overgrown().await;
    let content =
        |plan: &SnapshotThinning| -> Vec<String> { plan.content.values().cloned().collect() };
    assert_eq!(content(&plan), [old.file_path()]);
    let before = table.metadata.clone();
    add(&mut table, NewSnapshot::default()).await;
    assert!(follows(&mut plan, &before, &table, &[]).await);
    assert_eq!(content(&plan), [old.file_path()]);
    let named = plan.removed[0];
    assert!(!follows(&mut plan, &before, &table, &[named]).await, "a tag keeps it");
    let before = table.metadata.clone();
    add(&mut table, NewSnapshot { added: vec![old], ..NewSnapshot::default() }).await;
    assert!(follows(&mut plan, &before, &table, &[]).await);
    assert!(plan.content.is_empty(), "a snapshot has the file again");
    table.apply(vec![TableUpdate::RemoveSnapshots { snapshot_ids: vec![named] }]);
    assert!(!follows(&mut plan, &before, &table, &[]).await, "somebody else was faster");
}

#[tokio::test]
async fn a_branch_that_grows_holds_up_no_thinning() {
    let (mut table, ..) = overgrown().await;
    add_beside(&mut table).await;
    let mut plan = planned(&table).await;
    let before = table.metadata.clone();
    add_beside(&mut table).await;
    assert!(follows(&mut plan, &before, &table, &[]).await);
    let until = table.metadata.last_sequence_number();
    assert_eq!(plan.history, SnapshotHistory::Forked { until });
    let (mut table, _, mut plan) = overgrown().await;
    let before = table.metadata.clone();
    add_beside(&mut table).await;
    assert!(!follows(&mut plan, &before, &table, &[]).await, "it was made of one line");
}

#[tokio::test]
async fn a_snapshot_of_a_known_id_may_have_a_manifest_that_was_to_go() {
    let (mut table, _, mut plan) = overgrown().await;
    let before = table.metadata.clone();
    let head = before.current_snapshot_id().unwrap();
    let bytes = table.storage.get(going(&plan, &table)[0].manifest_list()).await.unwrap();
    let list = format!("{}/metadata/again.avro", before.location());
    table.storage.put(&list, bytes).await.unwrap();
    let parent = before.current_snapshot().unwrap().parent_snapshot_id().unwrap();
    set_branch(&mut table, "main", parent);
    table.apply(vec![TableUpdate::RemoveSnapshots { snapshot_ids: vec![head] }]);
    add_listed(&mut table, head, list);
    assert_eq!(obsolete::history(&table.metadata), SnapshotHistory::OneLine);
    assert!(!follows(&mut plan, &before, &table, &[]).await);
}

#[tokio::test]
async fn a_new_snapshot_may_have_a_list_that_was_to_go() {
    let (mut table, _, mut plan) = overgrown().await;
    let before = table.metadata.clone();
    // All that it lists, the head has, too.
    let list = going(&plan, &table).pop().unwrap().manifest_list().to_owned();
    let id = unused_id(&table.metadata);
    add_listed(&mut table, id, list);
    assert!(!follows(&mut plan, &before, &table, &[]).await);
}

#[tokio::test]
async fn lists_and_manifests_wait_for_planners_and_files_for_readers() {
    // What is removed was current until the first snapshot that stays came.
    for since_ms in [0, 60_000, READER_GRACE_MS - PLANNER_GRACE_MS, 90 * READER_GRACE_MS] {
        let (table, old, plan) = overgrown().await;
        let removed: Vec<i64> = plan.removed.clone();
        let newest = removed.iter().filter_map(|id| table.metadata.snapshot_by_id(*id));
        let newest = newest.map(|it| it.sequence_number()).max().unwrap();
        let later = table.metadata.snapshots().filter(|it| newest < it.sequence_number());
        let until_ms = later.map(|it| it.timestamp_ms()).min().unwrap();
        let now_ms = until_ms + since_ms;
        let (content, metadata): (Vec<_>, Vec<_>) = plan
            .obsolete(&table.metadata, now_ms)
            .into_iter()
            .partition(|file| file.location == old.file_path());
        let read_ms = (until_ms + READER_GRACE_MS).max(now_ms + PLANNER_GRACE_MS);
        assert!(content.iter().all(|file| file.not_before_ms == read_ms));
        assert!(metadata.iter().all(|file| file.not_before_ms == now_ms + PLANNER_GRACE_MS));
        assert!(content.len() == 1 && 100 < metadata.len());
    }
}

#[tokio::test]
async fn beside_a_fork_files_wait_for_readers_from_now_on() {
    let (mut table, old, _) = overgrown().await;
    add_beside(&mut table).await;
    let plan = planned(&table).await;
    let now_ms = table.now_ms + READER_GRACE_MS;
    let files = plan.obsolete(&table.metadata, now_ms);
    let content = files.iter().find(|file| file.location == old.file_path()).unwrap();
    assert_eq!(content.not_before_ms, now_ms + READER_GRACE_MS);
}
