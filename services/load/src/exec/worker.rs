//! One operation after another: the loop that every task of a load thread runs. Nothing here allocates, locks for longer
//! than a key's entry, or leaves the thread.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use rand::rngs::SmallRng;

use super::{
    judged::{Judge, Times, Watched, count, finding},
    keys::KeyIndex,
    progress::say,
    run::Run,
    schedule::Schedule,
    value::write_value,
};
use crate::{
    Answer, Counter, ErrorKind, Live, Op, Outcome, OutcomeClass, Snapshot, Target,
    history::Judgement,
    stats::{Recorder, Series},
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
    pub(crate) judge: Judge,
}

impl Thread {
    pub(crate) fn new(run: Arc<Run>, index: usize) -> Self {
        Self {
            index,
            schedule: Schedule::new(run.plan.rate, run.plan.threads),
            recorder: RefCell::new(Recorder::new(run.plan.targets.len())),
            judge: Judge::new(&run, index),
            run,
        }
    }

    pub(crate) fn live(&self) -> &Live {
        &self.run.live[self.index]
    }

    /// Judges an answer to the load, and counts what is wrong with it.
    fn check(&self, watched: &Watched, answer: &Answer, value: &[u8], times: Times, trace: Option<u128>) -> Judgement {
        let judgement = self.judge.judge(&self.run, watched, answer, value, times.ended);
        if judgement != Judgement::Sound {
            count(&mut self.recorder.borrow_mut(), self.live(), judgement, |violation| {
                finding(&self.run, watched, answer, value, times, trace, violation)
            });
        }
        judgement
    }

    fn record(&self, op: Op, key: KeyIndex, answer: &Answer, times: Times) {
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
        recorder.tries.add(op, answer, run.load_time(times.ended));
        if answer.is_retried {
            recorder.extra_tries += 1;
            live.add(Counter::ExtraTries);
        }
        if answer.failed_over() {
            recorder.failed_over += 1;
            live.add(Counter::FailOvers);
        }
        if let Some(kind) = answer.failure(op) {
            // Neither done nor failed, and reported apart.
            if kind != ErrorKind::Indeterminate {
                live.add(Counter::Errors);
            }
            recorder.errors.add(kind, run.load_time(times.ended), || self.describe(op, key, answer, &kind.name()));
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
        let (errors, wrong) = (now.get(Counter::Errors), now.wrong_values());
        say(&format!("[WORKER {}] ops={ops} err={errors} wrong={wrong}", self.index));
    }
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
        let dice = thread.run.plan.dice(thread.index, task);
        Self { thread, target, dice, value: Vec::new() }
    }

    /// Works until the load ends.
    pub(crate) async fn run(mut self) {
        let run = Arc::clone(&self.thread.run);
        self.target.begin_load();
        let mut done = 0_u32;
        while let Some(intended) = self.thread.schedule.next(&run).await {
            let sent = if run.plan.rate.is_some() { Instant::now() } else { intended };
            let op = run.plan.choose_op(&mut self.dice);
            let key = run.plan.keys.choose(op, &mut self.dice);
            let answer = match op {
                Op::Get => self.get(key, intended, sent).await,
                Op::Set => self.set(key, intended, sent).await,
                Op::Delete => self.delete(key, intended, sent).await,
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
        let thread = &self.thread;
        let consistency = thread.run.plan.consistency;
        let watched = thread.judge.get(&thread.run, key, consistency, intended, sent);
        let answer = self.target.get(&key.name(), consistency.of(watched.met), &mut self.value).await;
        let times = Times { intended, sent, ended: Instant::now() };
        let judgement = thread.check(&watched, &answer, &self.value, times, self.target.trace());
        thread.record(Op::Get, key, &answer, times);
        thread.follow_up(&mut self.target, Op::Get, &answer, times, judgement);
        answer.outcome
    }

    async fn set(&mut self, key: KeyIndex, intended: Instant, sent: Instant) -> Outcome {
        let (answer, times, judgement) = self.write(key, intended, sent).await;
        self.thread.record(Op::Set, key, &answer, times);
        self.thread.follow_up(&mut self.target, Op::Set, &answer, times, judgement);
        answer.outcome
    }

    async fn delete(&mut self, key: KeyIndex, intended: Instant, sent: Instant) -> Outcome {
        let thread = &self.thread;
        let watched = thread.judge.delete(&thread.run, key, intended, sent);
        let answer = self.target.delete(&key.name()).await;
        let times = Times { intended, sent, ended: Instant::now() };
        let judgement = thread.check(&watched, &answer, &[], times, self.target.trace());
        thread.record(Op::Delete, key, &answer, times);
        thread.follow_up(&mut self.target, Op::Delete, &answer, times, judgement);
        answer.outcome
    }

    /// Writes a key once ahead of the load: judges the answer, but measures nothing.
    pub(crate) async fn prefill(&mut self, key: KeyIndex) -> Outcome {
        let now = Instant::now();
        let (answer, times, judgement) = self.write(key, now, now).await;
        self.thread.recorder.borrow_mut().tries.add_ahead(Op::Set, &answer);
        self.thread.follow_up_aside(&mut self.target, Op::Set, &answer, times, judgement);
        answer.outcome
    }

    async fn write(&mut self, key: KeyIndex, intended: Instant, sent: Instant) -> (Answer, Times, Judgement) {
        let thread = &self.thread;
        let watched = thread.judge.set(&thread.run, key, intended, sent);
        if let Some(stamp) = watched.stamp {
            let size = thread.run.plan.value_sizes.choose(&mut self.dice);
            write_value(&mut self.value, &key.name(), stamp, size);
        }
        let answer = self.target.set(&key.name(), &self.value).await;
        let times = Times { intended, sent, ended: Instant::now() };
        let judgement = thread.check(&watched, &answer, &[], times, self.target.trace());
        (answer, times, judgement)
    }
}
