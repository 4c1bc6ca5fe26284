//! For whom a request changes something, and under which idempotency key.

use super::RestState;
use crate::{
    audit::AuditedCall,
    catalog::Catalog,
    metastore::{RecordedAnswer, RequestKey},
};
use axum::{extract::FromRequestParts, http::request::Parts};
use std::{convert::Infallible, sync::Arc};
use uuid::Uuid;

/// A request that changes something.
pub(super) struct ChangeContext {
    rest: RestState,
    /// As the guard put it into the request's extensions; none where nothing is recorded.
    call: Option<Arc<AuditedCall>>,
    key: Option<IdempotencyKey>,
}

/// The key of a request, and what names its contents.
#[derive(Clone)]
pub(super) struct IdempotencyKey {
    pub(super) id: Uuid,
    pub(super) fingerprint: String,
}

impl IdempotencyKey {
    pub(super) fn with(self, answer: RecordedAnswer) -> RequestKey {
        RequestKey { id: self.id, fingerprint: self.fingerprint, answer }
    }
}

impl FromRequestParts<RestState> for ChangeContext {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, rest: &RestState) -> Result<Self, Infallible> {
        let (call, key) = (parts.extensions.get().cloned(), parts.extensions.get().cloned());
        Ok(Self { rest: rest.clone(), call, key })
    }
}

impl ChangeContext {
    pub(super) fn rest(&self) -> &RestState {
        &self.rest
    }

    /// The catalog for the one change of this request, which is answered so when it is made.
    pub(super) fn catalog(&self, answer: RecordedAnswer) -> Catalog {
        let catalog = match &self.call {
            Some(call) => self.rest.catalog.for_call(call),
            None => self.rest.catalog.clone(),
        };
        match &self.key {
            Some(key) => catalog.for_request(key.clone().with(answer)),
            None => catalog,
        }
    }
}
