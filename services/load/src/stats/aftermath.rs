//! Behind the books of an operation: its target hears how it ended and says whether its trace is kept; the slowest are written
//! down with where their time went, the first failures with what was said, and of every few the parts.

use super::{
    failures::Failures,
    flight::{Ended, Kept},
    kept::KeptTraces,
    latency::OutcomeClass,
    parts::PartSamples,
    slowest::{SlowRequest, Slowest},
};
use crate::{
    Answer, Op, Target,
    exec::{Thread, Times},
    history::Judgement,
};

/// One thread's, or all threads' once merged.
#[derive(Debug, Default)]
pub(crate) struct Aftermath {
    pub(crate) slowest: Slowest,
    pub(crate) failures: Failures,
    pub(crate) kept: KeptTraces,
    pub(crate) parts: [PartSamples; Op::ALL.len()],
}

impl Aftermath {
    pub(crate) fn merge(&mut self, other: &Self) {
        self.slowest.merge(&other.slowest);
        self.failures.merge(&other.failures);
        self.kept.merge(&other.kept);
        self.parts.iter_mut().zip(&other.parts).for_each(|(mine, theirs)| mine.merge(theirs));
    }
}

impl Thread {
    /// See the file's head. Nothing may be awaited between the answer and this.
    pub(crate) fn follow_up(
        &self,
        target: &mut impl Target,
        op: Op,
        answer: &Answer,
        times: Times,
        judgement: Judgement,
    ) {
        let (run, outcome) = (&self.run, OutcomeClass::of(answer.outcome));
        let mut ended = self.ended(op, answer, times, judgement);
        let mut recorder = self.recorder.borrow_mut();
        let aftermath = &mut recorder.aftermath;
        let response = ended.response();
        ended.is_among_slowest = aftermath.slowest.takes(ended.phase, op, outcome, response);
        self.live().service(op, ended.service());
        ended.error.into_iter().for_each(|kind| self.live().error(kind));
        let kept = target.judged(&ended);
        let at = run.load_time(times.ended);
        aftermath.failures.add(&ended, answer, (run.load_time(times.sent), at), || target.way());
        let draws = aftermath.parts[op as usize].draws();
        if !draws && !ended.is_among_slowest && kept.is_none_or(|kept| kept == Kept::Sampled) {
            return;
        }
        let parts = target.parts();
        if draws {
            aftermath.parts[op as usize].add(&ended, &parts);
        }
        if let Some((kept, trace)) = kept.zip(target.trace()) {
            aftermath.kept.add(kept, trace, at, answer.node);
        }
        if ended.is_among_slowest {
            let request = SlowRequest::new(&ended, answer.node, at, &parts, target.way());
            aftermath.slowest.add(outcome, request);
        }
    }

    /// The same ahead of the load and behind it, where only a finding is worth being written down.
    pub(crate) fn follow_up_aside(
        &self,
        target: &mut impl Target,
        op: Op,
        answer: &Answer,
        times: Times,
        judgement: Judgement,
    ) {
        let kept = target.judged(&self.ended(op, answer, times, judgement));
        if let Some(trace) = target.trace().filter(|_| kept == Some(Kept::Violation)) {
            let at = self.run.load_time(times.ended);
            self.recorder.borrow_mut().aftermath.kept.add(Kept::Violation, trace, at, answer.node);
        }
    }

    fn ended(&self, op: Op, answer: &Answer, times: Times, judgement: Judgement) -> Ended {
        Ended {
            op,
            outcome: OutcomeClass::of(answer.outcome),
            error: answer.failure(op),
            phase: self.run.phase.get(),
            failed_over: answer.failed_over(),
            is_violation: judgement.is_broken(),
            intended: times.intended,
            sent: times.sent,
            ended: times.ended,
            is_among_slowest: false,
            p99: self.run.p99(),
        }
    }
}
