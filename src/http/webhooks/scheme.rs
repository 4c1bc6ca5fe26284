//! How each provider signs a delivery, and what it says of it. Pure.
//!
//! Its one invariant: a delivery is read only after its signature was found to be right, and what is
//! signed is the body as it came.

use axum::http::HeaderMap;
use base64::{Engine, engine::general_purpose::STANDARD};
use icecore_lake::event::webhook;
use ring::hmac::{Context, HMAC_SHA256, Key};
use serde_json::Value;
use subtle::ConstantTimeEq;
use xxhash_rust::xxh3::Xxh3;

/// How far a signed time may lie from now, as the providers advise.
pub(super) const TIME_MAX_MS: i64 = 300_000;
/// Most signatures of a delivery that are looked at; a provider that replaces its secret sends two.
const SIGNATURES_MAX: usize = 8;
/// Shortest key that a secret without `whsec_` is decoded to: shorter ones are words that happen to be base64.
const DECODED_KEY_BYTES_MIN: usize = 16;

/// A provider's way to sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SignatureScheme {
    GitHub,
    Stripe,
    Slack,
    /// Svix, and the specification that was made of it.
    Standard,
    Shopify,
    Linear,
    WorkOs,
    /// HMAC-SHA256 of the body in one of some usual headers.
    Generic,
}

/// Names of the schemes; the first of each is the one it is stored under.
const NAMES: &[(&str, SignatureScheme)] = &[
    ("github", SignatureScheme::GitHub),
    ("stripe", SignatureScheme::Stripe),
    ("slack", SignatureScheme::Slack),
    ("standard-webhooks", SignatureScheme::Standard),
    ("standardwebhooks", SignatureScheme::Standard),
    ("svix", SignatureScheme::Standard),
    ("shopify", SignatureScheme::Shopify),
    ("linear", SignatureScheme::Linear),
    ("workos", SignatureScheme::WorkOs),
    ("generic", SignatureScheme::Generic),
];

/// Headers of a generic signature: in hex or base64, with or without `sha256=` before it.
const GENERIC_SIGNATURES: &[&str] = &[
    "x-signature-256",
    "x-signature",
    "x-webhook-signature",
    "x-hub-signature-256",
    "x-hmac-sha256",
    "x-hmac-signature",
    "webhook-signature",
];
/// Headers of a generic delivery's id, and of its event.
const GENERIC_IDS: &[&str] =
    &["x-webhook-id", "x-delivery-id", "x-event-id", "webhook-id", "idempotency-key"];
const GENERIC_EVENTS: &[&str] = &["x-event-type", "x-webhook-event", "x-event", "x-event-name"];

/// Why a delivery is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SignatureFault {
    /// There is none, or not in the provider's form.
    NoSignature,
    /// It is not of this body and one of the secrets.
    WrongSignature,
    /// The signed time is missing or too far from now.
    WrongTime,
}

impl SignatureFault {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::NoSignature => "the delivery has no signature in the provider's format",
            Self::WrongSignature => "the signature does not match this body and the secret",
            Self::WrongTime => "the signed time is missing or more than 300 s away",
        }
    }
}

/// Signatures as the headers have them.
#[derive(Debug, Default)]
struct SignatureClaim {
    /// What is signed before the body.
    prefix: String,
    /// The bytes that the headers claim.
    signatures: Vec<Vec<u8>>,
    /// The signed time, ms since 1970, where the headers have one.
    time_ms: Option<i64>,
}

/// What a believed delivery says of itself.
#[derive(Debug, Default)]
pub(super) struct DeliveryContent {
    pub(super) id: Option<String>,
    pub(super) event: Option<String>,
    /// What a provider asks for that only wants to know whether anybody is there.
    pub(super) challenge: Option<String>,
    /// The JSON in a body that is a form.
    pub(super) data: Option<String>,
}

impl SignatureScheme {
    /// The scheme of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, scheme)| *scheme)
    }

    /// The scheme of a provider that names none.
    pub(super) fn of(provider: &str) -> Self {
        Self::named(provider).unwrap_or(Self::Generic)
    }

    pub(super) fn name(self) -> &'static str {
        NAMES.iter().find(|(_, scheme)| *scheme == self).map_or("generic", |(name, _)| name)
    }

    fn has_signed_time(self) -> bool {
        match self {
            Self::Stripe | Self::Slack | Self::Standard | Self::WorkOs => true,
            // Linear's is in the body.
            Self::GitHub | Self::Shopify | Self::Linear | Self::Generic => false,
        }
    }

    /// What can be refused before the body is read.
    ///
    /// # Errors
    /// [`SignatureFault::NoSignature`], [`SignatureFault::WrongTime`].
    pub(super) fn look(self, headers: &HeaderMap, now_ms: i64) -> Result<(), SignatureFault> {
        self.claim(headers, now_ms).map(drop)
    }

    /// Whether one of the secrets made one of the signatures; gives a hash of what is signed.
    ///
    /// # Errors
    /// [`SignatureFault`].
    pub(super) fn verify<'s>(
        self,
        headers: &HeaderMap,
        body: &[u8],
        secrets: impl Iterator<Item = &'s str>,
        now_ms: i64,
    ) -> Result<u128, SignatureFault> {
        let claim = self.claim(headers, now_ms)?;
        let signed = [claim.prefix.as_bytes(), body];
        let mut is_right = false;
        // Anybody can sign with an empty key, which earlier versions stored, and HMAC fills keys with zeros.
        let keys = secrets.flat_map(|secret| self.keys(secret));
        for key in keys.filter(|key| key.iter().any(|byte| *byte != 0)) {
            let mut context = Context::with_key(&Key::new(HMAC_SHA256, &key));
            signed.iter().for_each(|part| context.update(part));
            let tag = context.sign();
            for signature in &claim.signatures {
                is_right |= bool::from(tag.as_ref().ct_eq(signature.as_slice()));
            }
        }
        if !is_right {
            return Err(SignatureFault::WrongSignature);
        }
        if self == Self::Linear {
            let body: Value = serde_json::from_slice(body).unwrap_or_default();
            let time_ms = body["webhookTimestamp"].as_i64().ok_or(SignatureFault::WrongTime)?;
            is_near(time_ms, now_ms)?;
        }
        let mut hash = Xxh3::new();
        signed.iter().for_each(|part| hash.update(part));
        Ok(hash.digest128())
    }

    /// The keys that a secret can stand for. Of Standard Webhooks it is base64; without `whsec_` it may as
    /// well be meant as it stands, and nothing in it says which.
    fn keys(self, secret: &str) -> Vec<Vec<u8>> {
        let plain = secret.as_bytes().to_vec();
        if self != Self::Standard {
            return vec![plain];
        }
        match secret.strip_prefix("whsec_") {
            Some(key) => vec![STANDARD.decode(key).unwrap_or(plain)],
            None => {
                let decoded = STANDARD.decode(secret).into_iter();
                let long = decoded.filter(|key| DECODED_KEY_BYTES_MIN <= key.len());
                long.chain([plain]).collect()
            }
        }
    }

    /// Whether a secret can be one of this scheme; what is wrong with it otherwise.
    ///
    /// # Errors
    /// The text for who set it.
    pub(super) fn check_secret(self, secret: &str) -> Result<(), &'static str> {
        webhook::check_secret(secret)?;
        if self == Self::Standard { webhook::check_standard_secret(secret) } else { Ok(()) }
    }

    fn claim(self, headers: &HeaderMap, now_ms: i64) -> Result<SignatureClaim, SignatureFault> {
        let claim = match self {
            Self::GitHub => hex_claim(header(headers, "x-hub-signature-256"), "sha256="),
            Self::Linear => hex_claim(header(headers, "linear-signature"), ""),
            Self::Shopify => {
                let names = ["x-shopify-hmac-sha256", "shopify-hmac-sha256"];
                let text = names.iter().find_map(|name| header(headers, name));
                text.map(|text| SignatureClaim {
                    signatures: STANDARD.decode(text).into_iter().collect(),
                    ..SignatureClaim::default()
                })
            }
            Self::Stripe => timed_list(header(headers, "stripe-signature"), 1000),
            Self::WorkOs => timed_list(header(headers, "workos-signature"), 1),
            Self::Slack => slack(headers),
            Self::Standard => standard(headers, "webhook").or_else(|| standard(headers, "svix")),
            Self::Generic => {
                GENERIC_SIGNATURES.iter().find_map(|name| header(headers, name)).map(|text| {
                    SignatureClaim { signatures: either(text), ..SignatureClaim::default() }
                })
            }
        };
        let mut claim = claim
            .filter(|claim| !claim.signatures.is_empty())
            .ok_or(SignatureFault::NoSignature)?;
        claim.signatures.truncate(SIGNATURES_MAX);
        if self.has_signed_time() {
            is_near(claim.time_ms.ok_or(SignatureFault::WrongTime)?, now_ms)?;
        }
        Ok(claim)
    }

    /// What the delivery says of itself. Call it only once its signature was found to be right.
    pub(super) fn read(self, headers: &HeaderMap, body: &[u8]) -> DeliveryContent {
        let form = if is_form(headers) { form(body) } else { Vec::new() };
        let field = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value);
        let data = field("payload").filter(|text| is_json(text)).cloned();
        let json: Value = match &data {
            Some(text) => serde_json::from_str(text),
            None => serde_json::from_slice(body),
        }
        .unwrap_or_default();
        let first = |names: &[&str]| names.iter().find_map(|name| header(headers, name));
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let (id, event) = match self {
            Self::GitHub => (
                first(&["x-github-delivery"]).map(str::to_owned),
                first(&["x-github-event"]).map(str::to_owned),
            ),
            Self::Stripe => (text(&json["id"]), text(&json["type"])),
            Self::Slack => (
                text(&json["event_id"]),
                text(&json["event"]["type"])
                    .or_else(|| text(&json["type"]))
                    .or_else(|| field("command").cloned()),
            ),
            Self::Standard => (
                // That of the headers that were signed: the others are anybody's.
                match standard(headers, "webhook") {
                    Some(_) => header(headers, "webhook-id"),
                    None => header(headers, "svix-id"),
                }
                .map(str::to_owned),
                text(&json["type"])
                    .or_else(|| text(&json["event_type"]))
                    .or_else(|| text(&json["eventType"])),
            ),
            Self::Shopify => {
                let topic = first(&["x-shopify-topic", "shopify-topic"]);
                // One event of theirs may be several deliveries, of a topic each.
                let event = first(&["x-shopify-event-id", "shopify-event-id"])
                    .map(|id| format!("{id}:{}", topic.unwrap_or_default()));
                let delivery = first(&["x-shopify-webhook-id", "shopify-webhook-id"]);
                (delivery.map(str::to_owned).or(event), topic.map(str::to_owned))
            }
            Self::Linear => (
                first(&["linear-delivery"]).map(str::to_owned),
                first(&["linear-event"]).map(str::to_owned).or_else(|| text(&json["type"])),
            ),
            Self::WorkOs => (text(&json["id"]), text(&json["event"])),
            Self::Generic => (
                first(GENERIC_IDS).map(str::to_owned),
                first(GENERIC_EVENTS)
                    .map(str::to_owned)
                    .or_else(|| text(&json["type"]))
                    .or_else(|| text(&json["event"])),
            ),
        };
        let is_handshake = self == Self::Slack && json["type"] == "url_verification";
        let challenge = is_handshake.then(|| text(&json["challenge"])).flatten();
        let id = id.filter(|id| !id.is_empty());
        DeliveryContent { id, event: event.filter(|event| !event.is_empty()), challenge, data }
    }
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

fn is_near(time_ms: i64, now_ms: i64) -> Result<(), SignatureFault> {
    match time_ms.abs_diff(now_ms) <= TIME_MAX_MS.unsigned_abs() {
        true => Ok(()),
        false => Err(SignatureFault::WrongTime),
    }
}

fn hex_claim(text: Option<&str>, before: &str) -> Option<SignatureClaim> {
    let signatures = hex::decode(text?.strip_prefix(before)?).into_iter().collect();
    Some(SignatureClaim { signatures, ..SignatureClaim::default() })
}

/// `t=TIME,v1=HEX,…`, a unit of whose time is so many ms.
fn timed_list(text: Option<&str>, unit_ms: i64) -> Option<SignatureClaim> {
    let mut claim = SignatureClaim::default();
    for part in text?.split(',') {
        match part.trim().split_once('=') {
            Some(("t", time)) => {
                claim.prefix = format!("{time}.");
                claim.time_ms = time.parse::<i64>().ok().map(|time| time.saturating_mul(unit_ms));
            }
            Some(("v1", signature)) => claim.signatures.extend(hex::decode(signature)),
            _ => (),
        }
    }
    Some(claim)
}

fn slack(headers: &HeaderMap) -> Option<SignatureClaim> {
    let time = header(headers, "x-slack-request-timestamp")?;
    let signature = header(headers, "x-slack-signature")?;
    Some(SignatureClaim {
        prefix: format!("v0:{time}:"),
        signatures: hex::decode(signature.strip_prefix("v0=")?).into_iter().collect(),
        time_ms: seconds(time),
    })
}

/// Headers `webhook-id`, `webhook-timestamp`, `webhook-signature`, or Svix's own.
fn standard(headers: &HeaderMap, before: &str) -> Option<SignatureClaim> {
    let named = |name: &str| header(headers, &format!("{before}-{name}"));
    let (id, time) = (named("id")?, named("timestamp")?);
    let listed = named("signature")?.split_ascii_whitespace();
    let symmetric = listed.filter_map(|one| one.strip_prefix("v1,"));
    Some(SignatureClaim {
        prefix: format!("{id}.{time}."),
        signatures: symmetric.filter_map(|text| STANDARD.decode(text).ok()).collect(),
        time_ms: seconds(time),
    })
}

fn seconds(text: &str) -> Option<i64> {
    text.parse::<i64>().ok().map(|seconds| seconds.saturating_mul(1000))
}

/// Hex or base64, after `sha256=` or nothing.
fn either(text: &str) -> Vec<Vec<u8>> {
    let text = text.strip_prefix("sha256=").unwrap_or(text);
    hex::decode(text).into_iter().chain(STANDARD.decode(text)).collect()
}

fn is_form(headers: &HeaderMap) -> bool {
    header(headers, "content-type").is_some_and(|kind| {
        kind.to_ascii_lowercase().starts_with("application/x-www-form-urlencoded")
    })
}

fn form(body: &[u8]) -> Vec<(String, String)> {
    url::form_urlencoded::parse(body).into_owned().collect()
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

#[cfg(test)]
mod tests;
