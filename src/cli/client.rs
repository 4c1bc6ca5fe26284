//! Requests to a server, with bounded retries where a repeat is safe.

use crate::config::Config;
use bytes::Bytes;
use reqwest::{Method, Response, StatusCode, header};
use std::time::Duration;

/// How often a request that may be repeated is tried.
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
    #[error("unexpected answer from {url}")]
    Answer {
        /// Where it was sent.
        url: String,
        /// What does not fit.
        #[source]
        source: serde_json::Error,
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
    /// Shows no token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerClient").field("url", &self.url).finish_non_exhaustive()
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
    /// [`ClientError::Send`].
    pub async fn open(&self, call: &ClientRequest<'_>) -> Result<Response, ClientError> {
        let url = format!("{}{}", self.url, call.path);
        let mut request = self.http.request(call.method.clone(), &url).body(call.body.clone());
        for (name, value) in call.headers {
            request = request.header(*name, value);
        }
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        request.send().await.map_err(|cause| self.unanswered(&cause))
    }

    fn unanswered(&self, cause: &reqwest::Error) -> ClientError {
        let mut last: &dyn std::error::Error = cause;
        while let Some(next) = last.source() {
            last = next;
        }
        ClientError::Send { url: self.url.clone(), reason: last.to_string() }
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
        let mut pause = Duration::from_millis(100);
        for _ in 1..TRIES_MAX {
            match self.send(call).await {
                Ok((status, body)) if !matches!(status.as_u16(), 429 | 500 | 503) => {
                    return Ok((status, body));
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
        body: Option<&serde_json::Value>,
    ) -> Result<T, ClientError> {
        let bytes = self.answer(method, path, body).await?;
        serde_json::from_slice(&bytes)
            .map_err(|source| ClientError::Answer { url: self.url.clone(), source })
    }

    /// A request of which only its success matters.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn done(
        &self,
        method: Method,
        path: &str,
        body: Option<&serde_json::Value>,
    ) -> Result<(), ClientError> {
        self.answer(method, path, body).await.map(drop)
    }

    async fn answer(
        &self,
        method: Method,
        path: &str,
        body: Option<&serde_json::Value>,
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
    let text = match parsed {
        Some(body) if status == StatusCode::UNAUTHORIZED => {
            format!("{}; for this command: set ICECORE_TOKEN, or pass --token", body.error)
        }
        Some(body) if details["namespaces"].is_array() => format!("{}; use --ns", body.error),
        Some(body) => body.error,
        None => catalog_error(body).unwrap_or_else(|| {
            let text = String::from_utf8_lossy(body);
            let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
            let start: String = line.trim().chars().take(FOREIGN_SHOWN_MAX).collect();
            format!("the response is not from Icecore; check --url (it starts with `{start}`)")
        }),
    };
    ClientError::Refused { status: status.as_u16(), text, place }
}

/// The message of an error in the form of Iceberg's REST protocol.
fn catalog_error(body: &[u8]) -> Option<String> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    Some(body.get("error")?.get("message")?.as_str()?.to_owned())
}
