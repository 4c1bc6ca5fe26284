//! What became of a folder: for people as tables, for scripts as JSON.

use crate::cli::{admin::aligned, counted, layout::folder::FileKind};
use serde::{Deserialize, Serialize};
use std::ops::AddAssign;

/// What became of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::cli) struct EventCounts {
    /// All that were read.
    pub(in crate::cli) events: u64,
    /// New ones.
    pub(in crate::cli) accepted: u64,
    /// Those that were there before.
    pub(in crate::cli) duplicates: u64,
    /// Those that the server refused and kept as dead letters.
    pub(in crate::cli) rejected: u64,
    /// Those that no request could hold.
    pub(in crate::cli) unsent: u64,
}

impl AddAssign for EventCounts {
    fn add_assign(&mut self, other: Self) {
        self.events += other.events;
        self.accepted += other.accepted;
        self.duplicates += other.duplicates;
        self.rejected += other.rejected;
        self.unsent += other.unsent;
    }
}

/// The files of one kind.
#[derive(Clone, Copy, Debug, Serialize)]
pub(in crate::cli) struct KindReport {
    kind: &'static str,
    pub(in crate::cli) files: u64,
    #[serde(flatten)]
    pub(in crate::cli) counts: EventCounts,
}

/// A file, and what is said of it.
#[derive(Clone, Debug, Serialize)]
pub(in crate::cli) struct FileRemark {
    pub(in crate::cli) file: String,
    pub(in crate::cli) reason: String,
}

/// Files that have no events of their own.
#[derive(Clone, Debug, Serialize)]
pub(in crate::cli) struct AsideFiles {
    pub(in crate::cli) files: u64,
    pub(in crate::cli) reason: String,
}

/// What became of a folder.
#[derive(Clone, Debug, Serialize)]
pub(in crate::cli) struct ImportReport {
    /// By kind.
    kinds: Vec<KindReport>,
    pub(in crate::cli) total: EventCounts,
    /// How many files an earlier run had sent.
    pub(in crate::cli) sent_before: u64,
    /// Files that were not read, or not to their end.
    pub(in crate::cli) skipped: Vec<FileRemark>,
    /// Files that have no events of their own.
    pub(in crate::cli) aside: Vec<AsideFiles>,
    /// Where a manifest says something else than the folder has.
    pub(in crate::cli) notes: Vec<FileRemark>,
}

/// The kinds, as they are called, and compacted files apart.
const KINDS: [&str; 5] = ["events", "compacted", "deltas", "documents", "dead letters"];

impl ImportReport {
    /// One about nothing.
    pub(in crate::cli) fn new() -> Self {
        let kind = |kind| KindReport { kind, files: 0, counts: EventCounts::default() };
        Self {
            kinds: KINDS.map(kind).to_vec(),
            total: EventCounts::default(),
            sent_before: 0,
            skipped: Vec::new(),
            aside: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Adds a file of this kind and layer.
    pub(in crate::cli) fn add(&mut self, kind: FileKind, layer: u8, counts: EventCounts) {
        let place = match (kind, layer) {
            (FileKind::Events, 0) => 0,
            (FileKind::Events, _) => 1,
            (FileKind::Deltas, _) => 2,
            (FileKind::Documents, _) => 3,
            (FileKind::DeadLetters, _) => 4,
        };
        self.kinds[place].files += 1;
        self.kinds[place].counts += counts;
        self.total += counts;
    }

    /// How many files were read.
    pub(in crate::cli) fn files(&self) -> u64 {
        self.kinds.iter().map(|kind| kind.files).sum()
    }

    /// Notes a file that was not read, or not to its end.
    pub(in crate::cli) fn skip(&mut self, file: &str, reason: impl Into<String>) {
        self.skipped.push(FileRemark { file: file.to_owned(), reason: reason.into() });
    }

    /// As tables.
    pub(in crate::cli) fn text(&self) -> String {
        let row = |kind: &str, files: u64, counts: &EventCounts| {
            let EventCounts { events, accepted, duplicates, rejected, unsent } = counts;
            let numbers = [files, *events, *accepted, *duplicates, *rejected, *unsent];
            let mut row = vec![kind.to_owned()];
            row.extend(numbers.map(|number| number.to_string()));
            row
        };
        let read = self.kinds.iter().filter(|kind| 0 < kind.files);
        let mut rows: Vec<Vec<String>> =
            read.map(|kind| row(kind.kind, kind.files, &kind.counts)).collect();
        rows.push(row("total", self.files(), &self.total));
        let header = ["kind", "files", "events", "new", "duplicates", "rejected", "not sent"];
        let mut text = aligned(&header, &rows);
        if 0 < self.sent_before {
            let files = counted(self.sent_before, "file");
            text.push_str(&format!("\n{files} of these were sent by an earlier run"));
        }
        let mut table = |title: &str, remarks: &[FileRemark]| {
            let rows: Vec<Vec<String>> =
                remarks.iter().map(|it| vec![it.file.clone(), it.reason.clone()]).collect();
            if !rows.is_empty() {
                text.push_str(&format!("\n\n{}", aligned(&[title, "because"], &rows)));
            }
        };
        table("skipped", &self.skipped);
        table("manifest", &self.notes);
        for AsideFiles { files, reason } in &self.aside {
            text.push_str(&format!("\n{} set aside: {reason}", counted(*files, "file")));
        }
        text
    }
}
