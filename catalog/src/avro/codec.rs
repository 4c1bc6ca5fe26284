//! How blocks of Avro files are compressed, and unpacking them within a bound. The library unpacks
//! whatever a block becomes, and a few bytes may become any number of them.

use super::{BLOCK_BYTES_MAX, UNPACKED_BYTES_MAX};
use flate2::bufread::DeflateDecoder;
use std::{borrow::Cow, io::Read};

/// How a block is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockCodec {
    Null,
    Deflate,
    Snappy,
    Zstandard,
}

/// Most bytes that deflate makes of one.
const DEFLATE_RATIO: usize = 1_032;

impl BlockCodec {
    pub(super) fn named(name: &[u8]) -> Result<Self, String> {
        match name {
            b"null" => Ok(Self::Null),
            b"deflate" => Ok(Self::Deflate),
            b"snappy" => Ok(Self::Snappy),
            b"zstandard" => Ok(Self::Zstandard),
            other => Err(format!("its codec `{}` is not known", String::from_utf8_lossy(other))),
        }
    }

    /// Whether so many bytes may become more than `most`.
    pub(super) fn may_exceed(self, packed: usize, most: usize) -> bool {
        match self {
            Self::Null => false,
            Self::Deflate => most / DEFLATE_RATIO < packed,
            Self::Snappy | Self::Zstandard => true,
        }
    }

    /// The block as it was, of at most so many bytes.
    pub(super) fn unpack(self, packed: &[u8], most: usize) -> Result<Cow<'_, [u8]>, String> {
        let too_large = || {
            let (block, all) = (BLOCK_BYTES_MAX >> 20, UNPACKED_BYTES_MAX >> 20);
            format!(
                "it unpacks to more than {block} MiB in a block, or {all} MiB in all: write smaller \
                 manifests"
            )
        };
        let unpacked = match self {
            Self::Null => return Ok(Cow::Borrowed(packed)),
            Self::Deflate => bounded(DeflateDecoder::new(packed), most)?,
            Self::Zstandard => {
                let decoder = zstd::stream::read::Decoder::with_buffer(packed);
                bounded(decoder.map_err(|_| DAMAGED)?, most)?
            }
            Self::Snappy => {
                // The block says first how long it is unpacked; the library believes it.
                if most as u64 <= snappy_length(packed).ok_or(DAMAGED)? {
                    return Err(too_large());
                }
                let mut bytes = packed.to_vec();
                apache_avro::Codec::Snappy.decompress(&mut bytes).map_err(|_| DAMAGED)?;
                bytes
            }
        };
        if unpacked.len() > most { Err(too_large()) } else { Ok(Cow::Owned(unpacked)) }
    }

    /// Compresses a block.
    pub(super) fn pack(self, block: &mut Vec<u8>) -> Result<(), String> {
        use apache_avro::{Codec, DeflateSettings, ZstandardSettings};
        let codec = match self {
            Self::Null => Codec::Null,
            Self::Deflate => Codec::Deflate(DeflateSettings::default()),
            Self::Snappy => Codec::Snappy,
            Self::Zstandard => Codec::Zstandard(ZstandardSettings::default()),
        };
        codec.compress(block).map_err(|cause| cause.to_string())
    }
}

const DAMAGED: &str = "a block does not decompress";

fn bounded(decoder: impl Read, most: usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    decoder.take(most as u64 + 1).read_to_end(&mut bytes).map_err(|_| DAMAGED)?;
    Ok(bytes)
}

/// The unpacked length: seven bits a byte, the lowest first. A checksum of four bytes follows.
fn snappy_length(packed: &[u8]) -> Option<u64> {
    let mut length = 0_u64;
    for (number, byte) in packed.get(..packed.len().checked_sub(4)?)?.iter().take(5).enumerate() {
        length |= u64::from(byte & 0x7f) << (7 * number);
        if byte & 0x80 == 0 {
            return Some(length);
        }
    }
    None
}
