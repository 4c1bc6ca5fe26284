use super::*;

/// The last event of the state.
const LAST: u64 = 1_000_000;

/// A change as it is sent.
#[derive(Clone, Debug)]
pub(in crate::sql::collection_refresh) struct SentChange {
    pub(in crate::sql::collection_refresh) bucket: i64,
    pub(in crate::sql::collection_refresh) key: String,
    pub(in crate::sql::collection_refresh) seq: i64,
    pub(in crate::sql::collection_refresh) op: &'static str,
    pub(in crate::sql::collection_refresh) after: Option<String>,
    pub(in crate::sql::collection_refresh) patch: Option<String>,
}

/// Changes as they are kept, in whatever order they come.
pub(in crate::sql::collection_refresh) fn sorted(sent: &[SentChange]) -> SortedChanges {
    let number = |of: fn(&SentChange) -> i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(sent.iter().map(of)))
    };
    let text = |of: fn(&SentChange) -> Option<&str>| -> ArrayRef {
        Arc::new(sent.iter().map(of).collect::<StringArray>())
    };
    let columns = vec![
        number(|it| it.bucket),
        text(|it| Some(it.key.as_str())),
        number(|it| it.seq),
        text(|it| Some(it.op)),
        number(|it| it.seq * 1_000),
        text(|it| it.after.as_deref()),
        text(|it| it.patch.as_deref()),
        text(|_| Some("relational")),
        text(|_| None),
        text(|_| Some("bookmark")),
        text(|_| Some("event")),
    ];
    SortedChanges::of(&RecordBatch::try_new(change_schema(), columns).unwrap(), LAST)
}

fn sent(bucket: i64, key: &str, seq: i64, after: &str) -> SentChange {
    let (key, after) = (key.to_owned(), Some(after.to_owned()));
    SentChange { bucket, key, seq, op: "u", after, patch: None }
}

#[test]
fn changes_are_taken_key_by_key_in_the_order_of_their_buckets() {
    let mut changes = sorted(&[
        sent(3, "a", 9, "1"),
        sent(1, "b", 8, "2"),
        sent(1, "a", 7, "3"),
        sent(1, "b", 5, "4"),
    ]);
    assert_eq!(changes.bucket_numbers(), Some([1, 3].into()));
    assert_eq!(changes.next_key(3), None, "bucket 1 comes first");
    let mut found = Vec::new();
    for bucket in [1, 2, 3] {
        while let Some(key) = changes.next_key(bucket).map(str::to_owned) {
            let document = changes.next_document(None).unwrap();
            found.push((bucket, key, document.doc.unwrap(), document.version, document.seq));
        }
    }
    let wanted: [(i32, &str, &str, i64, i64); 3] =
        [(1, "a", "3", 1, 7), (1, "b", "2", 2, 8), (3, "a", "1", 1, 9)];
    let wanted = wanted.map(|(bucket, key, doc, version, seq)| {
        (bucket, key.to_owned(), doc.to_owned(), version, seq)
    });
    assert_eq!(found, wanted);
    assert_eq!(changes.next_document(None), None);
}

#[test]
fn a_change_behind_a_known_document_makes_its_next_version() {
    let first = sorted(&[sent(0, "a", 1, r#"{"n":1}"#)]).next_document(None).unwrap();
    let patched =
        SentChange { after: None, patch: Some(r#"{"m":2}"#.to_owned()), ..sent(0, "a", 2, "") };
    let mut changes = sorted(std::slice::from_ref(&patched));
    let second = changes.next_document(Some(first.clone())).unwrap();
    assert_eq!(second.doc.as_deref(), Some(r#"{"n":1,"m":2}"#));
    assert_eq!((second.version, second.seq), (2, 2));
    assert_eq!((second.created_at, second.updated_at), (1_000, 2_000));
    let gone = SentChange { op: "d", patch: None, ..patched };
    assert_eq!(sorted(&[gone]).next_document(Some(first)), None);
}

#[test]
fn the_statement_asks_for_one_change_more_than_are_held() {
    let sql = changes_sql("it's", 7, 4);
    assert!(sql.contains("events BETWEEN SEQ 8 AND "), "{sql}");
    assert!(sql.contains("collection = 'it''s' AND ("), "{sql}");
    assert!(sql.ends_with(" LIMIT 100001"), "{sql}");
}

#[test]
fn changes_behind_the_last_event_are_of_a_later_state() {
    let mut changes = sorted(&[sent(0, "a", 1_000_000, "1"), sent(1, "b", 1_000_001, "2")]);
    assert_eq!(changes.bucket_numbers(), Some(BTreeSet::from([0])));
    assert_eq!(changes.next_document(None).unwrap().seq, 1_000_000);
    assert_eq!(changes.next_document(None), None);
}
