//! Several rounds of one write: which comes next, when, and whether any of them may have left something behind.

use std::time::Duration;

use super::{Round, Write};
use crate::{Monotonic, RETRY_PAUSE, RingHash};

/// The rounds of one write. Each is a [`Write`] of its own, which goes on after its end.
#[derive(Debug)]
pub struct WriteRounds {
    deadline: Monotonic,
    begun: u32,
    /// Which round comes next, unless the ring changes.
    next: Round,
    /// Of the last round.
    ring: Option<RingHash>,
    is_orderly: bool,
    /// The most owners that had the write after one round.
    acks: usize,
    may_be_written: bool,
}

impl WriteRounds {
    /// None has begun yet.
    #[must_use]
    pub fn new(started: Monotonic, timeout: Duration) -> Self {
        Self {
            deadline: started + timeout,
            begun: 0,
            next: Round::First,
            ring: None,
            is_orderly: true,
            acks: 0,
            may_be_written: false,
        }
    }

    /// When the write is given up.
    #[must_use]
    pub const fn deadline(&self) -> Monotonic {
        self.deadline
    }

    /// How long the next round waits before it begins.
    #[must_use]
    pub fn pause(&self) -> Option<Duration> {
        (self.begun > 1).then_some(RETRY_PAUSE)
    }

    /// Begins a round in this ring, and says which it is: a change of owners starts again.
    pub fn begin(&mut self, ring: RingHash) -> Round {
        self.begun += 1;
        if self.ring.replace(ring).is_some_and(|before| before != ring) {
            (self.next, self.is_orderly) = (Round::First, false);
        }
        self.next
    }

    /// How many have begun.
    #[must_use]
    pub const fn begun(&self) -> u32 {
        self.begun
    }

    /// Whether nothing has happened that a write may need more than two rounds for.
    #[must_use]
    pub const fn is_orderly(&self) -> bool {
        self.is_orderly
    }

    /// A round is done.
    pub fn handle_done(&mut self, round: &Write) {
        self.acks = self.acks.max(round.acks());
        self.may_be_written |= round.may_be_written();
        self.is_orderly &= round.is_orderly();
    }

    /// The write has a new version, for the round `next`. That is the first one again if the version is not above all that was
    /// reported: a clock that has just been set back stamps lower.
    pub const fn handle_version_changed(&mut self, next: Round, is_above: bool) {
        self.next = if is_above { next } else { Round::First };
    }

    /// Whether any round may have left something behind, and how many owners certainly had it. Later rounds cannot take that
    /// back.
    #[must_use]
    pub fn acks_if_written(&self) -> Option<usize> {
        self.may_be_written.then_some(self.acks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LegFailure, NodeId, ReplicationFactor, Version, WriteAnswer, WriteConcern, WriteConfig};

    const START: Monotonic = Monotonic::new(Duration::ZERO);
    const RINGS: [RingHash; 2] = [RingHash::new(1), RingHash::new(2)];

    fn round(answers: [Option<WriteAnswer>; 3]) -> Write {
        let replicas = ReplicationFactor::new(3).unwrap_or_else(|_| unreachable!());
        let concern = WriteConcern::new(2, replicas).unwrap_or_else(|_| unreachable!());
        let config =
            WriteConfig { round: Round::First, concern, confirmations: concern.confirmations_needed(replicas) };
        let owners = [1, 2, 3].map(NodeId::new);
        let mut write = Write::new(config, &owners, START, START);
        for (leg, answer) in answers.iter().enumerate() {
            match answer {
                Some(answer) => write.handle_answer(START, leg, answer),
                None => write.handle_failure(START, leg, LegFailure::NotSent),
            }
        }
        write.poll();
        write
    }

    fn stale() -> Option<WriteAnswer> {
        Some(WriteAnswer::Stale { newer: Version::new(9), in_sync: true })
    }

    #[test]
    fn a_second_round_follows_at_once_and_further_ones_after_a_pause() {
        let mut rounds = WriteRounds::new(START, Duration::from_secs(1));
        let mut pauses = Vec::new();
        for _ in 0..3 {
            pauses.push(rounds.pause());
            rounds.begin(RINGS[0]);
        }
        assert_eq!((pauses, rounds.begun()), (vec![None, None, Some(RETRY_PAUSE)], 3));
    }

    #[test]
    fn another_ring_or_a_version_that_is_not_above_starts_again() {
        let mut rounds = WriteRounds::new(START, Duration::from_secs(1));
        assert_eq!(rounds.begin(RINGS[0]), Round::First);
        rounds.handle_version_changed(Round::Second, true);
        assert_eq!((rounds.begin(RINGS[0]), rounds.is_orderly()), (Round::Second, true));
        rounds.handle_version_changed(Round::Second, false);
        assert_eq!(rounds.begin(RINGS[0]), Round::First);
        rounds.handle_version_changed(Round::Second, true);
        assert_eq!((rounds.begin(RINGS[1]), rounds.is_orderly()), (Round::First, false));
    }

    #[test]
    fn what_one_round_may_have_left_behind_no_later_one_takes_back() {
        let mut rounds = WriteRounds::new(START, Duration::from_secs(1));
        rounds.handle_done(&round([stale(), stale(), stale()]));
        assert_eq!((rounds.acks_if_written(), rounds.is_orderly()), (None, true));
        rounds.handle_done(&round([Some(WriteAnswer::Applied), stale(), None]));
        assert_eq!((rounds.acks_if_written(), rounds.is_orderly()), (Some(1), false));
        rounds.handle_done(&round([stale(), stale(), stale()]));
        assert_eq!((rounds.acks_if_written(), rounds.is_orderly()), (Some(1), false));
    }
}
