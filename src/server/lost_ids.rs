//! Ingest at its start: the log, the id index (rebuilt where it was lost), the thread.

use crate::{
    clock::Clock,
    faults::Faults,
    ids::Ids,
    ingest::{Ingest, IngestOptions, rebuild::Rebuild},
    server::StartError,
    table::{known_ids, schema, writer::blocking},
    wal::{Wal, WalOptions},
};
use futures::TryStreamExt;
use icecore_catalog::{catalog::Catalog, error::CatalogError};
use icecore_schemas::{columns::EVENTS_TABLE, names::Namespace};
use std::pin::pin;

/// Opens the log and starts ingest.
///
/// # Errors
/// [`StartError`] says what is in the way.
pub(super) async fn start_ingest(
    wal: WalOptions,
    ingest: IngestOptions,
    (clock, ids, faults): (Clock, Ids, Faults),
    catalog: &Catalog,
) -> Result<(Wal, Ingest), StartError> {
    let opened = {
        let (clock, faults) = (clock.clone(), faults.clone());
        blocking(move || Wal::open(wal, clock, faults)).await
    };
    let (wal, writer) = opened?;
    let begun = {
        let (options, wal, clock) = (ingest.clone(), wal.clone(), clock.clone());
        blocking(move || Rebuild::start(&options, &wal, &clock)).await?
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
                for ((id, seq), arrived_us) in
                    rows.ids.iter().zip(&rows.seqs).zip(&rows.ingested_us)
                {
                    if let (Some(id), Some(arrived_us)) = (id, arrived_us) {
                        let seq = seq.and_then(|seq| u64::try_from(seq).ok()).unwrap_or(0);
                        rebuild.add(&namespace, id, seq, arrived_us.div_euclid(1000))?;
                    }
                }
                Ok::<_, StartError>(rebuild)
            })
            .await?;
        }
    }
    Ok(blocking(move || rebuild.finish()).await?)
}
