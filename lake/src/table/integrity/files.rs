//! One data or delete file: its length, its footer and its rows.

use crate::table::{
    file_columns::{FileColumns, FileError, OpenFile},
    integrity::{
        CheckDepth, KnownFile, TableCheck, apart, key,
        rows::{FileRows, id_faults},
    },
};
use futures::StreamExt;
use iceberg::spec::{DataContentType, DataFileFormat};
use icecore_catalog::{error::CatalogError, scan::manifests::PlannedFile};
use icecore_schemas::fsck::{FindingKind, FsckFinding};
use std::sync::Arc;
use tokio::runtime::Handle;

/// What is said of a file of which a reader failed without an error.
const FAILED: &str = "its reader failed";

/// Checks a file that was not looked at yet.
pub(super) async fn check(
    check: &mut TableCheck<'_>,
    file: &Arc<PlannedFile>,
    snapshot: i64,
) -> Result<(), CatalogError> {
    if !is_new(check, file, snapshot) {
        return Ok(());
    }
    let finding = |kind, what: &str| FsckFinding::new(kind, what).of_snapshot(snapshot);
    let size = match check.input.storage.size(&file.location).await {
        Ok(size) => size,
        Err(cause) => {
            let lost = finding(FindingKind::Unreadable, told(file));
            return check.failed(lost, &file.location, cause).await;
        }
    };
    check.found.report.files += 1;
    check.found.report.bytes += size;
    if size != file.bytes {
        check.is_current_torn |= check.is_current(snapshot);
        let what = format!("{} has {size} bytes, and its manifest says {}", told(file), file.bytes);
        check.damage(finding(FindingKind::Size, &what).of_file(&file.location));
        return Ok(());
    }
    if file.format != DataFileFormat::Parquet || file.key_metadata.is_some() {
        // A deletion vector is read where it is applied.
        let is_applied = file.format == DataFileFormat::Puffin && check.counts_numbers();
        check.unread_formats += u64::from(!is_applied);
        return Ok(());
    }
    let Some(columns) = columns(check, file) else { return Ok(()) };
    check_parquet(check, file, &columns, snapshot).await
}

/// What the file is, as the subject of a sentence.
fn told(file: &PlannedFile) -> &'static str {
    match file.content {
        DataContentType::Data => "the data file",
        DataContentType::PositionDeletes | DataContentType::EqualityDeletes => "the delete file",
    }
}

/// Notes the file. One that was seen before is held against what was said of it then.
fn is_new(check: &mut TableCheck<'_>, file: &PlannedFile, snapshot: i64) -> bool {
    let known = KnownFile { bytes: file.bytes, rows: file.rows, snapshot };
    let normal = check.input.storage.normalize(&file.location);
    let of = key(normal.as_ref().map_or(file.location.as_str(), |normal| normal.as_str()));
    let Some(before) = check.files.insert(of, known) else { return true };
    // Vectors of several data files share a file.
    if file.format == DataFileFormat::Puffin {
        return false;
    }
    let finding = |kind, what: String| {
        FsckFinding::new(kind, what).of_snapshot(snapshot).of_file(&file.location)
    };
    if before.snapshot == snapshot {
        let what = format!("{} is live twice", told(file));
        check.fault(finding(FindingKind::Twice, what));
    }
    if (before.bytes, before.rows) != (file.bytes, file.rows) {
        let what = format!(
            "manifests disagree about {}: {} bytes with {} rows, and {} with {}",
            told(file),
            before.bytes,
            before.rows,
            file.bytes,
            file.rows
        );
        check.damage(finding(FindingKind::Counts, what));
    }
    false
}

/// The columns that are read of a file.
fn columns(check: &TableCheck<'_>, file: &PlannedFile) -> Option<FileColumns> {
    match file.content {
        DataContentType::Data => check.data_columns.clone(),
        DataContentType::PositionDeletes => check.delete_columns.clone(),
        DataContentType::EqualityDeletes => {
            let ids = file.equality_ids.as_deref().unwrap_or_default();
            FileColumns::of(check.table(), ids).ok().filter(|_| !ids.is_empty())
        }
    }
}

/// Checks the footer, and the rows where they are wanted.
async fn check_parquet(
    check: &mut TableCheck<'_>,
    file: &Arc<PlannedFile>,
    columns: &FileColumns,
    snapshot: i64,
) -> Result<(), CatalogError> {
    let what = told(file);
    let finding = |kind, what: String| FsckFinding::new(kind, what).of_snapshot(snapshot);
    let opened = match open(check, file, columns).await {
        Some(Ok(opened)) => opened,
        Some(Err(cause)) => {
            let torn = finding(FindingKind::Footer, format!("the footer of {what} does not read"));
            return check.failed_file(torn, cause).await;
        }
        None => {
            check.is_current_torn |= check.is_current(snapshot);
            let torn = finding(FindingKind::Footer, format!("the footer of {what}: {FAILED}"));
            check.damage(torn.of_file(&file.location));
            return Ok(());
        }
    };
    let rows = opened.footer().file_metadata().num_rows();
    if u64::try_from(rows).ok() != Some(file.rows) {
        check.is_current_torn |= check.is_current(snapshot);
        let text = format!("{what} has {rows} rows, and its manifest says {}", file.rows);
        check.damage(finding(FindingKind::Counts, text).of_file(&file.location));
    }
    if file.content == DataContentType::Data {
        for text in id_faults(check.table(), &opened) {
            let text = format!("the footer of {what}: {text}");
            check.fault(finding(FindingKind::Footer, text).of_file(&file.location));
        }
    }
    let mut read = FileRows::of(check.table(), file, columns, &opened);
    match check.input.depth {
        CheckDepth::Footers => read.take_footer(&opened),
        CheckDepth::Rows => match read_rows(opened, read).await {
            Some(Ok(done)) => read = done,
            Some(Err(cause)) => {
                let torn = format!("rows of {what} do not read");
                return check.failed_file(finding(FindingKind::Rows, torn), cause).await;
            }
            None => {
                check.is_current_torn |= check.is_current(snapshot);
                let torn = finding(FindingKind::Rows, format!("rows of {what}: {FAILED}"));
                check.damage(torn.of_file(&file.location));
                return Ok(());
            }
        },
    }
    for (kind, what) in read.faults(file, check.input.depth) {
        check.damage(finding(kind, what).of_file(&file.location));
    }
    Ok(())
}

/// Reads a footer off the async threads; none where its reader panics.
pub(super) async fn open(
    check: &TableCheck<'_>,
    file: &Arc<PlannedFile>,
    columns: &FileColumns,
) -> Option<Result<OpenFile, FileError>> {
    let (storage, handle) = (check.input.storage.clone(), Handle::current());
    let (file, columns) = (Arc::clone(file), columns.clone());
    apart(move || handle.block_on(OpenFile::new(&storage, &file, &columns))).await
}

/// Reads every row off the async threads, a batch at a time; none where the reader panics.
async fn read_rows(opened: OpenFile, mut read: FileRows) -> Option<Result<FileRows, FileError>> {
    let mut rows = match opened.rows() {
        Ok(rows) => Box::pin(rows),
        Err(cause) => return Some(Err(cause)),
    };
    loop {
        let handle = Handle::current();
        let next = apart(move || {
            let next = handle.block_on(rows.next());
            let next = next.map(|batch| batch.map(|batch| read.take(&batch)));
            (next, rows, read)
        });
        let (next, rows_left, read_so_far) = next.await?;
        (rows, read) = (rows_left, read_so_far);
        match next {
            None => return Some(Ok(read)),
            Some(Err(cause)) => return Some(Err(cause)),
            Some(Ok(())) => (),
        }
    }
}
