//! What is looked up in the tables before a submission is decided. Events whose id is taken by another
//! text are compared with what is stored, by what it says; dead letters that refused events have are
//! looked for, as another engine may have deleted them.
//!
//! One query of each kind for a namespace, of bounded time. What is not found out in that time stays a
//! conflict, or counts as there.

use crate::{
    http::{AppState, guard},
    ingest::{IngestError, IngestOutcome, OpenQuestions, Receipt, Submission, UndecidedEvent},
};
use arrow::{
    array::AsArray,
    compute::cast,
    datatypes::{DataType, Int64Type},
    record_batch::RecordBatch,
};
use futures::TryStreamExt;
use icecore_engine::references::QueryScope;
use icecore_lake::event::{
    EquivalentEvent, NamespaceEvents,
    same::{rows_say_the_same, says_the_same},
};
use icecore_schemas::{names::Namespace, query::SqlRequest};
use std::collections::{BTreeMap, HashMap, HashSet};
use ulid::Ulid;

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
        IngestOutcome::Undecided(mut submission, OpenQuestions { events, letters }) => {
            submission.lost_letters = lost_letters(app, letters).await;
            if events.is_empty() {
                return app.ingest.append(*submission).await;
            }
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
    let sql = format!("SELECT * FROM events WHERE seq IN ({})", seqs.join(", "));
    let mut stored = HashMap::new();
    for batch in read(app, &events.namespace, sql).await.unwrap_or_default() {
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

/// Which of these dead letters no table has any more.
async fn lost_letters(app: &AppState, letters: Vec<(Namespace, Ulid)>) -> Vec<Ulid> {
    let mut by_namespace: HashMap<Namespace, HashSet<String>> = HashMap::new();
    for (namespace, id) in letters {
        by_namespace.entry(namespace).or_default().insert(id.to_string());
    }
    let mut lost = Vec::new();
    for (namespace, mut ids) in by_namespace {
        let listed: Vec<String> = ids.iter().map(|id| format!("'{id}'")).collect();
        let (Some(first), Some(last)) = (listed.iter().min(), listed.iter().max()) else {
            continue;
        };
        // The bounds let files be left out.
        let sql = format!(
            "SELECT DISTINCT id FROM dead_letters WHERE id >= {first} AND id <= {last} AND id IN ({})",
            listed.join(", ")
        );
        let Some(batches) = read(app, &namespace, sql).await else { continue };
        for found in batches.iter().filter_map(|batch| batch.column_by_name("id")) {
            let Ok(found) = cast(found, &DataType::Utf8) else { continue };
            for id in found.as_string::<i32>().iter().flatten() {
                ids.remove(id);
            }
        }
        lost.extend(ids.iter().filter_map(|id| Ulid::from_string(id).ok()));
    }
    lost
}

/// What a query of a namespace answers; none where it fails, or takes too long.
async fn read(app: &AppState, namespace: &Namespace, sql: String) -> Option<Vec<RecordBatch>> {
    let request = SqlRequest { sql, timeout_ms: Some(LOOK_UP_MS), ..SqlRequest::default() };
    let levels = guard::levels(namespace);
    let read = async {
        let answer = app.sql.query(&levels, QueryScope::Namespace, None, request).await?;
        answer.batches.try_collect().await
    };
    read.await.inspect_err(|error| tracing::debug!(%error, "cannot look at what is stored")).ok()
}
