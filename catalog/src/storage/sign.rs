//! Signs a client's request to S3 with the configured keys, if it stays inside one table.
//!
//! Its one invariant: what is signed can do nothing but read, list, write or delete objects below
//! the table's prefix. What this module does not know it refuses.

use super::{Place, REGION_DEFAULT, S3Options, Storage, access::Scope, sts};
use crate::{error::CatalogError, location::Location};
use http::{HeaderName, HeaderValue, Method, header};
use object_store::{
    aws::AwsAuthorizer,
    client::{HttpRequest, HttpRequestBody},
};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use url::Url;

/// Headers by name, each with its values.
pub type Headers = BTreeMap<String, Vec<String>>;

/// Longest body that is looked at: a thousand keys, as S3 takes them.
const BODY_BYTES_MAX: usize = 2 << 20;

/// A request that a client wants signed, as Iceberg's specification writes it.
#[derive(Clone, Debug, Deserialize)]
pub struct SignRequest {
    /// Where it goes.
    pub uri: String,
    /// What it does.
    pub method: String,
    /// What else it says.
    #[serde(default)]
    pub headers: Headers,
    /// What it carries, where that matters for what it does.
    pub body: Option<String>,
}

/// The signed request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Signed {
    /// As it was asked for.
    pub uri: String,
    /// As they were, and the signature.
    pub headers: Headers,
}

impl Storage {
    /// Signs a request to the files of the table at `own`.
    ///
    /// # Errors
    /// [`CatalogError::LocationForbidden`] for anything else than that;
    /// [`CatalogError::Invalid`] when this warehouse signs nothing.
    pub fn sign(
        &self,
        own: &Location,
        scope: Scope,
        request: SignRequest,
    ) -> Result<Signed, CatalogError> {
        let options = match &self.inner.place {
            Place::S3 { options, .. } if options.access == super::Access::RemoteSigning => options,
            _ => return Err(CatalogError::Invalid("this warehouse signs no requests".to_owned())),
        };
        let forbidden = || CatalogError::LocationForbidden(request.uri.clone());
        let method = check(own, scope, options, &request).ok_or_else(forbidden)?;
        let signed = authorization(options, method, &request).ok_or_else(forbidden)?;
        let mut headers = request.headers;
        headers.retain(|name, _| !signed.contains_key(&name.to_ascii_lowercase()));
        headers.extend(signed);
        Ok(Signed { uri: request.uri, headers })
    }
}

/// The request's method when it stays inside the table.
fn check(
    own: &Location,
    scope: Scope,
    options: &S3Options,
    request: &SignRequest,
) -> Option<Method> {
    let url = Url::parse(&request.uri).ok()?;
    let store = Url::parse(&endpoint(options)).ok()?;
    let is_plain =
        url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    // A path that a reader would shorten is not the one that the store will see.
    let rest = request.uri.split_once("://")?.1;
    let written = &rest[rest.find('/')?..];
    let is_as_written = written.split('?').next() == Some(url.path());
    if !is_plain
        || !is_as_written
        || url.origin() != store.origin()
        || !request.headers.keys().all(|name| may_say(name))
    {
        return None;
    }
    let path = url.path().strip_prefix(store.path().trim_end_matches('/'))?.strip_prefix('/')?;
    // The bucket as it is written: a slash that is encoded does not end it.
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    let key = &*percent_decode_str(key).decode_utf8().ok()?;
    let query: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    let is_own =
        |key: &str| !key.ends_with('/') && own.admit(&format!("s3://{bucket}/{key}")).is_ok();
    let is_written = scope == Scope::Write;
    let has = |name: &str| query.iter().any(|(key, _)| key == name);
    let only = |known: &[&str]| {
        query.iter().all(|(key, _)| known.contains(&key.as_str()) || key == "x-id")
    };
    let method = request.method.parse::<Method>().ok()?;
    let fits = match (&method, key.is_empty()) {
        (&Method::GET, true) => is_list(own, bucket, &query),
        (&Method::POST, true) => {
            let body = request.body.as_deref().filter(|body| body.len() <= BODY_BYTES_MAX);
            let keys = body.and_then(deleted_keys)?;
            is_written && has("delete") && only(&["delete"]) && keys.iter().all(|key| is_own(key))
        }
        (&Method::GET | &Method::HEAD, false) => is_own(key) && only(&["partNumber"]),
        (&Method::PUT, false) => is_written && is_own(key) && only(&["partNumber", "uploadId"]),
        (&Method::POST, false) => is_written && is_own(key) && only(&["uploads", "uploadId"]),
        (&Method::DELETE, false) => is_written && is_own(key) && only(&["uploadId"]),
        _ => false,
    };
    fits.then_some(method)
}

/// Whether this lists objects of the table and no others.
fn is_list(own: &Location, bucket: &str, query: &[(String, String)]) -> bool {
    let known = [
        "list-type",
        "prefix",
        "delimiter",
        "max-keys",
        "continuation-token",
        "start-after",
        "encoding-type",
        "fetch-owner",
        "x-id",
    ];
    let mut prefixes = query.iter().filter(|(key, _)| key == "prefix").map(|(_, value)| value);
    let (Some(prefix), None) = (prefixes.next(), prefixes.next()) else { return false };
    let folder = format!("{own}/");
    let is_own = format!("s3://{bucket}/{prefix}").starts_with(&folder);
    is_own
        && query.contains(&("list-type".to_owned(), "2".to_owned()))
        && query.iter().all(|(key, _)| known.contains(&key.as_str()))
}

/// Whether a request may have this header: one that S3 gives a meaning can do more than it seems,
/// such as copy from elsewhere or grant rights.
fn may_say(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let harmless = [
        "x-amz-content-sha256",
        "x-amz-date",
        "x-amz-decoded-content-length",
        "x-amz-trailer",
        "x-amz-checksum-mode",
        "x-amz-sdk-checksum-algorithm",
        "x-amz-checksum-algorithm",
        "x-amz-user-agent",
    ];
    let is_checksum = ["crc32", "crc32c", "crc64nvme", "sha1", "sha256"]
        .iter()
        .any(|kind| name.strip_prefix("x-amz-checksum-") == Some(kind));
    !name.starts_with("x-amz-") || harmless.contains(&name.as_str()) || is_checksum
}

/// The keys in the body of a request that deletes several objects; none when there is anything in
/// it that this does not know, such as a version, a comment or a marked section.
fn deleted_keys(body: &str) -> Option<Vec<String>> {
    let mut keys = Vec::new();
    let mut open: Vec<&str> = Vec::new();
    let mut rest = body.trim().strip_prefix('\u{feff}').unwrap_or(body.trim());
    if let Some(declared) = rest.strip_prefix("<?xml ") {
        rest = declared.split_once("?>")?.1;
    }
    while let Some((text, tagged)) = rest.split_once('<') {
        let (tag, after) = tagged.split_once('>')?;
        match (open.last(), tag) {
            (Some(&"Key"), "/Key") => keys.push(unescaped(text)?),
            (Some(&"Quiet"), "/Quiet") => {}
            _ if text.trim().is_empty() => {}
            _ => return None,
        }
        if let Some(closed) = tag.strip_prefix('/') {
            if open.pop() != Some(closed) {
                return None;
            }
        } else {
            let name = tag.split(' ').next()?;
            match (open.as_slice(), name) {
                ([], "Delete") if tag == name || tag.starts_with("Delete xmlns=\"") => (),
                (["Delete"], "Object" | "Quiet") | (["Delete", "Object"], "Key") if tag == name => {
                }
                _ => return None,
            }
            open.push(name);
        }
        rest = after;
    }
    (open.is_empty() && rest.trim().is_empty() && !keys.is_empty()).then_some(keys)
}

fn unescaped(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut parts = text.split('&');
    plain.push_str(parts.next()?);
    for part in parts {
        let (name, after) = part.split_once(';')?;
        plain.push(match name {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            _ => return None,
        });
        plain.push_str(after);
    }
    Some(plain)
}

/// The headers that the signature adds or covers.
fn authorization(options: &S3Options, method: Method, request: &SignRequest) -> Option<Headers> {
    let (body, signs_body) = match &request.body {
        // A body that was looked at must be the one that is sent.
        Some(body) if method == Method::POST => (HttpRequestBody::from(body.clone()), true),
        _ => (HttpRequestBody::empty(), false),
    };
    let mut signed = HttpRequest::new(body);
    *signed.method_mut() = method;
    *signed.uri_mut() = request.uri.parse().ok()?;
    for (name, values) in &request.headers {
        let name = HeaderName::try_from(name.as_str()).ok()?;
        let is_signed = name.as_str().starts_with("x-amz-") || name == header::CONTENT_TYPE;
        for value in values.iter().filter(|_| is_signed) {
            signed.headers_mut().append(&name, HeaderValue::from_str(value).ok()?);
        }
    }
    let region = options.region.as_deref().unwrap_or(REGION_DEFAULT);
    let credential = sts::credential(options);
    AwsAuthorizer::new(&credential, "s3", region)
        .with_sign_payload(signs_body)
        .authorize(&mut signed, None);
    let mut headers = Headers::new();
    for (name, value) in signed.headers() {
        let value = value.to_str().ok()?.to_owned();
        headers.entry(name.as_str().to_owned()).or_default().push(value);
    }
    Some(headers)
}

/// Where the store is.
fn endpoint(options: &S3Options) -> String {
    options.endpoint.clone().unwrap_or_else(|| {
        let region = options.region.as_deref().unwrap_or(REGION_DEFAULT);
        format!("https://s3.{region}.amazonaws.com")
    })
}

#[cfg(test)]
mod tests;
