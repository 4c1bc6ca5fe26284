//! `POST /v1/{ns}/audit/events`: whether each acknowledged row is in the log or in its table, once.
//!
//! The log is listed first and the table is looked up then, as for a query: what is committed in between
//! is told apart by the watermark. Its one invariant: the account of rows that a table is held against is
//! that of the very version that is read.

use crate::http::{
    AppState, error::ApiError, guard, health::not_taken, json, parse_namespace, tables,
};
use arrow::datatypes::SchemaRef;
use axum::{
    extract::{Extension, Path, State},
    response::Response,
};
use icecore_catalog::{
    access::Principal,
    catalog::LoadedTable,
    error::{CatalogError, with_causes},
    metastore::RowAccount,
    row_sum::RowSum,
    scan::{Deadline, ManifestSource, manifests::ManifestCache},
    usage::UsageCounter,
};
use icecore_lake::{
    blocking::blocking,
    event::{
        codec::{self, CodecError},
        rows,
    },
    table::{
        conservation::{self, RowFindings},
        reader::ReadError,
        row_sum::{self, RowKeys},
        schema::{self, TableIdent},
    },
    wal::{RecordRef, WalError},
};
use icecore_schemas::{
    conservation::{EventsAudit, RowTotal, TableAudit},
    error_code::ErrorCode,
    names::Namespace,
    service_table::{RecordKind, SERVICE_TABLES, ServiceTable},
};
use std::{collections::BTreeMap, sync::Arc};

/// Most audits at a time: each reads whole tables.
pub(super) const AUDITS_MAX: usize = 1;
/// Records of the log that are read without a break; an audit that nobody waits for ends with these.
const RECORDS_AT_ONCE: usize = 64;
/// How often a table is looked up until it does not change between two looks.
const LOOKS_MAX: u32 = 20;

/// Why the rows of a table could not be held against its account.
#[derive(Debug, thiserror::Error)]
enum RowAuditError {
    #[error("look up the table")]
    Catalog(#[from] CatalogError),
    #[error("the table changed at each of {} looks at it; run the audit again", LOOKS_MAX)]
    Busy,
    #[error("the table has no columns `id` and `seq` with the types of the service")]
    Foreign,
    #[error("read the table")]
    Read(#[from] ReadError),
    #[error("read the log")]
    Log(#[from] WalError),
    #[error("decode a record")]
    Decode(#[from] CodecError),
    #[error("another log has taken over the events; run the audit on its server")]
    Deposed,
}

/// Compares sums of rows, and notes for the next audit what was found of other engines' rows. A table
/// that cannot be read is told in the answer.
///
/// # Errors
/// 404 for a namespace without events, 429 while another audit goes on, 503 on a server that takes no
/// events.
pub async fn audit(
    State(app): State<AppState>,
    Extension(principal): Extension<Principal>,
    Path(namespace): Path<String>,
) -> Result<Response, ApiError> {
    app.owner.check().map_err(|reason| not_taken(Some(&principal), &reason))?;
    let namespace = tables::owner(&app, &principal, parse_namespace(&namespace)?).await?;
    let busy = "another audit of rows goes on: wait until it has ended";
    let turn = app.row_audits.try_acquire();
    let _turn = turn.map_err(|_| ApiError::new(ErrorCode::TooManyRequests, busy))?;
    let (counter, mut audited) = (UsageCounter::default(), BTreeMap::new());
    for ours in SERVICE_TABLES.iter().filter(|table| table.has_seq()) {
        let audited_table = Box::pin(audit_table(&app, &namespace, ours));
        // It rests by what it costs.
        let found = match counter.measure(audited_table).await {
            Ok(None) => continue,
            Ok(Some(found)) => found,
            Err(cause) => {
                tracing::warn!(
                    %namespace,
                    table = ours.name,
                    error = &cause as &dyn std::error::Error,
                    "the rows of a table cannot be audited"
                );
                TableAudit { error: Some(with_causes(&cause)), ..TableAudit::default() }
            }
        };
        audited.insert(ours.name.to_owned(), found);
    }
    if audited.is_empty() {
        return Err(CatalogError::NoSuchNamespace(guard::levels(&namespace).join(".")).into());
    }
    let agrees = audited.values().all(|table| table.agrees);
    Ok(json(200, &EventsAudit { agrees, tables: audited }))
}

/// What is found of a table; none where there is neither a table nor a row for it.
async fn audit_table(
    app: &AppState,
    namespace: &Namespace,
    ours: &ServiceTable,
) -> Result<Option<TableAudit>, RowAuditError> {
    let pin = app.wal.pin();
    let mut records = app.wal.records(ours.kind, namespace, 0);
    let state = looked_up(app, &schema::ident(namespace, ours.name)).await?;
    if state.is_none() && records.is_empty() {
        return Ok(None);
    }
    let watermark = state.as_ref().and_then(|(loaded, _)| loaded.watermark);
    let committed = app.owner.committed(watermark).ok_or(RowAuditError::Deposed)?;
    records.retain(|record| committed < record.position);
    let log = sum_of_log(ours, &records).await?;
    drop(pin);
    let Some((loaded, account)) = state else { return Ok(Some(only_logged(log))) };
    let metadata = loaded.metadata.as_ref();
    let keys = RowKeys::of(metadata.current_schema()).ok_or(RowAuditError::Foreign)?;
    // It is not kept: the manifests of a large table take hundreds of MiB.
    let cache = ManifestCache::default();
    let storage = app.catalog.storage();
    let source = ManifestSource { storage, cache: &cache, metadata, until: Deadline::NONE };
    let check = Box::pin(conservation::check(source, keys, &account));
    let found = app.tables.pace.over(check).await?;
    if let Some(checkpoint) = found.checkpoint.filter(|found| account.checkpoint != Some(*found)) {
        app.catalog.metastore().note_rows(metadata.uuid(), account.checkpoint, &checkpoint).await?;
    }
    Ok(Some(described(&found, account.acked, log)))
}

/// A table with the account of its rows, both of one version; none where there is no such table.
async fn looked_up(
    app: &AppState,
    table: &TableIdent,
) -> Result<Option<(LoadedTable, RowAccount)>, RowAuditError> {
    for _ in 0..LOOKS_MAX {
        let loaded = match app.catalog.tables().load(table).await {
            Err(CatalogError::NoSuchTable(_)) => return Ok(None),
            loaded => loaded?,
        };
        match app.catalog.metastore().row_account(loaded.metadata.uuid()).await? {
            Some((version, account)) if version == loaded.version => {
                return Ok(Some((loaded, account)));
            }
            // It was committed to, or dropped, in between.
            Some(_) | None => (),
        }
    }
    Err(RowAuditError::Busy)
}

/// The sum of the rows of these records, which are read one after the other.
async fn sum_of_log(ours: &ServiceTable, records: &[RecordRef]) -> Result<RowSum, RowAuditError> {
    let schema = match ours.kind == RecordKind::Events {
        // Whatever columns this server lets events have.
        true => rows::known_event_schema(),
        false => rows::schema_of(ours.columns),
    };
    let mut sum = RowSum::default();
    for part in records.chunks(RECORDS_AT_ONCE) {
        let (schema, part) = (Arc::clone(&schema), part.to_vec());
        let of_part = blocking(move || sum_of_records(&schema, &part)).await?;
        sum = sum.merge(of_part);
    }
    Ok(sum)
}

fn sum_of_records(schema: &SchemaRef, records: &[RecordRef]) -> Result<RowSum, RowAuditError> {
    let mut sum = RowSum::default();
    for record in records {
        let rows = codec::decode(schema, &record.read()?, record.first_seq)?;
        sum = sum.merge(row_sum::sum_of(&rows));
    }
    Ok(sum)
}

/// A table that is made with these rows.
fn only_logged(log: RowSum) -> TableAudit {
    let (acked, log) = (total(log), total(log));
    TableAudit { acked, log, agrees: true, ..TableAudit::default() }
}

fn described(found: &RowFindings, acked: RowSum, log: RowSum) -> TableAudit {
    TableAudit {
        acked: total(found.opening.merge(acked).merge(log)),
        log: total(log),
        table: total(found.table),
        expected: total(found.expected),
        foreign: total(found.foreign),
        removed: total(found.removed),
        agrees: found.agree(acked),
        begins: found.begins,
        checked_snapshots: found.checked_snapshots,
        parts_at: found.parts_at.into(),
        error: None,
    }
}

fn total(sum: RowSum) -> RowTotal {
    RowTotal { rows: sum.rows(), sum: sum.digits() }
}
