//! `GET /get?k=KEY`: the value's bytes, or 404; where it came from and which version it is are in the headers.
//! `consistency=one|session|quorum` says how fresh it must be; a `session` read is no older than `X-Mesh-Min-Version`.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::Response,
};
use bytes::Bytes;
use mesh::{GetOptions, Hit, Lookup};
use mesh_proto::{Consistency, DRIFT_MAX, UnixMillis, Version};
use observability::Shed;

use super::{Arrival, MeshRequest};
use crate::{
    app::{App, HttpWorker},
    headers::{self, X_CACHE, X_MESH_MIN_VERSION, X_MESH_NODE, X_MESH_VERSION},
    pieces,
    problem::{MISS, PROBLEM_JSON, Problem},
    query,
};

/// Reads a key.
pub(crate) async fn get(http: Arc<HttpWorker>, arrival: Arrival, parts: Parts) -> Response {
    let app = &*http.app;
    let mut request = MeshRequest::new(&http, arrival, ("GET", "/get"), &parts.headers);
    let response = match parse(&parts, app) {
        Ok((key, consistency)) => {
            let options = GetOptions { consistency, trace: request.trace.context() };
            match http.mesh.get(&key, options, &mut request.record).await {
                Ok(Lookup::Local(hit)) => found(app, hit, HeaderValue::from_static("HIT_LOCAL"), app.id_header.clone()),
                Ok(Lookup::Remote(hit)) => {
                    let node = headers::node(hit.served_by);
                    found(app, hit, HeaderValue::from_static("HIT_REMOTE"), node)
                }
                // Only where nothing was found: a wrong clock may be this node's.
                Ok(Lookup::Miss { version }) => from_the_future(consistency, app.node.unix())
                    .map_or_else(|| missed(version, app.id_header.clone()), |problem| problem.respond(&app.telemetry)),
                Err(error) => from_the_future(consistency, app.node.unix())
                    .unwrap_or_else(|| Problem::from(error))
                    .respond(&app.telemetry),
            }
        }
        Err(problem) => problem.respond(&app.telemetry),
    };
    request.finish(response)
}

fn parse(parts: &Parts, app: &App) -> Result<(Bytes, Consistency), Problem> {
    let [key, consistency] = query::parameters(parts.uri.query(), ["k", "consistency"])?;
    Ok((query::key(key, &app.limits)?, parse_consistency(consistency, &parts.headers)?))
}

fn parse_consistency(text: Option<&str>, headers: &HeaderMap) -> Result<Consistency, Problem> {
    match text {
        None | Some("one") => Ok(Consistency::One),
        Some("quorum") => Ok(Consistency::Quorum),
        Some("session") => {
            // Without a version the session has not seen anything yet.
            let Some(header) = headers.get(&X_MESH_MIN_VERSION) else { return Ok(Consistency::One) };
            let version = header.to_str().ok().and_then(Version::parse);
            version.map(Consistency::Session).ok_or_else(|| {
                let detail = "X-Mesh-Min-Version must be 32 hexadecimal digits, as X-Mesh-Version gave them";
                Problem::bad_request("version-malformed", detail)
            })
        }
        Some(_) => Err(Problem::bad_request("consistency-unknown", "`consistency` must be one, session or quorum")),
    }
}

/// A session cannot have met what no node can have stamped.
fn from_the_future(consistency: Consistency, now: UnixMillis) -> Option<Problem> {
    let Consistency::Session(version) = consistency else { return None };
    let ahead_ms = version.unix_millis().get().saturating_sub(now.get());
    (u128::from(ahead_ms) > DRIFT_MAX.as_millis()).then(|| {
        let detail = format!(
            "X-Mesh-Min-Version is {ahead_ms} ms ahead of this node's clock: send what X-Mesh-Version gave, or check the clocks"
        );
        Problem::bad_request("version-from-future", detail)
    })
}

fn found(app: &App, hit: Hit, cache: HeaderValue, node: HeaderValue) -> Response {
    match pieces::body(hit.value, &app.bodies) {
        Some(body) => found_in(body, hit.version, cache, node),
        None => Problem::overloaded(Shed::Answers).respond(&app.telemetry),
    }
}

fn found_in(body: Body, version: Version, cache: HeaderValue, node: HeaderValue) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.reserve(6);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(X_CACHE, cache);
    headers.insert(X_MESH_VERSION, headers::version(version));
    headers.insert(X_MESH_NODE, node);
    response
}

fn missed(version: Option<Version>, node: HeaderValue) -> Response {
    let mut response = Response::new(Body::from(MISS));
    *response.status_mut() = StatusCode::NOT_FOUND;
    let headers = response.headers_mut();
    headers.reserve(6);
    headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
    headers.insert(X_CACHE, HeaderValue::from_static("MISS"));
    headers.insert(X_MESH_NODE, node);
    version.map(|version| headers.insert(X_MESH_VERSION, headers::version(version)));
    response
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;

    #[test]
    fn consistency_is_one_of_three() {
        let mut headers = HeaderMap::new();
        assert_eq!(parse_consistency(None, &headers).unwrap(), Consistency::One);
        assert_eq!(parse_consistency(Some("one"), &headers).unwrap(), Consistency::One);
        assert_eq!(parse_consistency(Some("quorum"), &headers).unwrap(), Consistency::Quorum);
        assert_eq!(parse_consistency(Some("session"), &headers).unwrap(), Consistency::One);
        assert!(parse_consistency(Some("strong"), &headers).is_err());
        assert!(parse_consistency(Some(""), &headers).is_err());

        let version = Version::new(42);
        headers.insert(X_MESH_MIN_VERSION, headers::version(version));
        assert_eq!(parse_consistency(Some("session"), &headers).unwrap(), Consistency::Session(version));
        assert_eq!(parse_consistency(Some("one"), &headers).unwrap(), Consistency::One);
        headers.insert(X_MESH_MIN_VERSION, HeaderValue::from_static("42"));
        assert!(parse_consistency(Some("session"), &headers).is_err());
    }

    #[test]
    fn answers_say_where_they_came_from() {
        let (cache, node) = (HeaderValue::from_static("HIT_REMOTE"), headers::node(mesh_proto::NodeId::new(2)));
        let response = found_in(Body::from("v"), Version::new(1), cache, node);
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[X_CACHE], "HIT_REMOTE");
        assert_eq!(response.headers()[X_MESH_NODE], "0000000000000002");
        let response = missed(None, HeaderValue::from_static("me"));
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert_eq!(response.headers()[X_CACHE], "MISS");
        assert!(!response.headers().contains_key(X_MESH_VERSION));
    }
}
