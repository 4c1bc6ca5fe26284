use super::*;
use iceberg::spec::{NestedField, UnboundPartitionField, UnboundPartitionSpec};

const DAY_US: i64 = 86_400_000_000;

fn spec(transform: Transform, source: PrimitiveType) -> PartitionSpec {
    let field = NestedField::required(7, "c", iceberg::spec::Type::Primitive(source));
    let schema = Schema::builder().with_fields([Arc::new(field)]).build().unwrap();
    let field = UnboundPartitionField::builder()
        .source_id(7)
        .name("p".to_owned())
        .transform(transform)
        .build();
    UnboundPartitionSpec::builder()
        .add_partition_fields([field])
        .unwrap()
        .build()
        .bind(schema)
        .unwrap()
}

fn summary(lower: &[u8], upper: &[u8]) -> FieldSummary {
    FieldSummary {
        contains_null: false,
        contains_nan: None,
        lower_bound: Some(lower.to_vec().into()),
        upper_bound: Some(upper.to_vec().into()),
    }
}

#[test]
fn a_summary_of_days_bounds_the_times_in_them() {
    let spec = spec(Transform::Day, PrimitiveType::Timestamptz);
    let days = [summary(&(-1_i32).to_le_bytes(), &2_i32.to_le_bytes())];
    let bound = |upper| summary_bound(&spec, &days, 7, &PrimitiveType::Timestamptz, upper);
    assert_eq!(bound(false), Some(PrimitiveLiteral::Long(-DAY_US)));
    assert_eq!(bound(true), Some(PrimitiveLiteral::Long(3 * DAY_US - 1)));
    assert_eq!(summary_bound(&spec, &days, 8, &PrimitiveType::Timestamptz, true), None);
}

#[test]
fn a_summary_of_values_bounds_them_and_other_transforms_bound_nothing() {
    let texts = [summary(b"a", b"m")];
    let identity = spec(Transform::Identity, PrimitiveType::String);
    assert_eq!(
        summary_bound(&identity, &texts, 7, &PrimitiveType::String, true),
        Some(PrimitiveLiteral::String("m".to_owned()))
    );
    let bucket = spec(Transform::Bucket(4), PrimitiveType::String);
    let buckets = [summary(&0_i32.to_le_bytes(), &3_i32.to_le_bytes())];
    assert_eq!(summary_bound(&bucket, &buckets, 7, &PrimitiveType::String, true), None);
}

#[test]
fn a_bound_of_another_type_is_no_bound() {
    let check = |value: &PrimitiveLiteral, data_type: &DataType, expected: Option<ScalarValue>| {
        assert_eq!(scalar(value, data_type), expected, "{value:?} as {data_type}");
    };
    check(&PrimitiveLiteral::Int(3), &DataType::Int64, Some(ScalarValue::Int64(Some(3))));
    check(&PrimitiveLiteral::Int(3), &DataType::Date32, Some(ScalarValue::Date32(Some(3))));
    check(&PrimitiveLiteral::Int(3), &DataType::Utf8View, None);
    check(&PrimitiveLiteral::Int(3), &DataType::Timestamp(TimeUnit::Microsecond, None), None);
    check(
        &PrimitiveLiteral::Long(3),
        &DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())),
        Some(ScalarValue::TimestampMicrosecond(Some(3), Some("+00:00".into()))),
    );
    check(
        &PrimitiveLiteral::String("a".to_owned()),
        &DataType::Utf8View,
        Some(ScalarValue::Utf8View(Some("a".to_owned()))),
    );
}
