//! Compaction: few larger data files in the place of many small ones, and of such with deleted rows.
//!
//! [`choice`] says which files are worth it, from values alone; [`rewrite`] writes them anew, and [`copy`] puts
//! them one behind the other where that is enough, which [`group`] decides. Tables of other engines are
//! [`foreign`]'s, and [`places`] knows where rows went. Here is what all need of a snapshot. The commit is left to
//! whoever runs it.
//!
//! Its one invariant: what is written anew has exactly the rows that the files had and that no delete file
//! deletes, with every column that the table has or had: one that was dropped may come back.

pub mod choice;
pub mod condition;
pub mod copy;
pub mod foreign;
pub mod group;
mod merge;
pub mod places;
pub mod rewrite;
#[cfg(test)]
mod tests;
mod z_order;

use crate::table::{
    compaction::{choice::LiveFile, rewrite::RewriteError, z_order::ZOrder},
    layout::{FileLayout, WriteError},
    reader, schema,
};
use futures::TryStreamExt;
use iceberg::{
    Error, ErrorKind,
    spec::{
        DataFile, DataFileBuilder, DataFileFormat, FormatVersion, Literal, NestedField,
        NestedFieldRef, PartitionField, PrimitiveLiteral, PrimitiveType, Schema, SchemaRef,
        TableMetadata, Transform, Type,
    },
};
use icecore_catalog::{
    names::is_own_file,
    retention::{NEWEST_IN_FULL, collection_of, is_of_branch},
    scan::{
        ManifestSource, ScanError,
        deletes::{DeleteIndex, is_only_about, partition_key},
        filter::{Filter, datum},
        manifests::{PlannedFile, PlannedFiles},
        prune::partition_may_match,
    },
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet},
    pin::pin,
    sync::Arc,
};

/// Files that are described before others have their turn.
const FILES_AT_ONCE: usize = 256;

/// Rows take as much of a `fixed` column, null or not; a table with a wider one is left alone.
const FIXED_BYTES_MAX: u64 = 64 << 10;

/// The table property that, set to `off`, leaves a table alone, and set to `on` has one of another engine merged.
pub(super) const SWITCH: &str = "icecore.compaction";

/// Why no file of a table is rewritten; none when they may be.
#[must_use]
pub fn obstacle(table: &TableMetadata) -> Option<String> {
    if collection_of(table).is_some() {
        return Some(
            "it has the documents of a collection, whose files a refresh replaces".to_owned(),
        );
    }
    if is_set(table, "off") {
        return Some(format!("its property `{SWITCH}` is `off`"));
    }
    if table.format_version() != FormatVersion::V2 {
        return Some(format!("it has format version {}", table.format_version()));
    }
    layout(table).and_then(|_| ZOrder::of(table)).err()
}

/// What is wrong with the order that the table asks its files to have, for which it is left alone.
#[must_use]
pub fn order_fault(table: &TableMetadata) -> Option<String> {
    ZOrder::of(table).err()
}

/// Why the property of compaction says nothing with this value.
pub(super) fn switch_fault(value: &str) -> Option<String> {
    let is = |word: &str| value.trim().eq_ignore_ascii_case(word);
    let text =
        || format!("its property `{SWITCH}` is `{value}`: write `on` or `off`, or remove it");
    (!is("on") && !is("off")).then(text)
}

/// Whether the property of compaction has this value.
fn is_set(table: &TableMetadata, value: &str) -> bool {
    table.properties().get(SWITCH).is_some_and(|set| set.trim().eq_ignore_ascii_case(value))
}

/// How merged files are laid out: with the columns of the current schema, and behind them those with single
/// values that it lacks and an earlier one has, under names that nobody reads by.
///
/// # Errors
/// A column that is not merged.
fn layout(table: &TableMetadata) -> Result<FileLayout, String> {
    let mut schemas: Vec<&SchemaRef> = table.schemas_iter().collect();
    schemas.sort_by_key(|schema| Reverse(schema.schema_id()));
    let mut fields = table.current_schema().as_struct().fields().to_vec();
    if let Some(nested) = fields.iter().find(|field| !field.field_type.is_primitive()) {
        return Err(format!(
            "its column `{}` is a nested column (struct, list or map), which compaction cannot write",
            nested.name
        ));
    }
    let mut known: HashSet<i32> = fields.iter().map(|field| field.id).collect();
    let mut names: HashSet<String> = fields.iter().map(|field| field.name.clone()).collect();
    for field in schemas.iter().flat_map(|schema| schema.as_struct().fields()) {
        // Files with values of a nested one are not merged.
        if field.field_type.is_primitive() && known.insert(field.id) {
            let mut name = format!("dropped_{}", field.id);
            while !names.insert(name.clone()) {
                name.push('_');
            }
            let kept = NestedField { name, required: false, ..field.as_ref().clone() };
            fields.push(Arc::new(kept));
        }
    }
    let is_wide = |field: &&NestedFieldRef| {
        matches!(field.field_type.as_ref(),
            Type::Primitive(PrimitiveType::Fixed(bytes)) if FIXED_BYTES_MAX < *bytes)
    };
    if let Some(wide) = fields.iter().find(is_wide) {
        return Err(format!("its column `{}` has values of more than 64 KiB", wide.name));
    }
    let schema = Schema::builder().with_fields(fields).build();
    let schema = schema.map_err(|cause| format!("its dropped columns: {}", cause.message()))?;
    Ok(FileLayout { schema: Arc::new(schema), ..FileLayout::of(table) })
}

/// For how long the newest snapshots of a table have been there that thinning leaves in full: about as long as
/// one that is made now will be. None where thinning is far.
#[must_use]
pub fn newest_kept_ms(table: &TableMetadata, now_ms: i64) -> Option<i64> {
    newest_ms(table, NEWEST_IN_FULL, now_ms)
}

/// For how long all of the newest snapshots of a table have been there, of so many. None where it has fewer.
#[must_use]
pub fn newest_ms(table: &TableMetadata, count: usize, now_ms: i64) -> Option<i64> {
    let of_main = table.snapshots().filter(|made| !is_of_branch(made));
    let mut times: Vec<i64> = of_main.map(|made| made.timestamp_ms()).collect();
    let at = times.len().checked_sub(count).filter(|at| *at < times.len())?;
    let (_, oldest, _) = times.select_nth_unstable(at);
    Some(now_ms.saturating_sub(*oldest))
}

/// How many files the newest snapshot has, by its summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileTotals {
    /// Which snapshot.
    pub snapshot_id: i64,
    /// Its number, which counts the table's snapshots.
    pub sequence: i64,
    /// Data files, where it says.
    pub data: Option<u64>,
    /// Delete files, where it says.
    pub deletes: Option<u64>,
}

impl FileTotals {
    /// Those of a table; none while it is empty.
    #[must_use]
    pub fn of(table: &TableMetadata) -> Option<Self> {
        let snapshot = table.current_snapshot()?;
        let total = |key: &str| -> Option<u64> {
            snapshot.summary().additional_properties.get(key)?.parse().ok()
        };
        Some(Self {
            snapshot_id: snapshot.snapshot_id(),
            sequence: snapshot.sequence_number(),
            data: total("total-data-files"),
            deletes: total("total-delete-files"),
        })
    }

    /// Whether there is one data file at most and no delete file: there is nothing to write anew then.
    #[must_use]
    pub fn are_of_one_file(&self) -> bool {
        self.data.is_some_and(|files| files < 2) && self.deletes == Some(0)
    }
}

/// What the choice needs of the live data files of a snapshot. About 10 000 descriptions of files are in
/// memory at a time.
///
/// # Errors
/// [`ScanError`]
pub async fn live_files(
    source: ManifestSource<'_>,
    snapshot_id: i64,
) -> Result<Vec<LiveFile>, ScanError> {
    live_files_in(source, snapshot_id, &Filter::True).await
}

/// The same of partitions alone that may have a row which meets the filter: all files of each of them.
///
/// # Errors
/// [`ScanError`]
pub async fn live_files_in(
    source: ManifestSource<'_>,
    snapshot_id: i64,
    partitions: &Filter,
) -> Result<Vec<LiveFile>, ScanError> {
    files_as(source, snapshot_id, partitions, live_file).await
}

/// The live data files of these partitions of a snapshot, as `describe` has each.
async fn files_as(
    source: ManifestSource<'_>,
    snapshot_id: i64,
    partitions: &Filter,
    describe: fn(&TableMetadata, &PlannedFile, &DeleteIndex) -> LiveFile,
) -> Result<Vec<LiveFile>, ScanError> {
    let committed = committed_ms(source.metadata);
    let listed = source.list(snapshot_id, partitions).await?;
    // Bounds of files must not leave out some of a partition.
    let mut plans = pin!(reader::plans(source, listed, Filter::True));
    let (mut files, mut names) = (Vec::new(), HashMap::new());
    while let Some(plan) = plans.try_next().await? {
        let described = |file: &PlannedFile| {
            let mut live = describe(source.metadata, file, &plan.deletes);
            live.committed_ms =
                committed.range(file.sequence..).next().map_or(i64::MAX, |(_, ms)| *ms);
            live
        };
        for some in plan.files.chunks(FILES_AT_ONCE) {
            for file in some {
                if partition_may_match(source.metadata, file, partitions) {
                    let mut live = described(file);
                    live.partition_name = shared_name(&mut names, source.metadata, file, &live);
                    files.push(live);
                }
            }
            // Each is held against all deletes that name several files.
            tokio::task::yield_now().await;
        }
    }
    // The rows of a file that is live twice are read twice; a rewrite would know one of the two.
    let mut seen = HashSet::new();
    let again = files.iter().filter(|file| !seen.insert(file.location.as_str()));
    let twice: HashSet<String> = again.map(|file| file.location.clone()).collect();
    for file in files.iter_mut().filter(|file| twice.contains(&file.location)) {
        file.obstacle = Some("a file that is live twice stays as it is");
    }
    Ok(files)
}

/// The files with these locations as the manifests have them, and the snapshot's deletes.
///
/// # Errors
/// [`ScanError`]
pub async fn planned_files(
    source: ManifestSource<'_>,
    snapshot_id: i64,
    locations: &HashSet<&str>,
) -> Result<(PlannedFiles, DeleteIndex), RewriteError> {
    let listed = source.list(snapshot_id, &Filter::True).await?;
    let mut plans = pin!(reader::plans(source, listed, Filter::True));
    let (mut files, mut deletes) = (PlannedFiles::new(), DeleteIndex::default());
    while let Some(plan) = plans.try_next().await? {
        let wanted = |file: &Arc<PlannedFile>| locations.contains(file.location.as_str());
        let before = files.len();
        files.extend(plan.files.into_iter().filter(wanted));
        if before < files.len() {
            // Each plan with files has all deletes of the snapshot.
            deletes = plan.deletes;
        }
    }
    Ok((files, deletes))
}

/// The data files of a snapshot, and delete files that are of no use without them, as a commit that takes all of
/// them out names them.
///
/// # Errors
/// [`RewriteError`]; [`WriteError::TooManyFiles`] in it for more than `files_max` files.
pub async fn all_files(
    source: ManifestSource<'_>,
    snapshot_id: i64,
    files_max: usize,
) -> Result<Vec<DataFile>, RewriteError> {
    let listed = source.list(snapshot_id, &Filter::True).await?;
    let mut plans = pin!(reader::plans(source, listed, Filter::True));
    let (mut files, mut deletes) = (PlannedFiles::new(), DeleteIndex::default());
    while let Some(plan) = plans.try_next().await? {
        if !plan.files.is_empty() {
            // Each plan with files has all deletes of the snapshot.
            deletes = plan.deletes;
        }
        files.extend(plan.files);
        if files_max < files.len() {
            return Err(WriteError::TooManyFiles(files_max).into());
        }
    }
    let useless = useless_deletes(&files, &deletes);
    let all = files.iter().chain(&useless).map(|file| described(file));
    Ok(all.collect::<Result<Vec<DataFile>, WriteError>>()?)
}

/// A partition as people read it, one text for all of its files.
fn shared_name(
    names: &mut HashMap<String, Arc<str>>,
    table: &TableMetadata,
    file: &PlannedFile,
    live: &LiveFile,
) -> Arc<str> {
    if let Some(name) = names.get(&live.partition) {
        return Arc::clone(name);
    }
    let name: Arc<str> = partition_name(table, file).into();
    names.insert(live.partition.clone(), Arc::clone(&name));
    name
}

/// A file's partition as paths have it: `type=a/dt=2026-11-01`; empty without partitions.
fn partition_name(table: &TableMetadata, file: &PlannedFile) -> String {
    let spec = table.partition_spec_by_id(file.spec_id);
    let fields = spec.map(|spec| spec.fields()).unwrap_or_default();
    let kind = |field: &PartitionField| {
        let source = table.current_schema().field_by_id(field.source_id)?;
        field.transform.result_type(&source.field_type).ok()?.as_primitive_type().cloned()
    };
    let text = |field: &PartitionField, value: Option<&Literal>| match value {
        None => "null".to_owned(),
        Some(value) => {
            let value = value.as_primitive_literal();
            let known = value.zip(kind(field)).and_then(|(value, kind)| datum(&value, &kind));
            known.map_or_else(|| "?".to_owned(), |value| value.to_human_string())
        }
    };
    let parts = fields.iter().zip(file.partition.iter());
    let parts = parts.map(|(field, value)| format!("{}={}", field.name, text(field, value)));
    parts.collect::<Vec<_>>().join("/")
}

/// By sequence number, when retained snapshots were made.
fn committed_ms(table: &TableMetadata) -> BTreeMap<i64, i64> {
    table.snapshots().map(|made| (made.sequence_number(), made.timestamp_ms())).collect()
}

fn live_file(table: &TableMetadata, file: &PlannedFile, deletes: &DeleteIndex) -> LiveFile {
    let reached = deletes.of(file);
    let alone = reached.iter().filter(|delete| is_only_about(delete, file));
    // A file that was written anew has the number of the snapshot that was read. Position deletes of
    // several files that came with that snapshot were carried out, and still seem to reach it.
    let counts =
        |delete: &&Arc<PlannedFile>| is_only_about(delete, file) || file.sequence < delete.sequence;
    let delete_files = reached.iter().filter(counts).count();
    let order = i32::try_from(schema::file_order(table).order_id).ok();
    LiveFile {
        location: file.location.clone(),
        partition: partition_key(file).1,
        partition_name: Arc::default(),
        day: day(table, file),
        bytes: file.bytes,
        rows: file.rows,
        is_sorted: file.sort_order_id == order.filter(|order| *order != 0)
            || ZOrder::is_for(table, file),
        is_foreign: !has_own_name(table, file),
        obstacle: obstacle_of_file(table, file),
        delete_files,
        deleted_rows: alone.map(|delete| delete.rows).sum(),
        committed_ms: 0,
    }
}

fn obstacle_of_file(table: &TableMetadata, file: &PlannedFile) -> Option<&'static str> {
    if file.format != DataFileFormat::Parquet {
        Some("files that are not Parquet stay as they are")
    } else if file.key_metadata.is_some() {
        Some("encrypted files stay as they are")
    } else if file.spec_id != table.default_partition_spec_id() {
        Some("files of an earlier partition spec stay as they are")
    } else if had_nested(table) && !has_own_name(table, file) {
        // The service never writes values of such a column.
        Some("files of other engines stay as they are where a nested column was dropped")
    } else if lacks_sort_values(table, file) {
        Some("files with rows that lack a value of the sort order stay as they are")
    } else {
        None
    }
}

/// Whether the table has or had a column without single values.
fn had_nested(table: &TableMetadata) -> bool {
    let mut fields = table.schemas_iter().flat_map(|schema| schema.as_struct().fields());
    fields.any(|field| !field.field_type.is_primitive())
}

/// Whether the service gave the file its name. Spelled otherwise it counts as another engine's.
pub(super) fn has_own_name(table: &TableMetadata, file: &PlannedFile) -> bool {
    let inside = file.location.strip_prefix(table.location().trim_end_matches('/'));
    inside.and_then(|name| name.strip_prefix("/data/")).is_some_and(is_own_file)
}

/// The columns without a value in any of the files, by their manifests. Only the service's own are believed:
/// they count each column that the table had. One with a default has that in rows of files that lack it, and one
/// that is computed gets its values now.
fn empty_columns(
    table: &TableMetadata,
    files: &[Arc<PlannedFile>],
    layout: &FileLayout,
) -> HashSet<i32> {
    let is_empty = |file: &PlannedFile, id: i32| {
        file.column(id).is_some_and(|column| column.nulls == Some(file.rows))
    };
    let are_own = files.iter().all(|file| has_own_name(table, file));
    let fields = layout.schema.as_struct().fields().iter();
    let fields = fields.filter(|field| field.initial_default.is_none());
    let ids = fields.map(|field| field.id).filter(|id| !layout.promoted.has(*id));
    let empty = ids.filter(|id| files.iter().all(|file| is_empty(file, *id)));
    if are_own { empty.collect() } else { HashSet::new() }
}

/// Whether rows of the file are known to have no place in the table's order.
fn lacks_sort_values(table: &TableMetadata, file: &PlannedFile) -> bool {
    let nulls = |id: i32| file.column(id).and_then(|column| column.nulls).unwrap_or(0);
    schema::file_order(table).fields.iter().any(|field| 0 < nulls(field.source_id))
}

/// The day of a file's rows, since 1970, where the partition spec has it.
pub(crate) fn day(table: &TableMetadata, file: &PlannedFile) -> Option<i32> {
    let spec = table.partition_spec_by_id(file.spec_id)?;
    let at = spec.fields().iter().position(|field| field.transform == Transform::Day)?;
    match file.partition.fields().get(at)? {
        Some(Literal::Primitive(PrimitiveLiteral::Int(day))) => Some(*day),
        _ => None,
    }
}

/// The position delete files that are of no use without these data files.
fn useless_deletes(files: &[Arc<PlannedFile>], deletes: &DeleteIndex) -> PlannedFiles {
    let mut useless = PlannedFiles::new();
    for file in files {
        let of_file = deletes.of(file).into_iter().filter(|delete| {
            // A vector shares its file with those of other data files.
            delete.format == DataFileFormat::Parquet && is_only_about(delete, file)
        });
        useless.extend(of_file);
    }
    useless.sort_by(|one, other| one.location.cmp(&other.location));
    useless.dedup_by(|one, other| one.location == other.location);
    useless
}

/// A file of a manifest, as far as a commit that removes it tells of it.
pub(crate) fn described(file: &PlannedFile) -> Result<DataFile, WriteError> {
    let described = DataFileBuilder::default()
        .content(file.content)
        .file_path(file.location.clone())
        .file_format(file.format)
        .partition(file.partition.clone())
        .partition_spec_id(file.spec_id)
        .record_count(file.rows)
        .file_size_in_bytes(file.bytes)
        .build();
    described.map_err(|cause| {
        WriteError::Describe(Error::new(ErrorKind::DataInvalid, cause.to_string()))
    })
}
