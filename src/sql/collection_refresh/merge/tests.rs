use super::*;
use crate::sql::collection_refresh::changes::tests::{SentChange, sorted};
use arrow::{
    compute::concat_batches,
    datatypes::{Field, Schema, TimeUnit},
};
use icecore_lake::collection::COLUMNS;
use icecore_schemas::columns::ColumnKind;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use std::{collections::BTreeMap, time::Duration};

const BUCKET: i32 = 1;

/// The columns of a table without typed ones, as they are read.
fn schema() -> SchemaRef {
    let fields = COLUMNS.iter().map(|column| {
        let kind = match column.kind {
            ColumnKind::Long => DataType::Int64,
            ColumnKind::Timestamptz => {
                DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()))
            }
            _ => DataType::Utf8,
        };
        Field::new(column.name, kind, true)
    });
    Arc::new(Schema::new(fields.collect::<Vec<Field>>()))
}

fn rows(documents: &BTreeMap<String, Document>) -> RecordBatch {
    let (keys, documents) = documents.clone().into_iter().unzip();
    NewDocuments { keys, documents, bytes: 0 }.rows(&schema(), &TypedColumns::default()).unwrap()
}

fn bucket() -> OpenBucket {
    let (location, rows) = ("bucket.parquet".to_owned(), stream::empty().boxed());
    OpenBucket { number: BUCKET, location, rows, begun: None, last_key: None }
}

fn signal() -> Arc<QuerySignal> {
    QuerySignal::new(Duration::from_secs(600))
}

/// What comes of a file whose batches have so many rows, part by part.
fn parts(known: &RecordBatch, mut changes: SortedChanges, batch_rows: usize) -> Vec<RecordBatch> {
    let (mut bucket, typed, signal) = (bucket(), TypedColumns::default(), signal());
    let mut parts = Vec::new();
    for start in (0..known.num_rows()).step_by(batch_rows) {
        let rows = known.slice(start, batch_rows.min(known.num_rows() - start));
        bucket.begun = Some((rows, 0));
        while let Some(rows) = bucket.begun.take() {
            parts.push(bucket.merged(rows, &mut changes, (&typed, &signal)).unwrap());
        }
    }
    while changes.next_key(BUCKET).is_some() {
        let rest = bucket.rest(&mut changes, &signal).unwrap();
        parts.push(rest.rows(&schema(), &typed).unwrap());
    }
    assert_eq!(changes.next_document(None), None, "no change is left");
    parts
}

fn merged(known: &RecordBatch, changes: SortedChanges, batch_rows: usize) -> RecordBatch {
    concat_batches(&schema(), &parts(known, changes, batch_rows)).unwrap()
}

/// Some change of one of twelve documents.
fn some_change(random: &mut StdRng, seq: i64) -> SentChange {
    let key = format!("k-{:02}", random.random_range(0..12));
    let (whole, patch) = (format!(r#"{{"n":{seq}}}"#), format!(r#"{{"m":{seq}}}"#));
    let (op, after, patch) = match random.random_range(0..6) {
        0 => ("c", Some(whole), None),
        1 => ("u", Some(whole), None),
        2 => ("r", Some(whole), None),
        3 => ("u", None, Some(patch)),
        4 => ("u", None, None),
        _ => ("d", None, None),
    };
    SentChange { bucket: i64::from(BUCKET), key, seq, op, after, patch }
}

/// The documents that changes make of those that are known, one key after the other.
fn folded(
    known: &BTreeMap<String, Document>,
    changes: &[SentChange],
) -> BTreeMap<String, Document> {
    let mut documents = known.clone();
    for key in changes.iter().map(|change| &change.key) {
        let of_key = changes.iter().filter(|change| change.key == *key).cloned();
        let of_key: Vec<SentChange> = of_key.collect();
        match sorted(&of_key).next_document(known.get(key).cloned()) {
            Some(document) => documents.insert(key.clone(), document),
            None => documents.remove(key),
        };
    }
    documents
}

#[test]
fn documents_of_a_file_and_of_changes_are_those_of_each_key_alone() {
    let mut random = StdRng::seed_from_u64(26);
    for round in 0..300 {
        let count = random.random_range(0..40);
        let mut changes: Vec<SentChange> =
            (1..=count).map(|seq| some_change(&mut random, seq)).collect();
        let behind = changes.split_off(random.random_range(0..=changes.len()));
        let known = folded(&BTreeMap::new(), &changes);
        let wanted = rows(&folded(&known, &behind));
        let mut sent = behind;
        sent.shuffle(&mut random);
        for batch_rows in [1, 3, 100] {
            let merged = merged(&rows(&known), sorted(&sent), batch_rows);
            assert_eq!(merged, wanted, "round {round}, batches of {batch_rows}");
        }
    }
}

fn document(seq: i64) -> Document {
    let change = SentChange {
        bucket: 0,
        key: String::new(),
        seq,
        op: "c",
        after: Some("{}".to_owned()),
        patch: None,
    };
    sorted(&[change]).next_document(None).unwrap()
}

#[test]
fn rows_without_a_change_come_out_as_they_are() {
    let known =
        rows(&BTreeMap::from([("a".to_owned(), document(1)), ("b".to_owned(), document(2))]));
    let mut changes = sorted(&[]);
    let (rows, typed) = ((known.clone(), 0), TypedColumns::default());
    let merged = bucket().merged(rows, &mut changes, (&typed, &signal())).unwrap();
    for (one, other) in merged.columns().iter().zip(known.columns()) {
        assert!(Arc::ptr_eq(one, other));
    }
}

#[test]
fn documents_that_are_in_no_order_are_refused() {
    let one = |key: &str| rows(&BTreeMap::from([(key.to_owned(), document(1))]));
    for (first, second) in [("b", "a"), ("a", "a")] {
        let (mut bucket, mut changes) = (bucket(), sorted(&[]));
        let (typed, signal) = (TypedColumns::default(), signal());
        bucket.merged((one(first), 0), &mut changes, (&typed, &signal)).unwrap();
        let refused = bucket.merged((one(second), 0), &mut changes, (&typed, &signal));
        let refused = refused.unwrap_err();
        let text = refused.to_string();
        assert!(text.contains("bucket.parquet") && text.contains("full=true"), "{text}");
    }
}

/// A new document with so many bytes of text, as a patch may make it.
fn long(key: &str, bytes: usize) -> SentChange {
    let after = Some(format!(r#"{{"t":"{}"}}"#, "x".repeat(bytes)));
    SentChange {
        bucket: i64::from(BUCKET),
        key: key.to_owned(),
        seq: 1,
        op: "c",
        after,
        patch: None,
    }
}

#[test]
fn many_and_long_documents_come_in_parts() {
    let known = rows(&BTreeMap::from([("m".to_owned(), document(1))]));
    let many: Vec<SentChange> = ["k", "p"]
        .iter()
        .flat_map(|of| (0..2 * DOCUMENTS_MAX).map(move |n| long(&format!("{of}-{n:06}"), 1)))
        .collect();
    let few: Vec<SentChange> =
        ["a", "b", "c", "x", "y", "z"].map(|key| long(key, BYTES_MAX)).into();
    for (sent, most, count) in [(many, DOCUMENTS_MAX + 1, 4), (few, 2, 6)] {
        let parts = parts(&known, sorted(&sent), 10);
        assert!(parts.iter().all(|part| part.num_rows() <= most));
        assert_eq!(parts.len(), count);
        let all = concat_batches(&schema(), &parts).unwrap();
        let keys = all.column(0).as_string::<i32>();
        assert_eq!(keys.len(), sent.len() + 1);
        assert!((1..keys.len()).all(|row| keys.value(row - 1) < keys.value(row)));
    }
}

#[test]
fn what_is_stopped_makes_no_further_document() {
    let signal = QuerySignal::new(Duration::ZERO);
    let mut changes = sorted(&[long("a", 1)]);
    assert!(bucket().rest(&mut changes, &signal).is_err());
}
