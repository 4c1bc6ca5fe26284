use super::*;
use arrow::{
    array::{ArrayRef, RecordBatch, StringArray},
    datatypes::{DataType, Field},
};
use async_trait::async_trait;
use bytes::Bytes;
use datafusion::{
    datasource::{listing::PartitionedFile, physical_plan::ParquetFileReaderFactory},
    execution::cache::DefaultFilesMetadataCache,
    logical_expr::{col, lit},
    object_store::{
        CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectStoreExt,
        PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult,
        memory::InMemory,
    },
    physical_plan::metrics::ExecutionPlanMetricsSet,
};
use futures::stream::BoxStream;
use iceberg::spec::NestedField;
use parquet::{
    arrow::{ArrowWriter, PARQUET_FIELD_ID_META_KEY, arrow_reader::ArrowReaderOptions},
    file::{metadata::PageIndexPolicy, properties::WriterProperties},
};
use std::{
    collections::HashMap,
    fmt,
    sync::atomic::{AtomicUsize, Ordering},
};

fn columns() -> Schema {
    let kinds = [("id", PrimitiveType::String), ("n", PrimitiveType::Long)];
    let fields = kinds
        .into_iter()
        .zip(1..)
        .map(|((name, kind), id)| Arc::new(NestedField::optional(id, name, Type::Primitive(kind))));
    Schema::builder().with_fields(fields).build().unwrap()
}

fn lookups(filter: Expr) -> Vec<Lookup> {
    let schema = iceberg::arrow::schema_to_arrow_schema(&columns()).unwrap();
    Lookup::all(&[filter], &columns(), &schema)
}

fn one_of(values: &[&str]) -> Vec<Lookup> {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    vec![Lookup { field_id: 1, values }]
}

#[test]
fn only_conditions_that_every_row_has_to_meet_are_look_ups() {
    let is = |value: &str| col("id").eq(lit(value));
    for (filter, expected) in [
        (is("a"), one_of(&["a"])),
        (lit("a").eq(col("id")), one_of(&["a"])),
        (is("a").and(col("n").gt(lit(1_i64))), one_of(&["a"])),
        (is("a").or(is("b")), one_of(&["a", "b"])),
        (col("id").in_list(vec![lit("a"), lit("b")], false), one_of(&["a", "b"])),
        (is("a").or(col("n").eq(lit(1_i64))), vec![]),
        (col("id").in_list(vec![lit("a"), lit("b")], true), vec![]),
        (col("id").in_list(vec![lit("a"), col("n")], false), vec![]),
        (col("id").not_eq(lit("a")), vec![]),
        (!is("a"), vec![]),
        (col("id").gt(lit("a")), vec![]),
        (col("id").eq(lit(ScalarValue::Utf8(None))), vec![]),
        (col("n").eq(lit(1_i64)), vec![]),
        (col("strange").eq(lit("a")), vec![]),
    ] {
        assert_eq!(lookups(filter.clone()), expected, "{filter}");
    }
    let many = (0..=VALUES_MAX).map(|n| lit(n.to_string())).collect();
    assert_eq!(lookups(col("id").in_list(many, false)), vec![]);
}

/// A file with these ids in row groups of two, whose column has this field id.
fn file(ids: &[Option<&str>], field_id: &str, with_filters: bool) -> Vec<u8> {
    let metadata = HashMap::from([(PARQUET_FIELD_ID_META_KEY.to_owned(), field_id.to_owned())]);
    let field = Field::new("id", DataType::Utf8, true).with_metadata(metadata);
    let array: ArrayRef = Arc::new(StringArray::from(ids.to_vec()));
    let schema = Arc::new(ArrowSchema::new(vec![field]));
    let rows = RecordBatch::try_new(Arc::clone(&schema), vec![array]).unwrap();
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(2))
        .set_bloom_filter_fpp(1e-6)
        .set_bloom_filter_enabled(with_filters)
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties)).unwrap();
    writer.write(&rows).unwrap();
    writer.into_inner().unwrap()
}

/// Whether each of the values may be in the file; asked twice, with and without the filters kept.
async fn found(bytes: Vec<u8>, values: &[&str]) -> Vec<bool> {
    let (store, kept) = (InMemory::new(), BloomFilters::default());
    let location = Key::from("t/data/x.parquet");
    store.put(&location, bytes.into()).await.unwrap();
    let meta = store.head(&location).await.unwrap();
    let cache: Arc<dyn FileMetadataCache> = Arc::new(DefaultFilesMetadataCache::new(1 << 20));
    let source = FooterSource { store: &store, cache: &cache, bytes_first: 64 };
    let mut answers = Vec::new();
    for value in values {
        answers.push(kept.may_have(source, &meta, &one_of(&[value])).await);
    }
    store.delete(&location).await.unwrap();
    for (value, answer) in values.iter().zip(&answers) {
        assert_eq!(kept.may_have(source, &meta, &one_of(&[value])).await, *answer, "{value}");
    }
    answers
}

#[tokio::test]
async fn a_file_is_left_out_by_the_bloom_filters_of_all_its_row_groups() {
    let ids = [Some("a"), None, Some("b"), Some(""), Some("ü")];
    let values = ["a", "b", "", "ü", "absent", "A"];
    let answers = found(file(&ids, "1", true), &values).await;
    assert_eq!(answers, [true, true, true, true, false, false]);
    // Nothing is known of a column without them, or of one that the file does not have under its id.
    for bytes in [file(&ids, "1", false), file(&ids, "7", true)] {
        assert_eq!(found(bytes, &["absent"]).await, [true]);
    }
}

#[tokio::test]
async fn a_file_tells_whether_it_has_bloom_filters_of_a_column() {
    let with = file(&[Some("a"), None, Some("b")], "1", true);
    let (without, of_another) = (file(&[Some("a")], "1", false), file(&[Some("a")], "7", true));
    for (bytes, expected) in [(with, true), (without, false), (of_another, false)] {
        let (store, kept) = (InMemory::new(), BloomFilters::default());
        let location = Key::from("t/data/x.parquet");
        store.put(&location, bytes.into()).await.unwrap();
        let meta = store.head(&location).await.unwrap();
        let cache: Arc<dyn FileMetadataCache> = Arc::new(DefaultFilesMetadataCache::new(1 << 20));
        let source = FooterSource { store: &store, cache: &cache, bytes_first: 64 };
        assert_eq!(kept.are_in(source, &meta, &one_of(&["absent"])).await, expected);
        let unknown = Lookup { field_id: 2, values: Vec::new() };
        assert!(!kept.are_in(source, &meta, &[unknown]).await);
        assert!(!kept.are_in(source, &meta, &[]).await);
    }
}

#[tokio::test]
async fn a_file_that_does_not_read_is_left_to_its_reader() {
    let mut bytes = file(&[Some("a")], "1", true);
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(b"none");
    let (store, kept) = (InMemory::new(), BloomFilters::default());
    let location = Key::from("t/data/x.parquet");
    store.put(&location, bytes.into()).await.unwrap();
    let meta = store.head(&location).await.unwrap();
    let cache: Arc<dyn FileMetadataCache> = Arc::new(DefaultFilesMetadataCache::new(1 << 20));
    let source = FooterSource { store: &store, cache: &cache, bytes_first: 64 };
    assert!(kept.may_have(source, &meta, &one_of(&["absent"])).await);
}

/// Counts how often it is read.
#[derive(Debug, Default)]
struct CountedStore {
    files: InMemory,
    requests: AtomicUsize,
}

impl fmt::Display for CountedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CountedStore")
    }
}

#[async_trait]
impl ObjectStore for CountedStore {
    async fn get_opts(&self, path: &Key, options: GetOptions) -> StoreResult<GetResult> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.files.get_opts(path, options).await
    }

    async fn get_ranges(&self, path: &Key, ranges: &[Range<u64>]) -> StoreResult<Vec<Bytes>> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.files.get_ranges(path, ranges).await
    }

    async fn put_opts(
        &self,
        path: &Key,
        payload: PutPayload,
        options: PutOptions,
    ) -> StoreResult<PutResult> {
        self.files.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Key,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.files.put_multipart_opts(path, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, StoreResult<Key>>,
    ) -> BoxStream<'static, StoreResult<Key>> {
        self.files.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.files.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Key>) -> StoreResult<ListResult> {
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Key, to: &Key, options: CopyOptions) -> StoreResult<()> {
        self.files.copy_opts(from, to, options).await
    }
}

/// Requests of a first look-up in a file, and of another one after it.
async fn requests(bytes_first: usize) -> (usize, usize) {
    let (store, kept) = (CountedStore::default(), BloomFilters::default());
    let location = Key::from("t/data/x.parquet");
    let bytes = file(&[Some("a"), None, Some("b")], "1", true);
    store.files.put(&location, bytes.into()).await.unwrap();
    let meta = store.files.head(&location).await.unwrap();
    let cache: Arc<dyn FileMetadataCache> = Arc::new(DefaultFilesMetadataCache::new(1 << 20));
    let source = FooterSource { store: &store, cache: &cache, bytes_first };
    assert!(kept.may_have(source, &meta, &one_of(&["b"])).await);
    let first = store.requests.load(Ordering::Relaxed);
    assert!(!kept.may_have(source, &meta, &one_of(&["c"])).await);
    (first, store.requests.load(Ordering::Relaxed) - first)
}

#[tokio::test]
async fn a_cold_file_takes_a_request_for_its_end_and_one_for_its_filters() {
    assert_eq!(requests(256 << 10).await, (2, 0));
    // Length, footer and page index apart.
    let (first, again) = requests(8).await;
    assert!(3 < first && again == 0, "{first} {again}");
}

#[tokio::test]
async fn a_file_that_was_opened_is_opened_again_without_a_request() {
    let store = Arc::new(CountedStore::default());
    let location = Key::from("t/data/x.parquet");
    let bytes = file(&[Some("a"), None, Some("b")], "1", true);
    store.files.put(&location, bytes.into()).await.unwrap();
    let meta = store.files.head(&location).await.unwrap();
    let cache: Arc<dyn FileMetadataCache> = Arc::new(DefaultFilesMetadataCache::new(1 << 20));
    let readers = footers::FooterReaders::new(Arc::clone(&store) as Arc<dyn ObjectStore>, cache);
    // DataFusion asks for the page index apart, when it has seen that a filter may use it.
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Skip);
    for _ in 0..2 {
        let opened = PartitionedFile::new_from_meta(meta.clone());
        let metrics = ExecutionPlanMetricsSet::new();
        let mut reader = readers.create_reader(0, opened, Some(256 << 10), &metrics).unwrap();
        let footer = reader.get_metadata(Some(&options)).await.unwrap();
        assert!(footer.column_index().is_some() && footer.offset_index().is_some());
        assert_eq!(store.requests.load(Ordering::Relaxed), 1);
    }
}
