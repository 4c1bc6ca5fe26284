//! How a branch begins: at the newest snapshot that has no event behind its point, with the events between the two.

use crate::{
    flush::{
        FlushError,
        branches::{BranchRows, BranchStart},
    },
    http::{
        AppState,
        branches::{
            append::ATTEMPTS_MAX, documents::drop_left, entry, events, failed, head, invalid,
            newest, no_events,
        },
        collections::check_collection,
        error::ApiError,
        points::ReadCaller,
        record::ChangeCaller,
        state_rows,
    },
};
use arrow::{compute::cast, datatypes::Schema, error::ArrowError, record_batch::RecordBatch};
use futures::StreamExt;
use icecore_catalog::{catalog::LoadedTable, error::CatalogError};
use icecore_lake::{
    branch::{Branch, branch_of, last_seq, newest_until},
    event::rows,
};
use icecore_schemas::{
    branches::{BranchEntry, NewBranch},
    collections::TimeBasis,
    erasure::{ErasureReport, ErasureStatus},
    error_code::ErrorCode,
    names::Namespace,
    point::{HistoryPoint, MAIN_BRANCH},
    query::SqlRequest,
};
use serde_json::{Value, json};
use std::sync::Arc;

/// Most branches of a namespace: each keeps files, and every commit of `events` writes what is said of all.
const BRANCHES_MAX: usize = 100;
/// Most events that a branch gets as copies, because no snapshot ends at its point.
const COPIED_ROWS_MAX: usize = 1_000_000;
/// Most memory of them.
const COPIED_BYTES_MAX: usize = 256 << 20;

/// Most requests that hold copies of events at a time; the others wait.
pub(in crate::http) const COPIES_MAX: usize = 2;

/// Who changes the branches of which namespace.
#[derive(Clone, Copy, Debug)]
pub(super) struct BranchRequest<'a> {
    pub(super) app: &'a AppState,
    pub(super) caller: &'a ChangeCaller,
    pub(super) levels: &'a [String],
    pub(super) namespace: &'a Namespace,
}

/// What a branch is made of.
#[derive(Debug)]
struct ForkSource {
    /// The branch, none for `main`.
    branch: Option<Branch>,
    /// Its head.
    head: i64,
    /// The last event of that.
    last: u64,
}

/// A point as it was found among the events of `main`.
#[derive(Debug)]
struct MainPoint {
    /// Its last event.
    seq: u64,
    /// The snapshot that it names.
    snapshot: Option<i64>,
}

impl MainPoint {
    /// The last event; refuses a snapshot of a branch, whose numbers are other events.
    fn seq_in(&self, table: &LoadedTable) -> Result<u64, ApiError> {
        let Some(branch) = self.snapshot.and_then(|id| branch_of(&table.metadata, id)) else {
            return Ok(self.seq);
        };
        let text = format!(
            "`at` is a snapshot of branch `{branch}`: name its head with branch:{branch}, or set `from` and the number of one of its events"
        );
        Err(invalid(text))
    }
}

/// Where a branch begins.
#[derive(Debug)]
struct ForkPlace {
    /// The snapshot whose files it shares; none where all its events are copied.
    at: Option<i64>,
    /// The last event of that one, else 0.
    last: u64,
    /// The events behind it, up to the point.
    rows: Vec<RecordBatch>,
}

impl BranchRequest<'_> {
    /// Makes a branch.
    ///
    /// # Errors
    /// 400, 404 for a point that is still to come, 409 for a name that is taken, 410 for a point that was removed, 429, 503.
    pub(super) async fn create(self, new: &NewBranch) -> Result<BranchEntry, ApiError> {
        let Self { app, namespace, .. } = self;
        if let Some(collection) = &new.collection {
            check_collection(collection)?;
        }
        let point = point(new.at.as_ref())?;
        let _turn = app.branch_turns.take(&[namespace.name()]).await?;
        let _copies = match point {
            // Its snapshot is the head, and nothing is copied.
            HistoryPoint::Now | HistoryPoint::Branch(_) => None,
            _ => Some(app.branch_copies.acquire().await.expect("it is never closed")),
        };
        self.check_erasures().await?;
        let mut attempt = 1;
        loop {
            // Before the commit, which then has every event up to there.
            let of_main = Box::pin(self.point_of_main(new, &point)).await?;
            self.flush().await?;
            let table = events(app, namespace).await?;
            check_free(&table, &new.name)?;
            if attempt == 1 {
                // Nobody reads documents of an earlier branch by the name of this one.
                let changes = app.catalog.on_behalf_of(self.caller.principal.id());
                Box::pin(drop_left(app, &changes, namespace, &new.name)).await;
            }
            let source = self.source(&table, new, &point).await?;
            let of_main = match &of_main {
                Some(found) => Some(found.seq_in(&table)?),
                None => None,
            };
            let seq = seq_of(&source, &point, of_main)?;
            let place = Box::pin(self.place(&table, &source, seq)).await?;
            let branch = branch(new, &source, (seq, app.clock.now_ms()));
            let rows = self.fork(branch, place);
            let catalog = app.catalog.on_behalf_of(self.caller.principal.id());
            match Box::pin(app.flush.commit_to_branch(&catalog, rows)).await {
                Ok(_) => break,
                Err(FlushError::Commit(CatalogError::CommitFailed(_)))
                    if attempt < ATTEMPTS_MAX =>
                {
                    attempt += 1;
                }
                Err(cause) => return Err(failed(cause)),
            }
        }
        let table = events(app, namespace).await?;
        let made = head(app, namespace, &table, &new.name).await?;
        tracing::info!(%namespace, branch = new.name, seq = made.branch.fork_seq, "a branch was made");
        Ok(entry(&table, &made))
    }

    /// The rows that a new branch begins with.
    fn fork(self, branch: Branch, place: ForkPlace) -> BranchRows {
        let ForkPlace { at, last, rows } = place;
        let last_seq = branch.fork_seq;
        BranchRows {
            namespace: self.namespace.clone(),
            start: BranchStart::Fork { at, replaces: None },
            seq: (!rows.is_empty()).then_some((last + 1, last_seq)),
            rows,
            last_seq,
            branch,
        }
    }

    /// Refuses to copy rows while an erasure looks for those of its subject.
    ///
    /// # Errors
    /// 409.
    pub(super) async fn check_erasures(self) -> Result<(), ApiError> {
        let erasures = self.app.erasures.list(self.levels).await?.erasures;
        let has_rows = |erasure: &&ErasureReport| match erasure.status {
            ErasureStatus::Log
            | ErasureStatus::Count
            | ErasureStatus::Rewrite
            | ErasureStatus::History => !erasure.dry_run,
            ErasureStatus::Files
            | ErasureStatus::Proof
            | ErasureStatus::Done
            | ErasureStatus::Failed => false,
        };
        let Some(ErasureReport { erasure, .. }) = erasures.iter().find(has_rows) else {
            return Ok(());
        };
        let text = format!(
            "erasure `{erasure}` still takes rows out of this namespace: try again when its status is `files`"
        );
        Err(ApiError::new(ErrorCode::Conflict, text))
    }

    /// Commits everything that is acknowledged.
    async fn flush(self) -> Result<(), ApiError> {
        let Self { app, namespace, .. } = self;
        let through = *app.wal.durable().borrow();
        let committed = app.flush.commit_now(namespace, through).await;
        committed.map(|_| ()).map_err(|cause| ApiError::from(cause.as_ref()))
    }

    /// What the branch is made of: the branch that is named, or the one whose head is its point.
    async fn source(
        self,
        table: &LoadedTable,
        new: &NewBranch,
        point: &HistoryPoint,
    ) -> Result<ForkSource, ApiError> {
        let Self { app, namespace, .. } = self;
        let of_point = match point {
            HistoryPoint::Branch(branch) => Some(branch.as_str()),
            _ => None,
        };
        let from = new.from.as_deref().or(of_point).filter(|from| *from != MAIN_BRANCH);
        if let Some(from) = from {
            if of_point.is_some_and(|branch| branch != from) {
                let text =
                    format!("`at` is a point of another branch than `{from}`: name one of them");
                return Err(invalid(text));
            }
            let head = head(app, namespace, table, from).await?;
            let (snapshot, last) = (head.snapshot, head.seq);
            return Ok(ForkSource { branch: Some(head.branch), head: snapshot, last });
        }
        let Some(head) = table.metadata.current_snapshot_id() else {
            let text = format!(
                "table `events` of namespace `{namespace}` has no snapshot yet: send an event first"
            );
            return Err(ApiError::new(ErrorCode::Conflict, text));
        };
        let last = match last_seq(&table.metadata, head) {
            Some(last) => last,
            None => newest(app, namespace, head).await?,
        };
        Ok(ForkSource { branch: None, head, last })
    }

    /// What a point of `main` stands for; none for a point of a branch, and for everything that is acknowledged.
    async fn point_of_main(
        self,
        new: &NewBranch,
        point: &HistoryPoint,
    ) -> Result<Option<MainPoint>, ApiError> {
        let is_of_main = new.from.as_deref().is_none_or(|from| from == MAIN_BRANCH);
        if !is_of_main || matches!(point, HistoryPoint::Now | HistoryPoint::Branch(_)) {
            return Ok(None);
        }
        let Self { app, caller, levels, .. } = self;
        let reader = ReadCaller { app, principal: &caller.principal, levels };
        reader.check_events().await?;
        let found = Box::pin(reader.find(point, TimeBasis::Commit)).await?;
        let snapshot = found.snapshot;
        let seq = Box::pin(reader.seq_of(found)).await?;
        Ok(Some(MainPoint { seq, snapshot }))
    }

    /// Where a branch begins that ends at this event.
    async fn place(
        self,
        table: &LoadedTable,
        source: &ForkSource,
        seq: u64,
    ) -> Result<ForkPlace, ApiError> {
        if seq == source.last {
            return Ok(ForkPlace { at: Some(source.head), last: seq, rows: Vec::new() });
        }
        let base = newest_until(&table.metadata, source.branch.as_ref(), source.head, seq);
        let last = base.map_or(0, |(_, last)| last);
        match self.between(source.head, (last, seq), "TRUE").await {
            Ok(rows) => Ok(ForkPlace { at: base.map(|(at, _)| at), last, rows }),
            Err(error) if base.is_none() && error.code() == ErrorCode::Gone => Err(gone(seq, None)),
            Err(error) => Err(error),
        }
    }

    /// The events of a snapshot behind `after`, up to `until`, for which a condition is true, with all columns of the
    /// service and no others.
    ///
    /// # Errors
    /// 410 for too many; else as queries.
    pub(super) async fn between(
        self,
        snapshot: i64,
        (after, until): (u64, u64),
        condition: &str,
    ) -> Result<Vec<RecordBatch>, ApiError> {
        if until <= after {
            return Ok(Vec::new());
        }
        let request = SqlRequest {
            sql: format!(
                "SELECT * FROM events WHERE seq > {after} AND seq <= {until} AND {condition}"
            ),
            as_of: Some(json!(snapshot)),
            ..SqlRequest::default()
        };
        let answer = state_rows::ask(self.app, self.levels, request).await?;
        let mut answer = answer.ok_or_else(|| no_events(self.namespace))?;
        let (mut batches, mut rows, mut bytes) = (Vec::new(), 0, 0);
        while let Some(batch) = answer.batches.next().await {
            let batch = batch?;
            if batch.num_rows() == 0 {
                continue;
            }
            let batch = own_columns(&batch).map_err(|cause| ApiError::internal(&cause))?;
            rows += batch.num_rows();
            bytes += batch.get_array_memory_size();
            if COPIED_ROWS_MAX < rows || COPIED_BYTES_MAX < bytes {
                return Err(gone(until, Some(after)));
            }
            batches.push(batch);
        }
        Ok(batches)
    }
}

/// The point that a body names, as a text or a number.
fn point(at: Option<&Value>) -> Result<HistoryPoint, ApiError> {
    let text = match at {
        None | Some(Value::Null) => return Ok(HistoryPoint::Now),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Bool(_) | Value::Array(_) | Value::Object(_)) => {
            return Err(invalid("`at` is a text such as seq:17, or a number".to_owned()));
        }
    };
    text.parse::<HistoryPoint>().map_err(|problem| invalid(format!("`at`: {problem}")))
}

/// The last event at the point, which is `of_main` where that is known.
fn seq_of(
    source: &ForkSource,
    point: &HistoryPoint,
    of_main: Option<u64>,
) -> Result<u64, ApiError> {
    let seq = match (point, of_main) {
        (HistoryPoint::Now | HistoryPoint::Branch(_), _) => source.last,
        (_, Some(seq)) => seq,
        (HistoryPoint::Seq(seq) | HistoryPoint::Number(seq), None) => *seq,
        (_, None) => {
            let text =
                "`at`: a point of a branch is the number of one of its events, such as seq:17";
            return Err(invalid(text.to_owned()));
        }
    };
    if source.last < seq {
        let text = format!("no event has seq {seq} yet: the last one has {}", source.last);
        return Err(ApiError::new(ErrorCode::NotFound, text));
    }
    Ok(seq)
}

/// Refuses a name that a branch or tag of `events` has, and one branch too many.
fn check_free(table: &LoadedTable, name: &str) -> Result<(), ApiError> {
    if table.metadata.snapshot_for_ref(name).is_some() {
        let text =
            format!("`events` has a branch or tag `{name}` already: drop it, or take another name");
        return Err(ApiError::new(ErrorCode::Conflict, text));
    }
    if BRANCHES_MAX <= Branch::all(&table.metadata).len() {
        let text =
            format!("the namespace has {BRANCHES_MAX} branches, the most there may be: drop one");
        return Err(ApiError::new(ErrorCode::Conflict, text));
    }
    Ok(())
}

fn branch(new: &NewBranch, source: &ForkSource, (fork_seq, created_at): (u64, i64)) -> Branch {
    let of_source = source.branch.as_ref();
    Branch {
        name: new.name.clone(),
        forked_from: of_source.map_or(MAIN_BRANCH, |branch| &branch.name).to_owned(),
        fork_seq,
        created_at,
        // What a branch of one collection refuses has no place on one that is made of it.
        collection: of_source
            .and_then(|branch| branch.collection.clone())
            .or_else(|| new.collection.clone()),
        merges: Vec::new(),
    }
}

/// The error for a point of which no snapshot is near enough.
fn gone(seq: u64, nearest: Option<u64>) -> ApiError {
    let text = match nearest {
        Some(nearest) => format!(
            "the snapshots around seq {seq} were removed, and more than {COPIED_ROWS_MAX} events, or too many bytes, lie between it and the one before: begin the branch at seq:{nearest}, or at its head"
        ),
        None => format!(
            "no snapshot from before seq {} is retained, and more than {COPIED_ROWS_MAX} events, or too many bytes, are up to there: begin the branch at a later point, or at its head",
            seq.saturating_add(1)
        ),
    };
    let nearest: Vec<String> = nearest.map(|seq| format!("seq:{seq}")).into_iter().collect();
    ApiError::new(ErrorCode::Gone, text).with_details(json!({ "nearest": nearest }))
}

/// The columns of the service, in its types.
fn own_columns(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for field in rows::known_event_schema().fields() {
        let Some(column) = batch.column_by_name(field.name()) else { continue };
        columns.push(cast(column, field.data_type())?);
        fields.push(Arc::clone(field));
    }
    let own = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
    rows::align(&rows::known_event_schema(), &own)
}
