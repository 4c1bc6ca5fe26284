use super::*;
use crate::snapshot::{
    NewSnapshot, ReadManifests, build, obsolete::reads::HistoryReads, tests::Table,
};
use iceberg::spec::{DataFile, FormatVersion, Operation};

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
        ..NewSnapshot::default()
    };
    add(&mut table, replace).await;
    for _ in 0..=retention::SNAPSHOTS_MAX + retention::SNAPSHOTS_SLACK {
        add(&mut table, NewSnapshot::default()).await;
    }
    let known = &mut HistoryReads::default();
    let reader = HistoryReader { storage: &table.storage, base: &table.metadata, known };
    let plan = thin(reader, table.now_ms).await.unwrap().unwrap();
    (table, old, plan)
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
async fn lists_and_manifests_wait_for_planners_and_files_for_readers() {
    let (_table, old, plan) = overgrown().await;
    let (content, metadata): (Vec<_>, Vec<_>) =
        plan.obsolete(0).into_iter().partition(|file| file.location == old.file_path());
    assert!(content.iter().all(|file| file.not_before_ms == READER_GRACE_MS));
    assert!(metadata.iter().all(|file| file.not_before_ms == PLANNER_GRACE_MS));
    assert!(content.len() == 1 && 100 < metadata.len());
}
