use super::*;
use crate::{
    clock::Clock,
    table::{
        compaction::{group::GroupRewrite, live_files, planned_files},
        deletes::RowDeletes,
        lake::TestLake,
        promoted::{PROMOTED_PATHS, PathRequests},
        schema::{BLOOM_FILTERS, MANAGED, ident},
        writer,
    },
};
use arrow::{
    array::{Array, ArrayRef, TimestampMicrosecondArray, new_null_array},
    compute::concat,
};
use icecore_samples::{self as sample, START_US, texts};
use icecore_schemas::{columns::EVENTS, names::Namespace};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};

/// Rows of a file: more than a page has, so that there is an index of pages.
const ROWS: usize = 11_000;

fn with_column(rows: &RecordBatch, name: &str, column: ArrayRef) -> RecordBatch {
    let mut columns = rows.columns().to_vec();
    columns[rows.schema().index_of(name).unwrap()] = column;
    RecordBatch::try_new(rows.schema(), columns).unwrap()
}

/// Events of one type and day, one a microsecond from the `first` on.
fn events(first: i64, count: usize) -> RecordBatch {
    events_from(START_US + first, first, count)
}

/// The same from this time and `seq` on.
fn events_from(first_us: i64, first: i64, count: usize) -> RecordBatch {
    let rows = sample::events(count, 1, first, first.unsigned_abs());
    let times = (first_us..).take(count);
    let times = TimestampMicrosecondArray::from_iter_values(times).with_timezone("+00:00");
    with_column(&rows, "ts", Arc::new(times))
}

struct EventLake {
    lake: TestLake,
    ids: IdGenerator,
}

impl EventLake {
    fn new() -> Self {
        let new = sample::events_table();
        let mut lake = TestLake::new(new.schema, new.partition_spec.unwrap());
        let order = new.file_order.unwrap();
        lake.change(|builder| builder.add_sort_order(order));
        Self { lake, ids: IdGenerator::new(Clock::manual(1_772_323_200_000)) }
    }

    /// Commits rows as one file.
    async fn add(&mut self, rows: RecordBatch) -> DataFile {
        let Self { lake, ids } = self;
        let files = writer::write(&lake.storage, &lake.metadata, vec![rows], ids).await.unwrap();
        let [file] = files.as_slice() else { panic!("{} files", files.len()) };
        lake.commit(files.clone()).await;
        file.clone()
    }

    /// Writes all files anew, in the way that is right for them.
    async fn compact(&self) -> Result<RewrittenFiles, RewriteError> {
        let source = self.lake.source();
        let id = self.lake.metadata.current_snapshot_id().unwrap();
        let live = live_files(source, id).await.unwrap();
        let locations = live.iter().map(|file| file.location.as_str()).collect();
        let (files, deletes) = planned_files(source, id, &locations).await.unwrap();
        let deletes = RowDeletes::read(source, deletes, &files).await.unwrap();
        let input = RewriteInput { source, files: &files, deletes: &deletes };
        let mut work = GroupRewrite::open(input, &self.ids).await?;
        while work.step().await? {}
        work.finish().await
    }

    async fn bytes(&self, file: &DataFile) -> Bytes {
        self.lake.storage.get(file.file_path()).await.unwrap()
    }
}

/// The rows of a file.
fn read(bytes: Bytes) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
    let schema = Arc::clone(reader.schema());
    let rows: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
    arrow::compute::concat_batches(&schema, &rows).unwrap()
}

fn footer(bytes: &Bytes) -> ParquetMetaData {
    let reader = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Required);
    reader.parse_and_finish(bytes).unwrap()
}

/// An optional column that has values in these rows.
fn optional_column(rows: &RecordBatch) -> &'static str {
    let has_values = |name: &str| {
        let column = rows.column_by_name(name).unwrap();
        column.null_count() < column.len()
    };
    let mut columns = EVENTS.iter().filter(|column| !column.required);
    columns.find(|column| has_values(column.name)).unwrap().name
}

#[tokio::test]
async fn row_groups_are_copied_with_all_that_belongs_to_them() {
    let mut house = EventLake::new();
    let first = 1_i64;
    let rows = events(first, ROWS);
    let lacking = optional_column(&rows);
    let nulls = new_null_array(rows.column_by_name(lacking).unwrap().data_type(), ROWS);
    // The later file comes first, and lacks a column.
    let later = with_column(&events(first + 1_000_000, ROWS), lacking, nulls);
    let later = house.add(later).await;
    let earlier = house.add(rows).await;

    let done = house.compact().await.unwrap();
    assert_eq!(done.way, RewriteWay::Copied);
    assert_eq!((done.files, done.rows, done.deleted_rows), (2, 2 * ROWS as u64, 0));
    assert_eq!(done.rows_sum.map(RowSum::rows), Some(2 * ROWS as i64));
    let [added] = done.added.as_slice() else { panic!("{:?}", done.added) };
    assert_eq!(added.record_count(), 2 * ROWS as u64);
    assert_eq!(added.sort_order_id(), earlier.sort_order_id());
    assert!(added.sort_order_id().is_some() && added.partition() == earlier.partition());
    for (id, nulls) in added.null_value_counts() {
        let before = [&earlier, &later].map(|file| file.null_value_counts()[id]);
        assert_eq!(before.iter().sum::<u64>(), *nulls, "column {id}");
    }
    for (id, lower) in earlier.lower_bounds() {
        let other = later.lower_bounds().get(id);
        let least = other.filter(|other| *other < lower).unwrap_or(lower);
        assert_eq!(added.lower_bounds().get(id), Some(least), "column {id}");
    }

    let bytes = house.bytes(added).await;
    let (found, one, other) =
        (read(bytes.clone()), read(house.bytes(&earlier).await), read(house.bytes(&later).await));
    for field in found.schema().fields() {
        let parts = [&one, &other].map(|rows| {
            let column = rows.column_by_name(field.name()).cloned();
            column.unwrap_or_else(|| new_null_array(field.data_type(), ROWS))
        });
        let parts: Vec<&dyn Array> = parts.iter().map(|part| part.as_ref()).collect();
        let expected = concat(&parts).unwrap();
        assert_eq!(found.column_by_name(field.name()), Some(&expected), "{}", field.name());
    }
    assert!(one.schema().fields().iter().all(|field| found.column_by_name(field.name()).is_some()));
    assert!(other.column_by_name(lacking).is_none(), "`{lacking}` is left out there");
    check_footer(&bytes, added, &footer(&house.bytes(&earlier).await), &found);
}

/// What a footer of copied row groups has, beside that of the first file.
fn check_footer(bytes: &Bytes, added: &DataFile, first: &ParquetMetaData, rows: &RecordBatch) {
    let copied = footer(bytes);
    let groups = copied.num_row_groups();
    assert_eq!(added.split_offsets().map(<[i64]>::len), Some(groups));
    let before = first.row_group(0);
    let after = copied.row_group(0);
    assert_eq!(after.sorting_columns().map(Vec::len), before.sorting_columns().map(Vec::len));
    for chunk in before.columns() {
        let mut columns = after.columns().iter();
        let same = columns.find(|it| it.column_path() == chunk.column_path()).unwrap();
        assert_eq!(same.compressed_size(), chunk.compressed_size(), "{}", chunk.column_path());
        assert_eq!(same.statistics(), chunk.statistics(), "{}", chunk.column_path());
        let has_filter = chunk.bloom_filter_offset().is_some();
        assert_eq!(same.bloom_filter_offset().is_some(), has_filter, "{}", chunk.column_path());
    }
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).unwrap();
    for name in BLOOM_FILTERS {
        let Ok(at) = reader.schema().index_of(name) else { continue };
        let filters: Vec<_> = (0..groups)
            .filter_map(|group| reader.get_row_group_column_bloom_filter(group, at).unwrap())
            .collect();
        let values = texts(rows, name);
        let is_found = |value: &str| filters.iter().any(|filter| filter.check(value));
        assert!(filters.len() < groups || values.iter().flatten().all(is_found), "`{name}`");
    }
}

#[tokio::test]
async fn files_whose_rows_do_not_follow_one_another_are_merged() {
    let mut house = EventLake::new();
    house.add(events(1, ROWS)).await;
    house.add(events(5_000, ROWS)).await;
    let done = house.compact().await.unwrap();
    let RewriteWay::NotCopied(reason) = done.way else { panic!("{:?}", done.way) };
    assert_eq!(reason, "the rows of the files overlap in the table's sort order");
    assert_eq!(done.rows, 2 * ROWS as u64);
}

#[tokio::test]
async fn rows_of_the_same_time_follow_one_another_by_seq() {
    for (seq, is_in_order) in [(100, true), (1, false)] {
        let mut house = EventLake::new();
        house.add(events(50, 10)).await;
        // Its first row is of the same time as the last one above.
        house.add(events_from(START_US + 59, seq, 10)).await;
        let files = house.lake.plan().await.files;
        assert_eq!(in_order(&house.lake.metadata, &files).is_ok(), is_in_order, "{seq}");
    }
}

#[tokio::test]
async fn small_row_groups_are_merged() {
    let mut house = EventLake::new();
    house.add(events(1, 50)).await;
    house.add(events(100, 50)).await;
    let done = house.compact().await.unwrap();
    assert_eq!(done.way, RewriteWay::NotCopied("row groups have less than 1 MiB"));
    assert!(done.bytes_added() < done.bytes, "{} of {}", done.bytes_added(), done.bytes);
}

#[tokio::test]
async fn files_without_the_column_of_a_path_are_merged() {
    let mut house = EventLake::new();
    house.add(events(1, ROWS)).await;
    house.add(events(1_000_000, ROWS)).await;
    let properties = [(MANAGED, "true"), (PROMOTED_PATHS, "data.amount:double")];
    let properties = properties.map(|(key, value)| (key.to_owned(), value.to_owned()));
    house.lake.change(|builder| builder.set_properties(properties.into()));
    let asked = PathRequests::of(&house.lake.metadata).unwrap();
    let ident = ident(&Namespace::parse("a").unwrap(), "events");
    let change = asked.add_to(&ident, &house.lake.metadata).unwrap();
    let mut updates = change.updates.into_iter();
    house.lake.change(|builder| updates.try_fold(builder, |builder, update| update.apply(builder)));
    let done = house.compact().await.unwrap();
    assert_eq!(done.way, RewriteWay::NotCopied("a file lacks the column of a promoted path"));
}

/// The table was made today, long after the rows.
#[tokio::test]
async fn days_that_are_over_are_in_z_order_where_the_table_asks_for_it() {
    // That of one column is its plain order.
    for (columns, is_plain) in [("id,seq", false), ("id", true)] {
        let mut house = EventLake::new();
        let property = [("icecore.compaction.zorder".to_owned(), columns.to_owned())];
        house.lake.change(|builder| builder.set_properties(property.into()));
        let rows = [events(1, 60), events(1_000, 60)];
        for rows in &rows {
            house.add(rows.clone()).await;
        }
        let done = house.compact().await.unwrap();
        assert_eq!(
            done.way,
            RewriteWay::NotCopied("the table asks for another order of days that are over")
        );
        let [added] = done.added.as_slice() else { panic!("{:?}", done.added) };
        // The table declares no order by these columns.
        assert_eq!((added.record_count(), added.sort_order_id()), (120, None));
        let found = read(house.bytes(added).await);
        let ids: Vec<&str> = texts(&found, "id").iter().flatten().collect();
        assert_eq!(ids.is_sorted(), is_plain, "{columns}");
        let seqs = |rows: &RecordBatch| sample::longs(rows, "seq").values().to_vec();
        let expected: Vec<i64> = rows.iter().flat_map(seqs).collect();
        let mut found = seqs(&found);
        assert_ne!(found, expected, "another order");
        found.sort_unstable();
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn a_damaged_file_is_named_and_nothing_is_written() {
    let mut house = EventLake::new();
    house.add(events(1, ROWS)).await;
    let damaged = house.add(events(1_000_000, ROWS)).await;
    let mut bytes = house.bytes(&damaged).await.to_vec();
    let at = footer(&bytes.clone().into());
    let chunk = at.row_group(0).columns().iter().find(|chunk| chunk.column_path().string() == "id");
    let middle = chunk.unwrap().byte_range();
    bytes[usize::try_from(middle.0 + middle.1 / 2).unwrap()] ^= 0x10;
    house.lake.storage.put(damaged.file_path(), bytes.into()).await.unwrap();
    let refused = house.compact().await;
    let Err(cause) = refused else { panic!("{refused:?}") };
    assert_eq!(cause.data_files(), [damaged.file_path()], "{cause:?}");
    let data = format!("{}/data", house.lake.metadata.location());
    assert_eq!(house.lake.storage.list(&data).await.unwrap().len(), 2);
}
