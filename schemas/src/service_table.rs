//! The tables that the service itself writes: one value says all that is particular about each.
//!
//! A table of ours is one entry of [`SERVICE_TABLES`]. Everybody who needs to know one asks for it by
//! the kind of its records or by its name. Elsewhere only what is true of events or of dead letters
//! alone names one: the ids, the `seq`s and the letters.

#[cfg(debug_assertions)]
use crate::columns::TRIAL_CHANGES;
use crate::columns::{Column, DEAD_LETTERS, EVENTS, KNOWN_EVENTS};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What a record of the log holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum RecordKind {
    /// Rows of `events`.
    Events = 1,
    /// Rows of `dead_letters`.
    DeadLetters = 2,
    /// Ids of event rows: no table has them.
    Keys = 3,
    /// Rows of the one table in [`TRIAL_TABLES`]: no release has them.
    #[cfg(debug_assertions)]
    Trial = 255,
}

impl RecordKind {
    /// The table that its records are rows of; none for records that are no rows.
    #[must_use]
    pub fn table(self) -> Option<&'static ServiceTable> {
        known_tables().find(|table| table.kind == self)
    }

    /// The name of that table.
    #[must_use]
    pub fn table_name(self) -> Option<&'static str> {
        Some(self.table()?.name)
    }

    /// Whether its records are rows of a table.
    #[must_use]
    pub fn is_rows(self) -> bool {
        self.table().is_some()
    }

    /// Whether its records are rows with a `seq`.
    #[must_use]
    pub fn has_seq(self) -> bool {
        self.table().is_some_and(ServiceTable::has_seq)
    }

    /// The kind whose numbers its records have: ids have those of their rows.
    #[must_use]
    pub fn counted_as(self) -> Self {
        if self == Self::Keys { Self::Events } else { self }
    }

    /// As the log writes it.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }

    /// From the log.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        let of_rows = known_tables().map(|table| table.kind);
        of_rows.chain([Self::Keys]).find(|kind| kind.code() == code)
    }
}

/// How a partition field is made of its column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartitionBy {
    /// The value as it is.
    Identity,
    /// The day of a time, in UTC.
    Day,
}

/// One field of a partition spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionField {
    /// The column.
    pub column: &'static str,
    /// What the field is called.
    pub name: &'static str,
    /// How it is made.
    pub by: PartitionBy,
}

/// All that is particular about a table of ours.
#[derive(Clone, Copy, Debug)]
pub struct ServiceTable {
    /// Which records of the log are rows of it.
    pub kind: RecordKind,
    /// How it is called in each namespace.
    pub name: &'static str,
    /// Its columns. A table that an earlier version made may lack the last ones.
    pub columns: &'static [Column],
    /// How it is partitioned when it is made: by text as it is, and by the days of times.
    pub partition: &'static [PartitionField],
    /// Columns by which the rows of a file are sorted, when it is made: at most two, of numbers or
    /// times that every row has.
    pub sort: &'static [&'static str],
    /// What a row's number is called, in messages.
    pub numbers: &'static str,
    /// A column of events: each one with a value there is a row of this table as well, with the
    /// columns of the same names. None where rows come into being otherwise.
    pub events_with: Option<&'static str>,
}

/// The name of the table that holds a namespace's events.
pub const EVENTS_TABLE: &str = "events";

/// The type of an event that empties a collection. It has no `key` and no `op`.
pub const TRUNCATE_TYPE: &str = "cdc.truncate";

/// The name of the table that holds what a namespace's senders got wrong.
pub const DEAD_LETTERS_TABLE: &str = "dead_letters";

/// The tables of a release.
pub const SERVICE_TABLES: &[ServiceTable] = &[
    ServiceTable {
        kind: RecordKind::Events,
        name: EVENTS_TABLE,
        columns: EVENTS,
        partition: &[
            PartitionField { column: "type", name: "type", by: PartitionBy::Identity },
            PartitionField { column: "ts", name: "dt", by: PartitionBy::Day },
        ],
        sort: &["ts", "seq"],
        numbers: "seq",
        events_with: None,
    },
    ServiceTable {
        kind: RecordKind::DeadLetters,
        name: DEAD_LETTERS_TABLE,
        columns: DEAD_LETTERS,
        partition: &[PartitionField { column: "received_at", name: "dt", by: PartitionBy::Day }],
        sort: &["received_at"],
        numbers: "dead letters",
        events_with: None,
    },
];

/// A table that no release has, of changes: with it a test can see what an entry brings with it.
#[cfg(debug_assertions)]
pub const TRIAL_TABLES: &[ServiceTable] = &[ServiceTable {
    kind: RecordKind::Trial,
    name: "trial_changes",
    columns: TRIAL_CHANGES,
    partition: &[
        PartitionField { column: "op", name: "op", by: PartitionBy::Identity },
        PartitionField { column: "ts", name: "dt", by: PartitionBy::Day },
    ],
    sort: &["ts"],
    numbers: "changes",
    events_with: Some("op"),
}];
/// None in a release.
#[cfg(not(debug_assertions))]
pub const TRIAL_TABLES: &[ServiceTable] = &[];

/// The tables that this build knows the records of: those of the release, then [`TRIAL_TABLES`].
pub fn known_tables() -> impl Iterator<Item = &'static ServiceTable> {
    SERVICE_TABLES.iter().chain(TRIAL_TABLES)
}

impl ServiceTable {
    /// Whether its rows have a `seq`: the namespace's read token, cursor and restore point. Rows of
    /// other tables are counted as well, each table for itself, and show the number to nobody.
    #[must_use]
    pub fn has_seq(&self) -> bool {
        self.columns.iter().any(|column| column.name == "seq")
    }

    /// The column of this name.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&'static Column> {
        self.columns.iter().find(|column| column.name == name)
    }
}

/// The tables of this process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ServiceTables(Arc<[ServiceTable]>);

impl Default for ServiceTables {
    /// Those of this release.
    fn default() -> Self {
        Self(SERVICE_TABLES.into())
    }
}

impl ServiceTables {
    /// Those of this release, `events` with the first `count` columns of
    /// [`crate::columns::TRIAL`] as well; none when there are not so many.
    #[must_use]
    pub fn with_trial(count: usize) -> Option<Self> {
        let columns = KNOWN_EVENTS.get(..EVENTS.len() + count)?;
        let mut tables = SERVICE_TABLES.to_vec();
        let events = tables.iter_mut().find(|table| table.kind == RecordKind::Events)?;
        events.columns = columns;
        Some(Self(tables.into()))
    }

    /// These, and the table of [`TRIAL_TABLES`] with its first `count` columns; these alone when
    /// that is 0, none when it has not so many or would lack one of its first version.
    #[must_use]
    pub fn and_trial(self, count: usize) -> Option<Self> {
        if count == 0 {
            return Some(self);
        }
        let trial = TRIAL_TABLES.first()?;
        let (columns, later) = trial.columns.split_at_checked(count)?;
        let is_whole = later.iter().all(|column| column.id.is_none());
        let trial = is_whole.then_some(ServiceTable { columns, ..*trial })?;
        Some(Self(self.0.iter().copied().chain([trial]).collect()))
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &ServiceTable> {
        self.0.iter()
    }

    /// The table that records of this kind are rows of; none for records that are no rows.
    #[must_use]
    pub fn of(&self, kind: RecordKind) -> Option<&ServiceTable> {
        self.iter().find(|table| table.kind == kind)
    }

    /// The table of this name; none for a name that is not one of ours.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&ServiceTable> {
        self.iter().find(|table| table.name == name)
    }

    /// `events`.
    ///
    /// # Panics
    /// If there is no such table: every set has it.
    #[must_use]
    pub fn events(&self) -> &ServiceTable {
        self.of(RecordKind::Events).expect("every set of tables has the events")
    }
}

#[cfg(test)]
mod tests;
