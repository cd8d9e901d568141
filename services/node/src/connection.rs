//! One client's connection: bytes in, requests to their handlers, answers out. Over any stream, so that tests need no socket.

use std::{convert::Infallible, error::Error, io, sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::State, response::Response};
use hyper::{Method, Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::Watcher,
};
use mesh::Worker;
use observability::{Cut, Shed};
use tokio::io::{AsyncRead, AsyncWrite};
use tower_service::Service;
use tracing::debug;

use crate::{
    app::{App, HttpWorker},
    problem::Problem,
    routes,
    settings::HttpSettings,
    stream::{ClientStream, Hold},
};

/// What a connection may buffer: a request's head, with a key that is percent-encoded to three times its length.
const HEAD_BYTES: usize = 16 << 10;

/// What all connections of a thread share.
#[derive(Clone)]
pub struct Connections {
    router: Router,
    worker: Arc<HttpWorker>,
    http: http1::Builder,
    answer_timeout: Duration,
}

impl Connections {
    /// Connections whose requests go to `mesh`, on this thread.
    #[must_use]
    pub fn new(app: &Arc<App>, mesh: Worker, settings: &HttpSettings) -> Self {
        Self::of(HttpWorker::new(app, mesh), settings)
    }

    pub(crate) fn of(worker: HttpWorker, settings: &HttpSettings) -> Self {
        let worker = Arc::new(worker);
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(settings.header_timeout)
            .max_buf_size(HEAD_BYTES + 3 * worker.app.limits.key_bytes_max)
            .pipeline_flush(false)
            // Answers are small: one buffer is cheaper than a vector of two.
            .writev(false);
        let router = routes::router(Arc::clone(&worker));
        Self { router, worker, http, answer_timeout: settings.answer_timeout }
    }

    /// Answers the requests that come out of `stream` until it ends, breaks, or keeps us waiting for too long.
    pub async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Unpin + 'static) {
        self.serve_watched(stream, None).await;
    }

    /// As [`Connections::serve`], until `watcher` says that it is time to go.
    pub(crate) async fn serve_watched(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
        watcher: Option<Watcher>,
    ) {
        let hold = Hold::default();
        let (worker, router, asked) = (Arc::clone(&self.worker), self.router.clone(), hold.clone());
        let service = service_fn(move |request| answer(Arc::clone(&worker), router.clone(), asked.clone(), request));
        let stream = ClientStream::new(stream, self.answer_timeout, hold);
        let connection = self.http.serve_connection(TokioIo::new(stream), service);
        let _open = self.worker.app.connections.enter();
        let ended = match watcher {
            Some(watcher) => watcher.watch(connection).await,
            None => connection.await,
        };
        if let Err(error) = ended {
            if let Some(reason) = kept_waiting(&error) {
                self.worker.app.telemetry.cut(reason);
            }
            debug!(%error, "connection broke");
        }
    }
}

/// What the connection waited for, if it was given up for that.
fn kept_waiting(error: &hyper::Error) -> Option<Cut> {
    if error.is_timeout() {
        return Some(Cut::Head);
    }
    let source = error.source()?.downcast_ref::<io::Error>()?;
    (source.kind() == io::ErrorKind::TimedOut).then_some(Cut::Answer)
}

async fn answer(
    worker: Arc<HttpWorker>,
    mut router: Router,
    hold: Hold,
    request: Request<Incoming>,
) -> Result<Response, Infallible> {
    let app = Arc::clone(&worker.app);
    let in_flight = app.in_flight.enter();
    app.pause.wait().await;
    // Reads and writes go straight to their handlers: the router's five allocations would cost them a tenth of their CPU.
    let response = match (request.method(), request.uri().path()) {
        (&Method::GET, "/get") => match worker.admission.admit(in_flight.others()) {
            Ok(()) => Ok(routes::get(State(worker), request.map(|_| Body::empty())).await),
            Err(bound) => Ok(turn_away(&app, &hold, bound)),
        },
        (&Method::POST, "/set") => match worker.admission.admit(in_flight.others()) {
            Ok(()) => Ok(routes::set(State(worker), request.map(Body::new)).await),
            Err(bound) => Ok(turn_away(&app, &hold, bound)),
        },
        (&Method::DELETE, "/del") => match worker.admission.admit(in_flight.others()) {
            Ok(()) => router.call(request).await,
            Err(bound) => Ok(turn_away(&app, &hold, bound)),
        },
        // Whoever looks at a node that is overloaded has to get an answer.
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

/// 503 before anything was read or done.
#[cold]
fn turn_away(app: &App, hold: &Hold, bound: Shed) -> Response {
    hold.ask();
    Problem::overloaded(bound).respond(&app.telemetry)
}
