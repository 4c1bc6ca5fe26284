//! Looks for the current metadata file of every table when a server starts.
//!
//! A warehouse that was put back from an older copy, or is another one, lacks files that the
//! metastore names. Not ready until each was looked for; where tables that this server writes have
//! none, no events are taken. Files of one namespace of many say nothing of the warehouse, and who may
//! write there may remove them: its events wait in the log, and nobody else notices.

use crate::{
    owner::LogOwnership,
    server::stores::named,
    tasks::{Job, Progress},
};
use icecore_catalog::{
    catalog::{Catalog, metadata_check::UnreadableMetadata},
    error::CatalogError,
    metastore::{
        Metastore,
        moved::{PlaceKind, TablePlace},
    },
};
use std::{
    collections::{BTreeSet, HashSet},
    time::Duration,
};
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

const TOPIC: &str = "metadata";
/// A store that does not answer for so long keeps nobody from taking events: the log is there to
/// bridge that. Nor does one with so many tables that they take longer.
const LOOK_MAX: Duration = Duration::from_secs(20);

/// Longest that a start waits for it.
const FIRST_MAX: Duration = Duration::from_secs(2);

/// Most files of one tick; the next one goes on behind them.
const TICK_FILES_MAX: usize = 256;

/// The job. It goes through all tables once, and then again through those whose files it did not
/// find, until each is found or no longer named.
#[derive(Debug)]
pub(super) struct MetadataWatch {
    owner: LogOwnership,
    catalog: Catalog,
    files_max: usize,
    began: Instant,
    /// What this round is still to look for.
    left: Vec<TablePlace>,
    /// What it did not find.
    unreadable: Vec<UnreadableMetadata>,
    /// Files that the round before did not find; none in the first round.
    missed: Option<HashSet<String>>,
    /// The namespaces at the top that had tables in the first round.
    namespaces: BTreeSet<String>,
    /// What was told last of one namespace.
    warned: Option<String>,
    is_done: bool,
}

impl MetadataWatch {
    /// The job, which has not looked yet.
    pub(super) fn new(owner: &LogOwnership, catalog: &Catalog) -> Self {
        let text = "the server is checking for the metadata files of all tables";
        owner.wait_for(TOPIC, text.to_owned());
        Self {
            owner: owner.clone(),
            catalog: catalog.clone(),
            files_max: TICK_FILES_MAX,
            began: Instant::now(),
            left: Vec::new(),
            unreadable: Vec::new(),
            missed: None,
            namespaces: BTreeSet::new(),
            warned: None,
            is_done: false,
        }
    }

    /// Looks for the first time, and for some seconds at most: what is not found by then is looked
    /// for beside the requests.
    pub(super) async fn first(&mut self) {
        let round = async {
            while self.tick().await? == Progress::More {}
            Ok::<_, CatalogError>(())
        };
        if let Ok(Err(cause)) = timeout(FIRST_MAX, round).await {
            warn!(error = &cause as &dyn std::error::Error, "cannot check for metadata files yet");
        }
    }

    /// Begins a round.
    async fn begin(&mut self) -> Result<(), CatalogError> {
        let mut places = self.catalog.metastore().places().await?;
        match &self.missed {
            Some(missed) => places.retain(|place| missed.contains(&place.metadata_location)),
            None => {
                let there = places.iter().filter(|place| place.of != PlaceKind::Dropped);
                self.namespaces = there.filter_map(top_level).cloned().collect();
            }
        }
        self.unreadable.clear();
        self.left = places;
        Ok(())
    }

    /// The round has looked for everything.
    async fn end(&mut self) -> Result<Progress, CatalogError> {
        if self.unreadable.is_empty() {
            info!("the metadata files of all tables exist");
            self.is_done = true;
            self.owner.clear(TOPIC);
            return Ok(Progress::Done);
        }
        let written: HashSet<(String, String)> = self
            .catalog
            .metastore()
            .marks()
            .await?
            .into_iter()
            .flat_map(|of| of.tables.into_iter().map(move |(name, _)| (of.levels.concat(), name)))
            .collect();
        let unreadable = std::mem::take(&mut self.unreadable);
        let missed = unreadable.iter().map(|table| table.place.metadata_location.clone());
        self.missed = Some(missed.collect());
        let is_closing = unreadable.iter().any(|UnreadableMetadata { place, .. }| {
            place.levels.len() == 1
                && written.contains(&(place.levels.concat(), place.name.clone()))
        });
        self.tell(unreadable, is_closing);
        Ok(Progress::Idle)
    }

    fn tell(&mut self, unreadable: Vec<UnreadableMetadata>, is_closing: bool) {
        let places = unreadable.iter().map(|table| &table.place);
        let spoiled: BTreeSet<String> = places.filter_map(top_level).cloned().collect();
        let text = describe(unreadable);
        if spoiled.len() == 1 && spoiled != self.namespaces {
            self.owner.clear(TOPIC);
            if self.warned.as_ref() != Some(&text) {
                warn!("the events of this namespace wait in the log: {text}");
                self.warned = Some(text);
            }
            return;
        }
        if self.owner.obstacle_texts().contains(&text) {
            return;
        }
        match is_closing {
            true => self.owner.refuse(TOPIC, text),
            false => self.owner.delay(TOPIC, text),
        }
    }
}

fn top_level(place: &TablePlace) -> Option<&String> {
    place.levels.first()
}

fn describe(unreadable: Vec<UnreadableMetadata>) -> String {
    let named = named(unreadable.into_iter().map(|UnreadableMetadata { place, reason }| {
        let table = format!("{}.{}", place.levels.join("."), place.name);
        format!("`{}` of `{table}` {reason}", place.metadata_location)
    }));
    format!(
        "the warehouse lacks files that the metastore references: {named}; restore the newer \
         warehouse or these files (no restart needed), or drop the tables"
    )
}

/// What the warehouse lacks, if anything; without a catalog it is not there.
///
/// # Errors
/// [`CatalogError`] of a store that does not answer.
pub(super) async fn lacking(
    metastore: &Metastore,
    catalog: Option<&Catalog>,
) -> Result<Option<String>, CatalogError> {
    let places = metastore.places().await?;
    let unreadable = match catalog {
        Some(catalog) => catalog.upkeep().unreadable(places).await?,
        None => UnreadableMetadata::all(places),
    };
    Ok((!unreadable.is_empty()).then(|| describe(unreadable)))
}

impl Job for MetadataWatch {
    const NAME: &'static str = "look-for-metadata";
    type Error = CatalogError;

    /// Looks for some files. A tick that fails, or is cut short, has done nothing.
    async fn tick(&mut self) -> Result<Progress, CatalogError> {
        if self.is_done {
            return Ok(Progress::Idle);
        }
        if self.left.is_empty() {
            self.begin().await?;
        }
        let rest = self.left.len().saturating_sub(self.files_max);
        let next = self.left[rest..].to_vec();
        match timeout(LOOK_MAX, self.catalog.upkeep().unreadable(next)).await {
            Ok(Ok(unreadable)) => self.unreadable.extend(unreadable),
            Ok(Err(cause)) => {
                self.owner.clear(TOPIC);
                return Err(cause);
            }
            Err(_) => {
                warn!(
                    "the store does not answer: cannot check for the metadata files of all tables"
                );
                self.owner.clear(TOPIC);
                return Ok(Progress::Idle);
            }
        }
        self.left.truncate(rest);
        if self.left.is_empty() {
            return self.end().await;
        }
        if self.missed.is_none() && LOOK_MAX < self.began.elapsed() {
            self.owner.clear(TOPIC);
        }
        Ok(Progress::More)
    }
}

#[cfg(test)]
mod tests;
