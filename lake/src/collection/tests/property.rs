//! Changes in any order of arrival, in any groups, on a base of any of them: always what a simple model
//! makes of them one after another.

use super::{Change, ChangeOp, Changes, Document, Image};
use crate::collection::{
    changes::ChangeRow,
    followed::FollowedDocument,
    version::{DocumentVersion, VersionChange},
};
use icecore_fuzz::{Rng, StdRng, pick};
use rand::seq::SliceRandom;
use serde_json::{Map, Value, json};

const CASES: u64 = 1500;
const CHANGES_MAX: usize = 24;
const GAP: &str = "__debezium_unavailable_value";

#[test]
fn changes_make_the_same_document_in_any_order_and_any_groups() {
    icecore_fuzz::run(CASES, some_changes, |changes, random| {
        let expected = model(changes);
        let mut kept = Changes::default();
        changes.iter().for_each(|change| kept.push(change));
        let versions = kept.versions();
        assert_eq!(versions.iter().map(ModelVersion::of).collect::<Vec<_>>(), expected);
        assert_eq!(counted(changes), kept.document().map(|document| document.version));
        let texts = versions.iter().map(|version| (version.seq, version.doc.clone()));
        assert_eq!(followed(changes), texts.collect::<Vec<_>>());
        let last = versions.last().filter(|last| last.doc.is_some()).cloned();

        let grouped = in_groups(changes, &Changes::default(), random);
        assert_eq!(grouped.versions(), versions);
        assert_eq!(grouped.document(), last);
        assert_eq!(grouped.anomalies(), kept.anomalies());
        assert_eq!(in_groups(changes, &Changes::latest(), random).document(), last);

        // A base of any of the versions. One that is a delete may also have been left out.
        if versions.is_empty() {
            return;
        }
        let cut = random.random_range(0..versions.len());
        if versions[cut].doc.is_none() {
            let seq = versions[cut].seq;
            let after: Vec<Change> =
                changes.iter().filter(|change| seq < change.seq).cloned().collect();
            assert_eq!(in_groups(&after, &Changes::default(), random).document(), last);
            assert_eq!(in_groups(&after, &Changes::latest(), random).document(), last);
        }
        let base = Changes::of_base(versions[cut].clone());
        for begin in [Changes::default(), Changes::latest()] {
            let mut based = in_groups(changes, &begin, random);
            based.merge(base.clone());
            assert_eq!(based.document(), last);
            let mut above = base.clone();
            above.merge(in_groups(changes, &begin, random));
            assert_eq!(above.document(), last);
            if begin == Changes::default() {
                assert_eq!(above.versions(), versions[cut..]);
            }
        }
    });
}

/// The version after the changes, counted without their texts.
fn counted(changes: &[Change]) -> Option<i64> {
    let mut counted: Option<DocumentVersion> = None;
    for Change { op, ts, image, .. } in changes {
        let (after, patch) = texts_of(image);
        counted = DocumentVersion::after(counted, VersionChange::new(*op, *ts, after, patch));
    }
    counted.map(|counted| counted.version)
}

/// The columns `after` and `patch` of an image.
fn texts_of(image: &Option<Image>) -> (Option<&str>, Option<&str>) {
    match image {
        Some(Image::Whole(text)) => (Some(text.as_str()), None),
        Some(Image::Patch(text)) => (None, Some(text.as_str())),
        None => (None, None),
    }
}

/// The versions that one has who keeps the last one alone.
fn followed(changes: &[Change]) -> Vec<(i64, Option<String>)> {
    let mut document = FollowedDocument::default();
    let mut versions = Vec::new();
    for Change { seq, op, ts, image, store, actor, bookmark, event_id } in changes {
        let (after, patch) = texts_of(image);
        let is_version = document.apply(&ChangeRow {
            seq: *seq,
            op: *op,
            ts: *ts,
            after,
            patch,
            store: store.as_deref(),
            actor: actor.as_deref(),
            bookmark: bookmark.as_deref(),
            event_id,
            before: None,
            lsn: None,
            version: None,
        });
        if is_version {
            versions.push((*seq, document.text().map(str::to_owned)));
        }
    }
    versions
}

/// The changes as several have found them, each some of them in any order and some twice, put together in
/// any order, some by way of their bytes.
fn in_groups(changes: &[Change], begin: &Changes, random: &mut StdRng) -> Changes {
    let mut arrived: Vec<&Change> = changes.iter().collect();
    arrived.extend(changes.iter().filter(|_| random.random_bool(0.2)));
    if random.random_bool(0.7) {
        arrived.shuffle(random);
    }
    let mut groups = vec![begin.clone(); random.random_range(1..5)];
    for change in arrived {
        let at = random.random_range(0..groups.len());
        groups[at].push(change);
    }
    let mut all = begin.clone();
    for group in groups {
        if random.random_bool(0.4) {
            all.merge_bytes(&group.to_bytes()).expect("its own bytes");
            continue;
        }
        let group = match random.random_bool(0.5) {
            true => Changes::from_bytes(&group.to_bytes()).expect("its own bytes"),
            false => group,
        };
        if random.random_bool(0.5) {
            all.merge(group);
        } else {
            let former = std::mem::replace(&mut all, group);
            all.merge(former);
        }
    }
    all
}

fn some_changes(random: &mut StdRng) -> Vec<Change> {
    let count = random.random_range(0..CHANGES_MAX);
    let mut seq = 0;
    let mut changes = Vec::new();
    for _ in 0..count {
        seq += random.random_range(1..4);
        let op = *pick(random, &["c", "u", "u", "u", "d", "r"]);
        changes.push(Change {
            seq,
            op: ChangeOp::from_code(op).expect("an operation"),
            ts: random.random_range(0..30),
            image: some_image(random),
            store: None,
            actor: random.random_bool(0.5).then(|| format!("actor{seq}")),
            bookmark: None,
            event_id: format!("event{seq}"),
        });
    }
    changes
}

fn some_image(random: &mut StdRng) -> Option<Image> {
    let path = format!("/{}", pick(random, &["a", "b", "c"]));
    let value: u8 = random.random_range(0..3);
    let patch = match random.random_range(0..10) {
        0 => return None,
        1 => json!(3),
        2..5 => {
            let doc = Value::Object(some_members(random, &json!(GAP)));
            return Some(Image::Whole(doc.to_string()));
        }
        5..7 => Value::Object(some_members(random, &Value::Null)),
        7 => json!([{"op": "add", "path": path, "value": value}]),
        8 => json!([{"op": "remove", "path": path}]),
        _ => json!([
            {"op": "add", "path": "/d", "value": value},
            {"op": "test", "path": path, "value": value},
        ]),
    };
    Some(Image::Patch(patch.to_string()))
}

/// Members of which some have the odd value.
fn some_members(random: &mut StdRng, odd: &Value) -> Map<String, Value> {
    let mut members = Map::new();
    for name in ["a", "b", "c"] {
        let value: u8 = random.random_range(0..6);
        match value {
            0 | 1 => {}
            2 => {
                members.insert(name.to_owned(), odd.clone());
            }
            value => {
                members.insert(name.to_owned(), json!(value - 3));
            }
        }
    }
    members
}

/// A version as the model has it.
#[derive(Clone, Debug, PartialEq)]
struct ModelVersion {
    /// None: deleted.
    doc: Option<Value>,
    op: ChangeOp,
    version: i64,
    created_at: i64,
    updated_at: i64,
    seq: i64,
    actor: Option<String>,
}

impl ModelVersion {
    fn of(document: &Document) -> Self {
        let doc = document.doc.as_deref().map(parsed);
        Self {
            doc,
            op: document.op,
            version: document.version,
            created_at: document.created_at,
            updated_at: document.updated_at,
            seq: document.seq,
            actor: document.actor.clone(),
        }
    }
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

/// All versions that the changes make, one after another.
fn model(changes: &[Change]) -> Vec<ModelVersion> {
    let mut versions: Vec<ModelVersion> = Vec::new();
    for change in changes {
        let last = versions.last();
        let former = last.and_then(|last| last.doc.as_ref());
        let existing = last.filter(|last| last.doc.is_some());
        let is_newer =
            |last: &ModelVersion| last.op != ChangeOp::Read && change.ts < last.updated_at;
        if change.op == ChangeOp::Read && existing.is_some_and(is_newer) {
            continue;
        }
        let doc = if change.op == ChangeOp::Delete { None } else { model_image(change, former) };
        let is_applied = if change.op == ChangeOp::Delete { former } else { doc.as_ref() };
        if is_applied.is_none() {
            continue;
        }
        let next = ModelVersion {
            op: change.op,
            version: existing.map_or(1, |last| last.version + 1),
            created_at: existing.map_or(change.ts, |last| last.created_at),
            updated_at: change.ts,
            seq: change.seq,
            actor: change.actor.clone(),
            doc,
        };
        versions.push(next);
    }
    versions
}

/// The document after a change; none where the change is not applied.
fn model_image(change: &Change, former: Option<&Value>) -> Option<Value> {
    match change.image.as_ref()? {
        Image::Whole(text) => {
            let mut doc = parsed(text);
            for (name, value) in doc.as_object_mut().expect("an object") {
                if value.as_str() == Some(GAP)
                    && let Some(known) = former.and_then(|former| former.get(name))
                {
                    *value = known.clone();
                }
            }
            Some(doc)
        }
        Image::Patch(_) if change.op == ChangeOp::Read => None,
        Image::Patch(text) => match parsed(text) {
            Value::Object(patch) => {
                let mut doc = former.cloned().unwrap_or_else(|| json!({}));
                let members = doc.as_object_mut().expect("an object");
                for (name, value) in patch {
                    if value.is_null() {
                        members.remove(&name);
                    } else {
                        members.insert(name, value);
                    }
                }
                Some(doc)
            }
            Value::Array(operations) => {
                let former = former?;
                Some(model_operations(former, &operations).unwrap_or_else(|| former.clone()))
            }
            _ => None,
        },
    }
}

/// The document after operations; none where one of them cannot be done.
fn model_operations(former: &Value, operations: &[Value]) -> Option<Value> {
    let mut doc = former.clone();
    let members = doc.as_object_mut().expect("an object");
    for operation in operations {
        let name = operation["path"].as_str().expect("a path").trim_start_matches('/');
        let value = &operation["value"];
        match operation["op"].as_str().expect("an operation") {
            "add" => {
                members.insert(name.to_owned(), value.clone());
            }
            "remove" => {
                members.remove(name)?;
            }
            _ => {
                if members.get(name) != Some(value) {
                    return None;
                }
            }
        }
    }
    Some(doc)
}
