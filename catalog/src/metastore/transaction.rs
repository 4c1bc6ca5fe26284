//! The ends of a transaction: which request it is of, what it tells, and what became of it when its
//! COMMIT failed.
//!
//! Its one invariant: a change, what is told of it, the key of its request and the audit record of
//! its call are in one transaction, so there is none without the others.

use super::{
    Metastore, audit,
    database::{self, TransactionId},
    failed, outbox,
    outbox::{EventMark, FeedOperation, FormerState, RequestChanges},
    requests,
};
use crate::{
    audit::AuditedCall,
    error::CatalogError,
    metastore::{ChangeOrigin, PointerSwap},
};
use sqlx::{Any, AnyConnection, Transaction};
use std::sync::Arc;
use tracing::warn;
use uuid::Uuid;

/// What is known after a COMMIT whose answer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LostCommit {
    /// Everything changed.
    Happened,
    /// Nothing changed.
    DidNotHappen,
    /// The database cannot tell.
    Unknown,
}

impl Metastore {
    /// The same metastore for the change that this call makes.
    #[must_use]
    pub fn for_call(&self, call: &Arc<AuditedCall>) -> Self {
        let origin = ChangeOrigin {
            actor: call.principal().into(),
            call: Some(Arc::clone(call)),
            ..ChangeOrigin::anonymous(call.now())
        };
        Self { origin, ..self.clone() }
    }

    /// Begins the one change of a request; fails when that was made before.
    pub(super) async fn begin_change(&self) -> Result<Transaction<'static, Any>, CatalogError> {
        let mut tx = self.begin().await?;
        self.claim_once(&mut tx, None).await?;
        Ok(tx)
    }

    /// Takes the key of this request, with what it is answered with; fails when it was carried out
    /// before.
    pub(super) async fn claim_once(
        &self,
        tx: &mut Transaction<'static, Any>,
        made: Option<(Uuid, &str)>,
    ) -> Result<(), CatalogError> {
        match claim(tx, &self.origin, made).await? {
            None => Ok(()),
            Some(_) => Err(CatalogError::Repeated),
        }
    }

    /// Ends a change: tells of it, and commits. Durable on return.
    pub(super) async fn end(
        &self,
        tx: Transaction<'static, Any>,
        operation: &'static str,
        told: impl Into<FeedOperation>,
    ) -> Result<(), CatalogError> {
        let told = RequestChanges { origin: self.origin.clone(), operations: vec![told.into()] };
        self.end_all(tx, operation, &[told]).await
    }

    /// As [`Metastore::end`], for a change that there is no event for.
    pub(super) async fn commit_without_event(
        &self,
        tx: Transaction<'static, Any>,
        operation: &'static str,
    ) -> Result<(), CatalogError> {
        let told = RequestChanges { origin: self.origin.clone(), operations: Vec::new() };
        self.end_all(tx, operation, &[told]).await
    }

    pub(super) async fn end_all(
        &self,
        mut tx: Transaction<'static, Any>,
        operation: &'static str,
        told: &[RequestChanges],
    ) -> Result<(), CatalogError> {
        self.group.count();
        let transaction = database::transaction_id(&mut tx).await?;
        let mark = outbox::write(&mut tx, told).await?;
        let calls: Vec<&AuditedCall> =
            told.iter().filter_map(|told| told.origin.call.as_deref()).collect();
        audit::write(&mut tx, &calls).await?;
        let ended = match self.commit_now(tx).await {
            Ok(()) => Ok(()),
            Err(cause) => self.find_out(operation, cause, transaction, mark).await,
        };
        if ended.is_ok() {
            calls.iter().for_each(|call| call.set_written());
        }
        ended
    }

    pub(super) async fn commit_now(
        &self,
        tx: Transaction<'static, Any>,
    ) -> Result<(), sqlx::Error> {
        #[cfg(test)]
        if let Some(fault) = self.faults.take() {
            return fault.commit(tx).await;
        }
        tx.commit().await
    }

    /// What became of a change whose COMMIT failed.
    pub(super) async fn find_out(
        &self,
        operation: &'static str,
        cause: sqlx::Error,
        transaction: TransactionId,
        mark: Option<EventMark>,
    ) -> Result<(), CatalogError> {
        warn!(error = &cause as &dyn std::error::Error, "commit failed, reading back");
        #[cfg(test)]
        if self.faults.is_deaf() {
            return Err(CatalogError::CommitStateUnknown(cause.to_string()));
        }
        let outcome = match transaction {
            TransactionId::None => self.look_for(mark).await,
            TransactionId::Postgres(id) => database::outcome(&self.database.readers, &id).await,
        };
        match outcome {
            Ok(LostCommit::Happened) => Ok(()),
            Ok(LostCommit::DidNotHappen) => Err(failed(operation)(cause)),
            Ok(LostCommit::Unknown) | Err(_) => {
                Err(CatalogError::CommitStateUnknown(cause.to_string()))
            }
        }
    }

    /// The outcome as an SQLite file shows it: what it shows after a failed COMMIT is final.
    pub(super) async fn look_for(
        &self,
        mark: Option<EventMark>,
    ) -> Result<LostCommit, CatalogError> {
        let Some(mark) = mark else { return Ok(LostCommit::Unknown) };
        let mut connection = self.database.readers.acquire().await.map_err(failed("connect"))?;
        let is_there = outbox::is_there(&mut connection, mark).await?;
        Ok(if is_there { LostCommit::Happened } else { LostCommit::DidNotHappen })
    }
}

/// Takes the key of a request; gives it back when its request was carried out before.
pub(super) async fn claim(
    tx: &mut AnyConnection,
    origin: &ChangeOrigin,
    table: Option<(Uuid, &str)>,
) -> Result<Option<Uuid>, CatalogError> {
    let Some(request) = &origin.request else { return Ok(None) };
    let is_new = requests::claim(tx, request, (origin.now)(), table).await?;
    Ok((!is_new).then_some(request.id))
}

/// What a swap changes, told to each whose commit is in it.
pub(super) fn add_changes(
    origin: &ChangeOrigin,
    swap: &PointerSwap,
    from: &FormerState,
    all: &mut Vec<RequestChanges>,
) {
    if swap.parts.is_empty() {
        let snapshots: Vec<i64> = swap.snapshots.iter().map(|row| row.snapshot_id).collect();
        let operation = outbox::updated(swap, from, &snapshots, &swap.changes);
        match all.first_mut() {
            Some(first) => first.operations.push(operation),
            None => {
                all.push(RequestChanges { origin: origin.clone(), operations: vec![operation] })
            }
        }
    }
    for part in &swap.parts {
        let operations = vec![outbox::updated(swap, from, &part.snapshots, &part.changes)];
        all.push(RequestChanges { origin: part.origin.clone(), operations });
    }
}
