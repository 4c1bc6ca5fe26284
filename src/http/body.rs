//! Request bodies: bounded in bytes, decompressed under the same bound. Their time is bounded for
//! all routes in [`crate::http::in_time`].

use crate::http::{App, error::ApiError, in_time::TooSlow};
use axum::{
    body::Body,
    http::{HeaderMap, header},
};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use icecore_schemas::error_code::ErrorCode;
use std::{io::Read, time::Duration};
use tokio::sync::OwnedSemaphorePermit;

/// How much of a body that is too large is read before the reply, and for how long.
const DRAIN_BYTES_MAX: usize = 4 << 20;
const DRAIN_TIME_MAX: Duration = Duration::from_secs(2);

/// A whole body and its share of the memory for bodies, given back when dropped.
#[derive(Debug)]
pub struct BoundedBody {
    /// The bytes, decompressed.
    pub bytes: Bytes,
    _share: OwnedSemaphorePermit,
}

/// Reads a body of at most `app.body_bytes_max` bytes, as sent and as decompressed.
///
/// # Errors
/// 413 too large, 415 unknown encoding, 400 broken compression or connection, 503 too many bodies
/// in work.
pub async fn read(app: &App, headers: &HeaderMap, body: Body) -> Result<BoundedBody, ApiError> {
    let encoding = encoding(headers)?;
    let announced: Option<usize> = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse().ok());
    if announced.is_some_and(|bytes| app.body_bytes_max < bytes) {
        drain(body).await;
        return Err(too_large(app.body_bytes_max));
    }
    // A compressed body, or one of unknown length, may grow to the largest.
    let reserved =
        announced.filter(|_| encoding == Encoding::Identity).unwrap_or(app.body_bytes_max);
    let permits = u32::try_from(reserved.div_ceil(1024).max(1)).expect("a body is at most 256 MiB");
    let share =
        std::sync::Arc::clone(&app.inflight).try_acquire_many_owned(permits).map_err(|_| {
            ApiError::new(ErrorCode::Unavailable, "too many requests in work; send the batch again")
        })?;
    let limited = Limited::new(body, app.body_bytes_max);
    let collected = limited.collect().await.map_err(|cause| {
        if cause.is::<LengthLimitError>() {
            return too_large(app.body_bytes_max);
        }
        let text = match TooSlow::find(cause.as_ref()) {
            Some(slow) => slow.to_string(),
            None => "the body did not arrive whole; send it again".to_owned(),
        };
        ApiError::new(ErrorCode::InvalidRequest, text)
    })?;
    let bytes = decompress(encoding, collected.to_bytes(), app.body_bytes_max)?;
    Ok(BoundedBody { bytes, _share: share })
}

/// Reads on a little: a connection that is closed on bytes nobody read takes the reply with it.
async fn drain(mut body: Body) {
    let read = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if DRAIN_BYTES_MAX < bytes {
                break;
            }
        }
    };
    // A client that is too slow loses the reply; that is its only harm.
    let _ = tokio::time::timeout(DRAIN_TIME_MAX, read).await;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, ApiError> {
    let text = headers.get(header::CONTENT_ENCODING).map_or(Ok("identity"), |value| value.to_str());
    match text.map(str::trim) {
        Ok("" | "identity") => Ok(Encoding::Identity),
        Ok("gzip" | "x-gzip") => Ok(Encoding::Gzip),
        Ok("zstd") => Ok(Encoding::Zstd),
        _ => Err(ApiError::new(
            ErrorCode::UnsupportedMediaType,
            "Content-Encoding must be gzip or zstd, or left out",
        )),
    }
}

fn decompress(encoding: Encoding, bytes: Bytes, bytes_max: usize) -> Result<Bytes, ApiError> {
    let reader: Box<dyn Read> = match encoding {
        Encoding::Identity => return Ok(bytes),
        Encoding::Gzip => Box::new(flate2::read::MultiGzDecoder::new(bytes.as_ref())),
        Encoding::Zstd => Box::new(zstd::Decoder::new(bytes.as_ref()).map_err(|_| broken())?),
    };
    let mut plain = Vec::new();
    reader.take(bytes_max as u64 + 1).read_to_end(&mut plain).map_err(|_| broken())?;
    if bytes_max < plain.len() { Err(too_large(bytes_max)) } else { Ok(plain.into()) }
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
