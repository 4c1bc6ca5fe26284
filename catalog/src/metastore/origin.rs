//! Whom a change is made for, and how a repeat of their request is recognised.

use crate::{audit::AuditedCall, clock::NowMs};
use std::{fmt, sync::Arc};
use uuid::Uuid;

/// Who asks for what when nobody says.
pub const ANONYMOUS: &str = "anonymous";

/// Whom a change is made for. Cheap to clone.
#[derive(Clone)]
pub struct ChangeOrigin {
    /// Who asked; [`ANONYMOUS`] when nobody said.
    pub actor: Arc<str>,
    /// The request, when its client wants it to be done once whatever is sent again.
    pub request: Option<Arc<RequestKey>>,
    /// The call whose record is written with the change; none for what the service does by itself.
    pub call: Option<Arc<AuditedCall>>,
    /// The time of the changes.
    pub now: NowMs,
}

/// What makes a request the same as one before, and what that one was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestKey {
    /// The client's `Idempotency-Key`.
    pub id: Uuid,
    /// Names the request's contents: another request under the same key is a mistake.
    pub fingerprint: String,
    /// What the client is told once the change is made.
    pub answer: RecordedAnswer,
}

/// What the client is told once its change is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RecordedAnswer {
    /// 204.
    #[default]
    Empty,
    /// 200 with this JSON.
    Json(String),
    /// 200 with the table, as after a create.
    Table,
    /// 200 with the table, as after a commit.
    Commit,
    /// 200 with the view.
    View,
    /// 200 with this table, which is staged.
    Staged(String),
}

impl ChangeOrigin {
    /// Nobody in particular.
    #[must_use]
    pub fn anonymous(now: NowMs) -> Self {
        Self { actor: ANONYMOUS.into(), request: None, call: None, now }
    }
}

impl fmt::Debug for ChangeOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChangeOrigin")
            .field("actor", &self.actor)
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}
