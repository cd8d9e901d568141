//! `GET /cluster`: the mesh as this node sees it.

use std::sync::Arc;

use axum::{extract::State, response::Response};

use crate::app::HttpWorker;

/// Answers with the mesh as this node sees it.
pub(super) async fn cluster(State(http): State<Arc<HttpWorker>>) -> Response {
    super::json(&http.app.node.view())
}
