//! Looks for the current metadata file of every table when a server starts.
//!
//! A warehouse that was put back from an older copy, or is another one, lacks files that the
//! metastore names. Not ready until each was looked for; where one of the server's own tables has
//! none, no events are taken.

use crate::{
    owner::LogOwnership,
    server::stores::named,
    tasks::{Job, Progress},
};
use icecore_catalog::{
    catalog::{Catalog, metadata_check::UnreadableMetadata},
    error::CatalogError,
    metastore::{Metastore, moved::TablePlace},
};
use icecore_schemas::service_table::SERVICE_TABLES;
use std::{collections::HashSet, time::Duration};
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

    /// What the next round looks for.
    async fn places(&self) -> Result<Vec<TablePlace>, CatalogError> {
        let mut places = self.catalog.metastore().places().await?;
        if let Some(missed) = &self.missed {
            places.retain(|place| missed.contains(&place.metadata_location));
        }
        Ok(places)
    }

    /// The round has looked for everything.
    fn end_round(&mut self) -> Progress {
        let unreadable = std::mem::take(&mut self.unreadable);
        if unreadable.is_empty() {
            info!("the metadata files of all tables exist");
            self.is_done = true;
            self.owner.clear(TOPIC);
            return Progress::Done;
        }
        let missed = unreadable.iter().map(|table| table.place.metadata_location.clone());
        self.missed = Some(missed.collect());
        self.tell(unreadable);
        Progress::Idle
    }

    fn tell(&self, unreadable: Vec<UnreadableMetadata>) {
        let is_ours = |table: &UnreadableMetadata| {
            let name = table.place.name.as_str();
            table.place.levels.len() == 1
                && SERVICE_TABLES.iter().any(|table| table.name.fits(name))
        };
        let is_closing = unreadable.iter().any(is_ours);
        let text = describe(unreadable);
        if self.owner.obstacles_told().contains(&text) {
            return;
        }
        match is_closing {
            true => self.owner.refuse(TOPIC, text),
            false => self.owner.delay(TOPIC, text),
        }
    }
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
            self.left = self.places().await?;
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
            return Ok(self.end_round());
        }
        if self.missed.is_none() && LOOK_MAX < self.began.elapsed() {
            self.owner.clear(TOPIC);
        }
        Ok(Progress::More)
    }
}

#[cfg(test)]
mod tests;
