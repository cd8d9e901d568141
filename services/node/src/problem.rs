//! Errors as HTTP tells them: `application/problem+json` (RFC 9457). Each says what to change, and each write error says
//! whether anything was written.

use std::borrow::Cow;

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use mesh::{GetError, WriteError};
use mesh_proto::Version;
use observability::{Cut, Shed, Telemetry};
use serde::Serialize;

use crate::headers::{self, X_MESH_VERSION};

/// The answer to a key that nobody has: not an error, but told in the same form, and made once.
pub(crate) const MISS: &str =
    r#"{"type":"urn:problem-type:mesh:miss","title":"Not Found","status":404,"detail":"there is no such key"}"#;

/// The content type of all of them.
pub(crate) const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// Why a request was not done.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    /// The last part of `type`: one word for programs.
    kind: &'static str,
    detail: Cow<'static, str>,
    retry_after_s: Option<u8>,
    version: Option<Version>,
    /// The bound that the request met, if it was shed for one.
    shed: Option<Shed>,
    // Boxed, because few have one and all results carry its size.
    header: Option<Box<(HeaderName, HeaderValue)>>,
}

#[derive(Serialize)]
struct Body9457<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
}

impl Problem {
    /// A problem of this kind, with a sentence for people.
    pub(crate) fn new(status: StatusCode, kind: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status, kind, detail: detail.into(), retry_after_s: None, version: None, shed: None, header: None }
    }

    /// 400.
    pub(crate) fn bad_request(kind: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, kind, detail)
    }

    /// 413.
    pub(crate) fn too_large(kind: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, kind, detail)
    }

    /// 503, to be tried again in a second.
    pub(crate) fn unavailable(kind: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { retry_after_s: Some(1), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, kind, detail) }
    }

    /// 503 for a bound that the request met.
    pub(crate) fn overloaded(bound: Shed) -> Self {
        let detail = match bound {
            Shed::Requests => "REQUESTS_MAX requests are in flight: nothing was done",
            Shed::Queue => "requests wait for longer than QUEUE_DELAY_MAX_MS: nothing was done",
            Shed::Bytes => "bodies in memory have reached REQUEST_BYTES_MAX: nothing was done",
            Shed::Answers => {
                "bodies in memory have reached REQUEST_BYTES_MAX, or unread answers half of it: the value is not sent"
            }
        };
        Self { shed: Some(bound), ..Self::unavailable("overloaded", detail) }
    }

    /// With one more header.
    pub(crate) fn with_header(self, name: HeaderName, value: HeaderValue) -> Self {
        Self { header: Some(Box::new((name, value))), ..self }
    }

    /// The connection cannot be used any further, because the request was not read to its end.
    pub(crate) fn closing(self) -> Self {
        self.with_header(header::CONNECTION, HeaderValue::from_static("close"))
    }

    /// Counts it and makes the answer.
    pub(crate) fn respond(self, telemetry: &Telemetry) -> Response {
        telemetry.problem(self.status.as_u16());
        if let Some(bound) = self.shed {
            telemetry.shed(bound);
        }
        if self.status == StatusCode::REQUEST_TIMEOUT {
            telemetry.cut(Cut::Body);
        }
        self.into_answer()
    }

    fn into_answer(self) -> Response {
        let body = Body9457 {
            r#type: format!("urn:problem-type:mesh:{}", self.kind),
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            version: self.version.map(|version| version.to_string()),
        };
        // Strings and numbers always become JSON.
        let json = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = Response::new(Body::from(json));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
        self.retry_after_s.map(|seconds| headers.insert(header::RETRY_AFTER, HeaderValue::from(u16::from(seconds))));
        self.version.map(|version| headers.insert(X_MESH_VERSION, headers::version(version)));
        if let Some((name, value)) = self.header.map(|header| *header) {
            headers.insert(name, value);
        }
        response
    }
}

impl From<GetError> for Problem {
    fn from(error: GetError) -> Self {
        let detail = error.to_string();
        match error {
            GetError::Unavailable { .. } => Self::unavailable("unavailable", detail),
            GetError::TimedOut => Self::new(StatusCode::GATEWAY_TIMEOUT, "timed-out", detail),
            GetError::Stopped => Self::unavailable("stopped", detail),
        }
    }
}

impl From<WriteError> for Problem {
    fn from(error: WriteError) -> Self {
        let detail = error.to_string();
        match error {
            WriteError::NoQuorum { .. } => Self::unavailable("no-quorum", detail),
            WriteError::Indeterminate { version, .. } => {
                let detail = format!("outcome unknown: {detail}");
                Self { version: Some(version), ..Self::new(StatusCode::GATEWAY_TIMEOUT, "indeterminate", detail) }
            }
            WriteError::TooLarge => Self::too_large("store-too-small", detail),
            WriteError::Drift => Self::unavailable("clock-drift", detail),
            WriteError::Stopped => Self::unavailable("stopped", detail),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use http_body_util::BodyExt;
    use serde_json::{Value, json};

    use super::*;

    async fn answer(problem: Problem) -> (StatusCode, Option<String>, Value) {
        let response = problem.into_answer();
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        let retry = response.headers().get(header::RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned());
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, retry, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn a_problem_has_the_members_of_the_rfc() {
        let (status, retry, body) = answer(Problem::bad_request("key-missing", "say which \"key\"")).await;
        assert_eq!((status, retry), (StatusCode::BAD_REQUEST, None));
        let expected = json!({
            "type": "urn:problem-type:mesh:key-missing", "title": "Bad Request", "status": 400,
            "detail": "say which \"key\"",
        });
        assert_eq!(body, expected);
    }

    #[tokio::test]
    async fn what_may_work_later_says_when_to_retry() {
        let refused = [
            Problem::from(WriteError::NoQuorum { reachable: 1, needed: 2 }),
            WriteError::Drift.into(),
            WriteError::Stopped.into(),
            GetError::Unavailable { answers: 0, needed: 2 }.into(),
            GetError::Stopped.into(),
        ];
        for problem in refused {
            let (status, retry, body) = answer(problem).await;
            assert_eq!((status.as_u16(), retry.as_deref()), (503, Some("1")), "{body}");
        }
    }

    #[tokio::test]
    async fn an_unknown_outcome_is_neither_done_nor_failed() {
        let version = Version::new(7);
        let problem = Problem::from(WriteError::Indeterminate { acks: 1, needed: 2, version });
        let (status, retry, body) = answer(problem).await;
        assert_eq!((status.as_u16(), retry), (504, None));
        assert!(body["detail"].as_str().unwrap().starts_with("outcome unknown: "));
        assert_eq!(body["version"], version.to_string());
        assert_eq!(answer(GetError::TimedOut.into()).await.0.as_u16(), 504);
        assert_eq!(answer(WriteError::TooLarge.into()).await.0.as_u16(), 413);
    }

    #[test]
    fn the_prepared_miss_is_one_too() {
        let miss: Value = serde_json::from_str(MISS).unwrap();
        assert_eq!((&miss["status"], &miss["title"]), (&json!(404), &json!("Not Found")));
    }
}
