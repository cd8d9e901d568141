//! After an operation was counted: its target hears how it ended and decides whether its trace is kept; the slowest are kept with
//! where their time went, the first failures with their details, and of every few the parts.

use borsh::{BorshDeserialize, BorshSerialize};

use super::{
    failures::Failures,
    flight::{Ended, Kept},
    kept::KeptTraces,
    latency::OutcomeClass,
    parts::PartSamples,
    slowest::{SlowRequest, Slowest, Split},
};
use crate::{
    Answer, Op, Target,
    exec::{Thread, Times},
    history::Judgement,
};

/// One thread's, or all threads' once merged.
#[derive(BorshDeserialize, BorshSerialize, Debug, Default)]
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

/// An operation that was answered and judged.
pub(crate) struct Finished<'a> {
    pub(crate) op: Op,
    pub(crate) answer: &'a Answer,
    pub(crate) times: Times,
    pub(crate) judgement: Judgement,
}

impl Thread {
    /// Gives the result to the target, keeps what is worth an example, and samples where the time went. Nothing may be awaited
    /// between the answer and this.
    pub(crate) fn follow_up(&self, target: &mut impl Target, finished: &Finished<'_>) {
        let Finished { op, answer, times, .. } = *finished;
        let (run, outcome) = (&self.run, OutcomeClass::of(answer.outcome));
        let mut ended = self.ended(finished);
        let mut recorder = self.recorder.borrow_mut();
        let aftermath = &mut recorder.aftermath;
        let response = ended.response();
        ended.is_among_slowest = aftermath.slowest.takes(ended.phase, op, outcome, response);
        self.live().service(op, ended.service());
        ended.error.into_iter().for_each(|kind| self.live().error(kind));
        let kept = target.judged(&ended);
        let at = run.load_time(times.ended);
        aftermath.failures.add(&ended, answer, (run.load_time(times.sent), at), || target.way());
        if !ended.p99.is_zero() && response >= ended.p99 {
            self.live().tail(&Split::of(&ended, &target.parts()));
        }
        if let Some((kept, trace)) = kept.zip(target.trace()) {
            aftermath.kept.add(kept, trace, at, answer.node);
        }
        let draws = aftermath.parts[op as usize].draws();
        if !draws && !ended.is_among_slowest {
            return;
        }
        let parts = target.parts();
        if draws {
            aftermath.parts[op as usize].add(&ended, &parts);
        }
        if ended.is_among_slowest {
            let request = SlowRequest::new(&ended, answer.node, at, &parts, target.way());
            aftermath.slowest.add(outcome, request);
        }
    }

    /// The same before and after the load, where only a violation is worth an example.
    pub(crate) fn follow_up_aside(&self, target: &mut impl Target, finished: &Finished<'_>) {
        let kept = target.judged(&self.ended(finished));
        let Finished { answer, times, .. } = *finished;
        if let Some(trace) = target.trace().filter(|_| kept == Some(Kept::Violation)) {
            let at = self.run.load_time(times.ended);
            self.recorder.borrow_mut().aftermath.kept.add(Kept::Violation, trace, at, answer.node);
        }
    }

    fn ended(&self, finished: &Finished<'_>) -> Ended {
        let Finished { op, answer, times, judgement } = *finished;
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
