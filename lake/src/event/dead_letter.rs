//! Dead letters: what is kept of an event that was refused, and the rows of `dead_letters`.
//!
//! Rows are only appended. The newest row of an id counts, which is the one with the most `retries`;
//! every row of an id but a discarded one has the same payload.

use crate::event::{EventLimits, RejectedEvent, RequestIds, normalize, redact, rows};
use arrow::{
    array::{ArrayRef, Int32Array, StringArray, TimestampMicrosecondArray},
    record_batch::RecordBatch,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::{borrow::Cow, sync::Arc};

/// How the `detail` of a payload in base64 begins. No other detail does: they begin with words of
/// this service.
const IN_BASE64: &str = "not UTF-8, kept in base64: ";
/// How the `detail` of a provider's delivery begins, before [`IN_BASE64`].
const WEBHOOK: &str = "verified webhook: ";

/// Where a dead letter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LetterStatus {
    /// It is in no table but `dead_letters`.
    Pending,
    /// It was sent again and taken.
    Redriven,
    /// An operator does not want it any more.
    Discarded,
}

impl LetterStatus {
    /// As it is in the column `status`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Redriven => "redriven",
            Self::Discarded => "discarded",
        }
    }

    /// From the column `status`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Pending, Self::Redriven, Self::Discarded]
            .into_iter()
            .find(|status| status.as_str() == text)
    }
}

/// One row of `dead_letters`, apart from the time that it is written at.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// Its id.
    pub id: String,
    /// The namespace it was sent to, as senders write it; another one may keep it.
    pub namespace: String,
    /// Why the event was refused: an error code.
    pub reason: String,
    /// What is wrong, and what to change.
    pub detail: String,
    /// The event's type, where it could be read.
    pub event_type: Option<String>,
    /// The event's id, where it has one.
    pub event_id: Option<String>,
    /// The batch it was sent in.
    pub batch_id: Option<String>,
    /// The event's source, where it could be read.
    pub source: Option<String>,
    /// What ties its request to others.
    pub correlation_id: Option<String>,
    /// How often it was sent again, by its sender and from here.
    pub retries: Option<i32>,
    /// Where it stands.
    pub status: LetterStatus,
    /// The event as it came, or its base64: see [`DeadLetter::bytes`].
    pub payload: String,
}

impl DeadLetter {
    /// A refused event.
    #[must_use]
    pub fn new(rejected: &RejectedEvent, id: String, request: &RequestIds) -> Self {
        Self {
            id,
            namespace: rejected.namespace.text().to_owned(),
            reason: rejected.code.as_str().to_owned(),
            detail: rejected.reason.clone(),
            event_type: rejected.event_type.clone(),
            event_id: rejected.id.clone(),
            batch_id: request.batch_id.clone(),
            source: rejected.source.clone(),
            correlation_id: request.correlation_id.clone(),
            retries: normalize::retries(&rejected.payload),
            status: LetterStatus::Pending,
            payload: rejected.payload.clone(),
        }
    }

    /// The event's bytes, as they came.
    #[must_use]
    pub fn bytes(&self) -> Cow<'_, [u8]> {
        bytes_of(&self.payload, &self.detail)
    }

    /// Whether the bytes are those of a provider's delivery, whose signature was right.
    #[must_use]
    pub fn is_webhook(&self) -> bool {
        is_webhook(&self.detail)
    }

    /// Its next row: it was sent again and taken.
    #[must_use]
    pub fn redriven(self) -> Self {
        Self { status: LetterStatus::Redriven, ..self.next() }
    }

    /// Its next row: it was sent again and refused again.
    #[must_use]
    pub fn refused_again(self, rejected: &RejectedEvent) -> Self {
        let (_, plain) = rejected.reason.split_at(marks(&rejected.reason).len());
        let detail = format!("{}{plain}", marks(&self.detail));
        Self { reason: rejected.code.as_str().to_owned(), detail, ..self.next() }
    }

    /// Its next row: nobody wants it any more.
    #[must_use]
    pub fn discarded(self) -> Self {
        Self { status: LetterStatus::Discarded, payload: String::new(), ..self.next() }
    }

    fn next(self) -> Self {
        Self { retries: Some(self.retries.unwrap_or(0).saturating_add(1)), ..self }
    }
}

/// The event's bytes, as they came, of a letter with this payload and `detail`.
#[must_use]
pub fn bytes_of<'a>(payload: &'a str, detail: &str) -> Cow<'a, [u8]> {
    let text = payload.as_bytes();
    match marks(detail).ends_with(IN_BASE64).then(|| STANDARD.decode(text)) {
        Some(Ok(bytes)) => bytes.into(),
        _ => text.into(),
    }
}

/// Whether a `detail` is that of a provider's delivery, whose signature was right.
#[must_use]
pub fn is_webhook(detail: &str) -> bool {
    marks(detail).starts_with(WEBHOOK)
}

/// The part of a `detail` that says what the payload is.
#[must_use]
pub fn marks(detail: &str) -> &str {
    let after = detail.strip_prefix(WEBHOOK).unwrap_or(detail);
    let after = after.strip_prefix(IN_BASE64).unwrap_or(after);
    &detail[..detail.len() - after.len()]
}

/// The `detail` of a provider's delivery that was refused for this reason.
#[must_use]
pub fn of_webhook(reason: &str) -> String {
    format!("{WEBHOOK}{reason}")
}

/// What a dead letter keeps of these bytes, and how its `detail` says so.
#[must_use]
pub fn keep(bytes: &[u8], reason: String) -> (String, String) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), reason),
        Err(_) => (STANDARD.encode(bytes), format!("{IN_BASE64}{reason}")),
    }
}

/// As [`keep`], for a body that could not be read: without credentials, if it may be of a Tail
/// Worker.
#[must_use]
pub fn keep_body(bytes: &[u8], reason: String, limits: &EventLimits) -> (String, String) {
    let text = String::from_utf8_lossy(bytes);
    let is_redacted = limits.redact && redact::may_be_trace(&text);
    match is_redacted.then(|| redact::redact(&text)).flatten() {
        Some(redacted) => (redacted, reason),
        None => keep(bytes, reason),
    }
}

/// Rejected events as rows of [`rows::dead_letter_schema`]: row `n` has the ULID `first_id + n`.
#[must_use]
pub fn rejected_rows(
    rejected: &[RejectedEvent],
    request: &RequestIds,
    now_us: i64,
    first_id: ulid::Ulid,
) -> RecordBatch {
    let ids = (0_u128..).map(|n| ulid::Ulid(first_id.0.wrapping_add(n)).to_string());
    let letters = rejected.iter().zip(ids).map(|(one, id)| DeadLetter::new(one, id, request));
    letter_rows(&letters.collect::<Vec<_>>(), now_us)
}

/// Rows of [`rows::dead_letter_schema`] that are written at this time.
#[must_use]
pub fn letter_rows(letters: &[DeadLetter], now_us: i64) -> RecordBatch {
    let required = |text: &dyn Fn(&DeadLetter) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(letters.iter().map(text)))
    };
    let texts = |text: &dyn Fn(&DeadLetter) -> Option<&str>| -> ArrayRef {
        Arc::new(letters.iter().map(text).collect::<StringArray>())
    };
    let times = TimestampMicrosecondArray::from(vec![now_us; letters.len()]);
    let columns: Vec<ArrayRef> = vec![
        required(&|letter| &letter.id),
        required(&|letter| &letter.namespace),
        Arc::new(times.with_timezone(rows::UTC)),
        required(&|letter| &letter.reason),
        required(&|letter| &letter.detail),
        texts(&|letter| letter.event_type.as_deref()),
        texts(&|letter| letter.event_id.as_deref()),
        texts(&|letter| letter.batch_id.as_deref()),
        texts(&|letter| letter.source.as_deref()),
        Arc::new(letters.iter().map(|letter| letter.retries).collect::<Int32Array>()),
        required(&|letter| letter.status.as_str()),
        required(&|letter| &letter.payload),
        texts(&|letter| letter.correlation_id.as_deref()),
    ];
    RecordBatch::try_new(rows::dead_letter_schema(), columns)
        .expect("the columns are those of the schema, in its order")
}

#[cfg(test)]
mod tests;
