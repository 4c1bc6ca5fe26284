//! What of access control nobody waits for: audit records that are left, last uses of tokens,
//! access tokens that have ended.

use crate::tasks::{Job, Progress};
use icecore_catalog::{access::Access, error::CatalogError};
use tracing::error;

/// The job that does it.
#[derive(Debug)]
pub struct Upkeep {
    access: Access,
}

impl Upkeep {
    /// For this access control.
    #[must_use]
    pub fn new(access: Access) -> Self {
        Self { access }
    }

    /// The last step, after the last request.
    pub async fn finish(mut self) {
        if let Err(cause) = self.tick().await {
            error!(error = &cause as &dyn std::error::Error, "audit records are lost");
        }
    }
}

impl Job for Upkeep {
    const NAME: &'static str = "access-upkeep";
    type Error = CatalogError;

    async fn tick(&mut self) -> Result<Progress, CatalogError> {
        if let Some(control) = self.access.control() {
            control.tick().await?;
        }
        Ok(Progress::Idle)
    }
}
