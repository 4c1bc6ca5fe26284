//! `POST /v1/oauth/tokens`: access tokens for API tokens, as OAuth 2 and the Iceberg specification
//! have it (RFC 6749 section 4.4, RFC 8693). Errors are in OAuth's form.
//!
//! A client id is the part of an API token that finds it, a client secret the rest or the whole
//! token. Scopes that a client asks for are ignored: a token may do what its API token may do.

use super::{RestState, error::RestError};
use crate::{
    access::{self, IdentityError, IssuedToken, PeerAddress, TokenControl},
    audit::AuditEntry,
    body::{BodyReadError, whole},
};
use axum::{
    Json,
    body::Body,
    extract::{Extension, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;
use std::collections::HashMap;

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// Longest body; real ones have some hundred bytes. Anybody may send one, so it is short.
const FORM_BYTES_MAX: usize = 64 << 10;

/// Why there is no token.
enum OauthFailure {
    Invalid(&'static str, &'static str),
    /// The client is not who it says; true when it said so in a header.
    Client {
        by_header: bool,
    },
    /// Its request did not arrive.
    Unread(BodyReadError),
    Unavailable(RestError),
}

/// Who a client says it is.
#[derive(Default)]
struct ClientIdentity {
    id: Option<String>,
    secret: Option<String>,
    by_header: bool,
}

/// Answers a request for an access token.
pub(super) async fn token(
    State(rest): State<RestState>,
    peer: Option<Extension<PeerAddress>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let Some(control) = rest.access.control() else {
        let failure = OauthFailure::Invalid(
            "unsupported_grant_type",
            "this catalog needs no token: connect without authorization",
        );
        return (StatusCode::NOT_IMPLEMENTED, failure.body()).into_response();
    };
    let address = peer.map(|Extension(PeerAddress(address))| address.to_string());
    let granted = match whole(&headers, body, FORM_BYTES_MAX).await {
        Ok(form) => grant(control, address.clone(), &headers, &form).await,
        Err(cause) => Err(OauthFailure::Unread(cause)),
    };
    if let (Err(failure), Some(recorder)) = (&granted, rest.access.recorder())
        && !matches!(failure, OauthFailure::Unavailable(_))
    {
        recorder.count_unknown(&address.unwrap_or_default());
    }
    match granted {
        Ok(made) => {
            let left_ms = made.expires_ms.map(|end_ms| (end_ms - control.now_ms()).max(0));
            let answer = json!({
                "access_token": made.text,
                "token_type": "bearer",
                "expires_in": left_ms.map(|left_ms| left_ms / 1000),
                "issued_token_type": ACCESS_TOKEN,
            });
            ([(header::CACHE_CONTROL, "no-store")], Json(answer)).into_response()
        }
        Err(failure) => failure.into_response(),
    }
}

async fn grant(
    control: &TokenControl,
    address: Option<String>,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<IssuedToken, OauthFailure> {
    let form: HashMap<String, String> = url::form_urlencoded::parse(body).into_owned().collect();
    let client = client(headers, &form)?;
    let request = headers.get("x-request-id").and_then(|id| id.to_str().ok());
    let entry = AuditEntry {
        address: address.unwrap_or_default(),
        request: request.unwrap_or_default().to_owned(),
        action: "POST /v1/oauth/tokens".to_owned(),
        ..AuditEntry::default()
    };
    let made = match form.get("grant_type").map(String::as_str) {
        Some("client_credentials") => {
            let secret = client.secret.as_deref().ok_or(OauthFailure::Invalid(
                "invalid_request",
                "send client_id and client_secret, in the form or as Basic authorization",
            ))?;
            control.log_in(client.id.as_deref(), secret, entry).await
        }
        Some(EXCHANGE) => exchange(control, &client, headers, &form, entry).await?,
        Some(_) => {
            return Err(OauthFailure::Invalid(
                "unsupported_grant_type",
                "grant_type must be client_credentials, or token exchange to renew a token",
            ));
        }
        None => return Err(OauthFailure::Invalid("invalid_request", "send a grant_type")),
    };
    made.map_err(|cause| match cause {
        IdentityError::Unavailable(cause) => OauthFailure::Unavailable(cause.into()),
        IdentityError::BadToken | IdentityError::NoToken => {
            OauthFailure::Client { by_header: client.by_header }
        }
    })
}

/// Renews a token: with the client's own credentials where it sends them, else with the token.
async fn exchange(
    control: &TokenControl,
    client: &ClientIdentity,
    headers: &HeaderMap,
    form: &HashMap<String, String>,
    entry: AuditEntry,
) -> Result<Result<IssuedToken, IdentityError>, OauthFailure> {
    if let Some(secret) = &client.secret {
        return Ok(control.log_in(client.id.as_deref(), secret, entry).await);
    }
    let Some(subject) = form.get("subject_token") else {
        return Err(OauthFailure::Invalid(
            "invalid_request",
            "send the token to renew: subject_token",
        ));
    };
    // Whoever shows a token of its own beside it may renew only tokens of the same principal.
    if let Some(header) = headers.get(header::AUTHORIZATION) {
        let own = control.identify(header.to_str().ok()).await;
        let subject = control.identify(Some(&format!("Bearer {subject}"))).await;
        match (own, subject) {
            (Ok(own), Ok(subject)) if own.id() == subject.id() => (),
            (Err(cause @ IdentityError::Unavailable(_)), _)
            | (_, Err(cause @ IdentityError::Unavailable(_))) => return Ok(Err(cause)),
            _ => return Ok(Err(IdentityError::BadToken)),
        }
    }
    Ok(control.exchange(subject, entry).await)
}

fn client(
    headers: &HeaderMap,
    form: &HashMap<String, String>,
) -> Result<ClientIdentity, OauthFailure> {
    let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let basic = header
        .and_then(|header| header.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"));
    let Some((_, encoded)) = basic else {
        let field = |name: &str| form.get(name).filter(|text| !text.is_empty()).cloned();
        return Ok(ClientIdentity {
            id: field("client_id"),
            secret: field("client_secret"),
            by_header: false,
        });
    };
    let wrong =
        OauthFailure::Invalid("invalid_request", "Basic authorization must be base64 of ID:SECRET");
    let (id, secret) = access::basic(encoded).ok_or(wrong)?;
    Ok(ClientIdentity { id: Some(id), secret: Some(secret), by_header: true })
}

impl OauthFailure {
    fn body(&self) -> Json<serde_json::Value> {
        let (error, description) = match self {
            Self::Invalid(error, description) => (*error, *description),
            Self::Client { .. } => {
                ("invalid_client", "client id and secret do not match a valid token")
            }
            Self::Unread(BodyReadError::TooLarge(_)) => ("invalid_request", "the form is too long"),
            Self::Unread(BodyReadError::TooSlow) => {
                ("invalid_request", "the form arrived too slowly")
            }
            Self::Unread(BodyReadError::BrokenOff) => {
                ("invalid_request", "the form did not arrive")
            }
            Self::Unread(BodyReadError::NoRoom) | Self::Unavailable(_) => {
                ("temporarily_unavailable", "try again")
            }
        };
        Json(json!({"error": error, "error_description": description}))
    }
}

impl IntoResponse for OauthFailure {
    fn into_response(self) -> Response {
        let body = self.body();
        match self {
            // OAuth has no status of its own for a form that is too long.
            Self::Invalid(..)
            | Self::Unread(BodyReadError::TooLarge(_) | BodyReadError::BrokenOff) => {
                (StatusCode::BAD_REQUEST, body).into_response()
            }
            Self::Unread(cause @ (BodyReadError::TooSlow | BodyReadError::NoRoom)) => {
                (cause.status(), [(header::RETRY_AFTER, "1")], body).into_response()
            }
            Self::Client { by_header } => {
                let mut response = (StatusCode::UNAUTHORIZED, body).into_response();
                let challenge = if by_header { "Basic" } else { "Bearer" };
                let challenge = HeaderValue::from_static(challenge);
                response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
                response
            }
            Self::Unavailable(refused) => (refused.status(), body).into_response(),
        }
    }
}
