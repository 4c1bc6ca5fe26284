//! A client that read a table, lost a race, and puts its work on the new head without looking.

use super::{
    live::{UPDATE, two_files},
    row_delta::*,
    *,
};
use iceberg::spec::{DataFile, ManifestContentType, ManifestEntryRef};

/// What a client makes of the files it has read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Work<'a> {
    pub(super) operation: &'a str,
    /// Data files that it takes out, said so in its manifests.
    pub(super) removes: &'a [&'a str],
    /// Data files that it adds, with their rows.
    pub(super) adds: &'a [(&'a str, u64)],
    /// The sequence number that they come with.
    pub(super) made_at: Option<i64>,
    /// Position delete files, each with its data file.
    pub(super) deletes: &'a [(&'a str, &'a str)],
    /// Files that it lists as they were, whatever became of them.
    pub(super) lists: &'a [&'a str],
}

/// A data file of this name in the folder `data`, or as a whole location has it.
pub(super) fn rows_of(table: &LoadedTable, name: &str, rows: u64) -> DataFile {
    let path = match name.contains(":/") {
        true => name.to_owned(),
        false => format!("{}/data/{name}", table.metadata.location()),
    };
    DataFileBuilder::default()
        .content(DataContentType::Data)
        .file_path(path)
        .file_format(DataFileFormat::Parquet)
        .record_count(rows)
        .file_size_in_bytes(10)
        .partition(Struct::empty())
        .partition_spec_id(0)
        .build()
        .unwrap()
}

/// A client that read the table as `read`, lost a race and puts its work on `head` as it is.
pub(super) async fn put(
    catalog: &Catalog,
    head: &LoadedTable,
    id: i64,
    work: Work<'_>,
) -> TableChange {
    let at = (catalog, head);
    let mut list = Vec::new();
    let mut kept: Vec<ManifestEntryRef> = Vec::new();
    for manifest in listed(catalog, head).await {
        if manifest.content == ManifestContentType::Deletes || work.removes.is_empty() {
            list.push(manifest);
            continue;
        }
        let loaded = manifest.load_manifest(&catalog.storage().file_io()).await.unwrap();
        let live = loaded.entries().iter().filter(|entry| entry.is_alive()).cloned();
        let is_out = |entry: &ManifestEntryRef| {
            work.removes.iter().any(|name| entry.file_path().ends_with(&format!("/{name}")))
        };
        kept.extend(live.filter(|entry| !is_out(entry)));
    }
    if !kept.is_empty() {
        list.push(manifest(at, id, "data-kept", &[], &kept).await);
    }
    let output = |name: &str| {
        let location = format!("{}/metadata/m{id}-{name}.avro", head.metadata.location());
        let output = catalog.storage().file_io().new_output(location).unwrap();
        let schema = Arc::clone(head.metadata.current_schema());
        let spec = head.metadata.default_partition_spec().as_ref().clone();
        ManifestWriterBuilder::new(output, Some(id), schema, spec)
    };
    if !work.removes.is_empty() || !work.adds.is_empty() || !work.lists.is_empty() {
        let mut data = output("data").build_v2_data();
        for name in work.removes {
            data.add_delete_file(rows_of(head, name, 10), 1, Some(1)).unwrap();
        }
        for name in work.lists {
            data.add_existing_file(rows_of(head, name, 10), 1, 1, Some(1)).unwrap();
        }
        for (name, rows) in work.adds {
            data.add_file(rows_of(head, name, *rows), work.made_at.unwrap_or(-1)).unwrap();
        }
        list.push(data.write_manifest_file().await.unwrap());
    }
    let deletes: Vec<DataFile> =
        work.deletes.iter().map(|(name, about)| delete(head, (name, Some(about)))).collect();
    if !deletes.is_empty() {
        list.push(manifest(at, id, "deletes", &deletes, &[]).await);
    }
    let location = own_list(head, id);
    let writer = catalog.storage().file_io().new_output(&location).unwrap().writer().await.unwrap();
    let metadata = &head.metadata;
    let parent = metadata.current_snapshot_id();
    let mut written = ManifestListWriter::v2(writer, id, parent, metadata.next_sequence_number());
    written.add_manifests(list.into_iter()).unwrap();
    written.close().await.unwrap();
    let mut updates = add_snapshot(head, id, &location);
    updates[0]["snapshot"]["summary"]["operation"] = json!(work.operation);
    change("a.t", on_main(parent), updates)
}

#[tokio::test]
async fn the_list_of_a_rebased_commit_is_queued_in_its_normal_form() {
    let house = house().await;
    let catalog = &house.catalog;
    let made = create(catalog, "a.t").await;
    let append = |name| Work { operation: "append", adds: name, ..Work::default() };
    let late = put(catalog, &made, 1, append(&[("a", 10)])).await;
    catalog.commit(put(catalog, &made, 2, append(&[("b", 10)])).await).await.unwrap();
    let updates = serde_json::to_string(&late.updates).unwrap();
    let updates = updates.replace("/metadata/1.avro", "/metadata//1.avro");
    let late = TableChange { updates: serde_json::from_str(&updates).unwrap(), ..late };
    let rebased = catalog.commit(late).await.unwrap();
    assert_eq!(rebased.metadata.snapshots().len(), 2);
    let queued = catalog.metastore().obsolete(i64::MAX, 10).await.unwrap();
    assert_eq!(queued, [own_list(&made, 1)]);
}

#[tokio::test]
async fn a_list_of_another_snapshot_is_not_queued_with_a_rebased_commit() {
    let house = house().await;
    let catalog = &house.catalog;
    let made = create(catalog, "a.t").await;
    let append = |adds| Work { operation: "append", adds, ..Work::default() };
    let read = catalog.commit(put(catalog, &made, 1, append(&[("a", 10)])).await).await.unwrap();
    let late = put(catalog, &read, 2, append(&[])).await;
    catalog.commit(put(catalog, &read, 3, append(&[("b", 10)])).await).await.unwrap();
    let updates = serde_json::to_string(&late.updates).unwrap();
    let updates = updates.replace("/metadata/2.avro", "/metadata//1.avro");
    let late = TableChange { updates: serde_json::from_str(&updates).unwrap(), ..late };
    let rebased = catalog.commit(late).await.unwrap();
    assert_eq!(rebased.metadata.current_snapshot_id(), Some(2));
    assert!(catalog.metastore().obsolete(i64::MAX, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_late_commit_of_a_list_that_does_not_read_has_lost_a_race() {
    let house = house().await;
    let catalog = &house.catalog;
    let made = create(catalog, "a.t").await;
    let append = |adds| Work { operation: "append", adds, ..Work::default() };
    let read = catalog.commit(put(catalog, &made, 1, append(&[("a", 10)])).await).await.unwrap();
    let late = change("a.t", on_main(Some(1)), add_snapshot(&read, 2, &own_list(&read, 2)));
    catalog.commit(put(catalog, &read, 3, append(&[("b", 10)])).await).await.unwrap();
    let lost = catalog.commit(late).await;
    assert!(matches!(lost, Err(CatalogError::CommitFailed(_))), "{lost:?}");
}

#[tokio::test]
async fn a_commit_on_a_history_that_was_removed_since_is_a_lost_race() {
    let (_house, catalog) = two_files().await;
    let read = catalog.tables().load(&ident("a.t")).await.unwrap();
    let append = Work { operation: "append", adds: &[("f9", 5)], ..Work::default() };
    let late = put(&catalog, &read, 2, append).await;
    catalog.commit(put(&catalog, &read, 3, UPDATE).await).await.unwrap();
    let without = json!([{"action": "remove-snapshots", "snapshot-ids": [1]}]);
    catalog.commit(change("a.t", json!([]), without)).await.unwrap();
    let location = format!("{}/metadata/m1-data.avro", read.metadata.location());
    let file = ObsoleteFile { location: location.clone(), not_before_ms: i64::MAX };
    catalog.metastore().add_obsolete(&[file]).await.unwrap();
    let lost = catalog.commit(late.clone()).await;
    let Err(CatalogError::CommitFailed(text)) = &lost else { panic!("{lost:?}") };
    assert!(
        text.contains("m1-data.avro`") && text.contains("snapshot 1, which was removed"),
        "{text}"
    );
    // The same once the file is gone.
    catalog.metastore().forget_obsolete(std::slice::from_ref(&location)).await.unwrap();
    catalog.storage().delete(&location).await.unwrap();
    let lost = catalog.commit(late).await;
    let Err(CatalogError::CommitFailed(text)) = &lost else { panic!("{lost:?}") };
    assert!(text.contains("m1-data.avro` does not exist"), "{text}");
}
