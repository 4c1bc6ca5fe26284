//! Answers of queries that are compressed on their way, as their readers ask. Its one invariant: what has
//! been answered can be read at once, so no row waits in a compressor for the ones behind it.

use axum::http::{HeaderMap, header};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures::{StreamExt, stream};
use icecore_engine::{
    error::SqlError,
    output::{AnswerPiece, AnswerPieces},
};
use icecore_lake::blocking::blocking;
use std::io::{self, Write};

/// A piece of so many bytes is compressed off the async threads: it takes milliseconds.
const BLOCKING_BYTES_MIN: usize = 64 << 10;
/// Fast and nearly as small as higher levels, as answers are read once.
const ZSTD_LEVEL: i32 = 1;

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerCoding {
    /// gzip, RFC 1952.
    Gzip,
    /// zstd, RFC 8878.
    Zstd,
}

impl AnswerCoding {
    /// The coding that a request likes best, zstd before gzip; none for a reader that asks for neither,
    /// or likes the plain bytes better (RFC 9110, section 12.5.3).
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let values = headers.get_all(header::ACCEPT_ENCODING).iter();
        let texts = values.filter_map(|value| value.to_str().ok());
        let (mut gzip, mut zstd, mut plain) = (0.0, 0.0, 0.0);
        for part in texts.flat_map(|text| text.split(',')) {
            let (name, parameter) = part.split_once(';').unwrap_or((part, ""));
            let weight = weight(parameter);
            match name.trim().to_ascii_lowercase().as_str() {
                "gzip" | "x-gzip" => gzip = weight,
                "zstd" => zstd = weight,
                "identity" => plain = weight,
                _ => (),
            }
        }
        let (weight, coding) = if gzip <= zstd { (zstd, Self::Zstd) } else { (gzip, Self::Gzip) };
        (0.0 < weight && plain <= weight).then_some(coding)
    }

    /// As `Content-Encoding` names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// The number of `q=0.5`; 1 where there is none.
fn weight(parameter: &str) -> f32 {
    let value =
        parameter.trim().strip_prefix(['q', 'Q']).and_then(|rest| rest.trim().strip_prefix('='));
    value.map_or(1.0, |value| value.trim().parse().unwrap_or(0.0))
}

/// The pieces of an answer, compressed. After an error the compressed body ends like a whole one where
/// `is_told` says that its reader learns of the error; any other breaks off.
#[must_use]
pub fn compressed(pieces: AnswerPieces, coding: AnswerCoding, is_told: bool) -> AnswerPieces {
    let start = Some((pieces, AnswerCompressor::new(coding)));
    let pieces = stream::unfold(start, move |state| async move {
        let (mut pieces, compressor) = state?;
        let mut compressor = match compressor {
            Ok(compressor) => compressor,
            Err(cause) => return Some((vec![failed(&cause)], None)),
        };
        let (end, bytes) = match pieces.next().await {
            Some(AnswerPiece::Bytes(bytes)) if bytes.len() < BLOCKING_BYTES_MIN => {
                let bytes = compressor.push(&bytes);
                (None, bytes.map(|bytes| (bytes, Some((pieces, Ok(compressor))))))
            }
            Some(AnswerPiece::Bytes(bytes)) => {
                let (compressor, bytes) = blocking(move || {
                    let bytes = compressor.push(&bytes);
                    (compressor, bytes)
                })
                .await;
                (None, bytes.map(|bytes| (bytes, Some((pieces, Ok(compressor))))))
            }
            Some(AnswerPiece::Failed(error)) if !is_told => {
                return Some((vec![AnswerPiece::Failed(error)], None));
            }
            Some(AnswerPiece::Failed(error)) => {
                (Some(AnswerPiece::Failed(error)), compressor.finish().map(|bytes| (bytes, None)))
            }
            None => (None, compressor.finish().map(|bytes| (bytes, None))),
        };
        match bytes {
            Ok((bytes, next)) => {
                let bytes = AnswerPiece::Bytes(Bytes::from(bytes));
                Some((std::iter::once(bytes).chain(end).collect(), next))
            }
            Err(cause) => Some((vec![failed(&cause)], None)),
        }
    });
    pieces.flat_map(stream::iter::<Vec<AnswerPiece>>).boxed()
}

fn failed(cause: &io::Error) -> AnswerPiece {
    tracing::error!(error = cause as &dyn std::error::Error, "answer does not compress");
    AnswerPiece::Failed(SqlError::Internal("the answer could not be compressed".to_owned()))
}

/// Compresses into memory.
enum AnswerCompressor {
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(zstd::Encoder<'static, Vec<u8>>),
}

impl AnswerCompressor {
    fn new(coding: AnswerCoding) -> io::Result<Self> {
        Ok(match coding {
            AnswerCoding::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), Compression::fast())),
            AnswerCoding::Zstd => Self::Zstd(zstd::Encoder::new(Vec::new(), ZSTD_LEVEL)?),
        })
    }

    /// All that these bytes and those before them compress to and that was not given yet.
    fn push(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(encoder) => {
                encoder.write_all(bytes)?;
                encoder.flush()?;
                Ok(std::mem::take(encoder.get_mut()))
            }
            Self::Zstd(encoder) => {
                encoder.write_all(bytes)?;
                encoder.flush()?;
                Ok(std::mem::take(encoder.get_mut()))
            }
        }
    }

    /// The end of the compressed bytes.
    fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

#[cfg(test)]
mod tests;
