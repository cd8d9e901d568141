//! One attempt of an operation in flight. Its legs' answers come in on connection readers; its caller waits in a future. Both
//! sides meet in a small lock that holds the pure state machine, so no task or channel stands between them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use arrayvec::ArrayVec;
use mesh_proto::{
    HedgeBudget, LEGS_MAX, LegFailure, LegQueues, LegRecord, Monotonic, Mutant, NodeId, Read, ReadAnswer, ReadStep,
    Record, RingHash, Write, WriteAnswer, WriteOutcome, WriteStep,
};
use parking_lot::Mutex;

use crate::core::Core;

/// The legs of an operation, as its flight record shows them.
pub(crate) type Legs = ArrayVec<LegRecord, LEGS_MAX>;

/// A state machine, and the future that waits for its next step.
struct Awaited<M> {
    machine: M,
    waker: Option<Waker>,
}

impl<M> Awaited<M> {
    const fn new(machine: M) -> Mutex<Self> {
        Mutex::new(Self { machine, waker: None })
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// One attempt of a read in flight.
pub(crate) struct ReadCall {
    state: Mutex<Awaited<Read>>,
}

impl ReadCall {
    pub(crate) fn new(machine: Read) -> Arc<Self> {
        Arc::new(Self { state: Awaited::new(machine) })
    }

    pub(crate) fn handle_answer(&self, now: Monotonic, (leg, queues): (usize, LegQueues), answer: ReadAnswer) {
        let mut state = self.state.lock();
        state.machine.handle_queues(leg, queues);
        state.machine.handle_answer(now, leg, answer);
        state.wake();
    }

    pub(crate) fn handle_failure(&self, now: Monotonic, leg: usize, failure: LegFailure) {
        let mut state = self.state.lock();
        state.machine.handle_failure(now, leg, failure);
        state.wake();
    }

    /// What the caller is to do. If it is to wait, it is woken by the next answer or failure.
    pub(crate) fn step(&self, now: Monotonic, budget: &Mutex<HedgeBudget>, context: &Context<'_>) -> ReadStep {
        let mut state = self.state.lock();
        let step = state.machine.poll(now, &mut budget.lock());
        if matches!(step, ReadStep::Wait(_)) {
            state.waker = Some(context.waker().clone());
        }
        step
    }

    /// Nobody waits any more: the legs as they stand.
    pub(crate) fn end(&self, now: Monotonic) -> Legs {
        let mut state = self.state.lock();
        state.waker = None;
        state.machine.legs(now)
    }

    /// What the machine knows, after the end.
    pub(crate) fn with_machine<T>(&self, look: impl FnOnce(&Read) -> T) -> T {
        look(&self.state.lock().machine)
    }
}

/// One round of a write in flight. It outlives its caller: once WRITE_CONCERN owners have applied it, the other legs go on.
pub(crate) struct WriteCall {
    pub(crate) record: Record,
    /// In which it is made.
    pub(crate) ring: RingHash,
    /// How far ahead the wall clock was that stamped it.
    offset_ms: i64,
    /// Its caller has gone away before it was decided.
    abandoned: AtomicBool,
    state: Mutex<Awaited<Write>>,
}

impl WriteCall {
    pub(crate) fn new(machine: Write, record: Record, ring: RingHash, offset_ms: i64) -> Arc<Self> {
        let abandoned = AtomicBool::new(false);
        Arc::new(Self { record, ring, offset_ms, abandoned, state: Awaited::new(machine) })
    }

    pub(crate) fn handle_answer(
        &self,
        core: &Core,
        now: Monotonic,
        (leg, queues): (usize, LegQueues),
        answer: &WriteAnswer,
    ) {
        let (missed, own, owner) = {
            let mut state = self.state.lock();
            state.machine.handle_queues(leg, queues);
            state.machine.handle_answer(now, leg, answer);
            state.wake_if_decided();
            let machine = &mut state.machine;
            (machine.take_missed(), machine.take_own_leg(), machine.owner(leg))
        };
        self.report(core, &missed);
        // An owner that compares the write with what it holds has found nothing wrong with its clock.
        if answer.is_compared() && owner != Some(core.id) {
            core.replica.handle_clock_confirmed(self.offset_ms);
        }
        if let Some(own) = own {
            self.apply_here(core, own);
        }
    }

    pub(crate) fn handle_failure(&self, core: &Core, now: Monotonic, leg: usize, failure: LegFailure) {
        let missed = {
            let mut state = self.state.lock();
            state.machine.handle_failure(now, leg, failure);
            state.wake_if_decided();
            state.machine.take_missed()
        };
        self.report(core, &missed);
    }

    /// Applies the write to this node's own replica.
    pub(crate) fn apply_here(&self, core: &Core, leg: usize) {
        let answer = match Mutant::WriteSkipsSelf.is_planted() {
            true => WriteAnswer::Applied,
            false => core.write_replica_in(self.ring, None, &self.record),
        };
        self.handle_answer(core, core.clock.now(), (leg, LegQueues::default()), &answer);
    }

    fn report(&self, core: &Core, missed: &[NodeId]) {
        // What this node itself has not taken it had under another ring; nobody hands it on to itself.
        for owner in missed.iter().filter(|owner| **owner != core.id) {
            core.missed_write(*owner, &self.record);
        }
    }

    /// Waits for the result; gives nothing, if `or_contested`, once the round is contested.
    pub(crate) async fn settled(&self, or_contested: bool) -> Option<WriteOutcome> {
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

    /// The caller will not wait any longer for owners that may be silent.
    pub(crate) fn handle_impatience(&self) {
        self.state.lock().machine.handle_impatience();
    }

    /// The legs as they stand when the caller is answered.
    pub(crate) fn end(&self, now: Monotonic) -> Legs {
        self.state.lock().machine.legs(now)
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

impl Awaited<Write> {
    fn wake_if_decided(&mut self) {
        if self.waker.is_some() && (matches!(self.machine.poll(), WriteStep::Done(_)) || self.machine.is_contested()) {
            self.wake();
        }
    }
}
