//! The log's own record of ids: what a restart needs, without decoding rows.
//!
//! It stands in the same group as the rows it describes, so both are durable or neither is. Payload,
//! little-endian: for each row id (16 bytes) and content (8), in order of `seq`; then each type that
//! the namespace did not have before, as length (2) and text.

use bytes::Bytes;
use icecore_lake::event::EventKey;

const KEY: usize = 24;

/// What a record of ids holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct KeyRecord {
    pub(super) keys: Vec<EventKey>,
    pub(super) types: Vec<String>,
}

pub(super) fn encode(keys: &[EventKey], types: &[String]) -> Bytes {
    let text: usize = types.iter().map(|text| 2 + text.len()).sum();
    let mut bytes = Vec::with_capacity(keys.len() * KEY + text);
    for key in keys {
        bytes.extend_from_slice(&key.id.to_le_bytes());
        bytes.extend_from_slice(&key.content.to_le_bytes());
    }
    for text in types {
        let length = u16::try_from(text.len()).expect("a type has at most 256 bytes");
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes.into()
}

/// None when `payload` is no such record of `rows` rows.
pub(super) fn decode(payload: &[u8], rows: u32) -> Option<KeyRecord> {
    let (keys, mut rest) = payload.split_at_checked(rows as usize * KEY)?;
    let keys = keys.as_chunks::<KEY>().0.iter().map(decode_key).collect();
    let mut types = Vec::new();
    while let Some((length, tail)) = rest.split_first_chunk::<2>() {
        let (text, tail) = tail.split_at_checked(u16::from_le_bytes(*length).into())?;
        types.push(String::from_utf8(text.to_vec()).ok()?);
        rest = tail;
    }
    rest.is_empty().then_some(KeyRecord { keys, types })
}

fn decode_key(bytes: &[u8; KEY]) -> EventKey {
    let (id, content) = bytes.split_at(16);
    EventKey {
        id: u128::from_le_bytes(id.try_into().expect("16 bytes are 16 bytes")),
        content: u64::from_le_bytes(content.try_into().expect("8 bytes are 8 bytes")),
    }
}
