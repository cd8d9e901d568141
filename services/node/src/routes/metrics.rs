//! `GET /metrics`: all metrics as text, in the form that `Accept` asks for.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderMap, header},
    response::Response,
};
use observability::Exposition;

use crate::app::HttpWorker;

/// Answers with all metrics, in the format that the client accepts.
pub(super) async fn metrics(State(http): State<Arc<HttpWorker>>, headers: HeaderMap) -> Response {
    let app = &http.app;
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok());
    let exposition = Exposition::negotiate(accept);
    app.telemetry.sample(&app.sample());
    super::text(exposition.content_type(), app.telemetry.render(exposition))
}
