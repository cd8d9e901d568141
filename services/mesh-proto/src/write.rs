//! One round of a SET or DELETE: when enough owners hold the write or something newer, and when that has become impossible.
//!
//! A write takes two rounds at most. W is WRITE_CONCERN, I = REPLICATION_FACTOR − W + 1, and a write is *before* another if it was
//! acknowledged before the other began.
//!
//! 1. An acknowledgement means that W owners held the write's version or a newer one. An owner's version of a key only rises, and an
//!    owner that loses it is not in sync until it has what the others hold. So of any I owners in sync one holds at least the version of
//!    every acknowledged write.
//!    (Where 2 W is not above REPLICATION_FACTOR, I is more than W, and no order is promised.)
//! 2. Round 1 counts owners that *applied* the write. An owner that refuses it may hold a write that was before it, so a refusal is no
//!    acknowledgement. If W owners applied it, I of them in sync, one of these would have refused it if any write before it were newer.
//! 3. If round 1 fails because owners hold something newer, but I owners in sync have answered, then by (1) one of them held every write
//!    that was before this one. If it applied this one, those are older than this one; if it refused, they are no newer than what it
//!    reported. So no write that was before this one is newer than the newest of this one's version and all reported ones.
//! 4. Round 2 has a version above that newest one. What an owner holds that is newer still was not acknowledged when this write began: the
//!    two are concurrent, and this one takes effect just before the other. So an owner that refuses it is an acknowledgement, because
//!    it holds a newer version, which is all that (1) asks for.
//!
//! In both rounds an acknowledged version is above those of all writes before it, and (1) holds again. A leg of round 1 that arrives after
//! the end of round 2 applies a version below one that W owners hold: the same as a replica that is late. A newer deletion or expired value
//! is a newer write like any other. Answers of owners that are not in sync prove nothing in (3), and neither do those of another
//! ring: then round 1 starts again.
//!
//! An answer outlives the process that gave it. Where the coordinator is an owner, an owner that catches up meanwhile gets the write from it.
//! Where it is none, a write must end before an owner that has answered it has crashed, returned and caught up: so in a mesh of more
//! members than REPLICATION_FACTOR a node that starts enters the ring no sooner than a write may take (WRITE_TIMEOUT_MS).

use arrayvec::ArrayVec;

use crate::{
    LEGS_MAX, LegFailure, LegOutcome, LegQueues, LegRecord, Monotonic, Mutant, NodeId, ReplicationFactor, Version,
    WriteAnswer, WriteConcern,
};

mod rounds;

pub use rounds::WriteRounds;

/// Which round of a write: see the proof above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// Owners that hold something newer may hold a write that was acknowledged before this one began.
    First,
    /// They cannot, because the version is above what enough owners in sync have reported.
    Second,
}

/// The bounds of one round.
#[derive(Clone, Copy, Debug)]
pub struct WriteConfig {
    /// Which round it is.
    pub round: Round,
    /// How many owners have to hold the write.
    pub concern: WriteConcern,
    /// How many of them have to be in sync.
    pub confirmations: usize,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteStep {
    /// Nothing until a leg answers or fails.
    Wait,
    /// The caller may be answered; legs still in flight go on in the background.
    Done(WriteOutcome),
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// WRITE_CONCERN owners have applied it, or in round 2 hold something newer, and enough of them are in sync.
    Acknowledged,
    /// WRITE_CONCERN owners have it, but too few of them are in sync to know whether there was something newer: start
    /// again, since the others are about to be.
    Unconfirmed,
    /// Owners hold a newer version: observe it, and send the write again with a version above it and above this round's.
    Stale {
        /// The newest version an owner reported.
        newest: Version,
        /// Which round that is.
        next: Round,
    },
    /// Owners disagree with the caller about the ring: merge their member lists and start again.
    WrongRing,
    /// WRITE_CONCERN can no longer be reached and no owner can have applied it: certainly not written.
    Refused {
        /// How many owners applied it: always 0.
        acks: usize,
    },
    /// WRITE_CONCERN can no longer be reached but some owner has, or may have, applied it.
    Indeterminate {
        /// How many owners certainly have it.
        acks: usize,
    },
}

/// What owners that turned a write down said, so that the caller can be told why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// How many owners have no room for a record of this size.
    pub too_large: usize,
    /// How many owners found the version too far ahead of their clock.
    pub drift: usize,
}

/// One round of a write as a state machine: one leg per owner, this node's own replica being a leg like any other.
///
/// Poll once before anything is sent; then feed every answer and failure to `handle_*`, poll again, and ask
/// [`Write::take_own_leg`] and [`Write::take_missed`]. A write goes on after `Done`: the legs that are still in flight decide
/// whom to leave a hint for.
#[derive(Debug)]
pub struct Write {
    round: Round,
    concern: usize,
    /// How many of them have to be in sync.
    confirmations: usize,
    started: Monotonic,
    legs: ArrayVec<WriteLeg, { ReplicationFactor::MAX }>,
    own: OwnLeg,
    newest: Option<Version>,
    wrong_ring: bool,
    refusals: Refusals,
    outcome: Option<WriteOutcome>,
}

#[derive(Clone, Copy, Debug)]
struct WriteLeg {
    state: WriteLegState,
    record: LegRecord,
    /// Whether its owner may lack the write and has not been reported yet.
    is_missed: bool,
}

/// This node's own leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OwnLeg {
    /// It does not wait for others, or there is none.
    Free,
    /// It waits until another owner has compared the write with what it holds.
    Waits(usize),
    /// Another owner has.
    Due(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WriteLegState {
    InFlight,
    /// An owner in sync has applied it, or in round 2 holds something newer.
    Held,
    /// The same of an owner that is not in sync.
    HeldUnconfirmed,
    /// An owner in sync holds something newer, in round 1.
    Stale,
    /// The owner answered otherwise, and did not apply it.
    TurnedDown,
    /// It never reached the owner, or the owner would not have it.
    Failed,
    /// It was sent, and nobody knows. A late answer still settles it.
    Unknown,
}

impl Write {
    /// Starts with one leg in flight per owner since `now`; the operation itself began at `started`. With fewer owners than the concern, the
    /// first `poll` says `Refused`.
    #[must_use]
    pub fn new(config: WriteConfig, owners: &[NodeId], started: Monotonic, now: Monotonic) -> Self {
        assert!(owners.len() <= ReplicationFactor::MAX, "{} owners, more than replicas can be", owners.len());
        let at = now.since(started);
        let sent = |peer: &NodeId| WriteLeg {
            state: WriteLegState::InFlight,
            record: LegRecord::sent(*peer, at),
            is_missed: false,
        };
        let mut write = Self {
            round: config.round,
            concern: config.concern.get() - usize::from(Mutant::AckTooEarly.is_planted()),
            confirmations: config.confirmations.saturating_sub(usize::from(Mutant::AckTooEarly.is_planted())),
            started,
            legs: owners.iter().map(sent).collect(),
            own: OwnLeg::Free,
            newest: None,
            wrong_ring: false,
            refusals: Refusals::default(),
            outcome: None,
        };
        if owners.len() < write.concern {
            // Decided before anything is sent, so that a write without enough owners leaves no trace.
            write.outcome = Some(WriteOutcome::Refused { acks: 0 });
        }
        write
    }

    /// This node's own leg is to wait until another owner has compared the write with what it holds: a clock that is ahead then leaves nothing
    /// behind that all others refuse.
    pub const fn hold_back(&mut self, own: usize) {
        self.own = OwnLeg::Waits(own);
    }

    /// This node's own leg, once it has waited for long enough: it is to be applied now.
    pub const fn take_own_leg(&mut self) -> Option<usize> {
        let OwnLeg::Due(own) = self.own else { return None };
        self.own = OwnLeg::Free;
        Some(own)
    }

    /// Owners that may lack the write, each once: none as long as it may turn out that nothing was written, or that the write is
    /// tried again, because a hint would then bring about what the caller was told did not happen.
    pub fn take_missed(&mut self) -> ArrayVec<NodeId, { ReplicationFactor::MAX }> {
        let mut missed = ArrayVec::new();
        if self.legs.iter().any(|leg| leg.is_missed)
            && let WriteStep::Done(WriteOutcome::Acknowledged | WriteOutcome::Indeterminate { .. }) = self.poll()
        {
            for leg in self.legs.iter_mut().filter(|leg| leg.is_missed) {
                leg.is_missed = false;
                missed.push(leg.record.peer);
            }
        }
        missed
    }

    /// An owner answered.
    pub fn handle_answer(&mut self, now: Monotonic, leg: usize, answer: &WriteAnswer) {
        self.settle(now, leg, answer);
        if answer.is_compared()
            && let OwnLeg::Waits(own) = self.own
        {
            self.own = OwnLeg::Due(own);
        }
        self.give_up_own(now);
    }

    /// The answer of this leg, which is told next, has lain in queues.
    pub fn handle_queues(&mut self, leg: usize, queues: LegQueues) {
        if let Some(leg) = self.legs.get_mut(leg) {
            leg.record.queues = queues;
        }
    }

    fn settle(&mut self, now: Monotonic, leg: usize, answer: &WriteAnswer) {
        let state = self.state_after(answer);
        let ended = now.since(self.started);
        let Some(leg) = self.legs.get_mut(leg) else { return };
        if !matches!(leg.state, WriteLegState::InFlight | WriteLegState::Unknown) {
            return;
        }
        let is_ack = matches!(state, WriteLegState::Held | WriteLegState::HeldUnconfirmed);
        leg.state = state;
        leg.record.outcome = if is_ack { LegOutcome::Won } else { LegOutcome::Failed };
        leg.record.ended = ended;
        // If the others suffice nobody tries again, and an owner that sees another ring goes without the write.
        leg.is_missed = matches!(answer, WriteAnswer::WrongRing(_));
        match answer {
            WriteAnswer::Applied | WriteAnswer::AppliedUnconfirmed => {}
            WriteAnswer::Stale { .. } if is_ack => {}
            WriteAnswer::Stale { newer, .. } | WriteAnswer::Collected { newer } => {
                self.newest = self.newest.max(Some(*newer));
            }
            WriteAnswer::Drift { .. } => self.refusals.drift += 1,
            WriteAnswer::TooLarge => self.refusals.too_large += 1,
            WriteAnswer::WrongRing(_) => self.wrong_ring = true,
        }
    }

    /// A leg failed.
    pub fn handle_failure(&mut self, now: Monotonic, leg: usize, failure: LegFailure) {
        if Mutant::HintIsAck.is_planted() {
            self.settle(now, leg, &WriteAnswer::Applied);
        }
        self.fail(now, leg, failure);
        if let Some(leg) = self.legs.get_mut(leg) {
            leg.is_missed |=
                matches!(leg.state, WriteLegState::Failed | WriteLegState::Unknown) || Mutant::HintIsAck.is_planted();
        }
        self.give_up_own(now);
    }

    fn fail(&mut self, now: Monotonic, leg: usize, failure: LegFailure) {
        let ended = now.since(self.started);
        let Some(leg) = self.legs.get_mut(leg).filter(|leg| leg.state == WriteLegState::InFlight) else { return };
        leg.state = match failure {
            LegFailure::NotSent => WriteLegState::Failed,
            LegFailure::Disconnected | LegFailure::TimedOut => WriteLegState::Unknown,
        };
        (leg.record.outcome, leg.record.ended) = (failure.outcome(), ended);
    }

    /// If no other owner has taken the write, nor is to be heard from any more, this node does not take it either.
    fn give_up_own(&mut self, now: Monotonic) {
        if let OwnLeg::Waits(own) = self.own
            && self.count(WriteLegState::InFlight) == 1
        {
            self.own = OwnLeg::Free;
            self.fail(now, own, LegFailure::NotSent);
        }
    }

    fn state_after(&self, answer: &WriteAnswer) -> WriteLegState {
        let counts = self.round == Round::Second || Mutant::StaleCountsInRoundOne.is_planted();
        match answer {
            WriteAnswer::Applied => WriteLegState::Held,
            WriteAnswer::AppliedUnconfirmed if Mutant::UnconfirmedCounts.is_planted() => WriteLegState::Held,
            WriteAnswer::AppliedUnconfirmed => WriteLegState::HeldUnconfirmed,
            WriteAnswer::Stale { in_sync: true, .. } if counts => WriteLegState::Held,
            WriteAnswer::Stale { in_sync: false, .. } if counts => WriteLegState::HeldUnconfirmed,
            WriteAnswer::Stale { in_sync: false, .. } if !Mutant::StaleOutOfSyncCounts.is_planted() => {
                WriteLegState::TurnedDown
            }
            WriteAnswer::Stale { .. } => WriteLegState::Stale,
            // Such an owner holds nothing of the key, so it is no acknowledgement in either round.
            WriteAnswer::Collected { .. }
            | WriteAnswer::Drift { .. }
            | WriteAnswer::TooLarge
            | WriteAnswer::WrongRing(_) => WriteLegState::TurnedDown,
        }
    }

    /// Whether an owner holds a newer version, and all is known that round 2 needs, while the result still depends on owners that
    /// have not answered.
    #[must_use]
    pub fn is_contested(&self) -> bool {
        self.newest.is_some() && self.outcome.is_none() && self.next_round() == Round::Second
    }

    /// The caller will not wait any longer for owners that may be silent: if the write is contested, it is to be stamped
    /// again above the newer version now. What is in flight may still be applied, under its lower version.
    pub fn handle_impatience(&mut self) {
        if self.is_contested() {
            self.outcome = self.stale();
        }
    }

    /// Whether there is a result. Once `Done`, always the same.
    pub fn poll(&mut self) -> WriteStep {
        if self.outcome.is_none() {
            self.outcome = self.decide();
        }
        self.outcome.map_or(WriteStep::Wait, WriteStep::Done)
    }

    /// How many owners certainly have it, or in round 2 something newer, also after `Done`.
    #[must_use]
    pub fn acks(&self) -> usize {
        self.count(WriteLegState::Held) + self.count(WriteLegState::HeldUnconfirmed)
    }

    /// Whether any owner has applied it, or may have.
    #[must_use]
    pub fn may_be_written(&self) -> bool {
        self.legs
            .iter()
            .any(|leg| !matches!(leg.state, WriteLegState::Stale | WriteLegState::TurnedDown | WriteLegState::Failed))
    }

    /// Whether all owners that have answered are in sync and compared the write with what they hold, and none has failed. If that is
    /// so in all its rounds, a write ends in the second at the latest.
    #[must_use]
    pub fn is_orderly(&self) -> bool {
        self.legs
            .iter()
            .all(|leg| matches!(leg.state, WriteLegState::InFlight | WriteLegState::Held | WriteLegState::Stale))
    }

    /// Why owners turned the write down, as far as that can be mended by the caller.
    #[must_use]
    pub const fn refusals(&self) -> Refusals {
        self.refusals
    }

    /// The legs as they stand if the caller is answered now; those without an answer are pending.
    #[must_use]
    pub fn legs(&self, now: Monotonic) -> ArrayVec<LegRecord, LEGS_MAX> {
        let ended = now.since(self.started);
        let legs = self.legs.iter().map(|leg| match leg.record.outcome {
            LegOutcome::Pending => LegRecord { ended, ..leg.record },
            _ => leg.record,
        });
        legs.collect()
    }

    /// Whose leg it is.
    #[must_use]
    pub fn owner(&self, leg: usize) -> Option<NodeId> {
        self.legs.get(leg).map(|leg| leg.record.peer)
    }

    fn decide(&self) -> Option<WriteOutcome> {
        let (acks, confirmed) = (self.acks(), self.count(WriteLegState::Held));
        let in_flight = self.count(WriteLegState::InFlight);
        if acks >= self.concern && confirmed >= self.confirmations {
            return Some(WriteOutcome::Acknowledged);
        }
        if acks + in_flight >= self.concern && confirmed + in_flight >= self.confirmations {
            return None;
        }
        // Out of reach. Trying again is safe even if some owner has applied it: the next try writes the same value with
        // a higher version.
        if let Some(stale) = self.stale() {
            // Round 2 is worth waiting for: owners that are silent now would be so in another round 1, too.
            let may_see_all = self.seen() + in_flight >= self.confirmations;
            return (in_flight == 0 || self.next_round() == Round::Second || !may_see_all).then_some(stale);
        }
        if self.wrong_ring {
            return Some(WriteOutcome::WrongRing);
        }
        if acks >= self.concern {
            return Some(WriteOutcome::Unconfirmed);
        }
        if acks > 0 || self.count(WriteLegState::Unknown) > 0 {
            return Some(WriteOutcome::Indeterminate { acks });
        }
        // Nobody has it so far, but a leg in flight may yet: only its answer, or the time-out, tells "certainly not"
        // from "perhaps".
        (in_flight == 0).then_some(WriteOutcome::Refused { acks: 0 })
    }

    fn stale(&self) -> Option<WriteOutcome> {
        self.newest.map(|newest| WriteOutcome::Stale { newest, next: self.next_round() })
    }

    /// Part (3) of the proof: enough owners in sync have answered.
    fn next_round(&self) -> Round {
        let needed = self.confirmations.saturating_sub(usize::from(Mutant::FewerAnswersThanNeeded.is_planted()));
        if self.seen() >= needed { Round::Second } else { Round::First }
    }

    /// How many owners in sync have compared the write with what they hold.
    fn seen(&self) -> usize {
        self.count(WriteLegState::Held) + self.count(WriteLegState::Stale)
    }

    fn count(&self, wanted: WriteLegState) -> usize {
        self.legs.iter().filter(|leg| leg.state == wanted).count()
    }
}

#[cfg(test)]
mod tests;
