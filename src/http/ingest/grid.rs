//! What Azure Event Grid asks of an address before it sends events to it: to say a code back.
//!
//! Source: "Endpoint validation with Event Grid event schema" in Azure's documentation. Who may send is
//! decided by the token, as for events, so whoever has one may confirm.

use crate::http::{AppState, body, error::ApiError, json};
use axum::{body::Body, http::HeaderMap, response::Response};
use icecore_schemas::{batch::GridValidation, error_code::ErrorCode};
use serde_json::Value;

/// Whether a request asks for that.
pub(super) fn is_validation(headers: &HeaderMap) -> bool {
    headers.get("aeg-event-type").is_some_and(|kind| kind == "SubscriptionValidation")
}

/// Says the code; nothing is stored.
///
/// # Errors
/// 400 where there is no code, and those of reading a body.
pub(super) async fn validate(
    app: &AppState,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let body = body::read(app, headers, body).await?;
    let events: Value = serde_json::from_slice(&body.bytes).unwrap_or_default();
    match events[0]["data"]["validationCode"].as_str() {
        Some(code) => Ok(json(200, &GridValidation { validation_response: code.to_owned() })),
        None => Err(ApiError::new(
            ErrorCode::InvalidRequest,
            "a request with `aeg-event-type: SubscriptionValidation` must have one event with a `validationCode` in its data",
        )),
    }
}
