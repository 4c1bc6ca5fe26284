//! Changes applied one after another, in order.

use super::{
    ChangeOp, Document, Finding, FindingKind,
    entry::{BaseState, ChangeEntry, ChangeText, ImageKind},
    json_node, patch,
};
use std::borrow::Cow;

/// A document between two of its changes.
#[derive(Debug)]
pub(super) struct Replay<'c> {
    /// None: there never was one.
    state: Option<ReplayState<'c>>,
    findings: Vec<Finding>,
    /// What the source said last.
    lsn: Option<i64>,
    version: Option<i64>,
}

#[derive(Debug)]
struct ReplayState<'c> {
    /// None: it was deleted, or its text is gone.
    doc: Option<Cow<'c, str>>,
    exists: bool,
    op: ChangeOp,
    version: i64,
    created_at: i64,
    updated_at: i64,
    seq: i64,
    words: Option<ChangeWords<'c>>,
}

/// What the last change said besides the document.
#[derive(Clone, Copy, Debug)]
struct ChangeWords<'c> {
    store: &'c Option<String>,
    actor: &'c Option<String>,
    bookmark: &'c Option<String>,
    event_id: &'c str,
}

impl<'c> Replay<'c> {
    /// Begins with what a base has.
    pub(super) fn of(base: Option<&'c BaseState>) -> Self {
        let state = base.map(|base| {
            let document = &base.document;
            ReplayState {
                doc: document.doc.as_deref().map(Cow::Borrowed),
                exists: base.exists,
                op: document.op,
                version: document.version,
                created_at: document.created_at,
                updated_at: document.updated_at,
                seq: document.seq,
                words: base.is_whole.then_some(ChangeWords {
                    store: &document.store,
                    actor: &document.actor,
                    bookmark: &document.bookmark,
                    event_id: &document.event_id,
                }),
            }
        });
        Self { state, findings: Vec::new(), lsn: None, version: None }
    }

    /// Applies the next change. Whether it made a version.
    pub(super) fn apply(&mut self, entry: &'c ChangeEntry) -> bool {
        self.compare_claims(entry);
        match self.reason_against(entry) {
            None => {}
            Some(None) => return false,
            Some(Some(kind)) => {
                self.find(entry, kind);
                return false;
            }
        }
        let text = entry.text.as_deref();
        let doc = self.doc_after(entry);
        let former = self.state.take();
        let existing = former.as_ref().filter(|state| state.exists);
        self.state = Some(ReplayState {
            doc,
            exists: entry.op != ChangeOp::Delete,
            op: entry.op,
            version: existing.map_or(1, |state| state.version.saturating_add(1)),
            created_at: existing.map_or(entry.ts, |state| state.created_at),
            updated_at: entry.ts,
            seq: entry.seq,
            words: text.map(ChangeWords::of),
        });
        true
    }

    /// The document as the last change left it, where its text is known.
    pub(super) fn document(&self) -> Option<Document> {
        let state = self.state.as_ref()?;
        let words = state.words?;
        if state.exists && state.doc.is_none() {
            return None;
        }
        Some(Document {
            doc: state.doc.as_deref().map(str::to_owned),
            op: state.op,
            store: words.store.clone(),
            version: state.version,
            created_at: state.created_at,
            updated_at: state.updated_at,
            actor: words.actor.clone(),
            bookmark: words.bookmark.clone(),
            seq: state.seq,
            event_id: words.event_id.to_owned(),
        })
    }

    pub(super) fn into_findings(self) -> Vec<Finding> {
        self.findings
    }

    /// Why a change makes no version, if it makes none, and what to say of that. It follows from what is
    /// kept of every change.
    fn reason_against(&self, entry: &ChangeEntry) -> Option<Option<FindingKind>> {
        // A delete stands against nothing: a base knows none, and must not change the answer.
        let existing = self.state.as_ref().filter(|state| state.exists);
        let exists = existing.is_some();
        if entry.op == ChangeOp::Delete {
            return (!exists).then_some(None);
        }
        let is_newer =
            |state: &ReplayState<'_>| state.op != ChangeOp::Read && entry.ts < state.updated_at;
        if entry.op == ChangeOp::Read && existing.is_some_and(is_newer) {
            return Some(Some(FindingKind::StaleRead));
        }
        match entry.image {
            ImageKind::Absent => Some(Some(FindingKind::NoImage)),
            ImageKind::UnknownPatch => Some(Some(not_applied(&patch::PatchError::UnknownKind))),
            ImageKind::JsonPatch if !exists => {
                Some(Some(not_applied(&patch::PatchError::NoDocument)))
            }
            ImageKind::JsonPatch | ImageKind::MergePatch | ImageKind::Whole | ImageKind::Gaps => {
                None
            }
        }
    }

    /// The text after a change that makes a version. None where the document goes, or where a text that
    /// it depends on is gone.
    fn doc_after(&mut self, entry: &'c ChangeEntry) -> Option<Cow<'c, str>> {
        let image = entry.text.as_deref()?.image.as_deref()?;
        let former = self.state.as_mut();
        let exists = former.as_ref().is_some_and(|state| state.exists);
        let doc = former.and_then(|state| state.doc.take());
        let patched = match (entry.image, doc) {
            (ImageKind::Absent | ImageKind::UnknownPatch, _) => return None,
            (ImageKind::Whole, _) => return Some(Cow::Borrowed(image)),
            (_, None) if exists => return None,
            (ImageKind::Gaps, doc) => {
                let filled = doc.and_then(|doc| json_node::fill_gaps(image, &doc));
                return Some(filled.map_or(Cow::Borrowed(image), Cow::Owned));
            }
            (ImageKind::JsonPatch, doc) => {
                let doc = doc?;
                patch::json_patch(&doc, image).map_err(|error| (error, doc))
            }
            (ImageKind::MergePatch, None) => {
                return Some(Cow::Owned(patch::merge_patch_of_none(image)));
            }
            (ImageKind::MergePatch, Some(doc)) => {
                patch::merge_patch(&doc, image).map_err(|error| (error, doc))
            }
        };
        Some(match patched {
            Ok(text) => Cow::Owned(text),
            Err((error, doc)) => {
                self.find(entry, not_applied(&error));
                doc
            }
        })
    }

    /// Compares what the source said with what is known.
    fn compare_claims(&mut self, entry: &ChangeEntry) {
        let claims = entry.text.as_deref().and_then(|text| text.claims.as_deref());
        let Some(claims) = claims else { return };
        let doc = self.state.as_ref().and_then(|state| state.doc.as_deref());
        if let (Some(before), Some(doc)) = (&claims.before, doc)
            && !json_node::is_former(before, doc)
        {
            self.find(entry, FindingKind::PrevMismatch);
        }
        if goes_back(&mut self.lsn, claims.lsn) {
            self.find(entry, FindingKind::LsnWentBack);
        }
        if goes_back(&mut self.version, claims.version) {
            self.find(entry, FindingKind::VersionWentBack);
        }
    }

    fn find(&mut self, entry: &ChangeEntry, kind: FindingKind) {
        self.findings.push(Finding { seq: entry.seq, kind });
    }
}

impl<'c> ChangeWords<'c> {
    fn of(text: &'c ChangeText) -> Self {
        let ChangeText { store, actor, bookmark, event_id, .. } = text;
        Self { store, actor, bookmark, event_id }
    }
}

fn not_applied(error: &patch::PatchError) -> FindingKind {
    FindingKind::PatchNotApplied(error.to_string())
}

/// Whether a number is below the one before it. A change without one says nothing.
fn goes_back(last: &mut Option<i64>, next: Option<i64>) -> bool {
    let Some(next) = next else { return false };
    last.replace(next).is_some_and(|last| next < last)
}
