//! One operation in flight. Its legs' answers come in on connection readers; its caller waits in a future. Both sides meet in
//! a small lock that holds the pure state machine, so no task or channel stands between them.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use arrayvec::ArrayVec;
use mesh_proto::{
    HedgeBudget, LEGS_MAX, LegFailure, LegOutcome, LegRecord, Monotonic, Mutant, NodeId, Read, ReadAnswer, ReadOutcome,
    ReadStep, Record, ReplicationFactor, RingHash, Version, Write, WriteAnswer, WriteOutcome, WriteStep,
};
use parking_lot::Mutex;
use tokio::time::Sleep;

use crate::core::Core;

/// The legs of one operation, as its flight record will show them.
pub(crate) type Legs = ArrayVec<LegRecord, LEGS_MAX>;

/// The legs of a further attempt take the places of those before. A place that has been asked keeps its leg in any case,
/// because a peer may have tied what it did to it.
pub(crate) fn renew(legs: &mut Legs, attempt: Legs) {
    if legs.is_empty() {
        *legs = attempt;
        return;
    }
    for (place, leg) in attempt.into_iter().enumerate() {
        match legs.get_mut(place) {
            Some(earlier) => *earlier = LegRecord { started: earlier.started, ..leg },
            // There are no more owners than places.
            None => drop(legs.try_push(leg)),
        }
    }
}

/// A read in flight.
pub(crate) struct ReadCall {
    started: Monotonic,
    state: Mutex<ReadState>,
}

struct ReadState {
    machine: Read,
    waker: Option<Waker>,
    legs: Legs,
    /// For each leg sent, in the order of `legs`: the machine's number for it.
    numbers: ArrayVec<usize, 8>,
}

impl ReadCall {
    pub(crate) fn new(machine: Read, started: Monotonic) -> Arc<Self> {
        let state = ReadState { machine, waker: None, legs: Legs::new(), numbers: ArrayVec::new() };
        Arc::new(Self { started, state: Mutex::new(state) })
    }

    pub(crate) fn handle_answer(&self, now: Monotonic, leg: usize, answer: ReadAnswer) {
        let mut state = self.state.lock();
        state.end_leg(leg, LegOutcome::Lost, now.since(self.started));
        state.machine.handle_answer(now, leg, answer);
        state.wake();
    }

    pub(crate) fn handle_failure(&self, now: Monotonic, leg: usize, failure: LegFailure) {
        let mut state = self.state.lock();
        let outcome = if failure == LegFailure::TimedOut { LegOutcome::TimedOut } else { LegOutcome::Failed };
        state.end_leg(leg, outcome, now.since(self.started));
        state.machine.handle_failure(now, leg, failure);
        state.wake();
    }

    /// Drives the read to its end. `send` puts one leg on its way.
    pub(crate) async fn run(
        self: &Arc<Self>,
        core: &Core,
        budget: &Mutex<HedgeBudget>,
        mut send: impl FnMut(&Arc<Self>, usize, NodeId, Monotonic) -> Result<(), LegFailure>,
    ) -> ReadOutcome {
        let mut sleep = pin!(None::<Sleep>);
        std::future::poll_fn(|context| {
            loop {
                let now = core.clock.now();
                match self.step(now, budget, context) {
                    ReadStep::Send { leg, peer, hedged } => {
                        if hedged {
                            crate::core::count(&core.counters.hedges);
                        }
                        self.start_leg(leg, peer, hedged, now);
                        if let Err(failure) = send(self, leg, peer, now) {
                            self.handle_failure(now, leg, failure);
                        }
                    }
                    ReadStep::Wait(until) => {
                        let deadline = core.clock.instant(until);
                        if sleep.as_ref().as_pin_ref().is_none_or(|sleep| sleep.deadline() != deadline) {
                            sleep.set(Some(tokio::time::sleep_until(deadline)));
                        }
                        match sleep.as_mut().as_pin_mut().map(|sleep| sleep.poll_deadline(context)) {
                            Some(Poll::Pending) => return Poll::Pending,
                            _ => sleep.set(None),
                        }
                    }
                    ReadStep::Done(outcome) => return Poll::Ready(outcome),
                }
            }
        })
        .await
    }

    /// What the machine knows, after the end.
    pub(crate) fn with_machine<T>(&self, look: impl FnOnce(&Read) -> T) -> T {
        look(&self.state.lock().machine)
    }

    fn step(&self, now: Monotonic, budget: &Mutex<HedgeBudget>, context: &Context<'_>) -> ReadStep {
        let mut state = self.state.lock();
        let step = state.machine.poll(now, &mut budget.lock());
        if matches!(step, ReadStep::Wait(_)) {
            state.waker = Some(context.waker().clone());
        }
        step
    }

    fn start_leg(&self, leg: usize, peer: NodeId, hedged: bool, now: Monotonic) {
        let mut state = self.state.lock();
        let started = now.since(self.started);
        let record = LegRecord { peer, hedged, outcome: LegOutcome::Pending, started, ended: started };
        if state.legs.try_push(record).is_ok() {
            state.numbers.push(leg);
        }
    }

    /// The legs as they stand at the end: `won` made the result, those without an answer are cancelled.
    pub(crate) fn finish(&self, won: Option<usize>, took: Duration) -> Legs {
        let mut state = self.state.lock();
        state.waker = None;
        let ReadState { legs, numbers, .. } = &mut *state;
        for (record, number) in legs.iter_mut().zip(numbers.iter()) {
            if record.outcome == LegOutcome::Pending {
                record.outcome = LegOutcome::Cancelled;
                record.ended = took;
            } else if Some(*number) == won {
                record.outcome = LegOutcome::Won;
            }
        }
        legs.clone()
    }
}

impl ReadState {
    fn end_leg(&mut self, leg: usize, outcome: LegOutcome, at: Duration) {
        if let Some(index) = self.numbers.iter().position(|number| *number == leg) {
            self.legs[index].outcome = outcome;
            self.legs[index].ended = at;
        }
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// `Sleep` polled by name, so that the loop above reads as what it does.
trait PollDeadline {
    fn poll_deadline(self, context: &mut Context<'_>) -> Poll<()>;
}

impl PollDeadline for std::pin::Pin<&mut Sleep> {
    fn poll_deadline(self, context: &mut Context<'_>) -> Poll<()> {
        Future::poll(self, context)
    }
}

/// One round of a write in flight. It outlives its caller: once WRITE_CONCERN owners have applied it, the other legs go on.
pub(crate) struct WriteCall {
    started: Monotonic,
    /// One leg per owner.
    owners: ArrayVec<NodeId, 8>,
    pub(crate) record: Record,
    /// In which it is made.
    ring: RingHash,
    /// By which clock it was stamped.
    offset_ms: i64,
    /// Its caller has gone away before it was decided.
    abandoned: AtomicBool,
    state: Mutex<WriteState>,
}

struct WriteState {
    machine: Write,
    waker: Option<Waker>,
    legs: Legs,
    /// This node's own leg, as long as it waits for another owner to accept the write's version first.
    own: Option<usize>,
    /// One bit per leg whose owner may lack the write and has not been reported yet.
    missed: u8,
}

const _: () = assert!(ReplicationFactor::MAX <= u8::BITS as usize, "a bit for each leg");

impl WriteCall {
    /// `own` is this node's own leg if it is to wait until another owner has accepted the write's version: a clock that is ahead then leaves
    /// nothing behind that all others refuse. `offset_ms` says how far ahead it is.
    pub(crate) fn new(
        machine: Write,
        (ring, owners): (RingHash, &[NodeId]),
        (own, offset_ms): (Option<usize>, i64),
        record: Record,
        started: Monotonic,
        now: Monotonic,
    ) -> Arc<Self> {
        let at = now.since(started);
        let leg = |peer: &NodeId| LegRecord {
            peer: *peer,
            hedged: false,
            outcome: LegOutcome::Pending,
            started: at,
            ended: at,
        };
        let state = WriteState { machine, waker: None, legs: owners.iter().map(leg).collect(), own, missed: 0 };
        Arc::new(Self {
            started,
            owners: owners.iter().copied().collect(),
            record,
            ring,
            offset_ms,
            abandoned: AtomicBool::new(false),
            state: Mutex::new(state),
        })
    }

    pub(crate) fn handle_answer(&self, core: &Core, now: Monotonic, leg: usize, answer: &WriteAnswer) {
        // An owner that compares the write with what it holds has found nothing wrong with its clock.
        let is_compared = matches!(
            answer,
            WriteAnswer::Applied
                | WriteAnswer::AppliedUnconfirmed
                | WriteAnswer::Stale { .. }
                | WriteAnswer::Collected { .. }
        );
        let (missed, own) = {
            let mut state = self.state.lock();
            let is_ack = state.machine.handle_answer(leg, answer);
            let outcome = if is_ack { LegOutcome::Won } else { LegOutcome::Failed };
            state.end_leg(leg, outcome, now.since(self.started));
            let own = if is_compared { state.own.take() } else { None };
            state.give_up_own(now.since(self.started));
            // If the others suffice nobody tries again, and this owner goes without the write.
            if matches!(answer, WriteAnswer::WrongRing(_)) {
                state.missed |= 1 << leg;
            }
            state.wake_if_done();
            (state.take_missed(), own)
        };
        self.report(core, missed);
        if is_compared && self.owners.get(leg) != Some(&core.id) {
            core.handle_vouched(self.offset_ms);
        }
        if let Some(own) = own {
            self.apply_here(core, own);
        }
    }

    /// Applies the write to this node's own replica.
    pub(crate) fn apply_here(&self, core: &Core, leg: usize) {
        let answer = match Mutant::WriteSkipsSelf.is_planted() {
            true => WriteAnswer::Applied,
            false => core.write_replica_in(self.ring, None, &self.record),
        };
        self.handle_answer(core, core.clock.now(), leg, &answer);
    }

    pub(crate) fn handle_failure(&self, core: &Core, now: Monotonic, leg: usize, failure: LegFailure) {
        let missed = {
            let mut state = self.state.lock();
            let outcome = if failure == LegFailure::TimedOut { LegOutcome::TimedOut } else { LegOutcome::Failed };
            state.end_leg(leg, outcome, now.since(self.started));
            if Mutant::HintIsAck.is_planted() {
                state.machine.handle_answer(leg, &WriteAnswer::Applied);
            }
            state.machine.handle_failure(leg, failure);
            state.give_up_own(now.since(self.started));
            state.missed |= 1 << leg;
            state.wake_if_done();
            state.take_missed()
        };
        self.report(core, missed);
    }

    fn report(&self, core: &Core, missed: u8) {
        if missed == 0 {
            return;
        }
        for (leg, owner) in self.owners.iter().enumerate() {
            // What this node itself has not taken it had under another ring; nobody hands it on to itself.
            if missed & (1 << leg) != 0 && *owner != core.id {
                core.missed_write(*owner, &self.record);
            }
        }
    }

    /// Waits for the result. Legs have deadlines of their own, so this needs no timer, unless round 2 could begin and an owner is
    /// silent: then `patience` is all that the silent one gets.
    pub(crate) async fn outcome(&self, patience: Duration) -> WriteOutcome {
        if let Some(outcome) = self.settled(true).await {
            return outcome;
        }
        if let Ok(Some(outcome)) = tokio::time::timeout(patience, self.settled(false)).await {
            return outcome;
        }
        self.state.lock().machine.handle_impatience();
        loop {
            if let Some(outcome) = self.settled(false).await {
                return outcome;
            }
        }
    }

    /// The result; or nothing, if `or_contested`, once the write is contested.
    async fn settled(&self, or_contested: bool) -> Option<WriteOutcome> {
        std::future::poll_fn(|context| {
            let mut state = self.state.lock();
            match state.machine.poll() {
                WriteStep::Done(outcome) => Poll::Ready(Some(outcome)),
                WriteStep::Wait if or_contested && state.machine.is_contested() => Poll::Ready(None),
                WriteStep::Wait => {
                    state.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// The legs as they stand at the end; those without an answer are pending.
    pub(crate) fn finish(&self, took: Duration) -> Legs {
        let mut legs = self.state.lock().legs.clone();
        for leg in legs.iter_mut().filter(|leg| leg.outcome == LegOutcome::Pending) {
            leg.ended = took;
        }
        legs
    }

    pub(crate) fn version(&self) -> Version {
        self.record.version
    }

    /// Its caller has gone away before it was decided: legs that still wait to be sent need not be.
    pub(crate) fn abandon(&self) {
        // Relaxed here and below: a hint, which may come too late.
        self.abandoned.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }

    /// What the machine knows, after the end.
    pub(crate) fn with_machine<T>(&self, look: impl FnOnce(&Write) -> T) -> T {
        look(&self.state.lock().machine)
    }
}

impl WriteState {
    /// The legs to report as missed: none as long as it may turn out that nothing was written, or that the write is tried
    /// again, because a hint would then bring about what the caller was told did not happen.
    fn take_missed(&mut self) -> u8 {
        if self.missed == 0 {
            return 0;
        }
        match self.machine.poll() {
            WriteStep::Done(WriteOutcome::Acknowledged | WriteOutcome::Indeterminate { .. }) => {
                std::mem::take(&mut self.missed)
            }
            _ => 0,
        }
    }

    /// If no other owner has taken the write, nor is to be heard from any more, this node does not take it either.
    fn give_up_own(&mut self, at: Duration) {
        if self.machine.in_flight() == 1
            && let Some(own) = self.own.take()
        {
            self.end_leg(own, LegOutcome::Failed, at);
            self.machine.handle_failure(own, LegFailure::NotSent);
        }
    }

    fn end_leg(&mut self, leg: usize, outcome: LegOutcome, at: Duration) {
        if let Some(record) = self.legs.get_mut(leg) {
            record.outcome = outcome;
            record.ended = at;
        }
    }

    fn wake_if_done(&mut self) {
        if self.waker.is_some()
            && (matches!(self.machine.poll(), WriteStep::Done(_)) || self.machine.is_contested())
            && let Some(waker) = self.waker.take()
        {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn legs(attempt: u64, count: u64) -> Legs {
        let at = Duration::from_millis(attempt);
        let leg = |peer| LegRecord {
            peer: NodeId::new(10 * attempt + peer),
            hedged: false,
            outcome: LegOutcome::Failed,
            started: at,
            ended: at,
        };
        (0..count).map(leg).collect()
    }

    #[test]
    fn every_place_that_was_asked_keeps_a_leg() {
        let mut all = Legs::new();
        for (attempt, count) in [(1, 2), (2, 1), (3, 3)] {
            renew(&mut all, legs(attempt, count));
        }
        let peers: Vec<u64> = all.iter().map(|leg| leg.peer.get()).collect();
        assert_eq!(peers, [30, 31, 32], "the last attempt stands");
        let started: Vec<u128> = all.iter().map(|leg| leg.started.as_millis()).collect();
        assert_eq!(started, [1, 1, 3], "and reaches back to the first");
        renew(&mut all, legs(4, 1));
        assert_eq!(all.len(), 3, "a place that was asked before stays");
    }
}
