//! One run's shared state: the plan, what has been acknowledged, the phase, and when to stop.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use rand::Rng;

use crate::{
    Live, Phase,
    faults::FaultLog,
    history::{History, HistorySettings},
    plan::Plan,
    plan::phase::PhaseCell,
};

/// By how much nodes' clocks, and when they sweep, may be off before a value that is still there, or already gone, is held
/// against them. The mesh tolerates 500 ms between two clocks.
pub(crate) const EXPIRY_ALLOWANCE: Duration = Duration::from_secs(1);

/// How long after a fault nodes may still differ: guarantee G6.
const CONVERGES_WITHIN: Duration = Duration::from_secs(10);

/// A run, shared by all its threads.
#[derive(Debug)]
pub struct Run {
    /// What was decided beforehand.
    pub plan: Plan,
    /// What has been acknowledged, and what is under way.
    pub history: History,
    /// The part of the run that operations are counted under.
    pub phase: PhaseCell,
    /// Counters, one set per thread.
    pub live: Vec<Live>,
    /// What has happened to nodes.
    pub faults: FaultLog,
    /// Tells this run's values from another's.
    id: u32,
    began: SystemTime,
    created: Instant,
    load_began: OnceLock<Instant>,
    /// Operations per second, as the bits of a float; a search changes it from step to step.
    rate: AtomicU64,
    /// When the step began, in nanoseconds after the load did.
    step_began_ns: AtomicU64,
    p99_ns: AtomicU64,
    faults_in_force: AtomicU32,
    /// When a fault was last recovered from, in milliseconds after the load began; 0 before.
    last_fault_ended_ms: AtomicU64,
    /// How long the final sweep may take, if the nodes have evicted anything.
    sweep_max: OnceLock<Duration>,
    sweep_began: OnceLock<Instant>,
    /// Why the last write of the prefill failed.
    refusal: Mutex<Option<String>>,
    stopping: AtomicBool,
    complete: AtomicBool,
    abandoned: AtomicBool,
}

impl Run {
    /// A run that has not begun.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        // Not from the seed: a run repeated with the same seed must not take the old values for its own.
        let id = rand::rng().random_range(0..1 << 24);
        let phase = if plan.warmup.is_zero() { Phase::Steady } else { Phase::Warm };
        Self {
            history: History::new(HistorySettings {
                keys: if plan.check { plan.keys.numbers() } else { 0 },
                writers: u8::try_from(plan.threads).unwrap_or(u8::MAX),
                run: id,
                expiry_allowance: EXPIRY_ALLOWANCE,
                order: plan.guarantee.order(),
            }),
            phase: PhaseCell::new(phase),
            live: (0..plan.threads).map(|_| Live::default()).collect(),
            faults: FaultLog::default(),
            id,
            began: SystemTime::now(),
            created: Instant::now(),
            load_began: OnceLock::new(),
            rate: AtomicU64::new(plan.rate.unwrap_or_default().to_bits()),
            step_began_ns: AtomicU64::new(0),
            p99_ns: AtomicU64::new(0),
            faults_in_force: AtomicU32::new(0),
            last_fault_ended_ms: AtomicU64::new(0),
            sweep_max: OnceLock::new(),
            sweep_began: OnceLock::new(),
            refusal: Mutex::default(),
            stopping: AtomicBool::new(false),
            complete: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            plan,
        }
    }

    /// Tells this run from others, in dashboards and as the name of its folder: `YYYYMMDD-HHMMSS-xxxx` in UTC, where the end is that of
    /// the number which its values carry; or as RUN_ID says, and which shard it is.
    #[must_use]
    pub fn id(&self) -> String {
        if !self.plan.run_id.is_empty() {
            return self.plan.shard.run_id(&self.plan.run_id);
        }
        let began = humantime::format_rfc3339_seconds(self.began).to_string();
        let began: String = began.chars().filter(char::is_ascii_digit).collect();
        let (day, time) = began.split_at(8);
        format!("{day}-{time}-{:04x}", self.id & 0xffff)
    }

    /// When it was made, in milliseconds of the Unix clock.
    pub(crate) fn began_unix_ms(&self) -> u64 {
        let began = self.began.duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(began.as_millis()).unwrap_or(u64::MAX)
    }

    /// Starts the load's clock.
    pub(crate) fn begin_load(&self) {
        self.load_began.get_or_init(Instant::now);
    }

    /// A step of this many operations per second begins; it lasts as long as DURATION.
    pub(crate) fn begin_step(&self, rate: f64) {
        // Relaxed: threads begin a step once they are told so, which publishes both.
        self.rate.store(rate.to_bits(), Ordering::Relaxed);
        let began_ns = u64::try_from(self.load_elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.step_began_ns.store(began_ns, Ordering::Relaxed);
    }

    /// Operations per second of the open loop now; nothing in a closed one.
    pub(crate) fn rate(&self) -> Option<f64> {
        self.plan.rate.map(|_| f64::from_bits(self.rate.load(Ordering::Relaxed)))
    }

    /// Time since the step began, or the load if it has no steps.
    pub(crate) fn step_elapsed(&self) -> Duration {
        self.load_elapsed().saturating_sub(self.step_began())
    }

    fn step_began(&self) -> Duration {
        Duration::from_nanos(self.step_began_ns.load(Ordering::Relaxed))
    }

    /// Time since the load began; zero before.
    #[must_use]
    pub fn load_elapsed(&self) -> Duration {
        self.load_began.get().map_or(Duration::ZERO, Instant::elapsed)
    }

    /// The same in seconds, as results give it.
    pub(crate) fn load_s(&self) -> f64 {
        self.load_elapsed().as_secs_f64()
    }

    /// How long after the load began `at` was.
    pub(crate) fn load_time(&self, at: Instant) -> Duration {
        self.load_began.get().map_or(Duration::ZERO, |began| at.saturating_duration_since(*began))
    }

    /// Time since the run was made, which the history counts in.
    pub(crate) fn history_time(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.created)
    }

    /// What 99 % of all operations have lately not exceeded; zero if that is not known yet.
    #[must_use]
    pub fn p99(&self) -> Duration {
        // Relaxed here and below: a figure of its own.
        Duration::from_nanos(self.p99_ns.load(Ordering::Relaxed))
    }

    pub(crate) fn note_p99(&self, p99: Duration) {
        self.p99_ns.store(u64::try_from(p99.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// A fault starts.
    pub(crate) fn fault_started(&self) {
        self.faults_in_force.fetch_add(1, Ordering::Relaxed);
        self.phase.set(Phase::InFault);
    }

    /// The mesh has recovered from one.
    pub(crate) fn fault_ended(&self) {
        let now_ms = u64::try_from(self.load_elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_fault_ended_ms.store(now_ms, Ordering::Relaxed);
        if self.faults_in_force.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.phase.set(Phase::Recovered);
        }
    }

    /// Whether replicas may differ because of a fault: one is in force, or they have not had the time to catch up.
    pub(crate) fn may_differ(&self) -> bool {
        let last_ended = Duration::from_millis(self.last_fault_ended_ms.load(Ordering::Relaxed));
        let catching_up = !last_ended.is_zero() && self.load_elapsed() < last_ended + CONVERGES_WITHIN;
        catching_up || self.faults_in_force.load(Ordering::Relaxed) > 0
    }

    /// Whether no more operations may begin.
    #[must_use]
    pub fn load_ended(&self, now: Instant) -> bool {
        let ends = self.step_began() + self.plan.duration;
        self.stopping() || self.load_began.get().is_some_and(|began| now.saturating_duration_since(*began) >= ends)
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

    /// Ends the load because all that it was for has happened.
    pub(crate) fn end_load(&self) {
        self.complete.store(true, Ordering::Relaxed);
        self.stop();
    }

    /// Whether it was ended from outside.
    pub(crate) fn interrupted(&self) -> bool {
        self.stopping() && !self.complete.load(Ordering::Relaxed)
    }

    /// The nodes evict: the final sweep may take no longer than this.
    pub(crate) fn limit_sweep(&self, time: Duration) {
        self.sweep_max.get_or_init(|| time);
    }

    /// Whether nodes have evicted anything, as far as was known when the load ended.
    pub(crate) fn evicts(&self) -> bool {
        self.sweep_max.get().is_some()
    }

    /// Whether the final sweep, which the first call begins, has taken as long as it may.
    pub(crate) fn sweep_ended(&self) -> bool {
        let began = self.sweep_began.get_or_init(Instant::now);
        self.sweep_max.get().is_some_and(|max| began.elapsed() >= *max)
    }

    pub(crate) fn note_refusal(&self, reason: String) {
        *self.refusal.lock() = Some(reason);
    }

    /// Why the last write of the prefill that failed did.
    pub(crate) fn last_refusal(&self) -> Option<String> {
        self.refusal.lock().clone()
    }

    /// Nothing is waited for any more.
    pub(crate) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }

    /// Whether [`Run::abandon`] was called.
    pub(crate) fn abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }
}
