//! One GET: which owners to ask, when to hedge, and which answers make a result.

use std::time::Duration;

use arrayvec::ArrayVec;
use bytes::Bytes;

use crate::{Expiry, HedgeBudget, LegFailure, Monotonic, NodeId, ReadAnswer, ReplicationFactor, Version};

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// The first live value wins; it may be briefly stale.
    #[default]
    One,
    /// As `One`, but never older than this version.
    Session(Version),
    /// The newest of enough owners that every write acknowledged before the read began is seen.
    Quorum,
}

/// The bounds of one read.
#[derive(Clone, Copy, Debug)]
pub struct ReadConfig {
    /// How fresh.
    pub consistency: Consistency,
    /// How many owners in sync must answer "absent" or "gone" for a miss, and answer at all for a quorum:
    /// REPLICATION_FACTOR − WRITE_CONCERN + 1.
    pub answers_needed: usize,
    /// How many legs may be in flight (READ_MAX_FANOUT). More are allowed when `answers_needed` demands it.
    pub fanout_max: usize,
    /// When the second leg starts if the first has not answered.
    pub hedge_delay: Duration,
    /// The time between further legs.
    pub hedge_interval: Duration,
    /// When one leg is given up (READ_PER_TRY_MS).
    pub per_try: Duration,
    /// When the whole read is given up (READ_TIMEOUT_MS).
    pub timeout: Duration,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum ReadStep {
    /// Ask this owner.
    Send {
        /// The leg's number, to hand back with its answer.
        leg: usize,
        /// Whom.
        peer: NodeId,
        /// Whether it is a hedge, as against a first leg or one that replaces a failed or insufficient one.
        hedged: bool,
    },
    /// Nothing until an answer arrives or this moment passes.
    Wait(Monotonic),
    /// Finished; legs still in flight are to be cancelled.
    Done(ReadOutcome),
}

/// How a read ended.
#[derive(Clone, Debug, PartialEq)]
pub enum ReadOutcome {
    /// A live value.
    Value {
        /// Which write.
        version: Version,
        /// The value.
        value: Bytes,
        /// Its expiry, so that a stale local replica can be repaired.
        expiry: Expiry,
        /// The leg that brought it; nothing if the local replica did.
        leg: Option<usize>,
    },
    /// Enough owners say that there is none; the tombstone's or stub's version if there is one.
    Miss {
        /// The newest version seen.
        version: Option<Version>,
    },
    /// All owners were asked, and too few could answer.
    Unavailable {
        /// How many gave a usable answer.
        answers: usize,
        /// How many were needed.
        needed: usize,
    },
    /// Owners disagree with the caller about the ring: merge their member lists and start again.
    WrongRing,
    /// The time was up.
    TimedOut,
}

/// The read state machine: `handle_answer` and `handle_failure` in, `poll` until `Wait` or `Done`.
///
/// Owners are asked in the given order, each at most once. An owner that gave no decisive answer, failed, or let
/// `per_try` pass is replaced by the next at once; that is not a hedge. A hedge is a leg beyond those that are needed,
/// because they are slow. The machine allocates nothing.
#[derive(Debug)]
pub struct Read {
    config: ReadConfig,
    legs: ArrayVec<Leg, { ReplicationFactor::MAX }>,
    /// Owners before this one have been asked.
    next: usize,
    deadline: Monotonic,
    hedge_at: Monotonic,
    has_hedged: bool,
    /// The newest value seen.
    value: Option<Candidate>,
    /// The newest tombstone or stub seen.
    gone: Option<Version>,
    /// How many answers count towards `answers_needed`.
    answers: usize,
    /// Whether an owner answered without ending the read, so that more than one may be needed at once.
    needs_more: bool,
    wrong_ring: bool,
    outcome: Option<ReadOutcome>,
}

#[derive(Clone, Copy, Debug)]
struct Leg {
    peer: NodeId,
    state: LegState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LegState {
    Unsent,
    /// Given up at this moment.
    InFlight(Monotonic),
    /// Given up, but an answer is still welcome.
    Overdue,
    Settled,
}

#[derive(Clone, Debug)]
struct Candidate {
    version: Version,
    expiry: Expiry,
    value: Bytes,
    leg: Option<usize>,
}

/// A hedge that found no token tries again no sooner than this, so that an empty budget does not keep a core busy.
const BUDGET_RETRY_MIN: Duration = Duration::from_millis(1);

impl Read {
    /// Starts a read. `owners` are the *other* owners in the order of preference, of which the first
    /// [`ReplicationFactor::MAX`] count; `local` is what this node's own replica said if it is an owner (never
    /// `WrongRing`).
    #[must_use]
    pub fn new(config: ReadConfig, owners: &[NodeId], local: Option<ReadAnswer>, now: Monotonic) -> Self {
        let legs = owners.iter().take(ReplicationFactor::MAX).map(|&peer| Leg { peer, state: LegState::Unsent });
        let mut read = Self {
            config,
            legs: legs.collect(),
            next: 0,
            deadline: now + config.timeout,
            hedge_at: now + config.hedge_delay,
            has_hedged: false,
            value: None,
            gone: None,
            answers: 0,
            needs_more: false,
            wrong_ring: false,
            outcome: None,
        };
        if let Some(answer) = local {
            read.take(None, answer);
        }
        read
    }

    /// A leg answered. An answer to a leg that is not in flight changes nothing.
    pub fn handle_answer(&mut self, _now: Monotonic, leg: usize, answer: ReadAnswer) {
        if self.settle(leg) && self.outcome.is_none() {
            self.take(Some(leg), answer);
        }
    }

    /// A leg failed: the next owner is asked at once.
    pub fn handle_failure(&mut self, _now: Monotonic, leg: usize, _failure: LegFailure) {
        self.settle(leg);
    }

    /// What to do now. A hedge takes a token from `budget`; without one the read waits for the legs it has.
    pub fn poll(&mut self, now: Monotonic, budget: &mut HedgeBudget) -> ReadStep {
        if self.outcome.is_none() {
            self.outcome = self.decide().or_else(|| (now >= self.deadline).then_some(ReadOutcome::TimedOut));
        }
        if let Some(outcome) = &self.outcome {
            return ReadStep::Done(outcome.clone());
        }
        self.give_up_overdue(now);
        let active = self.active();
        let wanted = self.wanted();
        let has_next = self.next < self.legs.len();
        if has_next && active < wanted {
            return self.send(now, false);
        }
        if active == 0 && (self.wrong_ring || self.in_flight().is_empty()) {
            return self.exhausted();
        }
        let may_hedge = has_next && active < self.config.fanout_max;
        if may_hedge && now >= self.hedge_at {
            if budget.withdraw() {
                return self.send(now, true);
            }
            self.hedge_at = now + self.config.hedge_interval.max(BUDGET_RETRY_MIN);
        }
        ReadStep::Wait(self.wake_at(may_hedge))
    }

    /// Legs that were sent and have neither answered nor failed, to be cancelled after `Done`.
    #[must_use]
    pub fn in_flight(&self) -> ArrayVec<usize, 8> {
        let is_open = |state| matches!(state, LegState::InFlight(_) | LegState::Overdue);
        self.legs.iter().enumerate().filter(|(_, leg)| is_open(leg.state)).map(|(index, _)| index).collect()
    }

    /// Marks a leg as answered or failed; whether it was in flight.
    fn settle(&mut self, leg: usize) -> bool {
        let Some(leg) = self.legs.get_mut(leg) else { return false };
        let was_open = matches!(leg.state, LegState::InFlight(_) | LegState::Overdue);
        if was_open {
            leg.state = LegState::Settled;
        }
        was_open
    }

    fn take(&mut self, leg: Option<usize>, answer: ReadAnswer) {
        let counts = self.counts(&answer);
        match answer {
            ReadAnswer::Value { version, expiry, value } => {
                if self.value.as_ref().is_none_or(|held| held.version < version) {
                    self.value = Some(Candidate { version, expiry, value, leg });
                }
            }
            ReadAnswer::Gone { version } => self.gone = self.gone.max(Some(version)),
            ReadAnswer::Absent => {}
            ReadAnswer::Unknown => return,
            ReadAnswer::WrongRing(_) => {
                self.wrong_ring = true;
                return;
            }
        }
        self.needs_more = true;
        self.answers += usize::from(counts);
    }

    /// Whether an answer is one of those that `answers_needed` asks for. For a quorum that is what any owner in sync
    /// says. Otherwise only what says "there is none" is, and in a session only if it may be newer than what was seen.
    const fn counts(&self, answer: &ReadAnswer) -> bool {
        match (answer, self.config.consistency) {
            (ReadAnswer::Absent, _) | (ReadAnswer::Value { .. }, Consistency::Quorum) => true,
            (ReadAnswer::Gone { version }, Consistency::Session(floor)) => version.get() >= floor.get(),
            (ReadAnswer::Gone { .. }, _) => true,
            (ReadAnswer::Value { .. } | ReadAnswer::Unknown | ReadAnswer::WrongRing(_), _) => false,
        }
    }

    /// The result, if the answers so far make one.
    fn decide(&self) -> Option<ReadOutcome> {
        let has_enough = self.answers >= self.config.answers_needed;
        // A value that some tombstone has overtaken, or expired elsewhere, is no hit.
        let live = self.value.as_ref().filter(|held| Some(held.version) > self.gone);
        let hit = live.filter(|held| match self.config.consistency {
            Consistency::One => true,
            Consistency::Session(floor) => held.version >= floor,
            Consistency::Quorum => has_enough,
        });
        if let Some(Candidate { version, expiry, value, leg }) = hit {
            return Some(ReadOutcome::Value { version: *version, value: value.clone(), expiry: *expiry, leg: *leg });
        }
        has_enough.then_some(ReadOutcome::Miss { version: self.gone })
    }

    /// How many legs the result needs in flight now, apart from hedges: one for the first look, and after an answer
    /// that was not enough as many as are still missing.
    fn wanted(&self) -> usize {
        let missing = self.config.answers_needed.saturating_sub(self.answers).max(1);
        if self.needs_more || self.config.consistency == Consistency::Quorum { missing } else { 1 }
    }

    fn active(&self) -> usize {
        self.legs.iter().filter(|leg| matches!(leg.state, LegState::InFlight(_))).count()
    }

    fn give_up_overdue(&mut self, now: Monotonic) {
        for leg in &mut self.legs {
            if matches!(leg.state, LegState::InFlight(until) if now >= until) {
                leg.state = LegState::Overdue;
            }
        }
    }

    fn send(&mut self, now: Monotonic, hedged: bool) -> ReadStep {
        let index = self.next;
        let leg = &mut self.legs[index];
        leg.state = LegState::InFlight(now + self.config.per_try);
        self.next += 1;
        self.has_hedged |= hedged;
        let pause = if self.has_hedged { self.config.hedge_interval } else { self.config.hedge_delay };
        self.hedge_at = now + pause;
        ReadStep::Send { leg: index, peer: leg.peer, hedged }
    }

    /// Everyone was asked, and nobody is left to wait for.
    fn exhausted(&mut self) -> ReadStep {
        let outcome = if self.wrong_ring {
            ReadOutcome::WrongRing
        } else {
            ReadOutcome::Unavailable { answers: self.answers, needed: self.config.answers_needed }
        };
        self.outcome = Some(outcome.clone());
        ReadStep::Done(outcome)
    }

    /// The next moment at which waiting alone changes something.
    fn wake_at(&self, may_hedge: bool) -> Monotonic {
        let given_up = self.legs.iter().filter_map(|leg| match leg.state {
            LegState::InFlight(until) => Some(until),
            _ => None,
        });
        given_up.chain(may_hedge.then_some(self.hedge_at)).fold(self.deadline, Monotonic::min)
    }
}
