//! What is kept of a change and of a base: always what tells versions apart, and the texts as long as
//! they can matter.
//!
//! Whether there is a document, and its version, follow from what is always kept. So they are the same
//! whichever texts are gone.

use super::{ChangeOp, Document, SourceClaims, json_node, patch};

/// Texts of a change that may be missing: the image, the store, the actor, the bookmark.
const OPTIONAL_TEXTS: usize = 4;
/// How many times as long as its texts the memory of a change may be.
const ROOM_PER_TEXT_MAX: usize = 4;

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

/// The words of a change where others have them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ChangeWords<'w> {
    pub(super) image: Option<&'w str>,
    pub(super) store: Option<&'w str>,
    pub(super) actor: Option<&'w str>,
    pub(super) bookmark: Option<&'w str>,
    pub(super) event_id: &'w str,
    pub(super) claims: ClaimWords<'w>,
}

/// What a source said of the state around a change, where others have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ClaimWords<'w> {
    pub(super) before: Option<&'w str>,
    pub(super) lsn: Option<i64>,
    pub(super) version: Option<i64>,
}

/// What a change says in words. Each change of a busy document takes the place of the one before it, so its texts are
/// in one piece of memory, which is used again.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ChangeText {
    /// One behind the other: those that may be missing, and the id of the event.
    texts: String,
    /// Where each of those that may be missing ends.
    ends: [usize; OPTIONAL_TEXTS],
    /// Which of them are there.
    is_there: [bool; OPTIONAL_TEXTS],
    claims: Option<Box<SourceClaims>>,
}

impl ChangeEntry {
    /// A change without its words.
    pub(super) fn bare(seq: i64, ts: i64, op: ChangeOp, image: ImageKind) -> Self {
        Self { seq, ts, op, image, text: None }
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
    /// Takes these words in the place of those that are there.
    pub(super) fn fill(&mut self, words: &ChangeWords<'_>) {
        let ChangeWords { image, store, actor, bookmark, event_id, claims } = *words;
        let optional = [image, store, actor, bookmark];
        let of_optional = optional.iter().flatten().map(|text| text.len()).sum::<usize>();
        let length = of_optional + event_id.len();
        self.texts.clear();
        if length.saturating_mul(ROOM_PER_TEXT_MAX) < self.texts.capacity() {
            self.texts = String::new();
        }
        self.texts.reserve_exact(length);
        for (at, text) in optional.into_iter().enumerate() {
            self.texts.push_str(text.unwrap_or_default());
            self.ends[at] = self.texts.len();
            self.is_there[at] = text.is_some();
        }
        self.texts.push_str(event_id);
        self.claims = claims.boxed();
    }

    pub(super) fn words(&self) -> ChangeWords<'_> {
        let text = |at: usize| {
            let begin = if at == 0 { 0 } else { self.ends[at - 1] };
            self.is_there[at].then(|| &self.texts[begin..self.ends[at]])
        };
        ChangeWords {
            image: text(0),
            store: text(1),
            actor: text(2),
            bookmark: text(3),
            event_id: &self.texts[self.ends[OPTIONAL_TEXTS - 1]..],
            claims: self.claims.as_deref().map(ClaimWords::of).unwrap_or_default(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let of_claims = self
            .claims
            .as_deref()
            .map_or(0, |claims| size_of::<SourceClaims>() + length(&claims.before));
        size_of::<Self>() + self.texts.capacity() + of_claims
    }
}

impl<'w> ClaimWords<'w> {
    pub(super) fn of(claims: &'w SourceClaims) -> Self {
        let SourceClaims { before, lsn, version } = claims;
        Self { before: before.as_deref(), lsn: *lsn, version: *version }
    }

    /// What a source said, if it said something: most say nothing.
    fn boxed(self) -> Option<Box<SourceClaims>> {
        (self != Self::default()).then(|| {
            let Self { before, lsn, version } = self;
            Box::new(SourceClaims { before: before.map(str::to_owned), lsn, version })
        })
    }
}

/// What a change says of the document, and the text that says it. Members that its source could not read are
/// looked for in [`ImageKind::Whole`] by [`with_gaps`].
pub(super) fn image_of<'t>(
    op: ChangeOp,
    after: Option<&'t str>,
    patch: Option<&'t str>,
) -> (ImageKind, Option<&'t str>) {
    match (op, after, patch) {
        (ChangeOp::Delete, _, _) | (_, None, None) | (ChangeOp::Read, None, Some(_)) => {
            (ImageKind::Absent, None)
        }
        (_, Some(after), _) => (ImageKind::Whole, Some(after)),
        (_, None, Some(patch)) => (patch::kind(patch), Some(patch)),
    }
}

/// The same for a document that its source may not have read whole.
pub(super) fn with_gaps(kind: ImageKind, image: Option<&str>) -> ImageKind {
    match image {
        Some(text) if kind == ImageKind::Whole && json_node::has_gaps(text) => ImageKind::Gaps,
        _ => kind,
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

fn length(text: &Option<String>) -> usize {
    text.as_ref().map_or(0, String::len)
}
