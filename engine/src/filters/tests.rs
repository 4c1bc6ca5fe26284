use super::*;
use arrow::{array::RecordBatch, datatypes::SchemaRef};
use datafusion::{execution::context::SessionContext, logical_expr::LogicalPlan};
use iceberg::spec::{NestedField, Type};
use icecore_catalog::scan::json;
use std::sync::Arc;

fn columns() -> Schema {
    let kinds = [
        ("i", PrimitiveType::Int),
        ("l", PrimitiveType::Long),
        ("s", PrimitiveType::String),
        ("t", PrimitiveType::Timestamptz),
        ("d", PrimitiveType::Date),
        ("f", PrimitiveType::Double),
        ("b", PrimitiveType::Boolean),
    ];
    let fields = kinds
        .into_iter()
        .zip(1..)
        .map(|((name, kind), id)| Arc::new(NestedField::optional(id, name, Type::Primitive(kind))));
    Schema::builder().with_fields(fields).build().unwrap()
}

/// The filter that reaches a scan, after DataFusion has simplified it.
async fn reaching(schema: &SchemaRef, condition: &str) -> Filter {
    let session = SessionContext::new();
    session.register_udf(buckets::function());
    session.register_batch("events", RecordBatch::new_empty(Arc::clone(schema))).unwrap();
    let plan = session.sql(&format!("SELECT s FROM events WHERE {condition}")).await.unwrap();
    let mut plan = plan.into_optimized_plan().unwrap();
    loop {
        match &plan {
            LogicalPlan::Filter(filter) => {
                return translate(&filter.predicate, &columns(), schema);
            }
            LogicalPlan::EmptyRelation(_) => return Filter::False,
            _ => plan = plan.inputs()[0].clone(),
        }
    }
}

#[tokio::test]
async fn conditions_are_translated_as_far_as_they_say_something() {
    let schema = iceberg::arrow::schema_to_arrow_schema(&columns()).unwrap();
    let schema = datafusion::datasource::file_format::parquet::transform_schema_to_view(&schema);
    let schema = Arc::new(schema);
    let compared = |kind: &str, term: &str, value: serde_json::Value| {
        serde_json::json!({"type": kind, "term": term, "value": value}).to_string()
    };
    for (condition, expected) in [
        ("s = 'a'", compared("eq", "s", "a".into())),
        ("'a' < s", compared("gt", "s", "a".into())),
        ("s LIKE 'ab%'", compared("starts-with", "s", "ab".into())),
        ("NOT (i = 5)", compared("not-eq", "i", 5.into())),
        ("l >= 5", compared("gt-eq", "l", 5.into())),
        ("b", compared("eq", "b", true.into())),
        ("NOT b", compared("not-eq", "b", true.into())),
        ("t < '2026-01-01'", compared("lt", "t", "2026-01-01T00:00:00.000000+00:00".into())),
        ("d = DATE '2026-01-02'", compared("eq", "d", "2026-01-02".into())),
        ("i IS NULL", serde_json::json!({"type": "is-null", "term": "i"}).to_string()),
        ("length(s) = 3", "true".to_owned()),
    ] {
        let filter = reaching(&schema, condition).await;
        assert_eq!(json::write(&filter).to_string(), expected, "{condition} is {filter:?}");
    }
    let of_bucket = Term::column(&columns(), "s", true).unwrap();
    let of_bucket = of_bucket.transformed(Transform::Bucket(4)).unwrap();
    let check = ValueCheck::Compare(Comparison::Equal, Datum::int(3));
    let filter = reaching(&schema, "bucket(4, s) = 3").await;
    assert_eq!(filter, test(of_bucket.clone(), check));
    let filter = reaching(&schema, "bucket(4, s) IN (0, 1, 2, 3)").await;
    let check = ValueCheck::In((0..4).map(Datum::int).collect());
    assert_eq!(filter, test(of_bucket, check));
    for condition in ["length(s) = 3", "NOT (length(s) = 3)", "length(s) = 3 OR i = 5"] {
        let filter = reaching(&schema, condition).await;
        let text = format!("{filter:?}");
        assert!(text.contains("Unknown"), "{condition} is {text}");
        assert_ne!(filter, Filter::True, "{condition}");
    }
}

#[tokio::test]
async fn what_is_compared_or_matched_has_a_value_whatever_else_is_known() {
    let schema = Arc::new(iceberg::arrow::schema_to_arrow_schema(&columns()).unwrap());
    let some_value = |name: &str| {
        let term = Term::column(&columns(), name, true).unwrap();
        test(term, ValueCheck::NotNull).and(Filter::Unknown)
    };
    for (condition, expected) in [
        ("s LIKE '%b%'", some_value("s")),
        ("s NOT LIKE '%b%'", some_value("s")),
        ("s NOT LIKE 'a_b'", some_value("s")),
        ("s ILIKE 'a%b'", some_value("s")),
        ("f > 5.5", some_value("f")),
        ("f <> 5.5", some_value("f")),
        ("s LIKE '%b%' OR f > 5.5", some_value("s").or(some_value("f"))),
    ] {
        assert_eq!(reaching(&schema, condition).await, expected, "{condition}");
    }
    // These are true of rows without a value.
    for condition in ["f IS DISTINCT FROM 5.5", "(s LIKE '%b%') IS NOT TRUE"] {
        let filter = reaching(&schema, condition).await;
        assert!(!matches!(filter, Filter::And(..) | Filter::Test(_)), "{condition}: {filter:?}");
    }
}

#[test]
fn what_follows_for_a_cast_column_is_wide_enough_and_its_opposite_is_unknown() {
    let term = Term::column(&columns(), "d", true).unwrap();
    // Noon of the second day after 1970.
    let noon = ScalarValue::TimestampMicrosecond(Some(129_600_000_000), None);
    let of = |comparison| through_cast(term.clone(), &DataType::Date32, comparison, &noon);
    let filter = of(Comparison::GreaterOrEqual).unwrap();
    let lowest = ValueCheck::Compare(Comparison::GreaterOrEqual, Datum::date(0));
    let expected = Filter::Unknown.and(test(term.clone(), lowest));
    assert_eq!(filter, expected);
    assert!(matches!(filter.negate(), Filter::Or(left, _) if *left == Filter::Unknown));
    assert_eq!(of(Comparison::NotEqual), None);
    // A day stands for all of its times.
    let day = ScalarValue::Date32(Some(1));
    let kind = DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()));
    assert_eq!(behind(&kind, &day), Some((86_400_000_000, 172_799_999_999)));
    assert!(!keeps_order(&kind, &DataType::Timestamp(TimeUnit::Second, None)));
    let inexact = ScalarValue::Float64(Some(9_007_199_254_740_994.0));
    let long = Term::column(&columns(), "l", true).unwrap();
    assert_eq!(through_cast(long, &DataType::Int64, Comparison::Less, &inexact), None);
}
