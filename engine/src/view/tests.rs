use super::*;
use icecore_schemas::{names::Namespace, service_table::SERVICE_TABLES};
use serde_json::json;
use std::path::PathBuf;

fn snapshot(id: i64) -> Value {
    json!({
        "snapshot-id": id, "sequence-number": id, "timestamp-ms": id * 1_000,
        "manifest-list": format!("file:///w/t/metadata/{id}.avro"),
        "summary": { "operation": "append", "total-data-files": "7" }, "schema-id": 0,
    })
}

/// A table of 100 snapshots, of which the last is current and each has a tag.
fn metadata() -> TableMetadata {
    let refs = (1..=100).map(|id| {
        let name = if id == 100 { "main".to_owned() } else { format!("tag-{id}") };
        let kind = if id == 100 { "branch" } else { "tag" };
        (name, json!({ "type": kind, "snapshot-id": id }))
    });
    let log = (1..=100).map(|id| json!({ "timestamp-ms": id * 1_000, "snapshot-id": id }));
    let field = json!({ "id": 1, "name": "a", "required": true, "type": "long" });
    let later = json!({ "id": 1, "name": "b", "required": true, "type": "long" });
    serde_json::from_value(json!({
        "format-version": 2, "table-uuid": "7f0c6a76-3f0d-4d59-a1f8-4b1f0b0b6a11",
        "location": "file:///w/t", "last-sequence-number": 100, "last-updated-ms": 100_000,
        "last-column-id": 1, "current-schema-id": 1, "default-spec-id": 0,
        "schemas": [
            { "type": "struct", "schema-id": 0, "fields": [field] },
            { "type": "struct", "schema-id": 1, "fields": [later] },
        ],
        "partition-specs": [{ "spec-id": 0, "fields": [] }], "last-partition-id": 999,
        "sort-orders": [{ "order-id": 0, "fields": [] }], "default-sort-order-id": 0,
        "properties": { "k": "v" },
        "current-snapshot-id": 100, "snapshots": (1..=100).map(snapshot).collect::<Vec<_>>(),
        "snapshot-log": log.collect::<Vec<_>>(),
        "refs": refs.collect::<serde_json::Map<_, _>>(),
    }))
    .unwrap()
}

fn record(position: u64) -> RecordRef {
    RecordRef {
        position,
        kind: RecordKind::Events,
        namespace: Namespace::parse("shop.example").unwrap(),
        first_seq: u64::MAX - position,
        rows: 3,
        path: Arc::new(PathBuf::from("/data/wal/1.log")),
        offset: 4_096,
        length: 77,
        crc: u32::MAX,
        durable_ms: -1,
    }
}

fn sent(view: &View) -> (View, usize) {
    let bytes = serde_json::to_vec(view).unwrap();
    (serde_json::from_slice(&bytes).unwrap(), bytes.len())
}

#[test]
fn a_view_that_was_sent_is_the_same_but_for_what_no_query_reads() {
    let table = TableView {
        name: "t".to_owned(),
        metadata: Some(Arc::new(metadata())),
        snapshot_id: Some(40),
        has_past_columns: true,
        ours: Some(RecordKind::Events),
        tail: vec![record(1), record(2)],
        last_seq: u64::MAX,
        metadata_location: None,
        inspected: Vec::new(),
        seqs: Some(SeqRange::up_to(7)),
        later: None,
    };
    let mut view = View::of("shop_example".to_owned());
    view.has_system = true;
    view.unreadable.push(("broken".to_owned(), SqlError::Unreadable("gone".to_owned())));
    view.tables.push(table.clone());
    let (found, bytes) = sent(&view);
    assert_eq!((found.namespace, found.has_system), (view.namespace, true));
    let [(name, SqlError::Unreadable(text))] = found.unreadable.as_slice() else {
        panic!("{:?}", found.unreadable);
    };
    assert_eq!((name.as_str(), text.as_str()), ("broken", "gone"));
    let seen = found.tables.first().unwrap();
    assert_eq!((seen.snapshot_id, seen.ours, seen.last_seq), (Some(40), table.ours, u64::MAX));
    assert!(seen.has_past_columns);
    assert_eq!((seen.seqs, seen.later.is_none()), (table.seqs, true));
    assert_eq!(seen.tail, table.tail);
    let (before, after) = (table.metadata.unwrap(), Arc::clone(seen.metadata.as_ref().unwrap()));
    assert_eq!(after.snapshot_by_id(40), before.snapshot_by_id(40));
    assert_eq!(after.current_snapshot(), before.current_snapshot());
    assert_eq!(after.snapshots().len(), 2);
    assert_eq!(after.current_schema(), before.current_schema());
    assert_eq!(after.schema_by_id(0), before.schema_by_id(0));
    assert_eq!(after.properties(), before.properties());
    assert!(bytes < 4_000, "{bytes}");
}

#[test]
fn a_long_tail_is_sent_in_little_and_whole() {
    let in_file = |file: &str, position| {
        let path = Arc::new(PathBuf::from(file));
        RecordRef { path, ..record(position) }
    };
    let first = (1..1_001).map(|position| in_file("/data/wal/1.log", position));
    let second = (1_001..1_003).map(|position| in_file("/data/wal/2.log", position));
    let tail: Vec<RecordRef> = first.chain(second).collect();
    let mut view = View::of("a".to_owned());
    view.tables.push(TableView {
        name: "events".to_owned(),
        metadata: None,
        snapshot_id: None,
        has_past_columns: false,
        ours: Some(RecordKind::Events),
        tail: tail.clone(),
        last_seq: 0,
        metadata_location: None,
        inspected: Vec::new(),
        seqs: None,
        later: None,
    });
    let (found, bytes) = sent(&view);
    assert_eq!(found.tables[0].tail, tail);
    assert!(bytes < 100 * tail.len(), "{bytes}");
}

#[test]
fn a_table_without_metadata_is_sent_too() {
    let mut view = View::of("a".to_owned());
    let (name, ours) = ("events".to_owned(), Some(RecordKind::Events));
    let table = TableView {
        name,
        metadata: None,
        snapshot_id: None,
        has_past_columns: false,
        ours,
        tail: Vec::new(),
        last_seq: 0,
        metadata_location: None,
        inspected: Vec::new(),
        seqs: None,
        later: None,
    };
    view.tables.push(table);
    let (found, _) = sent(&view);
    let ours =
        ServiceTableView::of(found.table("events").unwrap(), &ServiceTables::default()).unwrap();
    assert_eq!(ours.table.kind, SERVICE_TABLES[0].kind);
    assert!(ours.fit.missing.is_empty() && ours.fit.left_out.is_empty());
}

#[test]
fn all_of_the_metadata_is_sent_where_a_metadata_table_is_read() {
    let table = TableView {
        name: "t".to_owned(),
        metadata: Some(Arc::new(metadata())),
        snapshot_id: Some(40),
        has_past_columns: false,
        ours: None,
        tail: Vec::new(),
        last_seq: 0,
        metadata_location: Some("file:///w/t/metadata/7.json".to_owned()),
        inspected: vec![MetadataTable::Snapshots],
        seqs: None,
        later: None,
    };
    let mut view = View::of("a".to_owned());
    view.namespace_mut("b").0.push(table.clone());
    let (found, _) = sent(&view);
    let seen = &found.others.first().unwrap().tables[0];
    let after = seen.metadata.as_ref().unwrap();
    assert_eq!((after.snapshots().len(), after.history().len()), (100, 100));
    assert_eq!(seen.metadata_location, table.metadata_location);
    assert_eq!(seen.inspected, table.inspected);
}
