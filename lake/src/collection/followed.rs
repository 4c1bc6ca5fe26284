//! One document that is followed through its changes as they come, in the order of `seq`.
//!
//! It keeps the state alone, so that histories of any length are read in the memory of one document. Its one invariant:
//! the versions are those of [`Changes::versions`](super::changes::Changes::versions).

use super::{
    changes::ChangeRow,
    entry::{BaseState, ChangeEntry, ChangeText, ChangeWords, ClaimWords, image_of, with_gaps},
    replay::Replay,
};

/// A document between two of its changes. In the beginning there is none.
#[derive(Debug, Default)]
pub struct FollowedDocument {
    state: Option<BaseState>,
}

impl FollowedDocument {
    /// Applies the next change, whose `seq` is above those of the changes before. Whether it made a version. What the
    /// source said of the state around it is not looked at.
    pub fn apply(&mut self, row: &ChangeRow<'_>) -> bool {
        let &ChangeRow { seq, op, ts, after, patch, store, actor, bookmark, event_id, .. } = row;
        let (kind, image) = image_of(op, after, patch);
        let claims = ClaimWords::default();
        let mut text = ChangeText::default();
        text.fill(&ChangeWords { image, store, actor, bookmark, event_id, claims });
        let mut entry = ChangeEntry::bare(seq, ts, op, with_gaps(kind, image));
        entry.text = Some(Box::new(text));
        let mut replay = Replay::of(self.state.as_ref());
        let is_version = replay.apply(&entry);
        self.state = replay.into_base();
        is_version
    }

    /// Its JSON text; none where it is not there, or where a change left it unknown.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        let state = self.state.as_ref().filter(|state| state.exists)?;
        state.document.doc.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collection::{ChangeOp, changes::Changes};

    fn row<'r>(
        seq: i64,
        op: ChangeOp,
        (after, patch): (Option<&'r str>, Option<&'r str>),
    ) -> ChangeRow<'r> {
        ChangeRow {
            seq,
            op,
            ts: seq,
            after,
            patch,
            store: None,
            actor: None,
            bookmark: None,
            event_id: "",
            before: None,
            lsn: None,
            version: None,
        }
    }

    #[test]
    fn a_followed_document_has_the_versions_of_its_changes() {
        let whole = |text| (Some(text), None);
        let patch = |text| (None, Some(text));
        let rows = [
            // A JSON Patch needs a document, a merge patch does not.
            row(1, ChangeOp::Update, patch("[{\"op\":\"add\",\"path\":\"/a\",\"value\":1}]")),
            row(2, ChangeOp::Update, patch("{\"a\":1}")),
            row(3, ChangeOp::Update, patch("{\"b\":2}")),
            row(4, ChangeOp::Update, (None, None)),
            row(5, ChangeOp::Update, patch("[{\"op\":\"remove\",\"path\":\"/absent\"}]")),
            row(6, ChangeOp::Delete, (None, None)),
            row(7, ChangeOp::Delete, (None, None)),
            row(8, ChangeOp::Create, whole("{\"c\":3}")),
            // It is older than what is known.
            ChangeRow { ts: 1, ..row(9, ChangeOp::Read, whole("{\"c\":0}")) },
            row(10, ChangeOp::Update, patch("[{\"op\":\"add\",\"path\":\"/d\",\"value\":4}]")),
            row(11, ChangeOp::Update, whole("{\"e\":5}")),
            row(12, ChangeOp::Update, patch("\"no patch\"")),
            row(13, ChangeOp::Update, patch("{\"e\":null}")),
        ];
        let mut changes = Changes::default();
        let mut document = FollowedDocument::default();
        let mut followed = Vec::new();
        for row in &rows {
            changes.push_row(row);
            if document.apply(row) {
                followed.push((row.seq, document.text().map(str::to_owned)));
            }
        }
        let versions = changes.versions().into_iter();
        let versions: Vec<_> = versions.map(|version| (version.seq, version.doc)).collect();
        assert_eq!(followed, versions);
        assert_eq!(
            followed.iter().map(|(seq, text)| (*seq, text.as_deref())).collect::<Vec<_>>(),
            [
                (2, Some("{\"a\":1}")),
                (3, Some("{\"a\":1,\"b\":2}")),
                (5, Some("{\"a\":1,\"b\":2}")),
                (6, None),
                (8, Some("{\"c\":3}")),
                (10, Some("{\"c\":3,\"d\":4}")),
                (11, Some("{\"e\":5}")),
                (13, Some("{}")),
            ]
        );
        assert_eq!(document.text(), Some("{}"));
    }
}
