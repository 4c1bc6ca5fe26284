//! The job `refresh`: the tables of collections follow the changes of their documents, by themselves and by hand.
//!
//! It is here because SQL, erasures and the jobs of tables do not know each other. Its one invariant: a table that
//! fails is told with its reason, and the others go on.

pub mod changed;
pub mod pace;

use crate::{
    http::{collection_refresh::follow_events, error::ApiError, jobs::materialize::erasures_of},
    ingest::Ingest,
    maintenance::{
        REFRESH,
        erasure::{EraseError, Erasures},
        planned::{PlannedJob, RunRequest},
    },
    sql::{
        Sql,
        collection_refresh::{COLLECTIONS_MAX, RefreshedCollection},
        materialized::RefreshCaller,
        writes::WriteFailure,
    },
};
use icecore_catalog::{
    catalog::{Catalog, LoadedTable},
    error::{CatalogError, with_causes},
    retention,
};
use icecore_engine::error::SqlError;
use icecore_lake::{
    collection::{TABLE_PREFIX, table_name},
    ids::IdGenerator,
    table::schema::foreign_ident,
    wal::Wal,
};
use icecore_schemas::{
    jobs::{JobReport, SkippedTable},
    service_table::{EVENTS_TABLE, RecordKind},
};
use std::{
    collections::{BTreeSet, HashSet},
    error::Error,
};
use tokio::time::Instant;
use tracing::warn;

/// Who made a change, in the catalog's feed.
const ACTOR: &str = "icecore/refresh";
/// Why a table that is named is left alone.
const NOT_OF_COLLECTION: &str = "no collection of the namespace has this table: name another one";
/// Why nothing of a namespace is refreshed for now. `/sql` answers from events meanwhile.
const IS_ERASING: &str = "an erasure goes on in the namespace: its tables follow once it has ended";

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
#[error("refresh the tables of collections")]
pub struct RefreshError(#[from] CatalogError);

impl From<RefreshError> for ApiError {
    fn from(RefreshError(cause): RefreshError) -> Self {
        cause.into()
    }
}

/// Why the collections of a namespace are not known.
#[derive(Debug, thiserror::Error)]
enum NamespaceError {
    #[error("ask which collections changed")]
    Changes(#[from] SqlError),
    #[error(transparent)]
    Erasures(#[from] EraseError),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

/// The collections of a namespace whose tables are looked at.
struct FoundCollections {
    /// In order. A table is made for none beyond [`COLLECTIONS_MAX`].
    names: BTreeSet<String>,
    /// The first one that gets no table.
    beyond: Option<String>,
    /// Changes up to this event are of these collections.
    seq: u64,
    /// Why those without a table are not among them.
    cause: Option<SqlError>,
}

/// What refreshes the tables of collections, by hand all that are asked for. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RefreshCollections {
    catalog: Catalog,
    sql: Sql,
    wal: Wal,
    ingest: Ingest,
    erasures: Erasures,
    ids: IdGenerator,
}

impl RefreshCollections {
    /// Refreshes tables of `catalog`.
    #[must_use]
    pub fn new(
        catalog: &Catalog,
        (sql, wal, ingest): (&Sql, &Wal, &Ingest),
        erasures: &Erasures,
        ids: &IdGenerator,
    ) -> Self {
        Self {
            catalog: catalog.on_behalf_of(ACTOR),
            sql: sql.clone(),
            wal: wal.clone(),
            ingest: ingest.clone(),
            erasures: erasures.clone(),
            ids: ids.clone(),
        }
    }

    /// The collections of a namespace with changes behind `after`, those of `names`, and where it `is_of_all` those
    /// that have these tables.
    async fn collections(
        &self,
        levels: &[String],
        after: u64,
        mut names: BTreeSet<String>,
        is_of_all: bool,
    ) -> Result<FoundCollections, NamespaceError> {
        let (changed, seq, cause) = match self.changed(levels, after).await {
            Ok((changed, seq)) => (changed, seq, None),
            // There are too many events for one statement. Those that have a table follow all the same.
            Err(cause @ SqlError::Limit(_)) if is_of_all => (Vec::new(), after, Some(cause)),
            Err(cause) => return Err(cause.into()),
        };
        let tables: BTreeSet<String> =
            self.catalog.metastore().tables(&levels.to_vec()).await?.into_iter().collect();
        if is_of_all || COLLECTIONS_MAX < changed.len() {
            // Not all that changed are named.
            names.extend(self.bases(levels, &tables).await);
        }
        names.extend(changed);
        let beyond = leave_out(&mut names, &tables, COLLECTIONS_MAX);
        Ok(FoundCollections { names, beyond, seq, cause })
    }

    /// The collections with changes behind `after`, and the last event that was looked at.
    async fn changed(&self, levels: &[String], after: u64) -> Result<(Vec<String>, u64), SqlError> {
        let found = Box::pin(self.sql.changed_collections(levels, after)).await?;
        if after <= found.1 {
            return Ok(found);
        }
        // A log that was restored gives numbers again.
        Box::pin(self.sql.changed_collections(levels, 0)).await
    }

    /// The collections that have one of these tables.
    async fn bases(&self, levels: &[String], tables: &BTreeSet<String>) -> Vec<String> {
        let mut found = Vec::new();
        for name in tables.iter().filter(|name| name.starts_with(TABLE_PREFIX)) {
            let Some(ident) = foreign_ident(levels, name) else { continue };
            // Another job tells of tables that do not load.
            let Ok(LoadedTable { metadata, .. }) = self.catalog.tables().load(&ident).await else {
                continue;
            };
            found.extend(retention::collection_of(&metadata).map(str::to_owned));
        }
        found
    }

    async fn refresh(
        &self,
        levels: &[String],
        collection: &str,
        erasures: Option<String>,
    ) -> Result<RefreshedCollection, WriteFailure> {
        let caller = RefreshCaller { catalog: self.catalog.clone(), ids: &self.ids, erasures };
        let place = (levels, collection);
        Box::pin(follow_events(&self.sql, &self.erasures, caller, place, false)).await
    }

    /// What a namespace has of events; none for one without any.
    async fn seen(&self, levels: &[String]) -> Result<Option<SeenEvents>, NamespaceError> {
        let [name] = levels else { return Ok(None) };
        let last_seq = self.last_seq(levels).await?;
        let position = self.wal.last_position(name, RecordKind::has_seq);
        if last_seq.is_none() && position.is_none() {
            return Ok(None);
        }
        let erasures = erasures_of(&self.erasures, levels).await?;
        let changes = self.ingest.change_count(name);
        Ok(Some(SeenEvents { last_seq, position, changes, erasures }))
    }

    /// The last event in the table of a namespace; none where there is no table, or no event in it.
    async fn last_seq(&self, levels: &[String]) -> Result<Option<u64>, CatalogError> {
        let Some(ident) = foreign_ident(levels, EVENTS_TABLE) else { return Ok(None) };
        match self.catalog.tables().load(&ident).await {
            Ok(table) => Ok(table.watermark.map(|mark| mark.last_seq)),
            Err(CatalogError::NoSuchTable(_)) => Ok(None),
            Err(cause) => Err(cause),
        }
    }

    /// The names of the namespaces to which events come.
    fn busy(&self) -> HashSet<String> {
        let of_events = self.wal.pending_of(RecordKind::has_seq).into_iter();
        of_events.map(|it| it.namespace.name().to_owned()).collect()
    }

    /// The namespaces that may have collections: those of events are at the top.
    async fn namespaces(&self) -> Result<Vec<Vec<String>>, CatalogError> {
        self.catalog.metastore().namespaces(&Vec::new()).await
    }
}

impl PlannedJob for RefreshCollections {
    const NAME: &'static str = REFRESH;
    type Error = RefreshError;

    async fn run(&self, request: &RunRequest) -> Result<JobReport, RefreshError> {
        let started = Instant::now();
        let mut report = JobReport { job: REFRESH.to_owned(), ..JobReport::default() };
        let namespaces = match &request.levels {
            Some(levels) => {
                // Whoever names one that is not there is told so.
                self.catalog.metastore().tables(levels).await?;
                vec![levels.clone()]
            }
            None => self.namespaces().await?,
        };
        for levels in namespaces {
            if let Err(cause) = Box::pin(self.run_in(&levels, request, &mut report)).await {
                fail(&mut report, &levels.join("."), &cause);
            }
        }
        report.elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(report)
    }
}

impl RefreshCollections {
    /// The run of one namespace.
    async fn run_in(
        &self,
        levels: &[String],
        request: &RunRequest,
        report: &mut JobReport,
    ) -> Result<(), NamespaceError> {
        let skip = |table: &str, reason: String| {
            let table = format!("{}.{table}", levels.join("."));
            SkippedTable { table, reason }
        };
        let Some(seen) = self.seen(levels).await? else { return Ok(()) };
        let found = self.collections(levels, 0, BTreeSet::new(), true).await?;
        if let Some(first) = found.beyond.filter(|_| request.table.is_none()) {
            report.skipped.push(skip(&table_name(&first), beyond(&first)));
        }
        if let Some(cause) = found.cause {
            fail(report, &levels.join("."), &NamespaceError::from(cause));
        }
        let mut is_found = false;
        for collection in found.names {
            let table = table_name(&collection);
            if request.table.as_ref().is_some_and(|wanted| *wanted != table) {
                continue;
            }
            is_found = true;
            if request.dry_run {
                report.tables += 1;
                continue;
            }
            // The proof would take documents of others for those of the subject, and they would go once more.
            if self.erasures.takes_documents_of(levels, &collection).await? {
                report.errors += 1;
                report.skipped.push(skip(&table, IS_ERASING.to_owned()));
                continue;
            }
            match self.refresh(levels, &collection, seen.erasures.clone()).await {
                Ok(done) => {
                    report.tables += u64::from(done.is_changed);
                    report.rows += done.rows;
                }
                Err(cause) => fail(report, &format!("{}.{table}", levels.join(".")), &cause),
            }
        }
        if let (Some(table), Some(_), false) = (&request.table, &request.levels, is_found) {
            report.skipped.push(skip(table, NOT_OF_COLLECTION.to_owned()));
        }
        Ok(())
    }
}

/// Takes the collections out that would have more than `most` tables be made, and gives the first of them.
fn leave_out(
    names: &mut BTreeSet<String>,
    tables: &BTreeSet<String>,
    most: usize,
) -> Option<String> {
    let known = tables.iter().filter(|name| name.starts_with(TABLE_PREFIX)).count();
    let mut room = most.saturating_sub(known);
    let mut beyond = None;
    names.retain(|name| {
        if tables.contains(&table_name(name)) {
            return true;
        }
        if room == 0 {
            beyond.get_or_insert_with(|| name.clone());
            return false;
        }
        room -= 1;
        true
    });
    beyond
}

/// Notes why a table, or a namespace, is left as it is.
fn fail(report: &mut JobReport, table: &str, cause: &(dyn Error + 'static)) {
    warn!(table, error = cause, "the table of a collection is not refreshed");
    report.errors += 1;
    let (table, reason) = (table.to_owned(), with_causes(cause));
    report.skipped.push(SkippedTable { table, reason });
}

fn beyond(first: &str) -> String {
    format!(
        "the namespace has more than {COLLECTIONS_MAX} collections: `{first}` and others have no table; \
         send them to other namespaces"
    )
}

/// What decides whether a namespace has something new.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SeenEvents {
    /// The last event in the table.
    last_seq: Option<u64>,
    /// The last record that waits in the log.
    position: Option<u64>,
    /// How many times events of collections came to this server.
    changes: u64,
    /// Which erasures there have been; none while one goes on.
    erasures: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn tables_are_made_up_to_the_bound_and_those_that_are_there_follow() {
        let tables = set(&["events", "cdc_c", "cdc_d"]);
        let mut names = set(&["a", "b", "c", "d"]);
        assert_eq!(leave_out(&mut names, &tables, 3), Some("b".to_owned()));
        assert_eq!(names, set(&["a", "c", "d"]));
        let mut names = set(&["a", "c", "d"]);
        assert_eq!(leave_out(&mut names, &tables, 1), Some("a".to_owned()));
        assert_eq!(names, set(&["c", "d"]));
        assert_eq!(leave_out(&mut names, &tables, 3), None);
    }
}
