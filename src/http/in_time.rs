//! Request bodies that fail when they take too long to arrive.

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::{
    error::Error,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep_until};

/// A body took too long.
#[derive(Debug, thiserror::Error)]
#[error("the body took longer than {0:?} to arrive")]
pub struct TooSlow(Duration);

impl TooSlow {
    /// The one that caused an error, if one did.
    #[must_use]
    pub fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(slow) = error.downcast_ref() {
                return Some(slow);
            }
            cause = error.source();
        }
        None
    }
}

/// A body that fails with [`TooSlow`] when it is not whole in time.
#[derive(Debug)]
pub struct InTime<B> {
    body: B,
    time: Duration,
    until: Instant,
    /// Made at the first wait: most bodies arrive with their headers.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl<B> InTime<B> {
    /// The body, which may take `time` from now.
    pub fn new(body: B, time: Duration) -> Self {
        Self { body, time, until: Instant::now() + time, sleep: None }
    }
}

impl<B> Body for InTime<B>
where
    B: Body<Data = Bytes, Error: Into<axum::BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(ctx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let until = self.until;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(until)));
        ready!(sleep.as_mut().poll(ctx));
        Poll::Ready(Some(Err(TooSlow(self.time).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
