//! How clients get at a table's files: not through this catalog, with keys, or with signed requests.
//!
//! Its one invariant: what is handed out for one table opens no other, unless the operator chose to
//! hand out the configured keys themselves. A prefix always ends with a slash.

use super::{REGION_DEFAULT, S3Options, Storage, StorageBackend};
use crate::{error::CatalogError, location::Location};
use std::{collections::HashMap, time::Duration};

/// How clients get at the files of a warehouse on S3. Local files are theirs to open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum FileAccess {
    /// They bring keys of their own; the catalog tells them nothing.
    None,
    /// They get the configured keys, which open whatever these open.
    #[default]
    StaticKeys,
    /// They get keys of a role, for a while and for one table.
    Role(AssumedRole),
    /// They ask the catalog to sign each request.
    RemoteSigning,
}

/// The role that clients' keys are of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssumedRole {
    /// Its name for the store, such as `arn:aws:iam::123456789012:role/icecore`.
    pub arn: String,
    /// Address of the token service; when unset the store's own, and AWS's for AWS.
    pub endpoint: Option<String>,
    /// How long the keys are good, 15 minutes to an hour.
    pub lifetime: Duration,
}

/// What a client may do with a table's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileScope {
    /// Read and list them.
    Read,
    /// Also write and delete them.
    Write,
}

/// What a client needs for one table, in the words of Iceberg's file IO.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientAccess {
    /// Settings of the store. Empty where there is nothing to tell: DuckDB fails on any settings
    /// without a region.
    pub config: HashMap<String, String>,
    /// The prefix that `config` has keys for, if it has.
    pub prefix: Option<String>,
}

/// Told with the configured keys, which no scope of the caller's narrows.
const UNSCOPED: (&str, &str) =
    ("icecore.keys", "the server's own: they open all that it can open, whoever has them");

impl Storage {
    /// How clients get at this warehouse's files.
    #[must_use]
    pub fn access(&self) -> &FileAccess {
        match &self.inner.place {
            StorageBackend::Local(_) | StorageBackend::Remote(_) => &FileAccess::None,
            StorageBackend::S3 { options, .. } => &options.access,
        }
    }

    /// What a client is told about a table at `own`: for S3 the endpoint, region, path style and
    /// keys together, or nothing.
    ///
    /// # Errors
    /// [`CatalogError::Storage`] when the token service gives no keys.
    pub async fn client_access(
        &self,
        own: &Location,
        scope: FileScope,
    ) -> Result<ClientAccess, CatalogError> {
        let StorageBackend::S3 { options, sessions, bucket, .. } = &self.inner.place else {
            return Ok(ClientAccess::default());
        };
        let mut config = address(options);
        let keys = match &options.access {
            FileAccess::None => return Ok(ClientAccess::default()),
            FileAccess::RemoteSigning => {
                let signing = [
                    ("s3.remote-signing-enabled", "true"),
                    // PyIceberg signs only with this file IO, and only when told by whom.
                    ("s3.signer", "S3V4RestSigner"),
                    ("py-io-impl", "pyiceberg.io.fsspec.FsspecFileIO"),
                ];
                config.extend(signing.map(|(key, value)| (key.to_owned(), value.to_owned())));
                return Ok(ClientAccess { config, prefix: None });
            }
            FileAccess::StaticKeys => {
                if options.access_key_id.is_some() {
                    config.insert(UNSCOPED.0.to_owned(), UNSCOPED.1.to_owned());
                }
                ClientKeys {
                    id: options.access_key_id.clone(),
                    secret: options.secret_access_key.clone(),
                    token: options.session_token.clone(),
                }
            }
            FileAccess::Role(role) => sessions.keys(options, role, bucket, own, scope).await?,
        };
        let entries = [
            ("s3.access-key-id", keys.id),
            ("s3.secret-access-key", keys.secret),
            ("s3.session-token", keys.token),
        ];
        let set = |(key, value): (&str, Option<String>)| Some((key.to_owned(), value?));
        config.extend(entries.into_iter().filter_map(set));
        Ok(ClientAccess { config, prefix: Some(format!("{own}/")) })
    }
}

/// Keys as a client gets them.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct ClientKeys {
    pub(super) id: Option<String>,
    pub(super) secret: Option<String>,
    pub(super) token: Option<String>,
}

fn address(options: &S3Options) -> HashMap<String, String> {
    let region = options.region.as_deref().unwrap_or(REGION_DEFAULT);
    let entries = [
        ("s3.endpoint", options.endpoint.as_deref()),
        ("s3.path-style-access", Some("true")),
        ("s3.region", Some(region)),
        ("client.region", Some(region)),
    ];
    let set = |(key, value): (&str, Option<&str>)| Some((key.to_owned(), value?.to_owned()));
    entries.into_iter().filter_map(set).collect()
}
