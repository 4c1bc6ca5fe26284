//! The settings of the store, and of how clients get at it.

use super::{ConfigError, Texts};
use icecore_catalog::storage::{
    S3Options,
    access::{Access, Role},
};
use std::time::Duration;

/// What token services take at least, and what a stolen key is good for at most.
const LIFETIME: (Duration, Duration) = (Duration::from_secs(15 * 60), Duration::from_secs(60 * 60));

impl Texts {
    pub(super) fn s3(&self) -> Result<S3Options, ConfigError> {
        Ok(S3Options {
            endpoint: self.optional("s3.endpoint"),
            region: self.optional("s3.region"),
            access_key_id: self.optional("s3.access_key_id"),
            secret_access_key: self.optional("s3.secret_access_key"),
            session_token: self.optional("s3.session_token"),
            access: self.client_access()?,
        })
    }

    fn client_access(&self) -> Result<Access, ConfigError> {
        let lifetime = self.duration("storage.keys_lifetime", LIFETIME.0, LIFETIME.1)?;
        match (self.text("storage.access"), self.optional("storage.role_arn")) {
            ("none", _) => Ok(Access::None),
            ("remote-signing", _) => Ok(Access::RemoteSigning),
            ("vended", None) => Ok(Access::StaticKeys),
            ("vended", Some(arn)) => {
                let endpoint = self.optional("storage.sts_endpoint");
                Ok(Access::Role(Role { arn, endpoint, lifetime }))
            }
            _ => Err(self.wrong("storage.access", "is none of none, vended, remote-signing")),
        }
    }
}
