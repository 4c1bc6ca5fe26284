//! Events whose id is taken by another text: before one is called a conflict, what is stored is looked
//! up and compared by what it says.
//!
//! One query for a namespace, by `seq`, of bounded time. What it does not find in that time stays a
//! conflict.

use crate::{
    http::{AppState, guard},
    ingest::{IngestError, IngestOutcome, Receipt, Submission, UndecidedEvent},
};
use arrow::{array::AsArray, datatypes::Int64Type, record_batch::RecordBatch};
use futures::TryStreamExt;
use icecore_engine::references::QueryScope;
use icecore_lake::event::{
    EquivalentEvent, NamespaceEvents,
    same::{rows_say_the_same, says_the_same},
};
use icecore_schemas::query::SqlRequest;
use std::collections::{BTreeMap, HashMap};

/// Longest time for a look at what is stored.
const LOOK_UP_MS: u64 = 2_000;

/// Appends a submission; where events of it may be stored already, in other words, that is found out
/// first.
///
/// # Errors
/// As `Ingest::append`.
pub(in crate::http) async fn append(
    app: &AppState,
    submission: Submission,
) -> Result<Receipt, IngestError> {
    match app.ingest.append_unless_undecided(submission).await? {
        IngestOutcome::Decided(receipt) => Ok(receipt),
        IngestOutcome::Undecided(mut submission, events) => {
            let mut groups: BTreeMap<usize, Vec<UndecidedEvent>> = BTreeMap::new();
            for event in events {
                groups.entry(event.group).or_default().push(event);
            }
            let mut stored = Vec::with_capacity(groups.len());
            for (group, undecided) in &groups {
                let events = &submission.decoded.accepted[*group];
                stored.push(stored_rows(app, events, undecided).await);
            }
            let compare = move || {
                for ((group, undecided), stored) in groups.iter().zip(&stored) {
                    let events = &mut submission.decoded.accepted[*group];
                    events.same = same_rows(events, undecided, stored);
                }
                submission
            };
            // Each level of a text is read once more for each level around it.
            let turn = app.decodes.acquire().await;
            let submission = tokio::task::spawn_blocking(compare).await;
            drop(turn);
            app.ingest.append(*submission.expect("texts that were read before compare")).await
        }
    }
}

/// Which of the undecided events say what an event says that is stored, or before them in the body.
fn same_rows(
    events: &NamespaceEvents,
    undecided: &[UndecidedEvent],
    stored: &HashMap<u64, RecordBatch>,
) -> Vec<(usize, EquivalentEvent)> {
    let before = first_rows(events);
    let same = undecided.iter().filter_map(|event| {
        if let Some(stored) = stored.get(&event.seq)
            && says_the_same(stored, events, event.row)
        {
            return Some((event.row, EquivalentEvent::Stored(event.seq)));
        }
        let first = *before.get(&events.keys[event.row].id)?;
        (first < event.row && rows_say_the_same(events, first, event.row))
            .then_some((event.row, EquivalentEvent::Before))
    });
    same.collect()
}

/// The first row of each id.
fn first_rows(events: &NamespaceEvents) -> HashMap<u128, usize> {
    let mut first = HashMap::new();
    for (row, key) in events.keys.iter().enumerate() {
        first.entry(key.id).or_insert(row);
    }
    first
}

/// What is stored under these numbers, a row each.
async fn stored_rows(
    app: &AppState,
    events: &NamespaceEvents,
    undecided: &[UndecidedEvent],
) -> HashMap<u64, RecordBatch> {
    let mut seqs: Vec<String> = undecided.iter().map(|event| event.seq.to_string()).collect();
    seqs.sort();
    seqs.dedup();
    let request = SqlRequest {
        sql: format!("SELECT * FROM events WHERE seq IN ({})", seqs.join(", ")),
        timeout_ms: Some(LOOK_UP_MS),
        ..SqlRequest::default()
    };
    let read = async {
        let levels = guard::levels(&events.namespace);
        let answer = app.sql.query(&levels, QueryScope::Namespace, None, request).await?;
        answer.batches.try_collect::<Vec<RecordBatch>>().await
    };
    let batches = match read.await {
        Ok(batches) => batches,
        Err(error) => {
            tracing::debug!(%error, "cannot compare stored events");
            return HashMap::new();
        }
    };
    let mut stored = HashMap::new();
    for batch in batches {
        let Some(seqs) =
            batch.column_by_name("seq").and_then(|it| it.as_primitive_opt::<Int64Type>())
        else {
            continue;
        };
        for (row, seq) in seqs.iter().enumerate() {
            if let Some(seq) = seq.and_then(|seq| u64::try_from(seq).ok()) {
                stored.insert(seq, batch.slice(row, 1));
            }
        }
    }
    stored
}
