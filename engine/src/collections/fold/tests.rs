use super::*;
use arrow::array::{Int64Array, StringViewArray, TimestampMicrosecondArray};
use icecore_lake::collection::{Change, ChangeOp, Image};

const ZONE: &str = "+00:00";

/// Rows of changes: `seq`, `op` and `after`; each with the other arguments of the aggregate.
fn arguments(kind: FoldKind, rows: &[(i64, &str, Option<&str>)]) -> Vec<ArrayRef> {
    let seqs = || rows.iter().map(|row| row.0);
    let times = || -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from_iter_values(seqs()).with_timezone(ZONE))
    };
    let nothing =
        || -> ArrayRef { Arc::new(StringViewArray::from(vec![None::<&str>; rows.len()])) };
    let ops: StringViewArray = rows.iter().map(|row| Some(row.1)).collect();
    let docs: StringViewArray = rows.iter().map(|row| row.2).collect();
    let ids: StringViewArray = seqs().map(|seq| Some(format!("e-{seq}"))).collect();
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(seqs())),
        Arc::new(ops),
        times(),
        Arc::new(docs),
        nothing(),
        nothing(),
        nothing(),
        nothing(),
        Arc::new(ids),
    ];
    if kind == FoldKind::Document {
        columns.push(Arc::new(Int64Array::from(vec![None::<i64>; rows.len()])));
        columns.push(times());
    }
    columns
}

fn groups(kind: FoldKind) -> ChangeGroups {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some(ZONE.into()));
    ChangeGroups { kind, members: members_of(&time), groups: Vec::new(), bytes: 0 }
}

fn docs(answer: &ArrayRef) -> Vec<Option<String>> {
    let documents = answer.as_struct();
    let docs = documents.column_by_name("doc").unwrap().as_string_view();
    let doc = |row: usize| documents.is_valid(row).then(|| docs.value(row).to_owned());
    (0..documents.len()).map(doc).collect()
}

#[test]
fn parts_of_changes_make_the_same_document_in_any_order() {
    let rows = [(3, "u", Some("3")), (1, "c", Some("1")), (4, "d", None), (2, "u", Some("2"))];
    let kind = FoldKind::Document;
    let mut whole = groups(kind);
    whole.update_batch(&arguments(kind, &rows), &[0, 0, 1, 1], None, 2).unwrap();
    let mut merged = groups(kind);
    for (row, group) in rows.iter().zip([0, 0, 1, 1]) {
        let mut part = groups(kind);
        part.update_batch(&arguments(kind, &[*row]), &[0], None, 1).unwrap();
        let state = part.state(EmitTo::All).unwrap();
        merged.merge_batch(&state, &[group], None, 2).unwrap();
    }
    let expected = vec![Some("3".to_owned()), None];
    assert_eq!(docs(&whole.evaluate(EmitTo::All).unwrap()), expected);
    assert_eq!(docs(&merged.evaluate(EmitTo::All).unwrap()), expected);
}

#[test]
fn groups_leave_one_after_the_other_and_take_their_bytes_with_them() {
    let kind = FoldKind::Document;
    let mut all = groups(kind);
    let empty = all.size();
    let rows = [(1, "c", Some("1")), (2, "c", Some("2")), (3, "c", Some("3"))];
    all.update_batch(&arguments(kind, &rows), &[0, 1, 2], None, 3).unwrap();
    let full = all.size();
    assert!(empty < full);
    assert_eq!(docs(&all.evaluate(EmitTo::First(1)).unwrap()), [Some("1".to_owned())]);
    assert!(empty < all.size() && all.size() < full);
    assert_eq!(docs(&all.evaluate(EmitTo::All).unwrap()).len(), 2);
    assert_eq!(all.size(), empty);
}

#[test]
fn a_long_text_counts_with_its_copy() {
    let kind = FoldKind::Document;
    let mut all = groups(kind);
    let text = "x".repeat(10_000);
    all.update_batch(&arguments(kind, &[(1, "c", Some(&text))]), &[0], None, 1).unwrap();
    assert!(20_000 < all.size());
}

#[test]
fn rows_that_a_filter_leaves_out_are_no_changes() {
    let kind = FoldKind::Document;
    let mut all = groups(kind);
    let rows = [(1, "c", Some("1")), (2, "u", Some("2")), (3, "u", Some("3"))];
    let filter = BooleanArray::from(vec![Some(true), Some(false), None]);
    all.update_batch(&arguments(kind, &rows), &[0, 0, 0], Some(&filter), 1).unwrap();
    assert_eq!(docs(&all.evaluate(EmitTo::All).unwrap()), [Some("1".to_owned())]);
}

#[test]
fn a_row_without_a_known_operation_is_no_change() {
    let kind = FoldKind::Document;
    let mut all = groups(kind);
    all.update_batch(&arguments(kind, &[(1, "x", Some("1"))]), &[0], None, 1).unwrap();
    assert_eq!(docs(&all.evaluate(EmitTo::All).unwrap()), [None]);
}

#[test]
fn versions_are_bounded() {
    let kind = FoldKind::Versions;
    let rows: Vec<(i64, &str, Option<&str>)> =
        (0..=10_000).map(|seq| (seq, "u", Some("1"))).collect();
    let mut all = groups(kind);
    all.update_batch(&arguments(kind, &rows), &vec![0; rows.len()], None, 1).unwrap();
    let refused = all.evaluate(EmitTo::All).unwrap_err();
    assert!(refused.to_string().contains("more than 10000 versions"), "{refused}");
    all.update_batch(&arguments(kind, &rows[..3]), &[0, 0, 0], None, 1).unwrap();
    let answer = all.evaluate(EmitTo::All).unwrap();
    assert_eq!(answer.as_list::<i32>().value_length(0), 3);
}

#[test]
fn versions_of_short_patches_are_bounded_by_their_bytes() {
    let change = |seq: i64, image: Image| Change {
        seq,
        op: ChangeOp::Update,
        ts: seq,
        image: Some(image),
        store: None,
        actor: None,
        bookmark: None,
        event_id: String::new(),
    };
    let mut changes = Changes::default();
    let document = format!(r#"{{"text":"{}"}}"#, "x".repeat(10_000));
    changes.push(&change(1, Image::Whole(document)));
    for seq in 2..=20 {
        changes.push(&change(seq, Image::Patch(r#"{"n":1}"#.to_owned())));
    }
    let members = members_of(&DataType::Timestamp(TimeUnit::Microsecond, Some(ZONE.into())));
    let lists = |bytes_max| version_lists(vec![changes.clone()], &members, bytes_max);
    let refused = lists(50_000).unwrap_err().to_string();
    assert!(refused.contains("versions of more than 50000 bytes"), "{refused}");
    assert_eq!(lists(500_000).unwrap().value_length(0), 20);
}

#[test]
fn arguments_are_checked() {
    let function = fold_changes();
    let few = function.coerce_types(&[DataType::Int64]);
    assert!(few.unwrap_err().to_string().contains("takes 11 arguments, not 1"));
    let types = vec![DataType::Utf8; CHANGE_ARGUMENTS];
    let refused = document_versions().coerce_types(&types).unwrap_err().to_string();
    assert!(refused.contains("takes a time as `ts`, not Utf8"), "{refused}");
}
