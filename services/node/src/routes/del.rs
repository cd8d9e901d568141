//! `DELETE /del?k=KEY`: 200, whether or not the key was there.

use std::sync::Arc;

use axum::{http::request::Parts, response::Response};
use mesh::WriteOptions;

use super::{Arrival, MeshRequest, set::answer};
use crate::{app::HttpWorker, query};

/// Deletes a key, whether or not it is there.
pub(crate) async fn del(http: Arc<HttpWorker>, arrival: Arrival, parts: Parts) -> Response {
    let app = &*http.app;
    let mut request = MeshRequest::new(&http, arrival, ("DELETE", "/del"), &parts.headers);
    let key = query::parameters(parts.uri.query(), ["k"]).and_then(|[key]| query::key(key, &app.limits));
    let response = match key {
        Ok(key) => {
            let options = WriteOptions { trace: request.trace.context(), ..WriteOptions::default() };
            answer(&http, http.mesh.delete(key, options, &mut request.record).await)
        }
        Err(problem) => problem.respond(&app.telemetry),
    };
    request.finish(response)
}
