//! The settings of the store, and of how clients get at it.

use super::{ConfigError, SettingTexts};
use icecore_catalog::storage::{
    S3Options,
    access::{AssumedRole, FileAccess},
};
use std::time::Duration;

/// What token services take at least, and what a stolen key is good for at most.
const LIFETIME: (Duration, Duration) = (Duration::from_secs(15 * 60), Duration::from_secs(60 * 60));

impl SettingTexts {
    pub(super) fn s3(&self) -> Result<S3Options, ConfigError> {
        Ok(S3Options {
            endpoint: self.http_url("s3.endpoint")?,
            region: self.optional("s3.region"),
            access_key_id: self.optional("s3.access_key_id"),
            secret_access_key: self.optional("s3.secret_access_key"),
            session_token: self.optional("s3.session_token"),
            access: self.client_access()?,
        })
    }

    /// A URL of a server, if one is set.
    fn http_url(&self, key: &str) -> Result<Option<String>, ConfigError> {
        let Some(text) = self.optional(key) else { return Ok(None) };
        if !text.starts_with("http://") && !text.starts_with("https://") {
            let shown = self.shown(key);
            let problem = format!("needs http:// or https:// before it, as in http://{shown}");
            return Err(self.wrong(key, &problem));
        }
        let is_url = url::Url::parse(&text).is_ok_and(|url| url.has_host());
        if is_url {
            Ok(Some(text))
        } else {
            Err(self.wrong(key, "is not a URL such as http://127.0.0.1:8333"))
        }
    }

    fn client_access(&self) -> Result<FileAccess, ConfigError> {
        let lifetime = self.duration("storage.keys_lifetime", LIFETIME.0, LIFETIME.1)?;
        match (self.text("storage.access"), self.optional("storage.role_arn")) {
            ("none", _) => Ok(FileAccess::None),
            ("remote-signing", _) => Ok(FileAccess::RemoteSigning),
            ("vended", None) => Ok(FileAccess::StaticKeys),
            ("vended", Some(arn)) => {
                let endpoint = self.http_url("storage.sts_endpoint")?;
                Ok(FileAccess::Role(AssumedRole { arn, endpoint, lifetime }))
            }
            _ => Err(self.wrong("storage.access", "must be none, vended or remote-signing")),
        }
    }
}
