use super::{
    DocumentMerge, MergePreference, MergeSides, MergedDocument, is_same, merge_document, value_of,
};
use icecore_fuzz::{Rng, StdRng};
use serde_json::{Map, Value, json};

const CASES: u64 = 3_000;
const BOTH: [MergePreference; 2] = [MergePreference::Ours, MergePreference::Theirs];

/// Texts of a document: at the last event in common, on the branch, and on the branch that it is merged into.
type Texts = (Option<String>, Option<String>, Option<String>);

fn sides<'a>(
    base: Option<&'a str>,
    theirs: Option<&'a str>,
    ours: Option<&'a str>,
) -> MergeSides<'a> {
    MergeSides { base_theirs: base, theirs, base_ours: base, ours }
}

/// The document after a merge.
fn document(sides: MergeSides<'_>, merge: &DocumentMerge) -> Option<String> {
    match &merge.document {
        MergedDocument::Ours => sides.ours.map(str::to_owned),
        MergedDocument::Theirs => sides.theirs.map(str::to_owned),
        MergedDocument::Both(text) => Some(text.clone()),
    }
}

fn is_equal(one: Option<&str>, other: Option<&str>) -> bool {
    is_same(one.map(value_of), other.map(value_of))
}

/// Base, theirs, ours; the document where conflicts go to `ours`, and where they go to `theirs`; the conflicts.
fn check(texts: [&str; 3], expected: [&str; 2], conflicts: &[&str]) {
    let [base, theirs, ours] = texts.map(|text| Some(text).filter(|text| !text.is_empty()));
    let sides = sides(base, theirs, ours);
    for (preference, expected) in BOTH.into_iter().zip(expected) {
        let merge = merge_document(sides, preference);
        let is = document(sides, &merge).unwrap_or_default();
        assert_eq!(is, expected, "{texts:?} {preference:?}");
        assert_eq!(merge.conflicts, conflicts, "{texts:?} {preference:?}");
    }
}

#[test]
fn different_members_merge_and_keep_their_text() {
    let merged = r#"{"b":3,"a":{"y":2.50,"x":1e2},"n\u0065w":[1, 2]}"#;
    check(
        [
            r#"{"b":1,"a":{"y":1,"x":1},"gone":0}"#,
            r#"{"b":1, "a":{"y":1,"x":1e2}, "n\u0065w":[1, 2]}"#,
            r#"{"b":3, "a":{"y":2.50,"x":1},"gone":0}"#,
        ],
        [merged, merged],
        &[],
    );
}

#[test]
fn a_member_that_both_changed_is_a_conflict_unless_it_is_the_same() {
    check([r#"{"a":1}"#, r#"{"a":2.0}"#, r#"{"a":2}"#], [r#"{"a":2}"#, r#"{"a":2}"#], &[]);
    check([r#"{"a":1}"#, r#"{"a":2}"#, r#"{"a":3}"#], [r#"{"a":3}"#, r#"{"a":2}"#], &["/a"]);
    check(
        [r#"{"a":{"b/~":[1],"c":1}}"#, r#"{"a":{"b/~":[1,2],"c":2}}"#, r#"{"a":{"b/~":[],"c":1}}"#],
        [r#"{"a":{"b/~":[],"c":2}}"#, r#"{"a":{"b/~":[1,2],"c":2}}"#],
        &["/a/b~1~0"],
    );
    check([r#"{"a":1}"#, "{}", r#"{"a":3}"#], [r#"{"a":3}"#, "{}"], &["/a"]);
    check(["{}", r#"{"a":1}"#, r#"{"a":3}"#], [r#"{"a":3}"#, r#"{"a":1}"#], &["/a"]);
}

#[test]
fn whole_documents_come_and_go() {
    // Nobody, one of them, both alike.
    check([r#"{"a": 1}"#; 3], [r#"{"a": 1}"#; 2], &[]);
    check(["", r#"{"a": 1}"#, ""], [r#"{"a": 1}"#; 2], &[]);
    check(["", "", r#"{"a": 1}"#], [r#"{"a": 1}"#; 2], &[]);
    check([r#"{"a":1}"#, "", r#"{"a":1}"#], ["", ""], &[]);
    check([r#"{"a":1}"#, r#"{"a":1}"#, ""], ["", ""], &[]);
    check([r#"{"a":1}"#, "", ""], ["", ""], &[]);
    check(["", r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1.0}"#], [r#"{"b":2,"a":1.0}"#; 2], &[]);
    // A conflict of the whole document.
    check([r#"{"a":1}"#, "", r#"{"a":2}"#], [r#"{"a":2}"#, ""], &[""]);
    check([r#"{"a":1}"#, r#"{"a":2}"#, ""], ["", r#"{"a":2}"#], &[""]);
    check(["", r#"{"a":1}"#, r#"{"b":1}"#], [r#"{"b":1}"#, r#"{"a":1}"#], &[""]);
    check(["1", "2", "3"], ["3", "2"], &[""]);
    check(["plain text", "plain", "plain text"], ["plain", "plain"], &[]);
    check(["1", "2", "plain text"], ["plain text", "2"], &[""]);
    // What says the same in other words is no change where the other side changed.
    check([r#"{"a":1}"#, r#"{ "a":1.0}"#, r#"{"a":2}"#], [r#"{"a":2}"#; 2], &[]);
    check([r#"{"a":1}"#, r#"{ "a":1.0}"#, r#"{"a":1}"#], [r#"{ "a":1.0}"#; 2], &[]);
}

#[test]
fn what_came_into_one_side_before_the_last_event_in_common_stays() {
    let sides = MergeSides {
        base_theirs: Some(r#"{"a":1}"#),
        theirs: Some(r#"{"a":2,"c":5}"#),
        base_ours: Some(r#"{"a":1,"b":7}"#),
        ours: Some(r#"{"a":1,"b":7}"#),
    };
    let merge = merge_document(sides, MergePreference::Ours);
    assert_eq!(merge.document, MergedDocument::Both(r#"{"a":2,"b":7,"c":5}"#.to_owned()));
    assert!(merge.conflicts.is_empty());
}

#[test]
fn objects_are_merged_to_a_bound_of_levels() {
    let deep = |inner: &str| {
        let levels = 400;
        format!("{}{inner}{}", r#"{"a":"#.repeat(levels), "}".repeat(levels))
    };
    let texts = [deep(r#"{"b":1,"c":1}"#), deep(r#"{"b":2,"c":1}"#), deep(r#"{"b":1,"c":2}"#)];
    let sides = sides(Some(&texts[0]), Some(&texts[1]), Some(&texts[2]));
    let merge = merge_document(sides, MergePreference::Theirs);
    assert_eq!(merge.conflicts, ["/a".repeat(super::LEVELS_MAX)]);
    assert!(is_equal(document(sides, &merge).as_deref(), sides.theirs));
}

#[test]
fn merges_obey_their_laws() {
    icecore_fuzz::run(CASES, some_texts, |(base, theirs, ours), _| {
        let (base, theirs, ours) = (base.as_deref(), theirs.as_deref(), ours.as_deref());
        let all = sides(base, theirs, ours);
        let merges = BOTH.map(|preference| merge_document(all, preference));
        let documents = merges.each_ref().map(|merge| document(all, merge));
        // Who is preferred decides conflicts alone.
        assert_eq!(merges[0].conflicts, merges[1].conflicts);
        if merges[0].conflicts.is_empty() {
            assert_eq!(documents[0], documents[1]);
        }
        // It is what the model makes of it.
        for (preference, document) in BOTH.into_iter().zip(&documents) {
            let expected = model(values([base, theirs, ours]), preference == MergePreference::Ours);
            assert_eq!(document.as_deref().map(parsed), expected, "{preference:?}");
        }
        // From the other side it is the same, with the other preference.
        let mirrored = sides(base, ours, theirs);
        let merge = merge_document(mirrored, MergePreference::Theirs);
        let other = document(mirrored, &merge);
        assert!(is_equal(other.as_deref(), documents[0].as_deref()));
        assert_eq!(sorted(&merge.conflicts), sorted(&merges[0].conflicts));
        // Where one side changed nothing it is the other one, byte for byte.
        for preference in BOTH {
            let one = sides(base, theirs, base);
            assert_eq!(document(one, &merge_document(one, preference)).as_deref(), theirs);
            let one = sides(base, base, ours);
            assert_eq!(document(one, &merge_document(one, preference)).as_deref(), ours);
        }
        // Another time it changes nothing: neither before it is known nor after it.
        for (preference, merged) in BOTH.into_iter().zip(&documents) {
            let merged = merged.as_deref();
            let again = sides(base, theirs, merged);
            assert_eq!(merge_document(again, preference).document, MergedDocument::Ours);
            let known = MergeSides { base_theirs: theirs, theirs, base_ours: merged, ours: merged };
            let merge = merge_document(known, preference);
            assert_eq!(document(known, &merge).as_deref(), merged);
            assert!(merge.conflicts.is_empty());
        }
    });
}

fn sorted(paths: &[String]) -> Vec<String> {
    let mut paths = paths.to_vec();
    paths.sort();
    paths
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

fn values(texts: [Option<&str>; 3]) -> [Option<Value>; 3] {
    texts.map(|text| text.map(parsed))
}

/// The merge of values: base, theirs, ours.
fn model([base, theirs, ours]: [Option<Value>; 3], is_ours: bool) -> Option<Value> {
    if theirs == base || theirs == ours {
        return ours;
    }
    if ours == base {
        return theirs;
    }
    let objects = [&base, &theirs, &ours].map(|it| it.as_ref().and_then(Value::as_object));
    let [Some(base), Some(theirs), Some(ours)] = objects else {
        return if is_ours { ours } else { theirs };
    };
    let names = theirs.keys().chain(ours.keys());
    let member = |name: &String| {
        let of = |object: &Map<String, Value>| object.get(name).cloned();
        let value = model([of(base), of(theirs), of(ours)], is_ours)?;
        Some((name.clone(), value))
    };
    Some(Value::Object(names.filter_map(member).collect()))
}

fn some_texts(random: &mut StdRng) -> Texts {
    let text = |value: &Option<Value>| value.as_ref().map(Value::to_string);
    let base = some_document(random);
    let mut side = |base: &Option<Value>| match random.random_range(0..6) {
        0 => base.clone(),
        1 => some_document(random),
        _ => base.as_ref().map(|base| changed(random, base)),
    };
    let (theirs, ours) = (side(&base), side(&base));
    (text(&base), text(&theirs), text(&ours))
}

fn small(random: &mut StdRng) -> u8 {
    random.random_range(0..3)
}

fn some_document(random: &mut StdRng) -> Option<Value> {
    match random.random_range(0..8) {
        0 => None,
        1 => Some(json!(small(random))),
        _ => Some(some_object(random, 3)),
    }
}

fn some_object(random: &mut StdRng, levels: usize) -> Value {
    let mut members = Map::new();
    for name in ["a", "b", "c"] {
        if random.random_bool(0.7) {
            members.insert(name.to_owned(), some_value(random, levels));
        }
    }
    Value::Object(members)
}

fn some_value(random: &mut StdRng, levels: usize) -> Value {
    match random.random_range(0..4) {
        0 if 0 < levels => some_object(random, levels - 1),
        1 => json!([small(random)]),
        _ => json!(small(random)),
    }
}

/// The value with some members set, removed or changed.
fn changed(random: &mut StdRng, value: &Value) -> Value {
    let Some(members) = value.as_object() else { return some_value(random, 2) };
    let mut members = members.clone();
    for name in ["a", "b", "c"] {
        match random.random_range(0..6) {
            0 => {
                members.insert(name.to_owned(), some_value(random, 2));
            }
            1 => {
                members.remove(name);
            }
            2 => {
                if let Some(member) = members.get(name).cloned() {
                    members.insert(name.to_owned(), changed(random, &member));
                }
            }
            _ => {}
        }
    }
    Value::Object(members)
}
