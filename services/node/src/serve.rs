//! From a listening socket to the router: one accept loop per thread, each connection on the thread that accepted it.

use std::{
    io,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use receive_timestamps::TimestampedStream;
use tokio::net::{TcpListener, TcpStream};
use tracing::warn;

use crate::{
    app::{App, HttpWorker},
    connection::Connections,
    settings::HttpSettings,
    shutdown::ShutdownPhase,
};

/// How long requests under way may take to end once the node drains.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// How long to wait after an error that is not the client's, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How often the log reports such errors.
const ACCEPT_TOLD_EVERY: Duration = Duration::from_secs(10);

const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n\
retry-after: 1\r\nconnection: close\r\ncontent-length: 134\r\n\r\n\
{\"type\":\"urn:problem-type:mesh:overloaded\",\"title\":\"Service Unavailable\",\"status\":503,\"detail\":\"CONNECTIONS_MAX connections are open\"}";

/// Serves until the node drains, and then until all requests under way are answered or [`DRAIN_MAX`] has passed.
pub(crate) async fn serve(listener: TcpListener, worker: HttpWorker, settings: &HttpSettings) {
    let app = Arc::clone(&worker.app);
    let admission = Arc::clone(&worker.admission);
    tokio::spawn(async move { admission.watch().await });
    let server = Server { connections: Connections::of(worker, settings), app };
    let connections = GracefulShutdown::new();
    let mut failures = AcceptFailures::default();
    let mut draining = pin!(server.app.shutdown.reached(ShutdownPhase::Draining));
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => server.welcome(stream, settings, connections.watcher()),
                Err(error) => failures.pause_after(&error).await,
            },
            () = &mut draining => break,
        }
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_MAX, connections.shutdown()).await.is_err() {
        warn!("requests were still under way after {DRAIN_MAX:?} and are given up");
    }
}

/// Connections that could not be accepted. They come in crowds: one line in the log stands for many.
#[derive(Default)]
struct AcceptFailures {
    since_told: u64,
    told: Option<Instant>,
}

impl AcceptFailures {
    async fn pause_after(&mut self, error: &io::Error) {
        // The client gave up between the handshake and us: its problem only.
        if error.kind() == io::ErrorKind::ConnectionAborted {
            return;
        }
        self.since_told += 1;
        if self.told.is_none_or(|told| told.elapsed() >= ACCEPT_TOLD_EVERY) {
            warn!(%error, failures = self.since_told, "cannot accept connections");
            *self = Self { since_told: 0, told: Some(Instant::now()) };
        }
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

/// What the accept loop of a thread needs.
struct Server {
    connections: Connections,
    app: Arc<App>,
}

impl Server {
    fn welcome(&self, stream: TcpStream, settings: &HttpSettings, watcher: Watcher) {
        if self.app.connections.get() >= settings.connections_max {
            self.app.telemetry.connection_refused();
            // Fits into the empty buffer of a new socket; if not, a closed connection says the same. So it must to a client of TLS.
            if self.app.tls.is_none() {
                let _ = stream.try_write(TOO_MANY);
            }
            return;
        }
        // Fails on a socket that is dead already, which the first read finds out.
        let _ = stream.set_nodelay(true);
        let stream = TimestampedStream::new(stream, settings.kernel_timestamps);
        let (connections, received) = (self.connections.clone(), stream.received().clone());
        let Some(tls) = self.app.tls.clone() else {
            tokio::spawn(async move { connections.serve_watched(stream, received, Some(watcher)).await });
            return;
        };
        let (app, patience) = (Arc::clone(&self.app), settings.header_timeout);
        tokio::spawn(async move {
            let accepted = {
                let _open = app.connections.enter();
                tokio::select! {
                    accepted = tls.accept(stream, patience, &app.telemetry) => accepted,
                    () = app.shutdown.reached(ShutdownPhase::Draining) => None,
                }
            };
            if let Some(stream) = accepted {
                connections.serve_watched(stream, received, Some(watcher)).await;
            }
        });
    }
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
