//! Changes of databases as Debezium, TiCDC and CockroachDB send them: as many rows as there were
//! changes, whatever is sent again, and no record that stops its connector.

use crate::harness::TestServer;
use icecore_catalog::metastore::Metastore;
use icecore_lake::clock::Clock;
use serde_json::{Value, json};
use std::{fs, path::Path};

/// Half past nine in the evening of 2026-11-28, UTC.
const NOW_MS: i64 = 1_795_901_400_000;

const ROWS_OF_SNAPSHOT: usize = 3;

/// A connector: what it is called, and its `source` for the change at a place of its log.
struct Connector {
    name: &'static str,
    source: fn(u64) -> Value,
    /// The members of `source` that a row of the snapshot has in other ways.
    snapshot: fn() -> Value,
}

/// Every connector, with the members that its documentation lists.
const CONNECTORS: &[Connector] = &[
    Connector {
        name: "postgresql",
        source: |n| json!({ "db": "shop", "schema": "public", "table": "orders", "txId": 500 + n, "lsn": 24_000_000 + n, "xmin": null, "sequence": format!("[null,\"{}\"]", 24_000_000 + n) }),
        snapshot: || json!({ "lsn": 23_999_000, "txId": 499, "sequence": "[null,\"23999000\"]" }),
    },
    Connector {
        name: "yugabytedb",
        source: |n| json!({ "db": "shop", "schema": "public", "table": "orders", "txId": "", "lsn": format!("1:{}::0:0", n + 3), "sequence": format!("[\"1:2::0:0\",\"1:{}::0:0\"]", n + 3), "tablet_id": "t1" }),
        snapshot: || json!({ "lsn": "1:2::0:0", "sequence": "[null,\"1:2::0:0\"]" }),
    },
    Connector {
        name: "mysql",
        source: |n| json!({ "db": "shop", "table": "orders", "server_id": 223_344, "gtid": format!("3e11fa47:{n}"), "file": "mysql-bin.000003", "pos": 400 + 50 * n, "row": 0, "thread": 7, "query": null }),
        snapshot: || json!({ "server_id": 0, "gtid": null, "pos": 154 }),
    },
    Connector {
        name: "mariadb",
        source: |n| json!({ "db": "shop", "table": "orders", "server_id": 1, "gtid": format!("0-1-{n}"), "file": "mariadb-bin.000003", "pos": 400 + 50 * n, "row": 0, "thread": 7, "query": null }),
        snapshot: || json!({ "server_id": 0, "gtid": null, "pos": 154 }),
    },
    // Three changes a second, the last of which has the order of the next second's first.
    Connector {
        name: "mongodb",
        source: |n| json!({ "db": "shop", "rs": "rs0", "collection": "orders", "ord": 1, "lsid": null, "txnNumber": null, "wallTime": NOW_MS as u64 - 900_000 + 1_000 * n, "ts_ms": NOW_MS as u64 - 900_000 + 1_000 * n }),
        snapshot: || json!({ "ord": 5, "wallTime": null }),
    },
    Connector {
        name: "oracle",
        source: |n| json!({ "db": "ORCLPDB1", "schema": "SHOP", "table": "ORDERS", "txId": "6.28.807", "scn": "2122184", "commit_scn": "2122190", "lcr_position": null, "rs_id": "001234.00012345.0124", "ssn": n, "redo_thread": 1, "user_name": "SHOP", "row_id": "AAAR3" }),
        snapshot: || json!({ "scn": "2122000", "commit_scn": null, "rs_id": null, "ssn": 0, "txId": null }),
    },
    Connector {
        name: "sqlserver",
        source: |n| json!({ "db": "shop", "schema": "dbo", "table": "orders", "change_lsn": format!("00000027:00000758:{n:04x}"), "commit_lsn": "00000027:00000758:ffff", "event_serial_no": 1 }),
        snapshot: || json!({ "change_lsn": null, "commit_lsn": "00000027:00000700:0001", "event_serial_no": null }),
    },
    Connector {
        name: "db2",
        source: |n| json!({ "db": "shop", "schema": "S", "table": "ORDERS", "change_lsn": format!("00000000:00000000:0000{n:04x}"), "commit_lsn": "00000027:00000758:ffff" }),
        snapshot: || json!({ "change_lsn": null }),
    },
    Connector {
        name: "informix",
        source: |n| json!({ "db": "shop", "schema": "informix", "table": "orders", "change_lsn": (8_589_934_592_u64 + n).to_string(), "commit_lsn": "8589939999", "txId": "9", "begin_lsn": "8589934590" }),
        snapshot: || json!({ "change_lsn": null, "commit_lsn": "8589930000" }),
    },
    Connector {
        name: "cassandra",
        source: |n| json!({ "cluster": "c1", "file": "CommitLog-6-1.log", "pos": 100 + n, "keyspace": "shop", "table": "orders" }),
        snapshot: || json!({ "file": "", "pos": -1 }),
    },
    Connector {
        name: "vitess",
        source: |n| json!({ "db": "", "keyspace": "shop", "table": "orders", "shard": "-80", "vgtid": format!("[{{\"keyspace\":\"shop\",\"shard\":\"-80\",\"gtid\":\"MySQL56/a4:1-{n}\"}}]") }),
        snapshot: || json!({ "vgtid": "[{\"keyspace\":\"shop\",\"shard\":\"-80\",\"gtid\":\"MySQL56/a4:1-0\"}]" }),
    },
    Connector {
        name: "spanner",
        source: |n| json!({ "project_id": "p", "instance_id": "i", "database_id": "shop", "change_stream_name": "s", "table": "orders", "server_transaction_id": "NzE0", "low_watermark": 0, "read_at_timestamp": 0, "record_sequence": "00000001", "mod_number": n, "partition_token": "t", "is_last_record_in_transaction_in_partition": false }),
        snapshot: || json!({}),
    },
    Connector {
        name: "TiCDC",
        source: |n| json!({ "db": "shop", "table": "orders", "server_id": 0, "gtid": null, "file": "", "pos": 0, "row": 0, "thread": 0, "query": null, "commit_ts": 447_507_027_004_751_877_u64 + n, "cluster_id": "default" }),
        snapshot: || json!({}),
    },
    Connector {
        name: "cockroachdb",
        source: |n| json!({ "db": "shop", "schema": "public", "table": "orders", "cluster": "c", "resolved_ts": "0", "ts_hlc": format!("1745525261013511{n:03}.0000000000") }),
        snapshot: || json!({}),
    },
];

/// In which form a connector's records are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Bare,
    /// Kafka Connect's JSON converter with schemas.
    Wrapped,
    /// Of the times, only the one of old versions.
    Milliseconds,
    CloudEventData,
    /// Debezium's own converter.
    Converter,
    /// The transformation `ExtractNewRecordState`.
    Flat,
}

/// Records of a connector from a snapshot on, made at a time; the position in the log counts from the
/// first change.
struct Stream {
    connector: &'static Connector,
    form: Form,
    now_ms: i64,
    records: Vec<Value>,
    changes: usize,
    place: u64,
}

impl Stream {
    /// A snapshot, changes with equal records again and again, a changed key, and all that is no change.
    fn of(connector: &'static Connector, form: Form, now_ms: i64) -> Self {
        let mut stream =
            Self { connector, form, now_ms, records: Vec::new(), changes: 0, place: 0 };
        for id in 1..=ROWS_OF_SNAPSHOT as u32 {
            stream.change("r", Value::Null, row(id, "old"));
        }
        stream.other(json!({ "ts_ms": now_ms }));
        for (before, after) in [("old", "a"), ("a", "b"), ("b", "a"), ("a", "b"), ("b", "a")] {
            stream.change("u", row(1, before), row(1, after));
        }
        stream.other(json!({ "status": "BEGIN", "id": "571:53195829", "ts_ms": now_ms, "event_count": null, "data_collections": null }));
        for _ in 0..3 {
            stream.change("c", Value::Null, row(4, "new"));
            stream.change("d", row(4, "new"), Value::Null);
            stream.other(Value::Null);
        }
        stream.other(json!({ "status": "END", "id": "571:53195829", "ts_ms": now_ms, "event_count": 6, "data_collections": [{ "data_collection": "public.orders", "event_count": 6 }] }));
        // A new key: the row is deleted and made at one place of the log.
        stream.change("d", row(2, "old"), Value::Null);
        stream.other(Value::Null);
        stream.place -= 1;
        stream.change("c", Value::Null, row(22, "old"));
        stream.envelope_without_row("t", json!({}));
        stream
            .envelope_without_row("m", json!({ "message": { "prefix": "p", "content": "Ymfy" } }));
        let mut schema_change = json!({ "source": stream.source("u"), "ts_ms": now_ms, "databaseName": "shop", "schemaName": null, "ddl": "ALTER TABLE orders ADD c int", "tableChanges": [] });
        if form == Form::Milliseconds {
            schema_change.as_object_mut().unwrap().remove("schemaName");
        }
        stream.other(schema_change);
        stream.other(json!({ "schema": null, "payload": null }));
        stream
    }

    fn source(&self, op: &str) -> Value {
        let mut source = json!({ "version": "3.0.0.Final", "connector": self.connector.name, "name": "shop", "ts_ms": NOW_MS - 700_000, "snapshot": "false" });
        extend(&mut source, (self.connector.source)(self.place));
        if op == "r" {
            extend(&mut source, (self.connector.snapshot)());
            // A snapshot's time is when its row was read.
            extend(&mut source, json!({ "snapshot": "true", "ts_ms": self.now_ms - 1 }));
        }
        if self.form != Form::Milliseconds {
            let ms = source["ts_ms"].as_i64().unwrap();
            extend(&mut source, json!({ "ts_us": ms * 1_000, "ts_ns": ms * 1_000_000 }));
        }
        source
    }

    fn change(&mut self, op: &str, before: Value, after: Value) {
        if op != "r" {
            self.place += 1;
        }
        let envelope = self.envelope(op, [before, after]);
        let record = match self.form {
            Form::Converter => self.converted(&envelope),
            Form::Flat => flat(&envelope),
            _ => envelope,
        };
        self.push(record);
        self.changes += 1;
    }

    fn envelope(&self, op: &str, images: [Value; 2]) -> Value {
        let [before, after] = images;
        let processed = self.now_ms + self.records.len() as i64;
        let mut envelope = json!({ "before": before, "after": after, "source": self.source(op), "op": op, "ts_ms": processed, "transaction": null });
        if self.form != Form::Milliseconds {
            let finer = json!({ "ts_us": processed * 1_000, "ts_ns": processed * 1_000_000 + 7 });
            extend(&mut envelope, finer);
        }
        envelope
    }

    fn envelope_without_row(&mut self, op: &str, more: Value) {
        self.place += 1;
        let mut envelope = self.envelope(op, [Value::Null, Value::Null]);
        extend(&mut envelope, more);
        self.other(envelope);
    }

    fn converted(&self, envelope: &Value) -> Value {
        let source = &envelope["source"];
        let mut event = json!({
            "id": format!("name:shop;place:{}", if envelope["op"] == "r" { 0 } else { self.place }),
            "source": "/debezium/x/shop", "specversion": "1.0", "type": "io.debezium.x.DataChangeEvent",
            "time": format!("2026-11-28T20:{:02}:{:02}.000Z", self.now_ms / 60_000 % 60, self.records.len() % 60),
            "datacontenttype": "application/json", "iodebeziumop": envelope["op"],
            "data": { "before": envelope["before"], "after": envelope["after"] },
        });
        for (name, value) in source.as_object().unwrap() {
            let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
            let value = match value {
                Value::Null => Value::Null,
                Value::String(text) => json!(text),
                other => json!(other.to_string()),
            };
            extend(&mut event, json!({ format!("iodebezium{}", name.to_lowercase()): value }));
        }
        event
    }

    fn other(&mut self, record: Value) {
        self.push(record);
    }

    fn push(&mut self, record: Value) {
        let number = self.records.len();
        let is_tombstone = record.is_null() || record.get("payload").is_some();
        self.records.push(match self.form {
            Form::Wrapped if !is_tombstone => json!({ "schema": { "type": "struct", "name": "x.Envelope", "at": self.now_ms }, "payload": record }),
            Form::CloudEventData if record.get("op").is_some() => json!({ "specversion": "1.0", "id": format!("{}-{number}", self.place), "source": "/bridge", "type": "row.changed", "data": record }),
            _ => record,
        });
    }

    fn lines(&self, from: usize) -> String {
        self.records[from..].iter().map(|record| format!("{record}\n")).collect()
    }
}

fn row(id: u32, value: &str) -> Value {
    json!({ "id": id, "v": value })
}

fn extend(object: &mut Value, more: Value) {
    if let Value::Object(more) = more {
        object.as_object_mut().unwrap().extend(more);
    }
}

/// The row of an envelope with everything of `source` that was asked for.
fn flat(envelope: &Value) -> Value {
    let is_deleted = envelope["op"] == "d";
    let mut row = envelope[if is_deleted { "before" } else { "after" }].clone();
    extend(
        &mut row,
        json!({ "__op": envelope["op"], "__deleted": is_deleted.to_string(), "__ts_ms": envelope["ts_ms"] }),
    );
    for (name, value) in envelope["source"].as_object().unwrap() {
        let prefix = if name.starts_with("ts_") { "__source_" } else { "__" };
        extend(&mut row, json!({ format!("{prefix}{name}"): value }));
    }
    row
}

async fn send(server: &TestServer, namespace: &str, media: &str, body: String) -> (u16, Value) {
    let request = server.http.post(format!("{}/ingest", server.url));
    let request = request.header("x-namespace", namespace).header("content-type", media);
    let response = request.body(body).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

async fn taken(server: &TestServer, namespace: &str, lines: String) -> Value {
    let (status, reply) = send(server, namespace, "application/x-ndjson", lines).await;
    assert_eq!((status, &reply["ok"]), (200, &json!(true)), "{namespace}: {reply}");
    reply
}

/// Changes, their ids, and dead letters.
async fn counts(server: &TestServer, namespace: &str) -> Value {
    let changes = "SELECT count(*), count(DISTINCT id) FROM events WHERE op IS NOT NULL";
    let changes = server.rows(namespace, changes).await;
    assert_eq!(changes[0][0], changes[0][1], "{namespace}");
    changes[0][0].clone()
}

async fn server_at(now_ms: i64) -> TestServer {
    TestServer::start_at(tempfile::tempdir().unwrap(), &[], Clock::manual(now_ms)).await
}

/// A stream, the second half of it again by a connector that was restarted, and what comes after.
async fn check_stream(server: &TestServer, connector: &'static Connector, form: Form) {
    let namespace = format!("{}-{form:?}", connector.name).to_lowercase();
    let first = Stream::of(connector, form, NOW_MS);
    taken(server, &namespace, first.lines(0)).await;
    assert_eq!(counts(server, &namespace).await, first.changes, "{namespace}");
    let mut again = Stream::of(connector, form, NOW_MS + 60_000);
    // Where a snapshot's rows have no position, one that is read again is another row.
    let from = if connector.name == "cassandra" { ROWS_OF_SNAPSHOT } else { 0 };
    for start in [again.records.len() / 2, from] {
        taken(server, &namespace, again.lines(start)).await;
        assert_eq!(counts(server, &namespace).await, first.changes, "{namespace} from {start}");
    }
    taken(server, &namespace, first.lines(0)).await;
    assert_eq!(counts(server, &namespace).await, first.changes, "{namespace} byte for byte");
    let known = again.records.len();
    again.change("u", row(1, "a"), row(1, "b"));
    again.change("u", row(1, "b"), row(1, "a"));
    taken(server, &namespace, again.lines(known - 3)).await;
    assert_eq!(counts(server, &namespace).await, first.changes + 2, "{namespace}");
    let place = "SELECT count(*) FROM events WHERE op IS NOT NULL AND (collection IS NULL OR store IS NULL OR \"key\" IS NULL OR bookmark IS NULL OR lsn = 0)";
    assert_eq!(server.rows(&namespace, place).await, json!([[0]]), "{namespace}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_connectors_changes_are_as_many_rows_whatever_is_sent_again() {
    let server = server_at(NOW_MS).await;
    for connector in CONNECTORS {
        check_stream(&server, connector, Form::Bare).await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_a_change_is_the_same_change() {
    let server = server_at(NOW_MS).await;
    for connector in ["postgresql", "mysql", "mongodb", "TiCDC"] {
        let connector = CONNECTORS.iter().find(|known| known.name == connector).unwrap();
        for form in
            [Form::Milliseconds, Form::Wrapped, Form::CloudEventData, Form::Converter, Form::Flat]
        {
            check_stream(&server, connector, form).await;
        }
    }
    server.stop().await;
}

/// Two events, and how many rows they are.
async fn check_two(server: &TestServer, name: &str, first: &Value, second: &Value, rows: u64) {
    for (at, event) in [first, second].into_iter().enumerate() {
        let (status, reply) = send(server, name, "application/json", event.to_string()).await;
        assert_eq!(status, 200, "{name} {at}: {reply}");
    }
    let count = server.rows(name, "SELECT count(*) FROM events").await;
    assert_eq!(count, json!([[rows]]), "{name}");
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_rows_without_a_key_are_all_kept_where_the_log_tells_them_apart() {
    let server = server_at(NOW_MS).await;
    let source = json!({ "connector": "postgresql", "name": "pg", "db": "d", "schema": "public", "table": "log", "txId": 5, "lsn": 100, "snapshot": "false", "ts_ms": NOW_MS });
    let row = |op: &str, source: &Value, more: Value| {
        let mut event = json!({ "op": op, "before": null, "after": { "m": "boot" }, "source": source, "ts_ms": NOW_MS });
        extend(&mut event, more);
        event
    };
    let order = |n: u32| json!({ "transaction": { "id": "5:100", "total_order": n, "data_collection_order": n } });
    let copied = row("c", &source, order(1));
    check_two(&server, "copy", &copied, &row("c", &source, order(2)), 2).await;
    // Telling transactions makes no new change of a row that stands alone, and no old one of another.
    check_two(&server, "switched-on", &row("c", &source, json!({})), &copied, 1).await;
    let mut later = source.clone();
    extend(&mut later, json!({ "ts_us": NOW_MS * 1_000 + 3 }));
    let snapshot = |source: &Value| {
        let mut source = source.clone();
        extend(&mut source, json!({ "snapshot": "true" }));
        row("r", &source, json!({}))
    };
    check_two(&server, "snapshot", &snapshot(&source), &snapshot(&source), 2).await;
    check_two(&server, "fine-times", &snapshot(&source), &snapshot(&later), 2).await;
    check_two(&server, "retry", &snapshot(&later), &snapshot(&later), 1).await;
    // A position that is always the same is none.
    let nowhere = json!({ "connector": "TiCDC", "name": "t", "db": "d", "table": "log", "file": "", "pos": 0, "row": 0 });
    check_two(
        &server,
        "nowhere",
        &row("c", &nowhere, json!({})),
        &row("c", &nowhere, json!({})),
        2,
    )
    .await;
    let custom = json!({ "connector": "acme", "host": "db1", "table": "log" });
    check_two(&server, "custom", &row("c", &custom, json!({})), &row("c", &custom, json!({})), 2)
        .await;
    let mut at = custom.clone();
    extend(&mut at, json!({ "journal_offset": 7 }));
    check_two(&server, "custom-at", &row("c", &at, json!({})), &row("c", &at, json!({})), 1).await;
    // Documents that are deleted leave nothing to tell them by but the second.
    let deleted = |ms: i64| json!({ "op": "d", "before": null, "after": null, "ts_ms": NOW_MS, "source": { "connector": "mongodb", "db": "d", "collection": "c", "ord": 1, "ts_ms": ms } });
    check_two(&server, "deletes", &deleted(NOW_MS - 2_000), &deleted(NOW_MS - 1_000), 2).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_are_no_changes_have_types_of_their_own() {
    let server = server_at(NOW_MS).await;
    let source = json!({ "connector": "postgresql", "name": "pg", "db": "d", "schema": "s", "table": "t", "lsn": 5, "txId": 2 });
    let plain = [
        (json!({ "ts_ms": NOW_MS }), "debezium.heartbeat"),
        // Long ago, and no reason to refuse it.
        (
            json!({ "ts_ms": 1_700_000_000_000_i64, "ts_us": 1_700_000_000_000_000_i64 }),
            "debezium.heartbeat",
        ),
        (
            json!({ "status": "BEGIN", "id": "571:1", "ts_ms": NOW_MS, "event_count": null, "data_collections": null }),
            "debezium.transaction",
        ),
        (
            json!({ "status": "END", "id": "571:1", "ts_ms": NOW_MS, "event_count": 0, "data_collections": [] }),
            "debezium.transaction",
        ),
        (
            json!({ "source": source, "ts_ms": NOW_MS, "databaseName": "d", "ddl": "DROP TABLE t", "tableChanges": [] }),
            "debezium.schema_change",
        ),
        (json!({ "op": "t", "source": source, "ts_ms": NOW_MS }), "cdc.truncate"),
        (
            json!({ "op": "m", "source": source, "ts_ms": NOW_MS, "message": { "prefix": "p", "content": "Ymfy" } }),
            "debezium.message",
        ),
        (json!({ "op": "zoom", "source": source, "ts_ms": NOW_MS }), "debezium.record"),
        (json!({ "resolved": "1745525261013511000.0000000000" }), "cockroachdb.resolved"),
    ];
    for (record, event_type) in &plain {
        for wrapped in
            [record.clone(), json!({ "schema": { "type": "struct" }, "payload": record })]
        {
            let (status, reply) =
                send(&server, "others", "application/json", wrapped.to_string()).await;
            assert_eq!(status, 200, "{wrapped}: {reply}");
            let seq = &reply["seq"]["last"];
            let sql = format!("SELECT type, payload IS NOT NULL FROM events WHERE seq = {seq}");
            assert_eq!(server.rows("others", &sql).await, json!([[event_type, true]]), "{wrapped}");
        }
    }
    let count = server.rows("others", "SELECT count(*) FROM events").await;
    assert_eq!(count, json!([[plain.len()]]), "a record in a wrapper is the same record");
    let truncate =
        "SELECT store, collection, lsn, op, txid FROM events WHERE type = 'cdc.truncate'";
    assert_eq!(server.rows("others", truncate).await, json!([["d.s", "t", 5, null, "2"]]));
    let row =
        json!({ "schema": { "type": "struct" }, "payload": { "id": 1, "type": "a b", "ts": "x" } });
    let (status, reply) = send(&server, "others", "application/json", row.to_string()).await;
    assert_eq!(status, 200, "{reply}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn debeziums_records_among_cloud_events_are_taken_as_they_are() {
    let server = server_at(NOW_MS).await;
    let media = "application/cloudevents+json";
    for record in [
        json!({ "ts_ms": NOW_MS }),
        json!({ "schema": { "type": "struct" }, "payload": { "ts_ms": NOW_MS } }),
        json!({ "status": "END", "id": "1", "event_count": 0, "data_collections": [] }),
        json!({ "schema": null, "payload": null }),
        Value::Null,
    ] {
        let (status, reply) = send(&server, "among", media, record.to_string()).await;
        assert_eq!(status, 200, "{record}: {reply}");
    }
    let plain = json!({ "id": "1", "type": "t", "source": "/s" });
    assert_eq!(send(&server, "among", media, plain.to_string()).await.0, 400);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tombstones_are_taken_and_nothing_is_stored() {
    let server = server_at(NOW_MS).await;
    for (media, body, events) in [
        ("application/json", "null", 0),
        ("application/json", " null\n", 0),
        ("application/json", "{\"schema\":null,\"payload\":null}", 0),
        ("application/json", "[null,{\"type\":\"a\"},null]", 1),
        ("application/x-ndjson", "null\n{\"type\":\"a\"}\n null \r\n", 1),
    ] {
        let (status, reply) = send(&server, "tombs", media, body.to_owned()).await;
        assert_eq!((status, &reply["ok"]), (200, &json!(true)), "{body}: {reply}");
        let first = reply["seq"]["first"].as_u64().unwrap_or(1);
        assert_eq!(
            reply["seq"]["last"].as_u64().map_or(0, |last| last + 1 - first),
            events,
            "{body}"
        );
    }
    let (status, _) = send(&server, "tombs", "application/json", "nul".to_owned()).await;
    assert_eq!(status, 400);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flattened_rows_are_changes_whatever_their_columns_are_called() {
    let server = server_at(NOW_MS).await;
    let rows = [
        json!({ "id": 1, "type": "premium", "ts": "never", "ns": "n", "source": {}, "__op": "c", "__table": "t", "__lsn": 10, "__source_ts_ms": NOW_MS }),
        json!({ "id": 1, "type": "basic", "ts": "never", "expected_version": 9, "__op": "u", "__table": "t", "__lsn": 11, "__source_ts_ms": NOW_MS }),
        json!({ "id": 1, "type": "basic", "__deleted": "true", "__table": "t", "__lsn": 12 }),
        json!({ "id": 2, "__deleted": "false", "__table": "t", "__lsn": 13 }),
    ];
    for row in &rows {
        for _ in 0..2 {
            let (status, reply) = send(&server, "flat", "application/json", row.to_string()).await;
            assert_eq!(status, 200, "{row}: {reply}");
        }
    }
    let sql = "SELECT type, op, \"key\", collection, lsn, before, after FROM events ORDER BY seq";
    assert_eq!(
        server.rows("flat", sql).await,
        json!([
            [
                "cdc.insert",
                "c",
                "1",
                "t",
                10,
                null,
                "{\"id\":1,\"ns\":\"n\",\"source\":{},\"ts\":\"never\",\"type\":\"premium\"}"
            ],
            [
                "cdc.update",
                "u",
                "1",
                "t",
                11,
                null,
                "{\"expected_version\":9,\"id\":1,\"ts\":\"never\",\"type\":\"basic\"}"
            ],
            ["cdc.delete", "d", "1", "t", 12, "{\"id\":1,\"type\":\"basic\"}", null],
            ["cdc.update", "u", "2", "t", 13, null, "{\"id\":2}"],
        ])
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cockroachdbs_enriched_envelopes_are_changes() {
    let server = server_at(NOW_MS).await;
    let change = |op: &str, id: &str, at: u32, emitted: i64| json!({ "op": op, "before": null, "after": { "id": 9, "sku": id }, "source": { "origin": "cockroachdb", "database_name": "db", "schema_name": "public", "table_name": "products", "primary_keys": ["sku"], "mvcc_timestamp": format!("17455252610135110{at:02}.0000000000"), "ts_hlc": "1745525261013511000.0000000000", "job_id": "1" }, "ts_ns": emitted * 1_000_000 + 5_000 });
    check_two(&server, "crdb", &change("c", "a", 1, NOW_MS), &change("c", "a", 1, NOW_MS + 9), 1)
        .await;
    check_two(&server, "crdb", &change("u", "a", 2, NOW_MS), &change("u", "a", 3, NOW_MS), 3).await;
    let sql = "SELECT store, collection, source, \"key\", lsn, type, cast(ts AS bigint) FROM events ORDER BY seq LIMIT 1";
    let row = server.rows("crdb", sql).await;
    assert_eq!(
        row,
        json!([[
            "db.public",
            "products",
            "cockroachdb",
            "a",
            1_745_525_261_013_511_001_i64,
            "cdc.insert",
            NOW_MS * 1_000 + 5
        ]]),
    );
    // Without `source` it is a change in its own words.
    let bare = json!({ "op": "c", "after": { "id": "a" }, "ts_ns": NOW_MS * 1_000_000 });
    check_two(&server, "crdb-bare", &bare, &bare, 2).await;
    server.stop().await;
}

/// What CockroachDB's changefeeds send in the envelope `wrapped`, as its documentation shows it.
fn wrapped(after: &Value, key: &Value, updated_ns: i64) -> Value {
    json!({ "after": after, "key": key, "topic": "products", "updated": format!("{updated_ns}.0000000000") })
}

#[tokio::test(flavor = "multi_thread")]
async fn cockroachdbs_wrapped_envelopes_are_changes() {
    let server = server_at(NOW_MS).await;
    let at = (NOW_MS - 5_000) * 1_000_000;
    let mut inserted = wrapped(&json!({ "id": "a", "n": 1 }), &json!(["a"]), at);
    inserted["before"] = Value::Null;
    let mut updated = wrapped(&json!({ "id": "a", "n": 2 }), &json!(["a"]), at + 1);
    updated["before"] = json!({ "id": "a", "n": 1 });
    // Without `diff` nothing is said of the row before.
    let written = wrapped(&json!({ "id": "b", "n": 1 }), &json!(["b", 7]), at + 2);
    let deleted = wrapped(&Value::Null, &json!(["a"]), at + 3);
    let body = json!({ "payload": [inserted, updated, written, deleted], "length": 4 });
    for duplicates in [0, 4] {
        let (status, reply) = send(&server, "crdb", "application/json", body.to_string()).await;
        assert_eq!(status, 200, "{reply}");
        let counts = (&reply["received"], &reply["duplicates"]);
        assert_eq!(counts, (&json!(4), &json!(duplicates)), "{reply}");
    }
    let sql = "SELECT type, op, source, collection, \"key\", before IS NOT NULL, after IS NOT NULL, lsn, cast(ts AS bigint) FROM events ORDER BY seq";
    let us = at / 1_000;
    let row = |event_type: &str, op: &str, key: &str, before: bool, after: bool, n: i64| {
        json!([event_type, op, "cockroachdb", "products", key, before, after, at + n, us])
    };
    assert_eq!(
        server.rows("crdb", sql).await,
        json!([
            row("cdc.insert", "c", "a", false, true, 0),
            row("cdc.update", "u", "a", true, true, 1),
            row("cdc.update", "u", "[\"b\",7]", false, true, 2),
            row("cdc.delete", "d", "a", true, false, 3).as_array().map(|row| {
                let mut row = row.clone();
                row[5] = json!(false);
                row
            }),
        ])
    );
    // Alone, on a line, and in the sink's body it is the same change.
    for (media, body) in [
        ("application/json", updated.to_string()),
        ("application/x-ndjson", format!("{updated}\n{deleted}\n")),
        ("application/x-ndjson", json!({ "length": 1, "payload": [written] }).to_string()),
    ] {
        let (status, reply) = send(&server, "crdb", media, body).await;
        assert_eq!((status, &reply["received"]), (200, &reply["duplicates"]), "{reply}");
    }
    for body in
        [json!({ "resolved": format!("{at}.0000000000") }), json!({ "payload": [], "length": 0 })]
    {
        assert_eq!(send(&server, "crdb", "application/json", body.to_string()).await.0, 200);
    }
    let sql = "SELECT count(*) FILTER (WHERE type = 'cockroachdb.resolved'), count(*) FROM events";
    assert_eq!(server.rows("crdb", sql).await, json!([[1, 5]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changefeeds_options_change_what_a_change_is_known_by() {
    let server = server_at(NOW_MS).await;
    let at = (NOW_MS - 5_000) * 1_000_000;
    let row = || json!({ "id": "a" });
    let change = |updated: i64| wrapped(&row(), &json!(["a"]), updated);
    check_two(&server, "updated", &change(at), &change(at), 1).await;
    check_two(&server, "updated", &change(at + 1), &change(at + 2), 3).await;
    // Another row, and another table, at the same time.
    let mut other = change(at);
    other["topic"] = json!("db.public.orders");
    check_two(&server, "places", &wrapped(&row(), &json!(["b"]), at), &other, 2).await;
    let places = "SELECT store, collection FROM events ORDER BY seq";
    let expected = json!([[null, "products"], ["db.public", "orders"]]);
    assert_eq!(server.rows("places", places).await, expected);
    // With the row's own time a row that is emitted again is the same change.
    let own = |updated: i64| {
        let mut change = change(updated);
        change["mvcc_timestamp"] = json!(format!("{at}.0000000003"));
        change
    };
    check_two(&server, "mvcc", &own(at), &own(at + 9), 1).await;
    // Without any time it is a change, and nothing tells that it was sent before.
    let timeless = json!({ "after": row(), "key": ["a"], "topic": "products" });
    check_two(&server, "timeless", &timeless, &timeless, 2).await;
    // A row of the first scan may be older than events may be.
    let old = wrapped(&row(), &json!(["a"]), 1_600_000_000_000_000_000);
    check_two(&server, "old", &old, &old, 1).await;
    // In the sink's body the enriched envelope is as it is alone.
    let source = json!({ "origin": "cockroachdb", "database_name": "db", "schema_name": "public", "table_name": "products", "primary_keys": ["sku"], "mvcc_timestamp": format!("{at}.0000000000") });
    let enriched = json!({ "op": "c", "after": { "sku": "x" }, "key": { "sku": "x" }, "source": source, "ts_ns": at });
    let body = json!({ "length": 1, "payload": [enriched] });
    check_two(&server, "enriched", &body, &enriched, 1).await;
    let key = server.rows("enriched", "SELECT \"key\", op FROM events").await;
    assert_eq!(key, json!([["x", "c"]]));
    // What only looks like one is what it was.
    for (event, stored) in [
        (json!({ "type": "t", "payload": [{ "type": "u" }], "length": 1 }), "t"),
        (json!({ "type": "t", "after": null, "key": ["a"], "topic": "x" }), "t"),
        (json!({ "collection": "c", "after": {}, "key": ["a"], "topic": "x" }), "cdc.insert"),
    ] {
        let (status, reply) = send(&server, "others", "application/json", event.to_string()).await;
        assert_eq!((status, &reply["received"]), (200, &json!(1)), "{event}: {reply}");
        let sql = format!("SELECT type FROM events WHERE seq = {}", reply["seq"]["last"]);
        assert_eq!(server.rows("others", &sql).await, json!([[stored]]), "{event}");
    }
    server.stop().await;
}

/// Changes in their own words, with the type and the operation of each.
fn own_words() -> Vec<(Value, &'static str, &'static str)> {
    vec![
        (
            json!({ "op": "c", "store": "document", "table": "Customer", "key": "cust_1", "after": { "a": 1 } }),
            "cdc.insert",
            "c",
        ),
        (
            json!({ "op": "updated", "collection": "x", "before": {}, "after": {} }),
            "cdc.update",
            "u",
        ),
        (json!({ "op": "delete" }), "cdc.delete", "d"),
        (json!({ "op": "r" }), "cdc.read", "r"),
        (json!({ "collection": "x", "after": { "a": 1 } }), "cdc.insert", "c"),
        (json!({ "collection": "x", "before": { "a": 1 } }), "cdc.delete", "d"),
        (json!({ "store": "x", "before": { "a": 1 }, "after": { "a": 2 } }), "cdc.update", "u"),
        (json!({ "collection": "x", "key": "k" }), "cdc.update", "u"),
        (json!({ "type": "collection.update", "collection": "x" }), "collection.update", "u"),
        (json!({ "type": "collection.created" }), "collection.created", "c"),
        (json!({ "type": "cdc.delete", "key": "k" }), "cdc.delete", "d"),
        (json!({ "type": "cdc.users.inserted" }), "cdc.users.inserted", "c"),
        (json!({ "type": "cdc.update", "op": "d" }), "cdc.update", "d"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_in_its_own_words_needs_no_type_and_has_a_bookmark() {
    let server = server_at(NOW_MS).await;
    let events = own_words();
    let mut expected = Vec::new();
    for (event, event_type, op) in &events {
        taken(&server, "own-words", event.to_string()).await;
        expected.push(json!([event_type, op]));
    }
    taken(&server, "own-words", json!({ "type": "collection.seen" }).to_string()).await;
    taken(&server, "own-words", json!({ "type": "rpc.call", "namespace": "n1" }).to_string()).await;
    taken(
        &server,
        "own-words",
        json!({ "type": "rpc.call", "data": { "namespace": "n2" } }).to_string(),
    )
    .await;
    taken(&server, "own-words", json!({ "type": "cdc.update", "bookmark": "mine" }).to_string())
        .await;
    let changes = server
        .rows(
            "own-words",
            "SELECT type, op FROM events WHERE op IS NOT NULL AND bookmark <> 'mine' ORDER BY seq",
        )
        .await;
    assert_eq!(changes, json!(expected));
    for _ in 0..2 {
        let minted = server
            .rows(
                "own-words",
                "SELECT seq, bookmark FROM events WHERE bookmark <> 'mine' ORDER BY bookmark",
            )
            .await;
        let minted = minted.as_array().unwrap();
        assert_eq!(minted.len(), events.len());
        for (number, row) in minted.iter().enumerate() {
            assert_eq!(row[0], number + 1);
            let groups: Vec<usize> = row[1].as_str().unwrap().split('-').map(str::len).collect();
            assert_eq!(groups, [8, 8, 8, 32]);
        }
        let others = "SELECT type, rpc_namespace, payload IS NULL, bookmark FROM events WHERE op IS NULL OR bookmark = 'mine' ORDER BY seq";
        let expected = json!([
            ["collection.seen", null, true, null],
            ["rpc.call", "n1", true, null],
            ["rpc.call", "n2", true, null],
            ["cdc.update", null, true, "mine"],
        ]);
        assert_eq!(server.rows("own-words", others).await, expected);
        server.commit("own-words").await;
    }
    let (status, reply) =
        send(&server, "own-words", "application/json", json!({ "op": "send" }).to_string()).await;
    assert_eq!((status, &reply["errors"][0]["code"]), (400, &json!("MISSING_TYPE")), "{reply}");
    server.stop().await;
}

/// A folder that version 0.1.0 left, and the events it had taken, as they were sent.
fn folder_of_0_1_0() -> (tempfile::TempDir, String) {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/folder_of_0.1.0");
    let folder = tempfile::tempdir().unwrap();
    let unpacked = |file: &str| {
        let packed = fs::File::open(kept.join(format!("{file}.zst"))).unwrap();
        zstd::decode_all(packed).unwrap()
    };
    for file in [
        "icecore.db",
        "ids/namespaces.json",
        "ids/00000000000000000001-00000000000000000001.ids",
        "wal/identity",
        "wal/00000000000000000001.seg",
    ] {
        let path = folder.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, unpacked(file)).unwrap();
    }
    (folder, String::from_utf8(unpacked("stream.ndjson")).unwrap())
}

/// What a connector changes when it sends a record again: the time of an envelope, and that of a
/// CloudEvent that was made of one.
fn processed_again(line: &str) -> String {
    let end = ",\"transaction\":";
    let Some(at) = line.find(end) else {
        let is_converted = line.contains("iodebeziumop");
        return if is_converted { line.replace("T20:00:", "T20:30:") } else { line.to_owned() };
    };
    let start = line[..at].rfind(':').unwrap() + 1;
    let ms: i64 = line[start..at].parse().unwrap();
    format!("{}{}{}", &line[..start], ms + 60_000, &line[at..])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_version_0_1_0_took_is_a_duplicate_after_the_upgrade() {
    let (folder, stream) = folder_of_0_1_0();
    let clock = Clock::manual(NOW_MS);
    let mut server = TestServer::start_at(folder, &[], clock.clone()).await;
    let count = stream.lines().count();
    let again: String = stream.lines().map(|line| format!("{}\n", processed_again(line))).collect();
    assert_ne!(stream, again);
    for _ in 0..2 {
        for lines in [&stream, &again] {
            let reply = taken(&server, "shop.example", lines.clone()).await;
            assert_eq!(reply["duplicates"], count, "{reply}");
        }
        server.commit("shop.example").await;
        server = TestServer::start_at(server.stop().await, &[], clock.clone()).await;
    }
    let rows = server.rows("shop.example", "SELECT count(*) FROM events").await;
    assert_eq!(rows, json!([[count]]));
    // What was one event to that version is two when it was two.
    let other = json!({ "specversion": "1.0", "id": "ce-0", "source": "/sensor/2", "type": "com.x.made", "data": {} });
    let reply = taken(&server, "shop.example", other.to_string()).await;
    assert_eq!(reply["duplicates"], 0, "{reply}");
    // The log of that version is still the one that events are taken into, in its fourth life.
    let folder = server.stop().await;
    let metastore = Metastore::sqlite(&folder.path().join("icecore.db")).await.unwrap();
    let fence = metastore.fence().await.unwrap().unwrap();
    assert_eq!(fence.holder.to_string(), "4e8d33b2-1e58-48f8-95a7-d2e1dfbaa387");
    assert_eq!((fence.since, fence.epoch, fence.base), (1, 4, 0));
}
