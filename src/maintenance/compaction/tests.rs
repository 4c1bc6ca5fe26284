mod foreign;
mod writers;

use super::*;
use crate::{
    maintenance::{
        JobRegistry,
        compaction::{
            job::CompactTables,
            planned::{CompactDays, CompactHours, CompactNow},
        },
        expiry::SnapshotExpiry,
        planned::{PlannedJob, RunRefusal, RunRequest},
    },
    tasks::{Job, Progress},
};
use arrow::{
    array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray},
    datatypes::{DataType, Field, Int64Type, Schema},
};
use futures::TryStreamExt;
use iceberg::{
    TableRequirement, TableUpdate,
    spec::{
        DataContentType, DataFile, DataFileBuilder, DataFileFormat, FormatVersion, Literal,
        MAIN_BRANCH, ManifestFile, ManifestList, ManifestListWriter, ManifestWriterBuilder,
        NestedField, Operation, PrimitiveLiteral, PrimitiveType, Snapshot, SnapshotReference,
        SnapshotRetention, Summary, TableMetadata, Transform, Type, UnboundPartitionSpec,
    },
};
use icecore_catalog::{
    catalog::{LoadedTable, RefKind, TableChange},
    commit::{FIRST_SEQ, LAST_SEQ},
    metastore::{Metastore, Watermark},
    retention::SNAPSHOTS_MAX,
    row_sum::RowSum,
    scan::{
        Deadline, ManifestSource,
        deletes::partition_key,
        filter::Filter,
        manifests::{ManifestCache, PlannedFile},
    },
    snapshot::{MarkMove, NewSnapshot, READER_GRACE_MS},
    storage::{S3Options, Storage},
};
use icecore_lake::{
    clock::Clock,
    load::IngestLoad,
    metrics::Metrics,
    table::{
        conservation,
        file_columns::FileColumns,
        partition::FIELD_ID,
        reader::{DeleteHandling, ReadRequest, rows, rows_of_file},
        row_sum::RowKeys,
        writer::{self, WrittenFiles},
    },
};
use icecore_schemas::jobs::{BeforeAfter, SkippedTable};
use parquet::arrow::ArrowWriter;
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The rows of a snapshot: how often each `seq` is there.
type RowCounts = BTreeMap<i64, usize>;

/// A catalog with `a.events`, and compaction of it.
struct House {
    catalog: Catalog,
    clock: Clock,
    ids: IdGenerator,
    table: TableIdent,
    compaction: Compaction,
    seq: u64,
    /// Time that passes with a commit of the log.
    commit_ms: i64,
    /// The sum of the rows of the log.
    acked: RowSum,
    /// The rows of each snapshot by its id.
    model: BTreeMap<i64, RowCounts>,
    _folder: tempfile::TempDir,
}

const RULES: CompactionRules =
    CompactionRules { file_bytes: 100_000_000, file_rows: 1_000_000, files_max: 4, days_back: 7 };
const OPTIONS: CompactionOptions =
    CompactionOptions { rules: RULES, cpu_share: 1.0, disk_free_min: 0.0 };

impl House {
    async fn new() -> Self {
        Self::with(Failpoints::default()).await
    }

    async fn with(faults: Failpoints) -> Self {
        Self::with_options(faults, OPTIONS).await
    }

    async fn with_options(faults: Failpoints, options: CompactionOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let warehouse = format!("file://{}/warehouse", folder.path().display());
        let storage = Storage::open(&warehouse, &S3Options::default()).unwrap();
        let metastore = Metastore::sqlite(&folder.path().join("icecore.db")).await.unwrap();
        // The rows are of three days; the last of them is open.
        let clock = Clock::manual(icecore_samples::START_US / 1_000 + 2 * 86_400_000 + 3_600_000);
        let now = clock.clone();
        let catalog = Catalog::new("icecore", storage, metastore, Arc::new(move || now.now_ms()));
        let levels = vec!["a".to_owned()];
        catalog.namespaces().ensure(&levels, &BTreeMap::new()).await.unwrap();
        catalog.tables().create(&levels, icecore_samples::events_table()).await.unwrap();
        let table = TableIdent::from_strs(["a", "events"]).unwrap();
        let ids = IdGenerator::new(clock.clone());
        let (tasks, load) = (Tasks::default(), IngestLoad::default());
        let compaction =
            Compaction::new(&catalog, (clock.clone(), ids.clone()), tasks, options, &load, faults);
        let model = BTreeMap::new();
        let (seq, acked) = (0, RowSum::default());
        let commit_ms = 1_000;
        Self {
            catalog,
            clock,
            ids,
            table,
            compaction,
            seq,
            commit_ms,
            acked,
            model,
            _folder: folder,
        }
    }

    async fn load(&self) -> LoadedTable {
        self.catalog.tables().load(&self.table).await.unwrap()
    }

    async fn head(&self) -> i64 {
        self.load().await.metadata.current_snapshot_id().unwrap_or_default()
    }

    fn head_rows(&self, head: i64) -> RowCounts {
        self.model.get(&head).cloned().unwrap_or_default()
    }

    /// Commits so many rows of the log, as a flush does.
    async fn append(&mut self, count: usize, types: usize) -> i64 {
        let first = self.seq + 1;
        let rows = icecore_samples::events(count, types, first.cast_signed(), first);
        self.append_rows(rows).await
    }

    /// Commits so many rows of one type, each a microsecond after the one before.
    async fn append_in_order(&mut self, count: usize) -> i64 {
        self.append_from(icecore_samples::START_US, count).await
    }

    /// The same from this time on, in microseconds.
    async fn append_from(&mut self, from_us: i64, count: usize) -> i64 {
        let first = self.seq + 1;
        let rows = icecore_samples::events(count, 1, first.cast_signed(), first);
        let times = (from_us + first.cast_signed()..).take(count);
        let times = TimestampMicrosecondArray::from_iter_values(times).with_timezone("+00:00");
        let mut columns = rows.columns().to_vec();
        columns[rows.schema().index_of("ts").unwrap()] = Arc::new(times);
        self.append_rows(RecordBatch::try_new(rows.schema(), columns).unwrap()).await
    }

    async fn append_rows(&mut self, rows: RecordBatch) -> i64 {
        let before = self.head_rows(self.head().await);
        let (first, count) = (self.seq + 1, rows.num_rows());
        self.seq += count as u64;
        let loaded = self.load().await;
        let batches = if count == 0 { Vec::new() } else { vec![rows] };
        let storage = self.catalog.storage();
        let written = writer::write_summed(storage, &loaded.metadata, batches, &self.ids).await;
        let WrittenFiles { files, rows_sum } = written.unwrap();
        let rows_sum = rows_sum.unwrap_or_default();
        let watermark =
            Watermark { epoch: 1, position: loaded.version.cast_unsigned(), last_seq: self.seq };
        let summary = [(FIRST_SEQ, first), (LAST_SEQ, self.seq)];
        let append = NewSnapshot {
            added: files,
            summary: summary.map(|(key, seq)| (key.to_owned(), seq.to_string())).into(),
            mark: Some(MarkMove { watermark, since: 1 }),
            rows_added: Some(rows_sum),
            ..NewSnapshot::default()
        };
        let now = self.catalog.add_snapshot(&self.table, append).await.unwrap();
        self.acked = self.acked.merge(rows_sum);
        self.clock.advance_ms(self.commit_ms);
        let head = now.metadata.current_snapshot_id().unwrap();
        let mut rows = before;
        rows.extend((first..=self.seq).map(|seq| (seq.cast_signed(), 1)));
        self.model.insert(head, rows);
        head
    }

    /// Deletes some rows of a live file by their places, as another engine does.
    async fn delete(&mut self, random: &mut StdRng) {
        let loaded = self.load().await;
        let head = loaded.metadata.current_snapshot_id().unwrap();
        let files = self.planned(&loaded.metadata, head).await;
        if files.is_empty() {
            return;
        }
        let file = &files[random.random_range(0..files.len())];
        let before = self.head_rows(head);
        let (read, in_file) = (self.read(&loaded.metadata, head).await, self.seqs_of(file).await);
        assert_eq!(read, before);
        let alive: Vec<(i64, i64)> = (0..)
            .zip(&in_file)
            .map(|(at, seq)| (at, *seq))
            .filter(|(_, seq)| read.contains_key(seq))
            .collect();
        if alive.is_empty() {
            return;
        }
        let gone: Vec<(i64, i64)> =
            alive.iter().copied().filter(|_| random.random_bool(0.3)).collect();
        let gone = if gone.is_empty() { vec![alive[0]] } else { gone };
        let places: Vec<i64> = gone.iter().map(|(at, _)| *at).collect();
        let delete = NewSnapshot {
            operation: Operation::Delete,
            read: Some(head),
            deletes: vec![(file.spec_id, self.position_deletes(file, &places).await)],
            ..NewSnapshot::default()
        };
        let now = self.catalog.add_snapshot(&self.table, delete).await.unwrap();
        self.clock.advance_ms(1_000);
        let mut rows = before;
        for (_, seq) in &gone {
            rows.remove(seq);
        }
        self.model.insert(now.metadata.current_snapshot_id().unwrap(), rows);
    }

    /// Deletes a row as an engine does that read the table, and commits after a compaction and `rows` of the
    /// log. Gives how many files there were after these.
    async fn delete_late(&mut self, random: &mut StdRng, rows: usize) -> usize {
        let loaded = self.load().await;
        let metadata = loaded.metadata.as_ref();
        let head = metadata.current_snapshot().unwrap();
        let id = head.snapshot_id() + 1;
        let files = self.planned(metadata, head.snapshot_id()).await;
        if files.is_empty() {
            return 0;
        }
        let file = &files[random.random_range(0..files.len())];
        let (read, in_file) =
            (self.read(metadata, head.snapshot_id()).await, self.seqs_of(file).await);
        let Some((at, seq)) = (0..).zip(in_file).find(|(_, seq)| read.contains_key(seq)) else {
            return 0;
        };
        let mut deletes = self.manifest(metadata, id, "deletes").build_v2_deletes();
        deletes.add_file(self.position_deletes(file, &[at]).await, -1).unwrap();
        let mut list = self.manifests(metadata, head).await;
        list.push(deletes.write_manifest_file().await.unwrap());
        self.compact().await;
        if 0 < rows {
            self.append(rows, 2).await;
        }
        let before = self.load().await.metadata;
        let last = before.current_snapshot_id().unwrap();
        let (merged, mut left) = (self.planned(&before, last).await.len(), self.head_rows(last));
        self.put_snapshot(metadata, head, id, list).await.unwrap();
        self.clock.advance_ms(1_000);
        let parent = self.load().await.metadata.current_snapshot().unwrap().parent_snapshot_id();
        // Where compaction is taken back, the rows are those of the snapshot before.
        self.model.entry(parent.unwrap()).or_insert_with(|| left.clone());
        left.remove(&seq);
        self.model.insert(id, left);
        merged
    }

    /// Deletes rows by their `seq`, as an engine does that streams: a delete file in each partition, for
    /// rows of an earlier number alone. `upserted` comes again in the same snapshot.
    async fn delete_by_value(&mut self, seqs: &[i64], upserted: Option<i64>) {
        self.delete_by(5, seqs, upserted).await.unwrap();
    }

    /// The same by any column of whole numbers.
    async fn delete_by(
        &mut self,
        column: i32,
        seqs: &[i64],
        upserted: Option<i64>,
    ) -> Result<(), CatalogError> {
        let loaded = self.load().await;
        let metadata = loaded.metadata.as_ref();
        let head = metadata.current_snapshot().unwrap();
        let (id, mut rows) = (head.snapshot_id() + 1, self.head_rows(head.snapshot_id()));
        let mut list = self.manifests(metadata, head).await;
        let mut partitions = BTreeMap::new();
        for file in self.planned(metadata, head.snapshot_id()).await {
            partitions.insert(partition_key(&file), file);
        }
        if partitions.is_empty() {
            return Ok(());
        }
        let mut deletes = self.manifest(metadata, id, "deletes").build_v2_deletes();
        for file in partitions.values() {
            deletes.add_file(self.value_deletes(file, column, seqs).await, -1).unwrap();
        }
        list.push(deletes.write_manifest_file().await.unwrap());
        for seq in seqs {
            rows.remove(seq);
        }
        if let Some(seq) = upserted {
            let storage = self.catalog.storage();
            let again = vec![icecore_samples::events(1, 1, seq, seq.cast_unsigned())];
            let mut data = self.manifest(metadata, id, "data").build_v2_data();
            for file in writer::write(storage, metadata, again, &self.ids).await.unwrap() {
                data.add_file(self.renamed(metadata, &file).await, -1).unwrap();
            }
            list.push(data.write_manifest_file().await.unwrap());
            rows.insert(seq, 1);
        }
        self.put_snapshot(metadata, head, id, list).await?;
        self.clock.advance_ms(1_000);
        self.model.insert(id, rows);
        Ok(())
    }

    fn manifest(&self, metadata: &TableMetadata, id: i64, kind: &str) -> ManifestWriterBuilder {
        let location = format!("{}/metadata/{id}-{kind}.avro", metadata.location());
        let output = self.catalog.storage().file_io().new_output(location).unwrap();
        let spec = metadata.default_partition_spec().as_ref().clone();
        let schema = Arc::clone(metadata.current_schema());
        ManifestWriterBuilder::new(output, Some(id), schema, spec)
    }

    /// The file under a name that a client gives.
    async fn renamed(&self, metadata: &TableMetadata, file: &DataFile) -> DataFile {
        let storage = self.catalog.storage();
        let bytes = storage.get(file.file_path()).await.unwrap();
        let location = file.file_path().replace(".parquet", "-again.parquet");
        storage.put(&location, bytes).await.unwrap();
        storage.delete(file.file_path()).await.unwrap();
        DataFileBuilder::default()
            .content(DataContentType::Data)
            .file_path(location)
            .file_format(DataFileFormat::Parquet)
            .partition(file.partition().clone())
            .partition_spec_id(metadata.default_partition_spec_id())
            .record_count(file.record_count())
            .file_size_in_bytes(file.file_size_in_bytes())
            .build()
            .unwrap()
    }

    /// Commits a snapshot of these manifests on top of `head`, as a client does.
    async fn put_snapshot(
        &self,
        metadata: &TableMetadata,
        head: &Snapshot,
        id: i64,
        list: Vec<ManifestFile>,
    ) -> Result<(), CatalogError> {
        let (parent, number) = (Some(head.snapshot_id()), metadata.next_sequence_number());
        let location = format!("{}/metadata/{id}-list.avro", metadata.location());
        let output = self.catalog.storage().file_io().new_output(&location).unwrap();
        let output = output.writer().await.unwrap();
        let mut written = ManifestListWriter::v2(output, id, parent, number);
        written.add_manifests(list.into_iter()).unwrap();
        written.close().await.unwrap();
        let summary =
            Summary { operation: Operation::Overwrite, additional_properties: HashMap::new() };
        let snapshot = Snapshot::builder()
            .with_snapshot_id(id)
            .with_parent_snapshot_id(parent)
            .with_sequence_number(number)
            .with_timestamp_ms(metadata.last_updated_ms() + 1)
            .with_manifest_list(location)
            .with_summary(summary)
            .with_schema_id(metadata.current_schema_id())
            .build();
        let reference = SnapshotReference::new(id, SnapshotRetention::branch(None, None, None));
        let ref_name = MAIN_BRANCH.to_owned();
        let change = TableChange {
            table: self.table.clone(),
            requirements: vec![TableRequirement::RefSnapshotIdMatch {
                r#ref: ref_name.clone(),
                snapshot_id: parent,
            }],
            updates: vec![
                TableUpdate::AddSnapshot { snapshot },
                TableUpdate::SetSnapshotRef { ref_name, reference },
            ],
            keeps_history: true,
        };
        self.catalog.commit(change).await.map(drop)
    }

    async fn manifests(&self, metadata: &TableMetadata, snapshot: &Snapshot) -> Vec<ManifestFile> {
        assert_eq!(metadata.format_version(), FormatVersion::V2);
        let bytes = self.catalog.storage().get(snapshot.manifest_list()).await.unwrap();
        let list = ManifestList::parse_with_version(&bytes, FormatVersion::V2).unwrap();
        list.entries().to_vec()
    }

    /// The data and delete files of a snapshot, whether a delete reaches anything or not.
    async fn live(&self, metadata: &TableMetadata, snapshot: &Snapshot) -> BTreeSet<String> {
        let mut live = BTreeSet::new();
        for manifest in self.manifests(metadata, snapshot).await {
            let files = manifest.load_manifest(&self.catalog.storage().file_io()).await.unwrap();
            let files = files.entries().iter().filter(|entry| entry.is_alive());
            live.extend(files.map(|entry| entry.file_path().to_owned()));
        }
        live
    }

    async fn value_deletes(&self, file: &PlannedFile, id: i32, seqs: &[i64]) -> DataFile {
        let column = Field::new("compared", DataType::Int64, false)
            .with_metadata([(FIELD_ID.to_owned(), id.to_string())].into());
        let values: ArrayRef = Arc::new(Int64Array::from(seqs.to_vec()));
        let rows = RecordBatch::try_new(Arc::new(Schema::new(vec![column])), vec![values]).unwrap();
        let (location, length) = self.put_deletes(file, &rows).await;
        DataFileBuilder::default()
            .content(DataContentType::EqualityDeletes)
            .file_path(location)
            .file_format(DataFileFormat::Parquet)
            .partition(file.partition.clone())
            .partition_spec_id(file.spec_id)
            .record_count(seqs.len() as u64)
            .file_size_in_bytes(length)
            .equality_ids(Some(vec![id]))
            .build()
            .unwrap()
    }

    /// Stores a delete file beside a data file.
    async fn put_deletes(&self, file: &PlannedFile, rows: &RecordBatch) -> (String, u64) {
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, rows.schema(), None).unwrap();
        writer.write(rows).unwrap();
        writer.close().unwrap();
        let location = format!("{}-{}-deletes.parquet", file.location, self.ids.mint());
        let length = bytes.len() as u64;
        self.catalog.storage().put(&location, bytes.into()).await.unwrap();
        (location, length)
    }

    async fn position_deletes(&self, file: &PlannedFile, places: &[i64]) -> DataFile {
        let rows: Vec<(&str, i64)> =
            places.iter().map(|place| (file.location.as_str(), *place)).collect();
        let mut deletes = self.deletes_of_rows(file, &rows).await;
        deletes.referenced_data_file(Some(file.location.clone())).build().unwrap()
    }

    /// A position delete file of rows of several files, which are of the partition of `file`.
    async fn deletes_of_rows(&self, file: &PlannedFile, rows: &[(&str, i64)]) -> DataFileBuilder {
        let column = |(name, id): (&str, i32), kind| {
            Field::new(name, kind, false)
                .with_metadata([(FIELD_ID.to_owned(), id.to_string())].into())
        };
        let schema = Schema::new(vec![
            column(("file_path", 2_147_483_546), DataType::Utf8),
            column(("pos", 2_147_483_545), DataType::Int64),
        ]);
        let (paths, places): (Vec<&str>, Vec<i64>) = rows.iter().copied().unzip();
        let columns: [ArrayRef; 2] =
            [Arc::new(StringArray::from(paths)), Arc::new(Int64Array::from(places))];
        let batch = RecordBatch::try_new(Arc::new(schema), columns.to_vec()).unwrap();
        let (location, length) = self.put_deletes(file, &batch).await;
        let mut deletes = DataFileBuilder::default();
        deletes
            .content(DataContentType::PositionDeletes)
            .file_path(location)
            .file_format(DataFileFormat::Parquet)
            .partition(file.partition.clone())
            .partition_spec_id(file.spec_id)
            .record_count(rows.len() as u64)
            .file_size_in_bytes(length);
        deletes
    }

    /// Deletes the first rows of two files of a partition by one delete file, as an engine does that writes one
    /// for each partition.
    async fn delete_of_two(&mut self) {
        let loaded = self.load().await;
        let metadata = loaded.metadata.as_ref();
        let head = metadata.current_snapshot().unwrap();
        let (id, mut left) = (head.snapshot_id() + 1, self.head_rows(head.snapshot_id()));
        let files = self.planned(metadata, head.snapshot_id()).await;
        let of_first = files.iter().filter(|file| partition_key(file) == partition_key(&files[0]));
        let mut two: Vec<&Arc<PlannedFile>> = of_first.take(2).collect();
        two.sort_by(|one, other| one.location.cmp(&other.location));
        for file in &two {
            assert_eq!(left.remove(&self.seqs_of(file).await[0]), Some(1));
        }
        let rows: Vec<(&str, i64)> = two.iter().map(|file| (file.location.as_str(), 0)).collect();
        let delete = self.deletes_of_rows(two[0], &rows).await.build().unwrap();
        let mut deletes = self.manifest(metadata, id, "deletes").build_v2_deletes();
        deletes.add_file(delete, -1).unwrap();
        let mut list = self.manifests(metadata, head).await;
        list.push(deletes.write_manifest_file().await.unwrap());
        self.put_snapshot(metadata, head, id, list).await.unwrap();
        self.clock.advance_ms(1_000);
        self.model.insert(id, left);
    }

    async fn planned(&self, metadata: &TableMetadata, snapshot_id: i64) -> Vec<Arc<PlannedFile>> {
        let (storage, cache) = (self.catalog.storage(), ManifestCache::default());
        let source = ManifestSource { storage, cache: &cache, metadata, until: Deadline::NONE };
        source.plan(snapshot_id, &Filter::True).await.unwrap().files
    }

    async fn seqs_of(&self, file: &PlannedFile) -> Vec<i64> {
        let loaded = self.load().await;
        let columns = FileColumns::of(&loaded.metadata, &[5]).unwrap();
        let storage = self.catalog.storage();
        let (_, rows) = rows_of_file(storage, file, &columns, None).await.unwrap();
        let batches: Vec<RecordBatch> = rows.try_collect().await.unwrap();
        let seqs = batches
            .iter()
            .flat_map(|rows| rows.column(0).as_primitive::<Int64Type>().values().iter());
        seqs.copied().collect()
    }

    async fn read(&self, metadata: &TableMetadata, snapshot_id: i64) -> RowCounts {
        let (storage, cache) = (self.catalog.storage(), ManifestCache::default());
        let source = ManifestSource { storage, cache: &cache, metadata, until: Deadline::NONE };
        let seq = metadata.current_schema().field_by_name("seq").unwrap().id;
        assert_eq!(seq, 5);
        let request = ReadRequest {
            snapshot_id,
            columns: vec![seq],
            filter: Filter::True,
            deletes: DeleteHandling::Applied,
        };
        let batches: Vec<RecordBatch> =
            rows(source, request).await.unwrap().try_collect().await.unwrap();
        let mut counts = RowCounts::new();
        for rows in &batches {
            for seq in rows.column(0).as_primitive::<Int64Type>().values() {
                *counts.entry(*seq).or_default() += 1;
            }
        }
        counts
    }

    /// Compacts as an operator does, and notes what the table has then: the same rows.
    async fn compact(&mut self) -> JobReport {
        let rows = self.head_rows(self.head().await);
        let known: Vec<i64> =
            self.load().await.metadata.snapshots().map(|s| s.snapshot_id()).collect();
        let report = self.compaction.run(&now()).await.unwrap();
        for snapshot in self.load().await.metadata.snapshots() {
            if !known.contains(&snapshot.snapshot_id()) {
                assert_eq!(snapshot.summary().operation, Operation::Replace);
                self.model.insert(snapshot.snapshot_id(), rows.clone());
            }
        }
        self.clock.advance_ms(1_000);
        report
    }

    /// Writes zeros in the place of a live file, and gives where it is.
    async fn damage_one(&self) -> String {
        let loaded = self.load().await;
        let files = self.planned(&loaded.metadata, self.head().await).await;
        let (damaged, bytes) = (files[0].location.clone(), files[0].bytes);
        let nothing = vec![0; usize::try_from(bytes).unwrap()];
        self.catalog.storage().delete(&damaged).await.unwrap();
        self.catalog.storage().put(&damaged, nothing.into()).await.unwrap();
        damaged
    }

    /// Each retained snapshot has the rows that it had when it was made.
    async fn check(&self) {
        let loaded = self.load().await;
        for snapshot in loaded.metadata.snapshots() {
            let Some(expected) = self.model.get(&snapshot.snapshot_id()) else { continue };
            let found = self.read(&loaded.metadata, snapshot.snapshot_id()).await;
            assert!(found == *expected, "{snapshot:?}: {} of {}", found.len(), expected.len());
        }
    }

    /// The table has the rows that its commits say, and all that were not removed.
    async fn check_sums(&self) {
        let loaded = self.load().await;
        let (metadata, store) = (loaded.metadata.as_ref(), self.catalog.metastore());
        let (version, account) = store.row_account(metadata.uuid()).await.unwrap().unwrap();
        assert_eq!((version, account.acked), (loaded.version, self.acked));
        let (storage, cache) = (self.catalog.storage(), ManifestCache::default());
        let source = ManifestSource { storage, cache: &cache, metadata, until: Deadline::NONE };
        let keys = RowKeys::of(metadata.current_schema()).unwrap();
        let found = conservation::check(source, keys, &account).await.unwrap();
        assert!(found.agree(self.acked) && !found.begins, "{found:?}");
        let rows: usize = self.head_rows(self.head().await).values().sum();
        assert_eq!(found.table.rows(), i64::try_from(rows).unwrap());
        if let Some(found) = found.checkpoint {
            store.note_rows(metadata.uuid(), account.checkpoint, &found).await.unwrap();
        }
    }

    /// Makes the history so long that it is thinned, and deletes what is of no use then.
    async fn thin(&mut self) {
        let have = self.load().await.metadata.snapshots().len();
        let mut made = Vec::new();
        for _ in have..=SNAPSHOTS_MAX + 50 {
            made.push(self.append(0, 1).await);
        }
        // Reading every one of these would say nothing.
        made.pop();
        self.model.retain(|id, _| !made.contains(id));
        assert!(0 < self.catalog.upkeep().thin(&self.table).await.unwrap());
        self.clock.advance_ms(READER_GRACE_MS);
        while 0 < self.catalog.upkeep().delete_obsolete(1_000).await.unwrap() {}
    }

    async fn data_files(&self) -> Vec<String> {
        let data = format!("{}/data", self.load().await.metadata.location());
        self.catalog.storage().list(&data).await.unwrap()
    }
}

fn now() -> CompactionRequest {
    let mode = CompactionMode::Now;
    CompactionRequest { mode, leaves_foreign: false, ..CompactionRequest::steady() }
}

#[tokio::test]
async fn many_small_files_become_few_and_every_snapshot_stays() {
    let mut house = House::new().await;
    for _ in 0..12 {
        house.append(60, 2).await;
    }
    let loaded = house.load().await;
    let before = house.planned(&loaded.metadata, house.head().await).await.len();
    assert_eq!(before, 12 * 6, "a file for each type and day");
    let dry = house.compaction.run(&CompactionRequest { dry_run: true, ..now() }).await.unwrap();
    assert_eq!((dry.files.before, dry.files.after, dry.rows), (72, 6, 720));
    assert_eq!(house.load().await.version, loaded.version, "nothing is changed");

    let done = house.compact().await;
    assert_eq!((done.tables, done.files.before, done.files.after, done.rows), (1, 72, 6, 720));
    let now = house.load().await;
    assert_eq!(now.watermark, loaded.watermark);
    let files = house.planned(&now.metadata, house.head().await).await;
    assert_eq!(files.len(), 6);
    assert!(files.iter().all(|file| file.sort_order_id == Some(1)));
    let summary = &now.metadata.current_snapshot().unwrap().summary().additional_properties;
    assert_eq!(summary[LAST_SEQ], "720");
    house.check().await;
    let again = house.compact().await;
    assert_eq!((again.files.before, again.tables), (0, 0), "nothing is worth it any more");
}

#[tokio::test]
async fn partitions_of_a_condition_alone_are_merged_and_the_answer_says_why() {
    let mut house = House::new().await;
    for _ in 0..4 {
        house.append(60, 2).await;
    }
    let dry = CompactionRequest { dry_run: true, ..now() };
    let would = house.compaction.run(&dry).await.unwrap();
    assert_eq!((would.partitions.len(), would.partitions_more), (6, 0));
    let first = &would.partitions[0];
    assert_eq!((first.files, first.merged), (4, BeforeAfter { before: 4, after: 1 }));
    let (kind, day) = first.partition.split_once('/').unwrap();
    let (kind, day) = (kind.strip_prefix("type=").unwrap(), day.strip_prefix("dt=").unwrap());
    let of = |condition: &str, dry_run| {
        let condition = Some(PartitionCondition::parse(condition).unwrap());
        CompactionRequest { condition, dry_run, ..now() }
    };
    for (condition, files) in [
        (format!("ts BETWEEN '{day}' AND '{day}T23:59:59'"), 8),
        (format!("dt <> DATE '{day}'"), 16),
        (format!("type IN ('{kind}', 'none') AND NOT dt = '{day}'"), 8),
        ("dt IS NULL".to_owned(), 0),
    ] {
        let would = house.compaction.run(&of(&condition, true)).await.unwrap();
        assert_eq!(would.files.before, files, "{condition}");
    }
    let condition = format!("\"TYPE\" = '{kind}' AND (dt = '{day}')");
    let done = house.compaction.run(&of(&condition, false)).await.unwrap();
    assert_eq!((done.files.before, done.files.after), (4, 1));
    let [told] = done.merged.as_slice() else { panic!("{done:?}") };
    assert_eq!((told.files, told.reason.starts_with("small files")), (4, true));
    let [told] = done.kept.as_slice() else { panic!("{done:?}") };
    assert_eq!((told.files, told.reason.starts_with("the only small file")), (1, true));
    house.check().await;

    let refused = house.compaction.run(&of("id = 'x'", false)).await.unwrap_err();
    assert!(matches!(refused, CompactionError::Condition { .. }), "{refused:?}");
    let text = with_causes(&refused);
    assert!(text.contains("`id` is no partition column; this table's are `dt`, `ts`, `type`"));
    let all = house.compaction.run(&now()).await.unwrap();
    assert_eq!((all.files.before, all.files.after), (20, 5), "nothing was left out for good");
}

#[tokio::test]
async fn large_row_groups_in_order_are_copied_and_the_answer_says_so() {
    let mut house = House::new().await;
    // Of two files the larger one would stay.
    for _ in 0..3 {
        house.append_in_order(11_000).await;
    }
    let dry = house.compaction.run(&CompactionRequest { dry_run: true, ..now() }).await.unwrap();
    assert_eq!((dry.files.before, dry.copied_files), (3, 3), "{dry:?}");
    assert!(dry.not_copied.is_empty(), "{dry:?}");
    let done = house.compact().await;
    assert_eq!((done.files.before, done.files.after, done.rows), (3, 1, 33_000));
    assert_eq!(done.copied_files, 3, "{done:?}");
    house.check().await;
    house.check_sums().await;

    // Small files are merged among themselves.
    for _ in 0..2 {
        house.append(10, 1).await;
    }
    let done = house.compact().await;
    assert_eq!(done.copied_files, 0);
    let told = SkippedTable {
        table: house.table.to_string(),
        reason: "row groups have less than 1 MiB".to_owned(),
    };
    assert_eq!(done.not_copied, [told]);
    house.check().await;
}

#[tokio::test]
async fn a_run_by_hand_goes_on_without_its_client_and_alone() {
    let (faults, barrier) = Failpoints::meeting("compact.before_commit");
    let mut house = House::with(faults).await;
    for _ in 0..5 {
        house.append(30, 1).await;
    }
    let version = house.load().await.version;
    // The failpoint holds a thread, so the run has one of its own.
    let compaction = house.compaction.clone();
    let jobs = JobRegistry::new(Tasks::default(), house.clock.clone(), Metrics::default());
    let watched = jobs.clone();
    let progress = || {
        let listed = watched.list().jobs;
        listed.into_iter().find(|job| job.name == CompactNow::NAME).unwrap().progress
    };
    let run = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(async {
            let run = || jobs.run_by_hand(CompactNow(compaction.clone()), RunRequest::default());
            drop(run().unwrap());
            assert!(matches!(run(), Err(RunRefusal::Busy)), "one goes on");
            drop(jobs.turn(CompactNow::NAME).acquire_owned().await.unwrap());
        });
    });
    let meet = || {
        let barrier = Arc::clone(&barrier);
        tokio::task::spawn_blocking(move || barrier.wait())
    };
    meet().await.unwrap();
    assert_eq!(house.load().await.version, version, "it is about to commit");
    let told = progress().unwrap();
    assert_eq!((told.tables_done, told.tables, told.groups_done, told.groups), (0, 1, 0, 3));
    assert!(told.bytes_done == 0 && 0 < told.bytes, "{told:?}");
    meet().await.unwrap();
    tokio::task::spawn_blocking(|| run.join().unwrap()).await.unwrap();
    assert_eq!(house.load().await.version, version + 1);
    assert_eq!(progress(), None, "it has ended");
}

#[tokio::test]
async fn the_job_takes_tables_with_too_many_files_and_no_others() {
    let mut house = House::new().await;
    let mut job = CompactTables::new(house.compaction.clone());
    for _ in 0..4 {
        house.append(30, 1).await;
    }
    assert_eq!(job.tick().await.unwrap(), Progress::Idle);
    house.append(30, 1).await;
    assert_eq!(job.tick().await.unwrap(), Progress::Idle, "it was looked at seconds ago");
    house.clock.advance_ms(60_000);
    let done = job.tick().await.unwrap();
    assert!(matches!(done, Progress::Done | Progress::More), "{done:?}");
    let loaded = house.load().await;
    assert_eq!(house.planned(&loaded.metadata, house.head().await).await.len(), 3);
    while job.tick().await.unwrap() != Progress::Idle {}
    let version = house.load().await.version;
    assert_eq!(job.tick().await.unwrap(), Progress::Idle);
    assert_eq!(house.load().await.version, version);
}

#[tokio::test]
async fn a_table_to_which_commits_come_fast_is_looked_at_again_after_seconds() {
    let mut house = House::new().await;
    house.commit_ms = 100;
    let mut job = CompactTables::new(house.compaction.clone());
    let burst = async |house: &mut House| {
        for _ in 0..64 {
            house.append(1, 1).await;
        }
    };
    let files = async |house: &House| {
        let loaded = house.load().await;
        house.planned(&loaded.metadata, house.head().await).await.len()
    };
    let to_the_end = async |job: &mut CompactTables| {
        let mut last = job.tick().await.unwrap();
        while last == Progress::More {
            last = job.tick().await.unwrap();
        }
        last
    };
    burst(&mut house).await;
    assert_eq!(to_the_end(&mut job).await, Progress::Soon { did_something: true });
    assert!(files(&house).await <= 6, "they are merged");
    house.clock.advance_ms(3_000);
    burst(&mut house).await;
    // The next round of all tables is not yet.
    to_the_end(&mut job).await;
    assert!(files(&house).await <= 6, "they are merged again");
    house.clock.advance_ms(60_000);
    while job.tick().await.unwrap() != Progress::Idle {}
}

#[tokio::test]
async fn a_table_of_which_more_is_always_left_to_do_holds_up_no_other() {
    let mut house = House::new().await;
    house.commit_ms = 100;
    let levels = vec!["b".to_owned()];
    house.catalog.namespaces().ensure(&levels, &BTreeMap::new()).await.unwrap();
    house.catalog.tables().create(&levels, icecore_samples::events_table()).await.unwrap();
    let (one, other) = (house.table.clone(), TableIdent::from_strs(["b", "events"]).unwrap());
    let mut job = CompactTables::new(house.compaction.clone());
    for turn in 0..3 {
        for _ in 0..24 {
            house.append_in_order(1).await;
        }
        // As after steps of which others changed the files: each of the next ones takes few.
        for _ in 0..4 {
            house.compaction.noted().refuse(&one, false, house.clock.passed_ms());
        }
        assert_eq!(job.tick().await.unwrap(), Progress::More, "{turn}");
        if turn == 0 {
            house.table = other.clone();
            for _ in 0..5 {
                house.append_in_order(1).await;
            }
            house.table = one.clone();
        }
        house.clock.advance_ms(15_000);
    }
    house.table = other;
    let loaded = house.load().await;
    assert_eq!(house.planned(&loaded.metadata, house.head().await).await.len(), 1);
}

/// Where a warehouse's files are, with their lengths.
fn files_below(folder: &std::path::Path, found: &mut Vec<(String, u64)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        match metadata.is_dir() {
            true => files_below(&entry.path(), found),
            false => found.push((entry.path().display().to_string(), metadata.len())),
        }
    }
}

#[tokio::test]
async fn what_a_burst_leaves_is_off_the_disk_after_a_day_and_an_hour() {
    let mut house = House::new().await;
    for _ in 0..60 {
        house.append(3, 1).await;
    }
    house.compact().await;
    let live = house.planned(&house.load().await.metadata, house.head().await).await;
    let live_bytes: u64 = live.iter().map(|file| file.bytes).sum();
    let root = house.catalog.storage().root().strip_prefix("file://").unwrap().to_owned();
    let metadata_bytes = |found: &[(String, u64)]| -> Vec<u64> {
        let metadata = found.iter().filter(|(file, _)| file.contains(".metadata.json"));
        metadata.map(|(_, bytes)| *bytes).collect()
    };
    let mut found = Vec::new();
    files_below(root.as_ref(), &mut found);
    let longest = metadata_bytes(&found).into_iter().max().unwrap();
    let expiry = SnapshotExpiry::new(&house.catalog);
    let all = RunRequest::default();
    // A day, and the hour of those who read an earlier snapshot by its id.
    for passed_ms in [24 * 3_600_000, 3_600_000] {
        house.clock.advance_ms(passed_ms);
        Box::pin(expiry.run(&all)).await.unwrap();
        while 0 < house.catalog.upkeep().delete_obsolete(1_000).await.unwrap() {}
    }
    let mut found = Vec::new();
    files_below(root.as_ref(), &mut found);
    let named = |part: &str| found.iter().filter(|(file, _)| file.contains(part)).count();
    let data = found.iter().filter(|(file, _)| file.contains(".parquet"));
    assert_eq!(data.map(|(_, bytes)| bytes).sum::<u64>(), live_bytes, "{found:?}");
    let snapshots = house.load().await.metadata.snapshots().len();
    assert!(snapshots <= 2, "the head, and the last of a day before");
    assert!(named(".metadata.json") <= 2, "{found:?}");
    let left: u64 = metadata_bytes(&found).into_iter().sum();
    assert!(left < longest, "none that names all of them: {found:?}");
    assert_eq!(named("/snap-"), snapshots, "{found:?}");
}

#[tokio::test]
async fn a_late_event_opens_a_closed_day_again() {
    let mut house = House::new().await;
    house.append(40, 1).await;
    house.append(40, 1).await;
    let mut job = CompactTables::new(house.compaction.clone());
    house.clock.advance_ms(3_600_000);
    while job.tick().await.unwrap() != Progress::Idle {}
    let files = async |house: &House| {
        let loaded = house.load().await;
        house.planned(&loaded.metadata, house.head().await).await.len()
    };
    assert_eq!(files(&house).await, 2 + 2, "two closed days have a file each, the open one two");
    house.append(40, 1).await;
    assert_eq!(files(&house).await, 7);
    while job.tick().await.unwrap() != Progress::Idle {}
    assert_eq!(files(&house).await, 7, "others may come");
    house.clock.advance_ms(3_600_000);
    while job.tick().await.unwrap() != Progress::Idle {}
    assert_eq!(files(&house).await, 2 + 3);
}

/// What others commit between the read and the commit of a compaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Between {
    Rows,
    DeletesByPlace,
    /// By places in several files.
    DeletesOfTwo,
    DeletesByValue,
    Upsert,
}

#[tokio::test]
async fn what_others_commit_meanwhile_is_kept() {
    for between in [
        Between::Rows,
        Between::DeletesByPlace,
        Between::DeletesOfTwo,
        Between::DeletesByValue,
        Between::Upsert,
    ] {
        let (faults, barrier) = Failpoints::meeting("compact.before_commit");
        let mut house = House::with(faults).await;
        for _ in 0..6 {
            house.append(30, 2).await;
        }
        let before = house.head_rows(house.head().await);
        let small = house.planned(&house.load().await.metadata, house.head().await).await;
        let compaction = house.compaction.clone();
        let run = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(compaction.run(&now()))
        });
        tokio::task::spawn_blocking({
            let barrier = Arc::clone(&barrier);
            move || barrier.wait()
        })
        .await
        .unwrap();
        match between {
            Between::Rows => {
                house.append(30, 2).await;
            }
            Between::DeletesByPlace => house.delete(&mut StdRng::seed_from_u64(3)).await,
            Between::DeletesOfTwo => house.delete_of_two().await,
            Between::DeletesByValue => house.delete_by_value(&[3, 50, 51], None).await,
            Between::Upsert => house.delete_by_value(&[3, 50], Some(50)).await,
        }
        let after = house.head_rows(house.head().await);
        assert_ne!(before, after);
        tokio::task::spawn_blocking(move || barrier.wait()).await.unwrap();
        let report = tokio::task::spawn_blocking(|| run.join().unwrap()).await.unwrap().unwrap();
        let loaded = house.load().await;
        let head = house.head().await;
        assert_eq!(house.read(&loaded.metadata, head).await, after, "{between:?} {report:?}");
        // A delete by value is one of all files, and of most it deletes nothing.
        let is_refusal = |it: &&SkippedTable| !it.reason.contains("delete nothing");
        let refusals = report.skipped.iter().filter(is_refusal).count();
        assert_eq!(refusals, 0, "{between:?} {report:?}");
        let files = house.planned(&loaded.metadata, head).await.len();
        assert_eq!(files, 6, "{between:?} {report:?}");
        let is_merge = |made: &&Arc<Snapshot>| made.summary().operation == Operation::Replace;
        let merges = loaded.metadata.snapshots().filter(is_merge).count();
        assert!(merges <= 4, "{between:?}: {merges} commits");
        if matches!(between, Between::DeletesByPlace | Between::DeletesOfTwo) {
            // What was written is committed with the deletes. These are carried out by the next step.
            let told = |made: &Snapshot, key: &str| -> usize {
                let entries = &made.summary().additional_properties;
                entries.get(key).map_or(0, |count| count.parse().unwrap())
            };
            let all = || loaded.metadata.snapshots().filter(is_merge);
            let replaced: usize = all().map(|made| told(made, "deleted-data-files")).sum();
            assert_eq!((merges, replaced), (2, small.len() + 1), "{between:?} {report:?}");
            let carried: usize = all().map(|made| told(made, "added-delete-files")).sum();
            let removed: usize = all().map(|made| told(made, "removed-delete-files")).sum();
            // One that is about several files is left.
            let expected = if between == Between::DeletesByPlace { 2 } else { 1 };
            assert_eq!((carried, removed), (1, expected), "{between:?} {report:?}");
            house.model.insert(head, after);
            house.check_sums().await;
        }
        house.check().await;
    }
}

/// Each time what was written for those of the time before is of no use, and no file of it is left.
#[tokio::test]
async fn deletes_that_come_while_others_are_carried_over_are_carried_over_too() {
    let (faults, barrier) = Failpoints::meetings("compact.before_commit", 2);
    let mut house = House::with(faults).await;
    for _ in 0..4 {
        house.append(30, 1).await;
    }
    let compaction = house.compaction.clone();
    let run = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(compaction.run(&now()))
    });
    let meet = || {
        let barrier = Arc::clone(&barrier);
        tokio::task::spawn_blocking(move || barrier.wait())
    };
    let mut after = RowCounts::new();
    for seed in [3, 4] {
        meet().await.unwrap();
        house.delete(&mut StdRng::seed_from_u64(seed)).await;
        after = house.head_rows(house.head().await);
        meet().await.unwrap();
    }
    let report = tokio::task::spawn_blocking(|| run.join().unwrap()).await.unwrap().unwrap();
    assert!(!report.skipped.iter().any(|it| it.reason.contains("is refused")), "{report:?}");
    let (loaded, head) = (house.load().await, house.head().await);
    assert_eq!(house.read(&loaded.metadata, head).await, after, "{report:?}");
    let merges = loaded.metadata.snapshots().map(|made| made.summary());
    let merges = merges.filter(|told| told.operation == Operation::Replace);
    let carried = merges.filter_map(|told| told.additional_properties.get("added-delete-files"));
    let carried: usize = carried.map(|count| count.parse::<usize>().unwrap()).sum();
    let files = house.data_files().await;
    // Those of the other engine have the name of their data file before.
    let is_own = |file: &&String| file.ends_with("-deletes.parquet") && !file.contains(".parquet-");
    assert_eq!(files.iter().filter(is_own).count(), carried, "{files:?}");
    assert!(0 < carried, "{report:?}");
    house.check().await;
}

/// The engine has read the files from before, and so has every older snapshot.
#[tokio::test]
async fn a_delete_that_was_begun_before_a_compaction_has_it_taken_back_and_made_anew() {
    for rows in [0, 30] {
        let mut house = House::new().await;
        for _ in 0..6 {
            house.append(30, 2).await;
        }
        let merged = house.delete_late(&mut StdRng::seed_from_u64(5), rows).await;
        house.check().await;
        let metadata = house.load().await.metadata;
        let apart = house.planned(&metadata, house.head().await).await.len();
        assert!(merged < apart, "{merged} files became {apart}");
        assert!(0 < house.compact().await.files.before);
        house.check().await;
    }
}

#[tokio::test]
async fn what_other_engines_did_to_rows_is_noted_by_the_next_step() {
    let mut house = House::new().await;
    house.append(30, 2).await;
    house.delete_by_value(&[3, 50], Some(50)).await;
    house.append(5, 2).await;
    house.compact().await;
    let uuid = house.load().await.metadata.uuid();
    let noted = house.catalog.metastore().row_account(uuid).await.unwrap().unwrap().1.checkpoint;
    let noted = noted.expect("the deletes are of another engine");
    assert_eq!(noted.foreign.minus(noted.removed).rows(), 0, "one went and one came: {noted:?}");
    assert_eq!(noted.rows.rows(), 30);
    house.check_sums().await;
}

/// Merged files have its values, so the delete reaches what it names and nothing else.
#[tokio::test]
async fn a_delete_by_a_column_that_was_dropped_reaches_no_other_rows() {
    let mut house = House::new().await;
    house.append(30, 2).await;
    let schemas = house.load().await.metadata;
    let schema = schemas.current_schema();
    let id = schema.highest_field_id() + 1;
    let own = NestedField::optional(id, "own", Type::Primitive(PrimitiveType::Long));
    let wider = schema.as_ref().clone().into_builder().with_fields([Arc::new(own)]).build();
    for schema in [wider.unwrap(), schema.as_ref().clone()] {
        let updates = vec![
            TableUpdate::AddSchema { schema },
            TableUpdate::SetCurrentSchema { schema_id: -1 },
        ];
        let (table, requirements) = (house.table.clone(), Vec::new());
        let change = TableChange { table, requirements, updates, keeps_history: true };
        house.catalog.commit(change).await.unwrap();
    }
    house.append(30, 2).await;
    assert_eq!(house.compact().await.files.before, 12);
    house.delete_by(id, &[1_000_000], None).await.unwrap();
    house.delete_by_value(&[3], None).await;
    house.check().await;
}

#[tokio::test]
async fn a_damaged_file_is_left_alone_and_the_others_are_merged() {
    let mut house = House::new().await;
    for _ in 0..6 {
        house.append(30, 1).await;
    }
    let damaged = house.damage_one().await;
    let report = house.compaction.run(&now()).await.unwrap();
    assert_eq!((report.files.before, report.files.after), (17, 3), "{report:?}");
    let is_named = |reason: &str| reason.contains("read files") && reason.contains(&damaged);
    assert!(report.skipped.iter().any(|it| is_named(&it.reason)), "{report:?}");
    let loaded = house.load().await;
    let left = house.planned(&loaded.metadata, house.head().await).await;
    assert!(left.len() == 4 && left.iter().any(|file| file.location == damaged));
}

/// A run by hand tries it once more.
#[tokio::test]
async fn a_damaged_file_is_not_read_again_each_hour() {
    let mut house = House::new().await;
    house.append_in_order(40).await;
    house.append_in_order(40).await;
    let damaged = house.damage_one().await;
    house.clock.advance_ms(3_600_000);
    let at_times = CompactHours::at_share(house.compaction.clone());
    let by_hand = CompactHours::at_full_speed(house.compaction.clone());
    for (hours, is_tried) in [(&at_times, true), (&at_times, false), (&by_hand, true)] {
        let report = hours.run(&RunRequest::default()).await.unwrap();
        let is_named = |reason: &str| reason.contains("read files") && reason.contains(&damaged);
        let found = report.skipped.iter().any(|it| is_named(&it.reason));
        assert_eq!((report.files.before, found), (0, is_tried), "{report:?}");
        house.clock.advance_ms(1_000);
    }
}

/// By the specification its rows are read twice.
#[tokio::test]
async fn a_file_that_is_live_twice_stays_as_it_is() {
    let mut house = House::new().await;
    for _ in 0..6 {
        house.append(30, 1).await;
    }
    let (loaded, rows) = (house.load().await, icecore_samples::events(30, 1, 181, 181));
    let storage = house.catalog.storage();
    let added = writer::write(storage, &loaded.metadata, vec![rows], &house.ids).await.unwrap();
    for _ in 0..2 {
        let append = NewSnapshot { added: added.clone(), ..NewSnapshot::default() };
        house.catalog.add_snapshot(&house.table, append).await.unwrap();
    }
    let before = house.read(&house.load().await.metadata, house.head().await).await;
    assert_eq!((before[&1], before[&181]), (1, 2));
    let report = house.compaction.run(&now()).await.unwrap();
    assert_eq!(report.files.before, 18, "{report:?}");
    assert!(report.skipped.iter().any(|it| it.reason.contains("live twice")), "{report:?}");
    assert_eq!(house.read(&house.load().await.metadata, house.head().await).await, before);
}

/// At its first visit or at a later one, which is of a later run where a run comes by once.
#[tokio::test]
async fn a_run_that_fails_anywhere_leaves_the_table_and_no_file() {
    let points = icecore_lake::faults::POINTS.iter().filter(|point| point.starts_with("compact."));
    for point in points {
        for skip in 0..2 {
            let faults = Failpoints::parse(&format!("{point}=error@{skip}")).unwrap();
            let mut house = House::with(faults).await;
            let mut failures = 0;
            // One of them fails, and the one after it does not.
            for _ in 0..2 + skip {
                for _ in 0..5 {
                    house.append(30, 1).await;
                }
                let before = house.data_files().await;
                let rows = house.head_rows(house.head().await);
                let ended = house.compaction.run(&now()).await;
                let has_failed = ended.map_or(true, |report| !report.skipped.is_empty());
                failures += usize::from(has_failed);
                let (loaded, head) = (house.load().await, house.head().await);
                assert_eq!(house.read(&loaded.metadata, head).await, rows, "{point}");
                let operation = &loaded.metadata.current_snapshot().unwrap().summary().operation;
                if *operation != Operation::Replace {
                    assert!(has_failed, "{point}");
                    assert_eq!(house.data_files().await.len(), before.len(), "{point}");
                }
                house.model.insert(head, rows);
            }
            assert_eq!(failures, 1, "{point} after {skip}");
            let (loaded, head) = (house.load().await, house.head().await);
            assert_eq!(house.planned(&loaded.metadata, head).await.len(), 3, "{point}");
            house.check().await;
        }
    }
}

#[tokio::test]
async fn a_snapshot_that_is_thinned_before_the_commit_costs_the_work_and_no_more() {
    let (faults, barrier) = Failpoints::meeting("compact.before_commit");
    let mut house = House::with(faults).await;
    for _ in 0..6 {
        house.append(30, 1).await;
    }
    let (read, files) = (house.head().await, house.data_files().await);
    let compaction = house.compaction.clone();
    let run = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(compaction.run(&now()))
    });
    let meet = || {
        let barrier = Arc::clone(&barrier);
        tokio::task::spawn_blocking(move || barrier.wait())
    };
    meet().await.unwrap();
    house.thin().await;
    assert!(house.load().await.metadata.snapshot_by_id(read).is_none());
    meet().await.unwrap();
    let report = tokio::task::spawn_blocking(|| run.join().unwrap()).await.unwrap().unwrap();
    assert_eq!(report.files.before, 0, "{report:?}");
    assert!(report.skipped.iter().all(|it| it.reason.contains("is gone")), "{report:?}");
    assert_eq!(house.data_files().await.len(), files.len());
    let now_ms = house.clock.passed_ms();
    assert!(house.compaction.noted().is_resting(&house.table, now_ms), "the job waits");
    assert_eq!(house.compact().await.files.before, 18);
    house.check().await;
    assert!(!house.compaction.noted().is_resting(&house.table, now_ms));
}

#[tokio::test]
async fn a_store_that_refuses_a_file_ends_the_step_of_its_table_alone() {
    let mut house = House::new().await;
    for _ in 0..6 {
        house.append(30, 1).await;
    }
    let location = house.load().await.metadata.location().to_owned();
    let data = format!("{}/data", location.strip_prefix("file://").unwrap());
    // Ids count on after the clock stepped back: the folder of the next file is known.
    house.clock.jump_ms(-5_000);
    let folders = loop {
        let last = house.ids.mint().0;
        let next: Vec<String> =
            (1..5).map(|n| format!("{data}/{:02x}", (last + n) & 0xff)).collect();
        if next.iter().all(|folder| !std::path::Path::new(folder).exists()) {
            break next;
        }
    };
    folders.iter().for_each(|folder| std::fs::write(folder, "").unwrap());
    let report = house.compaction.run(&now()).await.unwrap();
    assert_eq!(report.files.before, 0, "{report:?}");
    assert!(report.skipped[0].reason.contains("store data file"), "{report:?}");
    let mut job = CompactTables::new(house.compaction.clone());
    assert_eq!(job.tick().await.unwrap(), Progress::Idle, "it is tried again later");
    folders.iter().for_each(|folder| std::fs::remove_file(folder).unwrap());
    house.clock.advance_ms(60_000);
    assert_eq!(house.compact().await.files.before, 18);
    house.check().await;
}

#[tokio::test]
async fn delete_files_that_delete_nothing_have_no_file_written_anew() {
    let mut house = House::new().await;
    for _ in 0..5 {
        house.append(30, 1).await;
    }
    house.compact().await;
    for _ in 0..4 {
        house.delete_by_value(&[1_000_000], None).await;
    }
    let version = house.load().await.version;
    let report = house.compaction.run(&now()).await.unwrap();
    assert_eq!((report.files.before, house.load().await.version), (0, version), "{report:?}");
    assert!(report.skipped.iter().any(|it| it.reason.contains("delete nothing")), "{report:?}");
    house.delete_by_value(&[3], None).await;
    house.clock.advance_ms(1_000);
    assert_eq!(house.compact().await.files.before, 1, "one file has the row");
    house.check().await;
}

/// A client that adds files by their paths looks at the newest snapshot alone.
#[tokio::test]
async fn a_merged_file_is_not_added_again() {
    let mut house = House::new().await;
    for _ in 0..2 {
        house.append(30, 1).await;
    }
    let metadata = house.load().await.metadata;
    let merged = house.planned(&metadata, house.head().await).await.remove(0);
    house.compact().await;
    let metadata = house.load().await.metadata;
    let head = metadata.current_snapshot().unwrap();
    let file = DataFileBuilder::default()
        .content(DataContentType::Data)
        .file_path(merged.location.clone())
        .file_format(DataFileFormat::Parquet)
        .partition(merged.partition.clone())
        .partition_spec_id(merged.spec_id)
        .record_count(merged.rows)
        .file_size_in_bytes(merged.bytes)
        .build()
        .unwrap();
    let again = [file.clone(), house.renamed(&metadata, &file).await];
    for (file, is_refused) in again.into_iter().zip([true, false]) {
        let id = head.snapshot_id() + 1 + i64::from(is_refused);
        let mut data = house.manifest(&metadata, id, "data").build_v2_data();
        data.add_file(file, -1).unwrap();
        let mut list = house.manifests(&metadata, head).await;
        list.push(data.write_manifest_file().await.unwrap());
        let added = house.put_snapshot(&metadata, head, id, list).await;
        match added {
            Err(CatalogError::Invalid(text)) if is_refused => {
                assert!(text.contains("has a name that this server gives"), "{text}");
            }
            added => assert!(added.is_ok() && !is_refused, "{added:?}"),
        }
    }
}

#[tokio::test]
async fn a_share_of_a_processor_is_enough() {
    let options = CompactionOptions { cpu_share: 0.5, ..OPTIONS };
    let mut house = House::with_options(Failpoints::default(), options).await;
    for _ in 0..5 {
        house.append(30, 1).await;
    }
    let files = async |house: &House| {
        let loaded = house.load().await;
        house.planned(&loaded.metadata, house.head().await).await.len()
    };
    // Somebody sends events: without them the share would be all of a processor.
    house.compaction.0.load.note_ack(std::time::Duration::from_millis(1));
    // For a run by hand it does not rest, and what it owes is left.
    let by_hand = HandRun::begin(&house.compaction.0.hand_runs);
    let (table, pace) = (house.table.clone(), house.compaction.pace(0.5));
    let apart =
        house.compaction.step_apart(table, CompactionRequest::steady(), i64::MIN, pace).await;
    let (pace, step) = apart.unwrap();
    drop(by_hand);
    assert!(step.unwrap().is_tried && !pace.owed.is_zero(), "{pace:?}");
    assert_eq!(files(&house).await, 3);
    for _ in 0..5 {
        house.append(30, 1).await;
    }
    assert_eq!(files(&house).await, 18);
    let mut job = CompactTables::new(house.compaction.clone());
    while job.tick().await.unwrap() != Progress::Idle {}
    assert_eq!(files(&house).await, 3);
}

#[tokio::test]
async fn days_that_are_over_are_merged_at_a_share_of_a_processor() {
    let options = CompactionOptions { cpu_share: 0.5, ..OPTIONS };
    let mut house = House::with_options(Failpoints::default(), options).await;
    house.append(40, 1).await;
    house.append(40, 1).await;
    let days = CompactDays::at_share(house.compaction.clone());
    let dry = RunRequest { dry_run: true, ..RunRequest::default() };
    let would = days.run(&dry).await.unwrap();
    assert_eq!((would.files.before, would.files.after), (4, 2), "not those of the open day");
    let done = days.run(&RunRequest::default()).await.unwrap();
    assert_eq!((done.job.as_str(), done.tables), ("compact-day", 1));
    assert_eq!((done.files.before, done.files.after), (4, 2));
    house.check().await;
    let again = days.run(&RunRequest::default()).await.unwrap();
    assert_eq!((again.tables, again.files.before), (0, 0));
}

#[tokio::test]
async fn files_of_hours_that_are_over_are_merged_in_the_open_day_too() {
    let mut house = House::new().await;
    let today_us = icecore_samples::START_US + 2 * 86_400_000_000;
    let run = async |house: &mut House| {
        let rows = house.head_rows(house.head().await);
        let hours = CompactHours::at_share(house.compaction.clone());
        let done = hours.run(&RunRequest::default()).await.unwrap();
        assert_eq!((done.job.as_str(), done.errors), ("compact-hour", 0), "{done:?}");
        let head = house.head().await;
        house.model.insert(head, rows);
        house.check().await;
        (done.files.before, done.files.after)
    };
    house.append_from(today_us, 40).await;
    house.append_from(today_us, 40).await;
    assert_eq!(run(&mut house).await, (0, 0), "the hour is not over");
    house.clock.advance_ms(3_600_000);
    house.append_from(today_us, 40).await;
    assert_eq!(run(&mut house).await, (2, 1), "the third one is of this hour");
    house.clock.advance_ms(3_600_000);
    assert_eq!(run(&mut house).await, (0, 0), "80 rows are not written anew for 40");
    house.append_from(today_us, 40).await;
    house.clock.advance_ms(3_600_000);
    assert_eq!(run(&mut house).await, (3, 1));
    house.check_sums().await;
}

#[tokio::test]
async fn files_of_other_engines_are_merged_by_hand_alone() {
    let mut house = House::new().await;
    house.append(40, 1).await;
    for seq in 3..9 {
        house.delete_by_value(&[seq], Some(seq)).await;
    }
    let foreign = async |house: &House| {
        let loaded = house.load().await;
        let live = house.live(&loaded.metadata, loaded.metadata.current_snapshot().unwrap()).await;
        live.iter().filter(|file| file.ends_with("-again.parquet")).count()
    };
    let by_time = CompactDays::at_share(house.compaction.clone());
    let left = by_time.run(&RunRequest::default()).await.unwrap();
    let told = "files of other engines are merged by hand alone";
    assert!(left.skipped.iter().any(|it| it.reason == told), "{left:?}");
    assert_eq!(foreign(&house).await, 6);
    let by_hand = CompactDays::at_full_speed(house.compaction.clone());
    let done = by_hand.run(&RunRequest::default()).await.unwrap();
    assert!(done.skipped.iter().all(|it| it.reason != told), "{done:?}");
    assert!(foreign(&house).await < 6, "those of days that are over are merged");
    house.check().await;
}

#[tokio::test]
async fn nothing_is_done_on_a_disk_without_room() {
    let options = CompactionOptions { disk_free_min: 1.0, ..OPTIONS };
    let mut house = House::with_options(Failpoints::default(), options).await;
    for _ in 0..5 {
        house.append(30, 1).await;
    }
    let version = house.load().await.version;
    let mut job = CompactTables::new(house.compaction.clone());
    let is_told = |reason: &str| {
        reason.contains(" MiB of the warehouse's disk are free, and ")
            && reason.ends_with(" are needed: 1.2 x wal.disk_free_min and 256 MiB")
    };
    let skipped = job.tick().await.unwrap();
    assert!(matches!(&skipped, Progress::Skipped(reason) if is_told(reason)), "{skipped:?}");
    for dry_run in [true, false] {
        let request = CompactionRequest { dry_run, ..now() };
        let report = house.compaction.run(&request).await.unwrap();
        assert_eq!(report.files.before == 0, !dry_run);
        assert!(report.skipped.iter().any(|it| is_told(&it.reason)), "{report:?}");
    }
    assert_eq!(house.load().await.version, version);
}

/// Whatever is done in whatever order: each retained snapshot has the rows that it had, and nothing but
/// what retained snapshots need is left.
async fn check_sequence(seed: u64, steps: usize) {
    let mut house = House::new().await;
    let mut random = StdRng::seed_from_u64(seed);
    house.append(20, 2).await;
    let mut tags = 0;
    for step in 0..steps {
        match random.random_range(0..12) {
            0..=4 => {
                house.append(random.random_range(1..40), 2).await;
            }
            5 => {
                let highest = i64::try_from(house.seq).unwrap();
                let seqs = [random.random_range(1..=highest), random.random_range(1..=highest)];
                house.delete_by_value(&seqs, None).await;
            }
            6 => house.delete(&mut random).await,
            7 => {
                let rows = random.random_range(0..5);
                house.delete_late(&mut random, rows).await;
            }
            8..=9 => {
                house.compact().await;
            }
            10 => {
                tags += 1;
                let name = format!("t{tags}");
                let made = house.catalog.refs().create(&house.table, &name, RefKind::Tag, None);
                made.await.unwrap();
            }
            _ if step % 3 == 0 => house.thin().await,
            _ => house.clock.advance_ms(3_600_000),
        }
        house.check().await;
        house.check_sums().await;
    }
    house.thin().await;
    house.check().await;
    let loaded = house.load().await;
    let mut needed = BTreeSet::new();
    for snapshot in loaded.metadata.snapshots() {
        needed.extend(house.live(&loaded.metadata, snapshot).await);
    }
    let left: BTreeSet<String> = house.data_files().await.into_iter().collect();
    let lost: Vec<&String> = needed.difference(&left).collect();
    assert!(lost.is_empty(), "{seed}: {lost:?}");
    let useless: Vec<&String> = left.difference(&needed).collect();
    assert!(useless.is_empty(), "{seed}: {useless:?}");
}

#[tokio::test]
async fn random_sequences_keep_every_retained_snapshot() {
    let (sequences, steps) = match std::env::var_os("LARGE") {
        Some(_) => (300, 60),
        None => (1, 20),
    };
    for seed in 0..sequences {
        check_sequence(seed, steps).await;
    }
}
