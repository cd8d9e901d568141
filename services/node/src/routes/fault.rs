//! `POST /fault?token=…`: lays faults on this node's links, clock and speed, for benchmarks, and `DELETE /fault?token=…` ends
//! them. Off unless ALLOW_KILL, and then only with KILL_TOKEN. The body is JSON, and each fault ends after `for_ms`:
//! `{"for_ms": 5000, "links": [{"peer": "node2:5011", "cut": true}], "slow_ms": 0, "clock_offset_ms": 0}`.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State},
    http::request::Parts,
    response::Response,
};
use mesh_proto::{FaultForm, FaultOrder};

use super::kill::{allowed, authorise};
use crate::{app::HttpWorker, body::Payload, problem::Problem, query};

/// More than the longest order needs.
const BODY_BYTES_MAX: usize = 64 << 10;

/// Lays faults; answers with all that are in force.
pub(super) async fn lay(State(http): State<Arc<HttpWorker>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    match order(&http, &parts, body).await {
        Ok(()) => super::json(&http.app.node.faults()),
        Err(problem) => problem.respond(&http.app.telemetry),
    }
}

/// Ends all of them; answers with those in force, which are none.
pub(super) async fn heal(State(http): State<Arc<HttpWorker>>, request: Request) -> Response {
    match authorised(&http, request.uri().query()) {
        Ok(()) => {
            http.app.node.heal_faults();
            super::json(&http.app.node.faults())
        }
        Err(problem) => problem.respond(&http.app.telemetry),
    }
}

fn authorised(http: &HttpWorker, query: Option<&str>) -> Result<(), Problem> {
    let token = allowed(http.app.kill_token.as_ref())?;
    let [guess] = query::parameters(query, ["token"])?;
    authorise(token, guess)
}

async fn order(http: &HttpWorker, parts: &Parts, body: Body) -> Result<(), Problem> {
    // Before the body is read: a stranger's is none of our business.
    authorised(http, parts.uri.query())?;
    let (patience, budget) = (http.app.limits.request_timeout, &http.app.bodies);
    let payload = Payload::read(body, &parts.headers, BODY_BYTES_MAX, patience, budget).await?;
    let order = parse(payload.bytes())?;
    let laid = http.app.node.order_faults(&order);
    laid.map_err(|error| Problem::bad_request("fault-impossible", error.to_string()))
}

fn parse(json: &[u8]) -> Result<FaultOrder, Problem> {
    let form: FaultForm = serde_json::from_slice(json).map_err(|error| {
        let detail = format!(
            "the body must be like {{\"for_ms\": 5000, \"links\": [{{\"peer\": \"*\", \"cut\": true}}]}}: {error}"
        );
        Problem::bad_request("fault-malformed", detail)
    })?;
    form.check().map_err(|error| Problem::bad_request("fault-malformed", error.to_string()))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use std::time::Duration;

    use mesh_proto::Direction;

    use super::*;

    #[test]
    fn an_order_is_read() {
        let json = r#"{"for_ms": 5000, "slow_ms": 7, "clock_offset_ms": -300,
            "links": [{"peer": "node2:5011", "direction": "in", "loss": 0.25, "delay_ms": 20, "flap_ms": 1000}]}"#;
        let order = parse(json.as_bytes()).unwrap();
        assert_eq!((order.time, order.slow), (Duration::from_secs(5), Duration::from_millis(7)));
        assert_eq!(order.clock_offset_ms, -300);
        let link = &order.links[0];
        assert_eq!((link.peer.as_str(), link.direction, link.fault.loss), ("node2:5011", Direction::In, 0.25));
        assert_eq!(link.to_string(), "loss 25 %, delay 20ms, flapping every 1s inwards: node2:5011");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, named) in [
            ("", "EOF"),
            ("[]", "invalid length 0"),
            ("{}", "missing field `for_ms`"),
            (r#"{"for_ms": 1}"#, "no fault"),
            (r#"{"for_ms": 1.5, "slow_ms": 1}"#, "floating point"),
            (r#"{"for_ms": -1, "slow_ms": 1}"#, "-1"),
            (r#"{"for_ms": 1, "slow_mss": 1}"#, "slow_mss"),
            (r#"{"for_ms": 1, "links": [{"cut": true}]}"#, "missing field `peer`"),
            (r#"{"for_ms": 1, "links": [{"peer": "*", "cut": true, "direction": "up"}]}"#, "up"),
            (r#"{"for_ms": 1, "links": [{"peer": "*", "loss": 2}]}"#, "`loss` must be"),
        ] {
            let problem = format!("{:?}", parse(json.as_bytes()).unwrap_err());
            assert!(problem.contains("400") && problem.contains(named), "{json}: {problem}");
        }
    }
}
