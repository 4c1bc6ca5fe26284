//! The changes that a comparison of two states finds: what a row says, and those that are kept until they are shown or
//! appended, so that the states are read once.
//!
//! Its one invariant: what is handed on as all changes of a comparison is all of them.

use super::{comparison::word, run::CollectionPair};
use arrow::{
    array::{Array, AsArray, StringViewArray},
    compute::cast,
    datatypes::DataType,
    record_batch::RecordBatch,
};
use icecore_lake::collection::ChangeOp;
use icecore_schemas::restore::SampleChange;
use serde_json::Value;

/// Most changes that a dry run shows.
pub(super) const SAMPLE_MAX: usize = 10;
/// Most bytes of changes that are kept until they are appended. Where there are more, the states are compared again
/// then.
pub(super) const KEPT_BYTES_MAX: usize = 64 << 20;

/// A document that changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DocumentChange {
    pub(super) op: ChangeOp,
    pub(super) key: String,
    pub(super) before: Option<String>,
    pub(super) after: Option<String>,
    pub(super) store: Option<String>,
    /// Who sees the change, where rows are told apart by that.
    pub(super) visibility: Option<String>,
    /// Whether they may see what the document is.
    pub(super) is_told: bool,
}

impl DocumentChange {
    fn bytes(&self) -> usize {
        let texts = [&self.before, &self.after, &self.store, &self.visibility];
        let of_texts = texts.into_iter().flatten().map(String::len).sum::<usize>();
        size_of::<Self>() + self.key.len() + of_texts
    }

    fn shown(self, collection: &str) -> SampleChange {
        let document = |text: Option<String>| {
            text.map_or(Value::Null, |text| {
                serde_json::from_str(&text).unwrap_or(Value::String(text))
            })
        };
        SampleChange {
            collection: collection.to_owned(),
            change: word(self.op).to_owned(),
            key: self.key,
            before: document(self.before),
            after: document(self.after),
        }
    }
}

/// The rows of a comparison. A column that it was not asked for has no values.
pub(super) struct ComparedRows {
    now_key: Option<StringViewArray>,
    past_key: Option<StringViewArray>,
    now_doc: Option<StringViewArray>,
    past_doc: Option<StringViewArray>,
    store: Option<StringViewArray>,
    now_visibility: Option<StringViewArray>,
    past_visibility: Option<StringViewArray>,
}

impl ComparedRows {
    pub(super) fn of(batch: &RecordBatch) -> Self {
        let column = |name: &str| {
            let column = cast(batch.column_by_name(name)?, &DataType::Utf8View).ok()?;
            column.as_string_view_opt().cloned()
        };
        Self {
            now_key: column("now_key"),
            past_key: column("past_key"),
            now_doc: column("now_doc"),
            past_doc: column("past_doc"),
            store: column("doc_store"),
            now_visibility: column("now_visibility"),
            past_visibility: column("past_visibility"),
        }
    }

    /// What becomes of the document of a row, and its key; none of one that does not change.
    pub(super) fn op(&self, row: usize) -> Option<(ChangeOp, &str)> {
        match (text(self.now_key.as_ref(), row), text(self.past_key.as_ref(), row)) {
            (None, Some(key)) => Some((ChangeOp::Create, key)),
            (Some(key), Some(_)) => Some((ChangeOp::Update, key)),
            (Some(key), None) => Some((ChangeOp::Delete, key)),
            (None, None) => None,
        }
    }

    /// The change of a row; none of a document that does not change.
    pub(super) fn change(&self, row: usize) -> Option<DocumentChange> {
        let (op, key) = self.op(row)?;
        let owned =
            |column: &Option<StringViewArray>| text(column.as_ref(), row).map(str::to_owned);
        let (now_seen, past_seen) = (owned(&self.now_visibility), owned(&self.past_visibility));
        Some(DocumentChange {
            op,
            key: key.to_owned(),
            before: owned(&self.now_doc),
            after: owned(&self.past_doc),
            store: owned(&self.store),
            is_told: now_seen.is_none() || past_seen.is_none() || now_seen == past_seen,
            visibility: past_seen.or(now_seen),
        })
    }
}

fn text(column: Option<&StringViewArray>, row: usize) -> Option<&str> {
    column.filter(|column| column.is_valid(row)).map(|column| column.value(row))
}

/// Changes of one collection after the other that are kept.
#[derive(Debug)]
pub(super) struct KeptChanges {
    limit: KeptLimit,
    collections: Vec<Vec<DocumentChange>>,
    /// The erasures that the namespace had before they were found. One since may have taken out what they say.
    erasures: Option<String>,
}

/// Which changes are kept.
#[derive(Debug)]
enum KeptLimit {
    /// The first by their collections and keys, so many of the last collection.
    First(usize),
    /// All while they have so many bytes at most.
    Bytes(usize),
    /// None: there are too many.
    Over,
}

impl KeptChanges {
    /// As many as a dry run shows.
    pub(super) fn first() -> Self {
        Self { limit: KeptLimit::First(SAMPLE_MAX), collections: Vec::new(), erasures: None }
    }

    /// All, if they have at most so many bytes and no erasure goes on, of a namespace that had these.
    pub(super) fn all(bytes_max: usize, erasures: Option<String>) -> Self {
        let limit = if erasures.is_some() { KeptLimit::Bytes(bytes_max) } else { KeptLimit::Over };
        Self { limit, collections: Vec::new(), erasures }
    }

    /// None.
    pub(super) fn none() -> Self {
        Self { limit: KeptLimit::Over, collections: Vec::new(), erasures: None }
    }

    /// Goes on with the next collection.
    pub(super) fn begin(&mut self) {
        if let KeptLimit::First(places) = &mut self.limit {
            *places -= self.collections.last().map_or(0, Vec::len);
        }
        self.collections.push(Vec::new());
    }

    /// Whether a change of this key of the collection would be kept.
    pub(super) fn takes(&self, key: &str) -> bool {
        match self.limit {
            KeptLimit::First(places) => self.collections.last().is_some_and(|kept| {
                kept.len() < places || kept.last().is_some_and(|last| key < last.key.as_str())
            }),
            KeptLimit::Bytes(_) => true,
            KeptLimit::Over => false,
        }
    }

    pub(super) fn push(&mut self, change: DocumentChange) {
        let Some(kept) = self.collections.last_mut() else { return };
        match &mut self.limit {
            KeptLimit::First(places) => {
                let at = kept.partition_point(|known| known.key < change.key);
                kept.insert(at, change);
                kept.truncate(*places);
            }
            KeptLimit::Bytes(spare) => match spare.checked_sub(change.bytes()) {
                Some(left) => {
                    *spare = left;
                    kept.push(change);
                }
                None => {
                    self.limit = KeptLimit::Over;
                    self.collections.clear();
                }
            },
            KeptLimit::Over => {}
        }
    }

    /// All changes of each collection, of a namespace that has these erasures; none where they are not kept.
    pub(super) fn into_all(self, erasures: Option<&str>) -> Option<Vec<Vec<DocumentChange>>> {
        match self.limit {
            KeptLimit::Bytes(_) => {
                (self.erasures.as_deref() == erasures).then_some(self.collections)
            }
            KeptLimit::First(_) | KeptLimit::Over => None,
        }
    }

    /// Some of them as a dry run shows them.
    pub(super) fn into_sample(self, pairs: &[CollectionPair]) -> Vec<SampleChange> {
        let changes = pairs
            .iter()
            .zip(self.collections)
            .flat_map(|(pair, kept)| kept.into_iter().map(move |change| change.shown(&pair.into)));
        changes.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, StringArray};
    use std::sync::Arc;

    fn change(key: &str) -> DocumentChange {
        DocumentChange {
            op: ChangeOp::Create,
            key: key.to_owned(),
            before: None,
            after: Some("{\"n\":1}".to_owned()),
            store: None,
            visibility: None,
            is_told: true,
        }
    }

    fn pair(name: &str) -> CollectionPair {
        CollectionPair { from: name.to_owned(), into: name.to_owned(), is_other: false }
    }

    #[test]
    fn a_dry_run_shows_the_first_changes_by_their_keys() {
        let mut kept = KeptChanges::first();
        for step in [4, 2] {
            kept.begin();
            for n in (0..30).rev().step_by(step) {
                let key = format!("u-{n:02}");
                if kept.takes(&key) {
                    kept.push(change(&key));
                }
            }
        }
        assert!(kept.takes("u-00") && !kept.takes("z"));
        kept.begin();
        assert!(!kept.takes("a"));
        kept.push(change("a"));
        assert_eq!(kept.collections.iter().map(Vec::len).collect::<Vec<_>>(), [8, 2, 0]);
        let sample = kept.into_sample(&[pair("a"), pair("b")]);
        let names: Vec<String> =
            sample.iter().map(|change| format!("{}/{}", change.collection, change.key)).collect();
        let (a, b) = (["01", "05", "09", "13", "17", "21", "25", "29"], ["01", "03"]);
        let expected: Vec<String> = a
            .iter()
            .map(|key| format!("a/u-{key}"))
            .chain(b.iter().map(|key| format!("b/u-{key}")))
            .collect();
        assert_eq!(names, expected);
        assert_eq!(sample[0].after["n"], 1);
    }

    #[test]
    fn changes_are_kept_whole_or_not_at_all() {
        let bytes = change("a").bytes();
        let kept_within = |bytes_max: usize| {
            let mut kept = KeptChanges::all(bytes_max, Some("0/none".to_owned()));
            for key in ["a", "b"] {
                kept.begin();
                kept.push(change(key));
            }
            kept
        };
        let all = |kept: KeptChanges| kept.into_all(Some("0/none"));
        let both = Some(vec![vec![change("a")], vec![change("b")]]);
        assert_eq!(all(kept_within(2 * bytes)), both);
        assert_eq!(all(kept_within(2 * bytes - 1)), None);
        assert_eq!(all(KeptChanges::first()), None);
    }

    #[test]
    fn changes_from_before_an_erasure_are_found_again() {
        let kept = |erasures: Option<&str>| {
            let mut kept = KeptChanges::all(1_000, erasures.map(str::to_owned));
            kept.begin();
            kept
        };
        assert_eq!(kept(Some("1/a")).into_all(Some("1/a")), Some(vec![Vec::new()]));
        for (before, now) in
            [(Some("1/a"), Some("2/b")), (Some("1/a"), None), (None, Some("1/a")), (None, None)]
        {
            assert_eq!(kept(before).into_all(now), None, "{before:?} {now:?}");
        }
    }

    #[test]
    fn a_row_says_what_becomes_of_its_document() {
        let texts =
            |texts: [Option<&str>; 4]| -> ArrayRef { Arc::new(StringArray::from(texts.to_vec())) };
        let batch = RecordBatch::try_from_iter([
            ("now_key", texts([None, Some("b"), Some("c"), None])),
            ("past_key", texts([Some("a"), Some("b"), None, None])),
            ("now_doc", texts([None, Some("1"), Some("2"), None])),
            ("past_doc", texts([Some("3"), Some("4"), None, None])),
        ]);
        let rows = ComparedRows::of(&batch.unwrap());
        let ops: Vec<_> = (0..4).map(|row| rows.op(row)).collect();
        assert_eq!(
            ops,
            [
                Some((ChangeOp::Create, "a")),
                Some((ChangeOp::Update, "b")),
                Some((ChangeOp::Delete, "c")),
                None
            ]
        );
        let updated = rows.change(1).unwrap();
        assert_eq!(updated.before.as_deref(), Some("1"));
        assert_eq!(updated.after.as_deref(), Some("4"));
        assert!(updated.is_told && updated.visibility.is_none());
        assert_eq!(rows.change(3), None);
    }
}
