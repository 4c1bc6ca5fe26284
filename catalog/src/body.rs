//! Bodies of requests as they arrive: bounded in bytes each, in bytes together, and in time.
//!
//! [`bounded`] is the layer around every route of a server, [`whole`] the way to a body's bytes,
//! [`parse_object`] the way to what JSON in it says. Its
//! one invariant: what a body takes of memory is counted in the server's [`BodyMemory`] from its
//! arrival until its request is answered, so no number of clients that send and wait can take more.

use axum::{
    body::{Body, BodyDataStream, HttpBody},
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::Response,
};
use bytes::Bytes;
use futures::{StreamExt, stream};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use std::{
    error::Error,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

/// Room is counted in these.
const UNIT_BYTES: usize = 1024;

/// How fast a body has to arrive: it is cut off as soon as it is later than this.
#[derive(Clone, Copy, Debug)]
pub struct MinBodyRate {
    /// How long it may take whatever comes.
    pub grace: Duration,
    /// How many bytes buy another second.
    pub bytes_per_second: u32,
}

impl MinBodyRate {
    /// What a server asks of its clients: 10 MiB may take eleven minutes, and a body of which
    /// nothing comes any more holds its connection for seconds.
    pub const SLOWEST: Self = Self { grace: Duration::from_secs(10), bytes_per_second: 16 << 10 };

    /// When more than `bytes` have to be there of a body that is read since then.
    fn deadline(self, since: Instant, bytes: usize) -> Instant {
        let earned = bytes as f64 / f64::from(self.bytes_per_second.max(1));
        since + self.grace + Duration::from_secs_f64(earned)
    }
}

/// The memory for bodies of all requests together. Cheap to clone.
#[derive(Clone, Debug)]
pub struct BodyMemory {
    units: Arc<Semaphore>,
    pace: MinBodyRate,
}

/// A part of a [`BodyMemory`], given back when dropped.
#[derive(Debug, Default)]
pub struct MemoryPermit(Mutex<Option<OwnedSemaphorePermit>>);

/// Why there is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyReadError {
    /// It is longer than its route takes.
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    /// It came slower than [`MinBodyRate`] says.
    #[error("the body arrived too slowly; send it again, in smaller parts if the network is slow")]
    TooSlow,
    /// The bodies of other requests take all of the [`BodyMemory`].
    #[error("too many requests in progress; send it again")]
    NoRoom,
    /// The client stopped sending.
    #[error("the body did not arrive completely; send it again")]
    BrokenOff,
}

impl BodyReadError {
    /// The status that says so.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::NoRoom => StatusCode::SERVICE_UNAVAILABLE,
            Self::BrokenOff => StatusCode::BAD_REQUEST,
        }
    }
}

impl BodyMemory {
    /// Room for this many bytes, for bodies that keep this pace.
    #[must_use]
    pub fn new(bytes_max: usize, pace: MinBodyRate) -> Self {
        let units = (bytes_max / UNIT_BYTES).min(Semaphore::MAX_PERMITS);
        Self { units: Arc::new(Semaphore::new(units)), pace }
    }

    /// Takes room for what a request needs beside its body as it was sent.
    ///
    /// # Errors
    /// [`BodyReadError::NoRoom`].
    pub fn take(&self, bytes: usize) -> Result<MemoryPermit, BodyReadError> {
        let share = MemoryPermit::default();
        share.grow(self, bytes).map(|()| share)
    }
}

impl MemoryPermit {
    /// Makes it a share of at least `bytes`.
    ///
    /// # Errors
    /// [`BodyReadError::NoRoom`]; it stays as large as it was.
    pub fn grow(&self, room: &BodyMemory, bytes: usize) -> Result<(), BodyReadError> {
        // Whole permits go in, so a panic elsewhere leaves nothing half done.
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let has = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = bytes.div_ceil(UNIT_BYTES).saturating_sub(has);
        if more == 0 {
            return Ok(());
        }
        let more = u32::try_from(more).map_err(|_| BodyReadError::NoRoom)?;
        let more = Arc::clone(&room.units).try_acquire_many_owned(more);
        let more = more.map_err(|_| BodyReadError::NoRoom)?;
        match held.as_mut() {
            Some(held) => held.merge(more),
            None => *held = Some(more),
        }
        Ok(())
    }
}

/// The layer that counts every body in `room` and ends those that keep no pace. Nothing is read
/// before somebody asks for the body.
pub async fn bounded(State(room): State<BodyMemory>, request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let share = Arc::new(MemoryPermit::default());
    let arriving = Arc::clone(&share);
    let response = next.run(request.map(|body| arrive(body, room, arriving))).await;
    drop(share);
    response
}

/// A body on its way.
struct ArrivingBody {
    frames: BodyDataStream,
    room: BodyMemory,
    share: Arc<MemoryPermit>,
    bytes: usize,
    /// When its first byte was asked for.
    since: Option<Instant>,
}

fn arrive(body: Body, room: BodyMemory, share: Arc<MemoryPermit>) -> Body {
    let frames = body.into_data_stream();
    let arriving = ArrivingBody { frames, room, share, bytes: 0, since: None };
    Body::from_stream(stream::try_unfold(arriving, |mut arriving| async move {
        Ok::<_, BodyReadError>(arriving.next().await?.map(|bytes| (bytes, arriving)))
    }))
}

impl ArrivingBody {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyReadError> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let deadline = self.room.pace.deadline(since, self.bytes);
        let next = tokio::time::timeout_at(deadline, self.frames.next()).await;
        let Some(bytes) = next.map_err(|_| BodyReadError::TooSlow)? else { return Ok(None) };
        let bytes = bytes.map_err(|_| BodyReadError::BrokenOff)?;
        self.bytes += bytes.len();
        self.share.grow(&self.room, self.bytes)?;
        Ok(Some(bytes))
    }
}

/// All bytes of a body of at most `bytes_max`. Of one that says in `headers` that it is longer,
/// nothing is read.
///
/// # Errors
/// [`BodyReadError`]
pub async fn whole(
    headers: &HeaderMap,
    body: Body,
    bytes_max: usize,
) -> Result<Bytes, BodyReadError> {
    if announced(headers).is_some_and(|bytes| bytes_max < bytes) {
        return Err(BodyReadError::TooLarge(bytes_max));
    }
    match Limited::new(body, bytes_max).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(cause) if cause.is::<LengthLimitError>() => Err(BodyReadError::TooLarge(bytes_max)),
        Err(cause) => Err(reason(cause)),
    }
}

/// How long a body is going to be, where its sender says so.
fn announced(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// What a JSON object says.
///
/// # Errors
/// What is wrong with the text and where, in the words of JSON.
pub fn parse_object<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    // The elements of a list would be taken for the members, in the order of the code.
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err("it is a list, not an object".to_owned());
    }
    serde_json::from_slice(bytes).map_err(|cause| without_types(&cause.to_string()))
}

/// `expected struct Name with 2 elements` without what only the code knows.
pub(crate) fn without_types(text: &str) -> String {
    let text = text.strip_prefix("DataInvalid => ").unwrap_or(text);
    let found = ["expected struct ", "expected internally tagged enum "]
        .iter()
        .find_map(|words| text.split_once(words));
    let Some((before, after)) = found else { return text.to_owned() };
    let place = after.find(" at line ").map_or("", |at| &after[at..]);
    format!("{before}expected an object{place}")
}

/// What [`ArrivingBody`] said, whatever it is wrapped in.
fn reason(cause: Box<dyn Error + Send + Sync>) -> BodyReadError {
    match cause.downcast::<axum::Error>() {
        Ok(wrapped) => reason(wrapped.into_inner()),
        Err(cause) => cause.downcast_ref().copied().unwrap_or(BodyReadError::BrokenOff),
    }
}

#[cfg(test)]
mod tests;
