//! The table with the documents of a collection: how it is made, what its snapshots say, and how many buckets it
//! has.
//!
//! Documents are in buckets by their keys, sorted by key in each file, and none of its snapshots has delete files.
//! Its one invariant: a snapshot says up to which event its rows are the documents, or it says nothing and its
//! rows are taken for no documents.

use crate::{
    collection::{COLUMNS, table_name},
    table::{
        compaction::{described, rewrite::RewriteError},
        layout::WriteError,
        reader, schema,
        typed_columns::TypedColumns,
    },
};
use futures::TryStreamExt;
use iceberg::{
    TableUpdate,
    spec::{
        DataFile, Literal, Operation, PrimitiveLiteral, TableMetadata, Transform,
        UnboundPartitionSpec,
    },
};
use icecore_catalog::{
    ancestors,
    catalog::CreateTable,
    retention::{BRANCH, COLLECTION, COLLECTION_TABLE, expiry::MAX_SNAPSHOT_AGE},
    scan::{ManifestSource, filter::Filter, manifests::PlannedFile},
};
use std::{
    collections::{BTreeMap, HashMap},
    pin::pin,
    sync::Arc,
};

/// Snapshot summary: every event up to this `seq` is in the rows.
pub const APPLIED_SEQ: &str = "icecore.applied-seq";
/// Snapshot summary: where the events came from, as `seq` alone does not say which they were.
pub const LOG: &str = "icecore.collection.log";
/// Snapshot summary: which erasures the namespace had had; left out while one went on.
pub const ERASURES: &str = "icecore.collection.erasures";
/// Snapshot summary: the schema that all rows were written with. Other rows lack what a later one added.
pub const SCHEMA_ID: &str = "icecore.collection.schema-id";
/// Snapshot summary of a branch: when the branch of `events` was made, ms since 1970.
pub const BRANCH_CREATED_AT: &str = "icecore.collection.branch-created-at";
/// Snapshot summary of a branch: the snapshot of `events` that was the head of the branch.
pub const BRANCH_HEAD: &str = "icecore.collection.branch-head";

/// Field id of the key, by which documents are in buckets.
const KEY_ID: i32 = 1;
/// What the partition field of a new table is called.
const BUCKET_FIELD: &str = "key_bucket";
/// Buckets of a new table: a refresh that reaches one document leaves the files of the others.
const BUCKETS_FIRST: u32 = 4;
/// Most buckets: each has a file, which every full read opens.
const BUCKETS_MAX: u32 = 1_024;
/// A table gets more buckets once one has so many bytes on average.
const BUCKET_BYTES_MAX: u64 = 64 << 20;
/// How many bytes one has then: a table that grows is written as a whole again once it is four times as large.
const BUCKET_BYTES: u64 = 16 << 20;
/// Most data files of such a table: a bucket that is too long for one has several.
pub const FILES_MAX: usize = 10_000;
/// How old snapshots become, ms: each refresh makes one. Tags keep others.
const SNAPSHOT_AGE_MS: &str = "86400000";

/// A new table for the documents of a collection.
#[must_use]
pub fn create(collection: &str) -> CreateTable {
    let name = table_name(collection);
    let mut properties = schema::properties(COLUMNS);
    let bloom_filter = format!("{}key", schema::BLOOM_FILTER);
    let own = [
        (COLLECTION, collection),
        (COLLECTION_TABLE, name.as_str()),
        (MAX_SNAPSHOT_AGE, SNAPSHOT_AGE_MS),
        (bloom_filter.as_str(), "true"),
    ];
    properties.extend(own.map(|(key, value)| (key.to_owned(), value.to_owned())));
    CreateTable {
        partition_spec: Some(spec(BUCKET_FIELD, BUCKETS_FIRST)),
        properties,
        ..CreateTable::plain(&name, schema::schema(COLUMNS))
    }
}

fn spec(name: &str, buckets: u32) -> UnboundPartitionSpec {
    UnboundPartitionSpec::builder()
        .add_partition_field(KEY_ID, name, Transform::Bucket(buckets))
        .expect("one field has a name and an id of its own")
        .build()
}

/// How many buckets new files are of; none where the table is not partitioned by them.
#[must_use]
pub fn bucket_count(table: &TableMetadata) -> Option<u32> {
    match table.default_partition_spec().fields() {
        [field] if field.source_id == KEY_ID => match field.transform {
            Transform::Bucket(count) => Some(count),
            _ => None,
        },
        _ => None,
    }
}

/// What gives a table more buckets whose files take so many bytes together; nothing where it has enough. Files of
/// before keep theirs until a refresh writes them anew.
#[must_use]
pub fn growth(table: &TableMetadata, bytes: u64) -> Vec<TableUpdate> {
    /// The spec that was added last.
    const LAST: i32 = -1;
    let Some(count) = bucket_count(table).and_then(|count| more_buckets(count, bytes)) else {
        return Vec::new();
    };
    // Engines show the partitions of all specs in one struct, whose members have names of their own.
    let spec = spec(&format!("{BUCKET_FIELD}_{count}"), count);
    vec![TableUpdate::AddSpec { spec }, TableUpdate::SetDefaultSpec { spec_id: LAST }]
}

fn more_buckets(count: u32, bytes: u64) -> Option<u32> {
    if bytes <= u64::from(count).saturating_mul(BUCKET_BYTES_MAX) {
        return None;
    }
    let wanted = u32::try_from(bytes.div_ceil(BUCKET_BYTES)).unwrap_or(BUCKETS_MAX);
    let wanted = wanted.min(BUCKETS_MAX).next_power_of_two();
    (count < wanted).then_some(wanted)
}

/// How far the rows of a snapshot have the changes of their collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedChanges {
    /// Every event up to this one is in them.
    pub seq: u64,
    /// Where the events came from: their log, and how many losses it had.
    pub log: String,
    /// Which erasures the namespace had had; none where one went on.
    pub erasures: Option<String>,
    /// The schema of the table that all of the rows were written with; none where that is not known.
    pub schema_id: Option<i32>,
}

impl AppliedChanges {
    /// Those of a table's snapshot of `main`; none where its rows are not taken for the documents: somebody took
    /// some out, they are to be made anew, or they are those of a branch.
    #[must_use]
    pub fn of(table: &TableMetadata, snapshot_id: Option<i64>) -> Option<Self> {
        for snapshot in ancestors::of(table, snapshot_id) {
            let entries = &snapshot.summary().additional_properties;
            // Behind its fork a branch has other events under the same numbers.
            if entries.contains_key(BRANCH) {
                return None;
            }
            if entries.contains_key(APPLIED_SEQ) {
                return Self::noted(entries);
            }
            // Merging files changes no row.
            if snapshot.summary().operation != Operation::Replace {
                return None;
            }
        }
        None
    }

    /// Those of a snapshot that a refresh of a branch made; none for others. The numbers are of events of the branch.
    #[must_use]
    pub fn of_branch(table: &TableMetadata, snapshot_id: i64) -> Option<Self> {
        let entries = &table.snapshot_by_id(snapshot_id)?.summary().additional_properties;
        if !entries.contains_key(BRANCH) {
            return None;
        }
        Self::noted(entries)
    }

    fn noted(entries: &HashMap<String, String>) -> Option<Self> {
        let (seq, log) = (entries.get(APPLIED_SEQ)?.parse().ok()?, entries.get(LOG)?.clone());
        let erasures = entries.get(ERASURES).cloned();
        let schema_id = entries.get(SCHEMA_ID).and_then(|id| id.parse().ok());
        Some(Self { seq, log, erasures, schema_id })
    }

    /// What the summary of a snapshot says of them.
    #[must_use]
    pub fn summary(&self) -> BTreeMap<String, String> {
        let mut entries = BTreeMap::from([
            (APPLIED_SEQ.to_owned(), self.seq.to_string()),
            (LOG.to_owned(), self.log.clone()),
        ]);
        entries.extend(self.erasures.clone().map(|erasures| (ERASURES.to_owned(), erasures)));
        entries.extend(self.schema_id.map(|id| (SCHEMA_ID.to_owned(), id.to_string())));
        entries
    }

    /// Whether the rows have every typed column that the table has now.
    #[must_use]
    pub fn has_columns_of_now(&self, table: &TableMetadata) -> bool {
        self.schema_id == Some(table.current_schema_id()) || TypedColumns::of(table).is_empty()
    }
}

/// The branch of the namespace that the rows of a snapshot were made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadBranch {
    /// Its name, which the branch of the table has as well.
    pub name: String,
    /// When it was made, ms since 1970: one of its name that is made later is another one.
    pub created_at: i64,
    /// The snapshot of `events` that was its head. One that was squashed since was left by it.
    pub head: i64,
}

impl ReadBranch {
    /// That of a table's snapshot; none where no refresh of a branch made it.
    #[must_use]
    pub fn of(table: &TableMetadata, snapshot_id: i64) -> Option<Self> {
        let entries = &table.snapshot_by_id(snapshot_id)?.summary().additional_properties;
        let number = |key: &str| -> Option<i64> { entries.get(key)?.parse().ok() };
        let name = entries.get(BRANCH)?.clone();
        Some(Self { name, created_at: number(BRANCH_CREATED_AT)?, head: number(BRANCH_HEAD)? })
    }

    /// What the summary of a snapshot says of it.
    #[must_use]
    pub fn summary(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            (BRANCH.to_owned(), self.name.clone()),
            (BRANCH_CREATED_AT.to_owned(), self.created_at.to_string()),
            (BRANCH_HEAD.to_owned(), self.head.to_string()),
        ])
    }
}

/// A data file with documents of one bucket.
#[derive(Clone, Debug)]
pub struct BucketFile {
    /// The bucket; none where the file's partition is something else.
    pub bucket: Option<i32>,
    /// Its partition spec, which says of how many buckets.
    pub spec_id: i32,
    /// Its documents.
    pub rows: u64,
    /// Its length.
    pub bytes: u64,
    /// As a commit that takes it out names it.
    pub file: DataFile,
    /// As it is read.
    pub planned: Arc<PlannedFile>,
    /// Whether a delete file takes rows out of it.
    pub has_deletes: bool,
}

impl BucketFile {
    fn of(file: &Arc<PlannedFile>, has_deletes: bool) -> Result<Self, WriteError> {
        let bucket = match file.partition.iter().next() {
            Some(Some(Literal::Primitive(PrimitiveLiteral::Int(bucket)))) => Some(*bucket),
            _ => None,
        };
        let (spec_id, rows, bytes) = (file.spec_id, file.rows, file.bytes);
        let (described, planned) = (described(file)?, Arc::clone(file));
        Ok(Self { bucket, spec_id, rows, bytes, file: described, planned, has_deletes })
    }
}

/// The data files of a snapshot.
///
/// # Errors
/// [`RewriteError`]; [`WriteError::TooManyFiles`] in it for more than [`FILES_MAX`] files.
pub async fn files(
    source: ManifestSource<'_>,
    snapshot_id: i64,
) -> Result<Vec<BucketFile>, RewriteError> {
    let listed = source.list(snapshot_id, &Filter::True).await?;
    let mut plans = pin!(reader::plans(source, listed, Filter::True));
    let mut files = Vec::new();
    while let Some(plan) = plans.try_next().await? {
        for file in &plan.files {
            let has_deletes = !plan.deletes.of(file).is_empty();
            files.push(BucketFile::of(file, has_deletes)?);
        }
        if FILES_MAX < files.len() {
            return Err(WriteError::TooManyFiles(FILES_MAX).into());
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::lake::TestLake;
    use icecore_samples as sample;
    use serde_json::json;

    fn table(collection: &str) -> TableMetadata {
        sample::metadata(create(collection), "file:///warehouse/table/")
    }

    #[test]
    fn a_new_table_has_the_columns_in_order_and_few_buckets_of_keys() {
        let orders = table("Orders");
        let names: Vec<&str> = orders
            .current_schema()
            .as_struct()
            .fields()
            .iter()
            .map(|field| field.name.as_str())
            .collect();
        let wanted: Vec<&str> = COLUMNS.iter().map(|column| column.name).collect();
        assert_eq!(names, wanted);
        assert_eq!(bucket_count(&orders), Some(BUCKETS_FIRST));
        assert!(orders.default_sort_order().is_unsorted());
        assert_eq!(icecore_catalog::retention::collection_of(&orders), Some("Orders"));
        let named = &orders.properties()[COLLECTION_TABLE];
        assert_eq!(*named, table_name("Orders"));
        assert_eq!(orders.properties()["write.metadata.metrics.column.doc"], "counts");
    }

    #[test]
    fn a_table_gets_buckets_for_four_times_its_bytes_once_they_are_too_long() {
        const MIB: u64 = 1 << 20;
        assert_eq!(more_buckets(4, 0), None);
        assert_eq!(more_buckets(4, 4 * 64 * MIB), None);
        assert_eq!(more_buckets(4, 4 * 64 * MIB + 1), Some(32));
        assert_eq!(more_buckets(32, 1_000 * MIB), None);
        assert_eq!(more_buckets(4, u64::MAX), Some(BUCKETS_MAX));
        assert_eq!(more_buckets(BUCKETS_MAX, u64::MAX), None);
        let orders = table("orders");
        assert_eq!(growth(&orders, 1), Vec::new());
        let grown = growth(&orders, 300 * MIB);
        let [TableUpdate::AddSpec { spec }, TableUpdate::SetDefaultSpec { spec_id: -1 }] =
            &grown[..]
        else {
            panic!("{grown:?}")
        };
        let [field] = spec.fields() else { panic!("{spec:?}") };
        assert_eq!(
            (field.transform, field.name.as_str()),
            (Transform::Bucket(32), "key_bucket_32")
        );
    }

    #[test]
    fn a_table_that_grows_keeps_the_buckets_of_its_files_beside_those_of_new_ones() {
        let mut lake = TestLake::new(schema::schema(COLUMNS), spec(BUCKET_FIELD, BUCKETS_FIRST));
        let before = lake.metadata.default_partition_spec_id();
        let grown = growth(&lake.metadata, u64::MAX);
        lake.change(|builder| {
            grown.into_iter().try_fold(builder, |builder, update| update.apply(builder))
        });
        assert_eq!(bucket_count(&lake.metadata), Some(BUCKETS_MAX));
        assert_ne!(lake.metadata.default_partition_spec_id(), before);
        let known = lake.metadata.partition_spec_by_id(before).unwrap();
        assert_eq!(known.fields()[0].transform, Transform::Bucket(BUCKETS_FIRST));
        assert_eq!(growth(&lake.metadata, u64::MAX), Vec::new());
    }

    #[test]
    fn a_table_without_snapshots_has_no_changes() {
        assert_eq!(AppliedChanges::of(&table("orders"), None), None);
        let (log, erasures) = ("log".to_owned(), Some("0/none".to_owned()));
        let applied = AppliedChanges { seq: 7, log, erasures, schema_id: None };
        assert_eq!(applied.summary()[APPLIED_SEQ], "7");
        assert_eq!(applied.summary().len(), 3);
        let of_schema = AppliedChanges { schema_id: Some(2), ..applied };
        assert_eq!(of_schema.summary()[SCHEMA_ID], "2");
    }

    #[test]
    fn the_changes_of_a_branch_are_none_of_main() {
        let log = "log".to_owned();
        let of_main = AppliedChanges { seq: 7, log, erasures: None, schema_id: None };
        let of_branch = AppliedChanges { seq: 9, ..of_main.clone() };
        let read = ReadBranch { name: "trial".to_owned(), created_at: 4_000, head: 17 };
        let mut on_branch = of_branch.summary();
        on_branch.extend(read.summary());
        // Somebody took rows out of the branch.
        let erased = BTreeMap::from([(BRANCH.to_owned(), "trial".to_owned())]);
        let mut table = serde_json::to_value(table("orders")).unwrap();
        let snapshots = (1..).zip([of_main.summary(), on_branch, erased]).map(|(id, mut told)| {
            told.insert("operation".to_owned(), "overwrite".to_owned());
            json!({
                "snapshot-id": id, "parent-snapshot-id": (1 < id).then_some(id - 1),
                "sequence-number": id, "timestamp-ms": 1_000 * id, "schema-id": 0,
                "manifest-list": "file:///w/t/metadata/l.avro", "summary": told,
            })
        });
        table["snapshots"] = snapshots.collect();
        table["last-sequence-number"] = json!(3);
        let table: TableMetadata = serde_json::from_value(table).unwrap();
        for (id, main, branch, is_read) in [
            (1, Some(of_main), None, false),
            (2, None, Some(of_branch), true),
            (3, None, None, false),
        ] {
            assert_eq!(AppliedChanges::of(&table, Some(id)), main, "{id}");
            assert_eq!(AppliedChanges::of_branch(&table, id), branch, "{id}");
            assert_eq!(ReadBranch::of(&table, id), is_read.then(|| read.clone()), "{id}");
        }
    }
}
