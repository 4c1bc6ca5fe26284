//! `POST /webhooks/{provider}`: deliveries of providers that sign them, and the secrets they sign
//! with.
//!
//! The signature stands for the token. Its one invariant: nothing of a delivery is stored, and nothing
//! of its body is read as JSON, before its signature was found to be right.

mod id_rule;
mod scheme;
pub(super) mod secrets;

use crate::{
    http::{
        AppState, body, default_namespace, error::ApiError, health::not_taken, ingest::answer,
        json, parse_namespace, query_string::QueryParameters,
    },
    ingest::Submission,
};
use axum::{
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use icecore_catalog::access::{PeerAddress, Principal};
use icecore_lake::event::webhook::WebhookDelivery;
use icecore_schemas::{
    batch::Ack,
    error_code::ErrorCode,
    webhooks::{Challenge, DeliveryTarget},
};
use id_rule::IdRule;
use scheme::{DeliveryContent, SignatureFault, SignatureScheme};
use secrets::{WebhookKeys, keys};

/// Longest name of a provider, in bytes.
const PROVIDER_BYTES_MAX: usize = 64;
/// Longest id of a delivery that becomes part of the event's; a hash stands for longer ones.
const DELIVERY_ID_BYTES_MAX: usize = 256;
/// Bodies above this size are hashed off the async threads: some tenths of a millisecond of work.
const HASH_INLINE_BYTES_MAX: usize = 256 * 1024;

/// The header of a reply that says what its sender may not expect.
const NOTE: &str = "x-icecore-note";
const DERIVED: &str =
    "id derived from the signed bytes: equal deliveries are one event, unless they have an id";

/// Takes one delivery.
///
/// # Errors
/// 401 for a signature that is wrong, missing or of another time, 404 for a namespace without a
/// secret of this provider, 413, 503.
pub async fn take(
    State(app): State<AppState>,
    Path(provider): Path<String>,
    QueryParameters(target): QueryParameters<DeliveryTarget>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    // The signature is not known to be right yet.
    let caller = app.access.control().is_none().then(Principal::anonymous);
    app.owner.check().map_err(|reason| not_taken(caller.as_ref(), &reason))?;
    if target.branch.is_some() {
        let text = "deliveries of webhooks go to `main`: leave `branch` out";
        return Err(ApiError::new(ErrorCode::InvalidRequest, text));
    }
    let namespace = target.ns.as_deref().map(parse_namespace).transpose()?;
    let namespace = namespace.unwrap_or_else(default_namespace);
    let keys = keys(&app, &namespace, &provider).await?.ok_or_else(|| no_secret(&provider))?;
    let believed = believe(&app, &keys, &parts.headers, body).await;
    let (body, told, hash) = believed.map_err(|refused| {
        if let (DeliveryRefusal::Distrusted(_), Some(recorder)) = (&refused, app.access.recorder())
        {
            recorder.count_unknown(&PeerAddress::text(&parts.extensions));
        }
        ApiError::from(refused)
    })?;
    if let Some(challenge) = told.challenge {
        return Ok(json(200, &Challenge { challenge }));
    }
    let delivery_id = keys.id_rule.find(told.id, &parts.headers, &body.bytes);
    let delivery_id = delivery_id.filter(|id| id.len() <= DELIVERY_ID_BYTES_MAX);
    let is_derived = delivery_id.is_none() && keys.id_rule != IdRule::Nowhere;
    let name = match &delivery_id {
        Some(id) => id.clone(),
        None if is_derived => format!("{hash:032x}"),
        None => app.ids.mint().to_string(),
    };
    let bytes = body.bytes.len();
    let delivery = WebhookDelivery {
        id: format!("{provider}:{name}"),
        provider,
        event: told.event,
        delivery_id,
        data: told.data,
        body: body.bytes,
    };
    let now_us = app.clock.now_us();
    let shelters = vec![keys.namespace.clone(), default_namespace()];
    let fallback = keys.namespace.text().to_owned();
    let decoded = delivery.decoded(keys.namespace, now_us, now_us);
    let submission = Submission { decoded, bytes, shelters, ..Submission::default() };
    let mut response = answer(&app, submission, Vec::new(), fallback, Ack::Durable).await?;
    if is_derived {
        response.headers_mut().insert(NOTE, HeaderValue::from_static(DERIVED));
    }
    Ok(response)
}

/// `OPTIONS`: what a sender of CloudEvents asks before it sends to an address it was given. Who may
/// send is decided by token or signature, so everybody may ask.
pub async fn handshake(headers: HeaderMap) -> Response {
    let mut response = StatusCode::OK.into_response();
    let answers = response.headers_mut();
    answers.insert(header::ALLOW, HeaderValue::from_static("POST,OPTIONS"));
    if let Some(origin) = headers.get("webhook-request-origin") {
        answers.insert("webhook-allowed-origin", origin.clone());
        let rate = headers.get("webhook-request-rate").cloned();
        answers.insert("webhook-allowed-rate", rate.unwrap_or(HeaderValue::from_static("*")));
    }
    response
}

/// Why a delivery is not taken.
enum DeliveryRefusal {
    Distrusted(SignatureFault),
    Unread(ApiError),
}

impl From<DeliveryRefusal> for ApiError {
    fn from(refused: DeliveryRefusal) -> Self {
        match refused {
            DeliveryRefusal::Distrusted(distrust) => {
                Self::new(ErrorCode::Unauthenticated, distrust.text())
            }
            DeliveryRefusal::Unread(cause) => cause,
        }
    }
}

/// The body, what it says, and a hash of what is signed.
type VerifiedDelivery = (body::BoundedBody, DeliveryContent, u128);

async fn believe(
    app: &AppState,
    keys: &WebhookKeys,
    headers: &HeaderMap,
    body: Body,
) -> Result<VerifiedDelivery, DeliveryRefusal> {
    let WebhookKeys { scheme, secrets, .. } = keys;
    let now_ms = app.clock.now_ms();
    scheme.look(headers, now_ms).map_err(DeliveryRefusal::Distrusted)?;
    let body = body::read(app, headers, body).await.map_err(DeliveryRefusal::Unread)?;
    let work = {
        let (scheme, secrets) = (*scheme, secrets.clone());
        let (headers, bytes) = (headers.clone(), body.bytes.clone());
        move || -> Result<(DeliveryContent, u128), SignatureFault> {
            let secrets = secrets.iter().map(String::as_str);
            let hash = scheme.verify(&headers, &bytes, secrets, now_ms)?;
            Ok((scheme.read(&headers, &bytes), hash))
        }
    };
    let believed = match body.bytes.len() <= HASH_INLINE_BYTES_MAX {
        true => work(),
        false => match tokio::task::spawn_blocking(work).await {
            Ok(believed) => believed,
            Err(panic) => return Err(DeliveryRefusal::Unread(ApiError::internal(&panic))),
        },
    };
    let (told, hash) = believed.map_err(DeliveryRefusal::Distrusted)?;
    Ok((body, told, hash))
}

fn no_secret(provider: &str) -> ApiError {
    let text = format!(
        "the namespace has no secret for provider `{provider}`: set one with PUT /admin/webhooks/{{ns}}/{{provider}}"
    );
    ApiError::new(ErrorCode::NotFound, text)
}

/// A provider's name as it is in a path.
///
/// # Errors
/// 404 for a text that is none.
fn check_provider(provider: &str) -> Result<(), ApiError> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    let starts = provider.starts_with(|c: char| c.is_ascii_alphanumeric());
    if starts && provider.len() <= PROVIDER_BYTES_MAX && provider.chars().all(allowed) {
        return Ok(());
    }
    let text = "a provider's name has 1 to 64 characters of a-z, 0-9, - and _, and starts with a letter or digit";
    Err(ApiError::new(ErrorCode::NotFound, text))
}
