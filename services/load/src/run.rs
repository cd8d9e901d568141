//! One run's shared state: the plan, what has been acknowledged, the phase, and when to stop.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::SmallRng};

use crate::check::{Floor, Judgement, Ledger, Reading, judge_hit};
use crate::{Counter, FaultLog, Live, Phase, PhaseCell, Plan, Writer};

/// A run, shared by all its threads.
#[derive(Debug)]
pub struct Run {
    /// What was decided beforehand.
    pub plan: Plan,
    /// What has been acknowledged.
    pub ledger: Ledger,
    /// The part of the run that operations are counted under.
    pub phase: PhaseCell,
    /// Counters, one set per thread.
    pub live: Vec<Live>,
    /// What has happened to nodes.
    pub faults: FaultLog,
    /// Tells this run's values from another's.
    id: u32,
    created: Instant,
    load_began: OnceLock<Instant>,
    stopping: AtomicBool,
    abandoned: AtomicBool,
}

impl Run {
    /// A run that has not begun.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        let phase = if plan.warmup.is_zero() { Phase::Steady } else { Phase::Warm };
        Self {
            ledger: Ledger::new(plan.keys.count()),
            phase: PhaseCell::new(phase),
            live: (0..plan.threads).map(|_| Live::default()).collect(),
            faults: FaultLog::default(),
            // Not from the seed: a run repeated with the same seed must not take the old values for its own.
            id: rand::rng().random_range(0..1 << 24),
            created: Instant::now(),
            load_began: OnceLock::new(),
            stopping: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            plan,
        }
    }

    /// Tells this run from others, in dashboards.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{:06x}", self.id)
    }

    /// Starts the load's clock.
    pub(crate) fn begin_load(&self) {
        self.load_began.get_or_init(Instant::now);
    }

    /// Time since the load began; zero before.
    #[must_use]
    pub fn load_elapsed(&self) -> Duration {
        self.load_began.get().map_or(Duration::ZERO, Instant::elapsed)
    }

    /// How long after the load began `at` was.
    pub(crate) fn load_time(&self, at: Instant) -> Duration {
        self.load_began.get().map_or(Duration::ZERO, |began| at.saturating_duration_since(*began))
    }

    /// Time since the run was made, which the ledger counts in.
    pub(crate) fn ledger_time(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.created)
    }

    /// Whether no more operations may begin.
    #[must_use]
    pub fn load_ended(&self, now: Instant) -> bool {
        self.stopping() || self.load_began.get().is_some_and(|began| now >= *began + self.plan.duration)
    }

    /// Ends the prefill or the load as soon as what is in flight has ended.
    pub fn stop(&self) {
        // Relaxed: nothing is published with it, and a moment's delay does no harm.
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether [`Run::stop`] was called.
    #[must_use]
    pub fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Ends the sweep too.
    pub(crate) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }

    /// Whether [`Run::abandon`] was called.
    pub(crate) fn abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }

    /// What thread `index` calls itself in the values it writes.
    pub(crate) fn writer(&self, index: usize) -> Writer {
        Writer { run: self.id, thread: u8::try_from(index).unwrap_or(u8::MAX) }
    }

    /// Dice for one task.
    pub(crate) fn dice(&self, thread: usize, task: usize) -> SmallRng {
        SmallRng::seed_from_u64(self.plan.seed ^ ((thread as u64) << 48) ^ ((task as u64 + 1) << 24))
    }

    /// Judges a value that was read.
    #[must_use]
    pub fn judge(&self, reading: &Reading<'_>, floor: &Floor) -> Judgement {
        judge_hit(reading, floor, |writer| {
            let live = self.live.get(usize::from(writer.thread)).filter(|_| writer.run == self.id)?;
            Some(live.get(Counter::Sent))
        })
    }
}
