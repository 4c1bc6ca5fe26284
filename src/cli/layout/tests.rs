use crate::cli::{
    ingest::FileFormat,
    layout::{
        event::{EventId, LayoutEvent, RowReader},
        folder::{FileKind, FilePlace, FileRole, LayoutFile, LayoutFolder, role_of},
        identity::RowCounts,
        manifest,
        progress::{ImportProgress, ImportTarget},
        report::EventCounts,
        rows::FileRows,
    },
};
use arrow::{
    array::{ArrayRef, BinaryArray, Decimal128Array},
    record_batch::RecordBatch,
};
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};
use std::{fs, path::Path, sync::Arc};

fn place(path: &str) -> FilePlace {
    match role_of(&path.split('/').collect::<Vec<&str>>()) {
        FileRole::Rows(place) => place,
        other => panic!("{path}: {other:?}"),
    }
}

#[test]
fn the_place_of_a_file_says_what_it_is() {
    let check = |path: &str, expected: &str| {
        let told = match role_of(&path.split('/').collect::<Vec<&str>>()) {
            FileRole::Rows(place) => {
                let FilePlace { kind, namespace, collection, group, layer, hour } = place;
                let of = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
                let (namespace, collection, hour) = (of(namespace), of(collection), of(hour));
                format!("{kind:?} {namespace} {collection} {group} {layer} {hour}")
            }
            FileRole::Manifest => "manifest".to_owned(),
            FileRole::Aside(_) => "aside".to_owned(),
            FileRole::Unknown(reason) => reason,
        };
        assert!(told.contains(expected), "{path}: {told}");
    };
    let day = "events/2026/11/20";
    check("events/2026/11/20/14/a.parquet", "Events - - events/2026/11/20 0 2026-11-20T14:00:00Z");
    check("2026/1/2/3/a.jsonl.gz", "Events - - 2026/1/2 0 2026-01-02T03:00:00Z");
    check(
        &format!("{day}/14/_compact_a.parquet"),
        &format!("{day}/14/_compact_a.parquet 1 2026-11-20T14"),
    );
    check(
        &format!("{day}/_compact_a.parquet"),
        &format!("{day}/_compact_a.parquet 2 2026-11-20T00"),
    );
    check("webhooks/2026/11/20/14/a.parquet", "Events - - webhooks/2026/11/20 0");
    check("ns/acme/events/2026/11/20/14/a.jsonl", "Events acme - ns/acme/events/2026/11/20 0");
    check("cdc/w/users/data.parquet", "Documents w users cdc/w/users/Documents 0 -");
    check("cdc/w/users/deltas/001.parquet", "Deltas w users cdc/w/users/Deltas 0 -");
    let compacted = "cdc/w/users/deltas/_compact_1.parquet";
    check(compacted, &format!("Deltas w users {compacted} 1 -"));
    check("cdc/w/users/processed/001.jsonl", "Deltas w users cdc/w/users/Deltas 2 -");
    check("ns/acme/cdc/users/data.parquet", "Documents acme users ns/acme/cdc/users/Documents");
    check("ns/acme/cdc/w/users/data.parquet", "Documents w users ns/acme/cdc/w/users/Documents");
    check(
        "dead-letter/queue/2026-11-20/m.json",
        "DeadLetters - - dead-letter/queue/2026-11-20/m.json 0",
    );
    check("cdc/w/users/manifest.json", "manifest");
    check("cdc/w/users/snapshots/2026-11.parquet", "aside");
    check("dedup/01J", "aside");
    check("events/2026/11/20/14/a.csv", "does not end in");
    check("events/2026/13/20/14/a.parquet", "not at a place of the layout");
    check("events/2026/11/20/25/a.parquet", "not at a place of the layout");
    check("notes.txt", "not at a place of the layout");
    check("cdc/users/data.parquet", "cdc/NS/COLLECTION");
    check("ns/…/events/2026/11/20/14/a.jsonl", "is not a namespace");
}

fn events(path: &str, row: &Value) -> Vec<LayoutEvent> {
    let place = place(path);
    let is_table = path.ends_with(".parquet");
    RowReader { place: &place, is_table, namespace: None }.events(row.to_string().as_bytes())
}

fn event(path: &str, row: &Value) -> LayoutEvent {
    let mut events = events(path, row);
    assert_eq!(events.len(), 1, "{events:?}");
    events.remove(0)
}

fn said(event: &LayoutEvent) -> Value {
    serde_json::from_str(&event.text).unwrap()
}

const RAW: &str = "events/2026/11/20/14/a.jsonl";
const TABLE: &str = "events/2026/11/20/14/_compact_a.parquet";

#[test]
fn all_copies_of_an_event_are_the_same() {
    let line = json!({ "type": "rpc.call", "timestamp": 1_795_183_200_250_i64, "durationMs": 1.50,
        "correlationId": "c", "do": { "class": "Cart", "id": null }, "data": { "a": [1, null], "b": 2 },
        "source": null });
    let first = event(RAW, &line);
    assert!(matches!(first.id, EventId::Content(_)), "{first:?}");
    assert_eq!(
        said(&first),
        json!({ "type": "rpc.call", "ts": "2026-11-20T14:00:00.250000Z", "duration_ms": 1.5,
            "correlation_id": "c", "do_class": "Cart", "data": { "a": [1, null], "b": 2 } })
    );
    for copy in [
        json!({ "type": "rpc.call", "ts": "2026-11-20T14:00:00.25Z", "duration_ms": 1.5,
            "correlation_id": "c", "do_class": "Cart", "data": "{\"b\":2,\"a\":[1,null]}" }),
        json!({ "type": "rpc.call", "ts": "2026-11-20T14:00:00.25Z", "payload": line.to_string() }),
    ] {
        assert_eq!(event(TABLE, &copy).id, first.id, "{copy}");
    }
    let message = json!({ "messageId": "m", "attempts": 3, "error": "x", "timestamp": "…",
        "body": { "batchId": "b", "receivedAt": "…", "events": [line, { "id": "own", "type": "t" }] } });
    let letters = events("dead-letter/queue/2026-11-20/m.json", &message);
    assert_eq!((letters.len(), &letters[0].id, &letters[1].id), (2, &first.id, &EventId::Own));
    let another = json!({ "type": "rpc.call", "timestamp": 1_795_183_200_251_i64 });
    assert_ne!(event(RAW, &another).id, first.id);
}

#[test]
fn an_event_is_sent_with_what_it_has_and_its_folder_says() {
    let check = |path: &str, row: Value, expected: Value| {
        assert_eq!(said(&event(path, &row)), expected, "{row}");
    };
    // Its hour, where it has no time.
    check(RAW, json!({ "type": "t" }), json!({ "type": "t", "ts": "2026-11-20T14:00:00Z" }));
    // The body of a webhook is not the event.
    check(
        TABLE,
        json!({ "type": "webhook.stripe", "ts": "2026-11-20T14:00:00Z",
            "payload": "{\"id\":\"evt_1\",\"type\":\"invoice.paid\"}" }),
        json!({ "type": "webhook.stripe", "ts": "2026-11-20T14:00:00.000000Z",
            "data": { "id": "evt_1", "type": "invoice.paid" } }),
    );
    // In words of others it stays what it is.
    let cloud =
        json!({ "specversion": "1.0", "id": "1", "source": "/a", "type": "t", "time": "…" });
    check(RAW, cloud.clone(), cloud);
    let letter = json!({ "no": "event" });
    check("dead-letter/queue/2026-11-20/m.json", letter.clone(), letter);
    // A row of our own table.
    let ours = json!({ "id": "e", "type": "t", "ts": "2026-11-20T14:00:00Z", "ns": "a", "seq": 17,
        "ingested_at": "2026-11-20T14:00:01Z", "payload": "{\"type\":\"t\",\"x\":1}",
        "bookmark": "00000000-00000011-00000000-00000000000000000000000000000001" });
    let sent = json!({ "id": "e", "type": "t", "ts": "2026-11-20T14:00:00Z", "ns": "a",
        "icecore_event": "{\"type\":\"t\",\"x\":1}" });
    check(TABLE, ours.clone(), sent.clone());
    let place = place(TABLE);
    let reader = RowReader { place: &place, is_table: true, namespace: Some("b") };
    let there = said(&reader.events(ours.to_string().as_bytes())[0]);
    assert_eq!((&there["ns"], &there["id"]), (&Value::Null, &json!("e")));
}

#[test]
fn equal_words_in_two_namespaces_are_two_events_also_where_all_go_to_one() {
    let id = |path: &str, row: Value, namespace: Option<&str>| {
        let place = place(path);
        let reader = RowReader { place: &place, is_table: false, namespace };
        reader.events(row.to_string().as_bytes()).remove(0).id
    };
    let (plain, named) = (json!({ "type": "t" }), json!({ "type": "t", "ns": "acme" }));
    let (acme, other) =
        ("ns/acme/events/2026/11/20/14/a.jsonl", "ns/other/events/2026/11/20/14/a.jsonl");
    for namespace in [None, Some("all")] {
        let first = id(acme, plain.clone(), namespace);
        assert_ne!(id(other, plain.clone(), namespace), first);
        assert_eq!(id(RAW, named.clone(), namespace), first);
    }
    let document = json!({ "id": "7", "name": "Ada" });
    let of = |path: &str| id(path, document.clone(), Some("all"));
    assert_ne!(of("cdc/a/users/data.parquet"), of("cdc/b/users/data.parquet"));
}

#[test]
fn a_row_keeps_what_the_event_in_it_lacks() {
    let row = json!({ "type": "t", "ts": "2026-11-20T14:00:00Z", "id": "e", "ns": "acme",
        "payload": "{\"type\":\"\\u0074\",\"x\":1}" });
    assert_eq!(
        said(&event(TABLE, &row)),
        json!({ "type": "t", "ts": "2026-11-20T14:00:00.000000Z", "id": "e", "ns": "acme", "x": 1 })
    );
}

#[test]
fn words_of_databases_do_not_make_an_event_with_a_type_theirs() {
    let line =
        json!({ "type": "order.paid", "timestamp": 1_795_183_200_000_i64, "transaction": "t" });
    let columns =
        json!({ "type": "order.paid", "ts": "2026-11-20T14:00:00.000Z", "transaction": "t" });
    assert_eq!(event(RAW, &line).id, event(TABLE, &columns).id);
    let record = json!({ "op": "c", "source": { "table": "users" }, "after": { "id": 7 } });
    assert_eq!(said(&event(RAW, &record)), record);
}

#[test]
fn events_that_share_a_line_have_an_id_each() {
    let place = place(RAW);
    let reader = RowReader { place: &place, is_table: false, namespace: None };
    let events = reader.events(b"{\"type\":\"a\"} {\"type\":\"b\"},{\"type\"");
    let alone = event(RAW, &json!({ "type": "b" }));
    assert_eq!((events.len(), &events[1]), (3, &alone), "{events:?}");
    assert_eq!((&*events[2].text, &events[2].id), ("{\"type\"", &EventId::Own));
    // A name that no text can be is not ours to read, and the server's to take.
    let odd = reader.events(b"{\"type\":\"a\",\"\\ud800\":1}").remove(0);
    assert!(matches!(odd.id, EventId::Content(_)), "{odd:?}");
    assert!(reader.events(b"  ").is_empty());
}

#[test]
fn what_is_no_event_is_sent_for_the_server_to_refuse() {
    for text in ["{\"type\":", "just text", "7"] {
        let place = place(RAW);
        let events =
            RowReader { place: &place, is_table: false, namespace: None }.events(text.as_bytes());
        assert_eq!((events.len(), events[0].line(None)), (1, format!("{text}\n")));
    }
}

#[test]
fn a_delta_is_the_change_that_the_events_have() {
    let delta = json!({ "op": "update", "pk": "7", "ts": "2026-11-20T14:00:00Z", "bookmark": "b",
        "data": "{\"n\":1}", "prev": "{\"n\":0}" });
    let delta = event("cdc/w/users/deltas/001.parquet", &delta);
    assert_eq!(
        said(&delta),
        json!({ "op": "update", "key": "7", "ts": "2026-11-20T14:00:00.000000Z", "bookmark": "b",
            "after": { "n": 1 }, "before": { "n": 0 }, "collection": "users" })
    );
    let change = json!({ "id": "e", "type": "collection.update", "collection": "users", "docId": "7",
        "doc": { "n": 1 }, "bookmark": "b", "ts": "2026-11-20T14:00:00Z" });
    assert_eq!(event(RAW, &change).change, delta.change);
    assert!(delta.change.is_some());
    // Of bookmarks that only count, another namespace has the same.
    let mut another = change;
    another["ts"] = json!("2026-11-20T14:00:01Z");
    assert_ne!(event(RAW, &another).change, delta.change);
    let deleted = |path: &str, more: Value| {
        let mut row = json!({ "op": "delete", "ts": "2026-11-20T14:00:00Z", "ns": "w" });
        row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        event(path, &row).change.unwrap()
    };
    let (pk, own) = (json!({ "pk": "7" }), json!({ "key": "7", "table": "users" }));
    assert_eq!(deleted("cdc/w/users/deltas/001.parquet", pk), deleted(RAW, own));
}

#[test]
fn a_document_becomes_a_read_whose_id_is_its_state() {
    let path = "cdc/w/users/data.parquet";
    let flat = json!({ "id": "7", "name": "Ada", "updatedAt": "2026-11-20T14:00:00Z" });
    let first = event(path, &flat);
    assert_eq!(
        said(&first),
        json!({ "collection": "users", "key": "7", "op": "r", "ts": "2026-11-20T14:00:00.000000Z",
            "after": { "name": "Ada", "updatedAt": "2026-11-20T14:00:00Z" } })
    );
    let later = json!({ "id": "7", "name": "Ada", "updatedAt": "2026-11-20T15:00:00Z" });
    assert!(matches!(first.id, EventId::Given(_)));
    assert_ne!(event(path, &later).id, first.id);
    let mut whole = json!({ "pk": 7, "data": "{\"name\":\"Ada\"}", "version": 3 });
    assert_eq!(
        said(&event(path, &whole)),
        json!({ "collection": "users", "key": "7", "op": "r", "version": 3, "after": { "name": "Ada" } })
    );
    let list = json!({ "id": "7", "events": [{ "type": "t" }] });
    assert_eq!(said(&event(path, &list))["after"], json!({ "events": [{ "type": "t" }] }));
    // The number of a form that stays is no version of the document.
    let before = event(path, &whole).id;
    whole["data"] = json!("{\"name\":\"Bo\"}");
    assert_ne!(event(path, &whole).id, before);
}

#[test]
fn equal_rows_of_a_layer_are_told_apart_and_copies_are_not() {
    let mut counts = RowCounts::default();
    let mut ids = |layer: u8| {
        counts.enter("day", layer);
        [7, 7, 8, 7].map(|content| counts.id(content).unwrap())
    };
    let raw = ids(0);
    assert_eq!(raw[1], format!("{}-2", raw[0]));
    assert_eq!(raw[3], format!("{}-3", raw[0]));
    assert_eq!(ids(1), raw);
}

#[test]
fn files_come_in_the_order_in_which_copies_are_known() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "{\"type\":\"t\"}\n\n{\"type\":\"u\"}\n").unwrap();
    };
    let names = [
        "dead-letter/queue/2026-11-20/m.jsonl",
        "cdc/w/users/deltas/001.jsonl",
        "events/2026/11/20/_compact_c.jsonl",
        "events/2026/11/20/14/_compact_b.jsonl",
        "events/2026/11/20/15/a.jsonl",
        "events/2026/11/20/14/b.jsonl",
        "events/odd.jsonl",
        "dedup/1",
    ];
    names.iter().for_each(|name| write(name));
    fs::write(folder.path().join("manifest.json"), "{\"files\":[\"events/gone.parquet\"]}")
        .unwrap();
    let found = LayoutFolder::open(folder.path()).unwrap();
    let order: Vec<&str> = found.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(order, [names[5], names[4], names[3], names[2], names[1], names[0]]);
    assert_eq!((found.skipped.len(), found.skipped[0].0.as_str()), (1, "events/odd.jsonl"));
    assert_eq!(found.aside.values().sum::<u64>(), 1);
    let remarks = manifest::remarks(folder.path(), &found);
    assert!(remarks.len() == 1 && remarks[0].reason.contains("events/gone.parquet"), "{remarks:?}");
    let rows = FileRows::open(&found.files[0].path, FileFormat::Ndjson).unwrap();
    let places: Vec<u64> = rows.map(|row| row.unwrap().place).collect();
    assert_eq!(places, [1, 3]);
}

#[test]
fn known_columns_are_read_as_the_json_of_an_event_has_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let bytes = |bytes: &[u8]| -> ArrayRef { Arc::new(BinaryArray::from_vec(vec![bytes])) };
    let decimal = || -> ArrayRef {
        Arc::new(Decimal128Array::from(vec![150]).with_precision_and_scale(9, 2).unwrap())
    };
    let batch = RecordBatch::try_from_iter([
        ("type", bytes(b"t")),
        ("payload", bytes(b"{\"type\":\"t\"}")),
        ("actor", bytes(b"\xff")),
        ("blob", bytes(b"t")),
        ("durationMs", decimal()),
        ("price", decimal()),
    ])
    .unwrap();
    let file = fs::File::create(&path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let row = FileRows::open(&path, FileFormat::Parquet).unwrap().next().unwrap().unwrap();
    assert_eq!(
        serde_json::from_slice::<Value>(&row.text).unwrap(),
        json!({ "type": "t", "payload": "{\"type\":\"t\"}", "actor": "/w==", "blob": "dA==",
            "durationMs": 1.5, "price": "1.50" })
    );
}

#[test]
fn a_torn_note_is_as_none_and_another_target_begins_anew() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("bucket");
    let notes = parent.path().join("bucket.icecore-progress");
    let file = |name: &str| LayoutFile {
        path: folder.join(name),
        name: name.to_owned(),
        place: FilePlace {
            kind: FileKind::Events,
            namespace: None,
            collection: None,
            group: String::new(),
            layer: 0,
            hour: None,
        },
        format: FileFormat::Ndjson,
        bytes: 10,
        modified_ms: 20,
    };
    let target = |url: &str| ImportTarget { url: url.to_owned(), ns: None };
    let counts = EventCounts { events: 5, accepted: 4, duplicates: 1, ..EventCounts::default() };
    let open = |url: &str| ImportProgress::open(Path::new(&folder), &target(url)).unwrap();
    let mut progress = open("a");
    assert_eq!(progress.sent(&file("x")), None);
    progress.note(&file("x"), counts).unwrap();
    progress.note(&file("y"), counts).unwrap();
    drop(progress);
    let noted = fs::read(&notes).unwrap();
    fs::write(&notes, &noted[..noted.len() - 3]).unwrap();
    let mut progress = open("a");
    assert_eq!((progress.sent(&file("x")), progress.sent(&file("y"))), (Some(counts), None));
    assert_eq!(progress.sent(&LayoutFile { modified_ms: 21, ..file("x") }), None);
    progress.note(&file("y"), counts).unwrap();
    drop(progress);
    assert_eq!(fs::read(&notes).unwrap(), noted);
    let progress = open("b");
    assert_eq!(progress.sent(&file("x")), None);
    progress.end().unwrap();
    assert!(!notes.exists());
}
