//! Which changes make a version of a document, and which version that is.
//!
//! It follows from what is always kept of a change, so it is the same whichever texts are gone.

use super::{
    AnomalyKind, ChangeOp,
    entry::{ChangeEntry, ImageKind, image_of},
    patch,
};

/// A document that is there, as far as its next versions depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DocumentVersion {
    /// 1 as it is created, one more with each change since.
    pub version: i64,
    /// What the last change did.
    pub op: ChangeOp,
    /// When that was, microseconds since 1970 UTC.
    pub updated_at: i64,
}

/// A change, as far as versions depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionChange {
    op: ChangeOp,
    ts: i64,
    image: ImageKind,
}

impl VersionChange {
    /// A change at `ts`, microseconds since 1970 UTC, with the columns `after` and `patch`.
    #[must_use]
    pub fn new(op: ChangeOp, ts: i64, after: Option<&str>, patch: Option<&str>) -> Self {
        let (image, _) = image_of(op, after, patch);
        Self { op, ts, image }
    }

    pub(super) fn of(entry: &ChangeEntry) -> Self {
        Self { op: entry.op, ts: entry.ts, image: entry.image }
    }
}

impl DocumentVersion {
    /// What a change leaves of the document that was there before it; none where it is not there.
    #[must_use]
    pub fn after(former: Option<Self>, change: VersionChange) -> Option<Self> {
        if reason_against(former, change).is_some() {
            return former;
        }
        let VersionChange { op, ts, .. } = change;
        (op != ChangeOp::Delete).then(|| Self { version: next(former), op, updated_at: ts })
    }
}

/// The version that a change makes of the document before it.
pub(super) fn next(former: Option<DocumentVersion>) -> i64 {
    former.map_or(1, |former| former.version.saturating_add(1))
}

/// Why a change makes no version, if it makes none, and what to say of that.
pub(super) fn reason_against(
    former: Option<DocumentVersion>,
    change: VersionChange,
) -> Option<Option<AnomalyKind>> {
    // A delete stands against nothing: a base knows none, and must not change the answer.
    if change.op == ChangeOp::Delete {
        return former.is_none().then_some(None);
    }
    let is_newer =
        |former: DocumentVersion| former.op != ChangeOp::Read && change.ts < former.updated_at;
    if change.op == ChangeOp::Read && former.is_some_and(is_newer) {
        return Some(Some(AnomalyKind::StaleRead));
    }
    match change.image {
        ImageKind::Absent => Some(Some(AnomalyKind::NoImage)),
        ImageKind::UnknownPatch => Some(Some(not_applied(&patch::PatchError::UnknownKind))),
        ImageKind::JsonPatch if former.is_none() => {
            Some(Some(not_applied(&patch::PatchError::NoDocument)))
        }
        ImageKind::JsonPatch | ImageKind::MergePatch | ImageKind::Whole | ImageKind::Gaps => None,
    }
}

pub(super) fn not_applied(error: &patch::PatchError) -> AnomalyKind {
    AnomalyKind::PatchNotApplied(error.to_string())
}
