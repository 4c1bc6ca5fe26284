//! The accept loop: bounded connections, time for headers, no Nagle delay, a graceful end.
//!
//! `axum::serve` has neither the timer nor the bound, so hyper is driven directly.

use crate::tasks::{Stopping, Tasks};
use axum::Router;
use hyper::{
    Request,
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use icecore_catalog::access::Peer;
use std::{net::IpAddr, sync::Arc, time::Duration};
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
                accepted = listener.accept() => accepted,
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

async fn connection(
    stream: TcpStream,
    peer: IpAddr,
    router: Router,
    _permit: OwnedSemaphorePermit,
    mut stopping: Stopping,
) {
    if let Err(cause) = stream.set_nodelay(true) {
        debug!(error = &cause as &dyn std::error::Error, "set no delay");
    }
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        router.call(request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
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
