//! Starts what a server does by itself: it keeps an eye on rows and stores, and looks after tables.
//!
//! Who takes the events looks after tables. By a metastore that is too old a file could go that a newer
//! one needs.

use super::StartError;
use crate::{
    config::{
        Config,
        compaction::CompactionConfig,
        retention::{CollectionsConfig, RetentionConfig},
    },
    flush::{Flush, metastore_mark::NoteMetastore},
    http::jobs::{
        dedup::DedupExpiry,
        materialize::{RefreshDue, RefreshNow},
        refresh::{RefreshCollections, changed::RefreshChanged, pace::RefreshRules},
        tags::{TagDays, TagNamespaces},
    },
    ingest::Ingest,
    maintenance::{
        JobRegistry, TableJobs,
        compaction::{
            Compaction, CompactionOptions,
            job::CompactTables,
            planned::{CompactDays, CompactHours},
        },
        day_tags::TagRules,
        erasure::Erasures,
        expiry::SnapshotExpiry,
        fsck::{Fsck, LostNumbers},
        names::ListNames,
        obsolete::DeleteObsolete,
        orphans::Orphans,
        pace::JobPace,
        retention::{EventRetention, LetterRetention, RetentionJobs},
        runs::KeepRuns,
        thinning::ThinSnapshots,
        upkeep::AccessUpkeep,
    },
    owner::{LogOwnership, WatchOwner},
    server::{accept, metadata_watch::MetadataWatch},
    sql::Sql,
    tasks::Tasks,
};
use icecore_catalog::catalog::Catalog;
use icecore_lake::{
    clock::Clock, ids::IdGenerator, load::IngestLoad, table::compaction::choice::CompactionRules,
    wal::Wal,
};
use std::{sync::Arc, time::Duration};
use tokio::sync::Notify;

/// What looks after the tables of a catalog, by itself or by hand.
pub(super) fn of_tables(
    config: &Config,
    catalog: &Catalog,
    (clock, ids): (&Clock, &IdGenerator),
    tasks: &Tasks,
    load: &IngestLoad,
) -> TableJobs {
    let RetentionConfig { events, letters_kept, daily_tags, monthly_tags, .. } =
        config.retention.clone();
    let (pace, faults) = (JobPace::new(load, tasks), config.faults.clone());
    TableJobs {
        compaction: compaction(config, catalog, (clock, ids), tasks, load),
        orphans: Orphans::new(catalog, config.orphans.grace, faults, pace.clone()),
        retention: RetentionJobs {
            events: EventRetention::new(catalog, ids.clone(), events, pace.clone())
                .with_faults(config.faults.clone()),
            letters: LetterRetention::new(catalog, ids.clone(), letters_kept, pace.clone())
                .with_faults(config.faults.clone()),
            expiry: SnapshotExpiry::new(catalog).with_faults(config.faults.clone()),
        },
        fsck: Fsck::new(catalog, config.tables.clone(), lost_numbers(config), pace.clone(), tasks),
        pace,
        day_tags: TagRules { daily: daily_tags, monthly: monthly_tags },
    }
}

/// What is known to be lost. A file of losses that does not read leaves its gaps unexplained, and no more.
pub(super) fn lost_numbers(config: &Config) -> Vec<LostNumbers> {
    accept::lost_numbers(&config.data_dir).unwrap_or_else(|error| {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the file of losses does not read"
        );
        Vec::new()
    })
}

fn compaction(
    config: &Config,
    catalog: &Catalog,
    (clock, ids): (&Clock, &IdGenerator),
    tasks: &Tasks,
    load: &IngestLoad,
) -> Compaction {
    let CompactionConfig { file_bytes, file_rows, files_max, days_back, cpu_share, .. } =
        config.compaction;
    let rules = CompactionRules { file_bytes, file_rows, files_max, days_back };
    let disk_free_min = config.wal_disk_free_min;
    let options = CompactionOptions { rules, cpu_share, disk_free_min };
    let (clock, ids, tasks) = (clock.clone(), ids.clone(), tasks.clone());
    Compaction::new(catalog, (clock, ids), tasks, options, load, config.faults.clone())
}

/// Whether the metastore is the one that it should be, as far as is known.
pub(super) fn is_trusted(owner: &LogOwnership) -> bool {
    owner.check().is_ok() || owner.check_owner().is_err()
}

/// Starts all of it; whether the jobs of tables are among it. The first look for metadata files comes before
/// anybody may ask whether the server is ready, and after those: its files may be restored while the server runs.
pub(super) async fn start(
    jobs: &JobRegistry,
    config: &Config,
    upkeep: AccessUpkeep,
    (owner, wal, ingest): (&LogOwnership, &Wal, &Ingest),
    (catalog, tables): (&Catalog, &TableJobs),
) -> Result<bool, StartError> {
    jobs.keep_in(catalog.metastore().database().clone(), &owner.log().to_string()).await?;
    jobs.start(KeepRuns(jobs.clone()));
    jobs.start(upkeep);
    jobs.start(WatchOwner(owner.clone()));
    if is_trusted(owner) {
        // Names that only the list has could go, too.
        let faults = &config.faults;
        jobs.start(ListNames::new(catalog).with_faults(faults.clone()));
        jobs.start(DeleteObsolete::new(catalog.clone()).with_faults(faults.clone()));
        let (thin, wake) = ThinSnapshots::new(catalog);
        jobs.start_woken(thin.with_faults(faults.clone()), Duration::MAX, wake);
    }
    let has_table_jobs = owner.check().is_ok();
    if has_table_jobs {
        start_table_jobs(jobs, config, tables);
        jobs.start_planned(DedupExpiry(ingest.clone()), config.dedup_cron.clone());
    }
    jobs.start(NoteMetastore::new(wal, catalog));
    let mut look = MetadataWatch::new(owner, catalog);
    look.first().await;
    jobs.start(look);
    Ok(has_table_jobs)
}

/// What refreshes ask, and what they follow.
type RefreshParts<'a> = (&'a Catalog, &'a Sql, (&'a Wal, &'a Ingest), &'a Flush, &'a TableJobs);

/// Starts the jobs that refresh materialised tables and tables of collections, and tag them, where the other jobs of
/// tables run. They are later than these, as they ask by SQL.
pub(super) fn start_refreshes(
    (jobs, config): (&JobRegistry, &Config),
    owner: &LogOwnership,
    asking: Option<RefreshParts<'_>>,
    (erasures, ids, clock): (&Erasures, &IdGenerator, &Clock),
) {
    let Some((catalog, sql, (wal, ingest), flush, of_tables)) = asking else { return };
    jobs.start(RefreshDue::new(RefreshNow::new(catalog, sql, erasures, ids), owner));
    let tables = RefreshCollections::new(catalog, (sql, wal, ingest), erasures, ids);
    let CollectionsConfig { refresh_interval: interval, cpu_share } = config.collections;
    let (of_log, by) = ((flush, wal), (clock, of_tables.day_tags));
    let tags = TagNamespaces::new((catalog, owner), of_log, erasures, tables.clone(), by);
    jobs.start_woken(TagDays::new(tags, interval), interval, Arc::new(Notify::new()));
    let changed = RefreshChanged::new(tables, owner, RefreshRules { interval, cpu_share });
    jobs.start_woken(changed, interval, Arc::new(Notify::new()));
}

fn start_table_jobs(jobs: &JobRegistry, config: &Config, tables: &TableJobs) {
    let merge = &config.compaction;
    let days = merge.day_cron.clone().filter(|_| merge.enabled);
    jobs.start_planned(CompactDays::at_share(tables.compaction.clone()), days);
    let hours = merge.hour_cron.clone().filter(|_| merge.enabled);
    jobs.start_planned(CompactHours::at_share(tables.compaction.clone()), hours);
    if merge.enabled {
        jobs.start(CompactTables::new(tables.compaction.clone()));
    }
    jobs.start_planned(tables.orphans.clone(), config.orphans.cron.clone());
    let RetentionConfig { events_cron, letters_cron, expire_cron, .. } = config.retention.clone();
    jobs.start_planned(tables.retention.events.clone(), events_cron);
    jobs.start_planned(tables.retention.letters.clone(), letters_cron);
    jobs.start_planned(tables.retention.expiry.clone(), expire_cron);
}
