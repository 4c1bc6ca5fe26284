//! Signs a client's request to S3 with the configured keys, if it stays inside one table.
//!
//! Its one invariant: what is signed can do nothing but read, list, write or delete objects below
//! the table's prefix. What this module does not know it refuses, and so requests whose body says
//! what they do, such as deleting several objects: not every store compares a body with the digest
//! that was signed.

use super::{REGION_DEFAULT, S3Options, Storage, StorageBackend, access::FileScope, sts};
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
pub type HeaderValues = BTreeMap<String, Vec<String>>;

/// A request that a client wants signed, as Iceberg's specification writes it.
#[derive(Clone, Debug, Deserialize)]
pub struct SignRequest {
    /// Where it goes.
    pub uri: String,
    /// What it does.
    pub method: String,
    /// What else it says.
    #[serde(default)]
    pub headers: HeaderValues,
}

/// The signed request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SignedRequest {
    /// As it was asked for.
    pub uri: String,
    /// As they were, and the signature.
    pub headers: HeaderValues,
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
        scope: FileScope,
        request: SignRequest,
    ) -> Result<SignedRequest, CatalogError> {
        let options = match &self.inner.place {
            StorageBackend::S3 { options, .. }
                if options.access == super::FileAccess::RemoteSigning =>
            {
                options
            }
            _ => {
                return Err(CatalogError::Invalid(
                    "this warehouse does not sign requests".to_owned(),
                ));
            }
        };
        let forbidden = || CatalogError::LocationForbidden(request.uri.clone());
        let method = method_inside(own, scope, options, &request).ok_or_else(forbidden)?;
        let signed = authorization(options, method, &request).ok_or_else(forbidden)?;
        let mut headers = request.headers;
        headers.retain(|name, _| !signed.contains_key(&name.to_ascii_lowercase()));
        headers.extend(signed);
        Ok(SignedRequest { uri: request.uri, headers })
    }
}

/// The request's method when it stays inside the table.
fn method_inside(
    own: &Location,
    scope: FileScope,
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
    let is_written = scope == FileScope::Write;
    let only = |known: &[&str]| {
        query.iter().all(|(key, _)| known.contains(&key.as_str()) || key == "x-id")
    };
    let method = request.method.parse::<Method>().ok()?;
    let fits = match (&method, key.is_empty()) {
        (&Method::GET, true) => is_list(own, bucket, &query),
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
    // The whole folder, or a part of it that is a location as those of objects are.
    let listed = format!("s3://{bucket}/{prefix}");
    let is_own = listed == format!("{own}/") || own.admit(&listed).is_ok();
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
        // Java asks for the MD5 after the object.
        "x-amz-te",
    ];
    let is_checksum = ["crc32", "crc32c", "crc64nvme", "sha1", "sha256"]
        .iter()
        .any(|kind| name.strip_prefix("x-amz-checksum-") == Some(kind));
    !name.starts_with("x-amz-") || harmless.contains(&name.as_str()) || is_checksum
}

/// The headers that the signature adds or covers.
fn authorization(
    options: &S3Options,
    method: Method,
    request: &SignRequest,
) -> Option<HeaderValues> {
    let mut signed = HttpRequest::new(HttpRequestBody::empty());
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
        // The body is the client's: all that it can be is an object's contents.
        .with_sign_payload(false)
        .authorize(&mut signed, None);
    let mut headers = HeaderValues::new();
    for (name, value) in signed.headers() {
        let value = value.to_str().ok()?.to_owned();
        headers.entry(name.as_str().to_owned()).or_default().push(value);
    }
    Some(headers)
}

/// Where the store is.
pub(super) fn endpoint(options: &S3Options) -> String {
    options.endpoint.clone().unwrap_or_else(|| {
        let region = options.region.as_deref().unwrap_or(REGION_DEFAULT);
        format!("https://s3.{region}.amazonaws.com")
    })
}

#[cfg(test)]
mod tests;
