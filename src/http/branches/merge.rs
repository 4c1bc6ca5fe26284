//! `POST /v1/{ns}/branches/{b}/merge`: what a branch changed since the last event in common is done to another one, by
//! ordinary changes.
//!
//! Both are compared at their last events, member by member. Its one invariant: a merge that was carried out is known
//! by an event in the branch that it went into, so nothing is merged twice, wherever the server ended.

mod common;
mod document;
mod marker;
mod run;
pub(super) mod statements;

use crate::http::{
    self, AppState, body,
    branches::append::{self, BranchHead},
    bulk_changes::{self, ChangedBranch},
    change_events,
    documents::identity::RequestKey,
    error::ApiError,
    guard::CatalogNamespace,
    health::not_taken,
    points::{FoundPoint, ReadCaller},
    record::ChangeCaller,
    rows::{number_at, text_at},
};
use arrow::record_batch::RecordBatch;
use axum::{
    body::Body,
    extract::{Extension, Path, State},
    http::HeaderMap,
    response::Response,
};
use common::{CommonPoint, common_point};
use icecore_catalog::body::parse_object;
use icecore_lake::{
    branch::{Branch, BranchMerge},
    event::bookmark,
    table::schema::ident,
};
use icecore_schemas::{
    branch_merge::{BranchMergeReport, MergePolicy, NewBranchMerge},
    error_code::ErrorCode,
    names::Namespace,
    point::MAIN_BRANCH,
    service_table::EVENTS_TABLE,
};
use marker::MergeName;
use run::MergeRun;
use serde_json::json;
use statements::{BranchState, ChangedCollection, ComparedBranches};

/// Most collections that a branch may have changed to be compared.
pub(super) const COLLECTIONS_MAX: usize = 1_000;
/// Most times that both are compared because documents of a merge were written meanwhile.
const COMPARISONS_MAX: usize = 5;

/// Both branches of a comparison.
pub(super) struct BranchPair {
    /// The branch.
    pub(super) theirs: BranchHead,
    /// The other one; none for `main`.
    pub(super) ours: Option<BranchHead>,
    /// The last event of the other one.
    pub(super) ours_seq: u64,
    pub(super) common: CommonPoint,
}

/// What is asked for.
struct MergeRequest {
    namespace: Namespace,
    levels: Vec<String>,
    branch: String,
    asked: NewBranchMerge,
    key: Option<RequestKey>,
}

/// `POST /v1/{ns}/branches/{branch}/merge`. Durable on return.
///
/// # Errors
/// 400 for a branch into itself, 404 for one that is not there, 409 for conflicts that no policy decides, 422 for too
/// many changes, 429, 503.
pub(in crate::http) async fn merge(
    State(app): State<AppState>,
    Extension(CatalogNamespace(levels)): Extension<CatalogNamespace>,
    Path((namespace, branch)): Path<(String, String)>,
    caller: ChangeCaller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let principal = &caller.principal;
    app.owner.check().map_err(|reason| not_taken(Some(principal), &reason))?;
    let body = body::read(&app, &headers, body).await?;
    let asked: NewBranchMerge = parse_object(&body.bytes)
        .map_err(|problem| invalid(format!("the body is not {{\"into\": \"main\"}}: {problem}")))?;
    app.sql.check_sees_all(principal, &levels, EVENTS_TABLE)?;
    let namespace = change_events::namespace_of(&app, principal, &levels, &namespace).await?;
    let key = RequestKey::of(&headers)?;
    let request = MergeRequest { namespace, levels, branch, asked, key };
    Ok(http::json(200, &Box::pin(carry_out(&app, &caller, &request)).await?))
}

/// Carries out a merge, goes on with one that broke off, or tells of one that was carried out.
async fn carry_out(
    app: &AppState,
    caller: &ChangeCaller,
    request: &MergeRequest,
) -> Result<BranchMergeReport, ApiError> {
    let MergeRequest { namespace, levels, branch, asked, key } = request;
    let NewBranchMerge { into, policy, dry_run } = asked;
    // Restores and merges read a state and write on it. Turns of branches are taken behind it, never the other way round.
    let _turn = app.restore_turns.take(&[namespace.name()]).await?;
    let reader = ReadCaller { app, principal: &caller.principal, levels };
    let pair = Box::pin(pair(reader, namespace, branch, into)).await?;
    let prefix = marker::prefix(namespace, &pair.theirs.branch, into);
    let id = match key {
        Some(key) => marker::merge_id(namespace, &key.0),
        None => app.ids.mint().to_string(),
    };
    let text = format!("{branch:?} into {into:?}, policy {}", policy.as_str());
    let name = MergeName { prefix: &prefix, id: &id, request: &text };
    let ours = pair.ours_state();
    let mut common = pair.common;
    // What was merged and not said of the branch, as the server ended in between.
    let last = marker::last_merge(app, levels, ours, &prefix, common.into_seq).await?;
    let is_newer = |last: &CommonPoint| common.seq <= last.seq && last.seq <= pair.theirs.seq;
    if let Some(last) = last.filter(is_newer) {
        common = last;
        if !*dry_run {
            let place = (into.as_str(), pair.ours_created_at());
            record(app, namespace, branch, place, common).await;
        }
    }
    let mut begun = None;
    if key.is_some() && !*dry_run {
        if let Some(report) = marker::completed(app, levels, ours, name).await? {
            return Ok(report);
        }
        begun = marker::begun(app, levels, ours, name).await?;
    }
    // A merge that goes on merges what it began with.
    let seq = begun.as_ref().map_or(pair.theirs.seq, |begun| begun.seq.min(pair.theirs.seq));
    let theirs = BranchState { branch: Some(branch), seq };
    let run = MergeRun {
        place: ChangedBranch { app, levels, namespace, branch: pair.ours_name() },
        branch,
        collection: pair.ours_collection(),
        into_created_at: pair.ours_created_at(),
        name,
        states: ComparedBranches { theirs, ours, common },
        policy: *policy,
        undo: begun.as_ref().map_or(pair.ours_seq, |begun| begun.into_seq),
        is_resumed: begun.is_some(),
    };
    let collections = Box::pin(run.collections()).await?;
    check_collections(run.collection, &collections, into)?;
    let mut report = Box::pin(run.compare(&collections)).await?;
    report.branch.clone_from(branch);
    report.into.clone_from(into);
    report.head_seq = seq;
    (report.common_seq, report.into_common_seq) = (common.seq, common.into_seq);
    report.dry_run = *dry_run;
    if *dry_run {
        return Ok(report);
    }
    caller.call.about(&format!("{} {text} {id}", namespace.name()));
    Box::pin(finish(reader, run, &collections, report)).await
}

/// Appends what a comparison found, and says of the branch that it is merged.
async fn finish(
    reader: ReadCaller<'_>,
    run: MergeRun<'_>,
    collections: &[ChangedCollection],
    report: BranchMergeReport,
) -> Result<BranchMergeReport, ApiError> {
    let ChangedBranch { app, namespace, .. } = run.place;
    let (run, report) = Box::pin(append_compared(reader, run, collections, report)).await?;
    let into_seq = report.seq.map_or(run.states.ours.seq, |seq| seq.last);
    let merged = CommonPoint { seq: run.states.theirs.seq, into_seq, is_fork: false };
    let (branch, into) = (run.branch, report.into.as_str());
    // Without anything new there is nothing to say.
    if run.states.common.seq < merged.seq {
        record(app, namespace, branch, (into, run.into_created_at), merged).await;
    }
    let changes = run::changes(&report);
    tracing::info!(%namespace, branch, %into, changes, "a branch was merged");
    Ok(report)
}

/// Appends what a comparison found. Compares again where documents of it were written since, a few times at most; the
/// moment that it is undone to is behind those writes. Writes of other documents do not matter.
async fn append_compared<'a>(
    reader: ReadCaller<'_>,
    mut run: MergeRun<'a>,
    collections: &[ChangedCollection],
    mut report: BranchMergeReport,
) -> Result<(MergeRun<'a>, BranchMergeReport), ApiError> {
    let ChangedBranch { app, levels, namespace, branch: other } = run.place;
    for comparison in 1..=COMPARISONS_MAX {
        if run.policy == MergePolicy::Fail && report.conflicting != 0 {
            return Err(conflict(&report));
        }
        report.sample.clear();
        report.conflicts.clear();
        if run::changes(&report) == 0 && !run.is_resumed {
            return Ok((run, report));
        }
        bulk_changes::check_erasures(app, levels).await?;
        if !run.is_resumed {
            // What others wrote since the comparison is either no document of the merge, or is compared again.
            run.undo = Box::pin(head_of(reader, namespace, other)).await?;
        }
        report.merge = Some(run.name.id.to_owned());
        if other.is_none() {
            report.undo_bookmark = Some(bookmark::of_moment(run.undo));
            let catalog = app.catalog.on_behalf_of(reader.principal.id());
            let tag = format!("before-merge-{}", run.undo);
            report.tag =
                Box::pin(bulk_changes::tag_before(run.place, &catalog, tag, run.is_resumed)).await;
        }
        if let Some(done) = Box::pin(run.append(reader, collections, report.clone())).await? {
            return Ok((run, done));
        }
        if comparison == COMPARISONS_MAX {
            break;
        }
        let seq = Box::pin(head_of(reader, namespace, other)).await?;
        run.states.ours = BranchState { seq, ..run.states.ours };
        let again = Box::pin(run.compare(collections)).await?;
        report = BranchMergeReport {
            branch: report.branch,
            into: report.into,
            head_seq: report.head_seq,
            common_seq: report.common_seq,
            into_common_seq: report.into_common_seq,
            ..again
        };
    }
    let text = "documents of the merge were written each time they were compared, and nothing was changed; send it again";
    Err(ApiError::new(ErrorCode::Unavailable, text))
}

/// Says of a branch that it is merged, once the table has the changes: a log that is lost must not leave a branch that
/// is merged without them. Where it cannot be said now, the next merge finds the event and says it.
async fn record(
    app: &AppState,
    namespace: &Namespace,
    branch: &str,
    (into, into_created_at): (&str, Option<i64>),
    CommonPoint { seq, into_seq, .. }: CommonPoint,
) {
    if into == MAIN_BRANCH {
        let through = *app.wal.durable().borrow();
        if let Err(cause) = app.flush.commit_now(namespace, through).await {
            let error = cause.as_ref() as &dyn std::error::Error;
            tracing::warn!(%namespace, branch, error, "that a branch was merged is not said of it yet");
            return;
        }
    }
    let merge = BranchMerge { into: into.to_owned(), into_created_at, seq, into_seq };
    if let Err(error) = Box::pin(append::record_merge(app, namespace, branch, merge)).await {
        tracing::warn!(%namespace, branch, %error, "that a branch was merged is not said of it yet");
    }
}

/// The last event of a branch that merges took or began with, also of those that are not said of it as the server ended
/// in between; 0 without any. `all` are the branches that there are.
///
/// # Errors
/// 503; else as queries.
pub(super) async fn merged_seq(
    reader: ReadCaller<'_>,
    namespace: &Namespace,
    branch: &Branch,
    all: &[Branch],
) -> Result<u64, ApiError> {
    let names = all.iter().map(|other| other.name.as_str()).filter(|name| *name != branch.name);
    let others: Vec<Option<&str>> = [None].into_iter().chain(names.map(Some)).collect();
    let mut merged = branch.merges.iter().map(|merge| merge.seq).max().unwrap_or(0);
    for other in others {
        let seq = Box::pin(head_of(reader, namespace, other)).await?;
        let prefix = marker::prefix(namespace, branch, other.unwrap_or(MAIN_BRANCH));
        let ours = BranchState { branch: other, seq };
        let last = marker::last_merge(reader.app, reader.levels, ours, &prefix, 0).await?;
        let begun = marker::last_begun(reader.app, reader.levels, ours, &prefix).await?;
        merged = merged.max(last.map_or(0, |last| last.seq)).max(begun);
    }
    Ok(merged)
}

/// Refuses changes of collections that the other branch does not take.
fn check_collections(
    taken: Option<&str>,
    collections: &[ChangedCollection],
    into: &str,
) -> Result<(), ApiError> {
    let Some(taken) = taken else { return Ok(()) };
    match collections.iter().find(|collection| collection.name != taken) {
        None => Ok(()),
        Some(other) => Err(invalid(format!(
            "branch `{into}` takes changes of collection `{taken}` alone, and `{}` changed as well: merge into another branch",
            other.name
        ))),
    }
}

fn conflict(report: &BranchMergeReport) -> ApiError {
    let listed = &report.conflicts;
    let documents = match report.conflicting {
        1 => "1 document was".to_owned(),
        count => format!("{count} documents were"),
    };
    let text = format!(
        "{documents} changed to different values on both branches; details.conflicts lists {} of them: change one side, or merge with the policy `ours` or `theirs`",
        listed.len()
    );
    let details = json!({ "conflicts": listed, "conflicting": report.conflicting });
    ApiError::new(ErrorCode::Conflict, text).with_details(details)
}

/// Finds a branch, the other one and their last event in common.
///
/// # Errors
/// 400 for `main`, for a branch and itself, and for two that have nothing in common; 404 for one that is not there.
pub(super) async fn pair(
    reader: ReadCaller<'_>,
    namespace: &Namespace,
    branch: &str,
    into: &str,
) -> Result<BranchPair, ApiError> {
    if branch == MAIN_BRANCH {
        let text = "`main` is what branches are compared with and merged into: name a branch in the path, and `main` in `into`";
        return Err(invalid(text.to_owned()));
    }
    if branch == into {
        return Err(invalid(format!("`{branch}` is both branches: name another one in `into`")));
    }
    let app = reader.app;
    reader.check_events().await?;
    let theirs = Box::pin(append::load(app, namespace, branch)).await?;
    let ours = match into {
        MAIN_BRANCH => None,
        into => Some(Box::pin(append::load(app, namespace, into)).await?),
    };
    let ours_seq = match &ours {
        Some(head) => head.seq,
        None => Box::pin(reader.seq_of(FoundPoint::NOW)).await?,
    };
    let events = app.catalog.tables().load(&ident(namespace, EVENTS_TABLE)).await?;
    let all = Branch::all(&events.metadata);
    let common = common_point(&all, &theirs.branch, into).ok_or_else(|| {
        invalid(format!(
            "`{branch}` and `{into}` have no event in common that is known, as a branch between them was dropped: merge into a branch that `{branch}` was made of"
        ))
    })?;
    Ok(BranchPair { theirs, ours, ours_seq, common })
}

/// The last event of a branch; none for `main`.
async fn head_of(
    reader: ReadCaller<'_>,
    namespace: &Namespace,
    branch: Option<&str>,
) -> Result<u64, ApiError> {
    match branch {
        None => Box::pin(reader.seq_of(FoundPoint::NOW)).await,
        Some(branch) => Ok(Box::pin(append::load(reader.app, namespace, branch)).await?.seq),
    }
}

impl BranchPair {
    /// The other branch as it is.
    pub(super) fn ours_state(&self) -> BranchState<'_> {
        BranchState { branch: self.ours_name(), seq: self.ours_seq }
    }

    fn ours_name(&self) -> Option<&str> {
        self.ours.as_ref().map(|head| head.branch.name.as_str())
    }

    fn ours_created_at(&self) -> Option<i64> {
        self.ours.as_ref().map(|head| head.branch.created_at)
    }

    fn ours_collection(&self) -> Option<&str> {
        self.ours.as_ref().and_then(|head| head.branch.collection.as_deref())
    }
}

/// The collections in the rows of [`BranchState::collections_since`], in order of their names.
///
/// # Errors
/// 422 for too many.
pub(super) fn changed_collections(
    rows: &[RecordBatch],
) -> Result<Vec<ChangedCollection>, ApiError> {
    let mut collections = Vec::new();
    for batch in rows {
        collections.extend((0..batch.num_rows()).filter_map(|row| {
            let name = text_at(batch, "collection", row)?;
            let is_emptied = number_at(batch, "emptied", row) == Some(1);
            Some(ChangedCollection { name, is_emptied, ..ChangedCollection::default() })
        }));
    }
    if COLLECTIONS_MAX < collections.len() {
        let text = format!(
            "the branch changed more than {COLLECTIONS_MAX} collections: use branches of single collections"
        );
        return Err(ApiError::new(ErrorCode::QueryLimit, text));
    }
    collections.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(collections)
}

fn invalid(text: String) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, text)
}
