//! `POST /set`: JSON `{"k": "KEY", "v": "VALUE", "ttl_ms": 0}`, whatever Content-Type says, because `curl -d` calls it a form; or any
//! bytes as `application/octet-stream` to `/set?k=KEY&ttl_ms=0`. Answers `OK` once WRITE_CONCERN owners have applied it. `ttl_ms` is -1 for ever, 0 for the
//! node's default, or milliseconds from now.

use std::{borrow::Cow, sync::Arc, time::Duration};

use axum::{
    http::{HeaderMap, header, request::Parts},
    response::Response,
};
use bytes::Bytes;
use mesh::{Ttl, WriteError, WriteOptions, Written};
use serde::Deserialize;
use settings::TTL_MS_MAX;

use super::{Arrival, MeshRequest};
use crate::{
    app::{HttpWorker, Limits},
    body::{Payload, RequestBody, body_bytes_max},
    headers::{self, X_MESH_NODE, X_MESH_VERSION},
    problem::Problem,
    query,
};

/// What is to be written.
#[derive(Debug, PartialEq)]
struct SetRequest {
    key: Bytes,
    value: Bytes,
    ttl: Ttl,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct JsonEntry<'a> {
    #[serde(borrow)]
    k: Cow<'a, str>,
    #[serde(borrow)]
    v: Cow<'a, str>,
    #[serde(default)]
    ttl_ms: i64,
}

/// Writes a key.
pub(crate) async fn set(http: Arc<HttpWorker>, arrival: Arrival, parts: Parts, body: impl RequestBody) -> Response {
    let mut request = MeshRequest::new(&http, arrival, ("POST", "/set"), &parts.headers);
    let response = match read(&http, &parts, body).await {
        Ok(entry) => {
            let options = WriteOptions { ttl: entry.ttl, trace: request.trace.context() };
            answer(&http, http.mesh.set(entry.key, entry.value, options, &mut request.record).await)
        }
        Err(problem) => problem.respond(&http.app.telemetry),
    };
    request.finish(response)
}

/// `OK`, or why not.
pub(super) fn answer(http: &HttpWorker, written: Result<Written, WriteError>) -> Response {
    match written {
        Ok(Written { version }) => {
            let mut response = super::text("text/plain; charset=utf-8", "OK");
            response.headers_mut().insert(X_MESH_VERSION, headers::version(version));
            response.headers_mut().insert(X_MESH_NODE, http.app.id_header.clone());
            response
        }
        Err(error) => Problem::from(error).respond(&http.app.telemetry),
    }
}

async fn read(http: &HttpWorker, parts: &Parts, body: impl RequestBody) -> Result<SetRequest, Problem> {
    let limits = &http.app.limits;
    let bodies = &http.app.bodies;
    if !is_raw(&parts.headers) {
        let bytes_max = body_bytes_max(limits.key_bytes_max, limits.value_bytes_max);
        let [] = query::parameters(parts.uri.query(), [])?;
        let payload = Payload::read(body, &parts.headers, bytes_max, limits.request_timeout, bodies).await?;
        let entry = parse_json(payload.bytes(), |part| payload.keep(part), limits)?;
        return Ok(SetRequest { value: payload.hold(entry.value), ..entry });
    }
    let [key, ttl] = query::parameters(parts.uri.query(), ["k", "ttl_ms"])?;
    let key = query::key(key, limits)?;
    let ttl_ms = ttl.map_or(Ok(0), str::parse).map_err(|_| bad_ttl())?;
    let ttl = parse_ttl(ttl_ms)?;
    let payload = Payload::read(body, &parts.headers, limits.value_bytes_max, limits.request_timeout, bodies).await?;
    let value = payload.keep(payload.bytes());
    Ok(SetRequest { key, value: payload.hold(value), ttl })
}

/// Whether the body is the value itself.
fn is_raw(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|content_type| {
        let essence = content_type.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
        essence.trim_ascii().eq_ignore_ascii_case(b"application/octet-stream")
    })
}

/// `keep` makes a part of `body` live longer than it.
fn parse_json(body: &[u8], keep: impl Fn(&[u8]) -> Bytes, limits: &Limits) -> Result<SetRequest, Problem> {
    let malformed = |why: &dyn std::fmt::Display| {
        let detail = format!(
            "the body must be {{\"k\": string, \"v\": string, \"ttl_ms\": whole number (optional)}}, or bytes as application/octet-stream: {why}"
        );
        Problem::bad_request("json-malformed", detail)
    };
    // serde would take an array for a struct.
    if body.trim_ascii_start().starts_with(b"[") {
        return Err(malformed(&"this is an array"));
    }
    let entry: JsonEntry<'_> = serde_json::from_slice(body).map_err(|error| malformed(&error))?;
    let ttl = parse_ttl(entry.ttl_ms)?;
    query::check_key(entry.k.as_bytes(), limits)?;
    if entry.v.len() > limits.value_bytes_max {
        let detail = format!("the value has {} bytes, more than the {} allowed", entry.v.len(), limits.value_bytes_max);
        return Err(Problem::too_large("value-too-large", detail));
    }
    let value = match entry.v {
        Cow::Borrowed(text) => keep(text.as_bytes()),
        Cow::Owned(text) => text.into(),
    };
    Ok(SetRequest { key: Bytes::copy_from_slice(entry.k.as_bytes()), value, ttl })
}

fn parse_ttl(ttl_ms: i64) -> Result<Ttl, Problem> {
    match u64::try_from(ttl_ms) {
        Ok(0) => Ok(Ttl::NodeDefault),
        Ok(millis) if millis <= TTL_MS_MAX => Ok(Ttl::After(Duration::from_millis(millis))),
        Err(_) if ttl_ms == -1 => Ok(Ttl::Never),
        _ => Err(bad_ttl()),
    }
}

fn bad_ttl() -> Problem {
    let detail =
        format!("`ttl_ms` must be -1 (for ever), 0 (the node's default) or whole milliseconds up to {TTL_MS_MAX}");
    Problem::bad_request("ttl-malformed", detail)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { key_bytes_max: 4, value_bytes_max: 8, request_timeout: Duration::ZERO };

    fn parse(body: &[u8]) -> Result<SetRequest, Problem> {
        parse_json(body, Bytes::copy_from_slice, &LIMITS)
    }

    fn refusal(body: &str) -> String {
        format!("{:?}", parse(body.as_bytes()).unwrap_err())
    }

    #[test]
    fn json_becomes_an_entry() {
        let entry = parse(br#"{"k":"k\u00e4","v":"a\nb","ttl_ms":5}"#).unwrap();
        assert_eq!((entry.key.as_ref(), entry.value.as_ref()), ("kä".as_bytes(), b"a\nb".as_slice()));
        assert_eq!(entry.ttl, Ttl::After(Duration::from_millis(5)));
        let entry = parse(br#" { "v" : "" , "k" : "k" } "#).unwrap();
        assert_eq!((entry.value.len(), entry.ttl), (0, Ttl::NodeDefault));
    }

    #[test]
    fn what_is_wrong_with_json_is_said() {
        let cases = [
            ("", "EOF"),
            ("{", "EOF"),
            (r#" ["k","v",0]"#, "an array"),
            (r#""text""#, "invalid type: string"),
            (r#"{"v":"x"}"#, "missing field `k`"),
            (r#"{"k":"x"}"#, "missing field `v`"),
            (r#"{"k":1,"v":"x"}"#, "invalid type: integer `1`"),
            (r#"{"k":"x","v":null}"#, "invalid type: null"),
            (r#"{"k":"x","v":"x","ttl_ms":1.5}"#, "floating point"),
            (r#"{"k":"x","v":"x","ttl_ms":"5"}"#, "invalid type: string"),
            (r#"{"k":"x","v":"x","ttl":5}"#, "unknown field `ttl`"),
            (r#"{"k":"x","k":"y","v":"x"}"#, "duplicate field `k`"),
            (r#"{"k":"x","v":"x"} x"#, "trailing characters"),
            (r#"{"k":"\ud800","v":"x"}"#, "hex escape"),
            (r#"{"k":"","v":"x"}"#, "key-missing"),
            (r#"{"k":"abcde","v":"x"}"#, "key-too-large"),
            (r#"{"k":"x","v":"123456789"}"#, "value-too-large"),
            (r#"{"k":"x","v":"x","ttl_ms":-2}"#, "ttl-malformed"),
        ];
        for (body, expected) in cases {
            assert!(refusal(body).contains(expected), "{body}: {}", refusal(body));
        }
        assert!(parse(b"{\"k\":\"\xff\",\"v\":\"\"}").is_err());
    }

    #[test]
    fn ttl_has_two_special_values_and_a_bound() {
        let millis_max = i64::try_from(TTL_MS_MAX).unwrap();
        assert_eq!(parse_ttl(-1).unwrap(), Ttl::Never);
        assert_eq!(parse_ttl(0).unwrap(), Ttl::NodeDefault);
        assert_eq!(parse_ttl(millis_max).unwrap(), Ttl::After(Duration::from_millis(TTL_MS_MAX)));
        for bad in [-2, i64::MIN, millis_max + 1, i64::MAX] {
            assert!(parse_ttl(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_an_octet_stream_is_the_value_itself() {
        let with = |text: &'static str| {
            is_raw(&HeaderMap::from_iter([(header::CONTENT_TYPE, axum::http::HeaderValue::from_static(text))]))
        };
        assert!(!is_raw(&HeaderMap::new()));
        for json in ["application/json", "", "application/x-www-form-urlencoded", "text/plain"] {
            assert!(!with(json), "{json}");
        }
        for raw in ["application/octet-stream", "Application/Octet-Stream ; x=y"] {
            assert!(with(raw), "{raw}");
        }
    }
}
