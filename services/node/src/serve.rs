//! From a listening socket to the router: one accept loop per thread, each connection on the thread that accepted it.

use std::{convert::Infallible, io, pin::pin, sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::State};
use hyper::{Method, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
};
use tokio::net::{TcpListener, TcpStream};
use tower_service::Service;
use tracing::{debug, warn};

use crate::{
    app::{App, HttpWorker},
    routes,
    settings::HttpSettings,
    shutdown::Phase,
};

/// How long requests under way may take to end once the node drains.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// How long to wait after an error that is not the client's, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a connection may buffer: a request's head, with a key that is percent-encoded to three times its length.
const HEAD_BYTES: usize = 16 << 10;

const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n\
retry-after: 1\r\nconnection: close\r\ncontent-length: 134\r\n\r\n\
{\"type\":\"urn:problem-type:mesh:overloaded\",\"title\":\"Service Unavailable\",\"status\":503,\"detail\":\"CONNECTIONS_MAX connections are open\"}";

/// Serves until the node drains, and then until all requests under way are answered or [`DRAIN_MAX`] has passed.
pub(crate) async fn serve(listener: TcpListener, worker: HttpWorker, settings: &HttpSettings) {
    let app = Arc::clone(&worker.app);
    let worker = Arc::new(worker);
    let http = http1(settings, &app);
    let server = Server { router: routes::router(Arc::clone(&worker)), worker, http, app };
    let connections = GracefulShutdown::new();
    let mut draining = pin!(server.app.shutdown.reached(Phase::Draining));
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => server.welcome(stream, settings.connections_max, connections.watcher()),
                Err(error) => pause_after(&error).await,
            },
            () = &mut draining => break,
        }
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_MAX, connections.shutdown()).await.is_err() {
        warn!("requests were still under way after {DRAIN_MAX:?} and are given up");
    }
}

fn http1(settings: &HttpSettings, app: &App) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(settings.header_timeout)
        .max_buf_size(HEAD_BYTES + 3 * app.limits.key_bytes_max)
        .pipeline_flush(false)
        // Answers are small: one buffer is cheaper than a vector of two.
        .writev(false);
    http
}

async fn pause_after(error: &io::Error) {
    // The client gave up between the handshake and us: its problem only.
    if error.kind() != io::ErrorKind::ConnectionAborted {
        warn!(%error, "cannot accept connections");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

/// What each connection of a thread needs.
struct Server {
    router: Router,
    worker: Arc<HttpWorker>,
    http: http1::Builder,
    app: Arc<App>,
}

impl Server {
    fn welcome(&self, stream: TcpStream, connections_max: usize, watcher: Watcher) {
        if self.app.connections.get() >= connections_max {
            self.app.telemetry.connection_refused();
            // Fits into the empty buffer of a new socket; if not, a closed connection says the same.
            let _ = stream.try_write(TOO_MANY);
            return;
        }
        // Fails on a socket that is dead already, which the first read finds out.
        let _ = stream.set_nodelay(true);
        let (worker, router) = (Arc::clone(&self.worker), self.router.clone());
        let guarded = Arc::clone(&self.app);
        let service = service_fn(move |request| answer(Arc::clone(&worker), router.clone(), request));
        let connection = watcher.watch(self.http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            let _open = guarded.connections.enter();
            if let Err(error) = connection.await {
                debug!(%error, "connection broke");
            }
        });
    }
}

async fn answer(
    worker: Arc<HttpWorker>,
    mut router: Router,
    request: hyper::Request<Incoming>,
) -> Result<axum::response::Response, Infallible> {
    let app = Arc::clone(&worker.app);
    let _in_flight = app.in_flight.enter();
    app.pause.wait().await;
    // Reads and writes go straight to their handlers: the router's five allocations would cost them a tenth of their CPU.
    let response = match (request.method(), request.uri().path()) {
        (&Method::GET, "/get") => Ok(routes::get(State(worker), request.map(|_| Body::empty())).await),
        (&Method::POST, "/set") => Ok(routes::set(State(worker), request.map(Body::new)).await),
        _ => router.call(request).await,
    };
    // A stopped process would not finish what it has begun either.
    app.pause.wait().await;
    let slowness = app.node.slowness();
    if !slowness.is_zero() {
        tokio::time::sleep(slowness).await;
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prepared_refusal_is_as_long_as_it_says() {
        let text = String::from_utf8_lossy(TOO_MANY);
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body.len());
        assert!(text.contains(&format!("content-length: {}\r\n", body.unwrap_or(0))), "{body:?}");
    }
}
