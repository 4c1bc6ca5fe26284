//! The answer to a statement as it comes, and whether it came whole.
//!
//! A query can fail after its first rows. The server then says so in a trailer; where a proxy takes
//! trailers away, the body tells by its last line, or breaks off.

use crate::cli::{
    CliError,
    client::{ClientError, ClientRequest, ServerClient, refused},
};
use bytes::Bytes;
use http_body_util::BodyExt;
use icecore_schemas::{error_code::ErrorBody, query::OUTCOME_HEADER};
use reqwest::{Body, Method, header};

/// How much of a body's end is looked at for an error.
const END_BYTES_MAX: usize = 64 << 10;

/// An answer that is being read.
pub(super) struct AnswerReader {
    body: Body,
    media: &'static str,
    /// The server said that it ends with a trailer.
    has_trailer: bool,
    outcome: Option<String>,
    end: AnswerEnd,
}

impl AnswerReader {
    /// Sends a statement and gives its answer from the first byte on, in the format `media`.
    ///
    /// # Errors
    /// [`CliError::Client`], also for an answer in another format.
    pub(super) async fn open(
        client: &ServerClient,
        namespace: &str,
        sql: &str,
        as_of: Option<&str>,
        media: &'static str,
    ) -> Result<Self, CliError> {
        let mut request = serde_json::json!({ "sql": sql });
        if let Some(as_of) = as_of {
            request["as_of"] = as_of.into();
        }
        let path = format!(
            "/v1/{}/sql",
            percent_encoding::utf8_percent_encode(namespace, percent_encoding::NON_ALPHANUMERIC)
        );
        let headers = [
            (header::CONTENT_TYPE.as_str(), "application/json".to_owned()),
            (header::ACCEPT.as_str(), media.to_owned()),
            (header::TE.as_str(), "trailers".to_owned()),
            (OUTCOME_HEADER, "trailer".to_owned()),
        ];
        let call = ClientRequest {
            method: Method::POST,
            path: &path,
            headers: &headers,
            body: request.to_string().into(),
        };
        let answer = client.open(&call).await?;
        let status = answer.status();
        if !status.is_success() {
            let body = answer.bytes().await.map_err(ClientError::BrokenOff)?;
            return Err(refused(status, &body).into());
        }
        let answer = client.only(media, answer).await?;
        let has_trailer = answer.headers().contains_key(header::TRAILER);
        let body = Body::from(answer);
        Ok(Self { body, media, has_trailer, outcome: None, end: AnswerEnd::default() })
    }

    /// The next bytes; none at the end of a whole answer.
    ///
    /// # Errors
    /// [`ClientError::Failed`] when the query failed, [`ClientError::BrokenOff`].
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, CliError> {
        while let Some(frame) = self.body.frame().await {
            match frame.map_err(ClientError::BrokenOff)?.into_data() {
                Ok(bytes) => {
                    self.end.push(&bytes);
                    return Ok(Some(bytes));
                }
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    let text = trailers.get(OUTCOME_HEADER).map(|value| value.as_bytes());
                    self.outcome = text.map(decoded);
                }
            }
        }
        let error = match &self.outcome {
            Some(text) if text == "ok" => return Ok(None),
            Some(text) => error(text.as_bytes()),
            None if self.has_trailer => return Err(ClientError::Unfinished.into()),
            None => match self.end.error(self.media) {
                Some(error) => Some(error),
                None => return Ok(None),
            },
        };
        let text = error.unwrap_or_else(|| "the server does not say why".to_owned());
        Err(ClientError::Failed(text).into())
    }
}

fn decoded(text: &[u8]) -> String {
    percent_encoding::percent_decode(text).decode_utf8_lossy().into_owned()
}

/// The text of an error body.
fn error(body: &[u8]) -> Option<String> {
    serde_json::from_slice(body).ok().map(|body: ErrorBody| body.error)
}

/// The end of a body.
#[derive(Debug, Default)]
struct AnswerEnd(Vec<u8>);

impl AnswerEnd {
    fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(END_BYTES_MAX)..];
        let excess = (self.0.len() + bytes.len()).saturating_sub(END_BYTES_MAX);
        self.0.drain(..excess);
        self.0.extend_from_slice(bytes);
    }

    /// The error that the server wrote into the body: a line that no row looks like.
    fn error(&self, media: &str) -> Option<String> {
        let lines = self.0.strip_suffix(b"\n")?;
        let line = lines.rsplit(|byte| *byte == b'\n').next()?;
        match (media, line.first()?) {
            ("application/x-ndjson", b' ') => error(line),
            ("application/json", b']') => {
                let text = [b"{\"rows\":[".as_slice(), line].concat();
                let value: serde_json::Value = serde_json::from_slice(&text).ok()?;
                value["error"].as_str().map(str::to_owned)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
