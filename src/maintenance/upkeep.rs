//! What of access control nobody waits for: audit records that are left or too old, last uses of
//! tokens, access tokens that have ended.

use crate::tasks::{Job, Progress};
use icecore_catalog::{access::AccessControl, error::CatalogError};
use std::time::Duration;
use tracing::error;

/// The job that does it.
#[derive(Debug)]
pub struct AccessUpkeep {
    access: AccessControl,
    audit_kept: Duration,
}

impl AccessUpkeep {
    /// For this access control, whose audit records are kept that long.
    #[must_use]
    pub fn new(access: AccessControl, audit_kept: Duration) -> Self {
        Self { access, audit_kept }
    }
}

/// The last step, after the last request.
pub async fn finish(access: &AccessControl) {
    if let Err(cause) = access.finish().await {
        error!(error = &cause as &dyn std::error::Error, "audit records are lost");
    }
}

impl Job for AccessUpkeep {
    const NAME: &'static str = "access-upkeep";
    type Error = CatalogError;

    async fn tick(&mut self) -> Result<Progress, CatalogError> {
        self.access.tick().await?;
        if let Some(recorder) = self.access.recorder() {
            recorder.cut(self.audit_kept).await?;
        }
        Ok(Progress::Idle)
    }
}
