//! The first failed operations one by one: when each began, where, what was said, and how far from a fault. Counts by kind do not
//! tell what a crash has cost, and to whom.

use std::time::Duration;

use borsh::{BorshDeserialize, BorshSerialize};
use serde::Serialize;

use super::flight::{Ended, Way};
use crate::{Answer, Op, Phase};

/// How many a run lists. Further ones are counted like all others, by kind and time.
const LISTED_MAX: usize = 1000;

/// A failed operation. Times are in seconds after the load began.
#[derive(BorshDeserialize, BorshSerialize, Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FailedRequest {
    /// What was asked.
    pub op: Op,
    /// The part of the run.
    pub phase: Phase,
    /// What went wrong.
    pub error: String,
    /// What the node said about it, if it said anything.
    pub detail: Option<String>,
    /// When it was sent.
    pub began_s: f64,
    /// When it had failed.
    pub ended_s: f64,
    /// How long after the nearest kill or other fault it was sent, negative if before it; nothing without one.
    pub after_fault_s: Option<f64>,
    /// The node that answered, or was tried last.
    pub node: usize,
    /// How it went.
    #[serde(flatten)]
    pub way: Way,
}

/// The first of them.
#[derive(BorshDeserialize, BorshSerialize, Clone, Debug, Default)]
pub(crate) struct Failures {
    requests: Vec<FailedRequest>,
}

impl Failures {
    /// Adds one that was sent and ended at these times after the load began, if there is still room: only then is `way` asked.
    pub(crate) fn add(
        &mut self,
        ended: &Ended,
        answer: &Answer,
        (began, at): (Duration, Duration),
        way: impl FnOnce() -> Way,
    ) {
        let Some(kind) = ended.error.filter(|_| self.requests.len() < LISTED_MAX) else { return };
        let way = way();
        self.requests.push(FailedRequest {
            op: ended.op,
            phase: ended.phase,
            error: kind.name(),
            detail: answer.detail.as_deref().map_or_else(
                || Some(answer.error()).filter(|error| *error != kind).map(|error| error.name()),
                |detail| Some(detail.to_owned()),
            ),
            began_s: began.as_secs_f64(),
            ended_s: at.as_secs_f64(),
            after_fault_s: None,
            node: answer.node.0,
            way,
        });
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.requests.extend_from_slice(&other.requests);
    }

    /// The first of all threads in the order of their ends, each with its distance from the nearest of these beginnings of faults.
    pub(crate) fn first(&self, faults_s: &[f64]) -> Vec<FailedRequest> {
        let mut requests = self.requests.clone();
        requests.sort_by(|one, other| one.ended_s.total_cmp(&other.ended_s));
        requests.truncate(LISTED_MAX);
        for request in &mut requests {
            let distances = faults_s.iter().map(|fault_s| request.began_s - fault_s);
            request.after_fault_s = distances.min_by(|one, other| one.abs().total_cmp(&other.abs()));
        }
        requests
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::time::Instant;

    use super::*;
    use crate::{
        ErrorKind, NodeIndex, Outcome,
        stats::{flight::LegPart, latency::OutcomeClass},
    };

    fn add(failures: &mut Failures, began_ms: u64) {
        let (at, began) = (Instant::now(), Duration::from_millis(began_ms));
        let ended = Ended {
            op: Op::Get,
            outcome: OutcomeClass::Error,
            error: Some(ErrorKind::Refused),
            phase: Phase::Steady,
            failed_over: false,
            is_violation: false,
            intended: at,
            sent: at,
            ended: at,
            is_among_slowest: false,
            p99: Duration::ZERO,
        };
        let answer = Answer {
            outcome: Outcome::Error(ErrorKind::Refused),
            node: NodeIndex(1),
            is_reply: false,
            before: None,
            is_retried: false,
            doubtful: false,
            version: None,
            served_by: None,
            detail: Some("no".into()),
        };
        failures.add(&ended, &answer, (began, began), Way::default);
    }

    #[test]
    fn the_first_are_listed_with_their_distance_from_the_nearest_fault() {
        let (mut one, mut other) = (Failures::default(), Failures::default());
        for began_ms in [2_250, 8_000] {
            add(&mut one, began_ms);
        }
        add(&mut other, 1_500);
        one.merge(&other);
        let distances = |faults_s: &[f64]| -> Vec<_> {
            one.first(faults_s).into_iter().map(|request| request.after_fault_s).collect()
        };
        assert_eq!(distances(&[2.0, 9.0]), [Some(-0.5), Some(0.25), Some(-1.0)]);
        assert_eq!(distances(&[]), [None; 3]);
        assert_eq!(one.first(&[])[0].detail.as_deref(), Some("no"));
    }

    #[test]
    fn its_way_stands_beside_the_rest_in_results() {
        let mut failures = Failures::default();
        add(&mut failures, 1_000);
        let mut request = failures.first(&[]).remove(0);
        let (peer, outcome) = ("node".into(), "lost".into());
        let leg = LegPart { peer, outcome, ms: 1.5, peer_queue_ms: 1.25, own_queue_ms: 0.0 };
        request.way =
            Way { trace: Some(0xab), url: None, elsewhere: Some((NodeIndex(2), "refused".into())), legs: vec![leg] };
        let json = serde_json::to_value(request).unwrap();
        let wanted = serde_json::json!({
            "op": "GET", "phase": "steady", "error": "connection refused", "detail": "no", "began_s": 1.0, "ended_s": 1.0,
            "after_fault_s": null, "node": 1, "elsewhere": [2, "refused"],
            "legs": [{ "peer": "node", "outcome": "lost", "ms": 1.5, "peer_queue_ms": 1.25, "own_queue_ms": 0.0 }],
            "trace": "000000000000000000000000000000ab", "url": null,
        });
        assert_eq!(json, wanted);
    }

    #[test]
    fn a_run_lists_so_many_and_no_more() {
        let mut all = Failures::default();
        for thread in 0..2 {
            let mut one = Failures::default();
            (0..=LISTED_MAX as u64).for_each(|number| add(&mut one, 2 * number + thread));
            assert_eq!(one.requests.len(), LISTED_MAX);
            all.merge(&one);
        }
        let listed = all.first(&[]);
        assert_eq!(listed.len(), LISTED_MAX);
        assert_eq!(listed[LISTED_MAX - 1].began_s, (LISTED_MAX - 1) as f64 / 1e3, "the earliest of all threads");
    }
}
