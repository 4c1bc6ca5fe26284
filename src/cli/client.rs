//! Requests to a server, with bounded retries where a repeat is safe.

use crate::{
    cli::remark,
    config::{Config, redaction::without_credentials},
};
use bytes::Bytes;
use icecore_catalog::body::parse_object;
use reqwest::{Method, Response, StatusCode, header};
use serde_json::Value;
use std::time::Duration;

/// How often a request that may be repeated is tried: for some 30 s, if each failure comes at once.
const TRIES_MAX: u32 = 12;
/// Longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How much of an answer is shown that some other server gave.
const FOREIGN_SHOWN_MAX: usize = 80;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No answer.
    #[error("no answer from {url}: {reason}; is `icecore serve` running there?")]
    Send {
        /// Where it was sent.
        url: String,
        /// The last cause, as the ones above it say less.
        reason: String,
    },
    /// A URL that no request goes to.
    #[error("{url} is not the URL of a server: {reason}; check --url, such as http://HOST:PORT")]
    Address {
        /// The URL.
        url: String,
        /// What does not fit.
        reason: String,
    },
    /// An answer that broke off.
    #[error("the answer broke off; the server's log says why")]
    BrokenOff(#[source] reqwest::Error),
    /// An answer without the trailer that says how it ended.
    #[error("the response is incomplete: its end was lost on the way")]
    Unfinished,
    /// A query that failed after its first rows.
    #[error("the query failed after its first rows: {0}")]
    Failed(String),
    /// An answer that is an error.
    #[error("{status}: {text}")]
    Refused {
        /// The status.
        status: u16,
        /// What the server says.
        text: String,
        /// Line and column of the statement that it is about, from 1.
        place: Option<(usize, usize)>,
    },
    /// An answer that is not what it should be.
    #[error(
        "the response from {url} is not from this version of Icecore: {reason}; check --url (it starts with `{start}`)"
    )]
    Foreign {
        /// Where the request was sent.
        url: String,
        /// What does not fit.
        reason: String,
        /// The first characters of the answer.
        start: String,
    },
}

/// A server to talk to.
#[derive(Clone)]
pub struct ServerClient {
    url: String,
    token: Option<String>,
    http: reqwest::Client,
}

impl std::fmt::Debug for ServerClient {
    /// Shows no token and no password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerClient").field("url", &self.shown_url()).finish_non_exhaustive()
    }
}

/// One request.
#[derive(Clone, Debug)]
pub struct ClientRequest<'a> {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub path: &'a str,
    /// Headers.
    pub headers: &'a [(&'static str, String)],
    /// Body, empty for none.
    pub body: Bytes,
}

impl ServerClient {
    /// The server at `url`, or where `config` lets one listen, and the token of `config` for it.
    #[must_use]
    pub fn new(config: &Config, url: Option<&str>) -> Self {
        let url = url.map_or_else(|| config.listen.to_string(), str::to_owned);
        let scheme = if url.contains("://") { "" } else { "http://" };
        Self {
            url: format!("{scheme}{}", url.trim_end_matches('/')),
            // Files and secrets that it comes from end with a line break.
            token: config.token.as_deref().map(|token| token.trim().to_owned()),
            http: reqwest::Client::new(),
        }
    }

    /// Sends once and gives status and body, whatever the status.
    ///
    /// # Errors
    /// [`ClientError::Send`].
    pub async fn send(&self, call: &ClientRequest<'_>) -> Result<(StatusCode, Bytes), ClientError> {
        let response = self.open(call).await?;
        let status = response.status();
        let body = response.bytes().await;
        Ok((status, body.map_err(|cause| self.unanswered(&cause))?))
    }

    /// Sends once and gives the answer as it comes, whatever its status.
    ///
    /// # Errors
    /// [`ClientError::Send`], [`ClientError::Address`]; [`ClientError::Foreign`] for a web page, which
    /// some servers have at every path.
    pub async fn open(&self, call: &ClientRequest<'_>) -> Result<Response, ClientError> {
        let wrong = match reqwest::Url::parse(&self.url) {
            Ok(url) if matches!(url.scheme(), "http" | "https") => None,
            Ok(_) => Some("only http and https are spoken".to_owned()),
            Err(cause) => Some(cause.to_string()),
        };
        if let Some(reason) = wrong {
            return Err(ClientError::Address { url: self.shown_url(), reason });
        }
        let url = format!("{}{}", self.url, call.path);
        let mut request = self.http.request(call.method.clone(), &url).body(call.body.clone());
        for (name, value) in call.headers {
            request = request.header(*name, value);
        }
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.map_err(|cause| self.unanswered(&cause))?;
        let media = media_of(&answer);
        match answer.status().is_success() && media.starts_with("text/html") {
            true => Err(self.foreign_answer(answer, format!("it is `{media}`")).await),
            false => Ok(answer),
        }
    }

    /// The answer, if it is in the format `media`.
    ///
    /// # Errors
    /// [`ClientError::Foreign`].
    pub async fn only(&self, media: &str, answer: Response) -> Result<Response, ClientError> {
        let found = media_of(&answer);
        match found.starts_with(media) {
            true => Ok(answer),
            false => {
                Err(self.foreign_answer(answer, format!("it is `{found}`, not `{media}`")).await)
            }
        }
    }

    async fn foreign_answer(&self, mut answer: Response, reason: String) -> ClientError {
        // One that breaks off is as foreign, and one may have no end.
        let start = answer.chunk().await.ok().flatten().unwrap_or_default();
        self.foreign(&start, reason)
    }

    /// Says of an answer that it is not what it should be.
    pub(super) fn foreign(&self, body: &[u8], reason: String) -> ClientError {
        ClientError::Foreign { url: self.shown_url(), reason, start: start_of(body) }
    }

    fn shown_url(&self) -> String {
        without_credentials(&self.url)
    }

    fn unanswered(&self, cause: &reqwest::Error) -> ClientError {
        let mut last: &dyn std::error::Error = cause;
        while let Some(next) = last.source() {
            last = next;
        }
        ClientError::Send { url: self.shown_url(), reason: last.to_string() }
    }

    /// Sends until there is an answer that a repeat cannot better; for requests that may be
    /// repeated.
    ///
    /// # Errors
    /// The last [`ClientError::Send`].
    pub async fn send_retrying(
        &self,
        call: &ClientRequest<'_>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let (mut pause, mut is_told) = (Duration::from_millis(100), false);
        for _ in 1..TRIES_MAX {
            match self.send(call).await {
                Ok((status, body)) if !matches!(status.as_u16(), 429 | 500 | 503) => {
                    return Ok((status, body));
                }
                Err(ClientError::Send { url, reason }) if !is_told => {
                    remark(&format!("no answer from {url}: {reason}; trying again for 30 s"));
                    is_told = true;
                }
                Ok(_) | Err(ClientError::Send { .. }) => (),
                Err(other) => return Err(other),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        self.send(call).await
    }

    /// A request whose answer is JSON.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn read<T: serde::de::DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, ClientError> {
        let bytes = self.answer(method, path, body).await?;
        parse_object(&bytes).map_err(|reason| self.foreign(&bytes, reason))
    }

    /// A request whose answer is JSON and always has the member `member`.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn read_with(
        &self,
        member: &str,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, ClientError> {
        let bytes = self.answer(method, path, body).await?;
        match parse_object::<Value>(&bytes) {
            Ok(answer) if !answer[member].is_null() => Ok(answer),
            Ok(_) => Err(self.foreign(&bytes, format!("missing field `{member}`"))),
            Err(reason) => Err(self.foreign(&bytes, reason)),
        }
    }

    /// A request of which only its success matters.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn done(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(), ClientError> {
        self.answer(method, path, body).await.map(drop)
    }

    async fn answer(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Bytes, ClientError> {
        let bytes = body.map_or_else(Bytes::new, |value| value.to_string().into());
        let headers = [(header::CONTENT_TYPE.as_str(), "application/json".to_owned())];
        let (status, bytes) =
            self.send(&ClientRequest { method, path, headers: &headers, body: bytes }).await?;
        if !status.is_success() {
            return Err(refused(status, &bytes));
        }
        Ok(bytes)
    }
}

/// What the server says is wrong.
#[must_use]
pub fn refused(status: StatusCode, body: &[u8]) -> ClientError {
    let parsed: Option<icecore_schemas::error_code::ErrorBody> = serde_json::from_slice(body).ok();
    let details = parsed.as_ref().and_then(|body| body.details.clone()).unwrap_or_default();
    let number =
        |name: &str| details[name].as_u64().and_then(|number| usize::try_from(number).ok());
    let place = number("line").zip(number("column"));
    let said = parsed.map(|body| body.error).or_else(|| catalog_error(body));
    let text = match said {
        Some(said) if status == StatusCode::UNAUTHORIZED => {
            format!("{said}; for this command: set ICECORE_TOKEN, or pass --token")
        }
        Some(said) if details["namespaces"].is_array() => format!("{said}; use --ns"),
        Some(said) => said,
        None => {
            let start = start_of(body);
            format!("the response is not from Icecore; check --url (it starts with `{start}`)")
        }
    };
    ClientError::Refused { status: status.as_u16(), text, place }
}

/// The media type of an answer as it says it.
fn media_of(answer: &Response) -> String {
    let value = answer.headers().get(header::CONTENT_TYPE).map(|value| value.as_bytes());
    String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
}

/// The beginning of the first line that says something.
fn start_of(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    line.trim().chars().take(FOREIGN_SHOWN_MAX).collect()
}

/// The message of an error in the form of Iceberg's REST protocol.
fn catalog_error(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    Some(body.get("error")?.get("message")?.as_str()?.to_owned())
}
