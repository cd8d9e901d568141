//! One operation after another: the loop that every task of a load thread runs. Nothing here allocates, locks for longer
//! than a key's entry, or leaves the thread.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{Rng, rngs::SmallRng};

use crate::check::{Judgement, Reading};
use crate::{
    Answer, Counter, KeyIndex, Live, Op, Outcome, OutcomeClass, Recorder, Run, Schedule, Series, Stamp, Target,
    Version, Writer, check::judge_miss, live::Snapshot, say, write_value,
};

/// A closed loop waits this long after a failure, so that a dead mesh is not hammered.
const ERROR_PAUSE: Duration = Duration::from_millis(5);

/// Operations of one task on nodes within this process before all others on its thread have their turn. With 61 tasks
/// polled between two looks at the sockets and a microsecond for a local read, peers wait a millisecond at most.
const OPERATIONS_IN_A_ROW: u32 = 16;

/// What the tasks of one thread share.
pub(crate) struct Thread {
    pub(crate) index: usize,
    pub(crate) run: Arc<Run>,
    pub(crate) schedule: Schedule,
    pub(crate) recorder: RefCell<Recorder>,
    writer: Writer,
}

impl Thread {
    pub(crate) fn new(run: Arc<Run>, index: usize) -> Self {
        Self {
            index,
            schedule: Schedule::new(run.plan.rate, run.plan.threads),
            recorder: RefCell::new(Recorder::new(run.plan.targets.len())),
            writer: run.writer(index),
            run,
        }
    }

    pub(crate) fn live(&self) -> &Live {
        &self.run.live[self.index]
    }

    /// Announces one more write of this thread, before it is sent.
    pub(crate) fn next_stamp(&self) -> Stamp {
        Stamp { writer: self.writer, seq: self.live().add(Counter::Sent) }
    }

    fn record(&self, op: Op, key: KeyIndex, answer: &Answer, times: Times, judgement: Judgement) {
        let (run, live) = (&self.run, self.live());
        let response = times.ended.saturating_duration_since(times.intended);
        let mut recorder = self.recorder.borrow_mut();
        let outcome = OutcomeClass::of(answer.outcome);
        recorder.response.record(Series { phase: run.phase.get(), op, outcome, node: answer.node }, response);
        if run.plan.rate.is_some() {
            recorder.service[op as usize].record(times.ended.saturating_duration_since(times.sent));
            let lag = times.sent.saturating_duration_since(times.intended);
            recorder.lag_max = recorder.lag_max.max(lag);
            live.lag(lag);
        }
        live.latency(op, outcome, response);
        let ops = live.add(Counter::Ops);
        if answer.failed_over {
            recorder.failed_over += 1;
            live.add(Counter::FailOvers);
        }
        if let Outcome::Error(kind) = answer.outcome {
            live.add(Counter::Errors);
            recorder.errors.add(kind, run.load_time(times.ended), || self.describe(op, key, answer, &kind.name()));
        }
        if judgement != Judgement::Sound {
            match judgement {
                Judgement::WrongObject | Judgement::Corrupt | Judgement::NeverWritten => live.add(Counter::Wrong),
                Judgement::Missing => live.add(Counter::Missing),
                Judgement::OutOfOrder => live.add(Counter::OutOfOrder),
                Judgement::Stale(_) => live.add(Counter::Stale),
                Judgement::Sound | Judgement::Foreign => 0,
            };
            recorder.integrity.count(judgement, || {
                let at = run.load_time(times.ended).as_secs_f64();
                format!("{at:.3}s {}", self.describe(op, key, answer, &format!("{judgement:?}")))
            });
        }
        drop(recorder);
        if run.plan.log_every > 0 && ops.is_multiple_of(run.plan.log_every) {
            self.log(ops);
        }
    }

    fn describe(&self, op: Op, key: KeyIndex, answer: &Answer, what: &str) -> String {
        let target = &self.run.plan.targets[answer.node.0];
        let mut text = format!("{} {} via {target}: {what}", op.name(), String::from_utf8_lossy(&key.name()));
        if let Some(version) = answer.version {
            text.push_str(&format!(", version {version}"));
        }
        if let Some(detail) = &answer.detail {
            text.push_str(&format!(": {detail}"));
        }
        text
    }

    fn log(&self, ops: u64) {
        let now = Snapshot::of(std::slice::from_ref(self.live()));
        let (errors, wrong) = (now.get(Counter::Errors), now.get(Counter::Wrong));
        say(&format!("[WORKER {}] ops={ops} err={errors} wrong={wrong}", self.index));
    }
}

/// When an operation should have begun, was sent, and ended.
#[derive(Clone, Copy)]
struct Times {
    intended: Instant,
    sent: Instant,
    ended: Instant,
}

/// One task: at most one operation in flight.
pub(crate) struct Worker<T> {
    thread: Rc<Thread>,
    target: T,
    dice: SmallRng,
    value: Vec<u8>,
}

impl<T: Target> Worker<T> {
    pub(crate) fn new(thread: Rc<Thread>, target: T, task: usize) -> Self {
        let dice = thread.run.dice(thread.index, task);
        Self { thread, target, dice, value: Vec::new() }
    }

    /// Works until the load ends.
    pub(crate) async fn run(mut self) {
        let run = Arc::clone(&self.thread.run);
        let mut done = 0_u32;
        while let Some(intended) = self.thread.schedule.next(&run).await {
            let key = run.plan.keys.choose(&mut self.dice);
            let sent = if run.plan.rate.is_some() { Instant::now() } else { intended };
            let answer = if self.dice.random_range(0..100) < run.plan.set_ratio {
                self.set(key, intended, sent).await
            } else {
                self.get(key, intended, sent).await
            };
            if matches!(answer, Outcome::Error(_)) && run.plan.rate.is_none() {
                tokio::time::sleep(ERROR_PAUSE).await;
            }
            // Nodes within this process may answer without ever waiting, and their own tasks on this thread must run too.
            done = done.wrapping_add(1);
            if run.plan.nodes_within && done.is_multiple_of(OPERATIONS_IN_A_ROW) {
                tokio::task::yield_now().await;
            }
            tokio::task::consume_budget().await;
        }
    }

    async fn get(&mut self, key: KeyIndex, intended: Instant, sent: Instant) -> Outcome {
        let run = &self.thread.run;
        let name = key.name();
        let floor = run.ledger.floor(key);
        let answer = self.target.get(&name, &mut self.value).await;
        let ended = Instant::now();
        let judgement = match answer.outcome {
            Outcome::HitLocal | Outcome::HitRemote => {
                let began_at = run.ledger_time(sent);
                run.judge(&Reading { key: &name, value: &self.value, version: answer.version, began_at }, &floor)
            }
            Outcome::Miss if !run.plan.values_expire => judge_miss(&floor),
            _ => Judgement::Sound,
        };
        self.thread.record(Op::Get, key, &answer, Times { intended, sent, ended }, judgement);
        answer.outcome
    }

    async fn set(&mut self, key: KeyIndex, intended: Instant, sent: Instant) -> Outcome {
        let (answer, judgement) = self.write(key).await;
        self.thread.record(Op::Set, key, &answer, Times { intended, sent, ended: Instant::now() }, judgement);
        answer.outcome
    }

    /// Writes a key once and notes the acknowledgement, but measures nothing.
    pub(crate) async fn write(&mut self, key: KeyIndex) -> (Answer, Judgement) {
        let run = &self.thread.run;
        let floor = run.ledger.floor(key);
        let stamp = self.thread.next_stamp();
        let name = key.name();
        write_value(&mut self.value, &name, stamp, run.plan.value_bytes);
        let answer = self.target.set(&name, &self.value).await;
        let mut judgement = Judgement::Sound;
        if answer.outcome == Outcome::Acknowledged {
            let version = answer.version.unwrap_or(Version::ZERO);
            judgement = run.ledger.acknowledge(key, &floor, version, stamp, run.ledger_time(Instant::now()));
        }
        (answer, judgement)
    }
}
