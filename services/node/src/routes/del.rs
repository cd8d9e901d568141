//! `DELETE /del?k=KEY`: 200, whether or not the key was there.

use std::{sync::Arc, time::Instant};

use axum::{
    extract::{Request, State},
    response::Response,
};
use mesh::WriteOptions;

use super::{Asked, set::answer};
use crate::{app::HttpWorker, headers::Trace, query};

/// See the file's head.
pub(super) async fn del(State(http): State<Arc<HttpWorker>>, request: Request) -> Response {
    let started = Instant::now();
    let app = &*http.app;
    let (parts, _) = request.into_parts();
    let trace = Trace::of(&parts.headers, &app.telemetry);
    let key = query::parameters(parts.uri.query(), ["k"]).and_then(|[key]| query::key(key, &app.limits));
    let response = match key {
        Ok(key) => {
            let options = WriteOptions { trace: trace.context(), ..WriteOptions::default() };
            answer(&http, http.mesh.delete(key, options).await)
        }
        Err(problem) => problem.respond(&app.telemetry),
    };
    super::finish(&http, Asked { method: "DELETE", route: "/del", started, trace }, response)
}
