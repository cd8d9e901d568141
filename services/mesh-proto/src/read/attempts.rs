//! Several attempts at one GET: whether another one follows, how long it waits, and whom it may ask.

use std::time::Duration;

use super::{Read, ReadOutcome};
use crate::{Monotonic, RETRY_PAUSE};

/// How long a read goes on trying when owners see another ring or are still catching up.
const RING_PATIENCE: Duration = Duration::from_millis(500);

/// The attempts of one read. Each is a [`Read`] of its own, because each has owners of its own.
#[derive(Debug)]
pub struct ReadAttempts {
    patience: Monotonic,
    begun: u32,
    asks_former: bool,
}

impl ReadAttempts {
    /// None has begun yet.
    #[must_use]
    pub fn new(started: Monotonic, timeout: Duration) -> Self {
        Self { patience: started + RING_PATIENCE.min(timeout), begun: 0, asks_former: false }
    }

    /// Begins an attempt: how long it waits first.
    pub fn begin(&mut self) -> Option<Duration> {
        self.begun += 1;
        (self.begun > 2).then_some(RETRY_PAUSE)
    }

    /// Whether this is not the first one.
    #[must_use]
    pub const fn is_repeat(&self) -> bool {
        self.begun > 1
    }

    /// Whether owners of former rings are asked as well: those that have just taken over the slot do not know yet.
    #[must_use]
    pub const fn asks_former(&self) -> bool {
        self.asks_former
    }

    /// An attempt is done, in a ring of so many members. Whether another one follows.
    pub fn handle_done(&mut self, now: Monotonic, attempt: &Read, members: usize) -> bool {
        if now >= self.patience {
            return false;
        }
        match attempt.outcome() {
            Some(ReadOutcome::WrongRing) => true,
            // Owners that have just taken over the slot are about to know, and those before them may know already.
            Some(ReadOutcome::Unavailable { .. }) if members > 1 && attempt.is_catching_up() => {
                self.asks_former = true;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Consistency, HedgeBudget, NodeId, ReadAnswer, ReadConfig};

    const fn at(ms: u64) -> Monotonic {
        Monotonic::new(Duration::from_millis(ms))
    }

    /// A read of one other owner, which has given this answer.
    fn answered(answer: ReadAnswer) -> Read {
        let config = ReadConfig {
            consistency: Consistency::One,
            answers_needed: 1,
            fanout_max: 1,
            hedge_delay: Duration::from_secs(1),
            hedge_interval: Duration::from_secs(1),
            per_try: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            may_be_evicted: false,
        };
        let mut read = Read::new(config, &[NodeId::new(1)], None, at(0));
        read.poll(at(0), &mut HedgeBudget::default());
        read.handle_answer(at(0), 0, answer);
        read.poll(at(0), &mut HedgeBudget::default());
        read
    }

    #[test]
    fn the_second_attempt_follows_at_once_and_later_ones_after_a_pause() {
        let mut attempts = ReadAttempts::new(at(0), Duration::from_secs(1));
        let begun: Vec<_> = (0..4).map(|_| (attempts.begin(), attempts.is_repeat())).collect();
        assert_eq!(begun, [(None, false), (None, true), (Some(RETRY_PAUSE), true), (Some(RETRY_PAUSE), true)]);
    }

    #[test]
    fn only_another_ring_and_owners_that_catch_up_are_worth_another_attempt() {
        for (answer, members, expected) in [
            (ReadAnswer::WrongRing(Vec::new()), 1, (true, false)),
            (ReadAnswer::Unknown, 2, (true, true)),
            (ReadAnswer::Unknown, 1, (false, false)),
            (ReadAnswer::Absent, 2, (false, false)),
        ] {
            let mut attempts = ReadAttempts::new(at(0), Duration::from_secs(1));
            let follows = attempts.handle_done(at(0), &answered(answer.clone()), members);
            assert_eq!((follows, attempts.asks_former()), expected, "{answer:?}, {members} members");
        }
    }

    #[test]
    fn patience_ends_with_the_time_of_the_read_or_before() {
        let another_ring = answered(ReadAnswer::WrongRing(Vec::new()));
        for (timeout_ms, patience_ms) in [(100, 100), (10_000, 500)] {
            let mut attempts = ReadAttempts::new(at(1), Duration::from_millis(timeout_ms));
            assert!(attempts.handle_done(at(patience_ms), &another_ring, 2));
            assert!(!attempts.handle_done(at(patience_ms + 1), &another_ring, 2));
        }
    }
}
