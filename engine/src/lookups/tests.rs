use super::*;
use arrow::{
    array::{ArrayRef, RecordBatch, StringArray},
    datatypes::{DataType, Field},
};
use datafusion::{
    execution::cache::DefaultFilesMetadataCache,
    logical_expr::{col, lit},
    object_store::{ObjectStoreExt, memory::InMemory},
};
use iceberg::spec::NestedField;
use parquet::{
    arrow::{ArrowWriter, PARQUET_FIELD_ID_META_KEY},
    file::properties::WriterProperties,
};
use std::collections::HashMap;

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
        .set_bloom_filter_enabled(with_filters)
        .set_bloom_filter_fpp(1e-6)
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
