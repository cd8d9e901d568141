//! The checker, the recorder and the pacer by themselves, one operation at a time: what `perf/budgets` counts the instructions of.
//! Not part of a runner: behind the feature `alone`.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use crate::{
    Answer, NodeIndex, Op, Outcome, OutcomeClass, Phase, WriteVersion,
    exec::{KeyIndex, Pacer, prove, write_value},
    history::{Action, Ending, History, HistorySettings, Operation, Order, Session},
    stats::{Live, Recorder, Series},
    target::ReadConsistency,
};

/// How long a value is, in bytes.
const VALUE_BYTES: usize = 64;

/// How long an operation takes.
const TOOK: Duration = Duration::from_micros(80);

/// A history and one session, whose operations follow each other.
pub struct Checker {
    history: History,
    session: Session,
    /// The value of each key and its version, as the last write left them.
    values: Vec<(Vec<u8>, WriteVersion)>,
    written: u64,
    now: Duration,
}

impl Checker {
    /// One that knows `keys` keys, each written once.
    #[must_use]
    pub fn new(keys: u32) -> Self {
        let settings = HistorySettings {
            keys,
            writers: 1,
            run: 7,
            expiry_allowance: Duration::from_secs(1),
            order: Order::Versions,
        };
        let mut checker = Self {
            history: History::new(settings),
            session: Session::new(keys),
            values: vec![(Vec::new(), WriteVersion::ZERO); keys as usize],
            written: 0,
            now: Duration::ZERO,
        };
        (0..keys).for_each(|key| assert!(checker.set(key)));
        checker
    }

    /// Announces a write, writes the value that proves itself, and judges the acknowledgement. Whether nothing is wrong.
    pub fn set(&mut self, key: u32) -> bool {
        let operation = self.begin(Action::Set { writer: 0, ttl: None }, key);
        let ticket = self.history.begin(operation, &self.session);
        let (value, version) = &mut self.values[key as usize];
        if let Some(stamp) = ticket.stamp {
            write_value(value, &operation.key.name(), stamp, VALUE_BYTES);
        }
        self.written += 1;
        *version = WriteVersion::new(u128::from(self.written) << 64);
        let ending = Ending::Written { version: Some(*version), doubtful: false };
        !self.history.finish(&ticket, &mut self.session, ending, self.now).is_broken()
    }

    /// Announces a read, proves the value, and judges it. Whether nothing is wrong.
    pub fn get(&mut self, key: u32) -> bool {
        let operation = self.begin(Action::Get(ReadConsistency::One), key);
        let ticket = self.history.begin(operation, &self.session);
        let (value, version) = &self.values[key as usize];
        let ending = Ending::Value { proof: prove(value, &operation.key.name()), version: Some(*version) };
        !self.history.finish(&ticket, &mut self.session, ending, self.now).is_broken()
    }

    fn begin(&mut self, action: Action, key: u32) -> Operation {
        let began = self.now;
        self.now += TOOK;
        Operation { action, key: KeyIndex::new(key), intended: began, began }
    }
}

/// One thread's measurements.
pub struct Measurements {
    recorder: Recorder,
    live: Live,
    answer: Answer,
}

impl Default for Measurements {
    fn default() -> Self {
        let answer = Answer {
            outcome: Outcome::HitLocal,
            node: NodeIndex(0),
            is_reply: true,
            before: None,
            is_retried: false,
            doubtful: false,
            version: None,
            served_by: None,
            detail: None,
        };
        Self { recorder: Recorder::new(3), live: Live::default(), answer }
    }
}

impl Measurements {
    /// Records a read under a rate, that began when it should have, and took so long.
    pub fn record(&mut self, took: Duration) {
        let (op, outcome, node) = (Op::Get, OutcomeClass::of(self.answer.outcome), self.answer.node);
        self.recorder.response.record(Series { phase: Phase::Steady, op, outcome, node }, took);
        self.recorder.service[op as usize].record(took);
        self.live.latency(op, outcome, took);
        self.recorder.tries.add(op, &self.answer, took);
    }
}

/// An open loop's schedule.
pub struct Schedule {
    pacer: Pacer,
    now: Cell<Instant>,
}

/// Operations per second. So few that thousands of them take whole seconds: what it costs to subtract two times depends on where within a
/// second they lie.
const RATE: u32 = 1_000;

impl Default for Schedule {
    fn default() -> Self {
        let (pacer, now) = (Pacer::new(f64::from(RATE)), Instant::now());
        pacer.begin(now);
        Self { pacer, now: Cell::new(now) }
    }
}

impl Schedule {
    /// Makes an operation due and hands it to the task that asks for the next.
    pub async fn step(&self) -> bool {
        self.now.set(self.now.get() + Duration::from_secs(1) / RATE);
        self.pacer.offer(self.now.get());
        self.pacer.next().await.is_some()
    }
}
