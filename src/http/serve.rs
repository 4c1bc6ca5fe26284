//! The accept loop: bounded connections, time for headers, no Nagle delay, one write per
//! answer, a graceful end.
//!
//! `axum::serve` has neither the timers nor the bound, so hyper is driven directly.

use crate::tasks::{Stopping, Tasks};
use axum::{Router, response::Response};
use hyper::{
    Request,
    body::Incoming,
    rt::{Read, Write},
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use icecore_catalog::access::Peer;
use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tracing::{debug, warn};

/// Longest a client may take to send a request's headers, also the longest an idle connection
/// stays open.
const HEADER_TIME_MAX: Duration = Duration::from_secs(75);
/// Most bytes of a request's head, and of a body that are read at once.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Pause after `accept` failed, which is mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `router` on `listener` until the tasks stop; then finishes the requests that run.
pub fn serve(tasks: &Tasks, listener: TcpListener, router: Router, connections_max: usize) {
    let permits = Arc::new(Semaphore::new(connections_max));
    let connection_tasks = tasks.clone();
    let mut stopping = tasks.stopping();
    tasks.spawn("http-accept", async move {
        loop {
            let permit =
                Arc::clone(&permits).acquire_owned().await.expect("the semaphore is never closed");
            // Cancel-safe: an accepted connection is used at once or was never taken.
            let accepted = tokio::select! {
                accepted = accept(&listener) => accepted,
                () = stopping.asked() => break,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let stopping = connection_tasks.stopping();
                    connection_tasks.spawn(
                        "http-connection",
                        connection(stream, peer.ip(), router.clone(), permit, stopping),
                    );
                }
                Err(cause) => {
                    warn!(error = &cause as &dyn std::error::Error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    });
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
    peer: IpAddr,
    router: Router,
    _permit: OwnedSemaphorePermit,
    mut stopping: Stopping,
) {
    let served = answered(TokioIo::new(stream), peer, router, HEADER_TIME_MAX);
    let mut served = std::pin::pin!(served);
    // Cancel-safe: after the stop signal the connection is polled on to the end of its request.
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = stopping.asked() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(cause) = ended {
        debug!(error = &cause as &dyn std::error::Error, "connection ended");
    }
}

/// Answers the requests of one connection, each with one write if the other side takes it at once.
fn answered<S: Read + Write + Unpin>(
    stream: S,
    peer: IpAddr,
    router: Router,
    header_time_max: Duration,
) -> http1::Connection<
    S,
    impl Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send>,
> {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        router.call(request)
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_time_max)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(stream, service)
}

#[cfg(test)]
mod tests;
