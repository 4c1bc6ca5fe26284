//! Which versions the changes of a batch expect their documents to have, and whether they have them. Pure.
//!
//! Its one invariant: a change counts for the version from the moment it is taken; a repeat and what is refused never
//! do. No change that expects a version is taken behind one that was refused.

use crate::ingest::refusal::RefusalReason;
use icecore_lake::collection::version::{DocumentVersion, VersionChange};
use std::ops::Range;

/// The documents of a namespace of which events of a batch expect a version.
#[derive(Clone, Debug, Default)]
pub struct ExpectedVersions {
    /// Each before the batch; none for one that is not there.
    pub documents: Vec<Option<DocumentVersion>>,
    /// The rows that change one of them, in order.
    pub rows: Vec<DocumentRow>,
}

/// A row that changes documents.
#[derive(Clone, Debug)]
pub struct DocumentRow {
    /// Its place among the rows of the namespace.
    pub row: usize,
    /// What it does.
    pub effect: RowEffect,
}

/// What a row does to documents.
#[derive(Clone, Debug)]
pub enum RowEffect {
    /// It changes the one at this place.
    Change {
        /// Which document.
        document: usize,
        /// How its version changes.
        change: VersionChange,
        /// Which version it must have before.
        expected: ExpectedVersion,
    },
    /// It takes these away: a truncate of their collection.
    Truncate {
        /// Which documents.
        documents: Range<usize>,
    },
    /// It expects a version and changes no single document.
    NoDocument,
}

/// Which version a document must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedVersion {
    /// Any, or none.
    Any,
    /// This one; 0 for a document that is not there.
    Exactly(u64),
    /// What the event says is no version.
    Invalid,
}

/// The versions of the documents while the rows of a batch are judged one after the other.
#[derive(Debug)]
pub(super) struct VersionCheck<'a> {
    /// Those that are still to come.
    rows: &'a [DocumentRow],
    documents: Vec<Option<DocumentVersion>>,
    /// For each document, whether a change of it that expects a version was refused.
    mismatched: Vec<bool>,
}

impl<'a> VersionCheck<'a> {
    pub(super) fn new(expected: &'a ExpectedVersions) -> Self {
        let documents = expected.documents.clone();
        Self { rows: &expected.rows, mismatched: vec![false; documents.len()], documents }
    }

    /// Refuses a new event whose document has another version than the event expects, and each that expects one behind
    /// it: its sender counted with that change. Another writer's may have brought the document to just this version.
    pub(super) fn check(&mut self, row: usize) -> Result<(), RefusalReason> {
        let (document, expected) = match self.effect(row) {
            Some(RowEffect::Change { document, expected, .. }) => (document, expected),
            Some(RowEffect::NoDocument) => return Err(RefusalReason::NoDocument),
            Some(RowEffect::Truncate { .. }) | None => return Ok(()),
        };
        let actual = self.documents[*document].map_or(0, |it| it.version.cast_unsigned());
        let is_behind = self.mismatched[*document];
        let verdict = match expected {
            ExpectedVersion::Exactly(expected) if *expected != actual => {
                Err(RefusalReason::VersionMismatch { expected: *expected, actual })
            }
            ExpectedVersion::Exactly(_) if is_behind => {
                Err(RefusalReason::BehindMismatch { actual })
            }
            ExpectedVersion::Any | ExpectedVersion::Exactly(_) => Ok(()),
            ExpectedVersion::Invalid => Err(RefusalReason::NoVersion),
        };
        self.mismatched[*document] = is_behind || verdict.is_err();
        verdict
    }

    /// Notes that the event of a row is refused for its id or its type.
    pub(super) fn refuse(&mut self, row: usize) {
        if let Some(RowEffect::Change { document, expected, .. }) = self.effect(row) {
            self.mismatched[*document] |= *expected != ExpectedVersion::Any;
        }
    }

    /// Notes that the event of a row is taken.
    pub(super) fn take(&mut self, row: usize) {
        match self.effect(row) {
            Some(RowEffect::Change { document, change, .. }) => {
                let document = &mut self.documents[*document];
                *document = DocumentVersion::after(*document, *change);
            }
            Some(RowEffect::Truncate { documents }) => {
                self.documents[documents.clone()].fill(None);
            }
            Some(RowEffect::NoDocument) | None => {}
        }
    }

    /// What a row does. Rows are asked for in their order.
    fn effect(&mut self, row: usize) -> Option<&'a RowEffect> {
        while let Some((first, rest)) = self.rows.split_first()
            && first.row < row
        {
            self.rows = rest;
        }
        let rows: &'a [DocumentRow] = self.rows;
        rows.first().filter(|first| first.row == row).map(|first| &first.effect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use icecore_lake::collection::ChangeOp;

    /// What becomes of rows `op document expected`, of which `=` in front marks a repeat and `!` one whose id is
    /// another event's, on two documents at versions 3 and none.
    fn verdicts(rows: &str) -> Vec<String> {
        let there = DocumentVersion { version: 3, op: ChangeOp::Update, updated_at: 0 };
        let mut expected =
            ExpectedVersions { documents: vec![Some(there), None], rows: Vec::new() };
        for (row, text) in rows.split(',').enumerate() {
            let words: Vec<&str> = text.trim_start_matches([' ', '=', '!']).split(' ').collect();
            let effect = match words.as_slice() {
                ["t"] => RowEffect::Truncate { documents: 0..2 },
                ["n"] => RowEffect::NoDocument,
                [op, document, version @ ..] => RowEffect::Change {
                    document: document.parse().unwrap(),
                    change: VersionChange::new(
                        ChangeOp::from_code(op).unwrap(),
                        1,
                        Some("{}"),
                        None,
                    ),
                    expected: match version {
                        [] => ExpectedVersion::Any,
                        [version, ..] => version
                            .parse()
                            .map_or(ExpectedVersion::Invalid, ExpectedVersion::Exactly),
                    },
                },
                _ => continue,
            };
            expected.rows.push(DocumentRow { row, effect });
        }
        let mut check = VersionCheck::new(&expected);
        let verdict = |(row, text): (usize, &str)| {
            if text.trim_start().starts_with('=') {
                return "repeat".to_owned();
            }
            if text.trim_start().starts_with('!') {
                check.refuse(row);
                return "conflict".to_owned();
            }
            match check.check(row) {
                Ok(()) => {
                    check.take(row);
                    "new".to_owned()
                }
                Err(RefusalReason::VersionMismatch { expected, actual }) => {
                    format!("{expected} is {actual}")
                }
                Err(RefusalReason::BehindMismatch { actual }) => format!("behind at {actual}"),
                Err(RefusalReason::NoDocument) => "no document".to_owned(),
                Err(_) => "no version".to_owned(),
            }
        };
        rows.split(',').enumerate().map(verdict).collect()
    }

    #[test]
    fn what_was_taken_or_refused_counts_for_what_is_behind_it() {
        for (rows, expected) in [
            ("u 0 3, u 0 4, u 0 4", "new, new, 4 is 5"),
            ("u 0 2, u 0 3", "2 is 3, behind at 3"),
            ("u 0 2, u 1 0, u 0, u 0 4", "2 is 3, new, new, behind at 4"),
            ("c 1 1, c 1 0, u 0 3", "1 is 0, behind at 0, new"),
            ("c 1 0, u 1 1, d 1 2, c 1 0, u 1 1", "new, new, new, new, new"),
            ("u 0, u 0 3, u 0 4", "new, 3 is 4, behind at 4"),
            ("=u 0 2, u 0 3", "repeat, new"),
            ("d 0 3, d 0 0, c 0 0", "new, new, new"),
            ("d 0 3, c 0 3, c 0 0", "new, 3 is 0, behind at 0"),
            ("u 0 x, u 0 3", "no version, behind at 3"),
            ("t, c 0 3, c 0 0, c 1 0", "new, 3 is 0, behind at 0, new"),
            ("u 0 2, t, c 0 0, c 1 0", "2 is 3, new, behind at 0, new"),
            ("-, u 0 3, -, u 0 4", "new, new, new, new"),
            ("n, u 0 3", "no document, new"),
            ("!u 0 2, u 0 3, u 1 0", "conflict, behind at 3, new"),
            ("!u 0, u 0 3", "conflict, new"),
        ] {
            assert_eq!(verdicts(rows).join(", "), expected, "{rows}");
        }
    }
}
