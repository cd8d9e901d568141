//! The result of one operation, as its target gets it after it was counted; and what the target knows of its way. Most operations
//! cost a few comparisons here; words are only made of the slowest.

use std::time::{Duration, Instant};

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Serialize, Serializer};

use super::latency::OutcomeClass;
use crate::{ErrorKind, NodeIndex, Op, Phase};

/// An operation that has ended and was judged.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// What was asked.
    pub op: Op,
    /// How it ended.
    pub outcome: OutcomeClass,
    /// Why it failed, if it did.
    pub error: Option<ErrorKind>,
    /// The part of the run that it belongs to.
    pub phase: Phase,
    /// A second node answered it.
    pub failed_over: bool,
    /// Its answer is one that must not be.
    pub is_violation: bool,
    /// When it should have begun.
    pub intended: Instant,
    /// When it was sent.
    pub sent: Instant,
    /// When it ended.
    pub ended: Instant,
    /// It is among the slowest of its kind so far.
    pub is_among_slowest: bool,
    /// What 99 % of all operations have lately not exceeded; zero if that is not known yet.
    pub p99: Duration,
}

impl Ended {
    /// From when it should have begun.
    #[must_use]
    pub fn response(&self) -> Duration {
        self.ended.saturating_duration_since(self.intended)
    }

    /// From when it was sent.
    #[must_use]
    pub fn service(&self) -> Duration {
        self.ended.saturating_duration_since(self.sent)
    }
}

/// Why a trace is kept; the first reason counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Its answer is one that must not be.
    Violation,
    /// It failed.
    Failed,
    /// A second node answered it.
    FailedOver,
    /// It took longer than it may, or than most.
    Slow,
    /// Its node has kept it, because it was slow or hedged there.
    AtNode,
    /// It is among the slowest of its kind so far.
    Slowest,
    /// It was drawn at its start.
    Sampled,
}

impl Kept {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Violation, Self::Failed, Self::FailedOver, Self::Slow, Self::AtNode, Self::Slowest, Self::Sampled];

    /// One word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Violation => "violation",
            Self::Failed => "failed",
            Self::FailedOver => "failed_over",
            Self::Slow => "slow",
            Self::AtNode => "at_node",
            Self::Slowest => "slowest",
            Self::Sampled => "sampled",
        }
    }
}

/// Where an operation's time went, as far as its target knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// When the second try was sent, if there was one.
    pub retried: Option<Instant>,
    /// From the request's head to its answer, on the node that answered; nothing if none did or it did not say.
    pub handler: Option<Duration>,
    /// The mesh's part of that.
    pub mesh: Option<Duration>,
    /// The longest leg of those that made the answer, if the node told of them.
    pub leg: Option<Duration>,
    /// What of that it spent in the queues of the peer and of the node, if they told of them.
    pub leg_queued: Option<Duration>,
    /// In the node's host before that, from when its kernel had received the request, if the node told of it.
    pub server_queue: Option<Duration>,
    /// When this host's kernel had received the answer, if it told that.
    pub received: Option<Instant>,
}

/// One leg of an operation, in the node's words.
#[derive(BorshDeserialize, BorshSerialize, Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LegPart {
    /// Who was asked, by its name among the targets or else by its id.
    pub peer: String,
    /// What came of it.
    pub outcome: String,
    /// From its start to its end, in milliseconds.
    pub ms: f64,
    /// Of that, what the request spent in the peer's queue; 0 if it is not known.
    pub peer_queue_ms: f64,
    /// And the answer in the node's own.
    pub own_queue_ms: f64,
}

/// An operation's way, in words.
#[derive(BorshDeserialize, BorshSerialize, Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Way {
    /// Its trace, if it has one.
    #[serde(serialize_with = "hex")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub trace: Option<u128>,
    /// Where to look at it, if it was kept.
    pub url: Option<String>,
    /// The node that was tried before the one that answered, and what came of it.
    pub elsewhere: Option<(NodeIndex, String)>,
    /// Its legs, if its node told of them.
    pub legs: Vec<LegPart>,
}

fn hex<S: Serializer>(trace: &Option<u128>, serializer: S) -> Result<S::Ok, S::Error> {
    Serialize::serialize(&trace.map(|trace| format!("{trace:032x}")), serializer)
}
