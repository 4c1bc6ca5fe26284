//! Keys for one table: a role assumed with a policy that opens the table's prefix and nothing else.
//!
//! Its one invariant: a policy is a value whose text is made in one place, and every prefix in it
//! ends with a slash and has its wildcards and variables escaped. The keys may do what both the role
//! and this policy allow.

use super::{
    REGION_DEFAULT, S3Options,
    access::{AssumedRole, ClientKeys, FileScope},
};
use crate::{error::CatalogError, location::Location};
use http::{HeaderValue, Method, header};
use object_store::{
    ClientOptions,
    aws::{AwsAuthorizer, AwsCredential},
    client::{HttpConnector, HttpRequest, ReqwestConnector},
};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Longest wait for the token service.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Most tables whose keys are kept for the next client.
const KEPT_MAX: usize = 1000;
/// Longest answer of the token service that is read.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Keys that were handed out lately. They are handed out again in the first half of their life.
#[derive(Debug, Default)]
pub(super) struct KeyCache {
    kept: Mutex<HashMap<(Location, FileScope), CachedKeys>>,
}

#[derive(Clone)]
struct CachedKeys {
    keys: ClientKeys,
    since: Instant,
}

impl std::fmt::Debug for CachedKeys {
    /// Shows no secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CachedKeys").field("since", &self.since).finish_non_exhaustive()
    }
}

impl KeyCache {
    /// Keys for the files of the table at `own`, good for at least half of the role's lifetime.
    pub(super) async fn keys(
        &self,
        options: &S3Options,
        role: &AssumedRole,
        bucket: &str,
        own: &Location,
        scope: FileScope,
    ) -> Result<ClientKeys, CatalogError> {
        let key = (own.clone(), scope);
        if let Some(kept) = self.lock().get(&key)
            && kept.since.elapsed() < role.lifetime / 2
        {
            return Ok(kept.keys.clone());
        }
        let since = Instant::now();
        let keys = assume(options, role, &policy(options, role, bucket, own, scope)).await?;
        let mut kept = self.lock();
        if KEPT_MAX <= kept.len() {
            kept.clear();
        }
        kept.insert(key, CachedKeys { keys: keys.clone(), since });
        Ok(keys)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(Location, FileScope), CachedKeys>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the keys may do: with the table's objects, and list them.
pub(super) fn policy(
    options: &S3Options,
    role: &AssumedRole,
    bucket: &str,
    own: &Location,
    scope: FileScope,
) -> Value {
    let partition = partition(&role.arn);
    let key = own.as_str().strip_prefix("s3://").and_then(|rest| rest.strip_prefix(bucket));
    let prefix = format!("{}/", escaped(key.unwrap_or_default().trim_start_matches('/')));
    let read = ["s3:GetObject"];
    let write = [
        "s3:GetObject",
        "s3:PutObject",
        "s3:DeleteObject",
        "s3:AbortMultipartUpload",
        "s3:ListMultipartUploadParts",
    ];
    let actions = match scope {
        FileScope::Read => &read[..],
        FileScope::Write => &write[..],
    };
    let mut statements = vec![
        json!({
            "Effect": "Allow",
            "Action": actions,
            "Resource": [format!("arn:{partition}:s3:::{bucket}/{prefix}*")],
        }),
        json!({
            "Effect": "Allow",
            "Action": ["s3:ListBucket"],
            "Resource": [format!("arn:{partition}:s3:::{bucket}")],
            "Condition": {"StringLike": {"s3:prefix": [format!("{prefix}*")]}},
        }),
    ];
    // Of a bucket whose objects AWS encrypts with a key of KMS, S3 asks for that key in the name of
    // who reads or writes. Only through S3, and so only for what the rest allows; only with keys that
    // the role itself may use. Other stores have no such action, and some refuse a policy with it.
    if options.endpoint.is_none() {
        statements.push(json!({
            "Effect": "Allow",
            "Action": ["kms:Decrypt", "kms:GenerateDataKey"],
            "Resource": ["*"],
            "Condition": {"StringLike": {"kms:ViaService": ["s3.*"]}},
        }));
    }
    json!({"Version": "2012-10-17", "Statement": statements})
}

/// The part of AWS that a role is in, such as `aws-cn`: what it may use is there, too. Other stores
/// write roles as they like, and resources as AWS does.
fn partition(arn: &str) -> &str {
    let partition = arn.strip_prefix("arn:").and_then(|rest| rest.split(':').next());
    partition.filter(|partition| !partition.is_empty()).unwrap_or("aws")
}

/// The same text where a policy reads patterns and variables.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '$') {
            escaped.extend(["${", c.encode_utf8(&mut [0; 4]), "}"]);
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// Asks the token service for keys.
async fn assume(
    options: &S3Options,
    role: &AssumedRole,
    policy: &Value,
) -> Result<ClientKeys, CatalogError> {
    let region = options.region.as_deref().unwrap_or(REGION_DEFAULT);
    let address = match role.endpoint.as_ref().or(options.endpoint.as_ref()) {
        Some(endpoint) => endpoint.clone(),
        None => format!("https://sts.{region}.amazonaws.com"),
    };
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| CatalogError::Storage {
        operation: "ask for keys at",
        location: address.clone(),
        source: object_store::Error::Generic { store: "token service", source },
    };
    let form = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("Action", "AssumeRole")
        .append_pair("Version", "2011-06-15")
        .append_pair("RoleArn", &role.arn)
        .append_pair("RoleSessionName", "icecore")
        .append_pair("DurationSeconds", &role.lifetime.as_secs().to_string())
        .append_pair("Policy", &policy.to_string())
        .finish();
    let mut request = HttpRequest::new(form.into());
    *request.method_mut() = Method::POST;
    let uri = format!("{}/", address.trim_end_matches('/'));
    *request.uri_mut() = uri.parse().map_err(|cause| failed(Box::new(cause)))?;
    let form = HeaderValue::from_static("application/x-www-form-urlencoded");
    request.headers_mut().insert(header::CONTENT_TYPE, form);
    let credential = credential(options);
    AwsAuthorizer::new(&credential, "sts", region).authorize(&mut request, None);
    let client =
        ClientOptions::new().with_timeout(TIMEOUT).with_allow_http(address.starts_with("http://"));
    let client = ReqwestConnector::default().connect(&client);
    let answer = client.map_err(|cause| failed(Box::new(cause)))?.execute(request).await;
    let answer = answer.map_err(|cause| failed(Box::new(cause)))?;
    let status = answer.status();
    let body = answer.into_body().bytes().await.map_err(|cause| failed(Box::new(cause)))?;
    let text = String::from_utf8_lossy(&body[..body.len().min(ANSWER_BYTES_MAX)]);
    keys(&text)
        .filter(|_| status.is_success())
        // What else the answer says may be a secret.
        .ok_or_else(|| failed(format!("{status}: {}", code(&text).unwrap_or("no keys")).into()))
}

/// The configured keys as they sign.
pub(super) fn credential(options: &S3Options) -> AwsCredential {
    AwsCredential {
        key_id: options.access_key_id.clone().unwrap_or_default(),
        secret_key: options.secret_access_key.clone().unwrap_or_default(),
        token: options.session_token.clone(),
    }
}

fn keys(answer: &str) -> Option<ClientKeys> {
    let member = |name| element(answer, name).map(str::to_owned);
    let (id, secret) = (member("AccessKeyId")?, member("SecretAccessKey")?);
    Some(ClientKeys { id: Some(id), secret: Some(secret), token: Some(member("SessionToken")?) })
}

/// What an answer that is an error says it is.
pub(super) fn code(answer: &str) -> Option<&str> {
    element(answer, "Code")
}

/// The text of an XML element without members of its own; none when it is empty or escaped.
pub(super) fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let start = xml.find(&format!("<{name}>"))? + name.len() + 2;
    let text = xml[start..].split_once(&format!("</{name}>"))?.0.trim();
    (!text.is_empty() && !text.contains(['<', '&'])).then_some(text)
}

#[cfg(test)]
mod tests;
