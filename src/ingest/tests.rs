use super::{
    expected::{DocumentRow, ExpectedVersion, RowEffect},
    *,
};
use arrow::{
    array::{ArrayRef, AsArray, StringArray, TimestampMicrosecondArray},
    datatypes::{FieldRef, Schema},
    record_batch::RecordBatch,
};
use icecore_lake::{
    collection::{ChangeOp, version::VersionChange},
    event::{EventKey, NamespaceEvents, RejectedEvent, codec, event_key, rows},
    faults::Failpoints,
    metrics::Metrics,
    wal::WalOptions,
};
use icecore_schemas::service_table::{RecordKind, ServiceTables};
use std::{collections::BTreeMap, path::Path};
use tempfile::TempDir;

const NOW_MS: i64 = 1_760_000_000_000;

/// A log and an id folder that outlive servers.
struct House {
    folder: TempDir,
    clock: Clock,
    options: IngestOptions,
    log_bytes_max: u64,
}

/// One run of the ingest path over a house.
struct Server {
    wal: Wal,
    ingest: Ingest,
}

impl House {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let options = IngestOptions {
            dedup_folder: folder.path().join("ids"),
            dedup_window: Duration::from_secs(7 * 86_400),
            queue_bytes_max: 1 << 28,
            group_requests_max: 1024,
            group_bytes_max: 16 << 20,
            types_max: 1000,
            tables: ServiceTables::default(),
            seq_after: 0,
            seq_floor: HashMap::new(),
            namespaces: Vec::new(),
            logs: Vec::new(),
            seen_ms: 0,
            takes_events: true,
        };
        Self { folder, clock: Clock::manual(NOW_MS), options, log_bytes_max: 1 << 30 }
    }

    fn start(&self) -> Server {
        self.start_with("")
    }

    fn start_with(&self, faults: &str) -> Server {
        let faults = Failpoints::parse(faults).unwrap();
        let (wal, writer) = self.open_log(faults.clone());
        let ids = IdGenerator::new(self.clock.clone());
        let (options, clock) = (self.options.clone(), self.clock.clone());
        let ingest = Ingest::start(options, wal.clone(), writer, clock, ids).unwrap();
        Server { wal, ingest }
    }

    fn open_log(&self, faults: Failpoints) -> (Wal, WalWriter) {
        let options = WalOptions {
            folder: self.folder.path().join("wal"),
            segment_bytes: 1 << 20,
            free_segments_max: 2,
            bytes_max: self.log_bytes_max,
            disk_free_min: 0.0,
            position_floor: 0,
            metrics: Metrics::default(),
        };
        Wal::open(options, self.clock.clone(), faults).unwrap()
    }
}

impl Server {
    async fn take(&self, submission: Submission) -> Receipt {
        self.ingest.append(submission).await.unwrap()
    }

    /// Every row of one table in the log: `seq` (from the record) and a column's text.
    fn rows(&self, kind: RecordKind, namespace: &str, column: &str) -> Vec<(u64, String)> {
        let schema = rows::schema_of(kind.table().unwrap().columns);
        let mut found = Vec::new();
        for record in self.wal.records(kind, &ns(namespace), 0) {
            let batch = codec::decode(&schema, &record.read().unwrap(), record.first_seq).unwrap();
            assert_eq!(batch.num_rows(), record.rows as usize);
            let column = batch.column_by_name(column).unwrap().as_string::<i32>().clone();
            found.extend(
                (record.first_seq..)
                    .zip(column.iter().map(|text| text.unwrap_or("null").to_owned())),
            );
        }
        found
    }

    fn ids(&self, namespace: &str) -> Vec<(u64, String)> {
        self.rows(RecordKind::Events, namespace, "id")
    }
}

fn ns(text: &str) -> Namespace {
    Namespace::parse(text).unwrap()
}

/// `ns/id` or `ns/id=content` or `ns/id=content:type`, in body order; `!ns` is a broken event.
fn body(text: &str) -> Submission {
    let mut decoded = DecodedBody::default();
    let mut by_namespace: Vec<(Namespace, Vec<(u32, &str)>)> = Vec::new();
    for (index, event) in (0..).zip(text.split_whitespace()) {
        decoded.received += 1;
        if let Some(namespace) = event.strip_prefix('!') {
            decoded.rejected.push(broken(index, namespace));
            continue;
        }
        let (namespace, event) = event.split_once('/').unwrap();
        match by_namespace.iter_mut().find(|(one, _)| *one == ns(namespace)) {
            Some((_, events)) => events.push((index, event)),
            None => by_namespace.push((ns(namespace), vec![(index, event)])),
        }
    }
    decoded.accepted =
        by_namespace.iter().map(|(namespace, events)| batch(text, namespace, events)).collect();
    decoded.source.bytes = bytes::Bytes::copy_from_slice(text.as_bytes());
    Submission { decoded, bytes: text.len(), ..Submission::default() }
}

fn in_batch(batch_id: Option<String>) -> RequestIds {
    RequestIds { batch_id, correlation_id: None }
}

fn atomic(text: &str) -> Submission {
    Submission { atomic: true, ..body(text) }
}

fn broken(index: u32, namespace: &str) -> RejectedEvent {
    RejectedEvent {
        index,
        namespace: ns(namespace),
        kept_in: None,
        code: ErrorCode::TsWindow,
        actual_version: None,
        reason: "too old".to_owned(),
        id: Some("late".to_owned()),
        event_type: None,
        source: None,
        payload: "{\"late\":true}".to_owned(),
    }
}

fn batch(body: &str, namespace: &Namespace, events: &[(u32, &str)]) -> NamespaceEvents {
    let schema = rows::event_schema();
    let (mut ids, mut contents, mut types) = (Vec::new(), Vec::new(), Vec::new());
    for (_, event) in events {
        let (event, event_type) = event.split_once(':').unwrap_or((event, "test"));
        let (id, content) = event.split_once('=').unwrap_or((event, ""));
        ids.push(id);
        contents.push(content);
        types.push(event_type);
    }
    let count = events.len();
    let time = || {
        let times = TimestampMicrosecondArray::from(vec![NOW_MS * 1000; count]);
        Arc::new(times.with_timezone("+00:00")) as ArrayRef
    };
    let text = |texts: &[&str]| Arc::new(StringArray::from(texts.to_vec())) as ArrayRef;
    let mut columns = vec![
        ("id", text(&ids)),
        ("type", text(&types)),
        ("ts", time()),
        ("ns", text(&vec![namespace.text(); count])),
        ("ingested_at", time()),
    ];
    // Bodies differ in the columns they have.
    if contents.iter().any(|content| !content.is_empty()) {
        columns.push(("data", text(&contents)));
    }
    let fields: Vec<FieldRef> = columns
        .iter()
        .map(|(name, _)| Arc::clone(&schema.fields()[schema.index_of(name).unwrap()]))
        .collect();
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    let key = |(id, content): (&&str, &&str)| EventKey {
        id: event_key(namespace, id),
        content: xxhash_rust::xxh3::xxh3_64(content.as_bytes()) | 1,
    };
    NamespaceEvents {
        namespace: namespace.clone(),
        rows: RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap(),
        keys: ids.iter().zip(&contents).map(key).collect(),
        index: events.iter().map(|(index, _)| *index).collect(),
        former: Vec::new(),
        same: Vec::new(),
        came: events
            .iter()
            .map(|(_, event)| {
                let start = event.as_ptr().addr() - body.as_ptr().addr();
                start..start + event.len()
            })
            .collect(),
    }
}

/// A receipt as a line: `dup D; ns first-last …; index code …`.
fn line(receipt: &Receipt) -> String {
    let ranges: Vec<_> = receipt
        .ranges
        .iter()
        .map(|(namespace, first, last)| format!("{namespace} {first}-{last}"))
        .collect();
    let refused: Vec<_> = receipt
        .refused
        .iter()
        .map(|refused| {
            let grave = if refused.dead_letter.is_some() { "kept" } else { "gone" };
            format!("{} {} {grave}", refused.index, refused.code.as_str())
        })
        .collect();
    format!("dup {}; {}; {}", receipt.duplicates, ranges.join(", "), refused.join(", "))
}

fn id_list(rows: &[(u64, String)]) -> String {
    rows.iter().map(|(seq, id)| format!("{seq}:{id}")).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn events_get_dense_seqs_per_namespace_in_body_order() {
    let house = House::new();
    let server = house.start();
    let receipt = server.take(body("a/1 b/1 a/2 b/2 a/3")).await;
    assert_eq!(line(&receipt), "dup 0; a 1-3, b 1-2; ");
    let receipt = server.take(body("b/9 a/9")).await;
    assert_eq!(line(&receipt), "dup 0; b 3-3, a 4-4; ");
    assert_eq!(id_list(&server.ids("a")), "1:1 2:2 3:3 4:9");
    assert_eq!(id_list(&server.ids("b")), "1:1 2:2 3:9");
    assert_eq!(receipt.position, *server.wal.durable().borrow());
}

#[tokio::test]
async fn a_repeat_gets_the_first_seq_wherever_it_comes() {
    let house = House::new();
    let server = house.start();
    assert_eq!(line(&server.take(body("a/x a/y a/x")).await), "dup 1; a 1-2; ");
    assert_eq!(line(&server.take(body("a/y")).await), "dup 1; a 2-2; ");
    assert_eq!(line(&server.take(body("a/z a/x")).await), "dup 1; a 1-3; ");
    server.ingest.stop().await;
    drop(server);
    let server = house.start();
    assert_eq!(line(&server.take(body("a/z a/y")).await), "dup 2; a 2-3; ");
    assert_eq!(line(&server.take(body("a/new")).await), "dup 0; a 4-4; ");
    assert_eq!(id_list(&server.ids("a")), "1:x 2:y 3:z 4:new");
}

#[tokio::test]
async fn repeats_alone_are_answered_without_a_write() {
    let house = House::new();
    let server = house.start();
    let first = server.take(body("a/x")).await;
    let again = server.take(body("a/x")).await;
    assert_eq!(again.position, first.position);
    assert_eq!(*server.wal.durable().borrow(), first.position);
}

/// Makes the events of a namespace some of a collection.
fn of_collection(events: &mut NamespaceEvents) {
    let schema = rows::event_schema();
    let mut fields = events.rows.schema().fields().to_vec();
    fields.push(Arc::clone(&schema.fields()[schema.index_of("collection").unwrap()]));
    let mut columns = events.rows.columns().to_vec();
    columns.push(Arc::new(StringArray::from(vec!["users"; events.keys.len()])));
    events.rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
}

#[tokio::test]
async fn events_of_collections_are_counted_before_their_sender_has_the_answer() {
    let house = House::new();
    let server = house.start();
    let counts = || ["shop_example", "other"].map(|name| server.ingest.change_count(name));
    server.ingest.append(body("shop.example/a other/a")).await.unwrap();
    assert_eq!(counts(), [0, 0]);
    for expected in [1, 1] {
        let mut sent = body("shop.example/b other/c");
        of_collection(&mut sent.decoded.accepted[0]);
        server.ingest.append(sent).await.unwrap();
        assert_eq!(counts(), [expected, 0], "a repeat is no change");
    }
    server.ingest.stop().await;
}

/// Copies a folder of files, as a crash leaves it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

/// A house as a power cut at this moment would leave it.
fn crashed(house: &House) -> House {
    let copy_of = House { clock: house.clock.clone(), ..House::new() };
    copy(&house.folder.path().join("wal"), &copy_of.folder.path().join("wal"));
    copy(&house.options.dedup_folder, &copy_of.options.dedup_folder);
    copy_of
}

#[tokio::test]
async fn a_crash_forgets_neither_ids_nor_contents_nor_counters() {
    let house = House::new();
    let server = house.start();
    server.take(body("a/x=1 a/y=1 !a")).await;
    let house = crashed(&house);
    let server = house.start();
    assert_eq!(line(&server.take(body("a/y=1 a/x=2")).await), "dup 1; a 2-2; 1 CONFLICT kept");
    assert_eq!(line(&server.take(body("a/z")).await), "dup 0; a 3-3; ");
    let numbers: Vec<u64> =
        server.rows(RecordKind::DeadLetters, "a", "id").iter().map(|(n, _)| *n).collect();
    assert_eq!(numbers, [1, 2]);
}

#[tokio::test]
async fn counters_outlive_a_log_and_tables_that_hold_nothing_of_them() {
    let house = House::new();
    let server = house.start();
    server.take(body("a/x !a")).await;
    server.ingest.stop().await;
    drop(server);
    std::fs::remove_dir_all(house.folder.path().join("wal")).unwrap();
    let server = house.start();
    let again = Submission { request: in_batch(Some("2".to_owned())), ..body("a/y a/x !a") };
    assert_eq!(line(&server.take(again).await), "dup 1; a 1-2; 2 TS_WINDOW kept");
    assert_eq!(server.rows(RecordKind::DeadLetters, "a", "id")[0].0, 2);
}

#[tokio::test]
async fn counters_start_above_what_the_tables_hold() {
    let mut house = House::new();
    house.options.seq_floor = HashMap::from([
        ((RecordKind::Events, ns("a")), 41),
        ((RecordKind::DeadLetters, ns("a")), 6),
    ]);
    let server = house.start();
    assert_eq!(line(&server.take(body("a/x !a")).await), "dup 0; a 42-42; 1 TS_WINDOW kept");
    assert_eq!(server.rows(RecordKind::DeadLetters, "a", "id")[0].0, 7);
    server.ingest.stop().await;
    drop(server);
    // The tables lag behind what was given: they do not pull a counter back.
    house.options.seq_floor = HashMap::from([
        ((RecordKind::Events, ns("a")), 3),
        ((RecordKind::DeadLetters, ns("a")), 1),
    ]);
    let server = house.start();
    let again = Submission { request: in_batch(Some("2".to_owned())), ..body("a/y !a") };
    assert_eq!(line(&server.take(again).await), "dup 0; a 43-43; 1 TS_WINDOW kept");
    let numbers = server.rows(RecordKind::DeadLetters, "a", "id");
    assert_eq!(numbers.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [7, 8]);
}

#[tokio::test]
async fn dead_letters_of_one_millisecond_have_ids_of_their_own() {
    let house = House::new();
    let server = house.start();
    for round in 0..30 {
        let request = in_batch(Some(round.to_string()));
        server.take(Submission { request, ..body("!a !a !a") }).await;
    }
    let kept = server.rows(RecordKind::DeadLetters, "a", "id");
    let ids: std::collections::BTreeSet<_> = kept.iter().map(|(_, id)| id).collect();
    assert_eq!((ids.len(), kept.len()), (90, 90));
}

#[tokio::test]
async fn the_log_keeps_ids_only_until_their_file_is_written() {
    let house = House::new();
    let server = house.start();
    server.take(body("a/x b/y")).await;
    assert_eq!(server.wal.records(RecordKind::Keys, &ns("a"), 0).len(), 1);
    server.ingest.stop().await;
    assert!(server.wal.records(RecordKind::Keys, &ns("a"), 0).is_empty());
    assert!(server.wal.records(RecordKind::Keys, &ns("b"), 0).is_empty());
    drop(server);
    // The segment is still there, so a restart finds the records again, and trims them again.
    let server = house.start();
    assert!(server.wal.records(RecordKind::Keys, &ns("a"), 0).is_empty());
    assert_eq!(line(&server.take(body("a/x b/y")).await), "dup 2; a 1-1, b 1-1; ");
}

#[tokio::test]
async fn another_content_under_a_known_id_is_a_conflict_that_is_kept() {
    let house = House::new();
    let server = house.start();
    let receipt = server.take(body("a/x=one a/x=two")).await;
    assert_eq!(line(&receipt), "dup 0; a 1-1; 1 CONFLICT kept");
    let receipt = server.take(body("a/y a/x=three a/x=one")).await;
    assert_eq!(line(&receipt), "dup 1; a 1-2; 1 CONFLICT kept");
    assert_eq!(receipt.refused[0].id.as_deref(), Some("x"));
    assert!(receipt.refused[0].reason.contains("seq 1"), "{}", receipt.refused[0].reason);
    server.ingest.stop().await;
    drop(server);
    let server = house.start();
    let receipt = server.take(body("a/x=four")).await;
    assert_eq!(line(&receipt), "dup 0; ; 0 CONFLICT kept");
    let kept = server.rows(RecordKind::DeadLetters, "a", "payload");
    assert_eq!(kept.len(), 3);
    assert_eq!(kept[2].1, "x=four", "as it came");
    let ids = server.rows(RecordKind::DeadLetters, "a", "id");
    assert_eq!(Some(&ids[2].1), receipt.refused[0].dead_letter.as_ref());
}

#[tokio::test]
async fn another_version_is_kept_only_where_its_event_came_out_of_a_letter() {
    let house = House::new();
    let server = house.start();
    let change = VersionChange::new(ChangeOp::Update, 0, Some("{}"), None);
    let expected = ExpectedVersion::Exactly(7);
    let effect = RowEffect::Change { document: 0, change, expected };
    let expected =
        ExpectedVersions { documents: vec![None], rows: vec![DocumentRow { row: 1, effect }] };
    let expecting = |text: &str| Submission { expected: vec![expected.clone()], ..body(text) };
    let receipt = server.take(expecting("a/x a/y")).await;
    assert_eq!(line(&receipt), "dup 0; a 1-1; 1 VERSION_MISMATCH gone");
    assert_eq!(receipt.refused[0].actual_version, Some(0));
    // The letter ends with the event that is taken, so the other one has its own.
    let letter = DeadLetter::new(&broken(0, "a"), Ulid(1).to_string(), &in_batch(None));
    let letters = LetterChange::Redriven(ns("a"), Box::new(letter));
    let receipt = server.take(Submission { letters, ..expecting("a/z a/y") }).await;
    assert_eq!(line(&receipt), "dup 0; a 2-2; 1 VERSION_MISMATCH kept");
    let kept = server.rows(RecordKind::DeadLetters, "a", "payload");
    let kept: Vec<&str> = kept.iter().map(|(_, payload)| payload.as_str()).collect();
    assert_eq!(kept, ["{\"late\":true}", "y"]);
}

/// Events that change one document.
fn changes(text: &str, key: &str) -> Submission {
    let mut submission = body(text);
    let events = &mut submission.decoded.accepted[0];
    let (schema, count) = (rows::event_schema(), events.keys.len());
    let mut fields: Vec<FieldRef> = events.rows.schema().fields().to_vec();
    let mut columns: Vec<ArrayRef> = events.rows.columns().to_vec();
    for (name, value) in [("op", "u"), ("collection", "users"), ("key", key)] {
        fields.push(Arc::clone(&schema.fields()[schema.index_of(name).unwrap()]));
        columns.push(Arc::new(StringArray::from(vec![value; count])));
    }
    events.rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
    submission
}

/// The key of a document that is watched.
fn watched_keys() -> HashMap<String, HashSet<String>> {
    HashMap::from([("users".to_owned(), HashSet::from(["1".to_owned()]))])
}

#[tokio::test]
async fn nothing_is_taken_behind_a_write_to_a_watched_document() {
    let house = House::new();
    let server = house.start();
    server.take(changes("a/before", "1")).await;
    let watched = server.ingest.watch(&ns("a"), watched_keys()).await.unwrap();
    let unless_written = |text: &str| Submission {
        unless_written: Some(Arc::clone(&watched)),
        ..changes(text, "1")
    };
    server.take(changes("a/other", "2")).await;
    server.take(changes("b/other", "1")).await;
    assert_eq!(line(&server.take(unless_written("a/own")).await), "dup 0; a 3-3; ");
    // It was itself a write to the document.
    let refused = server.ingest.append(unless_written("a/late")).await;
    assert!(matches!(refused, Err(IngestError::Overtaken)), "{refused:?}");
    let ids: Vec<String> = server.ids("a").into_iter().map(|(_, id)| id).collect();
    assert_eq!(ids, ["before", "other", "own"]);
}

#[test]
fn a_watched_document_is_written_before_or_behind_a_batch_of_its_group() {
    let house = House::new();
    let mut bench = Bench::new(&house);
    let watched = Arc::new(WatchedDocuments::new(ns("a"), watched_keys()));
    let (begun, _answer) = oneshot::channel();
    let unless_written = |text: &str| Submission {
        unless_written: Some(Arc::clone(&watched)),
        ..changes(text, "2")
    };
    // What waits for its group when the watch begins is judged behind that.
    let mut answers = vec![bench.submit(changes("a/early", "1"))];
    bench.queue.send(SequencerMessage::Watch(Arc::clone(&watched), begun)).unwrap();
    answers.push(bench.submit(unless_written("a/behind")));
    bench.serve();
    let taken = |mut answer: oneshot::Receiver<Result<Receipt, IngestError>>| {
        answer.try_recv().unwrap().map(|receipt| line(&receipt)).ok()
    };
    let told: Vec<Option<String>> = answers.into_iter().map(taken).collect();
    assert_eq!(told, [Some("dup 0; a 1-1; ".to_owned()), None]);

    let watched = Arc::new(WatchedDocuments::new(ns("a"), watched_keys()));
    bench.sequencer.watches.begin(&watched);
    let first = Submission { unless_written: Some(watched), ..changes("a/first", "2") };
    let answers = [bench.submit(first), bench.submit(changes("a/second", "1"))];
    bench.serve();
    let told: Vec<Option<String>> = answers.into_iter().map(taken).collect();
    assert_eq!(told, ["dup 0; a 2-2; ", "dup 0; a 3-3; "].map(|it| Some(it.to_owned())));
}

#[tokio::test]
async fn rejected_events_are_kept_in_their_own_namespace() {
    let house = House::new();
    let server = house.start();
    let receipt = server.take(body("!a a/x !b !a")).await;
    let expected = "dup 0; a 1-1; 0 TS_WINDOW kept, 2 TS_WINDOW kept, 3 TS_WINDOW kept";
    assert_eq!(line(&receipt), expected);
    let kept: Vec<_> = server
        .rows(RecordKind::DeadLetters, "a", "id")
        .into_iter()
        .chain(server.rows(RecordKind::DeadLetters, "b", "id"))
        .map(|(_, id)| id)
        .collect();
    let told: Vec<_> = [0, 2, 1].map(|n| receipt.refused[n].dead_letter.clone().unwrap()).to_vec();
    assert_eq!(kept, told);
}

#[tokio::test]
async fn an_atomic_batch_with_a_bad_event_leaves_no_trace() {
    let house = House::new();
    let server = house.start();
    server.take(body("a/x=1")).await;
    let before = *server.wal.durable().borrow();
    let receipt = server.take(atomic("a/y:new c/z a/x=2 !a a/y=9")).await;
    let expected = "dup 0; ; 0 BATCH_ABORTED gone, 1 BATCH_ABORTED gone, 2 CONFLICT gone, 3 TS_WINDOW gone, 4 CONFLICT gone";
    assert_eq!(line(&receipt), expected);
    let reason = |at: usize| &receipt.refused[at].reason;
    assert!(reason(2).contains("event with seq 1,"), "{}", reason(2));
    assert!(reason(4).contains("an earlier event of this request"), "no seq was given");
    assert_eq!(*server.wal.durable().borrow(), before);
    // Neither ids, nor counters, nor the claim on a name are left.
    assert_eq!(line(&server.take(atomic("a/y=5 C/z")).await), "dup 0; a 2-2, C 1-1; ");
    assert_eq!(id_list(&server.ids("a")), "1:x 2:y");
}

#[tokio::test]
async fn an_atomic_batch_of_good_events_and_repeats_is_taken() {
    let house = House::new();
    let server = house.start();
    server.take(body("a/x")).await;
    assert_eq!(line(&server.take(atomic("a/y a/x b/1")).await), "dup 1; a 1-2, b 1-1; ");
}

#[tokio::test]
async fn a_namespace_has_a_bounded_number_of_types() {
    let mut house = House::new();
    house.options.types_max = 2;
    let server = house.start();
    let receipt = server.take(body("a/1:t1 a/2:t2 a/3:t3 a/4:t1 b/1:t3")).await;
    assert_eq!(line(&receipt), "dup 0; a 1-3, b 1-1; 2 TOO_MANY_TYPES kept");
    // Known after a crash, from the log, and after a stop, from the folder.
    let mut house = crashed(&house);
    house.options.types_max = 2;
    let server = house.start();
    assert_eq!(
        line(&server.take(body("a/5:t3 a/6:t2")).await),
        "dup 0; a 4-4; 0 TOO_MANY_TYPES kept"
    );
    server.ingest.stop().await;
    drop(server);
    let server = house.start();
    assert_eq!(
        line(&server.take(body("a/7:t4 a/8:t1")).await),
        "dup 0; a 5-5; 0 TOO_MANY_TYPES kept"
    );
}

#[tokio::test]
async fn the_first_spelling_owns_the_catalog_name() {
    let mut house = House::new();
    house.options.namespaces = vec![ns("from.catalog")];
    let server = house.start();
    let receipt = server.take(body("a.b/1 a_b/1 !a_b A.B/2 from_catalog/1")).await;
    let expected = "dup 0; a.b 1-1; 1 INVALID_NAMESPACE kept, 2 TS_WINDOW kept, \
                    3 INVALID_NAMESPACE kept, 4 INVALID_NAMESPACE kept";
    assert_eq!(line(&receipt), expected);
    assert!(receipt.refused[0].reason.contains("`a.b`"), "{}", receipt.refused[0].reason);
    assert!(receipt.refused[3].reason.contains("`from.catalog`"));
    server.ingest.stop().await;
    drop(server);
    let server = house.start();
    assert_eq!(line(&server.take(body("a_b/5")).await), "dup 0; ; 0 INVALID_NAMESPACE kept");
    assert_eq!(line(&server.take(body("a.b/5")).await), "dup 0; a.b 2-2; ");
}

#[tokio::test]
async fn a_failed_group_leaves_no_trace_and_no_gap() {
    let house = House::new();
    let server = house.start_with("wal.after_write=error@1");
    assert_eq!(line(&server.take(body("a/x")).await), "dup 0; a 1-1; ");
    let failed = server.ingest.append(body("a/y:fresh a/x !a")).await;
    assert!(matches!(failed, Err(IngestError::Unavailable(_))), "{failed:?}");
    // The retry is new, once; then a repeat. So is its letter.
    let retry = "dup 1; a 1-2; 2 TS_WINDOW kept";
    assert_eq!(line(&server.take(body("a/y:fresh a/x !a")).await), retry);
    let letters = server.rows(RecordKind::DeadLetters, "a", "id");
    assert_eq!(letters.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1]);
    assert_eq!(server.take(body("!a")).await.refused.len(), 1);
    assert_eq!(server.rows(RecordKind::DeadLetters, "a", "id").len(), 1);
    assert_eq!(line(&server.take(body("a/y:fresh")).await), "dup 1; a 2-2; ");
    assert_eq!(id_list(&server.ids("a")), "1:x 2:y");
    let house = crashed(&house);
    let server = house.start();
    assert_eq!(line(&server.take(body("a/y:fresh a/z")).await), "dup 1; a 2-3; ");
    assert_eq!(id_list(&server.ids("a")), "1:x 2:y 3:z");
}

#[tokio::test]
async fn only_a_write_says_that_the_log_takes_writes() {
    let house = House::new();
    let server = house.start_with("wal.before_write=error@1");
    server.take(body("a/x")).await;
    assert!(server.ingest.takes_writes());
    server.ingest.append(body("a/y")).await.unwrap_err();
    assert!(!server.ingest.takes_writes());
    assert_eq!(line(&server.take(body("a/x")).await), "dup 1; a 1-1; ");
    server.take(Submission { dry_run: true, ..body("a/y") }).await;
    assert!(!server.ingest.takes_writes(), "nothing was written since");
    server.take(body("a/y")).await;
    assert!(server.ingest.takes_writes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_id_is_one_row_whoever_sends_it() {
    let house = House::new();
    let server = house.start();
    let senders = (0..8u64).map(|sender| {
        let server = &server;
        async move {
            let mut told = BTreeMap::new();
            for n in 0..60 {
                // Overlapping, in another order for each sender.
                let id = (n * (2 * sender + 1)) % 60;
                let receipt = server.take(body(&format!("a/{id} b/{id}"))).await;
                for (namespace, first, last) in receipt.ranges {
                    assert_eq!(first, last);
                    told.insert((namespace.text().to_owned(), id.to_string()), first);
                }
            }
            told
        }
    });
    let told = futures::future::join_all(senders).await;
    for namespace in ["a", "b"] {
        let rows = server.ids(namespace);
        let seqs: Vec<u64> = rows.iter().map(|(seq, _)| *seq).collect();
        assert_eq!(seqs, (1..=rows.len() as u64).collect::<Vec<_>>());
        let ids: BTreeMap<String, u64> = rows.iter().map(|(seq, id)| (id.clone(), *seq)).collect();
        assert_eq!(ids.len(), rows.len());
        assert_eq!(ids.len(), 60);
        for told in &told {
            for ((_, id), seq) in told.iter().filter(|((one, _), _)| one == namespace) {
                assert_eq!(ids[id], *seq, "{namespace}/{id}");
            }
        }
    }
}

#[tokio::test]
async fn requests_that_wait_share_a_group() {
    let house = House::new();
    // The first append is slow, so that the others gather behind it.
    let server = house.start_with("wal.before_write=delay:200");
    let bodies: Vec<_> = (0..20).map(|n| format!("a/{n} a/{}=x b/{n}", n % 3 + 100)).collect();
    let receipts =
        futures::future::join_all(bodies.iter().map(|text| server.take(body(text)))).await;
    assert_eq!(receipts.iter().map(|receipt| receipt.duplicates).sum::<u64>(), 17);
    let records = server.wal.records(RecordKind::Events, &ns("a"), 0);
    assert!(records.len() <= 3, "{} records for 20 requests", records.len());
    let rows = server.ids("a");
    let seqs: Vec<u64> = rows.iter().map(|(seq, _)| *seq).collect();
    assert_eq!(seqs, (1..=23).collect::<Vec<_>>());
    let last = receipts.last().unwrap();
    assert!(records.last().unwrap().position <= last.position);
    assert_eq!(
        server.rows(RecordKind::Events, "a", "data").iter().filter(|(_, data)| data == "x").count(),
        3
    );
}

#[tokio::test]
async fn more_than_fits_is_refused_at_once() {
    let mut house = House::new();
    house.options.queue_bytes_max = 3 * (SUBMISSION_BYTES + 10);
    let server = house.start_with("wal.before_write=delay:1000");
    let texts: Vec<_> = (0..6).map(|n| format!("a/{n}")).collect();
    let outcomes =
        futures::future::join_all(texts.iter().map(|text| server.ingest.append(body(text)))).await;
    let busy = outcomes.iter().filter(|one| matches!(one, Err(IngestError::Busy))).count();
    assert_eq!((outcomes.len() - busy, busy), (3, 3));
    // There is room again, and a single large body is not refused for ever.
    let large = Submission { bytes: 1 << 20, ..body("a/large") };
    assert_eq!(line(&server.take(large).await), "dup 0; a 4-4; ");
}

#[tokio::test]
async fn a_stop_finishes_what_waits_and_takes_no_more() {
    let house = House::new();
    let server = house.start_with("wal.before_write=delay:100");
    let texts: Vec<_> = (0..5).map(|n| format!("a/{n}")).collect();
    let waiting = futures::future::join_all(texts.iter().map(|text| server.take(body(text))));
    // Polled in this order: everything is queued before the stop.
    let (receipts, ()) = tokio::join!(waiting, server.ingest.stop());
    assert_eq!(receipts.len(), 5);
    assert_eq!(server.ids("a").len(), 5);
    let refused = server.ingest.append(body("a/late")).await;
    assert!(matches!(refused, Err(IngestError::Stopping)));
    server.ingest.stop().await;
}

#[test]
fn a_record_of_ids_survives_encoding_and_anything_else_is_none() {
    assert_eq!(keys::decode(&[1, 2, 3], 1), None);
    assert_eq!(keys::decode(&[0; 25], 1), None);
    let all = keys::KeyRecord {
        keys: vec![EventKey { id: 7 << 90, content: 3 }, EventKey { id: 1, content: 2 }],
        types: vec!["a.b".to_owned(), "c".to_owned()],
    };
    let bytes = keys::encode(&all.keys, &all.types);
    assert_eq!(keys::decode(&bytes, 2), Some(all));
}

/// A sequencer without its thread, whose id table is worth a file at four ids.
struct Bench {
    sequencer: Sequencer,
    queue: mpsc::Sender<SequencerMessage>,
}

impl Bench {
    fn new(house: &House) -> Self {
        Self::with(house, "")
    }

    fn with(house: &House, faults: &str) -> Self {
        let (wal, writer) = house.open_log(Failpoints::parse(faults).unwrap());
        let ids = IdGenerator::new(house.clock.clone());
        let recover::RecoveredState { mut dedup, unsaved, saved, age } =
            recover::recover(&house.options, &wal, &house.clock, ids).unwrap();
        let folder = house.options.dedup_folder.clone();
        let options =
            dedup::IndexOptions { folder: folder.clone(), window_ms: 1_000_000, fresh_max: 4 };
        dedup.index = dedup::IdIndex::open(options, NOW_MS).unwrap();
        let (queue, messages) = mpsc::channel();
        let bounds = GroupBounds { requests_max: 10, bytes_max: 1 << 20 };
        let sequencer = Sequencer {
            queue: messages,
            bounds,
            folder,
            dedup,
            wal,
            writer,
            clock: house.clock.clone(),
            unsaved,
            freezing: None,
            saved,
            squeezed: false,
            is_purging: false,
            takes_events: true,
            watches: Watches::default(),
            failing: Arc::default(),
            changes: changes::ChangeCounts::default(),
            age,
        };
        Self { sequencer, queue }
    }

    fn queue(&self, text: &str) -> oneshot::Receiver<Result<Receipt, IngestError>> {
        self.submit(body(text))
    }

    fn submit(&self, submission: Submission) -> oneshot::Receiver<Result<Receipt, IngestError>> {
        let share = QueueShare::take(&Arc::default(), 1, 1).unwrap();
        let (reply, answer) = oneshot::channel();
        let (submission, reply) = (Box::new(submission), ReplySender::Decided(reply));
        self.queue.send(SequencerMessage::Append(submission, share, reply)).unwrap();
        answer
    }

    /// The same for a sender that compares what is undecided.
    fn queue_open(&self, text: &str) -> oneshot::Receiver<Result<IngestOutcome, IngestError>> {
        let share = QueueShare::take(&Arc::default(), 1, 1).unwrap();
        let (reply, answer) = oneshot::channel();
        let submission = Box::new(body(text));
        let message = SequencerMessage::Append(submission, share, ReplySender::Open(reply));
        self.queue.send(message).unwrap();
        answer
    }

    /// From now on with a large id table of this window.
    fn index_of(&mut self, house: &House, window_ms: i64) {
        let folder = house.options.dedup_folder.clone();
        let options = dedup::IndexOptions { folder, window_ms, fresh_max: 1_000_000 };
        self.sequencer.dedup.index = dedup::IdIndex::open(options, NOW_MS).unwrap();
    }

    /// Serves what is queued as one group.
    fn serve(&mut self) {
        let first = self.sequencer.queue.recv().unwrap();
        assert!(!self.sequencer.serve(Some(first)));
    }

    /// Serves one submission.
    fn take(&mut self, text: &str) -> Result<Receipt, IngestError> {
        let mut answer = self.queue(text);
        self.serve();
        answer.try_recv().unwrap()
    }

    fn keys_in_log(&self) -> usize {
        self.sequencer.wal.records(RecordKind::Keys, &ns("a"), 0).len()
    }
}

#[test]
fn a_full_id_table_goes_to_a_file_and_the_log_lets_go_of_it() {
    let house = House::new();
    let mut bench = Bench::new(&house);
    bench.take("a/1 a/2 a/3").unwrap();
    bench.sequencer.look_after_index();
    assert!(!bench.sequencer.dedup.index.is_writing());
    bench.take("a/4:fresh a/5").unwrap();
    bench.sequencer.look_after_index();
    // Taken after the freeze: the log must keep these.
    assert_eq!(line(&bench.take("a/6 a/1").unwrap()), "dup 1; a 1-6; ");
    while bench.sequencer.dedup.index.is_writing() {
        bench.sequencer.look_after_index();
        std::thread::yield_now();
    }
    assert_eq!(bench.keys_in_log(), 1);
    assert_eq!(line(&bench.take("a/5 a/6").unwrap()), "dup 2; a 5-6; ");
    let house = crashed(&house);
    let mut bench = Bench::new(&house);
    assert_eq!(line(&bench.take("a/1 a/5 a/7").unwrap()), "dup 2; a 1-7; ");
    assert!(bench.sequencer.dedup.ledger.entry(&ns("a")).types.contains("fresh"));
}

#[test]
fn ids_that_hold_up_a_purge_of_the_log_go_to_a_file() {
    let house = House::new();
    let mut bench = Bench::new(&house);
    let through = bench.take("a/1 a/2").unwrap().position;
    let wal = bench.sequencer.wal.clone();
    wal.trim(RecordKind::Events, &ns("a"), through).unwrap();
    while !wal.purge(through) {
        bench.sequencer.look_after_index();
        std::thread::yield_now();
    }
    assert!(wal.all_records(0).is_empty());
    assert_eq!(line(&bench.take("a/1 a/3").unwrap()), "dup 1; a 1-3; ");
    let house = crashed(&house);
    let mut bench = Bench::new(&house);
    // The bench has the ids of files alone.
    assert_eq!(line(&bench.take("a/1 a/2").unwrap()), "dup 2; a 1-2; ");
}

#[test]
fn the_log_lets_go_of_ids_once_what_goes_with_their_file_has_room_again() {
    let house = House::new();
    let mut bench = Bench::new(&house);
    // A folder in the place of the file, as good as a full disk.
    let in_the_way = bench.sequencer.folder.join("namespaces.next");
    let _there_or_not = std::fs::remove_file(&in_the_way);
    std::fs::create_dir_all(&in_the_way).unwrap();
    bench.take("a/1 a/2 a/3 a/4").unwrap();
    bench.sequencer.look_after_index();
    while bench.sequencer.dedup.index.is_writing() {
        bench.sequencer.look_after_index();
        std::thread::yield_now();
    }
    assert_eq!(bench.keys_in_log(), 1);
    std::fs::remove_dir(&in_the_way).unwrap();
    // No id comes any more.
    bench.sequencer.look_after_index();
    assert_eq!(bench.keys_in_log(), 0);
}

#[test]
fn nobody_is_asked_about_an_event_before_it_is_in_the_log() {
    let house = House::new();
    let mut bench = Bench::with(&house, "wal.before_write=error");
    for is_written in [false, true] {
        let mut first = bench.queue("a/x=one");
        let mut second = bench.queue_open("a/x=two");
        bench.serve();
        assert_eq!(first.try_recv().unwrap().is_ok(), is_written);
        // The event that it asks about is of the same group.
        match second.try_recv().unwrap() {
            Err(IngestError::Unavailable(_)) => assert!(!is_written),
            Ok(IngestOutcome::Undecided(_, questions)) => {
                assert!(is_written);
                assert_eq!(questions.events, [UndecidedEvent { group: 0, row: 0, seq: 1 }]);
            }
            other => panic!("{other:?}"),
        }
    }
}

/// What a table holds of a namespace: ids, counted from 1, with the time they arrived.
fn rebuild(house: &House, ids_max: usize, table: &[(&str, i64)]) -> Option<rebuild::IndexRebuild> {
    let (wal, _writer) = house.open_log(Failpoints::default());
    let mut rebuild =
        rebuild::IndexRebuild::start_with(&house.options, &wal, &house.clock, ids_max).unwrap()?;
    for (seq, (id, arrived_ms)) in (1..).zip(table) {
        rebuild.add(&ns("a"), event_key(&ns("a"), id), seq, *arrived_ms).unwrap();
    }
    rebuild.add_type(&ns("a"), "old");
    Some(rebuild)
}

#[tokio::test]
async fn a_young_index_is_not_taken_for_a_lost_one() {
    let house = House::new();
    assert!(rebuild(&house, 10, &[]).is_none(), "there is nothing yet");
    let server = house.start();
    server.take(body("a/1 a/2")).await;
    let house = crashed(&house);
    assert!(rebuild(&house, 10, &[]).is_none(), "the log has the ids");
    server.ingest.stop().await;
    assert!(rebuild(&house, 10, &[]).is_none());
}

#[tokio::test]
async fn a_rebuild_that_is_cut_short_starts_again_and_ends_whole() {
    let mut house = House::new();
    house.options.seq_floor.insert((RecordKind::Events, ns("a")), 7);
    let table: Vec<(&str, i64)> =
        ["1", "2", "3", "4", "5", "6", "7"].iter().map(|id| (*id, NOW_MS - 1_000)).collect();
    let begun = rebuild(&house, 2, &table).expect("tables without an index");
    let written = |house: &House| {
        let files = std::fs::read_dir(&house.options.dedup_folder).unwrap();
        files
            .filter(|file| {
                file.as_ref().unwrap().path().extension().is_some_and(|end| end == "ids")
            })
            .count()
    };
    assert_eq!(written(&house), 3);
    // As `kill -9`: what is in memory is gone.
    drop(begun);
    let again = rebuild(&house, 2, &table).expect("it was not finished");
    assert_eq!(again.finish().unwrap(), 1, "three files of two ids were there");
    assert!(rebuild(&house, 2, &table).is_none());
    let server = house.start();
    assert_eq!(line(&server.take(body("a/1 a/7 a/8")).await), "dup 2; a 1-8; ");
    server.ingest.stop().await;
    drop(server);
    // One file of many is missed as well.
    let file = std::fs::read_dir(&house.options.dedup_folder).unwrap();
    let mut files: Vec<_> = file.map(|file| file.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "ids"));
    files.sort();
    std::fs::remove_file(&files[1]).unwrap();
    let partly = rebuild(&house, 2, &table).expect("a file is missing");
    assert_eq!(partly.finish().unwrap(), 2);
    let server = house.start();
    assert_eq!(line(&server.take(body("a/3 a/4 a/8 a/9")).await), "dup 3; a 3-9; ");
}

#[tokio::test]
async fn what_left_the_window_is_neither_missed_nor_loaded() {
    let mut house = House::new();
    house.options.seq_floor.insert((RecordKind::Events, ns("a")), 2);
    let week_ms = 7 * 86_400_000;
    let table = [("old", NOW_MS - week_ms - 1), ("young", NOW_MS - week_ms + 1)];
    assert_eq!(rebuild(&house, 10, &table).unwrap().finish().unwrap(), 1);
    let server = house.start();
    assert_eq!(line(&server.take(body("a/old a/young")).await), "dup 1; a 2-3; ");
    server.ingest.stop().await;
    drop(server);
    // Only what passes while a server runs makes ids old.
    let server = house.start();
    house.clock.advance_ms(week_ms + 2);
    server.ingest.stop().await;
    drop(server);
    // Both files are older than the window now, and may be gone.
    for file in std::fs::read_dir(&house.options.dedup_folder).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|end| end == "ids") {
            std::fs::remove_file(path).unwrap();
        }
    }
    assert!(rebuild(&house, 10, &[]).is_none());
}

#[tokio::test]
async fn a_crash_after_a_quiet_window_misses_no_file_of_ids() {
    let house = House::new();
    let server = house.start();
    server.take(body("a/old")).await;
    server.ingest.stop().await;
    drop(server);
    let mut bench = Bench::new(&house);
    let hour_ms = 3_600_000;
    bench.index_of(&house, 7 * 24 * hour_ms);
    assert_eq!(line(&bench.take("a/old a/new").unwrap()), "dup 1; a 1-2; ");
    for _ in 0..8 * 24 {
        house.clock.advance_ms(hour_ms);
        bench.sequencer.look_after_index();
    }
    // Nothing was frozen meanwhile: the id is in the log alone.
    assert_eq!(bench.keys_in_log(), 1);
    assert_eq!(bench.sequencer.dedup.index.files().count(), 0);
    let house = crashed(&house);
    drop(bench);
    assert!(rebuild(&house, 10, &[]).is_none(), "its file is gone because it was old");
    let server = house.start();
    assert_eq!(line(&server.take(body("a/old a/new")).await), "dup 1; a 2-3; ");
}

#[test]
fn a_full_log_lets_go_of_what_it_holds_for_the_ids_alone() {
    let house = House { log_bytes_max: 40_000, ..House::new() };
    let mut bench = Bench::new(&house);
    bench.index_of(&house, 1_000_000);
    let mut taken = 0;
    while bench.take(&format!("a/{taken}")).is_ok() {
        taken += 1;
        // As a flush does; the ids stay.
        bench.sequencer.wal.trim(RecordKind::Events, &ns("a"), u64::MAX).unwrap();
    }
    assert_eq!(bench.keys_in_log(), taken);
    loop {
        bench.sequencer.look_after_index();
        if !bench.sequencer.dedup.index.is_writing() {
            break;
        }
        std::thread::yield_now();
    }
    assert_eq!(bench.keys_in_log(), 0);
    assert_eq!(line(&bench.take("a/0 a/new").unwrap()).split(';').next().unwrap(), "dup 1");
}

#[test]
fn memory_stays_bounded_while_the_id_files_cannot_be_written() {
    let house = House::new();
    let mut bench = Bench::new(&house);
    std::fs::remove_dir_all(&house.options.dedup_folder).unwrap();
    for n in 0..12 {
        bench.take(&format!("a/{n}")).unwrap();
        bench.sequencer.look_after_index();
    }
    let refused = bench.take("a/more");
    assert!(matches!(refused, Err(IngestError::Unavailable(_))), "{refused:?}");
    assert_eq!(bench.keys_in_log(), 12);
    std::fs::create_dir(&house.options.dedup_folder).unwrap();
    assert_eq!(line(&bench.take("a/more a/0").unwrap()), "dup 1; a 1-13; ");
    assert_eq!(bench.keys_in_log(), 9);
}

#[test]
fn a_damaged_id_file_fails_the_look_up_and_not_the_server() {
    let house = House::new();
    let mut bench = Bench::new(&house);
    bench.take("a/1 a/2 a/3 a/4").unwrap();
    bench.sequencer.look_after_index();
    assert!(bench.sequencer.dedup.index.wait(NOW_MS).unwrap());
    for file in std::fs::read_dir(&house.options.dedup_folder).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|end| end != "ids") {
            continue;
        }
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[4096] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }
    // What was judged before the error is taken back.
    let refused = bench.take("b/5 a/1");
    assert!(matches!(refused, Err(IngestError::Unavailable(_))), "{refused:?}");
    assert_eq!(line(&bench.take("b/5").unwrap()), "dup 0; b 1-1; ");
}

#[test]
fn what_was_queued_around_the_stop_is_answered() {
    let house = House::new();
    let mut bench = Bench::new(&house);
    bench.sequencer.bounds.requests_max = 1;
    let mut answers = vec![bench.queue("a/1")];
    bench.queue.send(SequencerMessage::Stop).unwrap();
    answers.extend(["a/2", "a/3", "a/4"].map(|text| bench.queue(text)));
    bench.sequencer.run();
    for (seq, answer) in (1..).zip(&mut answers) {
        let receipt = answer.try_recv().unwrap().unwrap();
        assert_eq!(line(&receipt), format!("dup 0; a {seq}-{seq}; "));
    }
}

/// A JSON body as a request brings it.
fn json(text: &str) -> Submission {
    let arrival = icecore_lake::event::RequestContext {
        now_us: NOW_MS * 1000,
        namespace: ns("shop.eu"),
        first_id: ulid::Ulid(1 << 80),
        cloud_event: Vec::new(),
        correlation_id: None,
        request_id: None,
        again: None,
    };
    let limits = icecore_lake::event::EventLimits {
        event_bytes_max: 1 << 20,
        batch_events_max: 100,
        depth_max: 64,
        ts_past_us: None,
        ts_future_us: 3_600_000_000,
        redact: true,
        columns: icecore_schemas::columns::EVENTS,
        takes_merge_ids: false,
    };
    let format = icecore_lake::event::BodyFormat::Json;
    let (mut decoded, batch_id) =
        icecore_lake::event::decode::decode(text.as_bytes(), format, &arrival, &limits).unwrap();
    decoded.source.bytes = bytes::Bytes::copy_from_slice(text.as_bytes());
    let request = in_batch(batch_id);
    Submission { decoded, request, bytes: text.len(), ..Submission::default() }
}

#[tokio::test]
async fn a_body_goes_through_decoding_to_rows_once() {
    let house = House::new();
    let server = house.start();
    let first = r#"[{"id":"o1","type":"order","data":{"total":5}},{"type":"visit"},{"id":"bad"}]"#;
    let receipt = server.take(json(first)).await;
    assert_eq!(line(&receipt), "dup 0; shop.eu 1-2; 2 MISSING_TYPE kept");
    // Members in another order are the same event; another value is not.
    let again = r#"[{"data":{"total":5},"type":"order","id":"o1"}]"#;
    assert_eq!(line(&server.take(json(again)).await), "dup 1; shop.eu 1-1; ");
    let changed = r#"{"events":[{"id":"o1","type":"order","data":{"total":6}}],"batchId":"b7"}"#;
    assert_eq!(line(&server.take(json(changed)).await), "dup 0; ; 0 CONFLICT kept");
    let data = server.rows(RecordKind::Events, "shop.eu", "data");
    assert_eq!(id_list(&data), r#"1:{"total":5} 2:null"#);
    let graves = server.rows(RecordKind::DeadLetters, "shop.eu", "payload");
    assert_eq!(graves[0].1, r#"{"id":"bad"}"#);
    assert_eq!(graves[1].1, r#"{"id":"o1","type":"order","data":{"total":6}}"#);
    let batches = server.rows(RecordKind::DeadLetters, "shop.eu", "batch_id");
    assert_eq!(batches[1].1, "b7");
}
