//! An S3-compatible store, with a request of its own for each object that is deleted.
//!
//! The client of the store deletes by `POST ?delete` alone, even a single object. Not every store knows
//! that request: Google Cloud Storage does not. All of them know `DELETE`. Its one invariant: what a store
//! refuses it is not asked again, and its own answer is told.

use super::{REGION_DEFAULT, S3Options, sign};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use http::{HeaderMap, Method, StatusCode, Uri, header::LOCATION};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    aws::{AmazonS3, AmazonS3Builder, AwsAuthorizer, AwsCredential},
    client::{HttpClient, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody},
    path::Path as Key,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::redirect::Policy;
use std::{fmt, sync::Arc, time::Duration};

/// What errors call it.
const STORE: &str = "S3";
/// Most objects of one call that are deleted at the same time.
const DELETES_AT_ONCE: usize = 20;
/// How often a deletion is tried that the store did not get to.
const TRIES_MAX: u32 = 6;
/// The pause after the first try; each one after it is twice as long, 3.1 s in all.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// What a store itself says of an object or a bucket that is not there.
const NO_SUCH: &str = "<Code>NoSuch";
/// Longest answer that is kept of a deletion that failed.
const ANSWER_BYTES_MAX: usize = 4 << 10;
/// Longest address of a redirect that is told.
const REDIRECT_CHARS_MAX: usize = 500;
/// Longest time for a connection, and for a whole deletion: those of the client of the store.
const CONNECT_MAX: Duration = Duration::from_secs(5);
const REQUEST_MAX: Duration = Duration::from_secs(30);
/// What is not written as it is in the path of an object: the signature is of the same bytes.
const ENCODED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// A bucket of the store. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct S3Store {
    store: AmazonS3,
    /// For deletions.
    client: HttpClient,
    /// Where the bucket is, without a slash at the end.
    bucket_url: Arc<str>,
    region: Arc<str>,
}

impl S3Store {
    /// The bucket at the address that the options have. Asks the store nothing.
    pub(super) fn open(bucket: &str, options: &S3Options) -> Result<Self> {
        let region = options.region.as_deref().unwrap_or(REGION_DEFAULT);
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(region)
            .with_virtual_hosted_style_request(false);
        let mut is_plain = false;
        if let Some(endpoint) = &options.endpoint {
            is_plain = endpoint.starts_with("http://");
            builder =
                builder.with_endpoint(endpoint.trim_end_matches('/')).with_allow_http(is_plain);
        }
        if let Some(id) = &options.access_key_id {
            builder = builder.with_access_key_id(id);
        }
        if let Some(secret) = &options.secret_access_key {
            builder = builder.with_secret_access_key(secret);
        }
        if let Some(token) = &options.session_token {
            builder = builder.with_token(token);
        }
        let endpoint = sign::endpoint(options);
        Ok(Self {
            store: builder.build()?,
            client: client(is_plain)?,
            bucket_url: format!("{}/{bucket}", endpoint.trim_end_matches('/')).into(),
            region: region.into(),
        })
    }

    /// Deletes an object. After a failure of the store it is asked again: an object that went with the
    /// request before is missing then, which is no error to whoever deletes files.
    async fn delete_object(&self, object: &Key) -> Result<()> {
        let path = utf8_percent_encode(object.as_ref(), ENCODED);
        let uri = format!("{}/{path}", self.bucket_url).parse::<Uri>();
        let uri = uri.map_err(|cause| Error::Generic { store: STORE, source: Box::new(cause) })?;
        let credential = self.store.credentials().get_credential().await?;
        let mut pause = PAUSE_FIRST;
        for _ in 1..TRIES_MAX {
            match self.try_delete(&credential, &uri).await {
                Err(failure) if failure.may_pass() => tokio::time::sleep(pause).await,
                tried => return tried.map_err(|failure| failure.of_object(object)),
            }
            pause *= 2;
        }
        let tried = self.try_delete(&credential, &uri).await;
        tried.map_err(|failure| failure.of_object(object))
    }

    async fn try_delete(
        &self,
        credential: &AwsCredential,
        uri: &Uri,
    ) -> std::result::Result<(), DeleteFailure> {
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.method_mut() = Method::DELETE;
        *request.uri_mut() = uri.clone();
        AwsAuthorizer::new(credential, "s3", &self.region).authorize(&mut request, None);
        let answer = self.client.execute(request).await?;
        let status = answer.status();
        if status == StatusCode::NO_CONTENT {
            return Ok(());
        }
        if status.is_redirection() {
            let to = redirect_of(answer.headers());
            return Err(DeleteFailure::Redirect { status, to });
        }
        let body = answer.into_body().bytes().await;
        // A page of whatever is between here and the store is a success with a body.
        if status.is_success() && body.as_ref().is_ok_and(Bytes::is_empty) {
            return Ok(());
        }
        // The status counts, even where the rest of the answer is lost.
        let body = body.unwrap_or_default();
        let text = String::from_utf8_lossy(&body[..body.len().min(ANSWER_BYTES_MAX)]).into_owned();
        Err(DeleteFailure::Answer { status, text })
    }
}

/// The client for deletions. It follows no redirect: a `DELETE` would become a `GET`, whose success deletes
/// nothing, or would delete an object of another place.
fn client(is_plain: bool) -> Result<HttpClient> {
    let client = reqwest::Client::builder()
        .redirect(Policy::none())
        .https_only(!is_plain)
        .http1_only()
        .connect_timeout(CONNECT_MAX)
        .timeout(REQUEST_MAX)
        .build();
    let client =
        client.map_err(|cause| Error::Generic { store: STORE, source: Box::new(cause) })?;
    Ok(HttpClient::new(client))
}

/// Where an answer sends its client.
fn redirect_of(headers: &HeaderMap) -> String {
    let Some(to) = headers.get(LOCATION) else { return "no address".to_owned() };
    let to: String =
        String::from_utf8_lossy(to.as_bytes()).chars().take(REDIRECT_CHARS_MAX).collect();
    format!("`{to}`")
}

/// Why an object was not deleted.
#[derive(Debug, thiserror::Error)]
enum DeleteFailure {
    /// The store says so. Its status and code are read out of this text.
    #[error("the store answered with status code: {status}: {text}")]
    Answer { status: StatusCode, text: String },
    /// It, or what is in front of it, names another place.
    #[error(
        "the store redirects deletions ({status}) to {to}, and none is sent there: set `s3.endpoint` and \
         `s3.region` to those of the bucket"
    )]
    Redirect { status: StatusCode, to: String },
    /// The store says nothing.
    #[error("the store did not answer")]
    Http(#[from] HttpError),
}

impl DeleteFailure {
    /// Whether the same request may be answered otherwise in a moment, also where it was not the store that
    /// answered. A store that does not know the request never will.
    fn may_pass(&self) -> bool {
        match self {
            Self::Answer { status, text } => {
                (status.is_server_error() && *status != StatusCode::NOT_IMPLEMENTED)
                    || status.is_success()
                    || (*status == StatusCode::NOT_FOUND && !text.contains(NO_SUCH))
                    || *status == StatusCode::TOO_MANY_REQUESTS
                    || *status == StatusCode::REQUEST_TIMEOUT
            }
            // Settings mend it, and no repeat.
            Self::Redirect { .. } => false,
            // It was not sent, or the connection was closed before an answer.
            Self::Http(cause) => {
                matches!(cause.kind(), HttpErrorKind::Connect | HttpErrorKind::Request)
            }
        }
    }

    /// The same in the words of the client of the store.
    fn of_object(self, object: &Key) -> Error {
        let status = match &self {
            // A proxy may say so, too, and the object is there.
            Self::Answer { status: StatusCode::NOT_FOUND, text } if !text.contains(NO_SUCH) => None,
            Self::Answer { status, .. } => Some(*status),
            Self::Redirect { .. } | Self::Http(_) => None,
        };
        let (path, source) = (object.to_string(), Box::new(self));
        match status {
            Some(StatusCode::NOT_FOUND) => Error::NotFound { path, source },
            Some(StatusCode::FORBIDDEN) => Error::PermissionDenied { path, source },
            Some(StatusCode::UNAUTHORIZED) => Error::Unauthenticated { path, source },
            _ => Error::Generic { store: STORE, source },
        }
    }
}

impl fmt::Display for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.store, f)
    }
}

#[async_trait]
impl ObjectStore for S3Store {
    async fn put_opts(
        &self,
        location: &Key,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.store.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Key,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Key, options: GetOptions) -> Result<GetResult> {
        self.store.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Key>>,
    ) -> BoxStream<'static, Result<Key>> {
        let store = self.clone();
        let delete = move |location: Result<Key>| {
            let store = store.clone();
            async move {
                let location = location?;
                store.delete_object(&location).await?;
                Ok::<Key, Error>(location)
            }
        };
        locations.map(delete).buffered(DELETES_AT_ONCE).boxed()
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Key>,
        offset: &Key,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Key>) -> Result<ListResult> {
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Key, to: &Key, options: CopyOptions) -> Result<()> {
        self.store.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests;
