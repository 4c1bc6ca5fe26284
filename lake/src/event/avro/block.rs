//! The frame of an Avro object-container file: header and blocks, decompressed within a bound.

use super::datum::DatumReader;
use std::{borrow::Cow, io::Read};

/// How blocks are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AvroCodec {
    Null,
    Deflate,
    Snappy,
    Zstandard,
}

/// What the header says.
#[derive(Debug)]
pub(super) struct AvroHeader<'a> {
    pub(super) schema: &'a [u8],
    pub(super) codec: AvroCodec,
    pub(super) sync: &'a [u8],
}

/// Largest schema. Names in it are repeated in every event, so they must be short.
const SCHEMA_BYTES_MAX: usize = 256 << 10;

/// Reads the header.
pub(super) fn header<'a>(file: &mut DatumReader<'a>) -> Result<AvroHeader<'a>, &'static str> {
    if file.take(4)? != b"Obj\x01" {
        return Err("it does not begin with Obj1");
    }
    let (mut schema, mut codec) = (None, AvroCodec::Null);
    loop {
        let mut entries = file.long()?;
        if entries == 0 {
            break;
        }
        if entries < 0 {
            // A negative count is followed by the size in bytes.
            file.long()?;
            entries = entries.checked_neg().ok_or("a count is too large")?;
        }
        for _ in 0..entries {
            let (name, value) = (file.bytes()?, file.bytes()?);
            match name {
                b"avro.schema" => schema = Some(value),
                b"avro.codec" => {
                    codec = match value {
                        b"null" => AvroCodec::Null,
                        b"deflate" => AvroCodec::Deflate,
                        b"snappy" => AvroCodec::Snappy,
                        b"zstandard" => AvroCodec::Zstandard,
                        _ => return Err("its codec must be null, deflate, snappy or zstandard"),
                    }
                }
                _ => {}
            }
        }
    }
    let schema = schema.ok_or("it has no schema")?;
    if schema.len() > SCHEMA_BYTES_MAX {
        return Err("its schema is larger than 256 KiB");
    }
    Ok(AvroHeader { schema, codec, sync: file.take(16)? })
}

/// Reads a block: how many events it has, and their bytes, at most `most`.
pub(super) fn next<'a>(
    file: &mut DatumReader<'a>,
    sync: &[u8],
    codec: AvroCodec,
    most: usize,
) -> Result<(u64, Cow<'a, [u8]>), &'static str> {
    let count = u64::try_from(file.long()?).map_err(|_| "a block has a negative count")?;
    let packed = file.bytes()?;
    if file.take(16)? != sync {
        return Err("a block does not end with the file's marker");
    }
    Ok((count, unpack(packed, codec, most)?))
}

fn unpack(packed: &[u8], codec: AvroCodec, most: usize) -> Result<Cow<'_, [u8]>, &'static str> {
    const TOO_LARGE: &str = "its blocks are larger than 64 MiB";
    let unpacked = match codec {
        AvroCodec::Null => return Ok(Cow::Borrowed(packed)),
        AvroCodec::Deflate => read(flate2::read::DeflateDecoder::new(packed), most)?,
        AvroCodec::Zstandard => {
            let decoder = zstd::stream::read::Decoder::with_buffer(packed);
            read(decoder.map_err(|_| "zstandard does not start")?, most)?
        }
        AvroCodec::Snappy => {
            // The block says first how long it is unpacked; the library believes it.
            let length = snappy_length(packed).ok_or("a block does not decompress")?;
            if length > most as u64 || packed.len() < 5 {
                return Err(TOO_LARGE);
            }
            let mut bytes = packed.to_vec();
            apache_avro::Codec::Snappy
                .decompress(&mut bytes)
                .map_err(|_| "a block does not decompress")?;
            bytes
        }
    };
    if unpacked.len() > most { Err(TOO_LARGE) } else { Ok(Cow::Owned(unpacked)) }
}

fn read(decoder: impl Read, most: usize) -> Result<Vec<u8>, &'static str> {
    let mut bytes = Vec::new();
    decoder
        .take(most as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|_| "a block does not decompress")?;
    Ok(bytes)
}

/// The unpacked length: seven bits a byte, the lowest first.
fn snappy_length(packed: &[u8]) -> Option<u64> {
    let mut length = 0_u64;
    for (number, byte) in packed.iter().take(5).enumerate() {
        length |= u64::from(byte & 0x7f) << (7 * number);
        if byte & 0x80 == 0 {
            return Some(length);
        }
    }
    None
}
