use super::*;
use arrow::record_batch::RecordBatch;
use iceberg::{
    TableUpdate,
    spec::{
        DataContentType, DataFile, DataFileBuilder, DataFileFormat, FormatVersion, ManifestList,
        ManifestWriterBuilder, Operation,
    },
};
use icecore_catalog::{
    catalog::TableChange,
    commit::{FIRST_SEQ, LAST_SEQ},
    metastore::{Metastore, Watermark},
    row_sum::RowSum,
    snapshot::{MarkMove, NewSnapshot},
    storage::{S3Options, Storage},
};
use icecore_lake::{
    clock::Clock,
    ids::IdGenerator,
    load::IngestLoad,
    table::{
        erasure::REASON_ERASE,
        retention::{REASON, REASON_RETENTION, REMOVED_FIRST_SEQ, REMOVED_LAST_SEQ},
        row_sum::{hash_of, sum_of},
        unused_numbers::UNUSED_SEQ,
        writer,
    },
};
use icecore_schemas::fsck::SeqGap;
use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    time::{Duration, UNIX_EPOCH},
};

/// A catalog with `a.events`, and checks of it.
struct House {
    catalog: Catalog,
    clock: Clock,
    ids: IdGenerator,
    table: TableIdent,
    fsck: Fsck,
    tasks: Tasks,
    position: u64,
    folder: tempfile::TempDir,
}

impl House {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let warehouse = format!("file://{}/warehouse", folder.path().display());
        let storage = Storage::open(&warehouse, &S3Options::default()).unwrap();
        let metastore = Metastore::sqlite(&folder.path().join("icecore.db")).await.unwrap();
        let clock = Clock::manual(icecore_samples::START_US / 1_000 + 3 * 86_400_000);
        let now = clock.clone();
        let catalog = Catalog::new("icecore", storage, metastore, Arc::new(move || now.now_ms()));
        let levels = vec!["a".to_owned()];
        catalog.namespaces().ensure(&levels, &BTreeMap::new()).await.unwrap();
        catalog.tables().create(&levels, icecore_samples::events_table()).await.unwrap();
        let table = TableIdent::from_strs(["a", "events"]).unwrap();
        let ids = IdGenerator::new(clock.clone());
        let tasks = Tasks::default();
        let pace = JobPace::new(&IngestLoad::default(), &tasks);
        let fsck = Fsck::new(&catalog, ServiceTables::default(), Vec::new(), pace, &tasks);
        Self { catalog, clock, ids, table, fsck, tasks, position: 0, folder }
    }

    async fn load(&self) -> LoadedTable {
        self.catalog.tables().load(&self.table).await.unwrap()
    }

    /// Adds files of these rows as whoever the summary says. With a mark they come from the log, which
    /// knows their sum.
    async fn add(
        &mut self,
        rows: RecordBatch,
        summary: BTreeMap<String, String>,
        mark: Option<u64>,
    ) -> Vec<DataFile> {
        let sum = mark.map(|_| sum_of(&rows));
        self.add_summed(rows, sum, summary, mark).await
    }

    async fn add_summed(
        &mut self,
        rows: RecordBatch,
        rows_added: Option<RowSum>,
        summary: BTreeMap<String, String>,
        mark: Option<u64>,
    ) -> Vec<DataFile> {
        let (storage, loaded) = (self.catalog.storage(), self.load().await);
        let added = writer::write(storage, &loaded.metadata, vec![rows], &self.ids).await.unwrap();
        self.position += 1;
        let mark = mark.map(|last_seq| MarkMove {
            watermark: Watermark { epoch: 1, position: self.position, last_seq },
            since: 1,
        });
        let new = NewSnapshot {
            added: added.clone(),
            rows_added,
            summary,
            mark,
            ..NewSnapshot::default()
        };
        self.catalog.add_snapshot(&self.table, new).await.unwrap();
        self.clock.advance_ms(1_000);
        added
    }

    /// Commits rows as a flush does that has these numbers.
    async fn commit(&mut self, rows: RecordBatch, numbers: (u64, u64)) -> Vec<DataFile> {
        self.add(rows, of_log(numbers), Some(numbers.1)).await
    }

    /// Adds rows as another engine does, in files that have its names.
    async fn append_of_others(&self, rows: RecordBatch) {
        let (storage, loaded) = (self.catalog.storage(), self.load().await);
        let metadata = &loaded.metadata;
        let written = writer::write(storage, metadata, vec![rows], &self.ids).await.unwrap();
        let spec = metadata.default_partition_spec_id();
        let named = |file| renamed(file, spec, DataFileFormat::Parquet);
        let added = written.iter().map(named).collect();
        let new = NewSnapshot { added, ..NewSnapshot::default() };
        self.catalog.add_snapshot(&self.table, new).await.unwrap();
        self.clock.advance_ms(1_000);
    }

    /// Takes files out.
    async fn remove(
        &self,
        operation: Operation,
        removed: Vec<DataFile>,
        summary: BTreeMap<String, String>,
    ) {
        let read = self.load().await.metadata.current_snapshot_id();
        let new = NewSnapshot { operation, read, removed, summary, ..NewSnapshot::default() };
        self.catalog.add_snapshot(&self.table, new).await.unwrap();
        self.clock.advance_ms(1_000);
    }

    /// Puts rows in the place of files, as an UPDATE or DELETE of another engine does.
    async fn overwrite_of_others(&self, removed: Vec<DataFile>, rows: RecordBatch) {
        let (storage, loaded) = (self.catalog.storage(), self.load().await);
        let metadata = &loaded.metadata;
        let added = writer::write(storage, metadata, vec![rows], &self.ids).await.unwrap();
        let (operation, read) = (Operation::Overwrite, metadata.current_snapshot_id());
        let new = NewSnapshot { operation, read, removed, added, ..NewSnapshot::default() };
        self.catalog.add_snapshot(&self.table, new).await.unwrap();
        self.clock.advance_ms(1_000);
    }

    /// Loses a file as a rewrite would that forgets it; how many rows it has.
    async fn lose(&self, file: &DataFile) -> u64 {
        self.remove(Operation::Replace, vec![file.clone()], own()).await;
        file.record_count()
    }

    /// Writes the manifest that a snapshot added anew with this file alone.
    async fn rewrite_manifest(&self, added_by: i64, file: &DataFile) {
        let metadata = self.load().await.metadata;
        let snapshot = metadata.current_snapshot().unwrap();
        let list = fs::read(path(snapshot.manifest_list())).unwrap();
        let list = ManifestList::parse_with_version(&list, FormatVersion::V2).unwrap();
        let manifest = list.entries().iter().find(|it| it.added_snapshot_id == added_by).unwrap();
        let output = self.catalog.storage().file_io().new_output(&manifest.manifest_path).unwrap();
        let schema = Arc::clone(metadata.current_schema());
        let spec = metadata.default_partition_spec().as_ref().clone();
        let writer = ManifestWriterBuilder::new(output, Some(added_by), schema, spec);
        let mut writer = writer.build_v2_data();
        writer.add_file(file.clone(), manifest.sequence_number).unwrap();
        writer.write_manifest_file().await.unwrap();
    }

    /// Removes all snapshots but the current one.
    async fn expire(&self) {
        let current = self.load().await.metadata.current_snapshot_id().unwrap();
        self.expire_all_but(&[current]).await;
    }

    /// Removes all snapshots but these.
    async fn expire_all_but(&self, kept: &[i64]) {
        let metadata = self.load().await.metadata;
        let ids = metadata.snapshots().map(|snapshot| snapshot.snapshot_id());
        let snapshot_ids = ids.filter(|id| !kept.contains(id)).collect();
        let change = TableChange {
            table: self.table.clone(),
            requirements: Vec::new(),
            updates: vec![TableUpdate::RemoveSnapshots { snapshot_ids }],
            keeps_history: false,
        };
        self.catalog.commit(change).await.unwrap();
    }

    async fn check(&self) -> FsckTable {
        let request = FsckRequest { levels: None, table: None, depth: CheckDepth::Rows };
        let report = self.fsck.run(&request).await.unwrap();
        assert_eq!(report.tables.len(), 1);
        assert_eq!(report.whole, report.tables[0].is_whole());
        report.tables.into_iter().next().unwrap()
    }

    async fn check_as(&self, loaded: &LoadedTable) -> FsckTable {
        let mut pace = self.fsck.0.pace.begin();
        self.fsck.check_loaded(&self.table, loaded, CheckDepth::Rows, &mut pace).await.unwrap()
    }
}

/// What every snapshot of ours says.
fn own() -> BTreeMap<String, String> {
    BTreeMap::from([("icecore.commit-id".to_owned(), "c".to_owned())])
}

/// What a flush says of rows with these numbers.
fn of_log((first, last): (u64, u64)) -> BTreeMap<String, String> {
    let mut summary = own();
    summary.insert(FIRST_SEQ.to_owned(), first.to_string());
    summary.insert(LAST_SEQ.to_owned(), last.to_string());
    summary
}

/// Rows with so many numbers from the first on.
fn rows(first: i64, count: usize) -> RecordBatch {
    icecore_samples::events(count, 1, first, first.unsigned_abs())
}

/// The file under a name that a client gives, as one of this format.
fn renamed(file: &DataFile, spec: i32, format: DataFileFormat) -> DataFile {
    let location = file.file_path().replace(".parquet", "-theirs.parquet");
    fs::rename(path(file.file_path()), path(&location)).unwrap();
    DataFileBuilder::default()
        .content(DataContentType::Data)
        .file_path(location)
        .file_format(format)
        .partition(file.partition().clone())
        .partition_spec_id(spec)
        .record_count(file.record_count())
        .file_size_in_bytes(file.file_size_in_bytes())
        .build()
        .unwrap()
}

fn path(file: &str) -> PathBuf {
    file.strip_prefix("file://").unwrap().into()
}

fn kinds(table: &FsckTable) -> Vec<FindingKind> {
    table.damage.iter().map(|finding| finding.kind).collect()
}

fn spans(table: &FsckTable) -> Vec<(u64, u64, bool)> {
    let span = |gap: &SeqGap| (gap.first, gap.last, gap.reason.is_some());
    table.gaps.iter().map(span).collect()
}

#[tokio::test]
async fn a_table_of_several_commits_is_whole() {
    let mut house = House::new().await;
    house.commit(rows(1, 40), (1, 40)).await;
    house.commit(rows(41, 20), (41, 60)).await;
    let table = house.check().await;
    assert!(table.is_whole() && table.gaps.is_empty() && table.notes.is_empty(), "{table:?}");
    assert_eq!((table.table.as_str(), table.snapshots, table.rows), ("a.events", 2, 60));
    assert!(0 < table.files && 0 < table.bytes && table.foreign_rows == 0, "{table:?}");
}

#[tokio::test]
async fn numbers_that_no_commit_has_are_explained() {
    let mut house = House::new().await;
    house.commit(rows(1, 10), (1, 10)).await;
    // As a log that takes over begins.
    let far = (1_u64 << 32) + 10;
    house.commit(rows(far.cast_signed(), 10), (far, far + 9)).await;
    let table = house.check().await;
    assert!(table.is_whole() && table.notes.is_empty(), "{table:?}");
    assert_eq!(spans(&table), [(11, far - 1, true)]);
    assert_eq!(missing(&table, Some("a log that took over")), far - 11, "{table:?}");
}

#[tokio::test]
async fn numbers_of_two_rows_and_of_other_commits_are_damage() {
    let mut house = House::new().await;
    house.commit(rows(1, 10), (1, 10)).await;
    house.commit(rows(1, 10), (11, 20)).await;
    let table = house.check().await;
    assert_eq!(kinds(&table), [FindingKind::Numbers; 3], "{table:?}");
    assert!(table.damage[0].what.starts_with("10 rows have a number that their commit"));
    assert!(table.damage[1].what.starts_with("10 numbers are those of two rows"));
}

#[tokio::test]
async fn rows_above_the_watermark_are_damage() {
    let mut house = House::new().await;
    house.commit(rows(1, 10), (1, 5)).await;
    let table = house.check().await;
    assert!(kinds(&table).contains(&FindingKind::Watermark), "{table:?}");
    let above = "5 rows have no number, or one above the watermark 5";
    assert!(table.damage.iter().any(|finding| finding.what == above), "{table:?}");
}

#[tokio::test]
async fn commits_and_the_watermark_agree() {
    let mut house = House::new().await;
    let mut summary = own();
    summary.insert(FIRST_SEQ.to_owned(), "1".to_owned());
    summary.insert(LAST_SEQ.to_owned(), "10".to_owned());
    house.add(rows(1, 10), summary, Some(12)).await;
    let table = house.check().await;
    assert_eq!(table.damage[0].kind, FindingKind::Watermark, "{table:?}");
    assert_eq!(table.damage[0].what, "the watermark is 12, and the last commit has rows up to 10");
    // 11 and 12 are in no commit and explained by none.
    assert_eq!(spans(&table), [(11, 12, false)]);

    let mut house = House::new().await;
    house.commit(rows(11, 10), (11, 20)).await;
    house.commit(rows(1, 5), (1, 5)).await;
    let table = house.check().await;
    let back = "the numbers go back: 1 to 5 come after 20";
    assert!(table.damage.iter().any(|finding| finding.what == back), "{table:?}");
}

#[tokio::test]
async fn rows_of_other_engines_are_counted_apart() {
    let mut house = House::new().await;
    house.commit(rows(1, 10), (1, 10)).await;
    house.add(rows(5, 7), BTreeMap::new(), None).await;
    house.commit(rows(11, 10), (11, 20)).await;
    let table = house.check().await;
    assert!(table.is_whole() && table.gaps.is_empty(), "{table:?}");
    assert_eq!((table.rows, table.foreign_rows), (27, 7));
}

#[tokio::test]
async fn rows_that_were_deleted_are_explained_and_those_that_a_rewrite_lost_are_not() {
    for (operation, summary, is_whole) in [
        (Operation::Delete, BTreeMap::new(), true),
        (Operation::Delete, own(), true),
        (Operation::Replace, own(), false),
    ] {
        let mut house = House::new().await;
        let files = house.commit(rows(1, 30), (1, 30)).await;
        house.commit(rows(31, 30), (31, 60)).await;
        let lost = files[0].record_count();
        house.remove(operation, vec![files[0].clone()], summary).await;
        let table = house.check().await;
        assert_eq!(table.is_whole(), is_whole, "{table:?}");
        let missing: u64 = table.gaps.iter().map(|gap| gap.last - gap.first + 1).sum();
        assert!(missing == lost || table.gaps_total > 20, "{table:?}");
        assert!(table.gaps.iter().all(|gap| gap.reason.is_some() == is_whole), "{table:?}");
        if !is_whole {
            let found = [FindingKind::Summary, FindingKind::Numbers, FindingKind::Sums];
            assert_eq!(kinds(&table), found, "{table:?}");
        }
    }
}

/// How many of the gaps' numbers have a reason with this text, or none.
fn missing(table: &FsckTable, reason: Option<&str>) -> u64 {
    let is_it = |gap: &&SeqGap| match (reason, &gap.reason) {
        (Some(part), Some(told)) => told.contains(part),
        (None, None) => true,
        _ => false,
    };
    table.gaps.iter().filter(is_it).map(|gap| gap.last - gap.first + 1).sum()
}

#[tokio::test]
async fn rows_that_another_engine_wrote_anew_explain_no_lost_row() {
    let mut house = House::new().await;
    let files = house.commit(rows(1, 30), (1, 30)).await;
    house.overwrite_of_others(files, rows(1, 30)).await;
    let later = house.commit(rows(31, 10), (31, 40)).await;
    let table = house.check().await;
    assert!(table.is_whole() && table.gaps.is_empty(), "{table:?}");
    let lost = house.lose(&later[0]).await;
    let table = house.check().await;
    assert!(kinds(&table).contains(&FindingKind::Numbers), "{table:?}");
    assert_eq!(missing(&table, None), lost, "{table:?}");
}

#[tokio::test]
async fn a_removal_explains_no_lost_row_where_its_own_are_still_there() {
    // From the first number on, and of a log that took over.
    for base in [0, 1_u64 << 32] {
        let numbers = |first: u64| (base + first, base + first + 9);
        let ten = |first: u64| rows((base + first).cast_signed(), 10);
        let mut house = House::new().await;
        let mut gone = house.commit(ten(1), numbers(1)).await;
        let kept = house.commit(ten(11), numbers(11)).await;
        gone.extend(house.commit(ten(21), numbers(21)).await);
        // As an UPDATE with delete files leaves them once the deleted rows are out of the files.
        house.overwrite_of_others(Vec::new(), ten(1)).await;
        house.overwrite_of_others(Vec::new(), ten(21)).await;
        house.remove(Operation::Delete, gone, own()).await;
        let table = house.check().await;
        assert!(table.is_whole() && missing(&table, None) == 0, "{table:?}");
        assert_eq!(missing(&table, Some("took over")), base, "{table:?}");
        assert_eq!(table.gaps.len(), usize::from(base != 0), "{table:?}");
        let lost = house.lose(&kept[0]).await;
        assert_eq!(missing(&house.check().await, None), lost);
    }
}

#[tokio::test]
async fn numbers_that_another_engine_removed_are_told_with_its_snapshot() {
    let mut house = House::new().await;
    let files = house.commit(rows(1, 30), (1, 30)).await;
    house.overwrite_of_others(files, rows(1, 20)).await;
    let snapshot = house.load().await.metadata.current_snapshot_id().unwrap();
    let later = house.commit(rows(31, 10), (31, 40)).await;
    let table = house.check().await;
    assert!(table.is_whole() && table.notes.is_empty(), "{table:?}");
    let reason = format!("another engine removed as many rows (snapshot {snapshot})");
    let expected = SeqGap { first: 21, last: 30, reason: Some(reason) };
    assert_eq!(table.gaps, [expected], "{table:?}");
    // A row beside them is not.
    let lost = house.lose(&later[0]).await;
    let table = house.check().await;
    assert_eq!((table.gaps[0].last, missing(&table, None)), (30, lost), "{table:?}");
}

#[tokio::test]
async fn what_a_snapshot_removed_is_told_when_its_parent_is_gone() {
    for is_last in [false, true] {
        let mut house = House::new().await;
        let files = house.commit(rows(1, 30), (1, 30)).await;
        house.commit(rows(31, 10), (31, 40)).await;
        house.overwrite_of_others(files, rows(1, 20)).await;
        let removed = house.load().await.metadata.current_snapshot_id().unwrap();
        if !is_last {
            house.commit(rows(41, 10), (41, 50)).await;
        }
        let head = house.load().await.metadata.current_snapshot_id().unwrap();
        house.expire_all_but(&[removed, head]).await;
        let table = house.check().await;
        assert!(table.is_whole() && missing(&table, Some("not known")) == 0, "{table:?}");
        let reason = format!("another engine removed as many rows (snapshot {removed})");
        let expected = SeqGap { first: 21, last: 30, reason: Some(reason) };
        assert_eq!(table.gaps, [expected], "{table:?}");
        let in_doubt = table.notes.iter().filter(|note| note.what.contains("whether they should"));
        assert_eq!(in_doubt.count(), 0, "{table:?}");
    }
}

#[tokio::test]
async fn rows_that_a_summary_does_not_count_as_deleted_are_explained_by_its_total() {
    let mut house = House::new().await;
    let files = house.commit(rows(1, 10), (1, 10)).await;
    house.remove(Operation::Delete, vec![files[0].clone()], BTreeMap::new()).await;
    let told = with_entry(&house.load().await, "deleted-records", |_| 0);
    let table = house.check_as(&told).await;
    assert!(table.is_whole(), "{table:?}");
    let removed = missing(&table, Some("another engine removed"));
    assert_eq!((removed, missing(&table, None)), (files[0].record_count(), 0), "{table:?}");
}

#[tokio::test]
async fn rows_in_files_that_are_not_parquet_are_not_lost() {
    let mut house = House::new().await;
    let removed = house.commit(rows(1, 10), (1, 10)).await;
    let metadata = house.load().await.metadata;
    let spec = metadata.default_partition_spec_id();
    let anew = |file| renamed(file, spec, DataFileFormat::Avro);
    let added = removed.iter().map(anew).collect();
    let (operation, read) = (Operation::Overwrite, metadata.current_snapshot_id());
    let new = NewSnapshot { operation, read, removed, added, ..NewSnapshot::default() };
    house.catalog.add_snapshot(&house.table, new).await.unwrap();
    house.clock.advance_ms(1_000);
    house.commit(rows(11, 10), (11, 20)).await;
    // What came and went before is not known any more.
    house.expire().await;
    let table = house.check().await;
    assert!(table.is_whole(), "{table:?}");
    assert_eq!(missing(&table, Some("not Parquet")), 10, "{table:?}");
}

#[tokio::test]
async fn a_table_without_an_account_is_held_against_its_commits() {
    let mut house = House::new().await;
    let ours = rows(1, 10);
    let sum = sum_of(&ours);
    // Without a mark the metastore counts no row as ours, as of a table that was registered.
    house.add_summed(ours, Some(sum), of_log((1, 10)), None).await;
    let table = house.check().await;
    assert!(table.is_whole(), "{table:?}");
    let is_told = |note: &FsckFinding| note.what.contains("no account of the rows");
    assert!(table.notes.iter().any(is_told), "{table:?}");
}

#[tokio::test]
async fn what_retention_and_an_erasure_removed_is_told_apart_from_lost_rows() {
    for (reason, part) in [(REASON_RETENTION, "retention removed"), (REASON_ERASE, "an erasure")] {
        let mut house = House::new().await;
        let old = house.commit(rows(1, 10), (1, 10)).await;
        let removed: u64 = old.iter().map(DataFile::record_count).sum();
        let later = house.commit(rows(11, 10), (11, 20)).await;
        let mut summary = own();
        summary.insert(REASON.to_owned(), reason.to_owned());
        if reason == REASON_RETENTION {
            summary.insert(REMOVED_FIRST_SEQ.to_owned(), "1".to_owned());
            summary.insert(REMOVED_LAST_SEQ.to_owned(), "10".to_owned());
        }
        house.remove(Operation::Delete, old, summary).await;
        let table = house.check().await;
        assert!(table.is_whole() && table.notes.is_empty(), "{table:?}");
        assert_eq!((spans(&table), removed), (vec![(1, 10, true)], 10));
        assert_eq!(missing(&table, Some(part)), 10, "{table:?}");
        let lost = house.lose(&later[0]).await;
        let table = house.check().await;
        assert!(kinds(&table).contains(&FindingKind::Numbers), "{table:?}");
        assert_eq!((missing(&table, Some(part)), missing(&table, None)), (10, lost), "{table:?}");
    }
}

#[tokio::test]
async fn numbers_that_were_left_out_without_a_take_over_are_noted() {
    let mut house = House::new().await;
    house.commit(rows(1, 10), (1, 10)).await;
    house.commit(rows(16, 10), (16, 25)).await;
    let table = house.check().await;
    assert_eq!((table.is_whole(), spans(&table)), (true, vec![(11, 15, true)]), "{table:?}");
    assert_eq!(table.notes.len(), 1, "{table:?}");
    let text = "the numbers from 11 to 15: no commit has them: ";
    assert!(table.notes[0].what.starts_with(text), "{table:?}");
    // Whoever gave them up wrote it down.
    let lost = LostNumbers { table: "a.events".to_owned(), range: (11, 15) };
    let pace = JobPace::new(&IngestLoad::default(), &house.tasks);
    let (catalog, ours) = (&house.catalog, ServiceTables::default());
    house.fsck = Fsck::new(catalog, ours, vec![lost], pace, &house.tasks);
    let table = house.check().await;
    assert!(table.is_whole() && table.notes.is_empty(), "{table:?}");
    assert_eq!(missing(&table, Some("written down")), 5, "{table:?}");
}

#[tokio::test]
async fn numbers_that_a_commit_gives_no_reason_for_are_damage() {
    let check =
        async |(numbers, first): ((u64, u64), i64), entry: &str, (lost, notes): (u64, usize)| {
            let mut house = House::new().await;
            house.commit(rows(1, 10), (1, 10)).await;
            let mut summary = of_log(numbers);
            summary.insert(UNUSED_SEQ.to_owned(), entry.to_owned());
            house.add(rows(first, 10), summary, Some(numbers.1)).await;
            let table = house.check().await;
            assert_eq!(missing(&table, None), lost, "{entry}: {table:?}");
            let damage = vec![FindingKind::Numbers; usize::from(0 < lost)];
            assert_eq!((kinds(&table), table.notes.len()), (damage, notes), "{entry}: {table:?}");
        };
    let between = ((16, 25), 16);
    check(between, "none", (5, 0)).await;
    check(between, "11-13=not-logged", (2, 0)).await;
    check(between, "11-13=not-logged,14-15=given-up", (0, 0)).await;
    check(between, "11-15=before-table", (0, 1)).await;
    let within = ((11, 25), 16);
    check(within, "none", (5, 0)).await;
    check(within, "11-15=not-logged", (0, 0)).await;
}

#[tokio::test]
async fn totals_tell_what_snapshots_that_are_gone_did() {
    let mut house = House::new().await;
    house.commit(rows(1, 10), (1, 10)).await;
    house.commit(rows(16, 10), (16, 25)).await;
    house.commit(rows(26, 10), (26, 35)).await;
    house.expire().await;
    let table = house.check().await;
    assert!(table.is_whole(), "{table:?}");
    assert_eq!((table.snapshots, spans(&table)), (1, vec![(11, 15, true)]));
}

#[tokio::test]
async fn totals_of_snapshots_that_are_gone_count_rows_of_other_engines_too() {
    let mut house = House::new().await;
    house.commit(rows(1, 10), (1, 10)).await;
    house.append_of_others(rows(3, 7)).await;
    house.commit(rows(16, 10), (16, 25)).await;
    house.commit(rows(26, 10), (26, 35)).await;
    house.expire().await;
    let table = house.check().await;
    assert!(table.is_whole(), "{table:?}");
    assert_eq!((table.rows, spans(&table)), (37, vec![(11, 15, true)]));
    // What others added is not known any more, so the sums begin with the next audit.
    let is_told = |note: &FsckFinding| note.what.contains("`icecore audit events`");
    assert!(table.notes.iter().any(is_told), "{table:?}");
}

#[tokio::test]
async fn rows_that_no_count_tells_of_are_found_by_their_sum() {
    let written = rows(11, 10);
    let whole = sum_of(&written);
    let known = hash_of("01JMABCDEFGHJKMNPQ11-0", 11);
    // The log had another row under the number, or a row more, or one less than the files.
    let (mut changed, mut lost, mut doubled) = (whole, whole, whole);
    changed.remove(known);
    changed.add(hash_of("another", 11));
    lost.add(hash_of("another", 21));
    doubled.remove(known);
    for told in [changed, lost, doubled] {
        let mut house = House::new().await;
        house.commit(rows(1, 10), (1, 10)).await;
        house.add_summed(written.clone(), Some(told), of_log((11, 20)), Some(20)).await;
        let table = house.check().await;
        assert_eq!(kinds(&table), [FindingKind::Sums], "{table:?}");
        let head = house.load().await.metadata.current_snapshot_id();
        assert_eq!(table.damage[0].snapshot, head, "{table:?}");
        let request = FsckRequest { levels: None, table: None, depth: CheckDepth::Footers };
        assert!(house.fsck.run(&request).await.unwrap().whole, "rows are not read for it");
    }
    let mut house = House::new().await;
    house.commit(rows(1, 10), (1, 10)).await;
    house.commit(written, (11, 20)).await;
    assert!(house.check().await.is_whole());
}

#[tokio::test]
async fn a_file_that_goes_while_nobody_needs_it_is_no_damage() {
    let mut house = House::new().await;
    let files = house.commit(rows(1, 30), (1, 30)).await;
    house.commit(rows(31, 30), (31, 60)).await;
    let before = house.load().await;
    house.remove(Operation::Delete, vec![files[0].clone()], BTreeMap::new()).await;
    fs::remove_file(path(files[0].file_path())).unwrap();
    // The snapshots before the delete still need it.
    for table in [house.check_as(&before).await, house.check().await] {
        assert_eq!(kinds(&table), [FindingKind::Missing], "{table:?}");
        assert_eq!(table.damage[0].file.as_deref(), Some(files[0].file_path()));
    }
    house.expire().await;
    let table = house.check_as(&before).await;
    assert!(table.is_whole(), "{table:?}");
    assert!(house.check().await.is_whole());
}

#[tokio::test]
async fn a_manifest_that_lost_a_file_is_found() {
    let mut house = House::new().await;
    let files = house.commit(rows(1, 30), (1, 30)).await;
    assert!(1 < files.len());
    let first = house.load().await.metadata.current_snapshot_id().unwrap();
    house.rewrite_manifest(first, &files[0]).await;
    let found = kinds(&house.check().await);
    for kind in [FindingKind::Counts, FindingKind::Summary, FindingKind::Numbers] {
        assert!(found.contains(&kind), "{found:?}");
    }
}

#[tokio::test]
async fn a_manifest_that_lost_a_file_is_found_when_its_snapshot_is_gone() {
    let mut house = House::new().await;
    let files = house.commit(rows(1, 30), (1, 30)).await;
    assert!(1 < files.len());
    let first = house.load().await.metadata.current_snapshot_id().unwrap();
    house.commit(rows(31, 30), (31, 60)).await;
    house.expire().await;
    house.rewrite_manifest(first, &files[0]).await;
    let found = kinds(&house.check().await);
    for kind in [FindingKind::Counts, FindingKind::Summary] {
        assert!(found.contains(&kind), "{found:?}");
    }
}

#[tokio::test]
async fn files_that_nothing_names_are_noted() {
    let mut house = House::new().await;
    house.commit(rows(1, 10), (1, 10)).await;
    let folder = path(house.load().await.metadata.location()).join("data/00");
    fs::create_dir_all(&folder).unwrap();
    let orphan = folder.join("orphan.parquet");
    for (name, age) in [("orphan.parquet", 1_000), ("young.parquet", 4_000_000_000)] {
        let file = fs::File::create(folder.join(name)).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(age)).unwrap();
    }
    let table = house.check().await;
    assert!(table.is_whole(), "{table:?}");
    assert_eq!(table.notes.len(), 1, "{table:?}");
    assert_eq!(table.notes[0].kind, FindingKind::Orphans);
    assert_eq!(table.notes[0].what, "files older than 24 h that no snapshot names: 1");
    assert_eq!(table.notes[0].file, Some(format!("file://{}", orphan.display())));
}

#[tokio::test]
async fn numbers_that_come_again_after_a_table_went_back_are_whole() {
    let mut house = House::new().await;
    house.commit(rows(1, 10), (1, 10)).await;
    let first = house.load().await.metadata.current_snapshot_id().unwrap();
    house.commit(rows(11, 10), (11, 20)).await;
    let mark = Watermark { epoch: 1, position: 1, last_seq: 10 };
    let (recovery, base) = (house.catalog.recovery(), house.load().await);
    recovery.move_back(&house.table, base, first, Some(mark)).await.unwrap();
    let table = house.check().await;
    assert!(table.is_whole() && table.rows == 10, "{table:?}");
    house.commit(rows(11, 10), (11, 20)).await;
    let table = house.check().await;
    assert!(table.is_whole() && table.gaps.is_empty() && table.rows == 20, "{table:?}");
}

#[tokio::test]
async fn a_name_that_is_not_there_and_a_second_run_are_refused() {
    let house = House::new().await;
    let request = |levels: Option<&str>, table: Option<&str>| FsckRequest {
        levels: levels.map(|name| vec![name.to_owned()]),
        table: table.map(str::to_owned),
        depth: CheckDepth::Footers,
    };
    for (levels, table) in [(Some("b"), None), (Some("a"), Some("even")), (None, Some("even"))] {
        let ended = house.fsck.run(&request(levels, table)).await;
        let is_missing = matches!(
            ended,
            Err(FsckError::Catalog(
                CatalogError::NoSuchNamespace(_) | CatalogError::NoSuchTable(_)
            ))
        );
        assert!(is_missing, "{ended:?}");
    }
    let held = house.fsck.0.running.try_acquire().unwrap();
    let ended = house.fsck.run(&request(None, None)).await;
    assert!(matches!(ended, Err(FsckError::Busy)), "{ended:?}");
    drop(held);
    assert!(house.fsck.run(&request(Some("a"), Some("events"))).await.unwrap().whole);
}

#[tokio::test]
async fn a_run_that_nobody_waits_for_makes_way_for_the_next() {
    let mut house = House::new().await;
    house.commit(rows(1, 10), (1, 10)).await;
    let request = FsckRequest { levels: None, table: None, depth: CheckDepth::Rows };
    let left = tokio::time::timeout(Duration::ZERO, house.fsck.run(&request)).await;
    assert!(left.is_err(), "{left:?}");
    assert!(house.check().await.is_whole());
}

#[tokio::test]
async fn a_run_ends_when_the_server_stops() {
    let house = House::new().await;
    house.tasks.stop(Duration::ZERO).await;
    let request = FsckRequest { levels: None, table: None, depth: CheckDepth::Rows };
    let ended = house.fsck.run(&request).await;
    assert!(matches!(ended, Err(FsckError::Stopped)), "{ended:?}");
}

/// The table with one row more in the total of its current snapshot.
fn with_one_row_more(loaded: &LoadedTable) -> LoadedTable {
    with_entry(loaded, "total-records", |rows| rows + 1)
}

/// The table with another number in the summary of its current snapshot.
fn with_entry(loaded: &LoadedTable, key: &str, of: impl FnOnce(u64) -> u64) -> LoadedTable {
    let mut metadata = serde_json::to_value(&*loaded.metadata).unwrap();
    let current = metadata["current-snapshot-id"].clone();
    let snapshots = metadata["snapshots"].as_array_mut().unwrap();
    let snapshot = snapshots.iter_mut().find(|it| it["snapshot-id"] == current).unwrap();
    let entry = &mut snapshot["summary"][key];
    let told: u64 = entry.as_str().unwrap().parse().unwrap();
    *entry = of(told).to_string().into();
    let metadata = Arc::new(serde_json::from_value(metadata).unwrap());
    LoadedTable { metadata, ..loaded.clone() }
}

#[tokio::test]
async fn a_wrong_total_is_damage_where_a_snapshot_of_ours_brought_it() {
    let mut house = House::new().await;
    house.commit(rows(1, 10), (1, 10)).await;
    house.commit(rows(11, 10), (11, 20)).await;
    let table = house.check_as(&with_one_row_more(&house.load().await)).await;
    assert_eq!(kinds(&table), [FindingKind::Summary], "{table:?}");
    // Once the snapshot before is gone, another engine's may have brought it.
    house.expire().await;
    let table = house.check_as(&with_one_row_more(&house.load().await)).await;
    assert!(table.is_whole(), "{table:?}");
    assert!(table.notes.iter().any(|note| note.kind == FindingKind::Summary), "{table:?}");
}

#[tokio::test]
async fn a_warehouse_that_is_away_is_no_damage() {
    let mut house = House::new().await;
    house.commit(rows(1, 10), (1, 10)).await;
    let warehouse = house.folder.path().join("warehouse");
    fs::rename(&warehouse, house.folder.path().join("away")).unwrap();
    let request = FsckRequest { levels: None, table: None, depth: CheckDepth::Rows };
    let ended = house.fsck.run(&request).await;
    let is_outage = matches!(ended, Err(FsckError::Catalog(CatalogError::WarehouseOutage(_))));
    assert!(is_outage, "{ended:?}");
    fs::rename(house.folder.path().join("away"), &warehouse).unwrap();
    assert!(house.check().await.is_whole());
}
