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
};

use icecore_schemas::service_table::SERVICE_TABLES;
use std::time::Duration;
use tracing::{info, warn};

const TOPIC: &str = "metadata";
/// A store that does not answer for so long keeps nobody from taking events: the log is there to
/// bridge that.
const LOOK_MAX: Duration = Duration::from_secs(20);

/// Longest that a start waits for it.
const FIRST_MAX: Duration = Duration::from_secs(2);

/// The job.
#[derive(Debug)]
pub(super) struct MetadataWatch {
    owner: LogOwnership,
    catalog: Catalog,
    /// What was told last; none once every file was found.
    told: Option<String>,
}

impl MetadataWatch {
    /// The job, which has not looked yet.
    pub(super) fn new(owner: &LogOwnership, catalog: &Catalog) -> Self {
        let told = "the server is checking for the metadata files of all tables".to_owned();
        owner.wait_for(TOPIC, told.clone());
        let (owner, catalog) = (owner.clone(), catalog.clone());
        Self { owner, catalog, told: Some(told) }
    }

    /// Looks for the first time, and for some seconds at most: what is not found by then is looked
    /// for beside the requests.
    pub(super) async fn first(&mut self) {
        if let Ok(Err(cause)) = tokio::time::timeout(FIRST_MAX, self.tick()).await {
            warn!(error = &cause as &dyn std::error::Error, "cannot check for metadata files yet");
        }
    }

    fn tell(&mut self, unreadable: Vec<UnreadableMetadata>) {
        let is_ours = |table: &UnreadableMetadata| {
            let name = table.place.name.as_str();
            table.place.levels.len() == 1
                && SERVICE_TABLES.iter().any(|table| table.name.fits(name))
        };
        let is_closing = unreadable.iter().any(is_ours);
        let named = named(unreadable.into_iter().map(|UnreadableMetadata { place, reason }| {
            let table = format!("{}.{}", place.levels.join("."), place.name);
            format!("`{}` of `{table}` {reason}", place.metadata_location)
        }));
        let text = format!(
            "the warehouse lacks files that the metastore references: {named}; restore the newer \
             warehouse or these files (no restart needed), or drop the tables"
        );
        if self.told.as_ref() == Some(&text) {
            return;
        }
        match is_closing {
            true => self.owner.refuse(TOPIC, text.clone()),
            false => self.owner.delay(TOPIC, text.clone()),
        }
        self.told = Some(text);
    }
}

impl Job for MetadataWatch {
    const NAME: &'static str = "look-for-metadata";
    type Error = CatalogError;

    async fn tick(&mut self) -> Result<Progress, CatalogError> {
        if self.told.is_none() {
            return Ok(Progress::Idle);
        }
        let tables = self.catalog.metastore().places().await?;
        let count = tables.len();
        match tokio::time::timeout(LOOK_MAX, self.catalog.upkeep().unreadable(tables)).await {
            Ok(Ok(unreadable)) if unreadable.is_empty() => {
                info!(tables = count, "the metadata files of all tables exist");
                self.told = None;
                self.owner.clear(TOPIC);
                return Ok(Progress::Done);
            }
            Ok(Ok(unreadable)) => self.tell(unreadable),
            Ok(Err(cause)) => {
                self.owner.clear(TOPIC);
                return Err(cause);
            }
            Err(_) => {
                warn!(
                    "the store does not answer: cannot check for the metadata files of all tables"
                );
                self.owner.clear(TOPIC);
            }
        }
        Ok(Progress::Idle)
    }
}
