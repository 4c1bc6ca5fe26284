//! Mutations of JSON that leave it JSON: members that are missing, doubled, of another type, out
//! of range, or of another document.

use crate::pick;
use rand::{Rng, rngs::StdRng};
use serde_json::{Map, Value, json};

/// Most mutations of one document.
const MUTATIONS_MAX: usize = 4;
/// Most copies of an item.
const COPIES_MAX: usize = 40;
/// Deepest nesting that is made.
const NESTING_MAX: usize = 90;

/// `document` changed in one to some places; `others` are documents to take values from.
pub fn mutate(random: &mut StdRng, document: &Value, others: &[Value]) -> Value {
    let mut document = document.clone();
    // Mostly one: several break a document in ways that hide one another.
    let mutations =
        random.random_range(1..=MUTATIONS_MAX).min(random.random_range(1..=MUTATIONS_MAX));
    for _ in 0..mutations {
        let places = count(&document);
        let place = random.random_range(0..places);
        let other = if others.is_empty() { document.clone() } else { pick(random, others).clone() };
        if let Some(value) = find(&mut document, &mut { place }) {
            once(random, value, other);
        }
    }
    document
}

fn once(random: &mut StdRng, value: &mut Value, mut other: Value) {
    match (random.random_range(0..8), &mut *value) {
        (0, Value::Object(members)) => {
            if let Some(name) = name(random, members) {
                members.remove(&name);
            }
        }
        (1, Value::Object(members)) => {
            if let Some(name) = name(random, members) {
                let moved = members.remove(&name).unwrap_or_default();
                members.insert(text(random), moved);
            }
        }
        (2, Value::Array(items)) if !items.is_empty() => {
            let item = pick(random, items).clone();
            let copies = random.random_range(1..=COPIES_MAX);
            items.extend(std::iter::repeat_n(item, copies));
        }
        (3, Value::Array(items)) if !items.is_empty() => {
            items.remove(random.random_range(0..items.len()));
        }
        (4, _) => {
            let places = count(&other);
            let mut place = random.random_range(0..places);
            if let Some(part) = find(&mut other, &mut place) {
                *value = part.take();
            }
        }
        (5, _) => {
            for _ in 0..random.random_range(1..=NESTING_MAX) {
                *value = json!([value.take()]);
            }
        }
        (_, Value::Number(number)) => {
            let near = number.as_i64().unwrap_or(0).wrapping_add(random.random_range(-2..=2));
            *value = if random.random() { json!(near) } else { scalar(random) };
        }
        (_, Value::Bool(flag)) => *flag = !*flag,
        (6 | 7, Value::String(old)) => *old = text(random),
        _ => *value = scalar(random),
    }
}

fn name(random: &mut StdRng, members: &Map<String, Value>) -> Option<String> {
    let nth = random.random_range(0..members.len().max(1));
    members.keys().nth(nth).cloned()
}

fn scalar(random: &mut StdRng) -> Value {
    match random.random_range(0..5) {
        0 => Value::Null,
        1 => json!(random.random::<bool>()),
        2 => Value::String(text(random)),
        3 => [json!({}), json!([]), json!(1.5), json!(-0.0), json!(1e300)]
            [random.random_range(0..5)]
        .clone(),
        _ => number(random),
    }
}

/// A number at the end of a range, or near one.
fn number(random: &mut StdRng) -> Value {
    let ends: [i64; 9] = [
        0,
        1,
        1_000,
        i64::from(i32::MAX),
        i64::from(u32::MAX),
        1 << 53,
        253_402_300_800_000,
        i64::MAX,
        i64::MIN,
    ];
    match random.random_range(0..10) {
        0 => json!(u64::MAX),
        1 => json!(random.random::<i64>()),
        _ => json!(pick(random, &ends).wrapping_add(random.random_range(-1..=1))),
    }
}

fn text(random: &mut StdRng) -> String {
    let texts = [
        "",
        " ",
        "\0",
        "main",
        "..",
        "../../x",
        "é😀",
        "\u{1f}",
        "a/b",
        "%2e%2e%2f",
        "1",
        "-1",
        "true",
        "id",
        "type",
        "ts",
        "seq",
        "file:///etc/passwd",
        "s3://b/k",
        "day",
        "bucket[0]",
        "truncate[4294967296]",
        "bucket[-1]",
        "decimal(99,99)",
        "decimal(9,10)",
        "fixed[0]",
        "fixed[18446744073709551615]",
        "00000000-0000-0000-0000-000000000000",
        "unknown",
    ];
    if random.random_range(0..8) == 0 {
        return "x".repeat(random.random_range(1..5_000));
    }
    (*pick(random, &texts)).to_owned()
}

/// How many values a document has, itself and all that are in it.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(members) => members.values().map(count).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// The value at a place, counted in the order of [`count`].
fn find<'v>(value: &'v mut Value, place: &mut usize) -> Option<&'v mut Value> {
    if *place == 0 {
        return Some(value);
    }
    *place -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| find_in(item, place)),
        Value::Object(members) => members.values_mut().find_map(|member| find_in(member, place)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// The same in one of several values: past it, `place` counts on from its end.
fn find_in<'v>(value: &'v mut Value, place: &mut usize) -> Option<&'v mut Value> {
    let values = count(value);
    if *place < values {
        return find(value, place);
    }
    *place -= values;
    None
}
