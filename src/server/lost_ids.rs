//! Ingest at its start: the log, held against the other stores; the id index, with what it lacks
//! read from the tables; the thread.

use crate::{
    config::Config,
    ingest::{Ingest, IngestOptions, rebuild::IndexRebuild},
    server::{
        StartError,
        claim::{ClaimedLog, marks_path},
        stores::{self, CatalogState, MetastoreTrouble, StoreComparison},
    },
};
use futures::TryStreamExt;
use icecore_catalog::{
    catalog::Catalog,
    error::CatalogError,
    scan::{Deadline, ManifestSource, manifests::ManifestCache},
};
use icecore_lake::{
    blocking::blocking,
    clock::Clock,
    event::stored_key,
    ids::IdGenerator,
    metrics::Metrics,
    table::{evolve::SchemaFit, known_ids, schema},
    wal::{
        Wal, WalOptions,
        marks::{MarkFile, NotedMarks, RowMark},
    },
};
use icecore_schemas::{names::Namespace, service_table::RecordKind};
use std::{collections::HashMap, error::Error, iter, pin::pin};
use uuid::Uuid;

/// What a server that takes no events because of this says it is about.
const TOPIC: &str = "ids";
/// Free segments kept for reuse.
const FREE_SEGMENTS_MAX: usize = 4;
/// Most requests and bytes in one group commit.
const GROUP_REQUESTS_MAX: usize = 1024;
const GROUP_BYTES_MAX: usize = 16 << 20;

/// Opens the log and starts ingest. A server that takes no events needs no ids, and leaves their
/// folder as it is.
///
/// # Errors
/// [`StartError`] says what is in the way.
pub(super) async fn start_ingest(
    config: &Config,
    clock: &Clock,
    ids: &IdGenerator,
    metrics: &Metrics,
    catalog: &Catalog,
    claimed: ClaimedLog,
) -> Result<(Wal, Ingest), StartError> {
    let metastore = catalog.metastore();
    let ClaimedLog { folder, owner, seq_after, noted, logs } = claimed;
    // Read under the new epoch: whoever moved watermarks before does not any more.
    let known = CatalogState::ask(metastore, owner.since()).await?;
    let tables_floor = metastore.highest_position().await?;
    let options = wal_options(config, metrics, tables_floor.max(noted.highest_position()));
    let log = folder.log();
    let (wal, writer) = {
        let (clock, faults) = (clock.clone(), config.faults.clone());
        blocking(move || Wal::open_in(folder, options, clock, faults)).await?
    };
    if owner.check().is_ok() {
        let ledger = stores::ledger(config, &noted)?;
        let records = wal.all_records(0);
        let (known, records) = (&known, records.as_slice());
        let stores = StoreComparison { noted: &noted, known, log, records, seq_after, ledger };
        let mut findings = stores.compare();
        if known.is_new
            && noted.metastore.is_none()
            && !stores::newer_files(catalog).await.is_empty()
        {
            findings.metastore = Some(MetastoreTrouble::Empty);
        }
        match findings.is_empty() {
            true => note_from_now_on(config, &wal, log, known).await,
            false => owner.refuse(stores::TOPIC, findings.describe(config, Some(catalog)).await),
        }
    }
    let mut options = ingest_options(config, known, logs, &noted);
    options.seq_after = seq_after;
    options.takes_events = owner.check().is_ok();
    if options.takes_events
        && let Err(cause) = rebuild(&options, &wal, clock, catalog, config).await
    {
        owner.refuse(TOPIC, describe(&cause).ok_or(cause)?);
        options.takes_events = false;
    }
    // What was given out and is lost is not given again.
    for ((kind, namespace), marks) in noted.tables.iter().filter(|_| noted.log == log) {
        let floor = options.seq_floor.entry((*kind, namespace.clone())).or_default();
        *floor = marks.acknowledged.seq.max(*floor);
    }
    let (kept, clock, ids) = (wal.clone(), clock.clone(), ids.clone());
    let start = move || Ingest::start(options, kept, writer, clock, ids);
    Ok((wal, blocking(start).await?))
}

/// Rebuilds the id index where it lacks something.
async fn rebuild(
    options: &IngestOptions,
    wal: &Wal,
    clock: &Clock,
    catalog: &Catalog,
    config: &Config,
) -> Result<(), StartError> {
    let namespaces = options.namespaces.clone();
    let (options, log, clock) = (options.clone(), wal.clone(), clock.clone());
    let begun = blocking(move || IndexRebuild::start(&options, &log, &clock)).await?;
    let Some(rebuild) = begun else { return Ok(()) };
    // Boxed: the streams of files within one another are large.
    let found = Box::pin(rebuild_from_tables(rebuild, catalog, config, &namespaces)).await?;
    tracing::info!(ids = found, "the id index is rebuilt");
    Ok(())
}

/// A note that cannot be made keeps nobody from taking events: the log is what has to work.
async fn note_from_now_on(config: &Config, wal: &Wal, log: Uuid, known: &CatalogState) {
    let path = marks_path(config);
    match blocking(move || MarkFile::open(&path, log)).await {
        Ok(marks) => {
            wal.note_in(marks);
            wal.note_metastore(known.metastore);
        }
        Err(cause) => {
            tracing::warn!(
                error = &cause as &dyn std::error::Error,
                "cannot record the position of the log"
            );
        }
    }
}

fn wal_options(config: &Config, metrics: &Metrics, position_floor: u64) -> WalOptions {
    WalOptions {
        folder: config.data_dir.join("wal"),
        segment_bytes: config.wal_segment_bytes,
        free_segments_max: FREE_SEGMENTS_MAX,
        bytes_max: config.wal_bytes_max,
        disk_free_min: config.wal_disk_free_min,
        position_floor,
        metrics: metrics.clone(),
    }
}

fn ingest_options(
    config: &Config,
    known: CatalogState,
    logs: Vec<Uuid>,
    noted: &NotedMarks,
) -> IngestOptions {
    let floor = |(table, mark): ((RecordKind, Namespace), RowMark)| (table, mark.seq);
    IngestOptions {
        dedup_folder: config.data_dir.join("ids"),
        dedup_window: config.dedup_window,
        queue_bytes_max: config.queue_bytes_max,
        group_requests_max: GROUP_REQUESTS_MAX,
        group_bytes_max: GROUP_BYTES_MAX,
        types_max: config.types_max,
        tables: config.tables.clone(),
        seq_after: 0,
        seq_floor: known.tables.into_iter().map(floor).collect::<HashMap<_, _>>(),
        namespaces: known.namespaces,
        logs,
        seen_ms: noted.seen_ms,
        takes_events: false,
    }
}

/// What keeps the tables from being read, and what to do; none where the next start may find them
/// readable, or they are not at fault.
fn describe(cause: &StartError) -> Option<String> {
    let chain = || iter::successors(Some(cause as &dyn Error), |cause| (*cause).source());
    let is_temporary =
        chain().any(|cause| cause.downcast_ref().is_some_and(CatalogError::is_temporary));
    if is_temporary || !matches!(cause, StartError::Catalog(_) | StartError::Ids(_)) {
        return None;
    }
    // The first only says what was tried.
    let causes: Vec<String> = chain().skip(1).map(ToString::to_string).collect();
    Some(format!(
        "the id index is lost, and the tables that it is rebuilt from cannot be read: {}; restore the \
         warehouse or this file, and restart the server",
        causes.join(": ")
    ))
}

async fn rebuild_from_tables(
    mut rebuild: IndexRebuild,
    catalog: &Catalog,
    config: &Config,
    namespaces: &[Namespace],
) -> Result<u64, StartError> {
    let ours = config.tables.events();
    let since_us = rebuild.since_ms().saturating_mul(1000);
    for namespace in namespaces {
        let Some(seq_min) = rebuild.lowest_seq(namespace) else { continue };
        let table = match catalog.tables().load(&schema::ident(namespace, ours.name)).await {
            Err(CatalogError::NoSuchTable(_)) => continue,
            loaded => loaded?,
        };
        // Ids in a table of somebody else were never acknowledged here.
        if let Err(cause) = SchemaFit::of(ours, &table.metadata) {
            tracing::warn!(%namespace, error = &cause as &dyn std::error::Error, "no ids are read");
            continue;
        }
        let cache = ManifestCache::default();
        let (storage, metadata, until) = (catalog.storage(), &table.metadata, Deadline::NONE);
        let source = ManifestSource { storage, cache: &cache, metadata, until };
        let types = known_ids::types(source).await?;
        types.iter().for_each(|text| rebuild.add_type(namespace, text));
        tracing::info!(%namespace, "reading ids");
        let mut batches = pin!(known_ids::rows(source, ours, since_us, seq_min).await?);
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
                        rebuild.add(&namespace, key, seq, arrived_us.div_euclid(1000))?;
                    }
                }
                Ok::<_, StartError>(rebuild)
            })
            .await?;
        }
    }
    Ok(blocking(move || rebuild.finish()).await?)
}
