//! The job `tags`: on the first look at a new UTC day `events` and the tables of collections get a tag of the day, and
//! of the month where it is the first look in it, and old ones that the service set go.
//!
//! It is here because it has collections refreshed and the log committed first. State is the tables alone: whether
//! `events` has the tag, so one that was killed goes on, and a second look does nothing. Its one invariant: the tables
//! of a namespace get the tag of a day in one commit, in which the documents of none are ahead of `events`.

use crate::{
    flush::{Flush, FlushError},
    http::{
        error::ApiError,
        jobs::{
            materialize::erasures_of,
            refresh::{RefreshCollections, RefreshError},
        },
        namespace_tags::{
            commit_waiting,
            places::{TagMoment, TagPlace, TagScope, is_events},
        },
    },
    maintenance::{
        TAGS,
        day_tags::{self, TagRules},
        erasure::{EraseError, Erasures},
        planned::{PlannedJob, RunRequest},
    },
    owner::{LogOwnership, NotOwner},
    tasks::{Job, Progress},
};
use icecore_catalog::{
    catalog::{Catalog, LoadedTable, NewTag, TagChange},
    error::{CatalogError, with_causes},
    metadata_file::refs,
    retention::{self, SERVICE_TAGS},
};
use icecore_lake::{
    clock::Clock,
    collection::TABLE_PREFIX,
    table::{schema::foreign_ident, tagged::TAGGED_TABLES_MAX},
    wal::Wal,
};
use icecore_schemas::{
    jobs::{JobReport, SkippedTable},
    service_table::EVENTS_TABLE,
};
use std::{
    collections::{BTreeSet, HashMap},
    error::Error,
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;
use tracing::warn;

/// Who made a change, in the catalog's feed.
const ACTOR: &str = "icecore/tags";
/// Most namespaces that get tags in one tick of the job; the next tick goes on at once.
const NAMESPACES_MAX: usize = 100;
/// Longest from a start to the first look at namespaces: each of them is looked at then.
const FIRST_LOOK_MAX: Duration = Duration::from_secs(3_600);
/// How often the tags of a namespace are set because another commit to a table came first, the first time included.
const TRIES_MAX: usize = 3;
/// What a day has, ms.
const DAY_MS: i64 = 86_400_000;
/// Why a namespace gets no tag for now: what is to be erased would stay for as long as the tag.
const IS_ERASING: &str =
    "an erasure goes on in the namespace: it gets the tags of the day once that has ended";
/// Why nothing is done for a table that is named.
const OF_ALL_TABLES: &str =
    "a tag of a day is of all tables of a namespace: run the job without `table`";

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
#[error("tag the tables of namespaces")]
pub struct TagsError(#[from] CatalogError);

impl From<TagsError> for ApiError {
    fn from(TagsError(cause): TagsError) -> Self {
        cause.into()
    }
}

/// Why a namespace gets no tags.
#[derive(Debug, thiserror::Error)]
enum TagFailure {
    #[error("{IS_ERASING}")]
    Erasing,
    #[error(transparent)]
    NotOwner(#[from] NotOwner),
    #[error(
        "the namespace has {0} tables with names of collections, and a tag is of at most {TAGGED_TABLES_MAX}"
    )]
    TooManyTables(usize),
    #[error("commit what is acknowledged")]
    Commit(#[source] Arc<FlushError>),
    #[error(transparent)]
    Refresh(#[from] RefreshError),
    #[error(transparent)]
    Erasures(#[from] EraseError),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

/// What a namespace got.
#[derive(Debug, Default)]
struct TagsEnd {
    /// How many tables have new tags, or would get them.
    tables: u64,
    /// Tables that could not get them.
    skipped: Vec<SkippedTable>,
}

/// What tags the tables of namespaces, by hand all that are asked for. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TagNamespaces {
    catalog: Catalog,
    flush: Flush,
    wal: Wal,
    owner: LogOwnership,
    clock: Clock,
    erasures: Erasures,
    collections: RefreshCollections,
    rules: TagRules,
}

impl TagNamespaces {
    /// Tags tables of `catalog`, once `collections` has refreshed theirs.
    #[must_use]
    pub fn new(
        (catalog, owner): (&Catalog, &LogOwnership),
        (flush, wal): (&Flush, &Wal),
        erasures: &Erasures,
        collections: RefreshCollections,
        (clock, rules): (&Clock, TagRules),
    ) -> Self {
        Self {
            catalog: catalog.on_behalf_of(ACTOR),
            flush: flush.clone(),
            wal: wal.clone(),
            owner: owner.clone(),
            clock: clock.clone(),
            erasures: erasures.clone(),
            collections,
            rules,
        }
    }

    /// Gives the tables of a namespace the tags that are due; none for a namespace without events.
    async fn tag(&self, levels: &[String], is_dry: bool) -> Result<Option<TagsEnd>, TagFailure> {
        let Some(events) = foreign_ident(levels, EVENTS_TABLE) else { return Ok(None) };
        let base = match self.catalog.tables().load(&events).await {
            Ok(base) => base,
            // Its first events are on their way, or it is of other engines alone.
            Err(CatalogError::NoSuchTable(_)) => return Ok(None),
            Err(cause) => return Err(cause.into()),
        };
        if !is_events(EVENTS_TABLE, &base) || self.due(&base).is_empty() {
            return Ok(Some(TagsEnd::default()));
        }
        // Before anything is refreshed: a namespace with too many tables is tried again and again.
        let tables = self.names(levels).await?.len() as u64;
        if is_dry {
            return Ok(Some(TagsEnd { tables, ..TagsEnd::default() }));
        }
        // Another server's log has the events, and the tables of collections are of that one.
        self.owner.check()?;
        if erasures_of(&self.erasures, levels).await?.is_none() {
            return Err(TagFailure::Erasing);
        }
        // Where this fails, which may be so for long, all events are not read for refreshes in vain.
        self.commit(levels).await?;
        let all = RunRequest { levels: Some(levels.to_vec()), ..RunRequest::default() };
        let refreshed = Box::pin(self.collections.run(&all)).await?;
        let mut tries = 1;
        loop {
            // `events` then has all that they have.
            self.commit(levels).await?;
            // The refresh may take long, and an erasure may begin meanwhile.
            if erasures_of(&self.erasures, levels).await?.is_none() {
                return Err(TagFailure::Erasing);
            }
            match Box::pin(self.set(levels)).await {
                Ok(mut end) => {
                    end.skipped.extend(refreshed.skipped);
                    return Ok(Some(end));
                }
                // Another job refreshed or compacted one of the tables meanwhile.
                Err(TagFailure::Catalog(CatalogError::CommitFailed(_))) if tries < TRIES_MAX => {
                    tries += 1;
                }
                Err(cause) => return Err(cause),
            }
        }
    }

    async fn commit(&self, levels: &[String]) -> Result<(), TagFailure> {
        commit_waiting(&self.flush, &self.wal, levels).await.map_err(TagFailure::Commit)
    }

    /// Sets the tags that are due, of what the tables have.
    async fn set(&self, levels: &[String]) -> Result<TagsEnd, TagFailure> {
        let log = self.owner.origin();
        let moment = TagMoment::Now;
        let scope = TagScope { catalog: &self.catalog, log: &log, levels, moment };
        let names = self.names(levels).await?;
        let found = scope.places(names).await?;
        let is_of_events = |place: &&TagPlace| is_events(&place.table.name, &place.base);
        let Some(events) = found.places.iter().find(is_of_events) else {
            return Ok(TagsEnd::default());
        };
        let due = self.due(&events.base);
        if due.is_empty() {
            // Another server was faster.
            return Ok(TagsEnd::default());
        }
        let is_held = self.catalog.metastore().hold_over(&levels.to_vec()).await?.is_some();
        let mut end = TagsEnd::default();
        let skip = |table: &str, reason: String| {
            let table = format!("{}.{table}", levels.join("."));
            SkippedTable { table, reason }
        };
        let mut changes = Vec::new();
        for place in &found.places {
            let is_own = is_events(&place.table.name, &place.base)
                || retention::collection_of(&place.base.metadata).is_some();
            if !is_own {
                continue;
            }
            let (change, taken) = self.change(place, &due, is_held);
            end.skipped.extend(taken.into_iter().map(|name| {
                skip(&place.table.name, format!("a branch or tag of it is called `{name}` already"))
            }));
            changes.push(change);
        }
        let left_out = found.left_out.iter();
        end.skipped.extend(left_out.map(|it| skip(&it.table, it.reason.clone())));
        end.tables = changes.len() as u64;
        Box::pin(self.catalog.refs().change_tags(changes)).await?;
        Ok(end)
    }

    /// What a table gets and loses, and the names that it has for something else.
    fn change(
        &self,
        TagPlace { table, base, snapshot }: &TagPlace,
        due: &[String],
        is_held: bool,
    ) -> (TagChange, Vec<String>) {
        let there = refs::of(&base.metadata);
        let (taken, new): (Vec<String>, Vec<String>) =
            due.iter().cloned().partition(|name| there.contains_key(name));
        let tags = there.iter().filter(|(_, reference)| !reference.is_branch());
        let tags: BTreeSet<String> = tags.map(|(name, _)| name.clone()).collect();
        let property = base.metadata.properties().get(SERVICE_TAGS);
        let turned = day_tags::turnover(self.rules, &new, property, &tags, is_held);
        let set =
            new.into_iter().map(|name| NewTag { name, snapshot: *snapshot, max_age_ms: None });
        let change = TagChange {
            table: table.clone(),
            base: base.clone(),
            set: set.collect(),
            removed: turned.removed,
            properties: HashMap::from([(SERVICE_TAGS.to_owned(), turned.property)]),
        };
        (change, taken)
    }

    /// The tags that are due by the look of `events`.
    fn due(&self, events: &LoadedTable) -> Vec<String> {
        let names: BTreeSet<String> = refs::of(&events.metadata).into_keys().collect();
        let property = events.metadata.properties().get(SERVICE_TAGS);
        day_tags::due(self.rules, self.clock.now_ms(), property, &names)
    }

    /// The names of `events` and of the tables that may be collections'.
    async fn names(&self, levels: &[String]) -> Result<Vec<String>, TagFailure> {
        let mut names = self.catalog.metastore().tables(&levels.to_vec()).await?;
        names.retain(|name| name == EVENTS_TABLE || name.starts_with(TABLE_PREFIX));
        if TAGGED_TABLES_MAX < names.len() {
            return Err(TagFailure::TooManyTables(names.len()));
        }
        Ok(names)
    }

    /// The namespaces that may have events: they are at the top.
    async fn namespaces(&self) -> Result<Vec<Vec<String>>, CatalogError> {
        self.catalog.metastore().namespaces(&Vec::new()).await
    }
}

impl PlannedJob for TagNamespaces {
    const NAME: &'static str = TAGS;
    type Error = TagsError;

    async fn run(&self, request: &RunRequest) -> Result<JobReport, TagsError> {
        let started = Instant::now();
        let mut report = JobReport { job: TAGS.to_owned(), ..JobReport::default() };
        let namespaces = match &request.levels {
            Some(levels) => {
                // Whoever names one that is not there is told so.
                self.catalog.metastore().tables(levels).await?;
                vec![levels.clone()]
            }
            None => self.namespaces().await?,
        };
        if let Some(table) = &request.table {
            let (table, reason) = (table.clone(), OF_ALL_TABLES.to_owned());
            report.skipped.push(SkippedTable { table, reason });
            return Ok(report);
        }
        for levels in namespaces {
            match Box::pin(self.tag(&levels, request.dry_run)).await {
                Ok(Some(end)) => {
                    report.tables += end.tables;
                    report.skipped.extend(end.skipped);
                }
                Ok(None) => (),
                Err(cause) => fail(&mut report, &levels.join("."), &cause),
            }
        }
        report.elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(report)
    }
}

/// Notes why a namespace gets no tags.
fn fail(report: &mut JobReport, namespace: &str, cause: &(dyn Error + 'static)) {
    warn!(namespace, error = cause, "the tables of a namespace are not tagged");
    report.errors += 1;
    let (table, reason) = (namespace.to_owned(), with_causes(cause));
    report.skipped.push(SkippedTable { table, reason });
}

/// The job that tags every namespace on a new day.
#[derive(Debug)]
pub struct TagDays {
    tags: TagNamespaces,
    /// When the first look is.
    first: Instant,
    /// The namespaces that were looked at on that day, which have nothing due until the next one. Only spares looks.
    looked: (Option<i64>, BTreeSet<Vec<String>>),
}

impl TagDays {
    /// The job of `tags`, on the server that takes the events. The tables of collections have their first refresh
    /// after `interval`, so nothing is looked at before.
    #[must_use]
    pub fn new(tags: TagNamespaces, interval: Duration) -> Self {
        let first = Instant::now() + interval.min(FIRST_LOOK_MAX);
        Self { tags, first, looked: (None, BTreeSet::new()) }
    }
}

impl Job for TagDays {
    const NAME: &'static str = TAGS;
    type Error = TagsError;

    /// Looks at the namespaces that it has not looked at since the day began.
    async fn tick(&mut self) -> Result<Progress, TagsError> {
        if let Err(cause) = self.tags.owner.check() {
            return Ok(Progress::Skipped(cause.to_string()));
        }
        let TagRules { daily, monthly } = self.tags.rules;
        if (daily == 0 && monthly == 0) || Instant::now() < self.first {
            return Ok(Progress::Idle);
        }
        let day = Some(self.tags.clock.now_ms().div_euclid(DAY_MS));
        if self.looked.0 != day {
            self.looked = (day, BTreeSet::new());
        }
        let (mut tagged, mut is_more, mut failed) = (0, false, Vec::new());
        for levels in self.tags.namespaces().await? {
            if self.looked.1.contains(&levels) {
                continue;
            }
            if NAMESPACES_MAX <= tagged {
                is_more = true;
                break;
            }
            match Box::pin(self.tags.tag(&levels, false)).await {
                // Its events may come later on the day.
                Ok(None) => continue,
                Ok(Some(end)) => {
                    tagged += usize::from(0 < end.tables);
                    for SkippedTable { table, reason } in end.skipped {
                        warn!(table, reason, "a table was not refreshed or not tagged");
                    }
                }
                Err(cause) => {
                    let name = levels.join(".");
                    warn!(name, error = &cause as &dyn Error, "a namespace is not tagged");
                    failed.push(format!("{name}: {}", with_causes(&cause)));
                    if self.tags.catalog.storage().outage().is_some() {
                        // The others would fail, too, each after its time.
                        break;
                    }
                    continue;
                }
            }
            self.looked.1.insert(levels);
        }
        if is_more || 0 < tagged || failed.is_empty() {
            return Ok(Progress::of(0 < tagged, is_more));
        }
        Ok(Progress::Skipped(failed.join("; ")))
    }
}
