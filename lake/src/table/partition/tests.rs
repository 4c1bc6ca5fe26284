use super::{PartitionSplit, split};
use crate::table::layout::{FileLayout, WriteError};
use arrow::{
    array::{StringArray, TimestampMicrosecondArray},
    record_batch::RecordBatch,
};
use iceberg::spec::{
    Literal, NullOrder, SortDirection, SortField, SortOrder, Struct, Transform,
    UnboundPartitionSpec,
};
use icecore_catalog::catalog::CreateTable;
use icecore_samples::{self as sample, DAY_US, START_US, longs, texts, times};
use std::{collections::BTreeMap, sync::Arc};

fn layout(new: CreateTable) -> FileLayout {
    FileLayout::of(&sample::metadata(new, "file:///warehouse/table/"))
}

fn with_column(rows: &RecordBatch, name: &str, column: arrow::array::ArrayRef) -> RecordBatch {
    let index = rows.schema().index_of(name).unwrap();
    let mut columns = rows.columns().to_vec();
    columns[index] = column;
    RecordBatch::try_new(rows.schema(), columns).unwrap()
}

fn struct_of(kind: &str, day: i32) -> Struct {
    Struct::from_iter([Some(Literal::string(kind)), Some(Literal::date(day))])
}

/// The rows by partition, each in order of (ts, seq): what a split must come to.
fn expected(rows: &RecordBatch) -> BTreeMap<(String, i64), Vec<(i64, i64)>> {
    let mut parts: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for row in 0..rows.num_rows() {
        let (ts, seq) = (times(rows, "ts").value(row), longs(rows, "seq").value(row));
        let key = (texts(rows, "type").value(row).to_owned(), ts.div_euclid(DAY_US));
        parts.entry(key).or_default().push((ts, seq));
    }
    parts.values_mut().for_each(|rows| rows.sort_unstable());
    parts
}

#[track_caller]
fn check(rows: &RecordBatch) -> PartitionSplit {
    let split = split(&layout(sample::events_table()), rows).unwrap();
    let expected = expected(rows);
    assert_eq!(split.parts.len(), expected.len());
    assert_eq!(split.rows.num_rows(), rows.num_rows());
    assert!(split.sorted);
    for part in &split.parts {
        let of_part = split.rows.slice(part.rows.start, part.rows.len());
        let (kind, ts) = (texts(&of_part, "type").value(0), times(&of_part, "ts").value(0));
        let day = ts.div_euclid(DAY_US);
        assert_eq!(part.values, struct_of(kind, i32::try_from(day).unwrap()));
        let found: Vec<(i64, i64)> = (0..of_part.num_rows())
            .map(|row| (times(&of_part, "ts").value(row), longs(&of_part, "seq").value(row)))
            .collect();
        assert_eq!(found, expected[&(kind.to_owned(), day)]);
        assert!(texts(&of_part, "type").iter().all(|text| text == Some(kind)));
    }
    split
}

#[test]
fn each_type_and_day_is_one_part_in_sort_order() {
    check(&sample::events(2_000, 7, 1, 1));
}

#[test]
fn hundreds_of_types_make_hundreds_of_parts() {
    let split = check(&sample::events(20_000, 300, 1, 2));
    assert!(700 < split.parts.len());
}

#[test]
fn rows_that_are_in_order_are_taken_as_they_are() {
    let rows = check(&sample::events(100, 1, 1, 3)).rows;
    let again = check(&rows).rows;
    assert_eq!(again.column(0).to_data().buffers(), rows.column(0).to_data().buffers());
}

#[test]
fn a_time_before_1970_is_in_the_day_it_lies_in() {
    let rows = sample::events(3, 1, 1, 4);
    let times = TimestampMicrosecondArray::from(vec![-1, 0, -DAY_US]).with_timezone("+00:00");
    let rows = with_column(&rows, "ts", Arc::new(times));
    let mut days: Vec<Struct> = check(&rows).parts.into_iter().map(|part| part.values).collect();
    days.sort_by_key(|values| format!("{values:?}"));
    assert_eq!(days, [struct_of("type.0", -1), struct_of("type.0", 0)]);
}

#[test]
fn dead_letters_are_split_by_day_and_sorted_by_time() {
    let rows = sample::dead_letters(500, 5);
    let split = split(&layout(sample::dead_letters_table()), &rows).unwrap();
    assert!(split.sorted);
    let mut days: Vec<Struct> = split.parts.iter().map(|part| part.values.clone()).collect();
    days.sort_by_key(|values| format!("{values:?}"));
    let start = i32::try_from(START_US / DAY_US).unwrap();
    let expected: Vec<Struct> =
        (start..start + 3).map(|day| Struct::from_iter([Some(Literal::date(day))])).collect();
    assert_eq!(days, expected);
    for part in &split.parts {
        let values = times(&split.rows, "received_at").values();
        assert!(values[part.rows.clone()].is_sorted());
    }
}

#[test]
fn a_row_without_a_partition_value_is_in_the_part_of_nulls() {
    let mut new = sample::dead_letters_table();
    new.partition_spec = Some(
        UnboundPartitionSpec::builder()
            .add_partition_field(6, "type", Transform::Identity)
            .unwrap()
            .build(),
    );
    let rows = sample::dead_letters(4, 6);
    let types = StringArray::from(vec![None, Some("a"), None, Some("a")]);
    let rows = with_column(&rows, "type", Arc::new(types));
    let split = split(&layout(new), &rows).unwrap();
    let parts: Vec<(Struct, usize)> =
        split.parts.into_iter().map(|part| (part.values, part.rows.len())).collect();
    let of_a = Struct::from_iter([Some(Literal::string("a"))]);
    assert_eq!(parts, [(Struct::from_iter([None]), 2), (of_a, 2)]);
}

#[test]
fn a_transform_that_is_not_ours_is_refused() {
    let mut new = sample::events_table();
    new.partition_spec = Some(
        UnboundPartitionSpec::builder()
            .add_partition_field(1, "id_start", Transform::Truncate(16))
            .unwrap()
            .build(),
    );
    let error = split(&layout(new), &sample::events(1, 1, 1, 7)).unwrap_err();
    let WriteError::Describe(cause) = error else { panic!("{error:?}") };
    assert!(cause.to_string().contains("id_start"), "{cause}");
}

#[test]
fn buckets_of_text_are_partitions_as_iceberg_reckons_them() {
    let mut new = sample::dead_letters_table();
    new.partition_spec = Some(
        UnboundPartitionSpec::builder()
            .add_partition_field(6, "type_bucket", Transform::Bucket(16))
            .unwrap()
            .build(),
    );
    let rows = sample::dead_letters(4, 6);
    let types = StringArray::from(vec![None, Some("iceberg"), None, Some("iceberg")]);
    let rows = with_column(&rows, "type", Arc::new(types));
    let split = split(&layout(new), &rows).unwrap();
    let parts: Vec<(Struct, usize)> =
        split.parts.into_iter().map(|part| (part.values, part.rows.len())).collect();
    // The specification's hash of `iceberg` is 1210000089.
    let bucket = Struct::from_iter([Some(Literal::int(1_210_000_089 % 16))]);
    assert_eq!(parts, [(Struct::from_iter([None]), 2), (bucket, 2)]);
}

#[test]
fn a_sort_order_that_is_not_ours_makes_unsorted_parts() {
    let mut new = sample::events_table();
    let by_id = SortField {
        source_id: 1,
        transform: Transform::Identity,
        direction: SortDirection::Ascending,
        null_order: NullOrder::First,
    };
    new.sort_order =
        Some(SortOrder::builder().with_order_id(1).with_sort_field(by_id).build_unbound().unwrap());
    let split = split(&layout(new), &sample::events(100, 3, 1, 8)).unwrap();
    assert!(!split.sorted);
    assert_eq!(split.parts.iter().map(|part| part.rows.len()).sum::<usize>(), 100);
}

#[test]
fn a_descending_order_is_followed() {
    let mut new = sample::dead_letters_table();
    let newest_first = SortField {
        source_id: 3,
        transform: Transform::Identity,
        direction: SortDirection::Descending,
        null_order: NullOrder::Last,
    };
    new.sort_order = Some(
        SortOrder::builder()
            .with_order_id(1)
            .with_sort_field(newest_first)
            .build_unbound()
            .unwrap(),
    );
    let split = split(&layout(new), &sample::dead_letters(100, 9)).unwrap();
    assert!(split.sorted);
    for part in split.parts {
        let values = &times(&split.rows, "received_at").values()[part.rows];
        assert!(values.is_sorted_by(|a, b| b <= a));
    }
}
