//! The layout of files that earlier lakehouses of events have in a bucket, called `r2`.
//!
//! `folder` finds the files and what each is, `rows` reads them, `event` makes an event of a row, and
//! `identity` numbers rows that say the same. `manifest` compares what a folder should have. `import` sends
//! the events; what an earlier run has sent is in `progress`, and what became of all in `report`. Its one
//! invariant: the same folder gives the same events with the same ids in every run.

pub(super) mod event;
pub(super) mod folder;
pub(super) mod identity;
pub(super) mod manifest;
pub(super) mod progress;
pub(super) mod report;
pub(super) mod rows;
pub(super) mod sender;

use clap::ValueEnum;

/// A layout of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum FileLayout {
    /// events/YEAR/MONTH/DAY/HOUR, ns/NS/events, cdc/NS/COLLECTION, dead-letter/queue
    R2,
}

#[cfg(test)]
mod tests;
