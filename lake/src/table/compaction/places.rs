//! Where the rows of merged files are in what was written, so that deletes by place which came meanwhile hold there.
//!
//! A merge notes from which file it takes how many rows in a row. Each file gives its rows in their order, so a
//! row's new place follows from that and from what was left out of its file. Nothing is known where rows get
//! another order on the way, or the notes would be too long: such files are written anew. Deletes by value are not
//! looked at: they reach what was written, which has the number of the snapshot that was read.
//!
//! Its one invariant: a place that is carried over is that of the same row.

use crate::{
    ids::IdGenerator,
    table::{
        compaction::{
            described, planned_files,
            rewrite::{RewriteError, RewrittenFiles},
            useless_deletes,
        },
        deletes::{DeletedRows, RowDeletes, encoded_positions},
        layout::WriteError,
        writer::delete,
    },
};
use bytes::Bytes;
use iceberg::{
    Error, ErrorKind,
    spec::{DataContentType, DataFile, DataFileBuilder, DataFileFormat},
};
use icecore_catalog::scan::{ManifestSource, manifests::PlannedFile};
use std::collections::HashSet;

/// Most runs that are noted of a group, which take 2 MiB. Rows that alternate between files need one each.
const RUNS_MAX: usize = 256 << 10;
/// Most rows of a group whose deletes are carried over: each has the path of its file while they are written. A
/// group that loses more is better merged again.
const PLACES_MAX: u64 = 256 << 10;

/// Rows of one file that come one after the other.
#[derive(Clone, Copy, Debug)]
struct RowRun {
    file: u32,
    rows: u32,
}

/// Where the rows of a group of files went.
#[derive(Clone, Debug, Default)]
pub struct RowPlaces {
    /// The files, as runs number them, with the places that were left out of each.
    files: Vec<(String, DeletedRows)>,
    /// All rows that were written, in their order.
    runs: Vec<RowRun>,
    /// Whether nothing is known.
    is_lost: bool,
}

impl RowPlaces {
    /// Adds a file without the rows at these places. Files are numbered as they are added.
    pub(super) fn add_file(&mut self, location: &str, left_out: Option<DeletedRows>) {
        if !self.is_lost {
            self.files.push((location.to_owned(), left_out.unwrap_or_default()));
        }
    }

    /// So many rows of a file come next.
    pub(super) fn add_rows(&mut self, file: usize, rows: u64) {
        if self.is_lost || rows == 0 {
            return;
        }
        let (Ok(file), Ok(rows)) = (u32::try_from(file), u32::try_from(rows)) else {
            self.lose();
            return;
        };
        if let Some(last) = self.runs.last_mut()
            && last.file == file
            && let Some(sum) = last.rows.checked_add(rows)
        {
            last.rows = sum;
        } else if self.runs.len() < RUNS_MAX {
            self.runs.push(RowRun { file, rows });
        } else {
            self.lose();
        }
    }

    /// Nothing is known from now on.
    pub(super) fn lose(&mut self) {
        *self = Self { is_lost: true, ..Self::default() };
    }

    /// The same where it is of so many rows; none where it is not, or nothing is known.
    pub(super) fn of_rows(self, rows: u64) -> Option<Self> {
        let noted: u64 = self.runs.iter().map(|run| u64::from(run.rows)).sum();
        (!self.is_lost && noted == rows).then_some(self)
    }

    /// The places, in all that was written one behind the other, of rows that are deleted by now; none where these
    /// are too many.
    fn carried<'d>(
        &self,
        deleted: impl Fn(&str) -> Option<&'d DeletedRows>,
    ) -> Option<DeletedRows> {
        let since = |(location, left_out): &(String, DeletedRows)| -> DeletedRows {
            deleted(location).map(|deleted| deleted - left_out).unwrap_or_default()
        };
        let new: Vec<DeletedRows> = self.files.iter().map(since).collect();
        if PLACES_MAX < new.iter().map(DeletedRows::len).sum::<u64>() {
            return None;
        }
        // Which of the rows that were taken of each file, in their order.
        let mut wanted = Vec::with_capacity(new.len());
        for (new, (_, left_out)) in new.iter().zip(&self.files) {
            let rows: Vec<u64> = new.iter().map(|place| place - left_out.rank(place)).collect();
            wanted.push(rows.into_iter().peekable());
        }
        let mut taken = vec![0_u64; self.files.len()];
        let (mut places, mut start) = (DeletedRows::new(), 0_u64);
        for run in &self.runs {
            let (file, rows) = (run.file as usize, u64::from(run.rows));
            let end = taken[file] + rows;
            while let Some(row) = wanted[file].next_if(|row| *row < end) {
                places.insert(start + row - taken[file]);
            }
            taken[file] = end;
            start += rows;
        }
        Some(places)
    }
}

/// The same group of files for the current snapshot of `source`: rows of the files that are deleted by their places
/// there are deleted of what was written, too. None where a file is not live there any more, it is not known where
/// its rows are, or too many of them are deleted.
///
/// # Errors
/// [`RewriteError`]; nothing is written then.
pub async fn carry_deletes(
    source: ManifestSource<'_>,
    ids: &IdGenerator,
    group: &RewrittenFiles,
) -> Result<Option<RewrittenFiles>, RewriteError> {
    let head = source.metadata.current_snapshot_id();
    let (Some(places), Some(head)) = (&group.places, head) else { return Ok(None) };
    let is_data = |file: &&DataFile| file.content_type() == DataContentType::Data;
    let wanted: HashSet<&str> =
        group.removed.iter().filter(is_data).map(DataFile::file_path).collect();
    let (files, index) = planned_files(source, head, &wanted).await?;
    let Some(first) = files.first().filter(|_| files.len() == wanted.len()) else {
        return Ok(None);
    };
    let of: &PlannedFile = first;
    let deletes = RowDeletes::read(source, index, &files).await?;
    let useless = useless_deletes(&files, deletes.index());
    let removed = files.iter().chain(&useless).map(|file| described(file));
    let removed = removed.collect::<Result<Vec<DataFile>, WriteError>>()?;
    let Some(deleted) = places.carried(|location| deletes.places_of(location)) else {
        return Ok(None);
    };
    let written = written_deletes(source, (ids, of), &group.added, &deleted)?;
    let (files, bytes): (Vec<DataFile>, Vec<Bytes>) = written.into_iter().unzip();
    for (file, bytes) in files.iter().zip(bytes) {
        if let Err(cause) = source.storage.put(file.file_path(), bytes).await {
            delete(source.storage, files.iter().map(DataFile::file_path)).await;
            return Err(WriteError::Store(cause).into());
        }
    }
    let deletes = files.into_iter().map(|file| (of.spec_id, file)).collect();
    let deletes_read = Some(head);
    Ok(Some(RewrittenFiles { removed, deletes, deletes_read, ..group.clone() }))
}

/// A delete file with its bytes for each of these files that has deleted rows, counted one behind the other. They
/// are of the partition of `of`.
fn written_deletes(
    source: ManifestSource<'_>,
    (ids, of): (&IdGenerator, &PlannedFile),
    added: &[DataFile],
    deleted: &DeletedRows,
) -> Result<Vec<(DataFile, Bytes)>, WriteError> {
    let folder = source.metadata.location().trim_end_matches('/');
    let (mut written, mut start) = (Vec::new(), 0);
    let mut left = deleted.iter().peekable();
    for file in added {
        let end = start + file.record_count();
        let mut places: Vec<u64> = Vec::new();
        while let Some(place) = left.next_if(|place| *place < end) {
            places.push(place - start);
        }
        start = end;
        if places.is_empty() {
            continue;
        }
        let bytes = encoded_positions(file.file_path(), &places).map_err(WriteError::Encode)?;
        let id = ids.mint();
        // Not a name of data files.
        let location = format!("{folder}/data/{:02x}/{id}-deletes.parquet", id.0 & 0xff);
        let described = DataFileBuilder::default()
            .content(DataContentType::PositionDeletes)
            .file_path(location)
            .file_format(DataFileFormat::Parquet)
            .partition(of.partition.clone())
            .partition_spec_id(of.spec_id)
            .record_count(places.len() as u64)
            .file_size_in_bytes(bytes.len() as u64)
            .referenced_data_file(Some(file.file_path().to_owned()))
            .build();
        let described = described.map_err(|cause| {
            WriteError::Describe(Error::new(ErrorKind::DataInvalid, cause.to_string()))
        })?;
        written.push((described, bytes));
    }
    Ok(written)
}

#[cfg(test)]
mod tests;
