//! Manifests of any writer, for readers that go by the names of partition fields.
//!
//! Avro takes only some names. Writers escape others (Java writes `a_x20b` for `a b` and leaves
//! letters of every script), and each in its own way, while the iceberg crate looks for a partition's
//! values under the name of the field and apache-avro takes ASCII alone. So fields of such names are
//! called by their ids here before anybody parses the file: Avro's data has no names in it.
//! Bounds that are no text are mended, see [`bounds`].
//! Its one invariant: what the file says of its data files is not changed, but for bounds that say less.

mod bounds;

use crate::avro;
use bytes::Bytes;
use iceberg::{
    ErrorKind,
    spec::{FormatVersion, Manifest, ManifestList},
};
use serde_json::Value;
use std::collections::HashMap;

/// Columns whose bounds tell which data files a delete file names: the one of the specification, and
/// that of the metadata column which DuckDB writes instead. No table's schema has them.
pub(crate) const PATH_IDS: [i64; 2] = [2_147_483_546, 2_147_483_646];
const MAGIC: &[u8] = b"Obj\x01";
/// Length of the marker that ends the header.
const SYNC_BYTES: usize = 16;
/// Keys of the header.
const SCHEMA: &str = "avro.schema";
const SPEC: &str = "partition-spec";
/// Id of the first partition field of a spec that tells none, by the specification.
const FIELD_ID_FIRST: i64 = 1000;

/// Parses a manifest.
///
/// # Errors
/// As the iceberg crate.
pub fn parse(bytes: &Bytes) -> iceberg::Result<Manifest> {
    check_unpacked(bytes)?;
    let bytes = named(bytes);
    Manifest::parse_avro(&bytes).or_else(|cause| match bounds::mended(&bytes) {
        Some(mended) => Manifest::parse_avro(&mended),
        None => Err(cause),
    })
}

/// Parses a manifest list.
///
/// # Errors
/// As the iceberg crate.
pub fn parse_list(bytes: &[u8], version: FormatVersion) -> iceberg::Result<ManifestList> {
    check_unpacked(bytes)?;
    ManifestList::parse_with_version(bytes, version)
}

/// The manifest with its entries compressed.
pub(crate) fn deflated(bytes: &[u8]) -> iceberg::Result<Bytes> {
    let deflated = avro::deflated(bytes);
    deflated.map(Bytes::from).map_err(|cause| iceberg::Error::new(ErrorKind::DataInvalid, cause))
}

/// A file may have been written anew since it was committed, and the library unpacks whatever it is.
fn check_unpacked(bytes: &[u8]) -> iceberg::Result<()> {
    avro::check_unpacked(bytes).map_err(|cause| iceberg::Error::new(ErrorKind::DataInvalid, cause))
}

/// The same file with partition fields that every parser finds. What is no manifest is as it was.
pub(crate) fn named(bytes: &Bytes) -> Bytes {
    renamed(bytes).unwrap_or_else(|| bytes.clone())
}

/// None where nothing is to be renamed.
fn renamed(bytes: &Bytes) -> Option<Bytes> {
    let (mut header, data) = ManifestHeader::parse(bytes)?;
    let mut spec: Vec<Value> = serde_json::from_slice(header.get(SPEC)?).ok()?;
    // A void field has mostly the name of its column, which the library allows no other than an identity.
    let is_plain = |field: &Value| {
        field["name"].as_str().is_some_and(is_plain)
            && field["field-id"].is_i64()
            && field["transform"] != "void"
    };
    if spec.iter().all(is_plain) {
        return None;
    }
    let mut schema: Value = serde_json::from_slice(header.get(SCHEMA)?).ok()?;
    let partition = &mut field(&mut schema, "data_file")?["type"];
    let written = field(partition, "partition")?["type"]["fields"].as_array_mut()?;
    let mut names = HashMap::new();
    for (at, field) in written.iter_mut().enumerate() {
        let id = field["field-id"].as_i64().or_else(|| id_of(&spec, at))?;
        let name = format!("icecore_partition_{id}");
        field["name"] = name.clone().into();
        names.insert(id, name);
    }
    for at in 0..spec.len() {
        let id = id_of(&spec, at)?;
        spec[at]["name"] = names.get(&id)?.clone().into();
        spec[at]["field-id"] = id.into();
    }
    header.set(SCHEMA, &serde_json::to_vec(&schema).ok()?);
    header.set(SPEC, &serde_json::to_vec(&spec).ok()?);
    Some(header.encode(data).into())
}

/// Whether Avro takes the name as it is, so that no writer changes it.
fn is_plain(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn field<'a>(record: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    record["fields"].as_array_mut()?.iter_mut().find(|field| field["name"] == name)
}

fn id_of(spec: &[Value], at: usize) -> Option<i64> {
    let id = spec.get(at)?.get("field-id").and_then(Value::as_i64);
    Some(id.unwrap_or(FIELD_ID_FIRST + i64::try_from(at).ok()?))
}

/// The header of an Avro file: what is said of the records.
struct ManifestHeader(Vec<(Vec<u8>, Vec<u8>)>);

impl ManifestHeader {
    /// The header, and what follows it from the marker on.
    fn parse(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let mut rest = bytes.strip_prefix(MAGIC)?;
        let mut entries = Vec::new();
        loop {
            let mut count = long(&mut rest)?;
            if count == 0 {
                break;
            }
            if count < 0 {
                // A count below zero is followed by the block's size.
                count = count.checked_neg()?;
                long(&mut rest)?;
            }
            for _ in 0..count {
                entries.push((block(&mut rest)?.to_vec(), block(&mut rest)?.to_vec()));
            }
        }
        (SYNC_BYTES <= rest.len()).then_some((Self(entries), rest))
    }

    fn get(&self, key: &str) -> Option<&[u8]> {
        let found = self.0.iter().find(|(name, _)| name == key.as_bytes());
        found.map(|(_, value)| value.as_slice())
    }

    fn set(&mut self, key: &str, value: &[u8]) {
        for (name, old) in &mut self.0 {
            if name == key.as_bytes() {
                *old = value.to_vec();
            }
        }
    }

    fn encode(&self, data: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        put_long(&mut bytes, self.0.len());
        for part in self.0.iter().flat_map(|(key, value)| [key, value]) {
            put_long(&mut bytes, part.len());
            bytes.extend_from_slice(part);
        }
        put_long(&mut bytes, 0);
        bytes.extend_from_slice(data);
        bytes
    }
}

/// A number of variable length, zigzag.
fn long(rest: &mut &[u8]) -> Option<i64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed());
        }
    }
    None
}

fn put_long(bytes: &mut Vec<u8>, number: usize) {
    let mut number = (number as u64) << 1;
    while number > 0x7f {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn block<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(long(rest)?).ok()?;
    let (block, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(block)
}

#[cfg(test)]
mod tests;
