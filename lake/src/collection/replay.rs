//! Changes applied one after another, in order.

use super::{
    AnomalyKind, ChangeAnomaly, ChangeOp, Document,
    entry::{BaseState, ChangeEntry, ChangeText, ChangeWords, ClaimWords, ImageKind},
    json_node, patch,
    version::{DocumentVersion, VersionChange, next, not_applied, reason_against},
};
use std::borrow::Cow;

/// A document between two of its changes.
#[derive(Debug)]
pub(super) struct Replay<'c> {
    /// None: there never was one.
    state: Option<ReplayState<'c>>,
    anomalies: Vec<ChangeAnomaly>,
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
    words: Option<OtherWords<'c>>,
}

/// What the last change said besides the document.
#[derive(Clone, Copy, Debug)]
struct OtherWords<'c> {
    store: Option<&'c str>,
    actor: Option<&'c str>,
    bookmark: Option<&'c str>,
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
                words: base.is_whole.then_some(OtherWords {
                    store: document.store.as_deref(),
                    actor: document.actor.as_deref(),
                    bookmark: document.bookmark.as_deref(),
                    event_id: &document.event_id,
                }),
            }
        });
        Self { state, anomalies: Vec::new(), lsn: None, version: None }
    }

    /// Applies the next change. Whether it made a version.
    pub(super) fn apply(&mut self, entry: &'c ChangeEntry) -> bool {
        self.compare_claims(entry);
        let existing = self.existing();
        match reason_against(existing, VersionChange::of(entry)) {
            None => {}
            Some(None) => return false,
            Some(Some(kind)) => {
                self.find(entry, kind);
                return false;
            }
        }
        let text = entry.text.as_deref();
        let doc = self.doc_after(entry);
        let former = self.state.take().filter(|_| existing.is_some());
        self.state = Some(ReplayState {
            doc,
            exists: entry.op != ChangeOp::Delete,
            op: entry.op,
            version: next(existing),
            created_at: former.map_or(entry.ts, |state| state.created_at),
            updated_at: entry.ts,
            seq: entry.seq,
            words: text.map(OtherWords::of),
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
            store: words.store.map(str::to_owned),
            version: state.version,
            created_at: state.created_at,
            updated_at: state.updated_at,
            actor: words.actor.map(str::to_owned),
            bookmark: words.bookmark.map(str::to_owned),
            seq: state.seq,
            event_id: words.event_id.to_owned(),
        })
    }

    /// What the last change left, as the base of what follows. None where there never was a document, and where the
    /// words of the last change are gone.
    pub(super) fn into_base(self) -> Option<BaseState> {
        let state = self.state?;
        let words = state.words?;
        let document = Document {
            doc: state.doc.map(Cow::into_owned),
            op: state.op,
            store: words.store.map(str::to_owned),
            version: state.version,
            created_at: state.created_at,
            updated_at: state.updated_at,
            actor: words.actor.map(str::to_owned),
            bookmark: words.bookmark.map(str::to_owned),
            seq: state.seq,
            event_id: words.event_id.to_owned(),
        };
        Some(BaseState { document, exists: state.exists, is_whole: true })
    }

    pub(super) fn into_anomalies(self) -> Vec<ChangeAnomaly> {
        self.anomalies
    }

    /// The document that there is, as far as its next version depends on it.
    fn existing(&self) -> Option<DocumentVersion> {
        let state = self.state.as_ref().filter(|state| state.exists)?;
        let ReplayState { version, op, updated_at, .. } = *state;
        Some(DocumentVersion { version, op, updated_at })
    }

    /// The text after a change that makes a version. None where the document goes, or where a text that
    /// it depends on is gone.
    fn doc_after(&mut self, entry: &'c ChangeEntry) -> Option<Cow<'c, str>> {
        let image = entry.text.as_deref()?.words().image?;
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
        let Some(text) = entry.text.as_deref() else { return };
        let ClaimWords { before, lsn, version } = text.words().claims;
        let doc = self.state.as_ref().and_then(|state| state.doc.as_deref());
        if let (Some(before), Some(doc)) = (before, doc)
            && !json_node::is_former(before, doc)
        {
            self.find(entry, AnomalyKind::PrevMismatch);
        }
        if goes_back(&mut self.lsn, lsn) {
            self.find(entry, AnomalyKind::LsnWentBack);
        }
        if goes_back(&mut self.version, version) {
            self.find(entry, AnomalyKind::VersionWentBack);
        }
    }

    fn find(&mut self, entry: &ChangeEntry, kind: AnomalyKind) {
        self.anomalies.push(ChangeAnomaly { seq: entry.seq, kind });
    }
}

impl<'c> OtherWords<'c> {
    fn of(text: &'c ChangeText) -> Self {
        let ChangeWords { store, actor, bookmark, event_id, .. } = text.words();
        Self { store, actor, bookmark, event_id }
    }
}

/// Whether a number is below the one before it. A change without one says nothing.
fn goes_back(last: &mut Option<i64>, next: Option<i64>) -> bool {
    let Some(next) = next else { return false };
    last.replace(next).is_some_and(|last| next < last)
}
