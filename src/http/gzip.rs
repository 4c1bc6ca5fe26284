//! gzip as gzip(1) reads it: one member after the other (RFC 1952, section 2.2), and behind the last one
//! the zero bytes with which blocks are filled up. Other bytes there are an error.

use flate2::bufread::GzDecoder;
use std::io::{self, BufRead, Read};

/// Most zero bytes behind the last member. No block is as large, and each costs time.
const PADDING_BYTES_MAX: usize = 64 << 20;

/// The plain bytes of all members; none once they have ended.
#[derive(Debug)]
pub struct GzipReader<R>(Option<GzDecoder<R>>);

impl<R: BufRead> GzipReader<R> {
    /// The plain bytes of these.
    pub fn new(bytes: R) -> Self {
        Self(Some(GzDecoder::new(bytes)))
    }
}

impl<R: BufRead> Read for GzipReader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.0 {
            let count = member.read(into)?;
            if 0 < count || into.is_empty() {
                return Ok(count);
            }
            let bytes = member.get_mut();
            let next = bytes.fill_buf()?.first().copied();
            match next {
                Some(0) => skip_padding(bytes)?,
                Some(_) => {
                    self.0 = self.0.take().map(|ended| GzDecoder::new(ended.into_inner()));
                }
                None => self.0 = None,
            }
        }
        Ok(0)
    }
}

fn skip_padding(bytes: &mut impl BufRead) -> io::Result<()> {
    let mut skipped = 0;
    loop {
        let chunk = bytes.fill_buf()?;
        if chunk.is_empty() {
            return Ok(());
        }
        skipped += chunk.len();
        if PADDING_BYTES_MAX < skipped || chunk.iter().any(|byte| *byte != 0) {
            let text = "the compressed data is followed by bytes that are neither gzip nor zeros";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let count = chunk.len();
        bytes.consume(count);
    }
}
