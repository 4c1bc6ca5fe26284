use super::*;
use crate::snapshot::{build, tests::Table};
use iceberg::spec::{DataFileBuilder, DataFileFormat, Datum, FormatVersion};

#[test]
fn manifests_are_kept_up_to_a_bound() {
    let zeros = |count| Bytes::from(vec![0; count]);
    let mut read = ReadManifests::default();
    read.keep("a", zeros(KEPT_BYTES_MAX - 2));
    read.keep("too much", zeros(3));
    read.keep("b", zeros(2));
    read.keep("no more", zeros(1));
    let mut kept: Vec<&str> = read.bytes.keys().map(String::as_str).collect();
    kept.sort_unstable();
    assert_eq!((kept, read.kept_bytes), (vec!["a", "b"], KEPT_BYTES_MAX));
}

/// Takes out one file of two, with room for so many bytes of manifests.
async fn left(room: usize) -> Vec<String> {
    let mut table = Table::new(FormatVersion::V2, true);
    let (one, other) = (table.file("a"), table.file("a"));
    let built = table.build(vec![one.clone(), other]).await.unwrap();
    table.apply(built.updates);
    let new = NewSnapshot {
        operation: Operation::Delete,
        read: table.metadata.current_snapshot_id(),
        removed: vec![one],
        ..NewSnapshot::default()
    };
    let mut read = ReadManifests { kept_bytes: KEPT_BYTES_MAX - room, ..ReadManifests::default() };
    let listed = table.manifests(built.snapshot_id).await;
    check(&table.storage, &table.metadata, &listed, &new, &mut read).await.unwrap();
    assert_eq!(read.bytes.len(), usize::from(0 < room));
    let built = build(&table.storage, &table.metadata, &new, &read, table.now_ms).await.unwrap();
    table.apply(built.updates);
    table.live(built.snapshot_id).await.into_iter().map(|(path, ..)| path).collect()
}

#[tokio::test]
async fn a_manifest_that_was_not_kept_is_read_once_more() {
    let [kept, read_again] = [left(KEPT_BYTES_MAX).await, left(0).await];
    assert_eq!(kept.len(), 1);
    let names = |paths: &[String]| -> Vec<String> {
        paths.iter().map(|path| path.rsplit('/').next().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(names(&kept), names(&read_again));
}

/// A table of two files, each in a manifest of its own, and a snapshot that takes both out, as it was
/// examined.
async fn examined() -> (Table, NewSnapshot, ReadManifests) {
    let mut table = Table::new(FormatVersion::V2, true);
    let mut removed = Vec::new();
    for _ in 0..2 {
        removed.push(table.file("a"));
        let built = table.build(removed[removed.len() - 1..].to_vec()).await.unwrap();
        table.apply(built.updates);
    }
    let read = table.metadata.current_snapshot_id();
    let new = NewSnapshot { operation: Operation::Delete, read, removed, ..NewSnapshot::default() };
    let mut found = ReadManifests::default();
    for is_new in [true, false] {
        let examined = examine(&table.storage, &table.metadata, &new, &mut found).await;
        assert_eq!(examined.unwrap(), is_new);
    }
    assert_eq!((found.written.len(), found.bytes.len(), found.kept_bytes), (1, 0, 0));
    (table, new, found)
}

async fn append(table: &mut Table) {
    let file = table.file("a");
    let built = table.build(vec![file]).await.unwrap();
    table.apply(built.updates);
}

#[tokio::test]
async fn what_was_written_before_the_turn_is_used_as_it_is() {
    let (mut table, new, found) = examined().await;
    let before = table.metadata.current_snapshot_id().unwrap();
    for manifest in table.manifests(before).await {
        table.storage.delete(&manifest.manifest_path).await.unwrap();
    }
    append(&mut table).await;
    let built = build(&table.storage, &table.metadata, &new, &found, table.now_ms).await.unwrap();
    assert_eq!((built.written.len(), built.unused.len()), (1, 0), "only the list is written");
    assert_eq!(Some(built.snapshot_id), found.snapshot_id);
    table.apply(built.updates);
    let listed = table.manifests(built.snapshot_id).await;
    let is_used = |path: &&String| listed.iter().any(|it| it.manifest_path == **path);
    assert_eq!(found.written.iter().filter(is_used).count(), 1);
    assert_eq!(table.live(built.snapshot_id).await.len(), 1);
}

#[tokio::test]
async fn manifests_of_which_nothing_stays_become_one_unless_one_of_them_went() {
    let (table, new, found) = examined().await;
    let mut listed = table.manifests(table.metadata.current_snapshot_id().unwrap()).await;
    let id = found.snapshot_id.unwrap();
    for (count, unused) in [(2, 0), (1, 1)] {
        listed.truncate(count);
        let mut writer = SnapshotWriter::new(&table.storage, &table.metadata, id);
        let made = rewrite(&mut writer, listed.clone(), &new, found.clone()).await.unwrap();
        assert_eq!((made.rewritten.len(), made.replaced), (1, count));
        assert_eq!((made.kept.len(), made.unused.len()), (0, unused));
        assert_eq!(made.rewritten[0].deleted_files_count, u32::try_from(count).ok());
        assert!(!made.rewritten[0].has_added_files() && !made.rewritten[0].has_existing_files());
    }
}

#[tokio::test]
async fn columns_are_told_of_files_that_stay_and_of_none_that_goes() {
    let mut table = Table::new(FormatVersion::V2, true);
    let (gone, stays) = (table.file("a"), table.file("a"));
    let built = table.build(vec![gone.clone(), stays.clone()]).await.unwrap();
    table.apply(built.updates);
    let read = table.metadata.current_snapshot_id();
    let removed = vec![gone.clone()];
    let new = NewSnapshot { operation: Operation::Delete, read, removed, ..NewSnapshot::default() };
    let none = ReadManifests::default();
    let built = build(&table.storage, &table.metadata, &new, &none, table.now_ms).await.unwrap();
    table.apply(built.updates);
    let own = table.storage.normalize(table.metadata.location()).unwrap();
    let [manifest] = &table.manifests(built.snapshot_id).await[..] else { panic!("one manifest") };
    let entries = manifests::restore::all(&table.storage, &own, manifest).await.unwrap();
    assert_eq!(entries.len(), 2);
    for entry in entries {
        let (file, is_live) = (entry.data_file(), entry.is_alive());
        let expected = if is_live { &stays } else { &gone };
        assert_eq!((file.file_path(), file.record_count()), (expected.file_path(), 10));
        assert_eq!((file.file_size_in_bytes(), file.partition()), (1_000, expected.partition()));
        assert_eq!(file.value_counts().is_empty(), !is_live);
        assert_eq!(file.lower_bounds().is_empty(), !is_live);
    }
}

/// A check of a table of the service tells by them which numbers went, where the snapshot before is gone.
#[tokio::test]
async fn numbers_of_rows_that_go_stay_known_in_tables_of_the_service_alone() {
    for is_managed in [true, false] {
        let mut table = Table::new(FormatVersion::V2, is_managed);
        let mut schema = serde_json::to_value(table.metadata.current_schema()).unwrap();
        schema["fields"][0]["name"] = "seq".into();
        let schema = serde_json::from_value(schema).unwrap();
        table.apply(vec![
            iceberg::TableUpdate::AddSchema { schema },
            iceberg::TableUpdate::SetCurrentSchema { schema_id: -1 },
        ]);
        let gone = table.file("a");
        let built = table.build(vec![gone.clone()]).await.unwrap();
        table.apply(built.updates);
        let (read, removed) = (table.metadata.current_snapshot_id(), vec![gone]);
        let operation = Operation::Delete;
        let new = NewSnapshot { operation, read, removed, ..NewSnapshot::default() };
        let none = ReadManifests::default();
        let built = build(&table.storage, &table.metadata, &new, &none, table.now_ms).await;
        let built = built.unwrap();
        table.apply(built.updates);
        let own = table.storage.normalize(table.metadata.location()).unwrap();
        let listed = table.manifests(built.snapshot_id).await;
        let entries = manifests::restore::all(&table.storage, &own, &listed[0]).await.unwrap();
        assert!(entries.len() == 1 && !entries[0].is_alive());
        let file = entries[0].data_file();
        let expected = is_managed.then(|| Datum::long(3));
        assert_eq!(file.lower_bounds().get(&1), expected.as_ref());
        assert!(file.upper_bounds().is_empty() && file.value_counts().is_empty());
    }
}

#[tokio::test]
async fn what_was_written_for_manifests_that_were_merged_since_is_of_no_use() {
    let (mut table, new, found) = examined().await;
    for _ in 0..manifests::merge::MERGE_AT {
        append(&mut table).await;
    }
    let built = build(&table.storage, &table.metadata, &new, &found, table.now_ms).await.unwrap();
    let (mut unused, mut written) = (built.unused, found.written);
    unused.sort();
    written.sort();
    assert_eq!(unused, written);
    table.apply(built.updates);
    assert_eq!(table.live(built.snapshot_id).await.len(), manifests::merge::MERGE_AT);
}

/// Deletes that are carried over to a file that comes are read up to a snapshot, and are about no file of before.
#[tokio::test]
async fn deletes_of_a_later_snapshot_are_carried_over_and_no_younger_ones() {
    let mut table = Table::new(FormatVersion::V2, true);
    let one = table.file("a");
    let built = table.build(vec![one.clone()]).await.unwrap();
    table.apply(built.updates);
    let read = table.metadata.current_snapshot_id();
    let about = |of: &DataFile, name: &str| {
        let delete = DataFileBuilder::default()
            .content(DataContentType::PositionDeletes)
            .file_path(format!("{}-{name}", of.file_path()))
            .file_format(DataFileFormat::Parquet)
            .partition(of.partition().clone())
            .partition_spec_id(0)
            .record_count(1)
            .file_size_in_bytes(10)
            .referenced_data_file(Some(of.file_path().to_owned()))
            .build();
        (0, delete.unwrap())
    };
    let merged = table.file("a");
    let mut new = NewSnapshot {
        operation: Operation::Replace,
        read,
        removed: vec![one.clone()],
        added: vec![merged.clone()],
        deletes: vec![about(&merged, "carried")],
        ..NewSnapshot::default()
    };
    let none = ReadManifests::default();
    for name in ["first", "second"] {
        let delete = NewSnapshot {
            operation: Operation::Delete,
            read: table.metadata.current_snapshot_id(),
            deletes: vec![about(&one, name)],
            ..NewSnapshot::default()
        };
        let built = build(&table.storage, &table.metadata, &delete, &none, table.now_ms).await;
        table.apply(built.unwrap().updates);
        let refused = build(&table.storage, &table.metadata, &new, &none, table.now_ms).await;
        let Err(CatalogError::CommitFailed(text)) = &refused else { panic!("{refused:?}") };
        assert!(text.contains(&format!("-{name}` deletes rows of `")), "{text}");
        new.deletes_read = table.metadata.current_snapshot_id();
    }
    let built = build(&table.storage, &table.metadata, &new, &none, table.now_ms).await.unwrap();
    table.apply(built.updates);
    let live = table.live(built.snapshot_id).await;
    let paths: Vec<&str> = live.iter().map(|(path, ..)| path.as_str()).collect();
    assert!(paths.contains(&merged.file_path()) && !paths.contains(&one.file_path()), "{paths:?}");
    new.deletes_read = Some(1);
    let refused = build(&table.storage, &table.metadata, &new, &none, table.now_ms).await;
    let Err(CatalogError::CommitFailed(text)) = &refused else { panic!("{refused:?}") };
    assert!(text.contains("snapshot 1, which was read for it, is gone"), "{text}");
}
