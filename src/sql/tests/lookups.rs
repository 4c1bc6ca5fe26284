//! Look-ups: of a document in the table of its collection, and of rows by a text.

use super::{refreshes::take_changes, *};
use crate::sql::{document_lookup::DocumentLookup, materialized::RefreshCaller};
use icecore_engine::collections::{relation, relation_at};

/// What a look-up finds, and whether it was read without an engine: then it has every column of the document.
async fn looked_up(house: &House, relation: &str, key: &str) -> (Option<i64>, bool) {
    let sql = format!(
        "SELECT seq, CAST(created_at AS bigint) AS created_us FROM {relation} WHERE key = '{key}' LIMIT 1"
    );
    let by_statement = house.ask(asked(&sql)).await.unwrap();
    let lookup = DocumentLookup { statement: asked(&sql), key: key.to_owned() };
    let levels = levels(&house.ns);
    let asked = house.sql.look_up(&levels, QueryScope::Namespace, None, lookup);
    let answer = asked.await.unwrap();
    let is_read = answer.schema.column_with_name("seq").is_none()
        || answer.schema.column_with_name("store").is_some();
    let rows: Vec<RecordBatch> = answer.batches.try_collect().await.unwrap();
    let numbers = |batches: &[RecordBatch], name: &str| -> Vec<i64> {
        let of = |batch: &RecordBatch| {
            let column = batch.column_by_name(name).unwrap();
            column.as_any().downcast_ref::<Int64Array>().unwrap().values().to_vec()
        };
        batches.iter().filter(|batch| 0 < batch.num_rows()).flat_map(of).collect()
    };
    for name in ["seq", "created_us"] {
        assert_eq!(numbers(&rows, name), numbers(&by_statement, name), "{name} of {key}: {sql}");
    }
    (numbers(&rows, "seq").first().copied(), is_read)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_read_of_a_table_unless_it_changed_since() {
    let house = House::new().await;
    take_changes(&house, 1..7);
    house.commit().await;
    let now = relation("orders");
    assert_eq!(looked_up(&house, &now, "k3").await, (Some(3), false), "there is no table");
    let ids = IdGenerator::new(house.clock.clone());
    let erasures = Some("0/none".to_owned());
    let caller = RefreshCaller { catalog: house.catalog.clone(), ids: &ids, erasures };
    let levels = levels(&house.ns);
    let made = house.sql.refresh_collection(&caller, &levels, "orders", false);
    assert_eq!(Box::pin(made).await.unwrap().documents, 6);
    let at = |seq| relation_at("orders", None, seq);
    for (relation, key, found, is_read) in [
        (&now, "k3", Some(3), true),
        (&now, "k9", None, true),
        (&at(6), "k6", Some(6), true),
        (&at(4), "k4", Some(4), false),
        (&at(4), "k6", None, false),
    ] {
        assert_eq!(looked_up(&house, relation, key).await, (found, is_read), "{key} of {relation}");
    }
    // What came since changes some of the documents.
    take_changes(&house, 7..14);
    for place in ["in the log", "in the table of events"] {
        for (relation, key, found, is_read) in [
            (&now, "k3", Some(13), false),
            (&now, "k8", Some(8), false),
            (&now, "k6", Some(6), true),
            (&now, "other", None, true),
            (&at(6), "k3", Some(3), true),
            (&at(10), "k3", Some(3), true),
            (&at(13), "k3", Some(13), false),
        ] {
            let told = looked_up(&house, relation, key).await;
            assert_eq!(told, (found, is_read), "{key} of {relation}, {place}");
        }
        if place == "in the log" {
            house.commit().await;
            house.trim();
        }
    }
}

/// Rows of one file; its second page has the last of them.
const ROWS: u64 = 12 * RECORD_ROWS;
const RECORD_ROWS: u64 = 1_024;

/// A key of each event, in no order.
fn key(seq: u64) -> String {
    format!("k-{}", seq * 7_919 % ROWS)
}

/// Events of one type and day.
fn take_keys(house: &House, seqs: Range<u64>) {
    let schema = rows::event_schema();
    let plain = sample(&schema, seqs.clone());
    let count = plain.num_rows();
    let columns = schema.fields().iter().zip(plain.columns()).map(|(field, column)| {
        let values: ArrayRef = match field.name().as_str() {
            "type" => Arc::new(StringArray::from(vec!["order"; count])),
            "key" => Arc::new(seqs.clone().map(|seq| Some(key(seq))).collect::<StringArray>()),
            "ts" => {
                let times = TimestampMicrosecondArray::from_value(NOW_MS * 1_000, count);
                Arc::new(times.with_timezone("+00:00"))
            }
            _ => Arc::clone(column),
        };
        values
    });
    let events = RecordBatch::try_new(Arc::clone(&schema), columns.collect()).unwrap();
    let record = LogRecord {
        kind: RecordKind::Events,
        namespace: house.ns.clone(),
        first_seq: seqs.start,
        rows: u32::try_from(count).unwrap(),
        payload: codec::encode(&schema, &events),
    };
    house.writer.lock().unwrap().append(&[record]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_is_found_again_by_the_page_of_its_row_alone() {
    let house = House::new().await;
    for at in 0..ROWS / RECORD_ROWS {
        take_keys(&house, at * RECORD_ROWS + 1..(at + 1) * RECORD_ROWS + 1);
    }
    house.commit().await;
    let read = &house.sql.inner.options.metrics.query_read;
    let sql = format!("SELECT seq FROM events WHERE key = '{}'", key(11_000));
    let mut bytes = Vec::new();
    for _ in 0..3 {
        let before = read.get();
        assert_eq!(house.count(&sql).await, 11_000);
        bytes.push(read.get() - before);
    }
    assert!(bytes[1] < bytes[0] && bytes[1] == bytes[2], "{bytes:?}");
    let (one, other) = (key(11_000), key(17));
    for (condition, expected) in [
        (format!("key = '{one}' AND seq < 11000"), 0),
        (format!("key = '{one}' AND id = 'e-11000'"), 1),
        (format!("key IN ('{one}', '{other}', 'nobody')"), 2),
        (format!("key = '{one}' OR seq = 9"), 2),
        (format!("key <> '{one}'"), i64::try_from(ROWS).unwrap() - 1),
        ("key = 'nobody'".to_owned(), 0),
    ] {
        for _ in 0..2 {
            let sql = format!("SELECT count(*) FROM events WHERE {condition}");
            assert_eq!(house.count(&sql).await, expected, "{condition}");
        }
    }
}
