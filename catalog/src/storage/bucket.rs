//! What the bucket of a warehouse keeps of objects that are deleted, asked of the store.
//!
//! The client of the store has no such call, so the requests are signed here. Its one invariant: what
//! the store does not say is told as not known.

use super::{REGION_DEFAULT, S3Options, Storage, StorageBackend, sign, sts};
use crate::error::with_causes;
use http::StatusCode;
use object_store::{
    ClientOptions,
    aws::AwsAuthorizer,
    client::{HttpConnector, HttpRequest, HttpRequestBody, ReqwestConnector},
};
use std::{error::Error, time::Duration};

/// Longest wait for each answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// What a store answers of a bucket that never had Object Lock.
const NO_LOCK: &str = "ObjectLockConfigurationNotFoundError";

/// Whether a bucket keeps old versions of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BucketVersioning {
    /// It never did.
    Off,
    /// It does.
    Enabled,
    /// It did, and has those of that time.
    Suspended,
}

/// Whether a bucket forbids that versions are deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectLock {
    /// It does not.
    Off,
    /// It does: always with this rule, such as `GOVERNANCE for 30 days`, else where a request asks for it.
    On(Option<String>),
}

/// What a bucket keeps of deleted objects; where it is not known, why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketState {
    /// Old versions.
    pub versioning: Result<BucketVersioning, String>,
    /// Versions that nobody can delete.
    pub object_lock: Result<ObjectLock, String>,
}

impl Storage {
    /// What the bucket keeps of deleted objects; none where the warehouse is on a local disk. Asks the
    /// store twice, for at most twenty seconds.
    pub async fn bucket_state(&self) -> Option<BucketState> {
        let StorageBackend::S3 { options, bucket, .. } = &self.inner.place else { return None };
        let versioning = Box::pin(ask(options, bucket, "versioning")).await;
        let object_lock = Box::pin(ask(options, bucket, "object-lock")).await;
        Some(BucketState {
            versioning: versioning.and_then(|answer| answer.versioning()),
            object_lock: object_lock.and_then(|answer| answer.object_lock()),
        })
    }
}

/// What a store answered.
struct BucketAnswer {
    status: StatusCode,
    text: String,
}

impl BucketAnswer {
    fn versioning(&self) -> Result<BucketVersioning, String> {
        self.check("VersioningConfiguration")?;
        match sts::element(&self.text, "Status") {
            None => Ok(BucketVersioning::Off),
            Some("Enabled") => Ok(BucketVersioning::Enabled),
            Some("Suspended") => Ok(BucketVersioning::Suspended),
            Some(_) => Err("the store answered with another state".to_owned()),
        }
    }

    fn object_lock(&self) -> Result<ObjectLock, String> {
        if sts::code(&self.text) == Some(NO_LOCK) {
            return Ok(ObjectLock::Off);
        }
        self.check("ObjectLockConfiguration")?;
        if sts::element(&self.text, "ObjectLockEnabled") != Some("Enabled") {
            return Ok(ObjectLock::Off);
        }
        let rule = sts::element(&self.text, "Mode").map(|mode| {
            let time = ["Days", "Years"].into_iter().find_map(|unit| {
                let count = sts::element(&self.text, unit)?;
                Some(format!("{count} {}", unit.to_lowercase()))
            });
            time.map_or_else(|| mode.to_owned(), |time| format!("{mode} for {time}"))
        });
        Ok(ObjectLock::On(rule))
    }

    /// Refuses an answer to another question: a store that does not know this one may list the bucket.
    fn check(&self, root: &str) -> Result<(), String> {
        if !self.status.is_success() {
            // What else the answer says may be a secret.
            let code = sts::code(&self.text).map_or_else(String::new, |code| format!(" {code}"));
            return Err(format!("the store answered {}{code}", self.status.as_u16()));
        }
        match self.text.contains(&format!("<{root}")) {
            true => Ok(()),
            false => Err("the store does not know the question".to_owned()),
        }
    }
}

async fn ask(options: &S3Options, bucket: &str, what: &str) -> Result<BucketAnswer, String> {
    if options.access_key_id.is_none() {
        return Err("`s3.access_key_id` is not set".to_owned());
    }
    let endpoint = sign::endpoint(options);
    let uri = format!("{}/{bucket}?{what}", endpoint.trim_end_matches('/'));
    let mut request = HttpRequest::new(HttpRequestBody::empty());
    *request.uri_mut() =
        uri.parse().map_err(|_| "the address of the store is no URL".to_owned())?;
    let region = options.region.as_deref().unwrap_or(REGION_DEFAULT);
    let credential = sts::credential(options);
    AwsAuthorizer::new(&credential, "s3", region).authorize(&mut request, None);
    let client =
        ClientOptions::new().with_timeout(TIMEOUT).with_allow_http(endpoint.starts_with("http://"));
    let client = ReqwestConnector::default().connect(&client);
    let client = client.map_err(|cause| unanswered(&cause))?;
    let answer = client.execute(request).await.map_err(|cause| unanswered(&cause))?;
    let status = answer.status();
    let body = answer.into_body().bytes().await.map_err(|cause| unanswered(&cause))?;
    let text = String::from_utf8_lossy(&body[..body.len().min(ANSWER_BYTES_MAX)]).into_owned();
    Ok(BucketAnswer { status, text })
}

fn unanswered(cause: &(dyn Error + 'static)) -> String {
    format!("the store did not answer: {}", with_causes(cause))
}

#[cfg(test)]
mod tests;
