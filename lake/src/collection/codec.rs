//! The changes of a key as bytes, between two processes of one build that each fold a part of them.
//!
//! Numbers are little-endian, texts have their length before them. Every length is checked before
//! anything is taken.

use super::{
    ChangeOp, Document,
    entry::{BaseState, ChangeEntry, ChangeWords, ClaimWords, ImageKind},
};

/// The first byte, another one whenever the form changes.
const FORM: u8 = 1;
/// Bits of the second byte.
const IS_LATEST: u8 = 1;
const HAS_BASE: u8 = 2;
/// Bits of a base's first byte.
const EXISTS: u8 = 1;
const IS_WHOLE: u8 = 2;

/// Writes entries that are in order.
pub(super) fn write<'e>(
    out: &mut Vec<u8>,
    base: Option<&BaseState>,
    entries: impl IntoIterator<Item = &'e ChangeEntry>,
    is_latest: bool,
) {
    let latest = if is_latest { IS_LATEST } else { 0 };
    out.extend_from_slice(&[FORM, latest | if base.is_some() { HAS_BASE } else { 0 }]);
    if let Some(base) = base {
        write_base(out, base);
    }
    for entry in entries {
        write_entry(out, entry);
    }
}

fn write_base(out: &mut Vec<u8>, base: &BaseState) {
    let exists = if base.exists { EXISTS } else { 0 };
    out.push(exists | if base.is_whole { IS_WHOLE } else { 0 });
    let document = &base.document;
    out.push(op_byte(document.op));
    for number in [document.version, document.created_at, document.updated_at, document.seq] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    for text in [&document.doc, &document.store, &document.actor, &document.bookmark] {
        write_text(out, text.as_deref());
    }
    write_text(out, Some(&document.event_id));
}

fn write_entry(out: &mut Vec<u8>, entry: &ChangeEntry) {
    out.push(op_byte(entry.op));
    out.push(image_byte(entry.image));
    out.extend_from_slice(&entry.seq.to_le_bytes());
    out.extend_from_slice(&entry.ts.to_le_bytes());
    out.push(u8::from(entry.text.is_some()));
    let Some(text) = entry.text.as_deref() else { return };
    let ChangeWords { image, store, actor, bookmark, event_id, claims } = text.words();
    for text in [image, store, actor, bookmark, claims.before] {
        write_text(out, text);
    }
    for number in [claims.lsn, claims.version] {
        out.push(u8::from(number.is_some()));
        out.extend_from_slice(&number.unwrap_or_default().to_le_bytes());
    }
    write_text(out, Some(event_id));
}

/// A text, or that there is none: its length plus one, or zero.
fn write_text(out: &mut Vec<u8>, text: Option<&str>) {
    let length = text.map_or(0, |text| text.len() as u64 + 1);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(text.unwrap_or_default().as_bytes());
}

/// What [`write()`] wrote, as it is read.
#[derive(Debug)]
pub(super) struct WrittenChanges<'b> {
    pub(super) base: Option<BaseState>,
    /// Whether only the document is asked.
    pub(super) is_latest: bool,
    /// The entries that are still to be read.
    reader: ByteReader<'b>,
}

/// An entry without its words, and these where it has some.
pub(super) type WrittenEntry<'b> = (ChangeEntry, Option<ChangeWords<'b>>);

impl<'b> WrittenChanges<'b> {
    /// What is before the entries; none for other bytes.
    pub(super) fn of(bytes: &'b [u8]) -> Option<Self> {
        let mut reader = ByteReader(bytes);
        if reader.byte()? != FORM {
            return None;
        }
        let flags = reader.byte()?;
        let base = if flags & HAS_BASE != 0 { Some(read_base(&mut reader)?) } else { None };
        Some(Self { base, is_latest: flags & IS_LATEST != 0, reader })
    }

    /// Whether there is no other entry.
    pub(super) fn is_at_end(&self) -> bool {
        self.reader.0.is_empty()
    }

    /// The next entry; none for other bytes.
    pub(super) fn entry(&mut self) -> Option<WrittenEntry<'b>> {
        read_entry(&mut self.reader)
    }
}

fn read_base(reader: &mut ByteReader<'_>) -> Option<BaseState> {
    let flags = reader.byte()?;
    let op = op_of(reader.byte()?)?;
    let [version, created_at, updated_at, seq] =
        [reader.number()?, reader.number()?, reader.number()?, reader.number()?];
    let [doc, store, actor, bookmark] =
        [reader.owned()?, reader.owned()?, reader.owned()?, reader.owned()?];
    let event_id = reader.owned()??;
    let document = Document {
        doc,
        op,
        store,
        version,
        created_at,
        updated_at,
        actor,
        bookmark,
        seq,
        event_id,
    };
    Some(BaseState { document, exists: flags & EXISTS != 0, is_whole: flags & IS_WHOLE != 0 })
}

fn read_entry<'b>(reader: &mut ByteReader<'b>) -> Option<WrittenEntry<'b>> {
    let op = op_of(reader.byte()?)?;
    let image = image_of(reader.byte()?)?;
    let [seq, ts] = [reader.number()?, reader.number()?];
    let words = match reader.byte()? {
        0 => None,
        _ => Some(read_words(reader)?),
    };
    Some((ChangeEntry::bare(seq, ts, op, image), words))
}

fn read_words<'b>(reader: &mut ByteReader<'b>) -> Option<ChangeWords<'b>> {
    let [image, store, actor, bookmark, before] =
        [reader.text()?, reader.text()?, reader.text()?, reader.text()?, reader.text()?];
    let [lsn, version] = [reader.optional_number()?, reader.optional_number()?];
    let event_id = reader.text()??;
    let claims = ClaimWords { before, lsn, version };
    Some(ChangeWords { image, store, actor, bookmark, event_id, claims })
}

/// Bytes that are still to be read.
#[derive(Debug)]
struct ByteReader<'b>(&'b [u8]);

impl<'b> ByteReader<'b> {
    fn take(&mut self, length: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn number(&mut self) -> Option<i64> {
        Some(i64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    /// A number, or that there is none.
    fn optional_number(&mut self) -> Option<Option<i64>> {
        let is_there = self.byte()? != 0;
        let number = self.number()?;
        Some(is_there.then_some(number))
    }

    /// A text, or that there is none.
    fn text(&mut self) -> Option<Option<&'b str>> {
        let length = u64::from_le_bytes(self.take(8)?.try_into().ok()?);
        let Some(length) = length.checked_sub(1) else { return Some(None) };
        let text = self.take(usize::try_from(length).ok()?)?;
        Some(Some(std::str::from_utf8(text).ok()?))
    }

    /// The same as a text of its own.
    fn owned(&mut self) -> Option<Option<String>> {
        Some(self.text()?.map(str::to_owned))
    }
}

const OPS: [ChangeOp; 4] = [ChangeOp::Create, ChangeOp::Update, ChangeOp::Delete, ChangeOp::Read];

const IMAGES: [ImageKind; 6] = [
    ImageKind::Absent,
    ImageKind::Whole,
    ImageKind::Gaps,
    ImageKind::MergePatch,
    ImageKind::JsonPatch,
    ImageKind::UnknownPatch,
];

fn op_byte(op: ChangeOp) -> u8 {
    match op {
        ChangeOp::Create => 0,
        ChangeOp::Update => 1,
        ChangeOp::Delete => 2,
        ChangeOp::Read => 3,
    }
}

fn op_of(byte: u8) -> Option<ChangeOp> {
    OPS.into_iter().find(|op| op_byte(*op) == byte)
}

fn image_byte(image: ImageKind) -> u8 {
    match image {
        ImageKind::Absent => 0,
        ImageKind::Whole => 1,
        ImageKind::Gaps => 2,
        ImageKind::MergePatch => 3,
        ImageKind::JsonPatch => 4,
        ImageKind::UnknownPatch => 5,
    }
}

fn image_of(byte: u8) -> Option<ImageKind> {
    IMAGES.into_iter().find(|image| image_byte(*image) == byte)
}
