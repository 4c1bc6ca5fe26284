use super::{FileLayout, WriteError, align, sorted::SortedWriter, write, write_as};
use crate::{
    clock::Clock,
    event::rows,
    ids::IdGenerator,
    table::{
        partition::{self, FIELD_ID, field_id},
        schema::{self, BLOOM_FILTERS, UNBOUNDED},
    },
};
use arrow::{
    array::{Array, ArrayRef, AsArray, StringArray, new_null_array},
    compute::{cast, concat_batches, lexsort_to_indices, take_record_batch},
    datatypes::{DataType, Float64Type, Int64Type},
    record_batch::RecordBatch,
};
use bytes::Bytes;
use iceberg::spec::{
    DataContentType, DataFile, DataFileFormat, Datum, FormatVersion, Literal, NestedField,
    PrimitiveLiteral, PrimitiveType, Schema, TableMetadata, TableMetadataBuilder, Type,
};
use icecore_catalog::storage::{S3Options, Storage};
use icecore_samples::{self as sample, longs, texts, times};
use icecore_schemas::columns::EVENTS;
use parquet::{
    arrow::arrow_reader::{
        ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
    },
    basic::{Compression, Encoding},
    file::metadata::{PageIndexPolicy, ParquetMetaData},
};
use std::{collections::HashSet, sync::Arc};
use tempfile::TempDir;

struct Fixture {
    folder: TempDir,
    storage: Storage,
    ids: IdGenerator,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = format!("file://{}", folder.path().display());
        let storage = Storage::open(&root, &S3Options::default()).unwrap();
        Self { folder, storage, ids: IdGenerator::new(Clock::manual(1_772_323_200_000)) }
    }

    fn events_table(&self) -> TableMetadata {
        sample::metadata(sample::events_table(), &format!("{}/ns/events-1", self.storage.root()))
    }

    async fn write(&self, table: &TableMetadata, batches: Vec<RecordBatch>) -> Vec<DataFile> {
        write(&self.storage, table, batches, &self.ids).await.unwrap()
    }

    /// As a table would be written that wants files of this size.
    async fn write_cut(&self, rows: &RecordBatch, file_bytes: usize) -> Vec<DataFile> {
        let layout = FileLayout { file_bytes, ..FileLayout::of(&self.events_table()) };
        write_as(&self.storage, layout, vec![rows.clone()], &self.ids).await.unwrap().files
    }

    async fn bytes(&self, file: &DataFile) -> Bytes {
        self.storage.get(file.file_path()).await.unwrap()
    }

    async fn rows(&self, file: &DataFile) -> RecordBatch {
        read(self.bytes(file).await)
    }
}

/// The rows of a file, with null in the columns that it lacks.
fn read(bytes: Bytes) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
    let schema = Arc::clone(reader.schema());
    let batches: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
    let rows = concat_batches(&schema, &batches).unwrap();
    let wanted = rows::event_schema();
    let columns = wanted.fields().iter().map(|field| match rows.column_by_name(field.name()) {
        Some(column) => cast(column, field.data_type()).unwrap(),
        None => new_null_array(field.data_type(), rows.num_rows()),
    });
    RecordBatch::try_new(Arc::clone(&wanted), columns.collect()).unwrap()
}

fn metadata(bytes: &Bytes) -> Arc<ParquetMetaData> {
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
    Arc::clone(ArrowReaderMetadata::load(bytes, options).unwrap().metadata())
}

fn by_seq(rows: &RecordBatch) -> RecordBatch {
    let column = arrow::compute::SortColumn {
        values: Arc::clone(rows.column_by_name("seq").unwrap()),
        options: None,
    };
    take_record_batch(rows, &lexsort_to_indices(&[column], None).unwrap()).unwrap()
}

fn assert_same_rows(found: &[RecordBatch], expected: &RecordBatch) {
    let found = by_seq(&concat_batches(&found[0].schema(), found).unwrap());
    let expected = by_seq(expected);
    assert_eq!(found.num_rows(), expected.num_rows());
    for (index, field) in expected.schema().fields().iter().enumerate() {
        let column = cast(found.column_by_name(field.name()).unwrap(), field.data_type()).unwrap();
        assert_eq!(&column, expected.column(index), "column `{}`", field.name());
    }
}

#[tokio::test]
async fn every_row_is_read_back_from_the_file_of_its_partition_in_order() {
    let fixture = Fixture::new();
    let table = fixture.events_table();
    let batches: Vec<RecordBatch> =
        (0..5).map(|n| sample::events(400, 4, 1 + n * 400, n as u64)).collect();
    let expected = concat_batches(&batches[0].schema(), &batches).unwrap();
    let files = fixture.write(&table, batches).await;
    assert_eq!(files.len(), 4 * 3);
    let partitions: HashSet<_> =
        files.iter().map(|file| format!("{:?}", file.partition())).collect();
    assert_eq!(partitions.len(), files.len());
    let mut found = Vec::new();
    for file in &files {
        let rows = fixture.rows(file).await;
        let order: Vec<(i64, i64)> = (0..rows.num_rows())
            .map(|row| (times(&rows, "ts").value(row), longs(&rows, "seq").value(row)))
            .collect();
        assert!(order.is_sorted());
        let day = i32::try_from(order[0].0.div_euclid(sample::DAY_US)).unwrap();
        let kind = texts(&rows, "type").value(0);
        let values = [Some(Literal::string(kind)), Some(Literal::date(day))];
        assert_eq!(file.partition().fields(), values);
        found.push(rows);
    }
    assert_same_rows(&found, &expected);
}

#[tokio::test]
async fn a_partition_longer_than_a_file_should_be_becomes_several_in_order() {
    let fixture = Fixture::new();
    let wanted = |bytes: &str| {
        let property = [("write.target-file-size-bytes".to_owned(), bytes.to_owned())];
        let builder = fixture.events_table().into_builder(None);
        builder.set_properties(property.into()).unwrap().build().unwrap().metadata
    };
    let rows = sample::events(4_000, 1, 1, 5);
    let usual = fixture.write(&wanted("not a number"), vec![rows.clone()]).await.len();
    // No wish makes a file of every row.
    for few in ["1", "128", "65536"] {
        let files = fixture.write(&wanted(few), vec![rows.clone()]).await;
        assert_eq!(files.len(), usual, "{few}");
    }
    let files = fixture.write_cut(&rows, 65_536).await;
    assert!(3 * usual <= files.len(), "{} files instead of {usual}", files.len());
    let mut found: Vec<RecordBatch> = Vec::new();
    let mut last = None;
    for file in &files {
        // What a row takes in memory and in a file differs, but not by so much.
        assert!(file.file_size_in_bytes() < 4 * 65_536, "{} bytes", file.file_size_in_bytes());
        let rows = fixture.rows(file).await;
        assert_eq!(file.record_count(), rows.num_rows() as u64);
        for row in 0..rows.num_rows() {
            let place = (times(&rows, "ts").value(row), longs(&rows, "seq").value(row));
            let place = Some((format!("{:?}", file.partition()), place));
            assert!(last.as_ref().is_none_or(|(of, at)| {
                place.as_ref().is_some_and(|(by, now)| of != by || at < now)
            }));
            last = place;
        }
        for name in ["id", "ts", "seq"] {
            let id = EVENTS.iter().find(|column| column.name == name).unwrap().id.unwrap();
            let column = rows.column_by_name(name).unwrap();
            let (lower, upper) = (file.lower_bounds().get(&id), file.upper_bounds().get(&id));
            check_bounds(column.as_ref(), lower, upper);
        }
        found.push(rows);
    }
    assert_same_rows(&found, &rows);
    // One row is a file of its own at least, and there are not more than a commit can bear.
    let least = fixture.write_cut(&rows.slice(0, 7), 1).await;
    assert_eq!(least.len(), 7);
    let most = fixture.write_cut(&rows, 1).await;
    assert!(most.len() <= 64 * usual, "{} files", most.len());
}

#[tokio::test]
async fn a_file_is_described_as_it_is() {
    let fixture = Fixture::new();
    let table = fixture.events_table();
    for file in fixture.write(&table, vec![sample::events(300, 2, 1, 1)]).await {
        let bytes = fixture.bytes(&file).await;
        let metadata = metadata(&bytes);
        assert_eq!(file.content_type(), DataContentType::Data);
        assert_eq!(file.file_format(), DataFileFormat::Parquet);
        assert_eq!(file.file_size_in_bytes(), bytes.len() as u64);
        assert_eq!(
            file.record_count(),
            u64::try_from(metadata.file_metadata().num_rows()).unwrap()
        );
        assert_eq!(file.sort_order_id(), Some(1));
        let group = metadata.row_group(0);
        let (first, _) = group.column(0).byte_range();
        assert_eq!(file.split_offsets(), Some([i64::try_from(first).unwrap()].as_slice()));
        let rows = fixture.rows(&file).await;
        let mut chunks = group.columns().iter();
        for (id, column) in (1..).zip(EVENTS) {
            let values = rows.column_by_name(column.name).unwrap();
            if values.null_count() == values.len() {
                assert_eq!(file.column_sizes().get(&id), None, "{}", column.name);
                assert_eq!(file.null_value_counts()[&id], values.len() as u64);
                continue;
            }
            let chunk = chunks.next().unwrap();
            let size = u64::try_from(chunk.compressed_size()).unwrap();
            assert_eq!(file.column_sizes()[&id], size, "{}", column.name);
            let info = chunk.column_descr().self_type().get_basic_info();
            assert_eq!((info.id(), info.name()), (id, column.name));
        }
        assert!(chunks.next().is_none());
        let order = group.sorting_columns().unwrap();
        assert_eq!(order.iter().map(|by| by.column_idx).collect::<Vec<_>>(), [2, 4]);
        assert!(metadata.file_metadata().key_value_metadata().is_none());
    }
}

#[tokio::test]
async fn counts_and_bounds_agree_with_the_rows() {
    let fixture = Fixture::new();
    let table = fixture.events_table();
    for file in fixture.write(&table, vec![sample::events(120, 20, 1, 3)]).await {
        let rows = fixture.rows(&file).await;
        for (id, column) in (1..).zip(EVENTS) {
            let array = rows.column_by_name(column.name).unwrap();
            assert_eq!(file.value_counts()[&id], rows.num_rows() as u64);
            assert_eq!(file.null_value_counts()[&id], array.null_count() as u64);
            let lower = file.lower_bounds().get(&id);
            let upper = file.upper_bounds().get(&id);
            if UNBOUNDED.contains(&column.name) || array.null_count() == array.len() {
                assert_eq!((lower, upper), (None, None), "{}", column.name);
            } else {
                check_bounds(array.as_ref(), lower, upper);
            }
        }
        let durations = rows.column_by_name("duration_ms").unwrap().as_primitive::<Float64Type>();
        let nans = durations.iter().flatten().filter(|value| value.is_nan()).count();
        let id = EVENTS.iter().find(|column| column.name == "duration_ms").unwrap().id.unwrap();
        assert_eq!(file.nan_value_counts()[&id], nans as u64);
    }
}

#[track_caller]
fn check_bounds(array: &dyn Array, lower: Option<&Datum>, upper: Option<&Datum>) {
    let literal = |bound: Option<&Datum>| bound.map(|datum| datum.literal().clone());
    match array.data_type() {
        DataType::Utf8 => {
            let Some(PrimitiveLiteral::String(lower)) = literal(lower) else { panic!("{lower:?}") };
            let texts = array.as_string::<i32>();
            assert!(texts.iter().flatten().all(|text| lower.as_str() <= text));
            match literal(upper) {
                Some(PrimitiveLiteral::String(upper)) => {
                    assert!(texts.iter().flatten().all(|text| text <= upper.as_str()));
                }
                None => assert!(texts.iter().flatten().max().unwrap().starts_with('\u{10ffff}')),
                other => panic!("{other:?}"),
            }
        }
        DataType::Float64 => {
            let numbers = array.as_primitive::<Float64Type>();
            let numbers: Vec<f64> = numbers.iter().flatten().filter(|n| !n.is_nan()).collect();
            let of = |literal: Option<PrimitiveLiteral>| match literal {
                Some(PrimitiveLiteral::Double(value)) => Some(value.0),
                _ => None,
            };
            assert_eq!(of(literal(lower)), numbers.iter().copied().reduce(f64::min));
            assert_eq!(of(literal(upper)), numbers.iter().copied().reduce(f64::max));
        }
        _ => {
            let numbers = cast(&array.slice(0, array.len()), &DataType::Int64).unwrap();
            let numbers = numbers.as_primitive::<Int64Type>();
            let of = |literal: Option<PrimitiveLiteral>| match literal {
                Some(PrimitiveLiteral::Long(value)) => Some(value),
                Some(PrimitiveLiteral::Int(value)) => Some(value.into()),
                Some(PrimitiveLiteral::Boolean(value)) => Some(value.into()),
                _ => None,
            };
            assert_eq!(of(literal(lower)), numbers.iter().flatten().min());
            assert_eq!(of(literal(upper)), numbers.iter().flatten().max());
        }
    }
}

#[tokio::test]
async fn bloom_filters_hold_every_value_and_few_others() {
    let fixture = Fixture::new();
    let table = fixture.events_table();
    let files = fixture.write(&table, vec![sample::events(3_000, 1, 1, 4)]).await;
    for file in &files {
        let bytes = fixture.bytes(file).await;
        let rows = read(bytes.clone());
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
        for column in BLOOM_FILTERS {
            let values = texts(&rows, column);
            let Ok(index) = reader.schema().index_of(column) else {
                assert_eq!(values.null_count(), values.len(), "`{column}` is not written");
                continue;
            };
            let chunk = reader.metadata().row_group(0).column(index).compressed_size();
            let bloom = reader.get_row_group_column_bloom_filter(0, index).unwrap();
            let Some(bloom) = bloom else {
                assert!(*column != "id", "ids differ, and take more than their filter");
                continue;
            };
            let bytes = i64::try_from(bloom.num_blocks() * 32).unwrap();
            assert!(bytes < chunk, "the filter of `{column}` has {bytes} of {chunk} bytes");
            assert!(values.iter().flatten().all(|value| bloom.check(value)));
            let wrong = (0..10_000).filter(|n| bloom.check(format!("absent-{n}").as_str()));
            assert!(wrong.count() < 300, "`{column}` lets more than 3 % through");
        }
    }
}

#[tokio::test]
async fn bounded_columns_of_files_with_many_pages_have_page_statistics() {
    let fixture = Fixture::new();
    let table = fixture.events_table();
    let rows = sample::events(70_000, 1, 1, 5);
    let narrow: Vec<usize> = (0..7).collect();
    let files = fixture.write(&table, vec![rows.project(&narrow).unwrap()]).await;
    for file in files {
        let metadata = metadata(&fixture.bytes(&file).await);
        let pages = metadata.offset_index().unwrap()[0][4].page_locations().len();
        assert!(1 < pages, "{} rows in one page", file.record_count());
        let columns = &metadata.column_index().unwrap()[0];
        for (index, column) in EVENTS.iter().take(6).enumerate() {
            let has_pages = columns[index].null_counts().is_some_and(|pages| 1 < pages.len());
            assert!(has_pages, "`{}` has no page statistics", column.name);
        }
        let seq = metadata.row_group(0).column(4);
        assert!(seq.encodings().any(|encoding| encoding == Encoding::DELTA_BINARY_PACKED));
        // A column of one value too: what is not compressed has no checksum.
        for column in metadata.row_group(0).columns() {
            assert!(matches!(column.compression(), Compression::ZSTD(_)));
        }
    }
}

/// Rows of the log as a client's smallest events make them.
fn plain_events(count: i64) -> RecordBatch {
    let all = sample::events(usize::try_from(count).unwrap(), 1, 1, 7);
    let columns = all.schema_ref().fields().iter().zip(all.columns()).map(|(field, column)| {
        let texts = |text: &dyn Fn(i64) -> String| -> ArrayRef {
            Arc::new((0..count).map(|row| Some(text(row))).collect::<StringArray>())
        };
        match field.name().as_str() {
            "ns" | "type" => texts(&|_| "page.view".to_owned()),
            "meta" => texts(&|row| format!("{{\"source\":\"service-{}\"}}", row % 9)),
            "data" => texts(&|row| format!("{{\"n\":{}}}", row * 7919)),
            "id" | "ts" | "seq" | "ingested_at" => Arc::clone(column),
            _ => new_null_array(column.data_type(), column.len()),
        }
    });
    RecordBatch::try_new(all.schema(), columns.collect()).unwrap()
}

#[tokio::test]
async fn a_file_of_one_row_is_small() {
    let fixture = Fixture::new();
    let table = fixture.events_table();
    let files = fixture.write(&table, vec![plain_events(1)]).await;
    let [file] = files.as_slice() else { panic!("{files:?}") };
    let bytes = file.file_size_in_bytes();
    assert!(bytes < 2_200, "{bytes} bytes");
    assert_eq!(fixture.rows(file).await.num_rows(), 1);
}

#[tokio::test]
async fn only_columns_whose_values_repeat_have_dictionaries_and_only_bounded_ones_statistics() {
    let fixture = Fixture::new();
    let table = fixture.events_table();
    let files = fixture.write(&table, vec![plain_events(3_000)]).await;
    for file in &files {
        let metadata = metadata(&fixture.bytes(file).await);
        assert!(metadata.offset_index().is_none(), "one page needs no index");
        for chunk in metadata.row_group(0).columns() {
            let name = chunk.column_path().string();
            let repeats = ["type", "ns", "meta"].contains(&name.as_str());
            assert_eq!(chunk.dictionary_page_offset().is_some(), repeats, "{name}");
            let bounded = !UNBOUNDED.contains(&name.as_str());
            assert_eq!(chunk.statistics().is_some(), bounded, "{name}");
        }
    }
}

#[tokio::test]
async fn paths_are_opaque_and_lie_in_the_tables_data_folder() {
    let fixture = Fixture::new();
    let table = fixture.events_table();
    let files = fixture.write(&table, vec![sample::events(50, 9, 1, 6)]).await;
    let prefix = format!("{}/data/", table.location());
    let mut seen = HashSet::new();
    for file in files {
        let path = file.file_path().strip_prefix(&prefix).unwrap().to_owned();
        let (folder, name) = path.split_once('/').unwrap();
        assert!(folder.len() == 2 && folder.chars().all(|c| c.is_ascii_hexdigit()), "{path}");
        let name = name.strip_suffix(".parquet").unwrap();
        assert!(name.len() == 26 && name.chars().all(|c| c.is_ascii_alphanumeric()), "{path}");
        assert!(seen.insert(path));
    }
}

#[tokio::test]
async fn nothing_is_written_for_no_rows() {
    let fixture = Fixture::new();
    let table = fixture.events_table();
    assert_eq!(fixture.write(&table, Vec::new()).await, []);
    assert_eq!(fixture.write(&table, vec![sample::events(0, 1, 1, 1)]).await, []);
}

#[tokio::test]
async fn a_failed_write_leaves_no_files() {
    let fixture = Fixture::new();
    let table = fixture.events_table();
    let data = fixture.folder.path().join("ns/events-1/data");
    // Every other folder cannot be made, and a write takes one for its first files and another for
    // the rest: some fail at once, some with files stored, some not at all.
    std::fs::create_dir_all(&data).unwrap();
    for n in (0..=0xff_u32).filter(|n| n % 2 == 1) {
        std::fs::write(data.join(format!("{n:02x}")), "not a folder").unwrap();
    }
    let (mut written, mut failed) = (0, 0);
    for round in 0..40 {
        // Ids count up, and an even number of them for each write would take folders of one kind.
        (0..round).for_each(|_| {
            let _skipped = fixture.ids.mint();
        });
        let rows = vec![sample::events(300, 30, 1, 1)];
        match write(&fixture.storage, &table, rows, &fixture.ids).await {
            Ok(files) => written += files.len(),
            Err(error) => {
                assert!(matches!(error, WriteError::Store(_)), "{error:?}");
                failed += 1;
            }
        }
        let stored = fixture.storage.list(&format!("{}/data", table.location())).await.unwrap();
        let stored = stored.iter().filter(|file| file.ends_with(".parquet")).count();
        assert_eq!(stored, written, "nothing is left of a write that failed");
        if failed == 4 {
            return;
        }
    }
    panic!("no write failed often enough: {failed}");
}

/// `events` as another engine may have changed it: a column more, one less, one renamed, one
/// promoted.
fn evolved(table: TableMetadata) -> TableMetadata {
    let mut fields: Vec<NestedField> = Vec::new();
    for field in table.current_schema().as_struct().fields() {
        let mut field = NestedField::clone(field);
        match field.name.as_str() {
            "url" => continue,
            "source" => field.name = "origin".to_owned(),
            "status_code" => *field.field_type = Type::Primitive(PrimitiveType::Long),
            _ => (),
        }
        fields.push(field);
    }
    let text = Type::Primitive(PrimitiveType::String);
    fields.push(NestedField::optional(900, "theirs", text));
    let fields = fields.into_iter().map(Arc::new);
    let schema = Schema::builder().with_fields(fields).with_schema_id(1).build().unwrap();
    let builder: TableMetadataBuilder = table.into_builder(None);
    let metadata = builder.add_schema(schema).unwrap().set_current_schema(-1).unwrap();
    metadata.build().unwrap().metadata
}

#[tokio::test]
async fn changes_that_other_engines_made_to_the_columns_are_followed() {
    let fixture = Fixture::new();
    let table = evolved(fixture.events_table());
    assert_eq!(table.format_version(), FormatVersion::V2);
    let rows = sample::events(10, 1, 1, 1);
    let aligned = align(table.current_schema(), std::slice::from_ref(&rows)).unwrap();
    assert_eq!(aligned.column_by_name("origin"), rows.column_by_name("source"));
    assert!(aligned.column_by_name("url").is_none());
    assert!(aligned.column_by_name("theirs").is_none());
    let status = aligned.schema().field_with_name("status_code").unwrap().clone();
    assert_eq!((status.data_type(), field_id(&status)), (&DataType::Int64, Some(43)));
    let files = fixture.write(&table, vec![rows]).await;
    assert_eq!(files.iter().map(DataFile::record_count).sum::<u64>(), 10);
}

#[test]
fn columns_without_field_ids_are_matched_by_name() {
    let rows = sample::events(5, 1, 1, 1);
    let fields: Vec<_> = rows
        .schema()
        .fields()
        .iter()
        .map(|field| field.as_ref().clone().with_metadata([].into()))
        .collect();
    let plain = Arc::new(arrow::datatypes::Schema::new(fields));
    let plain = RecordBatch::try_new(plain, rows.columns().to_vec()).unwrap();
    let table = sample::metadata(sample::events_table(), "file:///warehouse/table");
    let aligned = align(table.current_schema(), &[plain]).unwrap();
    assert_eq!(aligned.columns(), rows.columns());
    assert_eq!(aligned.schema().field(3).metadata()[FIELD_ID], "4");
}

#[test]
fn the_tables_keep_their_field_ids_and_partition_names() {
    for (new, ids, names) in [
        (sample::events_table(), 1..=55, vec![(1000, "type"), (1001, "dt")]),
        (sample::dead_letters_table(), 1..=13, vec![(1000, "dt")]),
    ] {
        let table = sample::metadata(new, "file:///warehouse/table");
        let fields = table.current_schema().as_struct().fields();
        assert!(fields.iter().map(|field| field.id).eq(ids));
        let spec = table.default_partition_spec();
        let found: Vec<_> =
            spec.fields().iter().map(|field| (field.field_id, field.name.as_str())).collect();
        assert_eq!(found, names);
        assert_eq!(table.properties()[schema::MANAGED], "true");
    }
}

/// Rows in the order of partitions and of the table in each.
fn in_order(table: &TableMetadata, rows: &RecordBatch) -> RecordBatch {
    let layout = FileLayout::of(table);
    let rows = align(&layout.schema, std::slice::from_ref(rows)).unwrap();
    partition::split(&layout, &rows).unwrap().rows
}

/// As a table would be written that wants files of this size, in row groups of this size.
async fn write_sorted(
    fixture: &Fixture,
    rows: &RecordBatch,
    (group_bytes, file_bytes): (usize, usize),
) -> Result<(Vec<DataFile>, usize), WriteError> {
    let layout = FileLayout { file_bytes, ..FileLayout::of(&fixture.events_table()) };
    let mut writer = SortedWriter::within(&fixture.storage, layout, &fixture.ids, group_bytes);
    for start in (0..rows.num_rows()).step_by(300) {
        writer.write(&rows.slice(start, 300.min(rows.num_rows() - start))).await?;
    }
    let held = writer.held_max();
    Ok((writer.finish().await?, held))
}

#[tokio::test]
async fn sorted_rows_become_files_of_the_wanted_length_and_few_are_held() {
    let fixture = Fixture::new();
    let rows = in_order(&fixture.events_table(), &sample::events(4_000, 2, 1, 5));
    let bytes: usize = rows.columns().iter().map(|column| column.get_array_memory_size()).sum();
    let (group, file) = (bytes / 100, bytes / 50);
    let (files, held) = write_sorted(&fixture, &rows, (group, file)).await.unwrap();
    assert!(held <= file + 4 * group, "{held} of {bytes} bytes were held");
    assert!(2 * 3 < files.len(), "{} files", files.len());
    let mut found = Vec::new();
    let mut groups = 0;
    for described in &files {
        assert!(described.file_size_in_bytes() <= 2 * file as u64);
        let bytes = fixture.bytes(described).await;
        groups += metadata(&bytes).num_row_groups();
        let rows = read(bytes);
        assert_eq!(described.record_count(), rows.num_rows() as u64);
        let order: Vec<(i64, i64)> = (0..rows.num_rows())
            .map(|row| (times(&rows, "ts").value(row), longs(&rows, "seq").value(row)))
            .collect();
        assert!(order.is_sorted());
        assert_eq!(described.sort_order_id(), Some(1));
        let (low, high) = (order[0].0, order[order.len() - 1].0);
        assert_eq!(described.lower_bounds()[&3], Datum::timestamptz_micros(low));
        assert_eq!(described.upper_bounds()[&3], Datum::timestamptz_micros(high));
        let seqs = longs(&rows, "seq");
        let lowest = seqs.values().iter().min().unwrap();
        assert_eq!(described.lower_bounds()[&5], Datum::long(*lowest));
        let nulls = rows.column_by_name("actor").unwrap().null_count();
        assert_eq!(described.null_value_counts()[&11], nulls as u64);
        found.push(rows);
    }
    assert!(files.len() < groups, "files have several row groups");
    assert_same_rows(&found, &rows);
    // As one file each, they are what a flush makes of the partitions.
    let (files, _) = write_sorted(&fixture, &rows, (1 << 30, 1 << 30)).await.unwrap();
    assert_eq!(files.len(), 2 * 3);
}

#[tokio::test]
async fn columns_that_will_have_no_values_are_counted_and_not_written() {
    let fixture = Fixture::new();
    let table = fixture.events_table();
    let rows = in_order(&table, &sample::events(200, 1, 1, 5));
    let fields = || rows.schema_ref().fields().iter().zip(rows.columns());
    let empty = fields().filter(|(_, column)| column.null_count() == column.len());
    let empty: HashSet<i32> = empty.filter_map(|(field, _)| field_id(field)).collect();
    assert!(!empty.is_empty());
    let mut sizes = Vec::new();
    for left_out in [HashSet::new(), empty.clone()] {
        let layout = FileLayout::of(&table);
        let mut writer = SortedWriter::new(&fixture.storage, layout, &fixture.ids)
            .without_values(left_out.clone());
        writer.write(&rows).await.unwrap();
        let files = writer.finish().await.unwrap();
        for file in &files {
            assert!(empty.iter().all(|id| file.null_value_counts()[id] == file.record_count()));
            assert!(left_out.iter().all(|id| !file.column_sizes().contains_key(id)));
            let kept = fixture.rows(file).await;
            assert_eq!(kept.num_rows() as u64, file.record_count());
        }
        sizes.push(files.iter().map(DataFile::file_size_in_bytes).sum::<u64>());
    }
    assert!(sizes[1] < sizes[0], "{sizes:?}");

    let full = fields().find(|(field, column)| field.is_nullable() && column.null_count() == 0);
    let wrong = HashSet::from([field_id(full.unwrap().0).unwrap()]);
    let layout = FileLayout::of(&table);
    let mut writer =
        SortedWriter::new(&fixture.storage, layout, &fixture.ids).without_values(wrong);
    // A file is encoded once its rows are complete: with the rows that come after it, or at the end.
    let refused = match writer.write(&rows).await {
        Ok(()) => writer.finish().await,
        Err(cause) => Err(cause),
    };
    assert!(matches!(refused, Err(WriteError::Split(_))), "{refused:?}");
}

#[tokio::test]
async fn rows_out_of_order_are_an_error_and_leave_no_files() {
    let fixture = Fixture::new();
    let rows = in_order(&fixture.events_table(), &sample::events(3_000, 1, 1, 6));
    let swapped = concat_batches(&rows.schema(), &[rows.slice(300, 300), rows.slice(0, 300)]);
    let swapped = write_sorted(&fixture, &swapped.unwrap(), (10_000, 10_000)).await;
    let error = format!("{:?}", swapped.unwrap_err());
    assert!(error.contains("do not come in the table's order"), "{error}");
    let left = fixture.storage.list(fixture.events_table().location()).await.unwrap();
    assert_eq!(left, Vec::<String>::new());
}
