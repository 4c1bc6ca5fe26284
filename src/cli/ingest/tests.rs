use crate::cli::ingest::{next_batch, open, push_with_id};

#[test]
fn an_event_without_an_id_gets_one_and_others_stay_as_they_are() {
    let check = |event: &str, expected: &str| {
        let mut body = Vec::new();
        push_with_id(&mut body, event.as_bytes(), || "f-1".to_owned());
        assert_eq!(String::from_utf8(body).unwrap(), format!("{expected}\n"));
    };
    check(r#"{"type":"a"}"#, r#"{"id":"f-1","type":"a"}"#);
    check("{}", r#"{"id":"f-1"}"#);
    check(r#"{"id":"x","type":"a"}"#, r#"{"id":"x","type":"a"}"#);
    check(r#"{"events":[{}]}"#, r#"{"events":[{}]}"#);
    check(r#"{"type":"#, r#"{"type":"#);
    check("[1]", "[1]");
}

#[test]
fn the_same_file_gives_the_same_bodies_from_any_batch_border() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.ndjson");
    let text: String = (0..12_000).map(|n| format!("{{\"type\":\"t\",\"n\":{n}}}\n\n")).collect();
    std::fs::write(&path, text).unwrap();
    let read_from = |start: u64| {
        let (mut reader, _, identity) = open(&path).unwrap();
        reader.seek_to(start).unwrap();
        next_batch(&mut reader, &identity, start).unwrap()
    };
    let (first, events, border) = read_from(0);
    assert_eq!(events, 5_000);
    assert_eq!(read_from(0).0, first);
    let (second, _, _) = read_from(border);
    let (mut reader, _, identity) = open(&path).unwrap();
    next_batch(&mut reader, &identity, 0).unwrap();
    assert_eq!(next_batch(&mut reader, &identity, border).unwrap().0, second);
}
