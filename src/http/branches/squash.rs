//! Squashing a branch: its own changes become one for each document, against what the document was at the fork.
//!
//! The branch begins anew at a snapshot from before the first event that goes. Events that merges or other branches go
//! on from stay, with all before them: then the changes behind the last of these are squashed. Its one invariant: what
//! the branch was stays readable under a tag, which is there before the branch leaves its head.

use crate::{
    flush::branches::{BranchRows, BranchStart},
    http::{
        branches::{
            append::{self, BranchHead},
            create::BranchRequest,
            entry, events, failed, head,
            merge::merged_seq,
            no_events,
        },
        change_events::{self, ADMIN_VISIBILITY, ChangeEvent},
        error::ApiError,
        points::ReadCaller,
        rows::{number_at, text_at},
        state_rows::{self, first_row},
    },
};
use arrow::record_batch::RecordBatch;
use futures::StreamExt;
use icecore_catalog::{
    catalog::{LoadedTable, RefKind},
    error::CatalogError,
};
use icecore_engine::collections::{IS_CHANGE, IS_TRUNCATE, literal, relation_at};
use icecore_lake::{
    branch::{Branch, newest_until},
    collection::ChangeOp,
    event::RejectedEvent,
    table::schema::ident,
};
use icecore_schemas::{
    branches::{BranchEntry, BranchSquashed},
    error_code::ErrorCode,
    query::SqlRequest,
    service_table::EVENTS_TABLE,
};
use serde_json::json;

/// Most bytes of the changes that are left of a branch.
const CHANGES_BYTES_MAX: usize = 64 << 20;

impl BranchRequest<'_> {
    /// Squashes a branch.
    ///
    /// # Errors
    /// 404, 409 for a branch that cannot be squashed or moves meanwhile, 410 where its beginning is gone, 429, 503.
    pub(super) async fn squash(self, name: &str) -> Result<BranchSquashed, ApiError> {
        let Self { app, namespace, .. } = self;
        // A merge that goes on numbers the events of the branch as they are now.
        let _merges = app.restore_turns.take(&[namespace.name()]).await?;
        let _turn = app.branch_turns.take(&[namespace.name(), name]).await?;
        let _copies = app.branch_copies.acquire().await.expect("it is never closed");
        self.check_erasures().await?;
        let table = events(app, namespace).await?;
        let before = head(app, namespace, &table, name).await?;
        let all = Branch::all(&table.metadata);
        let reader = ReadCaller { app, principal: &self.caller.principal, levels: self.levels };
        let merged = Box::pin(merged_seq(reader, namespace, &before.branch, &all)).await?;
        let named = before.branch.named_seq(&all).max(merged);
        let (fork, last) = (before.branch.fork_seq.max(named), before.seq);
        self.check_squashable(&table, (&before, fork)).await?;
        let base = newest_until(&table.metadata, Some(&before.branch), before.snapshot, fork);
        let Some((at, first)) = base else {
            let text = format!(
                "branch `{name}` cannot be squashed: no snapshot from before the events that would go is retained; leave it as it is, or merge it and make a new one"
            );
            return Err(ApiError::new(ErrorCode::Gone, text));
        };
        let is_other = format!("({IS_CHANGE} AND collection <> '') IS NOT TRUE");
        let others = Box::pin(self.between(before.snapshot, (fork, last), &is_other)).await?;
        let changes = Box::pin(self.changes((&before, fork))).await?;
        let count = |rows: &[RecordBatch]| rows.iter().map(RecordBatch::num_rows).sum::<usize>();
        let events_before = self.count((&before, fork), "TRUE").await?;
        let events_now = (count(&others) + changes.len()) as u64;
        let result = |branch: BranchEntry, tag: Option<String>| BranchSquashed {
            branch,
            events_before,
            events: if tag.is_some() { events_now } else { events_before },
            tag,
        };
        if events_before <= events_now {
            return Ok(result(entry(&table, &before), None));
        }
        let tag = self.tag(&before).await?;
        let mut rows = Box::pin(self.between(before.snapshot, (first, fork), "TRUE")).await?;
        rows.extend(others);
        let last_seq = last + changes.len() as u64;
        if !changes.is_empty() {
            let (decoded, _) = change_events::decoded(app, namespace, &changes, None).await?;
            let refused = decoded.rejected.first();
            let Some(events) = decoded.accepted.first().filter(|_| refused.is_none()) else {
                return Err(refused_document(name, refused));
            };
            rows.push(append::numbered(events.rows.clone(), &events.keys, last + 1)?);
        }
        let new = BranchRows {
            namespace: namespace.clone(),
            start: BranchStart::Fork { at: Some(at), replaces: Some(before.snapshot) },
            seq: (!rows.is_empty()).then_some((first + 1, last_seq)),
            rows,
            last_seq,
            branch: before.branch,
        };
        let catalog = app.catalog.on_behalf_of(self.caller.principal.id());
        Box::pin(app.flush.commit_to_branch(&catalog, new)).await.map_err(failed)?;
        let table = events(app, namespace).await?;
        let now = head(app, namespace, &table, name).await?;
        tracing::info!(%namespace, branch = name, events_before, events_now, "a branch was squashed");
        Ok(result(entry(&table, &now), Some(tag)))
    }

    /// Refuses a branch whose state would not be the same afterwards.
    async fn check_squashable(
        self,
        table: &LoadedTable,
        (before, fork): (&BranchHead, u64),
    ) -> Result<(), ApiError> {
        let name = &before.branch.name;
        let refused = |why: &str| {
            let text = format!("branch `{name}` cannot be squashed: {why}");
            Err(ApiError::new(ErrorCode::Conflict, text))
        };
        if !before.branch.is_of_service(&table.metadata) {
            return refused("another engine has written to it; merge it, and make a new one");
        }
        if self.count((before, fork), IS_TRUNCATE).await? != 0 {
            return refused("a collection was emptied on it; merge it, and make a new one");
        }
        Ok(())
    }

    /// How many events of a branch behind one of them fulfil a condition.
    async fn count(
        self,
        (before, fork): (&BranchHead, u64),
        condition: &str,
    ) -> Result<u64, ApiError> {
        let sql = format!(
            "SELECT CAST(count(*) AS bigint) AS events FROM events WHERE seq > {fork} AND {condition}"
        );
        let as_of = Some(json!(before.snapshot));
        let request = SqlRequest { sql, as_of, ..SqlRequest::default() };
        let rows = state_rows::rows(self.app, self.levels, request).await?;
        Ok(first_row(&rows).and_then(|row| number_at(&row, "events", 0)).unwrap_or(0))
    }

    /// One change for each document that is another one than at event `fork`.
    async fn changes(self, (before, fork): (&BranchHead, u64)) -> Result<Vec<String>, ApiError> {
        let sql = format!(
            "SELECT DISTINCT collection FROM events WHERE seq > {fork} AND {IS_CHANGE} AND collection <> '' ORDER BY collection"
        );
        let as_of = Some(json!(before.snapshot));
        let request = SqlRequest { sql, as_of, ..SqlRequest::default() };
        let mut collections = Vec::new();
        for batch in state_rows::rows(self.app, self.levels, request).await? {
            let named = (0..batch.num_rows()).filter_map(|row| text_at(&batch, "collection", row));
            collections.extend(named);
        }
        let (mut changes, mut bytes) = (Vec::new(), 0);
        for collection in collections {
            let request = SqlRequest {
                sql: changed_documents(&collection, before, fork),
                ..SqlRequest::default()
            };
            let answer = state_rows::ask(self.app, self.levels, request).await?;
            let mut answer = answer.ok_or_else(|| no_events(self.namespace))?;
            while let Some(batch) = answer.batches.next().await {
                let batch = batch?;
                let rows = 0..batch.num_rows();
                for change in rows.filter_map(|row| self.change(&collection, &batch, row)) {
                    bytes += change.len();
                    changes.push(change);
                }
                if CHANGES_BYTES_MAX < bytes {
                    let text = format!(
                        "branch `{}` cannot be squashed: what is left of its changes has more than {} MiB; merge it, and make a new one",
                        before.branch.name,
                        CHANGES_BYTES_MAX >> 20
                    );
                    return Err(ApiError::new(ErrorCode::QueryLimit, text));
                }
            }
        }
        Ok(changes)
    }

    /// The change of a document, as the event of it.
    fn change(self, collection: &str, batch: &RecordBatch, row: usize) -> Option<String> {
        let [was, is] = ["was_doc", "is_doc"].map(|column| text_at(batch, column, row));
        let op = match (&was, &is) {
            (None, None) => return None,
            (None, Some(_)) => ChangeOp::Create,
            (Some(_), None) => ChangeOp::Delete,
            (Some(was), Some(is)) if was == is => return None,
            (Some(_), Some(_)) => ChangeOp::Update,
        };
        let key = text_at(batch, "key", row)?;
        let [store, visibility, was_visibility] =
            ["store", "visibility", "was_visibility"].map(|column| text_at(batch, column, row));
        // What the document was is told to nobody who did not see it.
        let is_told = !self.app.sql.filters_visibility()
            || was_visibility.is_none()
            || was_visibility == visibility;
        let (id, meta) = (self.app.ids.mint().to_string(), json!({ "squash": true }));
        let change = ChangeEvent {
            id: &id,
            op,
            collection,
            key: &key,
            store: store.as_deref(),
            visibility: visibility.as_deref(),
            before: was.as_deref().filter(|_| is_told),
            after: is.as_deref(),
            meta: &meta,
        };
        Some(change.text())
    }

    /// Tags the head of the branch.
    async fn tag(self, before: &BranchHead) -> Result<String, ApiError> {
        let BranchHead { branch, snapshot, seq } = before;
        let tag = format!("{}-before-squash-{seq}", branch.name);
        let catalog = self.app.catalog.on_behalf_of(self.caller.principal.id());
        let table = ident(self.namespace, EVENTS_TABLE);
        match catalog.refs().create(&table, &tag, RefKind::Tag, Some(*snapshot)).await {
            Ok(_) => Ok(tag),
            Err(CatalogError::AlreadyExists(_)) => {
                let now = events(self.app, self.namespace).await?;
                let at = now.metadata.snapshot_for_ref(&tag).map(|at| at.snapshot_id());
                if at == Some(*snapshot) {
                    // A squash before this one broke off behind it.
                    return Ok(tag);
                }
                let text = format!(
                    "tag `{tag}` of `events` is of an earlier branch of that name: delete it, or give it another name"
                );
                Err(ApiError::new(ErrorCode::Conflict, text))
            }
            Err(cause) => Err(cause.into()),
        }
    }
}

/// The error for a branch with a document that is taken no more, as limits of events are others now.
fn refused_document(branch: &str, refused: Option<&RejectedEvent>) -> ApiError {
    let why = refused.map_or("", |refused| refused.reason.as_str());
    let text = format!(
        "branch `{branch}` cannot be squashed, as a document of it is taken no more: {why}; write the document anew, and squash again"
    );
    ApiError::new(ErrorCode::Conflict, text)
}

/// The statement for the documents of a collection that have changes of the branch behind event `fork`: as they were
/// at it and as they are, and who sees the changes that made them so.
fn changed_documents(
    collection: &str,
    BranchHead { branch, snapshot, seq }: &BranchHead,
    fork: u64,
) -> String {
    let was = relation_at(collection, Some(&branch.name), fork);
    let is = relation_at(collection, Some(&branch.name), *seq);
    let of_collection = format!(
        "FROM events FOR VERSION AS OF {snapshot} WHERE collection = {} AND {IS_CHANGE}",
        literal(collection)
    );
    let changed =
        format!("SELECT key, max(seq) AS seq {of_collection} AND seq > {fork} GROUP BY key");
    let said = format!("SELECT seq, store, visibility {of_collection}");
    // Of a change that is gone nobody says who may see it.
    let seen = |event: &str, state: &str| {
        format!(
            "CASE WHEN {state} IS NOT NULL AND {event}.seq IS NULL THEN '{ADMIN_VISIBILITY}' ELSE {event}.visibility END"
        )
    };
    format!(
        "SELECT changed.key AS key, said.store AS store, {} AS visibility, {} AS was_visibility, \
         was.doc AS was_doc, is_now.doc AS is_doc FROM ({changed}) AS changed \
         LEFT JOIN (SELECT key, doc, seq FROM {was}) AS was ON was.key = changed.key \
         LEFT JOIN (SELECT key, doc, seq FROM {is}) AS is_now ON is_now.key = changed.key \
         LEFT JOIN ({said}) AS said ON said.seq = coalesce(is_now.seq, changed.seq) \
         LEFT JOIN ({said}) AS was_said ON was_said.seq = was.seq ORDER BY changed.key",
        seen("said", "changed.seq"),
        seen("was_said", "was.seq"),
    )
}
