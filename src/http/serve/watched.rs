//! A connection's bytes, of which its [`ConnectionSeat`] hears.

use crate::http::serve::seats::ConnectionSeat;
use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most bytes that are read and dropped after the last answer, and how many of them at once.
const LINGER_BYTES_MAX: usize = 256 << 20;
const LINGER_STEP_BYTES: usize = 16 << 10;

/// A stream that tells its seat when bytes come and whether they go.
#[derive(Debug)]
pub(super) struct WatchedStream<S> {
    stream: S,
    seat: Arc<ConnectionSeat>,
    /// What was dropped after the last answer; none as long as that is not written.
    dropped: Option<usize>,
}

impl<S> WatchedStream<S> {
    /// `stream`, of which `seat` hears.
    pub(super) fn new(stream: S, seat: Arc<ConnectionSeat>) -> Self {
        Self { stream, seat, dropped: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WatchedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if before < buffer.filled().len() {
            self.seat.received();
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WatchedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.seat.written(written.is_pending());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.seat.written(written.is_pending());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// Ends the answers, and reads on a while: a connection that is closed on bytes nobody read takes
    /// its last answer with it (RFC 9112, section 9.6). The seat bounds the time.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.dropped.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
        }
        let mut bytes = [0; LINGER_STEP_BYTES];
        let mut dropped = self.dropped.unwrap_or(0);
        while self.seat.lingers() && dropped < LINGER_BYTES_MAX {
            self.dropped = Some(dropped);
            let mut buffer = ReadBuf::new(&mut bytes);
            let read = ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer));
            // The client has ended its side, or is gone.
            if read.is_err() || buffer.filled().is_empty() {
                break;
            }
            dropped += buffer.filled().len();
        }
        Poll::Ready(Ok(()))
    }
}
