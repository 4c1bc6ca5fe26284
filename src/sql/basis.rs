//! The basis of an answer: what it was made of, so that it can be made again.

use crate::sql::{
    points::QueryPoints,
    view::history::{branch_of, is_lost},
};
use chrono::{DateTime, SecondsFormat};
use icecore_catalog::ancestors;
use icecore_engine::{
    error::SqlError,
    seq_range::SeqRange,
    view::{CollectionView, NamespaceView, TableView, View},
};
use icecore_lake::table::retention::{REMOVED_FIRST_SEQ, REMOVED_LAST_SEQ};
use icecore_schemas::{query::QueryBasis, service_table::RecordKind, snapshot_id::SnapshotId};
use std::{collections::BTreeMap, iter};

/// The basis of an answer over this view, when `now()` is `clock_ms`: the one that was sent, if there is one. None
/// for an answer over several namespaces, as `seq` counts in each of them. `named` are the tables of the statement.
///
/// # Errors
/// [`SqlError::Invalid`] for a basis that was sent with a statement over several namespaces.
pub(super) fn of(
    view: &View,
    points: &QueryPoints,
    clock_ms: i64,
    named: &[String],
) -> Result<Option<QueryBasis>, SqlError> {
    // A namespace that is only looked into for a name has nothing in the answer.
    let has_tables =
        |other: &&NamespaceView| !other.tables.is_empty() || !other.unreadable.is_empty();
    match (view.others.iter().find(has_tables), &points.basis) {
        (None, sent) => {
            let basis = sent.clone().unwrap_or_else(|| made(view, points, clock_ms));
            Ok(Some(QueryBasis { inexact: inexact(view, points, named), ..basis }))
        }
        (Some(_), None) => Ok(None),
        (Some(other), Some(_)) => Err(SqlError::Invalid(format!(
            "the statement reads namespace `{}`, and a basis is of the tables of one namespace; send the statement without it",
            other.namespace
        ))),
    }
}

fn made(view: &View, points: &QueryPoints, clock_ms: i64) -> QueryBasis {
    let snapshot = |table: &TableView| (table.name.clone(), table.snapshot_id.map(SnapshotId));
    // A collection without a base is one of the answer, too.
    let own = || view.collections.iter().filter(|of| of.namespace == view.namespace);
    let bases = own().map(|collection| (collection.name.clone(), None));
    // A base that is read without events has those up to its own last one.
    let of_bases = own().filter(|of| of.events.is_none()).filter_map(|of| of.until);
    let (seq, branch) = last_event(view, points, of_bases.max());
    QueryBasis {
        seq,
        branch,
        snapshots: bases.chain(view.tables.iter().map(snapshot)).collect(),
        clock: DateTime::from_timestamp_millis(clock_ms)
            .unwrap_or_default()
            .to_rfc3339_opts(SecondsFormat::Millis, true),
        inexact: Vec::new(),
    }
}

/// The last event of the tables of a view, where they are of one branch, and that branch; none for `main`. Where some
/// are of `main`, it is theirs: the others are repeated by their snapshots. `of_bases` is that of bases.
fn last_event(
    view: &View,
    points: &QueryPoints,
    of_bases: Option<u64>,
) -> (Option<u64>, Option<String>) {
    let (mut of_main, mut of_branches) = (of_bases, BTreeMap::<String, u64>::new());
    for table in view.tables.iter().filter(|table| table.ours == Some(RecordKind::Events)) {
        match branch_of(table, points.reference(&table.name)) {
            // It is repeated by its snapshot, as no `seq` names it.
            None if is_lost(table) => (),
            None => of_main = of_main.max(Some(table.last_seq)),
            Some(branch) => {
                let last = of_branches.entry(branch.name).or_default();
                *last = table.last_seq.max(*last);
            }
        }
    }
    match (of_main, of_branches.pop_first(), of_branches.is_empty()) {
        (Some(seq), ..) => (Some(seq), None),
        (None, Some((branch, seq)), true) => (Some(seq), Some(branch)),
        (None, ..) => (None, None),
    }
}

/// The tables that are cut by `seq` and lack events that retention removed, as far as retained snapshots tell. No
/// collection does: retention keeps the events that documents are made of.
fn inexact(view: &View, points: &QueryPoints, named: &[String]) -> Vec<String> {
    let is_folded = |table: &TableView| {
        view.collections.iter().any(|it| it.events.as_ref() == Some(&table.name))
    };
    let has_point = |table: &&TableView| {
        // What is under a collection alone lacks nothing of it.
        let is_read = named.contains(&table.name) || !is_folded(table);
        let is_addressed = matches!(points.of_address(&table.name), Ok(Some(_)));
        let is_cut = points.versions.contains_key(&table.name) || is_addressed;
        is_read && (points.basis.is_some() || is_cut)
    };
    let lacks_some = |table: &&TableView| {
        let mut states = iter::successors(Some(*table), |state| state.later.as_deref());
        states.any(|state| state.seqs.is_some_and(|seqs| has_lost(state, seqs)))
    };
    let found = view.tables.iter().filter(has_point).filter(lacks_some);
    found.map(|table| table.name.clone()).collect()
}

/// Whether retention removed some of these events before this state.
fn has_lost(state: &TableView, seqs: SeqRange) -> bool {
    let Some(metadata) = &state.metadata else { return false };
    ancestors::of(metadata, state.snapshot_id).any(|snapshot| {
        let summary = &snapshot.summary().additional_properties;
        let noted = |name: &str| summary.get(name)?.parse::<u64>().ok();
        noted(REMOVED_FIRST_SEQ)
            .zip(noted(REMOVED_LAST_SEQ))
            .is_some_and(|(first, last)| first <= seqs.last && seqs.first <= last)
    })
}

/// When the newest snapshot was made that `as_of` stands for, ms since 1970.
#[must_use]
pub(super) fn newest_snapshot_ms(view: &View, points: &QueryPoints) -> Option<i64> {
    let has_version = |namespace: &str, table: &TableView| {
        namespace == view.namespace && points.versions.contains_key(&table.name)
    };
    // A base may have been made later than the events that are read.
    let is_base = |namespace: &str, table: &TableView| {
        let is_it = |of: &CollectionView| of.namespace == namespace && of.name == table.name;
        view.collections.iter().any(|of| is_it(of) && of.events.is_some())
    };
    let tables = view
        .all_tables()
        .filter(|(namespace, table)| !has_version(namespace, table) && !is_base(namespace, table));
    let times = tables.filter_map(|(_, table)| {
        let snapshot = table.metadata.as_ref()?.snapshot_by_id(table.snapshot_id?)?;
        Some(snapshot.timestamp_ms())
    });
    times.max()
}
