use super::*;

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
