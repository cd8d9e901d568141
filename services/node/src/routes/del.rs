//! `DELETE /del?k=KEY`: 200, whether or not the key was there.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::Response,
};
use mesh::WriteOptions;

use super::{MeshRequest, set::answer};
use crate::{app::HttpWorker, query};

/// Deletes a key, whether or not it is there.
pub(super) async fn del(State(http): State<Arc<HttpWorker>>, request: Request) -> Response {
    let app = &*http.app;
    let (parts, _) = request.into_parts();
    let mut request = MeshRequest::new(&http, "DELETE", "/del", &parts.headers);
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
