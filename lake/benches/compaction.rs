//! What compaction costs in both of its ways, on the same files: rows and megabytes a second.
//!
//! `cargo bench -p icecore-lake --bench compaction` prints a line for each shape and way. Each way runs
//! [`RUNS`] times, and the fastest run counts. Nothing is asserted.

#![allow(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use arrow::{
    array::{ArrayRef, RecordBatch, TimestampMicrosecondArray},
    error::ArrowError,
};
use icecore_catalog::{
    catalog::Catalog,
    metastore::Metastore,
    scan::{
        Deadline, ManifestSource,
        manifests::{ManifestCache, PlannedFile},
    },
    snapshot::NewSnapshot,
    storage::{S3Options, Storage},
};
use icecore_lake::{
    clock::Clock,
    ids::IdGenerator,
    table::{
        compaction::{
            copy::FileCopy,
            live_files, planned_files,
            rewrite::{FileRewrite, RewriteInput, RewrittenFiles},
        },
        deletes::RowDeletes,
        schema::TableIdent,
        writer,
    },
};
use icecore_samples::{self as sample, START_US};
use std::{collections::BTreeMap, error::Error, sync::Arc, time::Duration};
use tokio::time::Instant;

/// Files and rows of each.
const SHAPES: [(usize, usize); 2] = [(20, 50_000), (200, 200)];
/// Runs of each way.
const RUNS: usize = 3;
/// Bytes of files that become one, as compaction has them by default.
const GROUP_BYTES_MAX: u64 = 100_000_000;

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for (files, rows) in SHAPES {
        runtime.block_on(measure(files, rows))?;
    }
    Ok(())
}

/// Events of one type, one a microsecond.
fn events(first: i64, count: usize) -> Result<RecordBatch, ArrowError> {
    let rows = sample::events(count, 1, first, first.unsigned_abs());
    let times = (START_US + first..).take(count);
    let times = TimestampMicrosecondArray::from_iter_values(times).with_timezone("+00:00");
    let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
    columns[rows.schema().index_of("ts")?] = Arc::new(times);
    RecordBatch::try_new(rows.schema(), columns)
}

async fn measure(files: usize, rows: usize) -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let root = format!("file://{}/warehouse", folder.path().display());
    let storage = Storage::open(&root, &S3Options::default())?;
    let metastore = Metastore::sqlite(&folder.path().join("icecore.db")).await?;
    let clock = Clock::manual(START_US / 1_000 + 3_600_000);
    let ids = IdGenerator::new(clock.clone());
    let catalog = Catalog::new("bench", storage, metastore, Arc::new(move || clock.now_ms()));
    let levels = vec!["a".to_owned()];
    catalog.namespaces().ensure(&levels, &BTreeMap::new()).await?;
    catalog.tables().create(&levels, sample::events_table()).await?;
    let table = TableIdent::from_strs(["a", "events"])?;
    let loaded = catalog.tables().load(&table).await?;
    let mut added = Vec::new();
    for file in 0..files {
        let first = i64::try_from(1 + file * rows)?;
        let batch = events(first, rows)?;
        added.extend(writer::write(catalog.storage(), &loaded.metadata, vec![batch], &ids).await?);
    }
    catalog.add_snapshot(&table, NewSnapshot { added, ..NewSnapshot::default() }).await?;

    let loaded = catalog.tables().load(&table).await?;
    let (cache, metadata) = (ManifestCache::default(), loaded.metadata.as_ref());
    let storage = catalog.storage();
    let source = ManifestSource { storage, cache: &cache, metadata, until: Deadline::NONE };
    let snapshot = metadata.current_snapshot_id().unwrap_or_default();
    let live = live_files(source, snapshot).await?;
    let locations = live.iter().map(|file| file.location.as_str()).collect();
    let (mut planned, deletes) = planned_files(source, snapshot, &locations).await?;
    planned.sort_by(|one, other| one.location.cmp(&other.location));
    let deletes = RowDeletes::read(source, deletes, &planned).await?;
    println!("{files} files of {rows} rows, {} bytes", sum_of_bytes(&planned));
    for way in ["rewrite", "copy"] {
        let mut best: Option<(Duration, RewrittenFiles)> = None;
        for _ in 0..RUNS {
            let started = Instant::now();
            let mut all = RewrittenFiles::default();
            for group in groups(&planned) {
                let input = RewriteInput { source, files: group, deletes: &deletes };
                let done = match way {
                    "copy" => copied(input, &ids).await?,
                    _ => Some(rewritten(input, &ids).await?),
                };
                let Some(done) = done else { continue };
                all.rows += done.rows;
                all.bytes += done.bytes;
                all.added.extend(done.added);
            }
            let took = started.elapsed();
            writer::delete(storage, all.locations()).await;
            if best.as_ref().is_none_or(|(least, _)| took < *least) {
                best = Some((took, all));
            }
        }
        if let Some((took, all)) = best.filter(|(_, all)| 0 < all.rows) {
            let (rows, bytes) = (all.rows as f64, all.bytes as f64 / 1e6);
            let (seconds, after) = (took.as_secs_f64(), all.bytes_added());
            println!(
                "  {way}: {:.0} rows/s, {:.1} MB/s, {} bytes after",
                rows / seconds,
                bytes / seconds,
                after
            );
        }
    }
    Ok(())
}

fn sum_of_bytes(files: &[Arc<PlannedFile>]) -> u64 {
    files.iter().map(|file| file.bytes).sum()
}

/// Files in order, as many at a time as become one.
fn groups(files: &[Arc<PlannedFile>]) -> Vec<&[Arc<PlannedFile>]> {
    let (mut groups, mut from) = (Vec::new(), 0);
    for to in 1..=files.len() {
        if to == files.len() || GROUP_BYTES_MAX < sum_of_bytes(&files[from..=to]) {
            groups.push(&files[from..to]);
            from = to;
        }
    }
    groups
}

async fn rewritten(input: RewriteInput<'_>, ids: &IdGenerator) -> Result<RewrittenFiles, Failure> {
    let mut rewrite = FileRewrite::open(input, ids).await?;
    while rewrite.step().await? {}
    Ok(rewrite.finish().await?)
}

/// None where the files are not copied, which is told.
async fn copied(
    input: RewriteInput<'_>,
    ids: &IdGenerator,
) -> Result<Option<RewrittenFiles>, Failure> {
    let mut copy = match FileCopy::open(input, ids).await? {
        Ok(copy) => copy,
        Err(reason) => {
            println!("  copy: {reason}");
            return Ok(None);
        }
    };
    while copy.step().await? {}
    Ok(Some(copy.finish().await?))
}
