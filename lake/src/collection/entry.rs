//! What is kept of a change and of a base: always what tells versions apart, and the texts as long as
//! they can matter.
//!
//! Whether there is a document, and its version, follow from what is always kept. So they are the same
//! whichever texts are gone.

use super::{Change, ChangeOp, Document, Image, SourceClaims, json_node, patch};

/// What a change says of the document, without the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ImageKind {
    /// Nothing.
    Absent,
    /// All of it.
    Whole,
    /// All of it but for members that its source could not read: these are as they were.
    Gaps,
    /// RFC 7396.
    MergePatch,
    /// RFC 6902.
    JsonPatch,
    /// A patch of no known kind.
    UnknownPatch,
}

/// A change.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ChangeEntry {
    pub(super) seq: i64,
    pub(super) ts: i64,
    pub(super) op: ChangeOp,
    pub(super) image: ImageKind,
    /// None: it can no longer matter.
    pub(super) text: Option<Box<ChangeText>>,
}

/// What a change says in words.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ChangeText {
    pub(super) image: Option<String>,
    pub(super) store: Option<String>,
    pub(super) actor: Option<String>,
    pub(super) bookmark: Option<String>,
    pub(super) event_id: String,
    pub(super) claims: Option<Box<SourceClaims>>,
}

impl ChangeEntry {
    pub(super) fn of(change: Change, claims: SourceClaims) -> Self {
        let (kind, image) = match (change.op, change.image) {
            (ChangeOp::Delete, _) | (_, None) | (ChangeOp::Read, Some(Image::Patch(_))) => {
                (ImageKind::Absent, None)
            }
            (_, Some(Image::Whole(text))) if json_node::has_gaps(&text) => {
                (ImageKind::Gaps, Some(text))
            }
            (_, Some(Image::Whole(text))) => (ImageKind::Whole, Some(text)),
            (_, Some(Image::Patch(text))) => (patch::kind(&text), Some(text)),
        };
        let text = ChangeText {
            image,
            store: change.store,
            actor: change.actor,
            bookmark: change.bookmark,
            event_id: change.event_id,
            claims: boxed(claims),
        };
        let text = Some(Box::new(text));
        Self { seq: change.seq, ts: change.ts, op: change.op, image: kind, text }
    }

    /// Whether the document after it is the same whatever was before. A row of a snapshot may be older
    /// than what was before.
    pub(super) fn is_independent(&self) -> bool {
        match self.op {
            ChangeOp::Delete => true,
            ChangeOp::Create | ChangeOp::Update => self.image == ImageKind::Whole,
            ChangeOp::Read => false,
        }
    }

    pub(super) fn text_bytes(&self) -> usize {
        self.text.as_deref().map_or(0, ChangeText::bytes)
    }

    /// Drops the text and says how many bytes it had.
    pub(super) fn drop_text(&mut self) -> usize {
        self.text.take().map_or(0, |text| text.bytes())
    }

    pub(super) fn drop_claims(&mut self) {
        if let Some(text) = &mut self.text {
            text.claims = None;
        }
    }
}

impl ChangeText {
    fn bytes(&self) -> usize {
        let texts = [&self.image, &self.store, &self.actor, &self.bookmark];
        let of_texts = self.event_id.len() + texts.into_iter().map(length).sum::<usize>();
        let of_claims = self
            .claims
            .as_deref()
            .map_or(0, |claims| size_of::<SourceClaims>() + length(&claims.before));
        size_of::<Self>() + of_texts + of_claims
    }
}

/// A document that a base has.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct BaseState {
    pub(super) document: Document,
    /// Whether it was there; else it was deleted.
    pub(super) exists: bool,
    /// Whether its text is kept.
    pub(super) is_whole: bool,
}

impl BaseState {
    pub(super) fn of(document: Document) -> Self {
        Self { exists: document.doc.is_some(), is_whole: true, document }
    }

    pub(super) fn bytes(&self) -> usize {
        let Document { doc, store, actor, bookmark, event_id, .. } = &self.document;
        let of_texts = [doc, store, actor, bookmark].map(length).iter().sum::<usize>();
        size_of::<Self>() + event_id.len() + of_texts
    }

    /// Drops the document's text and says how many bytes it had.
    pub(super) fn drop_text(&mut self) -> usize {
        self.is_whole = false;
        self.document.doc.take().map_or(0, |text| text.len())
    }
}

/// What a source said, if it said something: most say nothing.
pub(super) fn boxed(claims: SourceClaims) -> Option<Box<SourceClaims>> {
    (claims != SourceClaims::default()).then(|| Box::new(claims))
}

fn length(text: &Option<String>) -> usize {
    text.as_ref().map_or(0, String::len)
}
