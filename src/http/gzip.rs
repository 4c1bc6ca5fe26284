//! gzip as gzip(1) reads it: one member after the other (RFC 1952, section 2.2), and behind the last one
//! the zero bytes with which blocks are filled up. Other bytes there are an error. Its one invariant: its
//! work is bounded by the bytes that come in and go out, however many members they are.

use flate2::bufread::GzDecoder;
use std::{
    io::{self, BufRead, Read},
    mem,
};

/// What a member begins with.
const MEMBER_START: u8 = 0x1f;

type PackedBytes = Box<dyn BufRead + Send>;

/// The plain bytes of all members; none once they have ended.
struct GzipReader(Option<GzDecoder<PackedBytes>>);

/// The plain bytes of these.
pub fn plain_bytes(bytes: impl BufRead + Send + 'static) -> impl Read + Send {
    let bytes: PackedBytes = Box::new(bytes);
    GzipReader(Some(GzDecoder::new(bytes)))
}

impl Read for GzipReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.0 {
            let count = member.read(into)?;
            if 0 < count || into.is_empty() {
                return Ok(count);
            }
            let bytes = member.get_mut();
            let next = bytes.fill_buf()?.first().copied();
            match next {
                Some(MEMBER_START) => {
                    // A new decoder takes many KiB; an empty member has 20 bytes.
                    let rest = mem::replace(bytes, Box::new(io::empty()));
                    member.reset(rest);
                }
                Some(_) => skip_padding(bytes)?,
                None => self.0 = None,
            }
        }
        Ok(0)
    }
}

fn skip_padding(bytes: &mut impl BufRead) -> io::Result<()> {
    loop {
        let chunk = bytes.fill_buf()?;
        if chunk.is_empty() {
            return Ok(());
        }
        if chunk.iter().any(|byte| *byte != 0) {
            let text = "the compressed data is followed by bytes that are neither gzip nor zeros";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let count = chunk.len();
        bytes.consume(count);
    }
}
