//! A provider's delivery as an event, and which texts are no secrets. Leaves checking signatures to `http`.
//!
//! Its one invariant: the body is in `payload` byte for byte, whatever it is.

use crate::event::{
    DecodedBody, EventKey, NamespaceEvents, SourceBytes, dead_letter::DeadLetter, rows, stored_key,
};
use arrow::{
    array::{ArrayRef, BooleanArray, StringArray, TimestampMicrosecondArray},
    datatypes::Schema,
    record_batch::RecordBatch,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use icecore_schemas::names::Namespace;
use std::{collections::HashMap, sync::Arc};
use xxhash_rust::xxh3::xxh3_64;

/// What the types of these events begin with.
const TYPE: &str = "webhook";
/// Longest type.
const TYPE_BYTES_MAX: usize = 256;
/// `meta` of an event whose payload is no text.
const META_BASE64: &str = r#"{"payloadEncoding":"base64"}"#;

/// Longest secret.
const SECRET_BYTES_MAX: usize = 1024;
/// Shortest key of Standard Webhooks, by its specification. An empty one would sign for anybody.
const STANDARD_KEY_BYTES_MIN: usize = 24;

/// Whether a secret can be one of any provider.
///
/// # Errors
/// The text for who set it.
pub fn check_secret(secret: &str) -> Result<(), &'static str> {
    match secret.len() {
        1..=SECRET_BYTES_MAX => Ok(()),
        _ => Err("must have 1 to 1024 bytes"),
    }
}

/// Whether a secret can be one of Standard Webhooks: base64 after `whsec_`. Any text without that may be
/// one, as senders with a secret of their own have it.
///
/// # Errors
/// The text for who set it.
pub fn check_standard_secret(secret: &str) -> Result<(), &'static str> {
    let Some(key) = secret.strip_prefix("whsec_") else { return Ok(()) };
    match STANDARD.decode(key) {
        Ok(key) if STANDARD_KEY_BYTES_MIN <= key.len() => Ok(()),
        Ok(_) | Err(_) => Err("must have base64 of at least 24 bytes after `whsec_`"),
    }
}

/// Whether events of this type are deliveries.
pub(crate) fn is_delivery(event_type: &str) -> bool {
    event_type.strip_prefix(TYPE).is_some_and(|rest| rest.starts_with('.'))
}

/// A delivery that comes again may differ in what the provider notes about sending it.
pub(crate) fn content(id: &str) -> u64 {
    xxh3_64(id.as_bytes()).max(1)
}

/// A delivery whose signature is right.
#[derive(Clone, Debug)]
pub struct WebhookDelivery {
    /// The event's id.
    pub id: String,
    /// Who sent it, as it is in the path.
    pub provider: String,
    /// The provider's word for what happened.
    pub event: Option<String>,
    /// The provider's id of the delivery.
    pub delivery_id: Option<String>,
    /// JSON that stands in a body which is none.
    pub data: Option<String>,
    /// The body as it came.
    pub body: Bytes,
}

impl WebhookDelivery {
    /// `webhook.{provider}.{event}`, with a dot for what a type may not have.
    #[must_use]
    pub fn event_type(&self) -> String {
        let mut text = format!("{TYPE}.{}", self.provider);
        if let Some(event) = &self.event {
            text.push('.');
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            text.extend(event.chars().map(|c| if allowed(c) { c } else { '.' }));
        }
        text.truncate(TYPE_BYTES_MAX);
        text
    }

    /// The delivery that a dead letter keeps.
    #[must_use]
    pub fn of_letter(letter: &DeadLetter, body: Bytes) -> Self {
        let event_type = letter.event_type.as_deref().unwrap_or_default();
        let mut words = event_type.splitn(3, '.').skip(1).map(str::to_owned);
        let provider = words.next().unwrap_or_default();
        let id = letter.event_id.clone().unwrap_or_else(|| letter.id.clone());
        let delivery_id = id.strip_prefix(&format!("{provider}:")).map(str::to_owned);
        Self { event: words.next(), id, provider, delivery_id, data: None, body }
    }

    /// The event, that came at `ts_us`.
    #[must_use]
    pub fn decoded(self, namespace: Namespace, ts_us: i64, now_us: i64) -> DecodedBody {
        let body = self.body.clone();
        let rows = self.rows(&namespace, ts_us, now_us);
        let content = content(&self.id);
        // A body may look like a CloudEvent: its row is then known as one.
        let text = std::str::from_utf8(&body).ok();
        let key = EventKey { id: stored_key(&namespace, &self.id, None, text), content };
        let came = std::iter::once(0..body.len()).collect();
        let events = NamespaceEvents {
            namespace,
            rows,
            keys: vec![key],
            index: vec![0],
            came,
            former: Vec::new(),
            same: Vec::new(),
        };
        DecodedBody {
            copied: 0,
            received: 1,
            accepted: vec![events],
            rejected: Vec::new(),
            source: SourceBytes { bytes: body, ..SourceBytes::default() },
            is_webhook: true,
            branch: None,
        }
    }

    fn rows(&self, namespace: &Namespace, ts_us: i64, now_us: i64) -> RecordBatch {
        let text = |text: &str| Arc::new(StringArray::from(vec![text])) as ArrayRef;
        let time = |us: i64| {
            Arc::new(TimestampMicrosecondArray::from(vec![us]).with_timezone(rows::UTC)) as ArrayRef
        };
        let mut values: HashMap<&str, ArrayRef> = HashMap::from([
            ("id", text(&self.id)),
            ("type", text(&self.event_type())),
            ("ts", time(ts_us)),
            ("ns", text(namespace.text())),
            ("ingested_at", time(now_us)),
            ("provider", text(&self.provider)),
            ("verified", Arc::new(BooleanArray::from(vec![true])) as ArrayRef),
        ]);
        for (name, value) in
            [("event_type", &self.event), ("delivery_id", &self.delivery_id), ("data", &self.data)]
        {
            values.extend(value.as_deref().map(|value| (name, text(value))));
        }
        match std::str::from_utf8(&self.body) {
            Ok(body) => values.insert("payload", text(body)),
            Err(_) => {
                values.insert("meta", text(META_BASE64));
                values.insert("payload", text(&STANDARD.encode(&self.body)))
            }
        };
        let schema = rows::event_schema();
        let present = schema.fields().iter().filter_map(|field| {
            values.remove(field.name().as_str()).map(|value| (Arc::clone(field), value))
        });
        let (fields, columns): (Vec<_>, Vec<_>) = present.unzip();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
            .expect("each value has its column's type, and the required ones are there")
    }
}
