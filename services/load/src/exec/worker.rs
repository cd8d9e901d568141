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
    judged::{Judge, JudgedReply, Start, Times, WatchedOperation, count, finding},
    keys::KeyIndex,
    progress::say,
    run::Run,
    schedule::ThreadSchedule,
    ttls::lifetime,
    value::write_value,
};
use crate::{
    Answer, Counter, ErrorKind, Live, Op, Outcome, OutcomeClass, Snapshot, Target,
    history::Judgement,
    stats::{Finished, Recorder, Series},
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
    pub(crate) recorder: RefCell<Recorder>,
    pub(crate) judge: Judge,
}

impl Thread {
    pub(crate) fn new(run: Arc<Run>, index: usize) -> Self {
        Self {
            index,
            recorder: RefCell::new(Recorder::new(run.plan.targets.len())),
            judge: Judge::new(&run, index),
            run,
        }
    }

    pub(crate) fn live(&self) -> &Live {
        &self.run.live[self.index]
    }

    /// Judges an answer to the load, and counts what is wrong with it.
    fn check(&self, reply: &JudgedReply<'_>) -> Judgement {
        let judgement = self.judge.judge(&self.run, reply);
        if judgement != Judgement::Sound {
            let describe = |violation| finding(&self.run, reply, violation);
            count(&mut self.recorder.borrow_mut(), self.live(), judgement, describe);
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
pub(crate) struct LoadWorker<T> {
    thread: Rc<Thread>,
    target: T,
    dice: SmallRng,
    value: Vec<u8>,
}

impl<T: Target> LoadWorker<T> {
    pub(crate) fn new(thread: Rc<Thread>, target: T, task: usize) -> Self {
        let dice = thread.run.plan.dice(thread.index, task);
        Self { thread, target, dice, value: Vec::new() }
    }

    /// Works until the load, or a step of it, ends.
    pub(crate) async fn run(mut self, schedule: Rc<ThreadSchedule>) {
        let run = Arc::clone(&self.thread.run);
        self.target.begin_load();
        let mut done = 0_u32;
        while let Some(intended) = schedule.next(&run).await {
            let sent = if run.plan.rate.is_some() { Instant::now() } else { intended };
            let op = run.plan.choose_op(&mut self.dice);
            let key = run.plan.keys.choose(op, run.load_time(intended), &mut self.dice);
            let mut outcome = self.operate(op, key, Start { intended, sent }).await;
            if run.plan.backfill && outcome == Outcome::Miss {
                outcome = self.backfill(key).await;
            }
            if matches!(outcome, Outcome::Error(_)) && run.plan.rate.is_none() {
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

    /// Writes what a read did not find: a SET by the same session that no schedule made due, so that it begins now.
    async fn backfill(&mut self, key: KeyIndex) -> Outcome {
        let now = Instant::now();
        self.thread.recorder.borrow_mut().backfills += 1;
        self.operate(Op::Set, key, Start { intended: now, sent: now }).await
    }

    async fn operate(&mut self, op: Op, key: KeyIndex, start: Start) -> Outcome {
        let (watched, answer) = self.send(op, key, start).await;
        let (thread, times) = (&self.thread, start.end());
        let (value, trace) = (&self.value[..], self.target.trace());
        let judgement = thread.check(&JudgedReply { watched: &watched, answer: &answer, value, times, trace });
        thread.record(op, key, &answer, times);
        thread.follow_up(&mut self.target, &Finished { op, answer: &answer, times, judgement });
        answer.outcome
    }

    /// Writes a key once before the load: judges the answer, but measures nothing.
    pub(crate) async fn prefill(&mut self, key: KeyIndex) -> Outcome {
        let now = Instant::now();
        let start = Start { intended: now, sent: now };
        let (watched, answer) = self.send(Op::Set, key, start).await;
        let (thread, times) = (&self.thread, start.end());
        let (value, trace) = (&self.value[..], self.target.trace());
        let judgement = thread.check(&JudgedReply { watched: &watched, answer: &answer, value, times, trace });
        if matches!(answer.outcome, Outcome::Error(_)) {
            thread.run.note_refusal(thread.describe(Op::Set, key, &answer, &answer.error().name()));
        }
        thread.recorder.borrow_mut().tries.add_ahead(Op::Set, &answer);
        thread.follow_up_aside(&mut self.target, &Finished { op: Op::Set, answer: &answer, times, judgement });
        answer.outcome
    }

    async fn send(&mut self, op: Op, key: KeyIndex, start: Start) -> (WatchedOperation, Answer) {
        let Self { thread, target, dice, value } = self;
        let (run, name) = (&thread.run, key.name());
        match op {
            Op::Get => {
                let consistency = run.plan.consistency;
                let watched = thread.judge.get(run, key, consistency, start);
                let answer = target.get(&name, consistency.of(watched.met), value).await;
                (watched, answer)
            }
            Op::Set => {
                let ttl_ms = run.plan.ttls.choose(dice);
                let watched = thread.judge.set(run, key, lifetime(ttl_ms), start);
                if let Some(stamp) = watched.stamp {
                    write_value(value, &name, stamp, run.plan.value_sizes.choose(dice));
                }
                let answer = target.set(&name, value, ttl_ms).await;
                (watched, answer)
            }
            Op::Delete => {
                let watched = thread.judge.delete(run, key, start);
                let answer = target.delete(&name).await;
                (watched, answer)
            }
        }
    }
}
