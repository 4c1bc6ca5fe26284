use super::*;
use std::sync::Arc;

fn asked(member: &str, value: &str) -> ErasureSubject {
    serde_json::from_value(serde_json::json!({ member: value })).unwrap()
}

fn subject(member: &str, value: &str) -> Subject {
    Subject::parse(&asked(member, value)).unwrap()
}

/// Whether a row is the subject's that has only this document, in this collection and with this detail.
fn has(subject: &Subject, text: &str, collection: Option<&str>, detail: Option<&str>) -> bool {
    let column =
        |text: Option<&str>| -> Option<ArrayRef> { Some(Arc::new(StringArray::from(vec![text]))) };
    let mut columns: Vec<Option<ArrayRef>> = vec![None; subject.columns().len()];
    columns.extend([None, None, None, column(Some(text)), None, None]);
    columns.extend([column(collection), column(detail)]);
    subject.rows(&columns, 1).value(0)
}

#[test]
fn a_row_is_the_subjects_by_its_column() {
    let ann = subject("user_id", "ann");
    let own: ArrayRef = Arc::new(StringArray::from(vec![Some("ann"), Some("anna"), None]));
    let found = ann.rows(&[Some(own), None, None, None, None, None, None, None], 3);
    assert_eq!(found, BooleanArray::from(vec![true, false, false]));
    assert_eq!(ann.rows(&vec![None; 8], 2), BooleanArray::from(vec![false, false]));
}

#[test]
fn a_patch_has_it_in_its_members_and_in_what_it_gives_to_members() {
    let ann = subject("user_id", "ann");
    let is_hers = |patch: &str| {
        let patch: ArrayRef = Arc::new(StringArray::from(vec![Some(patch)]));
        ann.rows(&[None, None, None, None, None, Some(patch), None, None], 1).value(0)
    };
    for patch in [
        r#"{"userId":"ann"}"#,
        r#"[{"op":"test","path":"/a","value":1},{"op":"replace","path":"/userId","value":"ann"}]"#,
        r#"[{"op":"add","path":"","value":{"user_id":"ann"}}]"#,
    ] {
        assert!(is_hers(patch), "{patch}");
    }
    for patch in [
        r#"{"name":"ann"}"#,
        r#"[{"op":"add","path":"/name","value":"ann"}]"#,
        r#"[{"op":"add","path":"/userId","value":"anna"}]"#,
    ] {
        assert!(!is_hers(patch), "{patch}");
    }
}

#[test]
fn a_document_has_it_at_its_top_under_each_of_its_names() {
    let ann = subject("user_id", "ann");
    let named = [
        r#"{"userId":"ann"}"#,
        r#"{"a":1,"user_id":"ann"}"#,
        r#"{"user_id":"\u0061nn"}"#,
        // The last one of a name is not the only one that is kept.
        r#"{"user_id":"ann","user_id":"bea"}"#,
        r#"[{"user_id":"ann"}]"#,
        // What is cut off is looked through as text.
        r#"{"user_id":"ann","x"#,
        r#"7 {"user_id":"ann"}"#,
        // A dead letter has the whole event.
        r#"{"op":"c","after":{"user_id":"ann"}}"#,
        r#"{"payload":{"before":{"userId":"ann"},"op":"d"}}"#,
        r#"{"batch":[{"data":{"user_id":"bea"}},{"data":{"user_id":"ann"}}]}"#,
        r#"{"icecore_event":"{\"data\":{\"user_id\":\"ann\"}}"}"#,
    ];
    for text in named {
        assert!(has(&ann, text, None, None), "{text}");
    }
    let others = [
        r#"{"user_id":"anna"}"#,
        r#"{"actor":"ann"}"#,
        r#"{"user":{"user_id":"ann"}}"#,
        r#"{"user_id":["ann"]}"#,
        r#""ann""#,
        "17",
        r#"{"user_id":"anna","x"#,
    ];
    for text in others {
        assert!(!has(&ann, text, None, None), "{text}");
    }
    assert!(has(&subject("id", "17"), r#"{"id":17}"#, None, None), "numbers are compared by value");
    assert!(!has(&subject("id", "17"), r#"{"id":170}"#, None, None));
    assert!(!has(&subject("id", "17"), r#"{"n":17}"#, None, None));
}

#[test]
fn a_number_is_compared_exactly_however_it_is_written() {
    let long = "12345678901234567890123";
    for (value, text) in [
        ("100", r#"{"user_id":1e2}"#),
        ("1e2", r#"{"user_id":1e2}"#),
        ("100", r#"{"user_id":100.0}"#),
        (long, r#"{"user_id":12345678901234567890123}"#),
        ("7", r#"{"user_id" : 7, "x"#),
    ] {
        assert!(has(&subject("user_id", value), text, None, None), "{value} {text}");
    }
    for text in [r#"{"user_id":70, "x"#, r#"{"n":7,"x"#, r#"{"user_id":-7}"#] {
        assert!(!has(&subject("user_id", "7"), text, None, None), "{text}");
    }
}

#[test]
fn members_of_documents_that_are_no_events_are_looked_at_at_their_top_alone() {
    let ann = subject("user_id", "ann");
    let inside: ArrayRef = Arc::new(StringArray::from(vec![r#"{"data":{"user_id":"ann"}}"#]));
    // user_id, before, after, data, payload, patch, doc, collection, detail.
    let columns = [None, None, None, Some(inside), None, None, None, None, None];
    assert_eq!(ann.rows(&columns, 1), BooleanArray::from(vec![false]));
}

#[test]
fn bytes_in_base64_are_looked_through() {
    let (payload, detail) =
        dead_letter::keep(b"{\"user_id\":\"ann\",\xff", "the event is not valid JSON".to_owned());
    assert!(has(&subject("user_id", "ann"), &payload, None, Some(&detail)));
    assert!(!has(&subject("user_id", "bea"), &payload, None, Some(&detail)));
}

#[test]
fn a_key_may_be_of_one_collection_alone() {
    let asked = ErasureSubject {
        key: Some("7".to_owned()),
        collection: Some("users".to_owned()),
        ..ErasureSubject::default()
    };
    let user = Subject::parse(&asked).unwrap();
    assert!(has(&user, r#"{"docId":"7","table":"users"}"#, None, None));
    assert!(has(&user, r#"{"pk":7}"#, Some("users"), None));
    assert!(!has(&user, r#"{"docId":"7","table":"orders"}"#, Some("users"), None));
    assert!(!has(&user, r#"{"docId":"7"}"#, None, None));
    assert!(has(&user, r#"{"collection":"users","after":{"docId":7}}"#, None, None));
    assert!(!has(&user, r#"{"collection":"orders","after":{"docId":7}}"#, None, None));
    let keys: ArrayRef = Arc::new(StringArray::from(vec!["7", "7"]));
    let collections: ArrayRef = Arc::new(StringArray::from(vec!["users", "orders"]));
    let columns = [Some(keys), None, None, None, None, None, None, Some(collections), None];
    assert_eq!(user.rows(&columns, 2), BooleanArray::from(vec![true, false]));
}

#[test]
fn a_request_names_one_member() {
    let refused = [
        ErasureSubject::default(),
        ErasureSubject { actor: Some("b".to_owned()), ..asked("user_id", "a") },
        ErasureSubject { collection: Some("c".to_owned()), ..asked("id", "a") },
        asked("id", ""),
        asked("id", &"x".repeat(VALUE_BYTES_MAX + 1)),
    ];
    for subject in refused {
        assert!(Subject::parse(&subject).is_err(), "{subject:?}");
    }
}
