mod every_order;

use super::{
    obsolete::{
        SnapshotHistory,
        reads::{HistoryReader, HistoryReads},
    },
    *,
};
use crate::{
    catalog::{Catalog, CreateTable},
    commit, metadata_file,
    metastore::{Metastore, ObsoleteFile},
    retention::lease::LeasedSnapshots,
    storage::S3Options,
};
use iceberg::TableIdent;
use iceberg::spec::{
    DataFileBuilder, DataFileFormat, Datum, Literal, ManifestStatus, NestedField, PrimitiveType,
    Schema, SnapshotReference, SnapshotRetention, SortOrder, Struct, TableMetadataBuilder,
    Transform, Type, UnboundPartitionSpec,
};
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

/// A table whose commits are applied at once, without a catalog.
pub(super) struct Table {
    pub(super) storage: Storage,
    pub(super) metadata: TableMetadata,
    pub(super) now_ms: i64,
    obsolete: Vec<ObsoleteFile>,
    files: u64,
    folder: tempfile::TempDir,
}

impl Table {
    pub(super) fn new(version: FormatVersion, managed: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let warehouse = format!("file://{}", folder.path().display());
        let storage = Storage::open(&warehouse, &S3Options::default()).unwrap();
        let primitive =
            |id, name, kind| Arc::new(NestedField::required(id, name, Type::Primitive(kind)));
        let schema = Schema::builder()
            .with_fields([
                primitive(1, "id", PrimitiveType::Long),
                primitive(2, "type", PrimitiveType::String),
                primitive(3, "ts", PrimitiveType::Timestamptz),
            ])
            .build()
            .unwrap();
        let spec = UnboundPartitionSpec::builder()
            .add_partition_field(2, "type", Transform::Identity)
            .unwrap()
            .add_partition_field(3, "dt", Transform::Day)
            .unwrap()
            .build();
        let properties = HashMap::from([(retention::MANAGED.to_owned(), managed.to_string())]);
        let location = format!("{}/t", storage.root());
        let metadata = TableMetadataBuilder::new(
            schema,
            spec,
            SortOrder::unsorted_order(),
            location,
            version,
            properties,
        );
        let metadata = metadata.unwrap().build().unwrap().metadata;
        let now_ms = metadata.last_updated_ms();
        let obsolete = Vec::new();
        Self { storage, metadata, now_ms, obsolete, files: 0, folder }
    }

    pub(super) fn file(&mut self, kind: &str) -> DataFile {
        self.file_of(kind, 20_000)
    }

    fn file_of(&mut self, kind: &str, day: i32) -> DataFile {
        self.files += 1;
        DataFileBuilder::default()
            .content(DataContentType::Data)
            .file_path(format!("{}/data/{:06}.parquet", self.metadata.location(), self.files))
            .file_format(DataFileFormat::Parquet)
            .partition(Struct::from_iter([Some(Literal::string(kind)), Some(Literal::date(day))]))
            .record_count(10)
            .file_size_in_bytes(1_000)
            .value_counts(HashMap::from([(1, 10)]))
            .lower_bounds(HashMap::from([(1, Datum::long(3))]))
            .partition_spec_id(0)
            .build()
            .unwrap()
    }

    pub(super) async fn build(&self, files: Vec<DataFile>) -> Result<BuiltSnapshot, CatalogError> {
        build(&self.storage, &self.metadata, &append(files), &ReadManifests::default(), self.now_ms)
            .await
    }

    pub(super) fn apply(&mut self, updates: Vec<TableUpdate>) {
        let mut builder = self.metadata.clone().into_builder(None);
        for update in updates {
            builder = update.apply(builder).unwrap();
        }
        self.metadata = builder.build().unwrap().metadata;
    }

    /// Appends one file per kind and gives the new snapshot's id.
    async fn append(&mut self, kinds: &[&str]) -> i64 {
        let files = kinds.iter().map(|kind| self.file(kind)).collect();
        self.commit(files).await
    }

    async fn commit(&mut self, files: Vec<DataFile>) -> i64 {
        let built = self.build(files).await.unwrap();
        self.apply(built.updates);
        let known = &mut HistoryReads::default();
        let reader = HistoryReader { storage: &self.storage, base: &self.metadata, known };
        let leased = LeasedSnapshots::default();
        if let Some(thinning) = thin::thin(reader, &leased, self.now_ms).await.unwrap() {
            let now_ms = self.now_ms + 1;
            let updates = thinning.updates(&self.metadata);
            let thinned = commit::apply_updates_at(&self.metadata, None, &updates, now_ms);
            self.obsolete.extend(thinning.obsolete(&self.metadata, self.now_ms));
            self.metadata = thinned.unwrap();
        }
        self.now_ms += 1_000;
        built.snapshot_id
    }

    pub(super) async fn manifests(&self, snapshot_id: i64) -> Vec<iceberg::spec::ManifestFile> {
        let snapshot = self.metadata.snapshot_by_id(snapshot_id).unwrap();
        manifests::read_list(&self.storage, &self.metadata, snapshot).await.unwrap()
    }

    /// Live files of a snapshot with the snapshot and sequence number they came with.
    pub(super) async fn live(&self, snapshot_id: i64) -> Vec<(String, i64, i64)> {
        let mut live = Vec::new();
        for manifest in self.manifests(snapshot_id).await {
            let manifest = manifest.load_manifest(&self.storage.file_io()).await.unwrap();
            for entry in manifest.entries().iter().filter(|entry| entry.is_alive()) {
                live.push((
                    entry.file_path().to_owned(),
                    entry.snapshot_id().unwrap(),
                    entry.sequence_number().unwrap(),
                ));
            }
        }
        live.sort();
        live
    }

    pub(super) fn set_ref(&mut self, name: &str, snapshot_id: i64, retention: SnapshotRetention) {
        let reference = SnapshotReference::new(snapshot_id, retention);
        let ref_name = name.to_owned();
        self.apply(vec![TableUpdate::SetSnapshotRef { ref_name, reference }]);
    }

    /// A snapshot of another engine that leaves out the parent's first `dropped` manifests.
    async fn drop_manifests(&mut self, dropped: usize) -> i64 {
        let parent = Arc::clone(self.metadata.current_snapshot().unwrap());
        let kept = self.manifests(parent.snapshot_id()).await.into_iter().skip(dropped);
        let id = unused_id(&self.metadata);
        let mut writer = manifests::SnapshotWriter::new(&self.storage, &self.metadata, id);
        writer.list(kept, Some(parent.snapshot_id())).await.unwrap();
        let snapshot = Snapshot::builder()
            .with_snapshot_id(id)
            .with_parent_snapshot_id(Some(parent.snapshot_id()))
            .with_sequence_number(self.metadata.next_sequence_number())
            .with_timestamp_ms(timestamp_ms(&self.metadata, self.now_ms))
            .with_manifest_list(writer.list_location())
            .with_summary(Summary {
                operation: Operation::Replace,
                additional_properties: HashMap::new(),
            })
            .with_schema_id(0)
            .build();
        self.apply(branch::onto(&self.metadata, None, snapshot).unwrap());
        id
    }
}

fn append(files: Vec<DataFile>) -> NewSnapshot {
    NewSnapshot {
        added: files,
        summary: BTreeMap::from([("icecore.last-seq".to_owned(), "9".to_owned())]),
        mark: Some(MarkMove {
            watermark: Watermark { epoch: 1, position: 1, last_seq: 9 },
            since: 0,
        }),
        ..NewSnapshot::default()
    }
}

fn property<'a>(table: &'a TableMetadata, snapshot_id: i64, key: &str) -> Option<&'a str> {
    let summary = table.snapshot_by_id(snapshot_id).unwrap().summary();
    summary.additional_properties.get(key).map(String::as_str)
}

#[tokio::test]
async fn an_append_lists_old_and_new_files_once() {
    let mut table = Table::new(FormatVersion::V2, true);
    let first = table.append(&["a", "b"]).await;
    let second = table.append(&["a"]).await;
    let location = table.metadata.location().to_owned();
    let path = |n| format!("{location}/data/{n:06}.parquet");
    assert_eq!(
        table.live(second).await,
        [(path(1), first, 1), (path(2), first, 1), (path(3), second, 2)]
    );
    assert_eq!(table.live(first).await.len(), 2);
    let snapshot = table.metadata.current_snapshot().unwrap();
    assert_eq!(snapshot.parent_snapshot_id(), Some(first));
    assert_eq!(snapshot.schema_id(), Some(table.metadata.current_schema_id()));
}

#[tokio::test]
async fn the_summary_counts_what_was_added_and_the_totals() {
    let mut table = Table::new(FormatVersion::V2, true);
    table.append(&["a", "a", "b"]).await;
    let id = table.append(&["a"]).await;
    for (key, value) in [
        ("added-data-files", "1"),
        ("added-records", "10"),
        ("added-files-size", "1000"),
        ("changed-partition-count", "1"),
        ("total-data-files", "4"),
        ("total-records", "40"),
        ("total-files-size", "4000"),
        ("total-delete-files", "0"),
        ("icecore.last-seq", "9"),
    ] {
        assert_eq!(property(&table.metadata, id, key), Some(value), "{key}");
    }
}

#[test]
fn totals_of_deleted_rows_are_left_out_without_delete_files_and_are_known_again_with_them() {
    let none = summary::SummaryCounts::default();
    let next = |parent: Option<&Summary>, files: &summary::SummaryCounts| Summary {
        operation: Operation::Append,
        additional_properties: summary::entries(parent, &BTreeMap::new(), files, 0),
    };
    let is_told = |summary: &Summary, key: &str| summary.additional_properties.contains_key(key);
    let rows = ["total-position-deletes", "total-equality-deletes"];
    let first = next(None, &none);
    assert!(rows.iter().all(|&key| !is_told(&first, key)), "{first:?}");
    assert_eq!(first.additional_properties["total-delete-files"], "0");
    let mut table = Table::new(FormatVersion::V2, true);
    let of = table.file("a");
    let delete = DataFileBuilder::default()
        .content(DataContentType::PositionDeletes)
        .file_path(format!("{}-deletes", of.file_path()))
        .file_format(DataFileFormat::Parquet)
        .partition(of.partition().clone())
        .partition_spec_id(0)
        .record_count(10)
        .file_size_in_bytes(10)
        .build()
        .unwrap();
    let deletes = summary::SummaryCounts::of(std::iter::once(&delete), std::iter::empty());
    let second = next(Some(&first), &deletes);
    assert_eq!(rows.map(|key| second.additional_properties[key].as_str()), ["10", "0"]);
    let third = next(Some(&second), &none);
    assert_eq!(rows.map(|key| third.additional_properties[key].as_str()), ["10", "0"]);
    // Another writer that tells of delete files and not of their rows: nobody knows how many there are.
    let mut other = second;
    other.additional_properties.remove(rows[0]);
    assert!(!is_told(&next(Some(&other), &none), rows[0]));
}

/// How long a snapshot of a flush is in the metadata, which every client reads that loads the table.
#[tokio::test]
async fn four_hundred_snapshots_of_flushes_take_less_than_400_kb_of_metadata() {
    let mut table = Table::new(FormatVersion::V2, true);
    let length = |table: &Table| serde_json::to_vec(&table.metadata).unwrap().len();
    let mut lengths = Vec::new();
    for seq in [99_991, 100_001] {
        let mut rows = RowSum::default();
        (0..10).for_each(|row| rows.add(u128::MAX / 3 - row));
        let files = ["a", "b", "c", "d", "e"].map(|kind| table.file(kind)).to_vec();
        let summary = [
            ("icecore.first-seq", seq.to_string()),
            ("icecore.last-seq", (seq + 9).to_string()),
            ("icecore.valid-through-ms", "1796047783081".to_owned()),
            ("icecore.commit-id", "01M8PCMH5N4VPYQ4EF1CG6TNJF".to_owned()),
            ("icecore.wal-position", "99991".to_owned()),
        ];
        let summary = summary.map(|(key, value)| (key.to_owned(), value)).into();
        let flush = NewSnapshot { summary, rows_added: Some(rows), ..append(files) };
        let known = ReadManifests::default();
        let built = build(&table.storage, &table.metadata, &flush, &known, table.now_ms).await;
        table.apply(built.unwrap().updates);
        table.now_ms += 1_000;
        lengths.push(length(&table));
    }
    // The manifest list's location begins with the table's, whose length is the warehouse's to choose.
    let of_one = lengths[1] - lengths[0] - table.metadata.location().len();
    let location = 100;
    let of_all = retention::NEWEST_IN_FULL * (of_one + location);
    assert!(of_all < 400_000, "{of_one} bytes each, {of_all} of all");
}

#[test]
fn a_total_the_parent_does_not_tell_is_left_out_and_iceberg_keys_win() {
    let mut append = append(Vec::new());
    append.summary.insert("added-records".to_owned(), "77".to_owned());
    append.summary.insert("total-records".to_owned(), "77".to_owned());
    let parent = Summary {
        operation: Operation::Append,
        additional_properties: HashMap::from([("total-data-files".to_owned(), "5".to_owned())]),
    };
    let files = summary::SummaryCounts::default();
    let entries = summary::entries(Some(&parent), &append.summary, &files, 0);
    assert_eq!(entries["total-data-files"], "5");
    assert_eq!(entries["added-records"], "0");
    assert_eq!(entries.get("total-records"), None);
}

#[tokio::test]
async fn snapshot_ids_are_positive_and_exact_in_javascript() {
    let table = Table::new(FormatVersion::V2, true);
    let ids: HashSet<i64> = (0..1_000).map(|_| unused_id(&table.metadata)).collect();
    assert_eq!(ids.len(), 1_000);
    assert!(ids.iter().all(|id| (1..1 << 53).contains(id)));
    assert!(ids.iter().any(|id| *id > 1 << 50));
}

#[tokio::test]
async fn snapshot_times_grow_when_the_clock_goes_back() {
    let mut table = Table::new(FormatVersion::V2, true);
    let first = table.append(&["a"]).await;
    table.now_ms -= 3_600_000;
    let second = table.append(&["a"]).await;
    let at = |id| table.metadata.snapshot_by_id(id).unwrap().timestamp_ms();
    assert_eq!(at(second), at(first) + 1);
}

#[tokio::test]
async fn a_snapshot_for_a_load_is_dated_before_it_and_after_its_parent() {
    let mut table = Table::new(FormatVersion::V2, true);
    let start_ms = table.now_ms;
    let add = async |table: &mut Table, asked_ms: i64| {
        let time = SnapshotTime::BeforeLoad { asked_ms };
        let new = NewSnapshot { time, ..append(vec![table.file("a")]) };
        let read = ReadManifests::default();
        let now_ms = table.now_ms;
        let built = build(&table.storage, &table.metadata, &new, &read, now_ms).await.unwrap();
        table.apply(built.updates);
        table.metadata.current_snapshot().unwrap().timestamp_ms() - start_ms
    };
    // The first one too, although the table was made after that time.
    assert_eq!(add(&mut table, start_ms).await, -BEFORE_LOAD_MS);
    assert_eq!(add(&mut table, start_ms).await, -BEFORE_LOAD_MS + 1);
    // However long the commit takes, the load was before it.
    table.now_ms = start_ms + 9_000;
    assert_eq!(add(&mut table, start_ms + 7_000).await, 7_000 - BEFORE_LOAD_MS);
    let logged: Vec<i64> = table.metadata.history().iter().map(|log| log.timestamp_ms).collect();
    assert!(logged.is_sorted(), "{logged:?}");
    assert_eq!(table.metadata.last_updated_ms(), *logged.last().unwrap());
    // A snapshot that no load asks for has the time that it is made at.
    let last = table.append(&["a"]).await;
    let last = table.metadata.snapshot_by_id(last).unwrap().timestamp_ms();
    assert_eq!(last, start_ms + 9_000);
}

#[tokio::test]
async fn a_column_that_came_just_before_a_load_does_not_make_its_snapshot_late() {
    let mut table = Table::new(FormatVersion::V2, true);
    table.append(&["a"]).await;
    let asked_ms = table.metadata.last_updated_ms() + 100_000;
    let update = TableUpdate::SetProperties { updates: [("a".to_owned(), "b".to_owned())].into() };
    let changed = commit::apply_updates_at(&table.metadata, None, &[update], asked_ms + 3);
    table.metadata = changed.unwrap();
    assert_eq!(table.metadata.last_updated_ms(), asked_ms + 3);
    assert_eq!(before_load_ms(&table.metadata, asked_ms), asked_ms - BEFORE_LOAD_MS);
    // The format bounds how far a table's time goes back.
    let late = before_load_ms(&table.metadata, asked_ms - 10 * TIME_BACK_MAX_MS);
    assert_eq!(late, asked_ms + 3 - TIME_BACK_MAX_MS);
}

#[tokio::test]
async fn files_that_do_not_fit_are_refused() {
    let mut table = Table::new(FormatVersion::V2, true);
    let unpartitioned = DataFileBuilder::default()
        .content(DataContentType::Data)
        .file_path("file:///x".to_owned())
        .file_format(DataFileFormat::Parquet)
        .record_count(1)
        .file_size_in_bytes(1)
        .build()
        .unwrap();
    let refused = table.build(vec![unpartitioned]).await;
    assert!(matches!(refused, Err(CatalogError::Invalid(_))), "{refused:?}");

    let old = Table::new(FormatVersion::V1, true);
    let refused = old.build(vec![table.file("a")]).await;
    assert!(matches!(refused, Err(CatalogError::Invalid(_))), "{refused:?}");
}

#[tokio::test]
async fn every_file_of_an_attempt_is_reported() {
    let mut table = Table::new(FormatVersion::V2, true);
    table.append(&["a"]).await;
    let file = table.file("a");
    let built = table.build(vec![file]).await.unwrap();
    assert_eq!(built.written.len(), 2);
    for location in &built.written {
        table.storage.delete(location).await.unwrap();
    }
    // The losing attempt took nothing away from the table.
    assert_eq!(table.live(table.metadata.current_snapshot_id().unwrap()).await.len(), 1);
}

#[tokio::test]
async fn a_failed_attempt_leaves_no_files() {
    let mut table = Table::new(FormatVersion::V2, true);
    let file = table.file("a");
    let built = table.build(vec![file.clone()]).await.unwrap();
    table.apply(built.updates);
    let delete = DataFileBuilder::default()
        .content(DataContentType::PositionDeletes)
        .file_path(format!("{}/data/d.parquet", table.metadata.location()))
        .file_format(DataFileFormat::Parquet)
        .partition(file.partition().clone())
        .record_count(1)
        .file_size_in_bytes(1)
        .partition_spec_id(9)
        .referenced_data_file(Some(file.file_path().to_owned()))
        .build()
        .unwrap();
    let new = NewSnapshot {
        operation: Operation::Delete,
        read: table.metadata.current_snapshot_id(),
        added: vec![table.file("a")],
        deletes: vec![(9, delete)],
        ..NewSnapshot::default()
    };
    let folder = format!("{}/metadata", table.metadata.location());
    let before = table.storage.list(&folder).await.unwrap();
    let (storage, base) = (&table.storage, &table.metadata);
    let failed = build(storage, base, &new, &ReadManifests::default(), table.now_ms).await;
    // The manifest of what it adds was written by then.
    let Err(CatalogError::Invalid(why)) = &failed else { panic!("{failed:?}") };
    assert!(why.contains("no partition spec 9"), "{why}");
    assert_eq!(table.storage.list(&folder).await.unwrap(), before);
}

#[tokio::test]
async fn damaged_manifests_hold_up_no_append() {
    let mut table = Table::new(FormatVersion::V2, true);
    for _ in 1..manifests::merge::MERGE_AT {
        table.append(&["a"]).await;
    }
    let listed = table.manifests(table.metadata.current_snapshot_id().unwrap()).await;
    let damaged = [7, 8].map(|at| listed[at].manifest_path.clone());
    table.storage.delete(&damaged[0]).await.unwrap();
    table.storage.put(&damaged[1], "Obj\u{1} is not all there is to it".into()).await.unwrap();
    for _ in 0..3 * manifests::merge::MERGE_AT {
        table.append(&["a"]).await;
    }
    let listed = table.manifests(table.metadata.current_snapshot_id().unwrap()).await;
    assert!(listed.len() <= manifests::merge::MERGE_AT, "the others are merged");
    let has = |path: &String| listed.iter().any(|manifest| manifest.manifest_path == *path);
    assert!(damaged.iter().all(has));
    let files = |of: &iceberg::spec::ManifestFile| {
        of.added_files_count.unwrap() + of.existing_files_count.unwrap()
    };
    assert_eq!(listed.iter().map(files).sum::<u32>(), 199);
}

#[tokio::test]
async fn a_store_that_fails_is_told_from_a_file_that_is_broken() {
    let mut table = Table::new(FormatVersion::V2, true);
    table.append(&["a"]).await;
    let list = table.metadata.current_snapshot().unwrap().manifest_list().to_owned();
    let file = table.file("a");
    table.storage.put(&list, "Obj\u{1} is not all there is to it".into()).await.unwrap();
    let broken = table.build(vec![file.clone()]).await.unwrap_err();
    assert!(matches!(broken, CatalogError::Iceberg { .. }), "{broken:?}");
    assert!(!broken.is_temporary());

    // Where the folder for manifests should be is a file, so that nothing can be written.
    let other = Table::new(FormatVersion::V2, true);
    let folder = format!("{}/metadata", other.metadata.location());
    other.storage.put(&folder, "in the way".into()).await.unwrap();
    let failed = other.build(vec![file]).await.unwrap_err();
    assert!(matches!(failed, CatalogError::Storage { .. }), "{failed:?}");
    assert!(failed.is_temporary());
}

#[tokio::test]
async fn main_keeps_its_retention() {
    let mut table = Table::new(FormatVersion::V2, true);
    let first = table.append(&["a"]).await;
    let retention = SnapshotRetention::branch(Some(7), Some(8), None);
    table.set_ref("main", first, retention.clone());
    let second = table.append(&["a"]).await;
    let main = &crate::metadata_file::refs::of(&table.metadata)["main"];
    assert_eq!((main.snapshot_id, &main.retention), (second, &retention));
}

#[tokio::test]
async fn small_manifests_are_merged_and_entries_keep_their_origin() {
    let mut table = Table::new(FormatVersion::V2, true);
    let mut expected = Vec::new();
    for sequence in 1..=manifests::merge::MERGE_AT as i64 + 1 {
        let id = table.append(&["a"]).await;
        let path = format!("{}/data/{sequence:06}.parquet", table.metadata.location());
        expected.push((path, id, sequence));
    }
    let id = table.metadata.current_snapshot_id().unwrap();
    let manifests = table.manifests(id).await;
    assert_eq!(manifests.len(), 2);
    assert_eq!(table.live(id).await, expected);
    assert_eq!(property(&table.metadata, id, "manifests-replaced"), Some("50"));
    let merged = manifests.iter().find(|m| m.has_existing_files()).unwrap();
    assert_eq!(merged.existing_files_count, Some(50));
    assert_eq!(merged.min_sequence_number, 1);
    let io = table.storage.file_io();
    let entries = merged.load_manifest(&io).await.unwrap();
    assert!(entries.entries().iter().all(|e| e.status() == ManifestStatus::Existing));
}

#[tokio::test]
async fn thousands_of_commits_leave_a_short_list_and_whole_entries() {
    // A thousand come after the day that is asked for, or half as many: manifests are merged ten times then.
    let (commits, asked): (i64, i32) = match std::env::var_os("LARGE") {
        Some(_) => (3_000, 20_003),
        None => (1_500, 20_001),
    };
    let mut table = Table::new(FormatVersion::V2, true);
    let mut expected = Vec::new();
    for number in 1..=commits {
        let late = if number % 20 == 0 { 7 } else { 0 };
        let file = table.file_of("a", 20_000 + (number / 500) as i32 - late);
        let path = file.file_path().to_owned();
        let id = table.commit(vec![file]).await;
        expected.push((path, id, number));
        if number % 100 == 0 {
            assert!(table.manifests(id).await.len() <= manifests::merge::MERGE_AT);
        }
    }
    let head = table.metadata.current_snapshot_id().unwrap();
    assert_eq!(table.live(head).await, expected);
    let mut of_day = table.manifests(head).await;
    of_day.retain(|manifest| {
        let dt = &manifest.partitions.as_ref().unwrap()[1];
        let day = |bound: &[u8]| i32::from_le_bytes(bound.try_into().unwrap());
        let (from, to) = (dt.lower_bound.as_ref().unwrap(), dt.upper_bound.as_ref().unwrap());
        (day(from)..=day(to)).contains(&asked)
    });
    assert!(of_day.len() <= 3, "a query of one day reads {} manifests", of_day.len());
}

#[tokio::test]
async fn manifests_without_live_files_are_left_out_by_the_next_commit() {
    let mut table = Table::new(FormatVersion::V2, true);
    let files = [table.file("a"), table.file("a")];
    for file in &files {
        table.commit(vec![file.clone()]).await;
    }
    let id = replace(&mut table, files.to_vec()).await;
    assert_eq!(table.manifests(id).await.len(), 3, "two say what was removed");
    let id = table.append(&["a"]).await;
    assert_eq!(table.manifests(id).await.len(), 2);
    assert_eq!(property(&table.metadata, id, "manifests-replaced"), Some("2"));
}

#[tokio::test]
async fn rows_of_version_three_get_ids_without_gaps_or_repeats() {
    let mut table = Table::new(FormatVersion::V3, true);
    let mut ranges = Vec::new();
    for _ in 0..3 {
        let id = table.append(&["a", "b"]).await;
        ranges.push(table.metadata.snapshot_by_id(id).unwrap().row_range().unwrap());
    }
    assert_eq!(ranges, [(0, 20), (20, 20), (40, 20)]);
    assert_eq!(table.metadata.next_row_id(), 60);
}

/// What nothing refers to without these snapshots.
async fn obsolete_with(table: &Table, removed: &[i64], history: SnapshotHistory) -> Vec<String> {
    let known = &mut HistoryReads::default();
    let mut reader = HistoryReader { storage: &table.storage, base: &table.metadata, known };
    let files = obsolete::files(&mut reader, removed, history).await.unwrap();
    let mut files: Vec<String> =
        files.metadata.into_iter().chain(files.content.into_values()).collect();
    files.sort();
    files
}

#[tokio::test]
async fn a_manifest_is_obsolete_only_without_retained_neighbours_that_list_it() {
    let mut table = Table::new(FormatVersion::V2, true);
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(table.append(&["a"]).await);
    }
    // Newest first in the list: what goes is the manifest of the third snapshot.
    let third = table.manifests(ids[2]).await[0].manifest_path.clone();
    ids.push(table.drop_manifests(1).await);
    ids.push(table.append(&["a"]).await);
    let list = |id| table.metadata.snapshot_by_id(id).unwrap().manifest_list().to_owned();
    let base = &table.metadata;

    assert_eq!(obsolete::history(base), SnapshotHistory::OneLine);
    let files = obsolete_with(&table, &[ids[1]], SnapshotHistory::OneLine).await;
    assert_eq!(files, [list(ids[1])], "its manifests are all still in use");
    let mut files = obsolete_with(&table, &[ids[1], ids[2]], SnapshotHistory::OneLine).await;
    let of_third = format!("{}/data/000003.parquet", base.location());
    let mut expected = vec![list(ids[1]), list(ids[2]), third, of_third];
    files.sort();
    expected.sort();
    assert_eq!(files, expected);
}

/// Two files become one, of which nobody deletes rows.
async fn replace(table: &mut Table, removed: Vec<DataFile>) -> i64 {
    let new = NewSnapshot {
        operation: Operation::Replace,
        read: table.metadata.current_snapshot_id(),
        added: vec![table.file("a")],
        removed,
        ..NewSnapshot::default()
    };
    let (storage, base) = (&table.storage, &table.metadata);
    let built = build(storage, base, &new, &ReadManifests::default(), table.now_ms).await.unwrap();
    table.apply(built.updates);
    built.snapshot_id
}

#[tokio::test]
async fn a_data_file_is_obsolete_once_no_retained_snapshot_has_it() {
    let mut table = Table::new(FormatVersion::V2, true);
    let mut ids = Vec::new();
    let mut files = Vec::new();
    for _ in 0..4 {
        let file = table.file("a");
        files.push(file.clone());
        let built = table.build(vec![file]).await.unwrap();
        table.apply(built.updates);
        ids.push(built.snapshot_id);
    }
    ids.push(replace(&mut table, files[..2].to_vec()).await);
    ids.push(table.append(&["a"]).await);
    let line = SnapshotHistory::OneLine;
    assert_eq!(obsolete::history(&table.metadata), line);
    let check = async |removed: &[usize], expected: &[usize]| {
        let removed: Vec<i64> = removed.iter().map(|at| ids[*at]).collect();
        for history in [line, SnapshotHistory::Forked { until: 1 }] {
            let gone = obsolete_with(&table, &removed, history).await;
            let data: Vec<String> =
                gone.into_iter().filter(|file| file.contains("/data/")).collect();
            let expected: Vec<&str> = expected.iter().map(|at| files[*at].file_path()).collect();
            assert_eq!(data, expected, "{removed:?}");
        }
    };
    check(&[0, 1, 2], &[]).await;
    check(&[3, 4], &[]).await;
    check(&[4], &[]).await;
    check(&[1, 2, 3], &[1]).await;
    check(&[0, 1, 2, 3], &[0, 1]).await;
    check(&[0, 1, 2, 3, 4], &[0, 1]).await;
}

#[tokio::test]
async fn a_file_that_was_added_again_stays_for_whichever_snapshot_has_it() {
    let mut table = Table::new(FormatVersion::V2, true);
    let file = table.file("a");
    let mut ids = Vec::new();
    for _ in 0..2 {
        let built = table.build(vec![file.clone()]).await.unwrap();
        table.apply(built.updates);
        ids.push(built.snapshot_id);
        ids.push(replace(&mut table, vec![file.clone()]).await);
    }
    table.append(&["a"]).await;
    let is_gone = async |removed: &[i64]| {
        let gone = obsolete_with(&table, removed, SnapshotHistory::OneLine).await;
        gone.iter().any(|gone| gone == file.file_path())
    };
    assert!(!is_gone(&ids[..1]).await, "a snapshot further on has it");
    assert!(is_gone(&ids[..3]).await);
    assert!(is_gone(&[ids[0], ids[2]]).await);
}

#[tokio::test]
async fn lists_stay_with_manifests_that_do_not_read() {
    let mut table = Table::new(FormatVersion::V2, true);
    let file = table.file("a");
    let built = table.build(vec![file.clone()]).await.unwrap();
    table.apply(built.updates);
    replace(&mut table, vec![file]).await;
    table.append(&["a"]).await;
    let damaged = table.manifests(built.snapshot_id).await[0].manifest_path.clone();
    table.storage.delete(&damaged).await.unwrap();
    table.storage.put(&damaged, "no manifest".into()).await.unwrap();
    let gone = obsolete_with(&table, &[built.snapshot_id], SnapshotHistory::OneLine).await;
    assert_eq!(gone, Vec::<String>::new(), "nothing would find the file again");
    let known = &mut HistoryReads::default();
    let mut reader = HistoryReader { storage: &table.storage, base: &table.metadata, known };
    let removed = [built.snapshot_id];
    let files = obsolete::files(&mut reader, &removed, SnapshotHistory::OneLine).await.unwrap();
    let told = crate::error::with_causes(&files.damage.unwrap());
    assert!(told.contains(&damaged), "{told}");
}

#[test]
fn a_store_that_refuses_says_nothing_of_a_file() {
    use object_store::Error;
    let (path, source) = (|| "m.avro".to_owned(), || "403".into());
    for (answer, is_damage) in [
        (Error::NotFound { path: path(), source: source() }, true),
        (Error::PermissionDenied { path: path(), source: source() }, false),
        (Error::Unauthenticated { path: path(), source: source() }, false),
        (Error::Generic { store: "S3", source: source() }, false),
    ] {
        let told = answer.to_string();
        let cause = CatalogError::Storage { operation: "read", location: path(), source: answer };
        assert_eq!(cause.is_damage(), is_damage, "{told}");
    }
    assert!(!CatalogError::WarehouseOutage(path()).is_damage());
}

#[tokio::test]
async fn a_rewrite_of_what_was_read_on_another_line_is_refused() {
    let mut table = Table::new(FormatVersion::V2, true);
    let file = table.file("a");
    let built = table.build(vec![file.clone()]).await.unwrap();
    table.apply(built.updates);
    let left = table.append(&["a"]).await;
    table.set_ref("main", built.snapshot_id, SnapshotRetention::branch(None, None, None));
    table.append(&["a"]).await;
    for (read, is_made) in [(left, false), (built.snapshot_id, true)] {
        let new = NewSnapshot {
            operation: Operation::Replace,
            read: Some(read),
            added: vec![table.file("a")],
            removed: vec![file.clone()],
            ..NewSnapshot::default()
        };
        let (storage, base) = (&table.storage, &table.metadata);
        let made = build(storage, base, &new, &ReadManifests::default(), table.now_ms).await;
        assert_eq!(made.is_ok(), is_made);
        assert!(is_made || matches!(made, Err(CatalogError::CommitFailed(_))));
    }
}

#[tokio::test]
async fn a_replace_tells_how_far_the_table_is_as_the_snapshot_before_it() {
    let mut table = Table::new(FormatVersion::V2, true);
    let file = table.file("a");
    let built = table.build(vec![file.clone()]).await.unwrap();
    table.apply(built.updates);
    let id = replace(&mut table, vec![file]).await;
    assert_eq!(property(&table.metadata, id, commit::LAST_SEQ), Some("9"));
    assert_eq!(property(&table.metadata, id, commit::FIRST_SEQ), None, "no row comes with it");
}

#[tokio::test]
async fn a_delete_tells_how_far_the_table_is_and_what_it_took() {
    let mut table = Table::new(FormatVersion::V2, true);
    let file = table.file("a");
    let rows = file.record_count();
    let both = vec![file.clone(), table.file("a")];
    let built = table.build(both).await.unwrap();
    table.apply(built.updates);
    let new = NewSnapshot {
        operation: Operation::Delete,
        read: Some(built.snapshot_id),
        removed: vec![file],
        ..NewSnapshot::default()
    };
    let (storage, base) = (&table.storage, &table.metadata);
    let built = build(storage, base, &new, &ReadManifests::default(), table.now_ms).await.unwrap();
    table.apply(built.updates);
    let id = built.snapshot_id;
    assert_eq!(property(&table.metadata, id, commit::LAST_SEQ), Some("9"));
    assert_eq!(property(&table.metadata, id, commit::FIRST_SEQ), None, "no row comes with it");
    let rows = rows.to_string();
    for (key, value) in [
        ("deleted-data-files", "1"),
        ("deleted-records", rows.as_str()),
        ("total-records", rows.as_str()),
        ("total-data-files", "1"),
    ] {
        assert_eq!(property(&table.metadata, id, key), Some(value), "{key}");
    }
}

#[tokio::test]
async fn an_overwrite_tells_how_far_the_table_is_as_the_snapshot_before_it() {
    let mut table = Table::new(FormatVersion::V2, true);
    let file = table.file("a");
    let built = table.build(vec![file.clone()]).await.unwrap();
    table.apply(built.updates);
    let new = NewSnapshot {
        operation: Operation::Overwrite,
        read: Some(built.snapshot_id),
        added: vec![table.file("a")],
        removed: vec![file],
        ..NewSnapshot::default()
    };
    let (storage, base) = (&table.storage, &table.metadata);
    let built = build(storage, base, &new, &ReadManifests::default(), table.now_ms).await.unwrap();
    table.apply(built.updates);
    let id = built.snapshot_id;
    assert_eq!(property(&table.metadata, id, commit::LAST_SEQ), Some("9"));
    assert_eq!(property(&table.metadata, id, commit::FIRST_SEQ), None, "no row comes with it");
}

fn is_forked(table: &Table) -> bool {
    obsolete::history(&table.metadata) != SnapshotHistory::OneLine
}

fn mark(table: &Table) -> Option<&str> {
    table.metadata.properties().get(obsolete::FORKED).map(String::as_str)
}

#[tokio::test]
async fn a_rollback_marks_the_history_and_leaves_every_manifest_that_is_listed() {
    let mut table = Table::new(FormatVersion::V2, true);
    let first = table.append(&["a"]).await;
    let second = table.append(&["a"]).await;
    let own = table.manifests(second).await[0].manifest_path.clone();
    let third = table.drop_manifests(2).await;
    table.set_ref("main", first, SnapshotRetention::branch(None, None, None));
    assert!(is_forked(&table));
    let fourth = table.append(&["a"]).await;
    assert_eq!(mark(&table), Some("3"));
    assert_eq!(table.live(fourth).await.len(), 2);
    // By order alone, nothing would list the first manifest after the third snapshot.
    table.apply(vec![TableUpdate::RemoveSnapshots { snapshot_ids: vec![first] }]);
    let history = obsolete::history(&table.metadata);
    assert_eq!(history, SnapshotHistory::Forked { until: 3 });
    let files = obsolete_with(&table, &[second, third], history).await;
    let (lists, others): (Vec<_>, Vec<_>) = files.iter().partition(|f| f.contains("/snap-"));
    let of_second = format!("{}/data/000002.parquet", table.metadata.location());
    assert_eq!((lists.len(), others), (2, vec![&of_second, &own]));
}

#[tokio::test]
async fn a_manifest_of_the_head_stays_even_where_a_fork_is_not_known() {
    let mut table = Table::new(FormatVersion::V2, true);
    table.append(&["a"]).await;
    let second = table.append(&["a"]).await;
    table.drop_manifests(1).await;
    table.set_ref("main", second, SnapshotRetention::branch(None, None, None));
    table.append(&["a"]).await;
    let list = table.metadata.snapshot_by_id(second).unwrap().manifest_list();
    // Neither the snapshot before it nor the one after lists its manifest.
    let line = SnapshotHistory::OneLine;
    assert_eq!(obsolete_with(&table, &[second], line).await, [list]);
}

#[tokio::test]
async fn a_fork_shows_even_when_the_parent_is_gone() {
    let mut table = Table::new(FormatVersion::V2, false);
    let first = table.append(&["a"]).await;
    table.append(&["a"]).await;
    table.set_ref("main", first, SnapshotRetention::branch(None, None, None));
    table.append(&["a"]).await;
    table.apply(vec![TableUpdate::RemoveSnapshots { snapshot_ids: vec![first] }]);
    assert!(is_forked(&table));

    let mut thinned = Table::new(FormatVersion::V2, true);
    let first = thinned.append(&["a"]).await;
    let second = thinned.append(&["a"]).await;
    thinned.append(&["a"]).await;
    thinned.apply(vec![TableUpdate::RemoveSnapshots { snapshot_ids: vec![second] }]);
    assert!(!is_forked(&thinned));
    thinned.apply(vec![TableUpdate::RemoveSnapshots { snapshot_ids: vec![first] }]);
    assert!(!is_forked(&thinned));
}

#[tokio::test]
async fn the_mark_of_a_fork_goes_with_the_last_snapshot_that_is_as_old() {
    let mut table = Table::new(FormatVersion::V2, true);
    let first = table.append(&["a"]).await;
    let off = table.append(&["a"]).await;
    table.set_ref("main", first, SnapshotRetention::branch(None, None, None));
    let on = table.append(&["a"]).await;
    assert_eq!(mark(&table), Some("2"));
    let remove = |id| vec![TableUpdate::RemoveSnapshots { snapshot_ids: vec![id] }];
    table.apply(remove(off));
    table.append(&["a"]).await;
    assert_eq!(mark(&table), Some("2"), "the first one may be listed beside what is gone");
    table.apply(remove(first));
    table.append(&["a"]).await;
    assert_eq!(mark(&table), None);
    // One that an earlier version has set says no number: all that is there counts as old.
    let marks = HashMap::from([(obsolete::FORKED.to_owned(), "true".to_owned())]);
    table.apply(vec![TableUpdate::SetProperties { updates: marks }]);
    table.append(&["a"]).await;
    assert_eq!(mark(&table), Some("5"));
    assert!(table.metadata.snapshot_by_id(on).is_some());
}

#[tokio::test]
async fn tables_of_others_keep_their_history_and_properties() {
    let mut table = Table::new(FormatVersion::V2, false);
    let first = table.append(&["a"]).await;
    table.append(&["a"]).await;
    table.set_ref("main", first, SnapshotRetention::branch(None, None, None));
    table.append(&["a"]).await;
    assert_eq!(mark(&table), None);
    assert!(table.obsolete.is_empty());
}

/// The whole way: commits, thinning, and deleting what it freed once its time has come.
#[tokio::test]
async fn a_table_in_a_catalog_stays_whole_when_obsolete_files_are_deleted() {
    const APPENDS: u64 = 560;
    let mut source = Table::new(FormatVersion::V2, true);
    let metastore = Metastore::sqlite(&source.folder.path().join("icecore.db")).await.unwrap();
    let clock = Arc::new(AtomicI64::new(source.now_ms));
    let now = Arc::clone(&clock);
    let now: crate::clock::NowMs = Arc::new(move || now.load(Ordering::Relaxed));
    let catalog = Catalog::new("icecore", source.storage.clone(), metastore, now);
    let levels = vec!["ns".to_owned()];
    catalog.namespaces().ensure(&levels, &BTreeMap::new()).await.unwrap();
    let table = CreateTable {
        partition_spec: Some(source.metadata.default_partition_spec().as_ref().clone().into()),
        properties: source.metadata.properties().clone(),
        ..CreateTable::plain("t", source.metadata.current_schema().as_ref().clone())
    };
    source.metadata =
        catalog.tables().create(&levels, table).await.unwrap().metadata.as_ref().clone();
    let ident = TableIdent::from_strs(["ns", "t"]).unwrap();
    for position in 1..=APPENDS {
        let mut append = append(vec![source.file("a")]);
        append.mark.as_mut().unwrap().watermark.position = position;
        let loaded = catalog.add_snapshot(&ident, append).await.unwrap();
        assert_eq!(loaded.metadata.snapshots().len() as u64, position, "appends do not thin");
        clock.fetch_add(1_000, Ordering::Relaxed);
    }
    assert_eq!(catalog.metastore().count_obsolete().await.unwrap(), 0);
    assert!(100 <= catalog.upkeep().thin(&ident).await.unwrap());
    assert_eq!(catalog.upkeep().delete_obsolete(1_000).await.unwrap(), 0, "too early");
    clock.fetch_add(PLANNER_GRACE_MS - 1, Ordering::Relaxed);
    assert_eq!(
        catalog.upkeep().delete_obsolete(1_000).await.unwrap(),
        0,
        "somebody may plan with it"
    );
    clock.fetch_add(1, Ordering::Relaxed);
    assert!(catalog.upkeep().delete_obsolete(1_000).await.unwrap() > 50);

    let loaded = catalog.tables().load(&ident).await.unwrap();
    source.metadata = loaded.metadata.as_ref().clone();
    let current = source.metadata.current_snapshot_id().unwrap();
    let live = source.live(current).await;
    let paths: HashSet<&String> = live.iter().map(|(path, ..)| path).collect();
    assert_eq!((live.len() as u64, paths.len() as u64), (APPENDS, APPENDS));
    let ids: Vec<i64> = source.metadata.snapshots().map(|s| s.snapshot_id()).collect();
    for id in ids {
        for manifest in source.manifests(id).await {
            assert!(source.storage.exists(&manifest.manifest_path).await.unwrap());
        }
    }
}

#[tokio::test]
async fn long_histories_stay_small_and_every_retained_snapshot_stays_whole() {
    check_long_history(None).await;
}

/// A branch with one commit of its own, which is dropped at once.
#[tokio::test]
async fn a_branch_that_is_gone_leaves_no_file_behind() {
    check_long_history(Some(30)).await;
}

/// Appends so often that the history is thinned several times, with a branch after so many.
async fn check_long_history(branch_at: Option<usize>) {
    const APPENDS: usize = retention::SNAPSHOTS_MAX + 4 * retention::SNAPSHOTS_SLACK;
    let mut table = Table::new(FormatVersion::V2, true);
    let mut tagged = 0;
    for n in 1..=APPENDS {
        let id = table.append(&["a"]).await;
        if n == 40 {
            tagged = id;
            table.set_ref("audit", id, SnapshotRetention::Tag { max_ref_age_ms: None });
        }
        if branch_at == Some(n) {
            table.append(&["b"]).await;
            table.set_ref("main", id, SnapshotRetention::branch(None, None, None));
        }
        let bound = retention::SNAPSHOTS_MAX + retention::SNAPSHOTS_SLACK + 1;
        assert!(table.metadata.snapshots().len() <= bound);
    }
    let now_ms = table.now_ms + READER_GRACE_MS;
    assert!(table.obsolete.iter().all(|file| file.not_before_ms <= now_ms));
    let data = format!("{}/data/", table.metadata.location());
    let (of_branch, obsolete): (Vec<_>, Vec<_>) = std::mem::take(&mut table.obsolete)
        .into_iter()
        .partition(|file| file.location.starts_with(&data));
    assert_eq!(of_branch.len(), usize::from(branch_at.is_some()), "{of_branch:?}");
    for file in obsolete {
        assert!(table.storage.exists(&file.location).await.unwrap(), "{file:?}");
        table.storage.delete(&file.location).await.unwrap();
    }
    assert!(metadata_file::encode(&table.metadata).len() < 1_000_000);

    let mut manifests = HashSet::new();
    let ids: Vec<i64> = table.metadata.snapshots().map(|s| s.snapshot_id()).collect();
    assert!(ids.contains(&tagged));
    for id in ids {
        let listed = table.manifests(id).await;
        assert!(listed.len() <= manifests::merge::MERGE_AT + 10, "{}", listed.len());
        manifests.extend(listed.into_iter().map(|m| m.manifest_path));
    }
    for manifest in &manifests {
        assert!(table.storage.exists(manifest).await.unwrap(), "{manifest}");
    }
    let live = table.live(table.metadata.current_snapshot_id().unwrap()).await;
    let paths: HashSet<&String> = live.iter().map(|(path, ..)| path).collect();
    assert_eq!((live.len(), paths.len()), (APPENDS, APPENDS));
    assert_eq!(table.live(tagged).await.len(), 40);

    // Nothing but what retained snapshots need is left.
    let folder = format!("{}/metadata", table.metadata.location());
    let left = table.storage.list(&folder).await.unwrap().len();
    assert_eq!(left, manifests.len() + table.metadata.snapshots().len());
}
