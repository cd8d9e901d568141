//! What a node answers: one file per path.

mod cluster;
mod del;
mod fault;
mod get;
mod kill;
mod member;
mod metrics;
mod ready;
mod set;
mod stats;
mod trace;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::Response,
    routing,
};

use mesh_proto::OpRecord;
use observability::EndedRequest;
use receive_timestamps::KernelTime;

use crate::{
    app::HttpWorker,
    headers::{SERVER_TIMING, TRACEPARENT, Trace},
    problem::Problem,
    timing,
};

pub(crate) use del::del;
pub(crate) use get::get;
pub(crate) use set::set;

/// All paths, for one thread. There are no layers around them: each would cost every request.
pub(crate) fn router(worker: Arc<HttpWorker>) -> Router {
    Router::new()
        .route("/get", routing::get(|State(http), parts| get::get(http, Arrival::default(), parts)))
        .route("/set", routing::post(|State(http), parts, body: Body| set::set(http, Arrival::default(), parts, body)))
        .route("/del", routing::delete(|State(http), parts| del::del(http, Arrival::default(), parts)))
        .route("/stats", routing::get(stats::stats))
        .route("/ready", routing::get(ready::ready))
        .route("/cluster", routing::get(cluster::cluster))
        .route("/kill", routing::post(kill::kill))
        .route("/member", routing::delete(member::forget))
        .route("/fault", routing::post(fault::lay).delete(fault::heal))
        .route("/metrics", routing::get(metrics::metrics))
        .route("/trace/keep", routing::post(trace::keep))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(worker)
}

async fn not_found(State(http): State<Arc<HttpWorker>>) -> Response {
    let detail = "there is no such path: try /get, /set, /del, /stats, /ready, /cluster, /member or /metrics";
    Problem::new(StatusCode::NOT_FOUND, "path-unknown", detail).respond(&http.app.telemetry)
}

async fn method_not_allowed(State(http): State<Arc<HttpWorker>>) -> Response {
    // The router adds the Allow header.
    let detail = "this path has another method: see the Allow header";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail).respond(&http.app.telemetry)
}

/// When a request came.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Arrival {
    /// When the kernel received it.
    pub(crate) received: KernelTime,
}

/// A request to the mesh, from its start to its answer.
struct MeshRequest<'a> {
    http: &'a HttpWorker,
    method: &'static str,
    route: &'static str,
    started: Instant,
    /// In this host's queue before that, if it is known.
    queued: Option<Duration>,
    trace: Trace,
    /// What the mesh did for it: filled when its operation ends, also if its caller goes away.
    record: Option<OpRecord>,
    is_answered: bool,
}

impl<'a> MeshRequest<'a> {
    fn new(
        http: &'a HttpWorker,
        arrival: Arrival,
        (method, route): (&'static str, &'static str),
        headers: &HeaderMap,
    ) -> Self {
        let started = Instant::now();
        let queued = arrival.received.at(started).map(|received| started.saturating_duration_since(received));
        if let Some(queued) = queued {
            http.app.telemetry.queued(queued);
        }
        let trace = Trace::of(headers, &http.app.telemetry);
        Self { http, method, route, started, queued, trace, record: None, is_answered: false }
    }

    /// Adds what every answer of the mesh has, and ends the request's trace.
    fn finish(mut self, mut response: Response) -> Response {
        self.is_answered = true;
        let took = self.started.elapsed();
        let is_kept = self.end_trace(response.status().as_u16(), took);
        let headers = response.headers_mut();
        headers.insert(SERVER_TIMING, timing::header(self.queued, took, self.record.as_ref()));
        self.trace.returned(is_kept).map(|header| headers.insert(TRACEPARENT, header));
        response
    }

    /// Whether the trace is kept.
    fn end_trace(&self, status: u16, took: Duration) -> bool {
        let Self { http, method, route, started, queued, .. } = *self;
        let Some(request) = &self.trace.request else { return false };
        let ended = EndedRequest { method, route, status, started, queued, took };
        let fate = http.app.telemetry.end(request, &ended, self.record.as_ref());
        if let Some(keep) = fate.tell {
            http.mesh.keep_trace(keep.trace, keep.peers);
        }
        fate.is_kept
    }
}

/// Its caller went away. The mesh's future, which borrows the record, was dropped and has filled it just before.
impl Drop for MeshRequest<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.end_trace(EndedRequest::GONE, self.started.elapsed());
        }
    }
}

/// 200 with this text.
fn text(content_type: &'static str, text: impl Into<Body>) -> Response {
    let mut response = Response::new(text.into());
    response.headers_mut().insert(header::CONTENT_TYPE, axum::http::HeaderValue::from_static(content_type));
    response
}

/// 200 with this as JSON.
fn json(value: &impl serde::Serialize) -> Response {
    // Structs of strings and numbers always become JSON.
    text("application/json", serde_json::to_vec(value).unwrap_or_default())
}
