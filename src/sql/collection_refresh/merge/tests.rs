use super::*;
use crate::sql::collection_refresh::changes::tests::{SentChange, sorted};
use arrow::{
    compute::concat_batches,
    datatypes::{Field, Schema, TimeUnit},
};
use icecore_lake::collection::COLUMNS;
use icecore_schemas::columns::ColumnKind;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use std::collections::BTreeMap;

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
    NewDocuments { keys, documents }.rows(&schema(), &TypedColumns::default()).unwrap()
}

fn bucket() -> OpenBucket {
    let (location, rows) = ("bucket.parquet".to_owned(), stream::empty().boxed());
    OpenBucket { number: BUCKET, location, rows, last_key: None }
}

/// What comes of a file whose batches have so many rows.
fn merged(known: &RecordBatch, mut changes: SortedChanges, batch_rows: usize) -> RecordBatch {
    let (mut bucket, typed) = (bucket(), TypedColumns::default());
    let mut merged = Vec::new();
    for start in (0..known.num_rows()).step_by(batch_rows) {
        let part = known.slice(start, batch_rows.min(known.num_rows() - start));
        merged.push(bucket.merged(&part, &mut changes, &typed).unwrap());
    }
    let rest = bucket.rest(&mut changes);
    merged.push(rest.rows(&schema(), &typed).unwrap());
    assert_eq!(changes.next_document(None), None, "no change is left");
    concat_batches(&schema(), &merged).unwrap()
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
    let merged = bucket().merged(&known, &mut changes, &TypedColumns::default()).unwrap();
    for (one, other) in merged.columns().iter().zip(known.columns()) {
        assert!(Arc::ptr_eq(one, other));
    }
}

#[test]
fn documents_that_are_in_no_order_are_refused() {
    let one = |key: &str| rows(&BTreeMap::from([(key.to_owned(), document(1))]));
    for (first, second) in [("b", "a"), ("a", "a")] {
        let (mut bucket, mut changes) = (bucket(), sorted(&[]));
        let typed = TypedColumns::default();
        bucket.merged(&one(first), &mut changes, &typed).unwrap();
        let refused = bucket.merged(&one(second), &mut changes, &typed).unwrap_err();
        let text = refused.to_string();
        assert!(text.contains("bucket.parquet") && text.contains("full=true"), "{text}");
    }
}
