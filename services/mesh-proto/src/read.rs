//! One GET: which owners to ask, when to hedge, and which answers make a result.

use std::time::Duration;

use arrayvec::ArrayVec;
use bytes::Bytes;

use crate::{
    Expiry, HedgeBudget, LEGS_MAX, LegFailure, LegOutcome, LegQueues, LegRecord, Monotonic, Mutant, NodeId, ReadAnswer,
    ReplicationFactor, Version,
};

mod attempts;

pub use attempts::ReadAttempts;

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
    /// Owners evict, each for itself: before a miss the others are asked too, and waited for as long as a hedge would be.
    pub may_be_evicted: bool,
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
    started: Monotonic,
    legs: ArrayVec<ReadLeg, { ReplicationFactor::MAX }>,
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
    /// When there were enough of them.
    enough_at: Option<Monotonic>,
    /// How many owners in sync have said anything at all.
    usable: usize,
    /// Whether an owner in sync has said that it has nothing.
    is_absent: bool,
    wrong_ring: bool,
    /// Whether an owner has answered that is not in sync.
    catching_up: bool,
    outcome: Option<ReadOutcome>,
}

#[derive(Clone, Copy, Debug)]
struct ReadLeg {
    state: ReadLegState,
    record: LegRecord,
}

const _: () = assert!(ReplicationFactor::MAX <= LEGS_MAX, "a record for each leg");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadLegState {
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
        let unsent =
            |peer: &NodeId| ReadLeg { state: ReadLegState::Unsent, record: LegRecord::sent(*peer, Duration::ZERO) };
        let mut read = Self {
            config,
            started: now,
            legs: owners.iter().take(ReplicationFactor::MAX).map(unsent).collect(),
            next: 0,
            deadline: now + config.timeout,
            hedge_at: now + config.hedge_delay,
            has_hedged: false,
            value: None,
            gone: None,
            answers: 0,
            enough_at: None,
            usable: 0,
            is_absent: false,
            wrong_ring: false,
            catching_up: false,
            outcome: None,
        };
        if let Some(answer) = local {
            read.take(None, answer);
        }
        read
    }

    /// A leg answered. An answer to a leg that is not in flight changes nothing.
    pub fn handle_answer(&mut self, now: Monotonic, leg: usize, answer: ReadAnswer) {
        if self.settle(now, leg, LegOutcome::Lost) && self.outcome.is_none() {
            self.take(Some(leg), answer);
        }
    }

    /// The answer of this leg, which is told next, has lain in queues.
    pub fn handle_queues(&mut self, leg: usize, queues: LegQueues) {
        if let Some(leg) = self.legs.get_mut(leg) {
            leg.record.queues = queues;
        }
    }

    /// A leg failed: the next owner is asked at once.
    pub fn handle_failure(&mut self, now: Monotonic, leg: usize, failure: LegFailure) {
        self.settle(now, leg, failure.outcome());
    }

    /// What to do now. A hedge takes a token from `budget`; without one the read waits for the legs it has.
    pub fn poll(&mut self, now: Monotonic, budget: &mut HedgeBudget) -> ReadStep {
        if self.outcome.is_none() {
            self.give_up_overdue(now);
            self.outcome = self.decide(now).or_else(|| (now >= self.deadline).then_some(ReadOutcome::TimedOut));
        }
        if let Some(outcome) = &self.outcome {
            return ReadStep::Done(outcome.clone());
        }
        let active = self.active();
        let wanted = self.wanted();
        let has_next = self.next < self.legs.len();
        if has_next && active < wanted {
            return self.send(now, false);
        }
        if active == 0 && self.nothing_to_wait_for() {
            return self.exhausted();
        }
        let may_hedge = has_next && active < self.config.fanout_max && !Mutant::SerialHedge.is_planted();
        if may_hedge && now >= self.hedge_at {
            if budget.withdraw() {
                return self.send(now, true);
            }
            self.hedge_at = now + self.config.hedge_interval.max(BUDGET_RETRY_MIN);
        }
        ReadStep::Wait(self.wake_at(may_hedge))
    }

    /// Whether an owner has answered that is still catching up: trying again shortly may then bring what this attempt did not.
    #[must_use]
    pub const fn is_catching_up(&self) -> bool {
        self.catching_up
    }

    /// The legs sent, as they stand if the read ends now: those that have neither answered nor failed are to be cancelled.
    #[must_use]
    pub fn legs(&self, now: Monotonic) -> ArrayVec<LegRecord, LEGS_MAX> {
        let won = if let Some(ReadOutcome::Value { leg, .. }) = &self.outcome { *leg } else { None };
        let ended = now.since(self.started);
        let legs = self.legs[..self.next].iter().enumerate().map(|(index, leg)| match leg.record.outcome {
            LegOutcome::Pending => LegRecord { outcome: LegOutcome::Cancelled, ended, ..leg.record },
            _ if won == Some(index) => LegRecord { outcome: LegOutcome::Won, ..leg.record },
            _ => leg.record,
        });
        legs.collect()
    }

    /// The result, after `Done`.
    #[must_use]
    pub const fn outcome(&self) -> Option<&ReadOutcome> {
        self.outcome.as_ref()
    }

    /// Marks a leg as answered or failed; whether it was in flight.
    fn settle(&mut self, now: Monotonic, leg: usize, outcome: LegOutcome) -> bool {
        let Some(leg) = self.legs.get_mut(leg) else { return false };
        let was_open = matches!(leg.state, ReadLegState::InFlight(_) | ReadLegState::Overdue);
        if was_open {
            leg.state = ReadLegState::Settled;
            (leg.record.outcome, leg.record.ended) = (outcome, now.since(self.started));
        }
        was_open
    }

    fn take(&mut self, leg: Option<usize>, answer: ReadAnswer) {
        let counts = self.counts(&answer);
        let confirmed = !matches!(answer, ReadAnswer::Value { in_sync: false, .. });
        self.catching_up |= !confirmed || answer == ReadAnswer::Unknown;
        match answer {
            ReadAnswer::Value { version, expiry, value, .. } => {
                if self.value.as_ref().is_none_or(|held| held.version < version) {
                    self.value = Some(Candidate { version, expiry, value, leg });
                }
            }
            ReadAnswer::Gone { version } => self.gone = self.gone.max(Some(version)),
            ReadAnswer::Absent => self.is_absent = true,
            ReadAnswer::Unknown => return,
            ReadAnswer::WrongRing(_) => {
                self.wrong_ring = true;
                return;
            }
        }
        self.usable += usize::from(confirmed);
        self.answers += usize::from(counts);
    }

    /// Whether an answer is one of those that `answers_needed` asks for. For a quorum that is what any owner in sync
    /// says. Otherwise only what says "there is none" is, and in a session only if it may be newer than what was seen.
    const fn counts(&self, answer: &ReadAnswer) -> bool {
        match (answer, self.config.consistency) {
            // An owner that is still catching up may hold an older value than the one it has acknowledged before.
            (ReadAnswer::Value { in_sync, .. }, Consistency::Quorum) => *in_sync,
            (ReadAnswer::Absent, _) => true,
            (ReadAnswer::Gone { version }, Consistency::Session(floor)) => version.get() >= floor.get(),
            (ReadAnswer::Gone { .. }, _) => true,
            (ReadAnswer::Value { .. } | ReadAnswer::Unknown | ReadAnswer::WrongRing(_), _) => false,
        }
    }

    /// The result, if the answers so far make one.
    fn decide(&mut self, now: Monotonic) -> Option<ReadOutcome> {
        let has_enough =
            self.answers >= self.config.answers_needed || (self.answers > 0 && Mutant::QuorumOfOne.is_planted());
        if has_enough {
            self.enough_at.get_or_insert(now);
        }
        // A value that some tombstone has overtaken, or expired elsewhere, is no hit.
        let live = self.value.as_ref().filter(|held| Some(held.version) > self.gone);
        let hit = live.filter(|held| match self.config.consistency {
            Consistency::One => true,
            Consistency::Session(floor) => held.version >= floor || Mutant::SessionForgets.is_planted(),
            // Of owners that evict, one that has nothing may be the one that knew the newest write.
            Consistency::Quorum => has_enough && !(self.is_absent && self.may_still_be_found(now)),
        });
        if let Some(Candidate { version, expiry, value, leg }) = hit {
            return Some(ReadOutcome::Value { version: *version, value: value.clone(), expiry: *expiry, leg: *leg });
        }
        (has_enough && !self.may_still_be_found(now)).then_some(ReadOutcome::Miss { version: self.gone })
    }

    /// Whether an owner that has not answered may hold what others have evicted. A deletion is known to all.
    fn may_still_be_found(&self, now: Monotonic) -> bool {
        let is_awaited = self.next < self.legs.len() || self.active() > 0;
        let is_late = self.enough_at.is_some_and(|enough_at| now >= enough_at + self.config.hedge_delay);
        self.may_be_evicted() && is_awaited && !is_late
    }

    /// Whether an owner that says "absent" may have evicted what another holds.
    fn may_be_evicted(&self) -> bool {
        self.config.may_be_evicted && self.gone.is_none() && !Mutant::EvictorsSuffice.is_planted()
    }

    /// How many legs the result needs in flight now, apart from hedges: one for a hit, and after an answer
    /// that speaks for a miss as many as are still missing.
    fn wanted(&self) -> usize {
        // Nobody is asked in turn who will be asked anyway.
        if self.may_be_evicted() && self.is_absent {
            return self.legs.len();
        }
        let missing = self.config.answers_needed.saturating_sub(self.answers).max(1);
        if self.answers > 0 || self.config.consistency == Consistency::Quorum { missing } else { 1 }
    }

    fn active(&self) -> usize {
        self.legs.iter().filter(|leg| matches!(leg.state, ReadLegState::InFlight(_))).count()
    }

    fn give_up_overdue(&mut self, now: Monotonic) {
        for leg in &mut self.legs {
            if matches!(leg.state, ReadLegState::InFlight(until) if now >= until) {
                leg.state = ReadLegState::Overdue;
            }
        }
    }

    fn send(&mut self, now: Monotonic, hedged: bool) -> ReadStep {
        let index = self.next;
        let leg = &mut self.legs[index];
        leg.state = ReadLegState::InFlight(now + self.config.per_try);
        leg.record = LegRecord { hedged, ..LegRecord::sent(leg.record.peer, now.since(self.started)) };
        self.next += 1;
        self.has_hedged |= hedged;
        let pause = if self.has_hedged { self.config.hedge_interval } else { self.config.hedge_delay };
        self.hedge_at = now + pause;
        ReadStep::Send { leg: index, peer: leg.record.peer, hedged }
    }

    /// Everyone was asked, and nobody is left to wait for.
    fn exhausted(&mut self) -> ReadStep {
        let needed = self.config.answers_needed;
        let outcome = if self.is_overtaken() && self.usable >= needed {
            ReadOutcome::Miss { version: self.gone }
        } else if self.wrong_ring {
            ReadOutcome::WrongRing
        } else {
            ReadOutcome::Unavailable { answers: self.answers, needed }
        };
        self.outcome = Some(outcome.clone());
        ReadStep::Done(outcome)
    }

    /// Whether a tombstone is the newest of all that was seen, and new enough. Owners that hold an older value have then
    /// merely missed the deletion, and their answers do for a miss if there are no better ones: by the intersection of
    /// quorums, one among `answers_needed` has seen the newest acknowledged write.
    fn is_overtaken(&self) -> bool {
        let floor = match self.config.consistency {
            Consistency::Session(floor) => floor,
            Consistency::One | Consistency::Quorum => Version::ZERO,
        };
        self.gone.is_some_and(|gone| gone >= floor && self.value.as_ref().is_none_or(|held| held.version <= gone))
    }

    /// With no leg left in time, whether a late answer is not worth the wait: there is none to come, or there is a result
    /// without it.
    fn nothing_to_wait_for(&self) -> bool {
        let has_result = self.wrong_ring || (self.is_overtaken() && self.usable >= self.config.answers_needed);
        has_result || self.legs.iter().all(|leg| leg.state == ReadLegState::Settled)
    }

    /// The next moment at which waiting alone changes something.
    fn wake_at(&self, may_hedge: bool) -> Monotonic {
        let given_up = self.legs.iter().filter_map(|leg| match leg.state {
            ReadLegState::InFlight(until) => Some(until),
            _ => None,
        });
        let late = self.enough_at.map(|enough_at| enough_at + self.config.hedge_delay);
        given_up.chain(may_hedge.then_some(self.hedge_at)).chain(late).fold(self.deadline, Monotonic::min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEDGE_DELAY: u64 = 10;
    const HEDGE_INTERVAL: u64 = 4;
    const PER_TRY: u64 = 200;
    const TIMEOUT: u64 = 3000;

    const fn at(ms: u64) -> Monotonic {
        Monotonic::new(Duration::from_millis(ms))
    }

    fn config(consistency: Consistency) -> ReadConfig {
        ReadConfig {
            consistency,
            answers_needed: 2,
            fanout_max: 2,
            hedge_delay: Duration::from_millis(HEDGE_DELAY),
            hedge_interval: Duration::from_millis(HEDGE_INTERVAL),
            per_try: Duration::from_millis(PER_TRY),
            timeout: Duration::from_millis(TIMEOUT),
            may_be_evicted: false,
        }
    }

    fn owners(count: u64) -> Vec<NodeId> {
        (1..=count).map(NodeId::new).collect()
    }

    fn read(consistency: Consistency, others: u64, local: Option<ReadAnswer>) -> Read {
        Read::new(config(consistency), &owners(others), local, at(0))
    }

    fn value(version: u128) -> ReadAnswer {
        ReadAnswer::Value {
            version: Version::new(version),
            expiry: Expiry::NEVER,
            value: Bytes::from_static(b"v"),
            in_sync: true,
        }
    }

    const fn gone(version: u128) -> ReadAnswer {
        ReadAnswer::Gone { version: Version::new(version) }
    }

    fn session(floor: u128) -> Consistency {
        Consistency::Session(Version::new(floor))
    }

    fn full_budget() -> HedgeBudget {
        let mut budget = HedgeBudget::default();
        (0..100).for_each(|_| budget.deposit());
        budget
    }

    fn empty_budget() -> HedgeBudget {
        let mut budget = HedgeBudget::default();
        while budget.withdraw() {}
        budget
    }

    /// Polls with tokens to spare until there is nothing more to do at `ms`: the legs sent, and the last step.
    fn run(read: &mut Read, ms: u64) -> (Vec<(usize, bool)>, ReadStep) {
        let mut budget = full_budget();
        let mut sent = Vec::new();
        loop {
            match read.poll(at(ms), &mut budget) {
                ReadStep::Send { leg, peer, hedged } => {
                    assert_eq!(peer, NodeId::new(leg as u64 + 1));
                    sent.push((leg, hedged));
                }
                step => return (sent, step),
            }
        }
    }

    /// Legs that would be cancelled.
    fn in_flight(read: &Read, ms: u64) -> Vec<usize> {
        let legs = read.legs(at(ms));
        let open = legs.iter().enumerate().filter(|(_, leg)| leg.outcome == LegOutcome::Cancelled);
        open.map(|(index, _)| index).collect()
    }

    fn hit(version: u128, leg: Option<usize>) -> ReadStep {
        let value = Bytes::from_static(b"v");
        ReadStep::Done(ReadOutcome::Value { version: Version::new(version), value, expiry: Expiry::NEVER, leg })
    }

    fn miss(version: Option<u128>) -> ReadStep {
        ReadStep::Done(ReadOutcome::Miss { version: version.map(Version::new) })
    }

    #[test]
    fn a_local_value_ends_the_read_at_once() {
        assert_eq!(run(&mut read(Consistency::One, 2, Some(value(5))), 0), (vec![], hit(5, None)));
        assert_eq!(run(&mut read(session(5), 2, Some(value(5))), 0), (vec![], hit(5, None)));
    }

    /// A read among owners that evict, of which this node is one and has nothing.
    fn read_of_evicted(consistency: Consistency, local: ReadAnswer) -> Read {
        let config = ReadConfig { may_be_evicted: true, ..config(consistency) };
        Read::new(config, &owners(2), Some(local), at(0))
    }

    #[test]
    fn what_some_owners_have_evicted_is_found_at_another() {
        for (consistency, other) in [(Consistency::One, ReadAnswer::Absent), (Consistency::Quorum, value(4))] {
            let mut read = read_of_evicted(consistency, ReadAnswer::Absent);
            assert_eq!(run(&mut read, 0).0, [(0, false), (1, false)], "the others at once");
            read.handle_answer(at(1), 0, other);
            assert_eq!(run(&mut read, 1), (vec![], ReadStep::Wait(at(1 + HEDGE_DELAY))), "enough, but not all");
            read.handle_answer(at(5), 1, value(7));
            assert_eq!(run(&mut read, 5), (vec![], hit(7, Some(1))));
        }
    }

    #[test]
    fn owners_that_may_have_evicted_are_not_waited_for_for_long() {
        let mut read = read_of_evicted(Consistency::One, ReadAnswer::Absent);
        run(&mut read, 0);
        read.handle_answer(at(1), 0, ReadAnswer::Absent);
        assert_eq!(run(&mut read, 1), (vec![], ReadStep::Wait(at(1 + HEDGE_DELAY))));
        assert_eq!(run(&mut read, 1 + HEDGE_DELAY), (vec![], miss(None)), "one is silent");
        let mut read = read_of_evicted(Consistency::One, ReadAnswer::Absent);
        run(&mut read, 0);
        read.handle_answer(at(1), 0, ReadAnswer::Absent);
        read.handle_failure(at(2), 1, LegFailure::Disconnected);
        assert_eq!(run(&mut read, 2), (vec![], miss(None)), "nobody is left");
        let mut read = read_of_evicted(Consistency::One, gone(3));
        run(&mut read, 0);
        read.handle_answer(at(1), 0, ReadAnswer::Absent);
        assert_eq!(run(&mut read, 1), (vec![], miss(Some(3))), "it was deleted, which all know");
    }

    #[test]
    fn hedges_start_after_the_delay_and_stop_at_the_fan_out() {
        let mut read = read(Consistency::One, 3, None);
        assert_eq!(run(&mut read, 0), (vec![(0, false)], ReadStep::Wait(at(HEDGE_DELAY))));
        assert_eq!(run(&mut read, HEDGE_DELAY), (vec![(1, true)], ReadStep::Wait(at(PER_TRY))));
        read.handle_answer(at(12), 1, value(5));
        assert_eq!(run(&mut read, 12), (vec![], hit(5, Some(1))));
        let legs: Vec<_> = read.legs(at(12)).iter().map(|leg| (leg.hedged, leg.outcome, leg.ended)).collect();
        let ended = Duration::from_millis(12);
        let lost = (false, LegOutcome::Cancelled, ended);
        assert_eq!(legs, [lost, (true, LegOutcome::Won, ended)], "the loser is to be cancelled");
    }

    #[test]
    fn further_hedges_follow_at_the_interval() {
        let config = ReadConfig { fanout_max: 3, ..config(Consistency::One) };
        let mut read = Read::new(config, &owners(4), None, at(0));
        run(&mut read, 0);
        assert_eq!(run(&mut read, 10), (vec![(1, true)], ReadStep::Wait(at(10 + HEDGE_INTERVAL))));
        assert_eq!(run(&mut read, 14), (vec![(2, true)], ReadStep::Wait(at(PER_TRY))));
    }

    #[test]
    fn without_a_token_the_read_waits_and_looks_again_later() {
        let mut read = read(Consistency::One, 2, None);
        let mut budget = empty_budget();
        assert!(matches!(read.poll(at(0), &mut budget), ReadStep::Send { leg: 0, hedged: false, .. }));
        assert_eq!(read.poll(at(10), &mut budget), ReadStep::Wait(at(10 + HEDGE_INTERVAL)));
        assert_eq!(run(&mut read, 14).0, [(1, true)]);

        let config = ReadConfig { hedge_interval: Duration::ZERO, ..config(Consistency::One) };
        let mut read = Read::new(config, &owners(2), None, at(0));
        read.poll(at(0), &mut budget);
        assert_eq!(read.poll(at(10), &mut budget), ReadStep::Wait(at(11)), "never a busy loop");
    }

    #[test]
    fn a_failure_an_unknown_and_another_ring_move_on_without_a_token() {
        let mut read = read(Consistency::One, 4, None);
        let mut budget = empty_budget();
        assert!(matches!(read.poll(at(0), &mut budget), ReadStep::Send { leg: 0, .. }));
        read.handle_failure(at(1), 0, LegFailure::NotSent);
        assert!(matches!(read.poll(at(1), &mut budget), ReadStep::Send { leg: 1, hedged: false, .. }));
        read.handle_answer(at(2), 1, ReadAnswer::Unknown);
        assert!(matches!(read.poll(at(2), &mut budget), ReadStep::Send { leg: 2, hedged: false, .. }));
        read.handle_answer(at(3), 2, ReadAnswer::WrongRing(Vec::new()));
        assert!(matches!(read.poll(at(3), &mut budget), ReadStep::Send { leg: 3, hedged: false, .. }));
        read.handle_answer(at(4), 3, value(5));
        assert_eq!(read.poll(at(4), &mut budget), hit(5, Some(3)), "a value wins over another ring");
    }

    #[test]
    fn a_miss_needs_enough_owners_and_the_local_one_counts() {
        let mut read = read(Consistency::One, 2, Some(ReadAnswer::Absent));
        assert_eq!(run(&mut read, 0).0, [(0, false)]);
        read.handle_answer(at(1), 0, gone(4));
        assert_eq!(run(&mut read, 1), (vec![], miss(Some(4))));
    }

    #[test]
    fn an_insufficient_miss_asks_as_many_as_are_missing_at_once() {
        let config = ReadConfig { answers_needed: 3, ..config(Consistency::One) };
        let mut read = Read::new(config, &owners(4), None, at(0));
        assert_eq!(run(&mut read, 0).0, [(0, false)]);
        read.handle_answer(at(1), 0, ReadAnswer::Absent);
        assert_eq!(run(&mut read, 1).0, [(1, false), (2, false)]);
    }

    #[test]
    fn a_value_older_than_a_tombstone_is_no_hit() {
        for expired in [5, 6] {
            let mut read = read(Consistency::One, 3, Some(gone(6)));
            run(&mut read, 0);
            read.handle_answer(at(1), 0, value(expired));
            assert_eq!(run(&mut read, 1).0, [(1, false)]);
            read.handle_answer(at(2), 1, value(7));
            assert_eq!(run(&mut read, 2), (vec![], hit(7, Some(1))));
        }
    }

    #[test]
    fn owners_that_missed_a_deletion_do_for_a_miss_when_nobody_better_is_left() {
        let mut read = read(Consistency::One, 2, Some(gone(6)));
        run(&mut read, 0);
        read.handle_answer(at(1), 0, value(5));
        assert_eq!(run(&mut read, 1).0, [(1, false)]);
        read.handle_failure(at(2), 1, LegFailure::Disconnected);
        assert_eq!(run(&mut read, 2).1, miss(Some(6)));
    }

    #[test]
    fn a_session_keeps_asking_until_the_answer_is_new_enough() {
        let mut read = read(session(5), 2, Some(value(4)));
        assert_eq!(run(&mut read, 0).0, [(0, false)]);
        read.handle_answer(at(1), 0, gone(3));
        assert_eq!(run(&mut read, 1).0, [(1, false)]);
        read.handle_answer(at(2), 1, value(6));
        assert_eq!(run(&mut read, 2).1, hit(6, Some(1)));
    }

    #[test]
    fn a_session_takes_an_old_answer_neither_for_a_hit_nor_for_a_miss() {
        let mut read = read(session(5), 2, Some(value(4)));
        run(&mut read, 0);
        read.handle_answer(at(1), 0, gone(3));
        run(&mut read, 1);
        read.handle_answer(at(2), 1, ReadAnswer::Absent);
        let unavailable = ReadStep::Done(ReadOutcome::Unavailable { answers: 1, needed: 2 });
        assert_eq!(run(&mut read, 2).1, unavailable);
    }

    #[test]
    fn a_tombstone_older_than_the_session_is_no_miss_even_as_a_last_resort() {
        for (floor, last) in
            [(6, miss(Some(6))), (7, ReadStep::Done(ReadOutcome::Unavailable { answers: 0, needed: 2 }))]
        {
            let mut read = read(session(floor), 2, Some(gone(6)));
            run(&mut read, 0);
            read.handle_answer(at(1), 0, value(5));
            run(&mut read, 1);
            read.handle_failure(at(2), 1, LegFailure::Disconnected);
            assert_eq!(run(&mut read, 2).1, last, "floor {floor}");
        }
    }

    #[test]
    fn a_session_misses_when_enough_owners_have_evicted_the_key() {
        let mut read = read(session(5), 2, Some(ReadAnswer::Absent));
        run(&mut read, 0);
        read.handle_answer(at(1), 0, ReadAnswer::Absent);
        assert_eq!(run(&mut read, 1).1, miss(None));
    }

    #[test]
    fn a_quorum_asks_enough_at_once_and_takes_the_newest() {
        let mut read = read(Consistency::Quorum, 3, None);
        assert_eq!(run(&mut read, 0).0, [(0, false), (1, false)]);
        read.handle_answer(at(1), 0, value(7));
        assert_eq!(run(&mut read, 1), (vec![], ReadStep::Wait(at(HEDGE_DELAY))));
        read.handle_answer(at(2), 1, value(6));
        assert_eq!(run(&mut read, 2).1, hit(7, Some(0)));
    }

    #[test]
    fn a_quorum_of_which_a_tombstone_is_the_newest_is_a_miss() {
        let mut read = read(Consistency::Quorum, 2, Some(value(6)));
        assert_eq!(run(&mut read, 0).0, [(0, false)]);
        read.handle_answer(at(1), 0, gone(7));
        assert_eq!(run(&mut read, 1).1, miss(Some(7)));
    }

    #[test]
    fn a_leg_over_its_time_is_replaced_and_its_late_answer_still_welcome() {
        let mut read = read(Consistency::Quorum, 3, None);
        run(&mut read, 0);
        assert_eq!(run(&mut read, PER_TRY), (vec![(2, false)], ReadStep::Wait(at(2 * PER_TRY))));
        read.handle_answer(at(201), 2, value(5));
        assert_eq!(run(&mut read, 201), (vec![], ReadStep::Wait(at(TIMEOUT))));
        assert_eq!(in_flight(&read, 201), [0, 1]);
        read.handle_answer(at(900), 1, ReadAnswer::Absent);
        assert_eq!(run(&mut read, 900).1, hit(5, Some(2)));
    }

    #[test]
    fn a_read_that_nobody_can_serve_says_why() {
        let unavailable = |answers| ReadStep::Done(ReadOutcome::Unavailable { answers, needed: 2 });
        assert_eq!(run(&mut read(Consistency::One, 0, None), 0).1, unavailable(0));
        assert_eq!(run(&mut read(Consistency::Quorum, 0, Some(value(5))), 0).1, unavailable(1));

        let mut unknown = read(Consistency::One, 1, Some(ReadAnswer::Unknown));
        run(&mut unknown, 0);
        unknown.handle_answer(at(1), 0, ReadAnswer::Unknown);
        assert_eq!(run(&mut unknown, 1).1, unavailable(0));

        let mut other_ring = read(Consistency::One, 2, None);
        run(&mut other_ring, 0);
        other_ring.handle_answer(at(1), 0, ReadAnswer::WrongRing(Vec::new()));
        run(&mut other_ring, 1);
        other_ring.handle_failure(at(2), 1, LegFailure::NotSent);
        assert_eq!(run(&mut other_ring, 2).1, ReadStep::Done(ReadOutcome::WrongRing));
    }

    #[test]
    fn a_silent_mesh_times_out() {
        let mut read = read(Consistency::One, 1, None);
        run(&mut read, 0);
        assert_eq!(run(&mut read, PER_TRY).1, ReadStep::Wait(at(TIMEOUT)));
        assert_eq!(run(&mut read, TIMEOUT).1, ReadStep::Done(ReadOutcome::TimedOut));
        read.handle_answer(at(TIMEOUT), 0, value(5));
        assert_eq!(run(&mut read, TIMEOUT).1, ReadStep::Done(ReadOutcome::TimedOut), "once done, always the same");
        assert!(in_flight(&read, 1).is_empty());
    }

    #[test]
    fn a_leg_answers_once() {
        let mut read = read(Consistency::One, 3, None);
        run(&mut read, 0);
        read.handle_answer(at(1), 2, ReadAnswer::Absent);
        read.handle_answer(at(1), 9, ReadAnswer::Absent);
        read.handle_answer(at(1), 0, ReadAnswer::Absent);
        read.handle_answer(at(1), 0, ReadAnswer::Absent);
        assert!(matches!(run(&mut read, 1).1, ReadStep::Wait(_)));
    }
}
