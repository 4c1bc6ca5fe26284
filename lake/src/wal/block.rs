//! The bytes of a block: one group of records, as it lies in a segment.
//!
//! Pure: bytes in, values out; where they lie is the segment's matter. A block is sound when its
//! head and every payload fit their crc. The head's crc starts from the segment's salt, so neither
//! a block of the file's former life nor bytes that a sender made up pass for a block.
//!
//! Layout, little endian: magic 8, version 4, crc 4, generation 8, first position 8, written ms 8,
//! length 8, records 4, length of the record heads 4; then the record heads (kind 1, zero 1, length
//! of the namespace 2, rows 4, first seq 8, payload length 4, payload crc 4, namespace, padding);
//! then the payloads. Everything starts at a multiple of [`ALIGN`] bytes.

use crate::wal::{LogPosition, LogRecord};
use bytes::{Buf, BufMut};
use icecore_schemas::{
    names::{NAMESPACE_BYTES_MAX, Namespace},
    service_table::RecordKind,
};

/// Record heads, payloads and blocks start at a multiple of this.
pub(crate) const ALIGN: usize = 8;
const MAGIC: &[u8; 8] = b"\x89ICEBLK\n";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 56;
const CRC_AT: usize = 12;
const GENERATION_AT: usize = 16;
const RECORD_HEAD_BYTES: usize = 24;

/// What makes a block belong to a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockOwner {
    /// The segment's generation.
    pub(crate) generation: u64,
    /// The segment's salt.
    pub(crate) salt: u64,
}

/// A sound block.
#[derive(Debug)]
pub(crate) struct Block {
    /// Position of its first record.
    pub(crate) first_position: LogPosition,
    /// When it was written, ms since 1970.
    pub(crate) written_ms: i64,
    /// Its bytes, padding included.
    pub(crate) length: usize,
    /// Its records, in order.
    pub(crate) entries: Vec<BlockEntry>,
}

/// A record of a block, without its payload.
#[derive(Debug)]
pub(crate) struct BlockEntry {
    /// Which table of the namespace.
    pub(crate) kind: RecordKind,
    /// Which namespace.
    pub(crate) namespace: Namespace,
    /// `seq` of its first row.
    pub(crate) first_seq: u64,
    /// How many rows.
    pub(crate) rows: u32,
    /// Where the payload starts in the block.
    pub(crate) place: PayloadPlace,
}

/// Where a payload is in its block, and its crc.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PayloadPlace {
    /// From the start of the block.
    pub(crate) offset: usize,
    /// Length of the payload.
    pub(crate) length: u32,
    /// crc32c of the payload.
    pub(crate) crc: u32,
}

/// Bytes of the block that [`encode`] makes of `group`.
pub(crate) fn encoded_bytes(group: &[LogRecord]) -> usize {
    let payloads: usize = group.iter().map(|record| pad(record.payload.len())).sum();
    HEAD_BYTES + record_heads_bytes(group) + payloads
}

/// Makes a block of `group` in `buffer`, which is emptied first, and says where the payloads are.
///
/// Payloads are at most `u32::MAX` bytes, which the caller has checked.
pub(crate) fn encode(
    buffer: &mut Vec<u8>,
    owner: BlockOwner,
    first_position: LogPosition,
    written_ms: i64,
    group: &[LogRecord],
) -> Vec<PayloadPlace> {
    let length = encoded_bytes(group);
    let heads = record_heads_bytes(group);
    buffer.clear();
    buffer.reserve(length);
    buffer.put_slice(MAGIC);
    buffer.put_u32_le(VERSION);
    buffer.put_u32_le(0);
    buffer.put_u64_le(owner.generation);
    buffer.put_u64_le(first_position);
    buffer.put_i64_le(written_ms);
    buffer.put_u64_le(length as u64);
    buffer.put_u32_le(u32::try_from(group.len()).expect("a group fits in memory"));
    buffer.put_u32_le(u32::try_from(heads).expect("a record head is below 200 bytes"));

    let mut places = Vec::with_capacity(group.len());
    let mut offset = HEAD_BYTES + heads;
    for record in group {
        let text = record.namespace.text();
        let place = PayloadPlace {
            offset,
            length: u32::try_from(record.payload.len()).expect("the caller checked it"),
            crc: crc32c::crc32c(&record.payload),
        };
        buffer.put_u8(record.kind as u8);
        buffer.put_u8(0);
        buffer.put_u16_le(u16::try_from(text.len()).expect("a namespace is short"));
        buffer.put_u32_le(record.rows);
        buffer.put_u64_le(record.first_seq);
        buffer.put_u32_le(place.length);
        buffer.put_u32_le(place.crc);
        buffer.put_slice(text.as_bytes());
        buffer.resize(pad(buffer.len()), 0);
        offset += pad(record.payload.len());
        places.push(place);
    }
    let crc = head_crc(owner, buffer);
    buffer[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    for record in group {
        buffer.put_slice(&record.payload);
        buffer.resize(pad(buffer.len()), 0);
    }
    debug_assert_eq!(buffer.len(), length);
    places
}

/// Reads the block that `bytes` start with.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn decode(bytes: &[u8], owner: BlockOwner) -> Result<Block, String> {
    let head = BlockHead::read(bytes, owner)?;
    if bytes.len() < head.length {
        return Err(format!("only {} of its {} bytes exist", bytes.len(), head.length));
    }
    let mut heads = &bytes[HEAD_BYTES..HEAD_BYTES + head.heads];
    let mut offset = HEAD_BYTES + head.heads;
    let mut entries = Vec::with_capacity(head.records);
    for index in 0..head.records {
        let entry = read_record_head(&mut heads, offset).ok_or_else(|| {
            format!("the header of record {index} has a format that this version does not know")
        })?;
        let end = offset + entry.place.length as usize;
        let payload = bytes
            .get(offset..end)
            .filter(|_| end <= head.length)
            .ok_or_else(|| format!("the payload of record {index} extends beyond the block"))?;
        if crc32c::crc32c(payload) != entry.place.crc {
            return Err(format!("the payload of record {index} does not match its checksum"));
        }
        offset = pad(end);
        entries.push(entry);
    }
    Ok(Block {
        first_position: head.first_position,
        written_ms: head.written_ms,
        length: head.length,
        entries,
    })
}

/// Whether someone began to write a block of `owner` at the start of `bytes`, sound or not.
pub(crate) fn has_begun(bytes: &[u8], owner: BlockOwner) -> bool {
    let generation = bytes.get(GENERATION_AT..GENERATION_AT + 8);
    bytes.starts_with(MAGIC) && generation == Some(&owner.generation.to_le_bytes())
}

/// Offset of the first sound block head of `owner` in `bytes`.
pub(crate) fn find_head(bytes: &[u8], owner: BlockOwner) -> Option<usize> {
    (0..bytes.len())
        .step_by(ALIGN)
        .find(|at| bytes[*at..].starts_with(MAGIC) && BlockHead::read(&bytes[*at..], owner).is_ok())
}

/// A block's head whose crc holds.
#[derive(Debug)]
struct BlockHead {
    first_position: LogPosition,
    written_ms: i64,
    length: usize,
    records: usize,
    heads: usize,
}

impl BlockHead {
    fn read(bytes: &[u8], owner: BlockOwner) -> Result<Self, String> {
        if !bytes.starts_with(MAGIC) {
            return Err("no block starts here".to_owned());
        }
        let mut rest = bytes
            .get(MAGIC.len()..HEAD_BYTES)
            .ok_or_else(|| "the header of the block is cut off".to_owned())?;
        let version = rest.get_u32_le();
        let crc = rest.get_u32_le();
        let generation = rest.get_u64_le();
        let first_position = rest.get_u64_le();
        let written_ms = rest.get_i64_le();
        let length = usize::try_from(rest.get_u64_le()).unwrap_or(usize::MAX);
        let records = rest.get_u32_le() as usize;
        let heads = rest.get_u32_le() as usize;
        if generation != owner.generation {
            return Err(format!("the block is of generation {generation}"));
        }
        let all = bytes
            .get(..HEAD_BYTES + heads)
            .ok_or_else(|| "the header of the block does not match its checksum".to_owned())?;
        if head_crc(owner, all) != crc {
            return Err("the header of the block does not match its checksum".to_owned());
        }
        if version != VERSION {
            return Err(format!(
                "the block has version {version}, but this program supports {VERSION}"
            ));
        }
        Ok(Self { first_position, written_ms, length, records, heads })
    }
}

/// crc32c of the salt and of a block's head without its crc.
fn head_crc(owner: BlockOwner, head: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&owner.salt.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &head[..CRC_AT]);
    crc32c::crc32c_append(crc, &head[CRC_AT + 4..])
}

fn read_record_head(heads: &mut &[u8], offset: usize) -> Option<BlockEntry> {
    if heads.len() < RECORD_HEAD_BYTES {
        return None;
    }
    let kind = RecordKind::from_code(heads.get_u8())?;
    heads.advance(1);
    let text_length = usize::from(heads.get_u16_le());
    let rows = heads.get_u32_le();
    let first_seq = heads.get_u64_le();
    let place = PayloadPlace { offset, length: heads.get_u32_le(), crc: heads.get_u32_le() };
    let text = heads.get(..text_length).filter(|_| text_length <= NAMESPACE_BYTES_MAX)?;
    let namespace = Namespace::parse(std::str::from_utf8(text).ok()?).ok()?;
    if heads.len() < pad(text_length) {
        return None;
    }
    heads.advance(pad(text_length));
    Some(BlockEntry { kind, namespace, first_seq, rows, place })
}

fn record_heads_bytes(group: &[LogRecord]) -> usize {
    group.iter().map(|record| RECORD_HEAD_BYTES + pad(record.namespace.text().len())).sum()
}

fn pad(length: usize) -> usize {
    length.next_multiple_of(ALIGN)
}
