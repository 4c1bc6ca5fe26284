//! A row of the comparison of two branches as the change that a merge makes of it.

use crate::http::{change_events::ADMIN_VISIBILITY, rows::text_at};
use arrow::record_batch::RecordBatch;
use icecore_lake::collection::{
    ChangeOp,
    merge::{DocumentMerge, MergePreference, MergeSides, MergedDocument, merge_document},
};

/// A document that the merged branch changed.
#[derive(Debug)]
pub(super) struct ChangedDocument {
    pub(super) key: String,
    /// What the merge does to it; none where it stays.
    pub(super) op: Option<ChangeOp>,
    /// The document at the last event in common, as the merged branch had it.
    pub(super) base: Option<String>,
    /// That of the branch that is merged into.
    pub(super) ours: Option<String>,
    /// That of the merged branch.
    pub(super) theirs: Option<String>,
    /// What it becomes.
    pub(super) after: Option<String>,
    /// The members that both changed to different values.
    pub(super) conflicts: Vec<String>,
    pub(super) store: Option<String>,
    /// Who sees the change, where rows are told apart by that.
    pub(super) visibility: Option<String>,
    /// Whether they may see what the document was.
    pub(super) is_told: bool,
}

/// The documents of these rows, merged. It takes as long as their texts are, so it is for a thread of its own.
pub(super) fn merged(
    batch: &RecordBatch,
    is_fork: bool,
    preference: MergePreference,
) -> Vec<ChangedDocument> {
    (0..batch.num_rows()).filter_map(|row| document_at(batch, row, is_fork, preference)).collect()
}

/// The document of a row; none for one without a key.
fn document_at(
    batch: &RecordBatch,
    row: usize,
    is_fork: bool,
    preference: MergePreference,
) -> Option<ChangedDocument> {
    let text = |name: &str| text_at(batch, name, row);
    let key = text("doc_key")?;
    let (base, ours, theirs) = (text("common_doc"), text("our_doc"), text("their_doc"));
    let former = text("former_doc");
    let sides = MergeSides {
        base_theirs: base.as_deref(),
        theirs: theirs.as_deref(),
        // At a fork both were the same.
        base_ours: if is_fork { base.as_deref() } else { former.as_deref() },
        ours: ours.as_deref(),
    };
    let DocumentMerge { document, conflicts } = merge_document(sides, preference);
    let (our_seen, their_seen) = (text("our_visibility"), text("their_visibility"));
    let visibility = visibility_of(&document, our_seen.as_deref(), their_seen.as_deref());
    let is_told = our_seen.is_none() || our_seen == visibility;
    let (our_store, their_store) = (text("our_store"), text("their_store"));
    let store = their_store.or(our_store);
    let after = match document {
        MergedDocument::Ours => ours.clone(),
        MergedDocument::Theirs => theirs.clone(),
        MergedDocument::Both(text) => Some(text),
    };
    let op = match (&ours, &after) {
        (ours, after) if ours == after => None,
        (None, _) => Some(ChangeOp::Create),
        (Some(_), Some(_)) => Some(ChangeOp::Update),
        (Some(_), None) => Some(ChangeOp::Delete),
    };
    Some(ChangedDocument {
        key,
        op,
        base,
        ours,
        theirs,
        after,
        conflicts,
        store,
        visibility,
        is_told,
    })
}

/// Who sees a document: whoever saw what it is made of. Of members that different people see, nobody may see all.
fn visibility_of(
    document: &MergedDocument,
    ours: Option<&str>,
    theirs: Option<&str>,
) -> Option<String> {
    let seen = match (document, ours, theirs) {
        (MergedDocument::Ours, _, _) => ours.or(theirs),
        (MergedDocument::Theirs, _, _) => theirs.or(ours),
        (MergedDocument::Both(_), Some(ours), Some(theirs)) if ours != theirs => {
            Some(ADMIN_VISIBILITY)
        }
        (MergedDocument::Both(_), _, _) => ours.or(theirs),
    };
    seen.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, StringArray};
    use std::sync::Arc;

    fn row(cells: &[(&str, Option<&str>)]) -> RecordBatch {
        let column = |(name, cell): &(&str, Option<&str>)| {
            let array: ArrayRef = Arc::new(StringArray::from(vec![*cell]));
            ((*name).to_owned(), array, true)
        };
        RecordBatch::try_from_iter_with_nullable(cells.iter().map(column)).unwrap()
    }

    #[test]
    fn a_row_becomes_a_change_of_the_other_branch() {
        let base = Some(r#"{"a":1,"b":1}"#);
        for (theirs, ours, op, after, conflicts) in [
            (Some(r#"{"a":2,"b":1}"#), base, "u", Some(r#"{"a":2,"b":1}"#), 0),
            (Some(r#"{"a":2,"b":1}"#), Some(r#"{"a":1,"b":3}"#), "u", Some(r#"{"a":2,"b":3}"#), 0),
            (None, base, "d", None, 0),
            (Some(r#"{"a":2,"b":1}"#), Some(r#"{"a":2,"b":1}"#), "", Some(r#"{"a":2,"b":1}"#), 0),
            (Some(r#"{"a":2,"b":1}"#), Some(r#"{"a":3,"b":1}"#), "u", Some(r#"{"a":2,"b":1}"#), 1),
            (Some(r#"{"a":2,"b":1}"#), None, "c", Some(r#"{"a":2,"b":1}"#), 1),
        ] {
            let batch = row(&[
                ("doc_key", Some("k")),
                ("common_doc", base),
                ("their_doc", theirs),
                ("our_doc", ours),
            ]);
            let documents = merged(&batch, true, MergePreference::Theirs);
            let document = &documents[0];
            assert_eq!(document.op.map_or("", ChangeOp::code), op, "{document:?}");
            assert_eq!(document.after.as_deref(), after, "{document:?}");
            assert_eq!(document.conflicts.len(), conflicts, "{document:?}");
        }
    }

    #[test]
    fn what_different_people_see_nobody_sees_together() {
        let both = MergedDocument::Both("{}".to_owned());
        let seen = visibility_of;
        assert_eq!(seen(&both, Some("a"), Some("b")).as_deref(), Some(ADMIN_VISIBILITY));
        assert_eq!(seen(&both, Some("a"), Some("a")).as_deref(), Some("a"));
        assert_eq!(seen(&both, None, Some("b")).as_deref(), Some("b"));
        assert_eq!(seen(&MergedDocument::Theirs, Some("a"), Some("b")).as_deref(), Some("b"));
        assert_eq!(seen(&MergedDocument::Theirs, Some("a"), None).as_deref(), Some("a"));
    }
}
