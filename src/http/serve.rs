//! The accept loop: bounded connections, time for headers and for reading answers, no Nagle delay,
//! one write per answer, a graceful end.
//!
//! `axum::serve` has neither the timers nor the bounds, so hyper is driven directly. Who gets a
//! connection when all are taken is decided in [`seats`].

mod seats;
mod watched;

use crate::{
    http::error::ApiError,
    tasks::{ShutdownSignal, Tasks},
};
use axum::{
    Router,
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use hyper::{
    Request,
    body::{Frame, Incoming, SizeHint},
    rt::{Read, Write},
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use icecore_catalog::access::PeerAddress;
use icecore_schemas::error_code::ErrorCode;
use seats::{ConnectionSeat, ConnectionSeats, RunningRequest, SeatLane};
use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::OwnedSemaphorePermit,
    time::{Instant, MissedTickBehavior},
};
use tracing::{debug, warn};
use watched::WatchedStream;

/// Longest an idle connection stays open.
const IDLE_TIME_MAX: Duration = Duration::from_secs(75);
/// How often a connection is looked at for what takes too long.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Longest a request waits for others to end when the server has as many as it takes.
const TURN_TIME_MAX: Duration = Duration::from_secs(10);
/// Most bytes of a request's head, and of a body that are read at once.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Pauses after `accept` failed, which is mostly for want of file descriptors: the first, and the
/// longest.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Failures of `accept` are logged this often.
const ACCEPT_LOG_EVERY: Duration = Duration::from_secs(60);

/// Serves `router` on `listener` until the tasks stop; then finishes the requests that run.
pub fn serve(tasks: &Tasks, listener: TcpListener, router: Router, connections_max: usize) {
    let seats = ConnectionSeats::new(connections_max);
    let connection_tasks = tasks.clone();
    let mut stopping = tasks.stopping();
    tasks.spawn("http-accept", async move {
        let mut failures = AcceptFailures::default();
        loop {
            // Cancel-safe: an accepted connection is used at once or was never taken.
            let accepted = tokio::select! {
                accepted = accept(&listener) => accepted,
                () = stopping.asked() => break,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(cause) => {
                    // One that nobody uses gives its descriptor to the next.
                    seats.evict();
                    tokio::time::sleep(failures.pause(&cause)).await;
                    continue;
                }
            };
            failures.pause = None;
            // Cancel-safe: a connection without a seat is closed, which the client expects at a stop.
            let seat = tokio::select! {
                seat = seats.take(peer.ip()) => seat,
                () = stopping.asked() => break,
            };
            let stopping = connection_tasks.stopping();
            connection_tasks
                .spawn("http-connection", connection(stream, seat, router.clone(), stopping));
        }
    });
}

/// What went wrong with `accept`.
#[derive(Debug, Default)]
struct AcceptFailures {
    pause: Option<Duration>,
    logged: Option<Instant>,
    since: u64,
}

impl AcceptFailures {
    /// Logs a failure, or counts it when there was one just now, and gives the pause after it.
    fn pause(&mut self, cause: &io::Error) -> Duration {
        self.since += 1;
        if self.logged.is_none_or(|logged| ACCEPT_LOG_EVERY <= logged.elapsed()) {
            let failures = self.since;
            warn!(error = cause as &dyn std::error::Error, failures, "accept failed");
            (self.logged, self.since) = (Some(Instant::now()), 0);
        }
        let pause = self.pause.map_or(ACCEPT_PAUSE, |last| (last * 2).min(ACCEPT_PAUSE_MAX));
        self.pause = Some(pause);
        pause
    }
}

/// The next connection. Cancel-safe, as the one wait in it is.
async fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, peer) = listener.accept().await?;
    // The end of a long answer would wait until the client has acknowledged its start.
    if let Err(cause) = stream.set_nodelay(true) {
        debug!(error = &cause as &dyn std::error::Error, "set no delay");
    }
    Ok((stream, peer))
}

async fn connection(
    stream: TcpStream,
    seat: ConnectionSeat,
    router: Router,
    mut stopping: ShutdownSignal,
) {
    let seat = Arc::new(seat);
    let stream = TokioIo::new(WatchedStream::new(stream, Arc::clone(&seat)));
    let served = answered(stream, Arc::clone(&seat), router, IDLE_TIME_MAX);
    let mut served = std::pin::pin!(served);
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stops = false;
    // Cancel-safe: only `served` has a state, and it is polled until it ends or is given up.
    let ended = loop {
        tokio::select! {
            ended = served.as_mut() => break ended,
            () = stopping.asked(), if !stops => {
                stops = true;
                seat.stop();
                served.as_mut().graceful_shutdown();
            }
            () = seat.evicted() => return debug!("connection gave its seat to another"),
            _ = looks.tick() => {
                if let Some(reason) = seat.overdue() {
                    return debug!(reason, "connection given up");
                }
            }
        }
    };
    if let Err(cause) = ended {
        debug!(error = &cause as &dyn std::error::Error, "connection ended");
    }
}

/// Answers the requests of one connection, each with one write if the other side takes it at once.
fn answered<S: Read + Write + Unpin>(
    stream: S,
    seat: Arc<ConnectionSeat>,
    router: Router,
    idle_time_max: Duration,
) -> http1::Connection<
    S,
    impl Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send>,
> {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(PeerAddress(seat.peer()));
        let running = seat.request();
        let (seat, router) = (Arc::clone(&seat), router.clone());
        async move {
            let turn = match seat.lane() {
                SeatLane::Reserve if !is_probe(request.uri().path()) => {
                    match tokio::time::timeout(TURN_TIME_MAX, seat.turn()).await {
                        Ok(turn) => Some(turn),
                        Err(_) => return Ok(overloaded()),
                    }
                }
                SeatLane::Reserve | SeatLane::Ordinary => None,
            };
            let Ok(response) = router.call(request).await;
            Ok::<_, Infallible>(
                response.map(|body| Body::new(AnswerBody { body, _running: running, _turn: turn })),
            )
        }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(idle_time_max)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(stream, service)
}

/// A body that holds what its request has until its last byte.
struct AnswerBody {
    body: Body,
    _running: RunningRequest,
    _turn: Option<OwnedSemaphorePermit>,
}

// Everything but the drop is the body's own: a known length stays known.
impl hyper::body::Body for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What is answered also when the server has as many requests as it takes.
fn is_probe(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz" | "/metrics")
}

fn overloaded() -> Response {
    let text = "the server is at its limit of concurrent requests; send the request again";
    ApiError::new(ErrorCode::Unavailable, text).into_response()
}

#[cfg(test)]
mod tests;
