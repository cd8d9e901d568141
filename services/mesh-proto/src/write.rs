//! One SET or DELETE: when enough owners have applied it, and when that has become impossible.

use arrayvec::ArrayVec;
use thiserror::Error;

use crate::{Mutant, Version, WriteAnswer};

/// How many owners each key has (REPLICATION_FACTOR), 1 to 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReplicationFactor(u8);

/// How many owners must have applied a write before it is acknowledged (WRITE_CONCERN), 1 to REPLICATION_FACTOR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WriteConcern(u8);

/// Why a replication factor or write concern was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ConcernError {
    /// Outside 1 to 8.
    #[error("REPLICATION_FACTOR={0}: expected 1 to 8")]
    Replicas(u64),
    /// Zero, or more acknowledgements than replicas.
    #[error("WRITE_CONCERN={acks}: expected 1 to REPLICATION_FACTOR, which is {replicas}")]
    Acks {
        /// What was asked for.
        acks: u64,
        /// How many replicas there are.
        replicas: u8,
    },
}

impl ReplicationFactor {
    /// The most replicas a key may have.
    pub const MAX: usize = 8;

    /// Checks the bounds.
    ///
    /// # Errors
    /// [`ConcernError::Replicas`] outside 1 to 8.
    pub fn new(replicas: u64) -> Result<Self, ConcernError> {
        u8::try_from(replicas).ok().filter(|r| (1..=8).contains(r)).map(Self).ok_or(ConcernError::Replicas(replicas))
    }

    /// 1 to 8.
    #[must_use]
    pub const fn get(self) -> usize {
        self.0 as usize
    }
}

impl WriteConcern {
    /// Checks the bounds.
    ///
    /// # Errors
    /// [`ConcernError::Acks`] if `acks` is zero or above `replicas`.
    pub fn new(acks: u64, replicas: ReplicationFactor) -> Result<Self, ConcernError> {
        u8::try_from(acks)
            .ok()
            .filter(|a| *a >= 1 && *a <= replicas.0)
            .map(Self)
            .ok_or(ConcernError::Acks { acks, replicas: replicas.0 })
    }

    /// 1 to the replication factor.
    #[must_use]
    pub const fn get(self) -> usize {
        self.0 as usize
    }

    /// How many owners must answer so that at least one of them has seen every acknowledged write:
    /// REPLICATION_FACTOR − WRITE_CONCERN + 1.
    #[must_use]
    pub const fn answers_needed(self, replicas: ReplicationFactor) -> usize {
        replicas.get() - self.get() + 1
    }

    /// How many owners in sync must have applied a write, so that one of them would have known of any acknowledged write with
    /// a higher version. With a write concern of one no order is promised, and nobody has to be in sync.
    #[must_use]
    pub fn confirmations_needed(self, replicas: ReplicationFactor) -> usize {
        if self.get() == 1 { 0 } else { self.answers_needed(replicas).min(self.get()) }
    }
}

/// Why a leg brought no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegFailure {
    /// There was no connection, or the peer's queue was full: the request was certainly not sent.
    NotSent,
    /// The connection broke after the request was sent: whether it was applied is unknown.
    Disconnected,
    /// No answer in time: whether it was applied is unknown.
    TimedOut,
    /// The peer refused it for good, such as for its clock being too far off.
    Refused,
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
    /// WRITE_CONCERN owners have applied it, and enough of them are in sync.
    Acknowledged,
    /// WRITE_CONCERN owners have applied it, but too few of them are in sync to know whether there was something newer: start
    /// again, since the others are about to be.
    Unconfirmed,
    /// Owners hold a newer version: observe it, take a higher one, start again.
    Stale {
        /// The newest version an owner reported.
        newest: Version,
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
        /// How many owners certainly applied it.
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
    /// The furthest ahead of these, in milliseconds.
    pub ahead_ms_max: u64,
}

/// The write state machine: one leg per owner, this node's own replica being a leg like any other.
///
/// Poll once before anything is sent; then feed every answer and failure to `handle_*` and poll again. A write goes on
/// after `Done` until [`Write::is_settled`]: the legs that are still in flight decide whom to leave a hint for.
#[derive(Debug)]
pub struct Write {
    concern: usize,
    /// How many of them have to be in sync.
    confirmations: usize,
    legs: ArrayVec<LegState, { ReplicationFactor::MAX }>,
    newest: Option<Version>,
    wrong_ring: bool,
    refusals: Refusals,
    outcome: Option<WriteOutcome>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LegState {
    InFlight,
    Applied,
    /// Applied by an owner that is not in sync.
    Unconfirmed,
    /// The owner answered, and did not apply it.
    TurnedDown,
    /// It never reached the owner, or the owner would not have it.
    Failed,
    /// It was sent, and nobody knows. A late answer still settles it.
    Unknown,
}

impl Write {
    /// Starts with one leg in flight per owner, of which `confirmations` have to be in sync. With fewer owners than `concern`, the first `poll` says `Refused`.
    #[must_use]
    pub fn new(concern: WriteConcern, confirmations: usize, owners: usize) -> Self {
        assert!(owners <= ReplicationFactor::MAX, "{owners} owners, more than replicas can be");
        let mut write = Self {
            concern: concern.get() - usize::from(Mutant::AckTooEarly.is_planted()),
            confirmations: confirmations.saturating_sub(usize::from(Mutant::AckTooEarly.is_planted())),
            legs: (0..owners).map(|_| LegState::InFlight).collect(),
            newest: None,
            wrong_ring: false,
            refusals: Refusals::default(),
            outcome: None,
        };
        if owners < write.concern {
            // Decided before anything is sent, so that a write without enough owners leaves no trace.
            write.outcome = Some(WriteOutcome::Refused { acks: 0 });
        }
        write
    }

    /// A leg answered. A second answer to the same leg changes nothing.
    pub fn handle_answer(&mut self, leg: usize, answer: &WriteAnswer) {
        let Some(state) = self.legs.get_mut(leg) else { return };
        if !matches!(state, LegState::InFlight | LegState::Unknown) {
            return;
        }
        *state = match answer {
            WriteAnswer::Applied => LegState::Applied,
            WriteAnswer::AppliedUnconfirmed if Mutant::UnconfirmedCounts.is_planted() => LegState::Applied,
            WriteAnswer::AppliedUnconfirmed => LegState::Unconfirmed,
            _ => LegState::TurnedDown,
        };
        match answer {
            WriteAnswer::Applied | WriteAnswer::AppliedUnconfirmed => {}
            WriteAnswer::Stale { newer } => self.newest = self.newest.max(Some(*newer)),
            WriteAnswer::Drift { ahead_ms } => {
                self.refusals.drift += 1;
                self.refusals.ahead_ms_max = self.refusals.ahead_ms_max.max(*ahead_ms);
            }
            WriteAnswer::TooLarge => self.refusals.too_large += 1,
            WriteAnswer::WrongRing(_) => self.wrong_ring = true,
        }
    }

    /// A leg failed.
    pub fn handle_failure(&mut self, leg: usize, failure: LegFailure) {
        let Some(state) = self.legs.get_mut(leg) else { return };
        if *state == LegState::InFlight {
            *state = match failure {
                LegFailure::NotSent | LegFailure::Refused => LegState::Failed,
                LegFailure::Disconnected | LegFailure::TimedOut => LegState::Unknown,
            };
        }
    }

    /// The time is up: whatever is in flight counts as unknown.
    pub fn handle_timeout(&mut self) {
        for state in self.legs.iter_mut().filter(|state| **state == LegState::InFlight) {
            *state = LegState::Unknown;
        }
    }

    /// Whether an owner holds a newer version while the result still depends on owners that have not answered.
    #[must_use]
    pub const fn is_contested(&self) -> bool {
        self.newest.is_some() && self.outcome.is_none()
    }

    /// The caller will not wait any longer for owners that may be silent: if the write is contested, it is to be stamped
    /// again above the newer version now. What is in flight may still be applied, under its lower version.
    pub fn handle_impatience(&mut self) {
        if let (Some(newest), None) = (self.newest, self.outcome) {
            self.outcome = Some(WriteOutcome::Stale { newest });
        }
    }

    /// Whether there is a result. Once `Done`, always the same.
    pub fn poll(&mut self) -> WriteStep {
        if self.outcome.is_none() {
            self.outcome = self.decide();
        }
        self.outcome.map_or(WriteStep::Wait, WriteStep::Done)
    }

    /// How many legs have neither answered nor failed.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.count(LegState::InFlight)
    }

    /// Whether every leg has answered or failed.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.count(LegState::InFlight) == 0
    }

    /// How many owners have certainly applied it, also after `Done`.
    #[must_use]
    pub fn acks(&self) -> usize {
        self.count(LegState::Applied) + self.count(LegState::Unconfirmed)
    }

    /// Whether any owner has applied it, or may have.
    #[must_use]
    pub fn may_be_written(&self) -> bool {
        self.legs.iter().any(|state| !matches!(state, LegState::TurnedDown | LegState::Failed))
    }

    /// Why owners turned the write down, as far as that can be mended by the caller.
    #[must_use]
    pub const fn refusals(&self) -> Refusals {
        self.refusals
    }

    /// Legs that failed or whose outcome is unknown: their owners may lack the write and are due a hint. Complete once
    /// the write is settled.
    pub fn missed_legs(&self) -> impl Iterator<Item = usize> + '_ {
        let missed = |state: &LegState| matches!(state, LegState::Failed | LegState::Unknown);
        self.legs.iter().enumerate().filter(move |(_, state)| missed(state)).map(|(leg, _)| leg)
    }

    fn decide(&self) -> Option<WriteOutcome> {
        let (acks, confirmed) = (self.acks(), self.count(LegState::Applied));
        let in_flight = self.count(LegState::InFlight);
        if acks >= self.concern && confirmed >= self.confirmations {
            return Some(WriteOutcome::Acknowledged);
        }
        if acks + in_flight >= self.concern && confirmed + in_flight >= self.confirmations {
            return None;
        }
        // Out of reach. Trying again is safe even if some owner has applied it: the next try writes the same value with
        // a higher version.
        if let Some(newest) = self.newest {
            return Some(WriteOutcome::Stale { newest });
        }
        if self.wrong_ring {
            return Some(WriteOutcome::WrongRing);
        }
        if acks >= self.concern {
            return Some(WriteOutcome::Unconfirmed);
        }
        if acks > 0 || self.count(LegState::Unknown) > 0 {
            return Some(WriteOutcome::Indeterminate { acks });
        }
        // Nobody has it so far, but a leg in flight may yet: only its answer, or the time-out, tells "certainly not"
        // from "perhaps".
        (in_flight == 0).then_some(WriteOutcome::Refused { acks: 0 })
    }

    fn count(&self, wanted: LegState) -> usize {
        self.legs.iter().filter(|state| **state == wanted).count()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[derive(Clone, Debug)]
    enum Input {
        Answer(WriteAnswer),
        Failure(LegFailure),
    }

    fn inputs() -> Vec<Input> {
        vec![
            Input::Answer(WriteAnswer::Applied),
            Input::Answer(WriteAnswer::AppliedUnconfirmed),
            Input::Answer(WriteAnswer::Stale { newer: Version::new(7) }),
            Input::Answer(WriteAnswer::Drift { ahead_ms: 900 }),
            Input::Answer(WriteAnswer::TooLarge),
            Input::Answer(WriteAnswer::WrongRing(Vec::new())),
            Input::Failure(LegFailure::NotSent),
            Input::Failure(LegFailure::Disconnected),
            Input::Failure(LegFailure::TimedOut),
            Input::Failure(LegFailure::Refused),
        ]
    }

    fn write(concern: u64, owners: usize) -> Write {
        let replicas = ReplicationFactor::new(3).unwrap();
        let concern = WriteConcern::new(concern, replicas).unwrap();
        Write::new(concern, concern.confirmations_needed(replicas), owners)
    }

    fn feed(write: &mut Write, leg: usize, input: &Input) {
        match input {
            Input::Answer(answer) => write.handle_answer(leg, answer),
            Input::Failure(failure) => write.handle_failure(leg, *failure),
        }
    }

    /// The rules of `WriteOutcome`, read off the list of what has happened so far.
    fn oracle(concern: usize, seen: &[(usize, Input)]) -> WriteStep {
        let is = |wanted: fn(&Input) -> bool| seen.iter().filter(|(_, input)| wanted(input)).count();
        let confirmed = is(|input| matches!(input, Input::Answer(WriteAnswer::Applied)));
        let acks = confirmed + is(|input| matches!(input, Input::Answer(WriteAnswer::AppliedUnconfirmed)));
        let needed = [0, 2, 1][concern - 1];
        let stale = is(|input| matches!(input, Input::Answer(WriteAnswer::Stale { .. })));
        let wrong_ring = is(|input| matches!(input, Input::Answer(WriteAnswer::WrongRing(_))));
        let unknown = is(|input| matches!(input, Input::Failure(LegFailure::Disconnected | LegFailure::TimedOut)));
        let pending = 3 - seen.len();
        WriteStep::Done(if acks >= concern && confirmed >= needed {
            WriteOutcome::Acknowledged
        } else if acks + pending >= concern && confirmed + pending >= needed {
            return WriteStep::Wait;
        } else if stale > 0 {
            WriteOutcome::Stale { newest: Version::new(7) }
        } else if wrong_ring > 0 {
            WriteOutcome::WrongRing
        } else if acks >= concern {
            WriteOutcome::Unconfirmed
        } else if acks + unknown > 0 {
            WriteOutcome::Indeterminate { acks }
        } else if pending > 0 {
            return WriteStep::Wait;
        } else {
            WriteOutcome::Refused { acks: 0 }
        })
    }

    fn check_sequence(concern: u64, sequence: &[(usize, Input)]) {
        let mut write = write(concern, 3);
        let mut expected = WriteStep::Wait;
        assert_eq!(write.poll(), expected);
        for seen in 1..=sequence.len() {
            let (leg, input) = &sequence[seen - 1];
            feed(&mut write, *leg, input);
            if expected == WriteStep::Wait {
                expected = oracle(usize::try_from(concern).unwrap(), &sequence[..seen]);
            }
            assert_eq!(write.poll(), expected, "concern {concern}, after {:?}", &sequence[..seen]);
            assert_eq!(write.is_settled(), seen == 3);
        }
        assert_ne!(write.poll(), WriteStep::Wait, "settled without an outcome: {sequence:?}");
        let mut failed: Vec<usize> =
            sequence.iter().filter(|(_, input)| matches!(input, Input::Failure(_))).map(|(leg, _)| *leg).collect();
        failed.sort_unstable();
        assert_eq!(write.missed_legs().collect::<Vec<_>>(), failed);
    }

    #[test]
    fn every_order_of_every_outcome_of_three_legs_is_as_the_rules_say() {
        let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        for concern in 1..=3 {
            for order in orders {
                for a in inputs() {
                    for b in inputs() {
                        for c in inputs() {
                            check_sequence(
                                concern,
                                &[(order[0], a.clone()), (order[1], b.clone()), (order[2], c.clone())],
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn too_few_owners_are_refused_before_anything_is_sent() {
        assert_eq!(write(2, 1).poll(), WriteStep::Done(WriteOutcome::Refused { acks: 0 }));
        assert_eq!(write(2, 2).poll(), WriteStep::Wait);
        assert!(write(1, 0).is_settled());
    }

    #[test]
    fn a_timeout_makes_what_is_in_flight_unknown_and_a_late_answer_settles_it() {
        let mut write = write(2, 3);
        write.handle_answer(0, &WriteAnswer::Applied);
        write.handle_timeout();
        assert_eq!(write.poll(), WriteStep::Done(WriteOutcome::Indeterminate { acks: 1 }));
        assert_eq!(write.missed_legs().collect::<Vec<_>>(), [1, 2]);
        write.handle_answer(2, &WriteAnswer::Applied);
        assert_eq!(
            write.poll(),
            WriteStep::Done(WriteOutcome::Indeterminate { acks: 1 }),
            "once done, always the same"
        );
        assert_eq!((write.acks(), write.missed_legs().collect::<Vec<_>>()), (2, vec![1]));
    }

    #[test]
    fn a_leg_counts_once() {
        let mut write = write(2, 3);
        write.handle_answer(0, &WriteAnswer::Applied);
        write.handle_answer(0, &WriteAnswer::Applied);
        write.handle_failure(0, LegFailure::Disconnected);
        write.handle_answer(9, &WriteAnswer::Applied);
        assert_eq!((write.poll(), write.acks()), (WriteStep::Wait, 1));
    }

    #[test]
    fn the_newest_version_and_the_reasons_of_refusals_are_kept() {
        let mut write = write(2, 3);
        write.handle_answer(0, &WriteAnswer::Stale { newer: Version::new(5) });
        write.handle_answer(1, &WriteAnswer::Stale { newer: Version::new(3) });
        assert_eq!(write.poll(), WriteStep::Done(WriteOutcome::Stale { newest: Version::new(5) }));

        let mut write = super::tests::write(2, 3);
        write.handle_answer(0, &WriteAnswer::TooLarge);
        write.handle_answer(1, &WriteAnswer::Drift { ahead_ms: 900 });
        assert_eq!(write.poll(), WriteStep::Wait, "the third owner may apply it");
        write.handle_answer(2, &WriteAnswer::Drift { ahead_ms: 700 });
        assert_eq!(write.poll(), WriteStep::Done(WriteOutcome::Refused { acks: 0 }));
        assert_eq!(write.refusals(), Refusals { too_large: 1, drift: 2, ahead_ms_max: 900 });
    }
}
