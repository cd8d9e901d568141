//! `POST /trace/keep`: trace ids, one a line. A caller who found a request slow that this node did not asks it to keep
//! what it recorded, and its peers what they did for it.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State},
    http::StatusCode,
    response::Response,
};

use crate::{app::HttpWorker, body::Payload, problem::Problem};

/// Ids in one request. Each may cost a frame to every peer that had a part in it.
const IDS_MAX: usize = 256;

/// 32 digits and a line feed each.
const BODY_BYTES_MAX: usize = IDS_MAX * 34;

/// Keeps a trace that a client asks for.
pub(super) async fn keep(State(http): State<Arc<HttpWorker>>, request: Request) -> Response {
    let app = &*http.app;
    if !app.telemetry.records_traces() {
        let detail = "this node records no traces: start it with OTEL_EXPORTER_OTLP_ENDPOINT";
        return Problem::new(StatusCode::NOT_FOUND, "traces-off", detail).respond(&app.telemetry);
    }
    let (parts, body) = request.into_parts();
    let read = Payload::read(body, &parts.headers, BODY_BYTES_MAX, app.limits.request_timeout, &app.bodies).await;
    match read.and_then(|payload| parse(payload.bytes())) {
        Ok(traces) => {
            for trace in traces {
                if let Some(keep) = app.telemetry.keep_request(trace) {
                    http.mesh.keep_trace(keep.trace, keep.peers);
                }
            }
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
        Err(problem) => problem.respond(&app.telemetry),
    }
}

fn parse(body: &[u8]) -> Result<Vec<u128>, Problem> {
    let malformed = || {
        let detail = format!("send up to {IDS_MAX} trace ids of 32 hexadecimal digits, one a line");
        Problem::bad_request("traces-malformed", detail)
    };
    let text = std::str::from_utf8(body).map_err(|_| malformed())?;
    let id = |line: &str| {
        let is_hex = line.len() == 32 && line.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hex.then(|| u128::from_str_radix(line, 16).ok()).flatten().filter(|id| *id != 0)
    };
    let traces: Option<Vec<u128>> = text.lines().filter(|line| !line.is_empty()).map(id).collect();
    traces.filter(|traces| traces.len() <= IDS_MAX).ok_or_else(malformed)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;

    #[test]
    fn ids_are_lines() {
        let text = format!("{:032x}\n{:032x}\n\n", 0xabc, u128::MAX);
        assert_eq!(parse(text.as_bytes()).unwrap(), [0xabc, u128::MAX]);
        assert!(parse(b"").unwrap().is_empty());
    }

    #[test]
    fn what_is_no_list_of_ids_is_refused() {
        let too_many = format!("{:032x}\n", 1).repeat(IDS_MAX + 1);
        let (zero, sign) = ("0".repeat(32), format!("+{:031x}", 1));
        for bad in ["abc", "x", &zero, &sign, &"g".repeat(32), &too_many] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(parse(b"\xff").is_err());
    }
}
