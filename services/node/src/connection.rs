//! One client's connection: bytes in, requests to their handlers, answers out. Over any stream, so that tests need no socket.

use std::{
    convert::Infallible,
    error::Error,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    BoxError, Router,
    body::{Body, HttpBody},
    http::{header, request::Parts},
    response::Response,
};
use bytes::Bytes;
use hyper::{
    Method, Request, Version,
    body::{Frame, Incoming, SizeHint},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::Watcher,
};
use mesh::Worker;
use observability::{Cut, Shed};
use receive_timestamps::Received;
use tokio::io::{AsyncRead, AsyncWrite};
use tower_service::Service;
use tracing::debug;

use crate::{
    app::{App, HttpWorker},
    pieces,
    problem::Problem,
    routes::{self, Arrival},
    settings::HttpSettings,
    stream::{ClientStream, Exchange},
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
        self.serve_watched(stream, Received::default(), None).await;
    }

    /// As [`Connections::serve`], until `watcher` says that it is time to go. `received` tells when the kernel received what was read
    /// last from `stream`.
    pub(crate) async fn serve_watched(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
        received: Received,
        watcher: Option<Watcher>,
    ) {
        let exchange = Exchange::default();
        let stream = ClientStream::new(stream, self.answer_timeout, exchange.clone());
        let (worker, router) = (Arc::clone(&self.worker), self.router.clone());
        let service = service_fn(move |request| {
            // Now, and not when the answer is first polled: the client's end may come before that.
            exchange.begin_answer();
            let arrival = Arrival { received: received.get() };
            answer((Arc::clone(&worker), router.clone()), exchange.clone(), arrival, request)
        });
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
    (worker, mut router): (Arc<HttpWorker>, Router),
    exchange: Exchange,
    arrival: Arrival,
    request: Request<Incoming>,
) -> Result<Response, Infallible> {
    let app = Arc::clone(&worker.app);
    let (parts, body) = request.into_parts();
    if !has_one_host(&parts) {
        let detail = "send one Host header, such as Host: node1:8081";
        return Ok(Problem::bad_request("host-missing", detail).respond(&app.telemetry));
    }
    let in_flight = app.in_flight.enter();
    app.pause.wait().await;
    if let Err(problem) = app.authorization.check(parts.uri.path(), &parts.headers) {
        return Ok(end_answer(&exchange, problem.respond(&app.telemetry)));
    }
    // Reads and writes go straight to their handlers: the router's five allocations would cost them a tenth of their CPU.
    let response = match (&parts.method, parts.uri.path()) {
        (&Method::GET, "/get") => match worker.admission.admit(in_flight.others()) {
            Ok(()) => Ok(routes::get(worker, arrival, parts).await),
            Err(bound) => Ok(shed(&app, &exchange, bound)),
        },
        (&Method::POST, "/set") => match worker.admission.admit(in_flight.others()) {
            Ok(()) => {
                let body = ExchangeBody { body, exchange: exchange.clone(), _end: None };
                Ok(routes::set(worker, arrival, parts, body).await)
            }
            Err(bound) => Ok(shed(&app, &exchange, bound)),
        },
        (&Method::DELETE, "/del") => match worker.admission.admit(in_flight.others()) {
            Ok(()) => Ok(routes::del(worker, arrival, parts).await),
            Err(bound) => Ok(shed(&app, &exchange, bound)),
        },
        // Health and metrics bypass admission control: an overloaded node must still be observable.
        _ => router.call(Request::from_parts(parts, body)).await,
    };
    // A stopped process would not finish what it has begun either.
    app.pause.wait().await;
    let slowness = app.node.slowness();
    if !slowness.is_zero() {
        tokio::time::sleep(slowness).await;
    }
    Ok(response.map_or_else(|never| match never {}, |response| end_answer(&exchange, response)))
}

/// HTTP/1.1 demands one Host (RFC 9112, section 3.2); HTTP/1.0 does without.
fn has_one_host(parts: &Parts) -> bool {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    match hosts.next() {
        Some(_) => hosts.next().is_none(),
        None => parts.version == Version::HTTP_10,
    }
}

/// An answer of one piece is flushed at once; a longer one has ended when its body has.
fn end_answer(exchange: &Exchange, response: Response) -> Response {
    if response.body().size_hint().upper().is_some_and(|bytes| bytes <= pieces::PIECE_BYTES as u64) {
        exchange.end_answer();
        return response;
    }
    let end = AnswerEnd(exchange.clone());
    response.map(|body| Body::new(ExchangeBody { body, exchange: end.0.clone(), _end: Some(end) }))
}

/// Ends the answer when it is dropped.
struct AnswerEnd(Exchange);

impl Drop for AnswerEnd {
    fn drop(&mut self) {
        self.0.end_answer();
    }
}

/// A request's body, which breaks where the client sends no more; or an answer's of several pieces, with whose end it ends.
struct ExchangeBody<B> {
    body: B,
    exchange: Exchange,
    _end: Option<AnswerEnd>,
}

impl<B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Unpin> HttpBody for ExchangeBody<B> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            // An answer's body never waits.
            Poll::Pending if self.exchange.has_ended() => {
                Poll::Ready(Some(Err(axum::Error::new(io::Error::from(io::ErrorKind::UnexpectedEof)))))
            }
            frame => frame.map_err(axum::Error::new),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// 503 before anything was read or done.
#[cold]
fn shed(app: &App, exchange: &Exchange, bound: Shed) -> Response {
    exchange.hold_back();
    Problem::overloaded(bound).respond(&app.telemetry)
}
