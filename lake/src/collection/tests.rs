mod property;

use super::{
    AnomalyKind, COLUMNS, Change, ChangeOp, Document, Image, SourceClaims,
    changes::{ChangeRow, Changes, DamagedChanges},
    table_name,
};

/// A change at `seq`, a second for each.
fn change(seq: i64, op: &str, image: Option<Image>) -> Change {
    Change {
        seq,
        op: ChangeOp::from_code(op).expect("an operation"),
        ts: seq * 1_000_000,
        image,
        store: Some("relational".to_owned()),
        actor: Some(format!("actor{seq}")),
        bookmark: Some(format!("bookmark{seq}")),
        event_id: format!("event{seq}"),
    }
}

fn whole(seq: i64, op: &str, doc: &str) -> Change {
    change(seq, op, Some(Image::Whole(doc.to_owned())))
}

fn patch(seq: i64, op: &str, patch: &str) -> Change {
    change(seq, op, Some(Image::Patch(patch.to_owned())))
}

fn delete(seq: i64) -> Change {
    change(seq, "d", None)
}

/// A change that happened at another time than its place says.
fn at(seconds: i64, change: Change) -> Change {
    Change { ts: seconds * 1_000_000, ..change }
}

fn all(changes: impl IntoIterator<Item = Change>) -> Changes {
    let mut all = Changes::default();
    changes.into_iter().for_each(|change| all.push(&change));
    all
}

/// Documents as short lines: version, operation, seq, when created and changed, and the text.
fn lines(documents: &[Document]) -> Vec<String> {
    let line = |document: &Document| {
        let Document { doc, op, version, created_at, updated_at, seq, .. } = document;
        let [created, updated] = [created_at, updated_at].map(|us| us / 1_000_000);
        let doc = doc.as_deref().unwrap_or("gone");
        format!("v{version} {} @{seq} {created}-{updated} {doc}", op.code())
    };
    documents.iter().map(line).collect()
}

/// What the changes make, as lines of all versions; and the document is the last of them, whether the
/// texts before are kept or not.
fn check(changes: &[Change], expected: &[&str]) {
    let kept = all(changes.iter().cloned());
    assert_eq!(lines(&kept.versions()), expected);
    let last = kept.versions().pop().filter(|last| last.doc.is_some());
    assert_eq!(kept.document(), last);
    let mut latest = Changes::latest();
    for change in changes.iter().rev() {
        latest.push(change);
    }
    assert_eq!(latest.document(), last);
}

fn kinds(changes: &Changes) -> Vec<(i64, AnomalyKind)> {
    changes.anomalies().into_iter().map(|anomaly| (anomaly.seq, anomaly.kind)).collect()
}

#[test]
fn each_change_makes_a_version_and_the_last_one_is_the_document() {
    check(
        &[whole(1, "c", "{\"a\":1}"), whole(2, "u", "{\"a\": 2}"), whole(5, "u", "{}")],
        &["v1 c @1 1-1 {\"a\":1}", "v2 u @2 1-2 {\"a\": 2}", "v3 u @5 1-5 {}"],
    );
}

#[test]
fn a_document_says_who_changed_it_last_and_where() {
    let document = all([whole(1, "c", "1"), whole(7, "u", "2")]).document();
    let expected = Document {
        doc: Some("2".to_owned()),
        op: ChangeOp::Update,
        store: Some("relational".to_owned()),
        version: 2,
        created_at: 1_000_000,
        updated_at: 7_000_000,
        actor: Some("actor7".to_owned()),
        bookmark: Some("bookmark7".to_owned()),
        seq: 7,
        event_id: "event7".to_owned(),
    };
    assert_eq!(document, Some(expected));
}

#[test]
fn create_and_update_both_just_set_the_document() {
    check(
        &[whole(1, "u", "1"), whole(2, "c", "2"), whole(3, "r", "3")],
        &["v1 u @1 1-1 1", "v2 c @2 1-2 2", "v3 r @3 1-3 3"],
    );
}

#[test]
fn a_delete_is_a_version_and_what_comes_after_it_begins_again() {
    check(
        &[whole(1, "c", "1"), delete(2), delete(3), whole(4, "c", "2")],
        &["v1 c @1 1-1 1", "v2 d @2 1-2 gone", "v1 c @4 4-4 2"],
    );
}

#[test]
fn a_delete_of_no_document_changes_nothing() {
    check(&[delete(1)], &[]);
    assert_eq!(all([delete(1)]).document(), None);
}

#[test]
fn order_is_seq_and_not_time() {
    check(
        &[at(9, whole(1, "c", "1")), at(3, whole(2, "u", "2"))],
        &["v1 c @1 9-9 1", "v2 u @2 9-3 2"],
    );
}

#[test]
fn a_change_that_comes_twice_counts_once() {
    let mut changes = all([whole(1, "c", "1"), whole(2, "u", "2"), whole(1, "c", "1")]);
    changes.merge(all([whole(2, "u", "2")]));
    assert_eq!(lines(&changes.versions()), ["v1 c @1 1-1 1", "v2 u @2 1-2 2"]);
}

#[test]
fn a_row_of_a_snapshot_never_overwrites_what_is_newer() {
    check(&[whole(2, "c", "1"), at(1, whole(3, "r", "0"))], &["v1 c @2 2-2 1"]);
    // The same time is not older, and a row of a snapshot does not stand against another.
    check(
        &[whole(2, "u", "1"), at(2, whole(3, "r", "2")), at(1, whole(4, "r", "3"))],
        &["v1 u @2 2-2 1", "v2 r @3 2-2 2", "v3 r @4 2-1 3"],
    );
    let stale = [whole(2, "c", "1"), at(1, whole(3, "r", "0"))];
    assert_eq!(kinds(&all(stale)), [(3, AnomalyKind::StaleRead)]);
}

#[test]
fn a_delete_stands_against_no_row_of_a_snapshot() {
    let read = at(2, whole(4, "r", "0"));
    let changes = [whole(2, "c", "1"), delete(3), read.clone()];
    check(&changes, &["v1 c @2 2-2 1", "v2 d @3 2-3 gone", "v1 r @4 2-2 0"]);
    assert!(all(changes.clone()).anomalies().is_empty());
    // A base after the delete has no such document, and the answer is the same.
    assert_eq!(all([read.clone()]).document(), all(changes).document());
    let tombstone = all([whole(2, "c", "1"), delete(3)]).versions().pop().expect("the delete");
    let mut changes = Changes::of_base(tombstone);
    changes.push(&read);
    assert_eq!(changes.document(), all([read]).document());
}

#[test]
fn a_merge_patch_changes_what_it_names() {
    check(
        &[
            whole(1, "c", r#"{"a":1,"b":{"c":2.50}}"#),
            patch(2, "u", r#"{"a":null,"d":3}"#),
            patch(3, "c", r#"{"b":{"e":4}}"#),
        ],
        &[
            r#"v1 c @1 1-1 {"a":1,"b":{"c":2.50}}"#,
            r#"v2 u @2 1-2 {"b":{"c":2.50},"d":3}"#,
            r#"v3 c @3 1-3 {"b":{"c":2.50,"e":4},"d":3}"#,
        ],
    );
}

#[test]
fn a_merge_patch_of_no_document_makes_one() {
    check(&[patch(1, "u", r#"{"a":1,"b":null}"#)], &[r#"v1 u @1 1-1 {"a":1}"#]);
    let again = [whole(1, "c", r#"{"z":1}"#), delete(2), patch(3, "u", r#"{"a":1}"#)];
    check(&again, &[r#"v1 c @1 1-1 {"z":1}"#, "v2 d @2 1-2 gone", r#"v1 u @3 3-3 {"a":1}"#]);
}

#[test]
fn a_json_patch_that_does_not_fit_leaves_the_document() {
    let changes = [
        patch(1, "u", r#"[{"op":"add","path":"","value":{}}]"#),
        whole(2, "c", r#"{"a":1}"#),
        patch(3, "u", r#"[{"op":"remove","path":"/b"}]"#),
        patch(4, "u", r#"[{"op":"replace","path":"/a","value":2}]"#),
        patch(5, "u", "3"),
    ];
    check(
        &changes,
        &[r#"v1 c @2 2-2 {"a":1}"#, r#"v2 u @3 2-3 {"a":1}"#, r#"v3 u @4 2-4 {"a":2}"#],
    );
    let seqs: Vec<i64> = kinds(&all(changes))
        .into_iter()
        .filter(|(_, kind)| matches!(kind, AnomalyKind::PatchNotApplied(_)))
        .map(|(seq, _)| seq)
        .collect();
    assert_eq!(seqs, [1, 3, 5]);
}

#[test]
fn a_change_without_a_document_is_not_applied() {
    let changes = [
        change(1, "c", None),
        whole(2, "c", "1"),
        change(3, "u", None),
        patch(4, "r", r#"{"a":1}"#),
    ];
    check(&changes, &["v1 c @2 2-2 1"]);
    let expected = [1, 3, 4].map(|seq| (seq, AnomalyKind::NoImage));
    assert_eq!(kinds(&all(changes)), expected);
}

#[test]
fn a_member_that_the_source_could_not_read_stays_as_it_was() {
    let gap = r#"{"id":1,"big":"__debezium_unavailable_value"}"#;
    check(
        &[
            whole(1, "c", r#"{"id":1,"big":"text","small":2}"#),
            whole(2, "u", gap),
            whole(3, "u", r#"{"big":"X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==","x":3}"#),
        ],
        &[
            r#"v1 c @1 1-1 {"id":1,"big":"text","small":2}"#,
            r#"v2 u @2 1-2 {"id":1,"big":"text"}"#,
            r#"v3 u @3 1-3 {"big":"text","x":3}"#,
        ],
    );
    check(
        &[
            whole(1, "c", r#"{"tags":["x"]}"#),
            whole(2, "u", r#"{"tags":["__debezium_unavailable_value"]}"#),
            whole(3, "u", r#"{"tags":["y","__debezium_unavailable_value"]}"#),
        ],
        &[
            r#"v1 c @1 1-1 {"tags":["x"]}"#,
            r#"v2 u @2 1-2 {"tags":["x"]}"#,
            r#"v3 u @3 1-3 {"tags":["y","__debezium_unavailable_value"]}"#,
        ],
    );
    // Where nothing was known it says what the source said.
    check(&[whole(1, "u", gap)], &[&format!("v1 u @1 1-1 {gap}")]);
}

#[test]
fn a_member_that_the_source_could_not_read_stays_whatever_its_type_is() {
    let numbers = "95,95,100,101,98,101,122,105,117,109,95,117,110,97,118,97,105,108,97,98,108,101,95,118,97,108,117,101";
    let doubles = format!("[{}.0]", numbers.replace(',', ".0,"));
    let unavailable = [
        r#"{"__debezium_unavailable_value":"__debezium_unavailable_value"}"#.to_owned(),
        r#""{\"__debezium_unavailable_value\":\"__debezium_unavailable_value\"}""#.to_owned(),
        r#"["b68a35a7-17ad-35b3-af2a-ae46edb4545a"]"#.to_owned(),
        r#"["X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ=="]"#.to_owned(),
        format!("[{numbers}]"),
        format!("[{}]", numbers.replace(',', ", ")),
        doubles,
    ];
    for gap in unavailable {
        check(
            &[
                whole(1, "c", r#"{"id":1,"big":[1,2]}"#),
                whole(2, "u", &format!(r#"{{"id":2,"big":{gap}}}"#)),
            ],
            &[r#"v1 c @1 1-1 {"id":1,"big":[1,2]}"#, r#"v2 u @2 1-2 {"id":2,"big":[1,2]}"#],
        );
    }
    // These are values that only look like it.
    for value in [
        r#"{"__debezium_unavailable_value":"x"}"#.to_owned(),
        format!("[{numbers},0]"),
        format!("[0{}]", &numbers[2..]),
    ] {
        let doc = format!(r#"{{"id":2,"big":{value}}}"#);
        check(
            &[whole(1, "c", r#"{"id":1,"big":[1,2]}"#), whole(2, "u", &doc)],
            &[r#"v1 c @1 1-1 {"id":1,"big":[1,2]}"#, &format!("v2 u @2 1-2 {doc}")],
        );
    }
}

#[test]
fn what_the_source_claims_is_compared_and_changes_nothing() {
    let mut changes = Changes::default();
    let claim = |before: &str, lsn: i64, version: i64| SourceClaims {
        before: Some(before.to_owned()),
        lsn: Some(lsn),
        version: Some(version),
    };
    // Nothing was known before the first one.
    changes.push_claimed(&whole(1, "u", r#"{"a":1.0,"b":2}"#), &claim("{}", 10, 1));
    changes.push_claimed(&whole(2, "u", r#"{"a":2}"#), &claim(r#"{ "b":2, "a":1 }"#, 10, 2));
    changes.push_claimed(&whole(3, "u", r#"{"a":3}"#), &claim(r#"{"a":1}"#, 9, 3));
    changes.push_claimed(&delete(4), &claim(r#"{"a":"__debezium_unavailable_value"}"#, 12, 2));
    let expected = [
        (3, AnomalyKind::PrevMismatch),
        (3, AnomalyKind::LsnWentBack),
        (4, AnomalyKind::VersionWentBack),
    ];
    assert_eq!(kinds(&changes), expected);
    assert_eq!(changes.versions().len(), 4);
    assert_eq!(changes.versions()[2].doc.as_deref(), Some(r#"{"a":3}"#));
    let again = Changes::from_bytes(&changes.to_bytes()).expect("its own bytes");
    assert_eq!(kinds(&again), expected);
}

#[test]
fn a_base_stands_for_the_changes_up_to_its_seq() {
    let former = all([whole(1, "c", "1"), whole(2, "u", "2")]);
    let base = former.document().expect("a document");
    let mut changes = Changes::of_base(base);
    changes.push(&whole(3, "u", "3"));
    // These are in the base.
    changes.merge(former);
    assert_eq!(lines(&changes.versions()), ["v2 u @2 1-2 2", "v3 u @3 1-3 3"]);
    // Of two bases the newer one counts.
    let newer = Document { seq: 4, version: 9, ..changes.document().expect("a document") };
    changes.merge(Changes::of_base(newer));
    assert_eq!(lines(&changes.versions()), ["v9 u @4 1-3 3"]);
}

#[test]
fn texts_that_cannot_matter_are_not_kept() {
    let doc = |seq: i64| format!("\"{}\"", seq.to_string().repeat(1000));
    let mut latest = Changes::latest();
    let mut versions = Changes::default();
    for seq in 1..=1000 {
        latest.push(&whole(seq, "u", &doc(seq)));
        versions.push(&whole(seq, "u", &doc(seq)));
    }
    assert!(latest.size() < 1 << 18, "{}", latest.size());
    assert!(1 << 20 < versions.size(), "{}", versions.size());
    let document = latest.document().expect("a document");
    assert_eq!((document.version, document.doc), (1000, Some(doc(1000))));
    let bytes = latest.to_bytes();
    assert!(bytes.len() < 1 << 16, "{}", bytes.len());
    assert_eq!(Changes::from_bytes(&bytes).map(|read| read.document()), Ok(latest.document()));

    // Nor after one that came twice, from where on they wait to be put in order.
    latest.push(&whole(1, "u", &doc(1)));
    for seq in 1001..1900 {
        latest.push(&whole(seq, "u", &doc(seq)));
    }
    assert!(latest.size() < 1 << 18, "{}", latest.size());
    assert_eq!(latest.document().and_then(|document| document.doc), Some(doc(1899)));

    // What comes late and is older is not kept either, and what all of it needs stays.
    let mut late = Changes::latest();
    for seq in (1..=1000).rev() {
        late.push(&whole(seq, "u", &doc(seq)));
    }
    assert_eq!(late.document(), versions.document());
    assert!(late.size() < 1 << 20, "{}", late.size());
    let expected = versions.document();
    late.merge(versions);
    assert_eq!(late.document(), expected);
    assert!(late.size() < 1 << 18, "{}", late.size());
}

#[test]
fn a_change_in_the_memory_of_the_one_before_it_is_like_one_in_its_own() {
    let long = format!("\"{}\"", "x".repeat(5_000));
    let bare = Change { store: None, actor: None, bookmark: None, ..whole(3, "u", "3") };
    let changes = [whole(1, "c", &long), whole(2, "u", "2"), bare, whole(4, "u", &long), delete(5)];
    let mut latest = Changes::latest();
    for (at, change) in changes.iter().enumerate() {
        latest.push(change);
        assert_eq!(latest.document(), all(changes[..=at].iter().cloned()).document(), "{at}");
    }
    latest.push(&whole(6, "c", "6"));
    // What one long text needed is not kept for a short one.
    assert!(latest.size() < 2_000, "{}", latest.size());
}

#[test]
fn a_row_is_the_change_that_its_columns_say() {
    let row = |op: &str, after, patch| ChangeRow {
        seq: 2,
        op: ChangeOp::from_code(op).expect("an operation"),
        ts: 2_000_000,
        after,
        patch,
        store: Some("relational"),
        actor: Some("actor2"),
        bookmark: Some("bookmark2"),
        event_id: "event2",
        before: None,
        lsn: None,
        version: None,
    };
    let merged = Some(r#"{"a":2}"#);
    for (row, same) in [
        (row("u", Some("2"), None), whole(2, "u", "2")),
        (row("u", Some("2"), merged), whole(2, "u", "2")),
        (row("u", None, merged), patch(2, "u", r#"{"a":2}"#)),
        (row("r", None, merged), patch(2, "r", r#"{"a":2}"#)),
        (row("d", Some("2"), None), delete(2)),
        (row("c", None, None), change(2, "c", None)),
    ] {
        for begin in [Changes::default(), Changes::latest()] {
            let (mut by_row, mut by_change) = (begin.clone(), begin);
            for changes in [&mut by_row, &mut by_change] {
                changes.push(&whole(1, "c", r#"{"a":1}"#));
            }
            by_row.push_row(&row);
            by_change.push(&same);
            assert_eq!(by_row, by_change, "{row:?}");
            assert_eq!(by_row.document(), by_change.document(), "{row:?}");
        }
    }
}

#[test]
fn who_counts_the_bytes_of_versions_stops_in_time() {
    let large = format!(r#"{{"text":"{}"}}"#, "x".repeat(10_000));
    let mut changes = all([whole(1, "c", &large)]);
    (2..100).for_each(|seq| changes.push(&patch(seq, "u", r#"{"n":1}"#)));
    let mut bytes = 0;
    let refused = changes.each_version(|version| {
        bytes += version.doc.map_or(0, |doc| doc.len());
        if bytes <= 50_000 { Ok(()) } else { Err(version.seq) }
    });
    assert_eq!(refused, Err(5));
    assert!(changes.size() < 50_000, "{}", changes.size());
    assert_eq!(changes.versions().len(), 99);
}

#[test]
fn other_bytes_are_refused() {
    let mut changes = Changes::of_base(all([whole(1, "c", "1")]).document().expect("a document"));
    changes.push(&patch(2, "u", "{}"));
    let bytes = changes.to_bytes();
    assert_eq!(Changes::from_bytes(&bytes).as_ref(), Ok(&changes));
    for length in 0..bytes.len() {
        let read = Changes::from_bytes(&bytes[..length]);
        assert!(read.as_ref() != Ok(&changes), "{length} of {} bytes", bytes.len());
    }
    assert_eq!(Changes::from_bytes(b""), Err(DamagedChanges));
    assert_eq!(Changes::from_bytes(&[9, 0]), Err(DamagedChanges));
    let mut long = bytes;
    long.truncate(2 + 2 + 4 * 8);
    long.extend_from_slice(&u64::MAX.to_le_bytes());
    assert_eq!(Changes::from_bytes(&long), Err(DamagedChanges));
}

#[test]
fn two_collections_have_two_tables() {
    for (collection, expected) in [("users", "cdc_users"), ("a_1", "cdc_a_1"), ("_", "cdc__")] {
        assert_eq!(table_name(collection), expected);
    }
    let long = "x".repeat(200);
    assert_eq!(table_name(&long), format!("cdc_{long}"));
    let others: [&str; 11] = [
        "Users",
        "USERS",
        "users ",
        "public.users",
        "public/users",
        "users_deltas",
        "users_0123abcd",
        "größe",
        "",
        &"x".repeat(201),
        &format!("{long}y"),
    ];
    let mut names: Vec<String> = others.iter().map(|collection| table_name(collection)).collect();
    for name in &names {
        assert!(name.starts_with("cdc_") && name.len() <= 4 + 120 + 9, "{name}");
        assert!(
            name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'),
            "{name}"
        );
        // The name of a table is no collection's own name with its own table.
        let collection = name.strip_prefix("cdc_").expect("the prefix");
        assert_ne!(table_name(collection), *name);
    }
    assert!(names[0].starts_with("cdc_users_"), "{}", names[0]);
    assert!(names[3].starts_with("cdc_public_users_"), "{}", names[3]);
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn the_columns_are_those_of_a_document() {
    let names: Vec<&str> = COLUMNS.iter().map(|column| column.name).collect();
    assert_eq!(
        names.join(" "),
        "key doc op store version created_at updated_at actor bookmark seq event_id"
    );
    assert!(COLUMNS.iter().all(|column| column.required == (column.name == "key")));
}

#[test]
fn operations_are_known_by_their_code() {
    for code in ["c", "u", "d", "r"] {
        assert_eq!(ChangeOp::from_code(code).map(ChangeOp::code), Some(code));
    }
    for code in ["", "C", "t", "insert"] {
        assert_eq!(ChangeOp::from_code(code), None);
    }
}
