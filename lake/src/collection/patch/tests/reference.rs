//! Random documents and patches: always what the rules of the RFCs make of parsed values.

use crate::collection::patch::{json_patch, merge_patch, merge_patch_of_none};
use icecore_fuzz::{Rng, StdRng, pick};
use serde_json::{Map, Value, json};

const CASES: u64 = 3000;
const OPERATIONS_MAX: usize = 6;
/// Names of members, with signs that a pointer escapes.
const NAMES: [&str; 5] = ["a", "b", "0", "x/y", "t~"];

#[test]
fn a_merge_patch_makes_what_rfc_7396_says() {
    let make = |random: &mut StdRng| [some_value(random, 3), some_object(random, 3)];
    icecore_fuzz::run(CASES, make, |[document, patch], _| {
        let merged = merge_patch(&document.to_string(), &patch.to_string()).expect("a small one");
        assert_eq!(parsed(&merged), merge(document.clone(), patch));
        let merged = merge_patch_of_none(&patch.to_string());
        assert_eq!(parsed(&merged), merge(json!({}), patch));
    });
}

#[test]
fn a_json_patch_makes_what_rfc_6902_says_or_nothing() {
    let make = |random: &mut StdRng| {
        let count = random.random_range(0..OPERATIONS_MAX);
        let operations: Vec<Value> = (0..count).map(|_| some_operation(random)).collect();
        [some_value(random, 3), Value::Array(operations)]
    };
    icecore_fuzz::run(CASES, make, |[document, patch], _| {
        let patched = json_patch(&document.to_string(), &patch.to_string()).ok();
        let mut expected = document.clone();
        let operations = patch.as_array().expect("operations");
        let is_done = operations.iter().all(|operation| apply(&mut expected, operation).is_some());
        assert_eq!(patched.map(|text| parsed(&text)), is_done.then_some(expected));
    });
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

fn some_value(random: &mut StdRng, depth: u32) -> Value {
    match random.random_range(0..if depth == 0 { 3 } else { 7 }) {
        0 => Value::Null,
        1 => json!(random.random_range(0..3)),
        2 => json!(*pick(random, &["", "a\"é"])),
        3 | 4 => {
            let count = random.random_range(0..4);
            Value::Array((0..count).map(|_| some_value(random, depth - 1)).collect())
        }
        _ => some_object(random, depth),
    }
}

fn some_object(random: &mut StdRng, depth: u32) -> Value {
    let mut members = Map::new();
    for name in NAMES {
        if random.random_bool(0.4) {
            members.insert(name.to_owned(), some_value(random, depth.saturating_sub(1)));
        }
    }
    Value::Object(members)
}

fn some_operation(random: &mut StdRng) -> Value {
    let op = *pick(random, &["add", "add", "remove", "replace", "move", "copy", "test", "none"]);
    let (path, from) = (some_pointer(random), some_pointer(random));
    let mut operation = json!({ "op": op, "path": path, "from": from });
    if random.random_bool(0.95) {
        operation["value"] = some_value(random, 2);
    }
    operation
}

fn some_pointer(random: &mut StdRng) -> String {
    let count = random.random_range(0..4);
    let mut pointer = String::new();
    for _ in 0..count {
        let name = *pick(random, &["a", "b", "0", "1", "01", "-", "x~1y", "t~0", ""]);
        pointer.push('/');
        pointer.push_str(name);
    }
    pointer
}

/// `MergePatch` as the RFC has it.
fn merge(target: Value, patch: &Value) -> Value {
    let Value::Object(patch) = patch else { return patch.clone() };
    let mut members = match target {
        Value::Object(members) => members,
        _ => Map::new(),
    };
    for (name, value) in patch {
        if value.is_null() {
            members.remove(name);
        } else {
            let former = members.remove(name).unwrap_or_default();
            members.insert(name.clone(), merge(former, value));
        }
    }
    Value::Object(members)
}

/// Does an operation; none where it cannot be done.
fn apply(document: &mut Value, operation: &Value) -> Option<()> {
    let path = operation["path"].as_str()?;
    let from = operation["from"].as_str()?;
    match operation["op"].as_str()? {
        "add" => put(document, path, operation.get("value")?.clone()),
        "remove" => take(document, path).map(drop),
        "replace" => {
            let value = operation.get("value")?.clone();
            *document.pointer_mut(path)? = value;
            Some(())
        }
        "move" if from == path => document.pointer(from).map(|_| ()),
        "move" if path.starts_with(&format!("{from}/")) => None,
        "move" => {
            let value = take(document, from)?;
            put(document, path, value)
        }
        "copy" => {
            let value = document.pointer(from)?.clone();
            put(document, path, value)
        }
        "test" => (document.pointer(path)? == operation.get("value")?).then_some(()),
        _ => None,
    }
}

fn put(document: &mut Value, path: &str, value: Value) -> Option<()> {
    let Some((parent, last)) = path.rsplit_once('/') else {
        *document = value;
        return Some(());
    };
    match document.pointer_mut(parent)? {
        Value::Array(elements) => {
            let at = if last == "-" { elements.len() } else { index(last)? };
            if elements.len() < at {
                return None;
            }
            elements.insert(at, value);
        }
        Value::Object(members) => {
            members.insert(unescaped(last), value);
        }
        _ => return None,
    }
    Some(())
}

fn take(document: &mut Value, path: &str) -> Option<Value> {
    let (parent, last) = path.rsplit_once('/')?;
    match document.pointer_mut(parent)? {
        Value::Array(elements) => {
            let at = index(last)?;
            (at < elements.len()).then(|| elements.remove(at))
        }
        Value::Object(members) => members.remove(&unescaped(last)),
        _ => None,
    }
}

fn index(token: &str) -> Option<usize> {
    if token.starts_with('0') && token != "0" { None } else { token.parse().ok() }
}

fn unescaped(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}
