//! Which manifests of a table are merged, and how their files are parted: pure rules.
//!
//! Small manifests of one kind are merged by size, so that a list holds at most [`MERGE_AT`] of each
//! kind, and others of at least [`SMALL_BYTES_MAX`] or [`SMALL_FILES_MAX`], however many commits there are. The
//! files of a merge are parted by the days of their partitions where that spares a query of one day half of them: events
//! that come late would have every manifest reach back over days.

use iceberg::spec::{
    FormatVersion, Literal, ManifestContentType, ManifestEntry, ManifestFile, PartitionField,
    PartitionSpec, PrimitiveLiteral, TableMetadata, Transform,
};

/// Small manifests of one kind, of the default spec, at which they are merged. Every commit reads and
/// writes the list of them.
pub(in crate::snapshot) const MERGE_AT: usize = 50;

/// Most bytes that are merged at a time: what a scan planner reads at a time.
const MERGED_BYTES_MAX: u64 = 8 << 20;

/// Most files that are merged at a time: they are held in memory, some kilobytes each where they have many columns,
/// and a manifest of few bytes may have any number of them, as they are compressed.
const MERGED_FILES_MAX: u64 = 24 << 10;

/// A manifest is merged only into one of at least so many times its files: an entry is then
/// rewritten once for each power of this that the table has of files, and reading and writing
/// entries is what a merge costs.
const GROWTH: u64 = 4;

/// Manifests from this length on stay as they are: the bytes of a merge have room for `GROWTH` of those
/// that are shorter.
const SMALL_BYTES_MAX: u64 = MERGED_BYTES_MAX / GROWTH;

/// Manifests of so many files stay as they are, too.
const SMALL_FILES_MAX: u64 = MERGED_FILES_MAX / GROWTH;

/// Whether a manifest lists no more than files that were removed. Its own snapshot tells so, and nobody
/// needs it after that.
pub(super) fn is_spent(manifest: &ManifestFile) -> bool {
    let removed = manifest.deleted_files_count.unwrap_or(0);
    0 < removed && !manifest.has_added_files() && !manifest.has_existing_files()
}

/// Which of `manifests` to merge, in order: of one kind, of the default spec.
pub(super) fn choice(manifests: &[ManifestFile], base: &TableMetadata) -> Vec<usize> {
    // Entries of version 3 take their row ids from the manifest they are in; the reader does not
    // spell those out, so a merge would give old rows new ids.
    if base.format_version() != FormatVersion::V2 {
        return Vec::new();
    }
    let small = |content: ManifestContentType| -> Vec<SmallManifest> {
        let of_kind = manifests.iter().enumerate().filter(move |(_, m)| {
            m.content == content
                && m.partition_spec_id == base.default_partition_spec_id()
                && m.key_metadata.is_none()
        });
        let small = of_kind.map(|(index, m)| SmallManifest {
            files: u64::from(m.added_files_count.unwrap_or(0))
                + u64::from(m.existing_files_count.unwrap_or(0)),
            bytes: u64::try_from(m.manifest_length).unwrap_or(u64::MAX),
            index,
        });
        small.filter(SmallManifest::is_small).collect()
    };
    // One merge is enough for a commit; those of the other kind come with the next.
    let kinds = [ManifestContentType::Data, ManifestContentType::Deletes];
    let mut chosen = kinds.into_iter().map(|kind| worth_merging(small(kind)));
    chosen.find(|chosen| !chosen.is_empty()).unwrap_or_default()
}

/// A manifest that may be merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct SmallManifest {
    files: u64,
    bytes: u64,
    index: usize,
}

impl SmallManifest {
    fn is_small(&self) -> bool {
        self.bytes < SMALL_BYTES_MAX && self.files < SMALL_FILES_MAX
    }
}

/// Indices of the manifests to merge, in order; none while there are fewer than [`MERGE_AT`].
fn worth_merging(mut small: Vec<SmallManifest>) -> Vec<usize> {
    if small.len() < MERGE_AT {
        return Vec::new();
    }
    small.sort_unstable();
    let (mut files, mut bytes, mut worth) = (0, 0, 0);
    for (at, manifest) in small.iter().enumerate() {
        files += manifest.files;
        bytes += manifest.bytes;
        if MERGED_BYTES_MAX < bytes || MERGED_FILES_MAX < files {
            break;
        }
        if manifest.files * GROWTH <= files {
            worth = at + 1;
        }
    }
    if worth < 2 {
        return Vec::new();
    }
    let mut chosen: Vec<usize> = small[..worth].iter().map(|manifest| manifest.index).collect();
    chosen.sort_unstable();
    chosen
}

/// The files of one manifest, or of two, of which the first has the earlier days.
pub(super) fn by_days(
    mut entries: Vec<ManifestEntry>,
    spec: &PartitionSpec,
) -> Vec<Vec<ManifestEntry>> {
    let is_time = |field: &PartitionField| {
        matches!(
            field.transform,
            Transform::Year | Transform::Month | Transform::Day | Transform::Hour
        )
    };
    if let Some(at) = spec.fields().iter().position(is_time) {
        let day = |entry: &ManifestEntry| match entry.data_file().partition().fields().get(at) {
            Some(Some(Literal::Primitive(PrimitiveLiteral::Int(day)))) => *day,
            _ => i32::MIN,
        };
        entries.sort_by_key(day);
        let days: Vec<i32> = entries.iter().map(day).collect();
        if let Some(at) = day_cut(&days) {
            let later = entries.split_off(at);
            return vec![entries, later];
        }
    }
    vec![entries]
}

/// Where to part files, whose days are in order; none where a query of one day would not read half as many
/// on the average.
fn day_cut(days: &[i32]) -> Option<usize> {
    let read = |at: usize| day_reads(&days[..at]) + day_reads(&days[at..]);
    let starts = (1..days.len()).filter(|at| days[at - 1] < days[*at]);
    let best = starts.min_by_key(|at| read(*at))?;
    (2 * read(best) <= day_reads(days)).then_some(best)
}

/// How many files the queries of each day of a manifest read together.
fn day_reads(days: &[i32]) -> u64 {
    let ends = days.first().zip(days.last());
    let span = ends.map_or(0, |(first, last)| u64::from(first.abs_diff(*last)) + 1);
    span * days.len() as u64
}

#[cfg(test)]
mod tests;
