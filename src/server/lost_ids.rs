//! Ingest at its start: the log, the id index (rebuilt where it was lost), the thread.

use crate::{
    clock::Clock,
    event::stored_key,
    faults::Faults,
    ids::Ids,
    ingest::{Ingest, IngestOptions, rebuild::Rebuild},
    owner::Ownership,
    server::StartError,
    table::{known_ids, schema, writer::blocking},
    wal::{Wal, WalOptions, folder::LogFolder},
};
use futures::TryStreamExt;
use icecore_catalog::{catalog::Catalog, error::CatalogError};
use icecore_schemas::{columns::EVENTS_TABLE, names::Namespace};
use std::pin::pin;

/// Opens the log and starts ingest. A log that events are not taken into needs no ids of theirs.
///
/// # Errors
/// [`StartError`] says what is in the way.
pub(super) async fn start_ingest(
    (folder, wal): (LogFolder, WalOptions),
    ingest: IngestOptions,
    owner: &Ownership,
    (clock, ids, faults): (Clock, Ids, Faults),
    catalog: &Catalog,
) -> Result<(Wal, Ingest), StartError> {
    let opened = {
        let (clock, faults) = (clock.clone(), faults.clone());
        blocking(move || Wal::open_in(folder, wal, clock, faults)).await
    };
    let (wal, writer) = opened?;
    let begun = match owner.check() {
        Err(_) => None,
        Ok(()) => {
            let (options, wal, clock) = (ingest.clone(), wal.clone(), clock.clone());
            blocking(move || Rebuild::start(&options, &wal, &clock)).await?
        }
    };
    if let Some(rebuild) = begun {
        let found = rebuild_from_tables(rebuild, catalog, &ingest.namespaces).await?;
        tracing::info!(ids = found, "the id index is rebuilt");
    }
    let kept = wal.clone();
    let started = blocking(move || Ingest::start(ingest, kept, writer, clock, ids, faults)).await?;
    Ok((wal, started))
}

async fn rebuild_from_tables(
    mut rebuild: Rebuild,
    catalog: &Catalog,
    namespaces: &[Namespace],
) -> Result<u64, StartError> {
    let since_us = rebuild.since_ms().saturating_mul(1000);
    for namespace in namespaces {
        let table = match catalog.load_table(&schema::ident(namespace, EVENTS_TABLE)).await {
            Err(CatalogError::NoSuchTable(_)) => continue,
            loaded => loaded?,
        };
        // Ids in a table of somebody else were never acknowledged here.
        if let Err(cause) = schema::check_ours(EVENTS_TABLE, &table.metadata) {
            tracing::warn!(%namespace, error = &cause as &dyn std::error::Error, "no ids are read");
            continue;
        }
        let held = known_ids::held(catalog.storage(), &table.metadata, since_us).await?;
        held.types.iter().for_each(|text| rebuild.add_type(namespace, text));
        tracing::info!(%namespace, files = held.files(), "reading ids");
        let mut batches = pin!(held.rows(catalog.storage()));
        while let Some(rows) = batches.try_next().await? {
            let namespace = namespace.clone();
            // Look-ups read files, and a full table of ids is written to one.
            rebuild = blocking(move || {
                let whole = rows.sources.iter().zip(&rows.payloads);
                let known = rows.ids.iter().zip(&rows.seqs).zip(&rows.ingested_us);
                for (((id, seq), arrived_us), (source, payload)) in known.zip(whole) {
                    if let (Some(id), Some(arrived_us)) = (id, arrived_us) {
                        let seq = seq.and_then(|seq| u64::try_from(seq).ok()).unwrap_or(0);
                        let key = stored_key(&namespace, id, source, payload);
                        rebuild.add(key, seq, arrived_us.div_euclid(1000))?;
                    }
                }
                Ok::<_, StartError>(rebuild)
            })
            .await?;
        }
    }
    Ok(blocking(move || rebuild.finish()).await?)
}
