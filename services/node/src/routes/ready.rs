//! `GET /ready`: whether this node should be given traffic.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use mesh::Readiness;
use serde_json::json;

use crate::{app::HttpWorker, problem::Problem, shutdown::ShutdownPhase};

/// Answers whether this node wants traffic.
pub(super) async fn ready(State(http): State<Arc<HttpWorker>>) -> Response {
    let readiness = if http.app.shutdown.phase() == ShutdownPhase::Running {
        http.app.node.readiness()
    } else {
        Readiness::Stopping
    };
    match not_ready(readiness) {
        None => super::json(&json!({ "status": "ready" })),
        Some(problem) => problem.respond(&http.app.telemetry),
    }
}

fn not_ready(readiness: Readiness) -> Option<Problem> {
    Some(match readiness {
        Readiness::Ready => return None,
        Readiness::Joining => Problem::unavailable("joining", "no other member has been reached yet"),
        Readiness::Unreachable { addr } => {
            let detail = format!("no other member can reach this node at {addr}: set CACHE_PUBLIC to where they can");
            Problem::unavailable("unreachable", detail)
        }
        Readiness::TooFew { members, needed } => {
            let detail = format!("this node knows {members} of the {needed} members that WRITE_CONCERN needs");
            Problem::unavailable("too-few-members", detail)
        }
        Readiness::Resyncing { done, owned } => {
            Problem::unavailable("resyncing", format!("{done} of {owned} slots are in sync"))
        }
        Readiness::Stopping => Problem::unavailable("stopping", "the node is stopping or paused"),
        Readiness::Refused(reason) => Problem::unavailable("refused", format!("the mesh refuses this node: {reason}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anything_but_ready_has_a_reason() {
        assert!(not_ready(Readiness::Ready).is_none());
        let reasons = [
            (Readiness::Joining, "joining"),
            (Readiness::Unreachable { addr: "0.0.0.0:1".to_owned() }, "CACHE_PUBLIC"),
            (Readiness::TooFew { members: 1, needed: 2 }, "1 of the 2"),
            (Readiness::Resyncing { done: 1, owned: 2 }, "1 of 2 slots"),
            (Readiness::Stopping, "stopping"),
            (Readiness::Refused("another secret".to_owned()), "another secret"),
        ];
        for (readiness, expected) in reasons {
            let text = format!("{:?}", not_ready(readiness));
            assert!(text.contains(expected) && text.contains("503"), "{text}");
        }
    }
}
