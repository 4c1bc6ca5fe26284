//! The basis of an answer: what it was made of, so that it can be made again.

use crate::sql::{
    points::QueryPoints,
    view::history::{branch_of, is_lost},
};
use chrono::{DateTime, SecondsFormat};
use icecore_catalog::ancestors;
use icecore_engine::{
    seq_range::SeqRange,
    view::{CollectionView, NamespaceView, TableView, View},
};
use icecore_lake::table::retention::{REMOVED_FIRST_SEQ, REMOVED_LAST_SEQ};
use icecore_schemas::{
    query::{NamespaceBasis, QueryBasis},
    service_table::RecordKind,
    snapshot_id::SnapshotId,
};
use std::{collections::BTreeMap, iter};

/// The basis of an answer over this view, when `now()` is `clock_ms`: the one that was sent, if there is one. `named`
/// are the tables of the statement in its own namespace.
pub(super) fn of(view: &View, points: &QueryPoints, clock_ms: i64, named: &[String]) -> QueryBasis {
    let basis = points.basis.clone().unwrap_or_else(|| made(view, points, clock_ms));
    QueryBasis { inexact: inexact(view, points, named), ..basis }
}

fn made(view: &View, points: &QueryPoints, clock_ms: i64) -> QueryBasis {
    let elsewhere = points.elsewhere();
    // A namespace that is only looked into for a name has nothing in the answer.
    let has_some = |other: &&NamespaceView| {
        let has_collection = || view.collections.iter().any(|of| of.namespace == other.namespace);
        !other.tables.is_empty() || has_collection()
    };
    let namespaces = view.others.iter().filter(has_some).map(|other| {
        let points = points.within(&other.namespace).unwrap_or(&elsewhere);
        (other.namespace.clone(), part(view, (&other.namespace, &other.tables), points))
    });
    let own = part(view, (&view.namespace, &view.tables), points);
    QueryBasis {
        seq: own.seq,
        branch: own.branch,
        snapshots: own.snapshots,
        namespaces: namespaces.collect(),
        clock: DateTime::from_timestamp_millis(clock_ms)
            .unwrap_or_default()
            .to_rfc3339_opts(SecondsFormat::Millis, true),
        inexact: Vec::new(),
    }
}

/// What an answer has of a namespace.
fn part(
    view: &View,
    (namespace, tables): (&str, &[TableView]),
    points: &QueryPoints,
) -> NamespaceBasis {
    let snapshot = |table: &TableView| (table.name.clone(), table.snapshot_id.map(SnapshotId));
    // A collection without a base is one of the answer, too.
    let collections = || view.collections.iter().filter(|of| of.namespace == namespace);
    let bases = collections().map(|collection| (collection.name.clone(), None));
    // A base that is read without events has those up to its own last one.
    let of_bases = collections().filter(|of| of.events.is_none()).filter_map(|of| of.until);
    let (seq, branch) = last_event(tables, points, of_bases.max());
    NamespaceBasis { seq, branch, snapshots: bases.chain(tables.iter().map(snapshot)).collect() }
}

/// The last event of the tables of a namespace, where they are of one branch, and that branch; none for `main`. Where
/// some are of `main`, it is theirs: the others are repeated by their snapshots. `of_bases` is that of bases.
fn last_event(
    tables: &[TableView],
    points: &QueryPoints,
    of_bases: Option<u64>,
) -> (Option<u64>, Option<String>) {
    let (mut of_main, mut of_branches) = (of_bases, BTreeMap::<String, u64>::new());
    for table in tables.iter().filter(|table| table.ours == Some(RecordKind::Events)) {
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
    let elsewhere = points.elsewhere();
    let mut found = inexact_of(view, (&view.namespace, &view.tables), points, named);
    for NamespaceView { namespace, tables, .. } in &view.others {
        let points = points.within(namespace).unwrap_or(&elsewhere);
        let lacking = inexact_of(view, (namespace, tables), points, &[]);
        found.extend(lacking.into_iter().map(|table| format!("{namespace}.{table}")));
    }
    found
}

/// Those of one namespace. What it has under a collection alone is not among `named`.
fn inexact_of(
    view: &View,
    (namespace, tables): (&str, &[TableView]),
    points: &QueryPoints,
    named: &[String],
) -> Vec<String> {
    let is_folded = |table: &TableView| {
        let is_it = |of: &CollectionView| {
            of.namespace == namespace && of.events.as_ref() == Some(&table.name)
        };
        view.collections.iter().any(is_it)
    };
    let has_point = |table: &&TableView| {
        // What is under a collection alone lacks nothing of it.
        let is_read = named.contains(&table.name) || !is_folded(table);
        let is_addressed = matches!(points.of_address(&table.name), Ok(Some(_)));
        let is_cut = points.point_of(&table.name).is_some() || is_addressed;
        is_read && (points.basis.is_some() || is_cut)
    };
    let lacks_some = |table: &&TableView| {
        let mut states = iter::successors(Some(*table), |state| state.later.as_deref());
        states.any(|state| state.seqs.is_some_and(|seqs| has_lost(state, seqs)))
    };
    let found = tables.iter().filter(has_point).filter(lacks_some);
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
        let points = match namespace == view.namespace {
            true => Some(points),
            false => points.within(namespace),
        };
        points.is_some_and(|points| points.point_of(&table.name).is_some())
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
