//! The refresh of a collection's table: the documents of those buckets that changed are written anew, and stand in
//! the place of the files of before in one commit.
//!
//! First it asks for what changed since the events that the table has. Few changes are put into the rows of the
//! buckets' files, each of which is read once. Else it asks for the documents of these buckets as the last of these
//! events left them. Its one invariant: a snapshot that says up to which event it is has the documents of exactly that
//! event, as it is committed only on the snapshot that its other files were read of.
//!
//! The service itself asks: rows of every visibility are in the table.

pub(in crate::sql) mod base;
pub mod branch;
mod changes;
mod merge;

use crate::sql::{
    AskedStatement, Sql,
    materialized::RefreshCaller,
    writes::{
        WriteCaller, WriteFailure,
        target::{column_ids, invalid},
    },
};
use arrow::{
    array::AsArray,
    compute::cast,
    datatypes::{DataType, Int64Type},
};
use base::{CollectionPlace, ReadBase, bucket_count, set_aside};
use changes::{BucketChanges, FoundChanges};
use futures::{StreamExt, future::BoxFuture};
use iceberg::spec::{Operation, TableMetadata};
use icecore_catalog::{access::Principal, error::CatalogError, snapshot::NewSnapshot};
use icecore_engine::{
    QueryAnswer,
    collections::{IS_CHANGE, IS_TRUNCATE, events_at, literal, typed_documents_at},
    error::SqlError,
    references::QueryScope,
    stop::QuerySignal,
};
use icecore_lake::{
    collection::table_name,
    table::{
        documents::{self, AppliedChanges, BucketFile},
        row_fit::RowFit,
        schema::foreign_ident,
        typed_columns::TypedColumns,
    },
};
use icecore_schemas::query::SqlRequest;
use merge::BucketMerge;
use std::{collections::BTreeSet, sync::Arc};

/// Most collections of a namespace whose tables are made: each is looked at in every round.
pub const COLLECTIONS_MAX: usize = 1_000;
/// Who asks, in the bounds of statements that write.
const ASKER: &str = "icecore/refresh";
/// Events that a table may be behind without a change of its collection among them: whoever reads the documents
/// looks through them. Beyond it a snapshot without files says that it has them.
const LAG_MAX: u64 = 100_000;

/// What is asked right before a commit: whether what its rows were read of still counts. Where it fails, nothing is
/// committed.
pub type CommitCheck = Arc<dyn Fn() -> BoxFuture<'static, Result<(), CatalogError>> + Send + Sync>;

/// What a refresh did to a collection's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefreshedCollection {
    /// The last event that the table has.
    pub applied_seq: u64,
    /// Its snapshot; none of a collection without a table.
    pub snapshot: Option<i64>,
    /// How many documents it has.
    pub documents: u64,
    /// How many buckets were written anew.
    pub buckets: u64,
    /// How many documents these have.
    pub rows: u64,
    /// Whether there is a new snapshot.
    pub is_changed: bool,
}

/// Buckets with documents that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum ChangedBuckets {
    All,
    These(BTreeSet<i32>),
}

impl ChangedBuckets {
    fn has(&self, file: &BucketFile) -> bool {
        match self {
            Self::All => true,
            Self::These(numbers) => file.bucket.is_some_and(|bucket| numbers.contains(&bucket)),
        }
    }

    fn is_empty(&self) -> bool {
        matches!(self, Self::These(numbers) if numbers.is_empty())
    }

    /// How many they are, of `count` in all.
    fn count(&self, count: u32) -> u64 {
        match self {
            Self::All => u64::from(count),
            Self::These(numbers) => numbers.len() as u64,
        }
    }
}

impl Sql {
    /// Has the table of a collection follow its events. What it has of them stays, but where `is_full` asks for all
    /// of it to be made of events again, or where it is of another log or of before an erasure. Durable on return.
    ///
    /// # Errors
    /// [`WriteFailure`]; `CommitFailed` when another commit to the table came first. The table stays as it is then,
    /// but after `CommitStateUnknown`, which says so.
    pub async fn refresh_collection(
        &self,
        caller: &RefreshCaller<'_>,
        levels: &[String],
        collection: &str,
        is_full: bool,
    ) -> Result<RefreshedCollection, WriteFailure> {
        let ident = foreign_ident(levels, &table_name(collection))
            .ok_or_else(|| invalid("a namespace has a name"))?;
        let place = CollectionPlace { levels, collection, ident };
        let log = self.inner.owner.origin();
        // Whoever waits holds no changes.
        let _turn = self.collection_turn().await?;
        let mut base = ReadBase::load(&caller.catalog, &place).await?;
        // While an erasure goes on, nothing is known of what is there.
        let is_same = |it: &AppliedChanges| {
            it.log == log && it.erasures.is_some() && it.erasures == caller.erasures
        };
        if let Some(known) = &base
            && let Some(applied) = known.applied.clone().filter(is_same)
            && !is_full
        {
            let found = Box::pin(self.changes_behind(&place, known, applied.seq)).await?;
            let FoundChanges { seq, buckets, few } = found;
            // A log that was restored gives numbers again.
            if applied.seq <= seq {
                let next = AppliedChanges { seq, ..applied };
                return Box::pin(self.follow(caller, &place, base, next, (buckets, few))).await;
            }
        }
        if let Some(known) = base.take_if(|known| known.applied.is_some()) {
            base = Some(Box::pin(set_aside(&caller.catalog, &place, known)).await?);
            self.fault("refresh.after_set_aside")?;
        }
        let seq = Box::pin(self.last_seq(&place, base.is_none())).await?;
        let erasures = caller.erasures.clone();
        let next = AppliedChanges { seq, log, erasures, schema_id: None };
        let all = (ChangedBuckets::All, None);
        Box::pin(self.write_documents(caller, &place, base, next, all)).await
    }

    /// The collections of a namespace that have changes behind `after`, in order and at most one more than
    /// [`COLLECTIONS_MAX`]; and the last event that was looked at.
    ///
    /// # Errors
    /// [`SqlError`]
    pub async fn changed_collections(
        &self,
        levels: &[String],
        after: u64,
    ) -> Result<(Vec<String>, u64), SqlError> {
        let (first, last, most) = (after.saturating_add(1), i64::MAX, COLLECTIONS_MAX + 1);
        let sql = format!(
            "SELECT DISTINCT collection FROM events BETWEEN SEQ {first} AND {last} WHERE collection <> '' AND ({IS_CHANGE} OR {IS_TRUNCATE}) ORDER BY collection LIMIT {most}"
        );
        let mut answer = self.asked(levels, sql).await?;
        let mut names = Vec::new();
        while let Some(batch) = answer.batches.next().await {
            let column = cast(batch?.column(0), &DataType::Utf8);
            let column = column.map_err(|cause| SqlError::Internal(cause.to_string()))?;
            names.extend(column.as_string::<i32>().iter().flatten().map(str::to_owned));
        }
        Ok((names, seq_of(&answer)))
    }

    /// The last event that there is. A collection that `is_new` has to have changes.
    async fn last_seq(
        &self,
        place: &CollectionPlace<'_>,
        is_new: bool,
    ) -> Result<u64, WriteFailure> {
        let CollectionPlace { levels, collection, .. } = place;
        let of_collection = match is_new {
            true => format!(
                " WHERE collection = {} AND ({IS_CHANGE} OR {IS_TRUNCATE})",
                literal(collection)
            ),
            false => String::new(),
        };
        let sql = format!("SELECT seq FROM events{of_collection} LIMIT 1");
        let mut answer = self.asked(levels, sql).await?;
        let mut rows = 0;
        while let Some(batch) = answer.batches.next().await {
            rows += batch?.num_rows();
        }
        if is_new && rows == 0 {
            let text = format!("collection `{collection}` has no changes: send some first");
            return Err(SqlError::NotFound(text).into());
        }
        Ok(seq_of(&answer))
    }

    /// The buckets of documents that changed behind `after`, and the last event of `main` that was looked at; of a
    /// branch it is `until`.
    async fn changed_buckets(
        &self,
        place: &CollectionPlace<'_>,
        base: &ReadBase,
        (after, until): (u64, Option<u64>),
    ) -> Result<(u64, ChangedBuckets), WriteFailure> {
        let (count, collection) = (base.bucket_count(&place.ident)?, literal(place.collection));
        let events = match until {
            None => {
                let (first, last) = (after.saturating_add(1), i64::MAX);
                format!("events BETWEEN SEQ {first} AND {last} WHERE")
            }
            Some(until) => {
                format!("{} WHERE seq > {after} AND", events_at(base.branch_name(), until))
            }
        };
        let sql = format!(
            "SELECT DISTINCT bucket({count}, key) AS b FROM {events} collection = {collection} AND ({IS_CHANGE} OR {IS_TRUNCATE})"
        );
        let mut answer = self.asked(place.levels, sql).await?;
        let (mut numbers, mut has_all) = (BTreeSet::new(), false);
        while let Some(batch) = answer.batches.next().await {
            let batch = batch?;
            let column = batch.column(0).as_primitive_opt::<Int64Type>();
            let column = column.ok_or_else(|| SqlError::Internal("buckets are numbers".to_owned()));
            for number in column?.iter() {
                match number.and_then(|number| i32::try_from(number).ok()) {
                    Some(number) => {
                        numbers.insert(number);
                    }
                    // The collection was emptied.
                    None => has_all = true,
                }
            }
        }
        let changed = if has_all { ChangedBuckets::All } else { ChangedBuckets::These(numbers) };
        let has_more_buckets = !changed.is_empty() && !base.has_buckets_of_now();
        let is_written_anew = has_more_buckets || !base.has_columns_of_now();
        Ok((seq_of(&answer), if is_written_anew { ChangedBuckets::All } else { changed }))
    }

    /// Brings a table up to an event, from one before it.
    async fn follow(
        &self,
        caller: &RefreshCaller<'_>,
        place: &CollectionPlace<'_>,
        base: Option<ReadBase>,
        next: AppliedChanges,
        (changed, few): (ChangedBuckets, Option<BucketChanges>),
    ) -> Result<RefreshedCollection, WriteFailure> {
        let Some(known) = base.as_ref().filter(|_| changed.is_empty()) else {
            let changed = (changed, few);
            return Box::pin(self.write_documents(caller, place, base, next, changed)).await;
        };
        let documents = known.files.iter().map(|file| file.rows).sum();
        let applied = known.applied.as_ref().map_or(0, |applied| applied.seq);
        let mut done = RefreshedCollection {
            applied_seq: applied,
            snapshot: known.table.metadata.current_snapshot_id(),
            documents,
            buckets: 0,
            rows: 0,
            is_changed: false,
        };
        if LAG_MAX <= next.seq.saturating_sub(applied) {
            let new = NewSnapshot { summary: next.summary(), ..known.without_files() };
            let made = Box::pin(caller.catalog.add_snapshot(&place.ident, new)).await?;
            done.applied_seq = next.seq;
            done.snapshot = made.metadata.current_snapshot_id();
            done.is_changed = true;
        }
        Ok(done)
    }

    /// Writes the documents of these buckets as an event left them, and puts them in the place of those that the
    /// table has there. They are made of the changes where these are given.
    async fn write_documents(
        &self,
        caller: &RefreshCaller<'_>,
        place: &CollectionPlace<'_>,
        base: Option<ReadBase>,
        applied: AppliedChanges,
        (changed, few): (ChangedBuckets, Option<BucketChanges>),
    ) -> Result<RefreshedCollection, WriteFailure> {
        let Some(base) = base else {
            return Box::pin(self.make_table(caller, place, applied)).await;
        };
        self.fault("refresh.before_documents")?;
        let metadata = Arc::clone(&base.table.metadata);
        let applied = AppliedChanges { schema_id: Some(metadata.current_schema_id()), ..applied };
        let count = base.bucket_count(&place.ident)?;
        let answer = match few {
            Some(few) => self.merged(&metadata, few)?,
            None => {
                let columns = TypedColumns::of(&metadata);
                let at = (base.branch_name(), applied.seq);
                let sql = documents_sql(place.collection, at, &columns, (count, &changed));
                Box::pin(self.asked(place.levels, sql)).await?
            }
        };
        let fit = RowFit::new(metadata.current_schema(), &column_ids(&metadata), &answer.schema)?;
        let (behind, summary) = (base.without_files(), base.summary_of(&applied));
        let check = base.branch.as_ref().map(|branch| Arc::clone(&branch.check));
        let (removed, kept): (Vec<BucketFile>, Vec<BucketFile>) =
            base.files.into_iter().partition(|file| changed.has(file));
        let (kept_rows, kept_bytes) = kept
            .iter()
            .fold((0_u64, 0_u64), |(rows, bytes), file| (rows + file.rows, bytes + file.bytes));
        let (catalog, ident) = (caller.catalog.clone(), place.ident.clone());
        let of_table = Arc::clone(&metadata);
        let commit = move |new: Option<NewSnapshot>| async move {
            let NewSnapshot { added_of_spec, summary: told, .. } = new.unwrap_or_default();
            let mut new = NewSnapshot { added_of_spec, summary: told, ..behind };
            new.operation = match new.read {
                Some(_) => Operation::Overwrite,
                None => Operation::Append,
            };
            // `main` decides how many buckets there are: with more of them it would be written anew.
            if new.branch.is_none() {
                new.upgrades = documents::growth(&of_table, kept_bytes + bytes_of(&new));
            }
            new.removed = removed.into_iter().map(|file| file.file).collect();
            new.summary.extend(summary);
            if let Some(check) = check {
                check().await?;
            }
            catalog.add_snapshot(&ident, new).await
        };
        let (asker, statement_id) = (asker(), caller.ids.mint().to_string());
        let writer = writer_of(caller, place, &asker, &statement_id);
        let done = Box::pin(self.fill(&writer, metadata, fit, answer, commit)).await?;
        Ok(RefreshedCollection {
            applied_seq: applied.seq,
            snapshot: done.snapshot,
            documents: kept_rows + done.rows,
            buckets: changed.count(count),
            rows: done.rows,
            is_changed: true,
        })
    }

    /// The documents of buckets after few changes, within the time of a statement.
    fn merged(&self, table: &TableMetadata, few: BucketChanges) -> Result<QueryAnswer, SqlError> {
        let storage = self.inner.catalog.storage().clone();
        let signal = QuerySignal::new(self.inner.options.timeout_max);
        let ids = column_ids(table);
        let merge = BucketMerge::new((storage, signal), (table, ids.as_slice()), few)?;
        Ok(merge.into_answer())
    }

    /// Makes the table of a collection, with all of its documents.
    async fn make_table(
        &self,
        caller: &RefreshCaller<'_>,
        place: &CollectionPlace<'_>,
        applied: AppliedChanges,
    ) -> Result<RefreshedCollection, WriteFailure> {
        let (catalog, ident) = (caller.catalog.clone(), place.ident.clone());
        let new = documents::create(place.collection);
        let staged = catalog.tables().stage_first(&place.levels.to_vec(), new).await?;
        let applied = AppliedChanges { schema_id: Some(staged.current_schema_id()), ..applied };
        let count = bucket_count(&place.ident, &staged)?;
        let (columns, all) = (TypedColumns::default(), ChangedBuckets::All);
        let sql = documents_sql(place.collection, (None, applied.seq), &columns, (count, &all));
        let answer = Box::pin(self.asked(place.levels, sql)).await?;
        let fit = RowFit::new(staged.current_schema(), &column_ids(&staged), &answer.schema)?;
        let (files_of, summary) = (Arc::new(staged.clone()), applied.summary());
        let commit = move |new: Option<NewSnapshot>| async move {
            // Without documents the snapshot says that there are none.
            let mut new = new.unwrap_or_default();
            new.summary.extend(summary);
            catalog.tables().create_filled(ident, staged, new).await
        };
        let (asker, statement_id) = (asker(), caller.ids.mint().to_string());
        let writer = writer_of(caller, place, &asker, &statement_id);
        let done = Box::pin(self.fill(&writer, files_of, fit, answer, commit)).await?;
        Ok(RefreshedCollection {
            applied_seq: applied.seq,
            snapshot: done.snapshot,
            documents: done.rows,
            buckets: u64::from(count),
            rows: done.rows,
            is_changed: true,
        })
    }

    /// The answer of a statement of the service's own, in a namespace.
    async fn asked(&self, levels: &[String], sql: String) -> Result<QueryAnswer, SqlError> {
        let request = SqlRequest { sql, ..SqlRequest::default() };
        // What is written is bounded apart from what is answered.
        let asked = AskedStatement { request, key: None, rows_max: u64::MAX };
        let asked = self.query_within(levels, QueryScope::Namespace, None, asked);
        Box::pin(asked).await
    }
}

/// The documents of some of `count` buckets as an event of a branch left them, none for `main`, bucket after bucket, by
/// key in each.
fn documents_sql(
    collection: &str,
    at: (Option<&str>, u64),
    columns: &TypedColumns,
    (count, changed): (u32, &ChangedBuckets),
) -> String {
    let of_buckets = match changed {
        ChangedBuckets::All => String::new(),
        ChangedBuckets::These(numbers) => {
            let numbers: Vec<String> = numbers.iter().map(i32::to_string).collect();
            format!(" WHERE bucket({count}, key) IN ({})", numbers.join(", "))
        }
    };
    let documents = typed_documents_at(collection, at, columns);
    format!("{documents}{of_buckets} ORDER BY bucket({count}, key), key")
}

fn seq_of(answer: &QueryAnswer) -> u64 {
    answer.basis.as_ref().and_then(|basis| basis.seq).unwrap_or(0)
}

/// How long the files are that come with a snapshot.
fn bytes_of(new: &NewSnapshot) -> u64 {
    new.added_of_spec.iter().map(|(_, file)| file.file_size_in_bytes()).sum()
}

fn asker() -> Principal {
    Principal::new(ASKER, Vec::new(), None)
}

fn writer_of<'a>(
    caller: &'a RefreshCaller<'_>,
    place: &'a CollectionPlace<'_>,
    principal: &'a Principal,
    statement_id: &'a str,
) -> WriteCaller<'a> {
    let (levels, reach, catalog) = (place.levels, QueryScope::Namespace, caller.catalog.clone());
    WriteCaller { levels, reach, principal, catalog, ids: caller.ids, statement_id }
}

#[cfg(test)]
mod tests;
