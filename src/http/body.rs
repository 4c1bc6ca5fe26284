//! Request bodies: bounded in bytes, decompressed under the same bound.
//!
//! How fast they come, and how many there are at a time, is bounded for all routes alike by
//! [`icecore_catalog::body`].

use crate::http::{AppState, error::ApiError, gzip};
use axum::{
    body::Body,
    http::{HeaderMap, header},
};
use bytes::Bytes;
use icecore_catalog::body::{BodyReadError, MemoryPermit, whole};
use icecore_lake::blocking::blocking;
use icecore_schemas::error_code::ErrorCode;
use std::io::{Cursor, Read};

/// Room for the start of a decompressed body; it doubles as long as more comes.
const PLAIN_BYTES_MIN: usize = 16 << 10;

/// A whole body and, where it was decompressed, its share of the memory for bodies.
#[derive(Debug)]
pub struct BoundedBody {
    /// The bytes, decompressed.
    pub bytes: Bytes,
    _share: MemoryPermit,
}

/// Reads a body of at most `app.body_bytes_max` bytes, as sent and after each of its codings.
///
/// # Errors
/// 413 too large, 415 unknown encoding, 400 broken compression or connection, 408 too slow, 503 too
/// many bodies in work.
pub async fn read(
    app: &AppState,
    headers: &HeaderMap,
    body: Body,
) -> Result<BoundedBody, ApiError> {
    let codings = codings(headers)?;
    let bytes_max = app.body_bytes_max;
    let mut bytes = whole(headers, body, bytes_max).await?;
    let share = MemoryPermit::default();
    if codings.is_empty() {
        return Ok(BoundedBody { bytes, _share: share });
    }
    let room = app.room.clone();
    blocking(move || -> Result<BoundedBody, ApiError> {
        // What was sent is counted already; each layer is until the next one is there.
        let mut packed = 0;
        for coding in codings.into_iter().rev() {
            // Nobody knows before how large it becomes.
            let hold = |plain| share.grow(&room, packed + plain).map_err(ApiError::from);
            bytes = decompress(coding, bytes, bytes_max, hold)?;
            packed = bytes.len();
        }
        Ok(BoundedBody { bytes, _share: share })
    })
    .await
}

impl From<BodyReadError> for ApiError {
    fn from(cause: BodyReadError) -> Self {
        let code = match cause {
            BodyReadError::TooLarge(bytes_max) => return too_large(bytes_max),
            BodyReadError::TooSlow => ErrorCode::RequestTimeout,
            BodyReadError::NoRoom => ErrorCode::Unavailable,
            BodyReadError::BrokenOff => ErrorCode::InvalidRequest,
        };
        Self::new(code, cause.to_string())
    }
}

/// Most codings that a body may have one over another.
const CODINGS_MAX: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ContentCoding {
    Gzip,
    Zstd,
}

/// The codings of a body in the order in which they were applied (RFC 9110, section 8.4).
fn codings(headers: &HeaderMap) -> Result<Vec<ContentCoding>, ApiError> {
    let unknown = || {
        ApiError::new(
            ErrorCode::UnsupportedMediaType,
            "Content-Encoding must be gzip or zstd, or left out",
        )
    };
    let mut codings = Vec::new();
    for value in headers.get_all(header::CONTENT_ENCODING) {
        for name in value.to_str().map_err(|_| unknown())?.split(',') {
            match name.trim().to_ascii_lowercase().as_str() {
                "" | "identity" => {}
                "gzip" | "x-gzip" => codings.push(ContentCoding::Gzip),
                "zstd" => codings.push(ContentCoding::Zstd),
                _ => return Err(unknown()),
            }
        }
    }
    if CODINGS_MAX < codings.len() { Err(unknown()) } else { Ok(codings) }
}

/// The plain bytes of one layer; `hold` is told how many are there before they take memory.
fn decompress(
    coding: ContentCoding,
    bytes: Bytes,
    bytes_max: usize,
    hold: impl Fn(usize) -> Result<(), ApiError>,
) -> Result<Bytes, ApiError> {
    let bytes = Cursor::new(bytes);
    let mut reader: Box<dyn Read> = match coding {
        ContentCoding::Gzip => Box::new(gzip::plain_bytes(bytes)),
        ContentCoding::Zstd => Box::new(zstd::Decoder::with_buffer(bytes).map_err(|_| broken())?),
    };
    let mut plain = Vec::new();
    let mut room = PLAIN_BYTES_MIN;
    loop {
        room = room.min(bytes_max + 1);
        hold(room)?;
        plain.reserve_exact(room - plain.len());
        let free = (room - plain.len()) as u64;
        reader.by_ref().take(free).read_to_end(&mut plain).map_err(|_| broken())?;
        if bytes_max < plain.len() {
            return Err(too_large(bytes_max));
        }
        if plain.len() < room {
            return Ok(plain.into());
        }
        room *= 2;
    }
}

fn broken() -> ApiError {
    ApiError::new(
        ErrorCode::InvalidRequest,
        "the body is not compressed as its Content-Encoding says",
    )
}

fn too_large(bytes_max: usize) -> ApiError {
    ApiError::new(
        ErrorCode::BodyTooLarge,
        format!(
            "the body is larger than {bytes_max} bytes, as sent or decompressed; send smaller batches"
        ),
    )
}
