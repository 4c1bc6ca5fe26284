//! The secrets of webhook providers: set, listed without themselves, deleted.

use super::{
    SignatureScheme, check_provider,
    id_rule::{IdRule, IdRuleChoice},
};
use crate::http::{
    AppState, body, error::ApiError, guard, json, parse_namespace, record::ChangeCaller, tables,
};
use axum::{
    body::Body,
    extract::{Extension, Path, State},
    http::HeaderMap,
    response::Response,
};
use chrono::{DateTime, SecondsFormat};
use icecore_catalog::{
    access::{Action, AuditRecorder, Principal},
    metastore::{Metastore, access::webhooks::WebhookSecret},
};
use icecore_schemas::{
    error_code::ErrorCode,
    names::Namespace,
    webhooks::{NewSecret, SecretEntry, WebhookDeleted, WebhookEntry, WebhookList},
};

/// What a delivery is checked by.
pub(super) struct WebhookKeys {
    pub(super) scheme: SignatureScheme,
    pub(super) id_rule: IdRule,
    pub(super) secrets: Vec<String>,
    /// Where its event goes.
    pub(super) namespace: Namespace,
}

const FORM: &str = "the body is not {\"secret\": \"…\", \"scheme\"?: \"…\"} with one of \"id_header\", \"id_member\" and \"no_id\": true";

/// The secrets of a provider in a namespace: its own, else those of the settings.
pub(super) async fn keys(
    app: &AppState,
    namespace: &Namespace,
    provider: &str,
) -> Result<Option<WebhookKeys>, ApiError> {
    check_provider(provider)?;
    let stored = match app.access.recorder() {
        Some(recorder) => recorder.store().webhook_secrets(namespace.name(), provider).await?,
        None => Vec::new(),
    };
    if let Some(newest) = stored.first() {
        let sent_to = Namespace::parse(&newest.sent_to).unwrap_or_else(|_| namespace.clone());
        let (scheme, id_rule) = IdRule::split(&newest.scheme);
        let same = stored.iter().filter(|secret| IdRule::split(&secret.scheme).0 == scheme);
        return Ok(Some(WebhookKeys {
            scheme: SignatureScheme::of(scheme),
            id_rule,
            secrets: same.map(|secret| secret.secret.clone()).collect(),
            namespace: sent_to,
        }));
    }
    Ok(app.webhook_secrets.get(provider).map(|secrets| WebhookKeys {
        scheme: SignatureScheme::of(provider),
        id_rule: IdRule::default(),
        secrets: secrets.clone(),
        namespace: namespace.clone(),
    }))
}

/// `PUT /admin/webhooks/{ns}/{provider}`: on return the secret is valid, and so is the one before
/// it.
///
/// # Errors
/// 400, 403, 404.
pub(in crate::http) async fn set(
    State(app): State<AppState>,
    Path((namespace, provider)): Path<(String, String)>,
    caller: ChangeCaller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    check_provider(&provider)?;
    let wrong = |text: String| ApiError::new(ErrorCode::InvalidRequest, text);
    let body = body::read(&app, &headers, body).await?;
    // The problem's own text could have the secret in it.
    let new: NewSecret = serde_json::from_slice(&body.bytes).map_err(|_| wrong(FORM.to_owned()))?;
    let scheme = match new.scheme.as_deref() {
        Some(name) => SignatureScheme::named(name).ok_or_else(|| {
            wrong(format!(
                "unknown scheme `{name}`; use github, stripe, slack, standard-webhooks, shopify, linear, workos or generic"
            ))
        })?,
        None => SignatureScheme::of(&provider),
    };
    scheme.check_secret(&new.secret).map_err(|problem| wrong(format!("the secret {problem}")))?;
    let namespace = parse_namespace(&namespace)?;
    let sent_to = tables::owner(&app, &caller.principal, namespace).await?;
    let NewSecret { id_header: header, id_member: member, no_id: is_nowhere, .. } = new;
    let rule = match (IdRuleChoice { header, member, is_nowhere }.rule()?, scheme) {
        // A new secret alone leaves the rule as it is.
        (None, SignatureScheme::Generic) => {
            let before = store(&app)?.webhook_secrets(sent_to.name(), &provider).await?;
            before.first().map(|before| IdRule::split(&before.scheme).1).unwrap_or_default()
        }
        (None, _) => IdRule::default(),
        (Some(rule), SignatureScheme::Generic) => rule,
        (Some(_), _) => {
            let text =
                format!("deliveries of {} already have an id from the provider", scheme.name());
            return Err(wrong(text));
        }
    };
    let secret = WebhookSecret {
        namespace: sent_to.name().to_owned(),
        provider: provider.clone(),
        sent_to: sent_to.text().to_owned(),
        scheme: rule.beside(scheme.name()),
        secret: new.secret,
        since_ms: app.clock.now_ms(),
    };
    store(&app)?.for_call(&caller.call).set_webhook_secret(&secret).await?;
    shown(&store(&app)?.webhook_secrets(sent_to.name(), &provider).await?)
}

/// `GET /admin/webhooks/{ns}/{provider}`: that there is a secret, and since when.
///
/// # Errors
/// 404 where there is none.
pub(in crate::http) async fn show(
    State(app): State<AppState>,
    Path((namespace, provider)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    check_provider(&provider)?;
    let namespace = parse_namespace(&namespace)?;
    shown(&store(&app)?.webhook_secrets(namespace.name(), &provider).await?)
}

/// `DELETE /admin/webhooks/{ns}/{provider}`: on return deliveries are refused.
///
/// # Errors
/// 404 where there is none.
pub(in crate::http) async fn remove(
    State(app): State<AppState>,
    Path((namespace, provider)): Path<(String, String)>,
    caller: ChangeCaller,
) -> Result<Response, ApiError> {
    check_provider(&provider)?;
    let namespace = parse_namespace(&namespace)?;
    let store = store(&app)?.for_call(&caller.call);
    if store.delete_webhook_secrets(namespace.name(), &provider).await? {
        let namespace = namespace.text().to_owned();
        return Ok(json(200, &WebhookDeleted { deleted: provider, namespace }));
    }
    Err(none_here())
}

/// `GET /admin/webhooks`: of which namespaces that the caller governs which providers have secrets.
///
/// # Errors
/// 500.
pub(in crate::http) async fn list(
    State(app): State<AppState>,
    Extension(principal): Extension<Principal>,
) -> Result<Response, ApiError> {
    let secrets = store(&app)?.all_webhook_secrets().await?;
    let same = |one: &WebhookSecret, other: &WebhookSecret| {
        (&one.namespace, &one.provider) == (&other.namespace, &other.provider)
    };
    let webhooks = secrets
        .chunk_by(same)
        .filter(|secrets| {
            let namespace = Namespace::parse(&secrets[0].sent_to);
            namespace
                .is_ok_and(|namespace| principal.may(Action::Admin, &guard::levels(&namespace)))
        })
        .filter_map(describe)
        .collect();
    Ok(json(200, &WebhookList { webhooks }))
}

fn store(app: &AppState) -> Result<&Metastore, ApiError> {
    let recorder = app.access.recorder();
    recorder.map(AuditRecorder::store).ok_or_else(|| {
        ApiError::new(ErrorCode::NotFound, "this server does not store webhook secrets")
    })
}

fn shown(secrets: &[WebhookSecret]) -> Result<Response, ApiError> {
    describe(secrets).map(|secrets| json(200, &secrets)).ok_or_else(none_here)
}

fn none_here() -> ApiError {
    let text = "the namespace has no secret for this provider; GET /admin/webhooks lists them";
    ApiError::new(ErrorCode::NotFound, text)
}

/// Secrets of one provider, the newest first, without themselves; none for none.
fn describe(secrets: &[WebhookSecret]) -> Option<WebhookEntry> {
    let time = |secret: &WebhookSecret| {
        let time = DateTime::from_timestamp_millis(secret.since_ms).unwrap_or_default();
        time.to_rfc3339_opts(SecondsFormat::Millis, true)
    };
    let newest = secrets.first()?;
    let (scheme, rule) = IdRule::split(&newest.scheme);
    Some(WebhookEntry {
        namespace: newest.sent_to.clone(),
        provider: newest.provider.clone(),
        scheme: scheme.to_owned(),
        since: time(newest),
        secrets: secrets.iter().map(|secret| SecretEntry { since: time(secret) }).collect(),
        delivery_id: (SignatureScheme::of(scheme) == SignatureScheme::Generic).then(|| rule.text()),
    })
}
