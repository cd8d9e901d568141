//! Between a load thread and the history: announces its operations, judges their answers, and describes what must not be.

use std::{
    cell::RefCell,
    time::{Duration, Instant},
};

use super::{
    keys::KeyIndex,
    run::Run,
    value::{Proof, Stamp, prove},
};
use crate::{
    Answer, Counter, ErrorKind, Guarantee, Live, Outcome, Violation, WriteVersion,
    history::{Action, Ending, Finding, Judgement, Operation, Session, Ticket},
    stats::Recorder,
    target::ReadConsistency,
};

/// One thread's eyes. Its operations are one session.
pub(crate) struct Judge {
    session: RefCell<Session>,
    writer: u8,
}

/// An operation that is to be judged, or that is not because checks are off.
pub(crate) struct WatchedOperation {
    ticket: Option<Ticket>,
    pub(crate) key: KeyIndex,
    /// What a written value must carry.
    pub(crate) stamp: Option<Stamp>,
    /// The version of the key that the session has met.
    pub(crate) met: WriteVersion,
}

/// When an operation should have begun, and when it was sent.
#[derive(Clone, Copy)]
pub(crate) struct Start {
    pub(crate) intended: Instant,
    pub(crate) sent: Instant,
}

/// When an operation should have begun, was sent, and ended.
#[derive(Clone, Copy)]
pub(crate) struct Times {
    pub(crate) intended: Instant,
    pub(crate) sent: Instant,
    pub(crate) ended: Instant,
}

impl Start {
    /// It ends now.
    pub(crate) fn end(self) -> Times {
        Times { intended: self.intended, sent: self.sent, ended: Instant::now() }
    }
}

/// The answer to an operation, with all that it is judged by.
pub(crate) struct JudgedReply<'a> {
    pub(crate) watched: &'a WatchedOperation,
    pub(crate) answer: &'a Answer,
    /// What was read, if anything was.
    pub(crate) value: &'a [u8],
    pub(crate) times: Times,
    pub(crate) trace: Option<u128>,
}

impl Judge {
    pub(crate) fn new(run: &Run, thread: usize) -> Self {
        let writer = u8::try_from(thread).unwrap_or(u8::MAX);
        Self { session: RefCell::new(Session::new(run.plan.keys.numbers())), writer }
    }

    /// A read is about to be sent.
    pub(crate) fn get(&self, run: &Run, key: KeyIndex, how: ReadConsistency, start: Start) -> WatchedOperation {
        self.begin(run, key, Action::Get(how), start)
    }

    /// A write is about to be sent, of a value that lives so long, or for ever.
    pub(crate) fn set(&self, run: &Run, key: KeyIndex, ttl: Option<Duration>, start: Start) -> WatchedOperation {
        self.begin(run, key, Action::Set { writer: self.writer, ttl }, start)
    }

    /// A deletion is about to be sent.
    pub(crate) fn delete(&self, run: &Run, key: KeyIndex, start: Start) -> WatchedOperation {
        self.begin(run, key, Action::Delete { writer: self.writer }, start)
    }

    fn begin(&self, run: &Run, key: KeyIndex, action: Action, start: Start) -> WatchedOperation {
        let session = self.session.borrow();
        if !run.plan.check {
            let writes = matches!(action, Action::Set { .. } | Action::Delete { .. });
            let stamp = writes.then(|| run.history.announce(self.writer));
            return WatchedOperation { ticket: None, key, stamp, met: session.floor(key) };
        }
        let (intended, began) = (run.history_time(start.intended), run.history_time(start.sent));
        let ticket = run.history.begin(Operation { action, key, intended, began }, &session);
        WatchedOperation { key, stamp: ticket.stamp, met: ticket.session_floor, ticket: Some(ticket) }
    }

    /// Judges an answer.
    pub(crate) fn judge(&self, run: &Run, reply: &JudgedReply<'_>) -> Judgement {
        let JudgedReply { watched, answer, value, times, .. } = *reply;
        let mut session = self.session.borrow_mut();
        let Some(ticket) = &watched.ticket else {
            session.note(watched.key, answer.version);
            return Judgement::Sound;
        };
        let ending = match answer.outcome {
            Outcome::HitLocal | Outcome::HitRemote => {
                Ending::Value { proof: prove(value, &watched.key.name()), version: answer.version }
            }
            Outcome::Miss => Ending::Miss { version: answer.version },
            Outcome::Acknowledged => Ending::Written { version: answer.version, doubtful: answer.doubtful },
            // Nothing was sent, or the node has said that nothing was written.
            Outcome::Error(ErrorKind::Refused | ErrorKind::Unavailable | ErrorKind::Overloaded) if !answer.doubtful => {
                Ending::Failed
            }
            Outcome::Error(_) => Ending::Unknown,
        };
        run.history.finish(ticket, &mut session, ending, run.history_time(times.ended))
    }
}

/// Counts a judgement of the load; a violation is described with all that is known.
pub(crate) fn count(
    recorder: &mut Recorder,
    live: &Live,
    judgement: Judgement,
    describe: impl FnOnce(Violation) -> Finding,
) {
    match judgement {
        Judgement::Sound => return,
        Judgement::Broken(violation) => live.violation(violation),
        Judgement::Stale(_) => {
            live.add(Counter::Stale);
        }
        Judgement::Foreign { .. } => {}
    }
    recorder.integrity.count(judgement, describe);
}

/// All that is known about a violation. Times count from the beginning of the load.
pub(crate) fn finding(run: &Run, reply: &JudgedReply<'_>, violation: Violation) -> Finding {
    let JudgedReply { watched, answer, value, times, trace } = *reply;
    let seconds = |at: Instant| run.load_time(at).as_secs_f64();
    let mut finding = Finding {
        kind: violation.name().into(),
        key: String::from_utf8_lossy(&watched.key.name()).into_owned(),
        entry: run.plan.targets[answer.node.0].clone(),
        served_by: answer.served_by.map(|node| format!("{node:016x}")),
        version: answer.version.map(|version| version.to_string()),
        intended_s: seconds(times.intended),
        began_s: seconds(times.sent),
        ended_s: seconds(times.ended),
        trace: trace.map(|trace| format!("{trace:032x}")),
        ..Finding::default()
    };
    let Some(ticket) = &watched.ticket else { return finding };
    finding.op = match ticket.operation.action {
        Action::Get(how) => format!("GET {}", how.name()),
        Action::Set { .. } => "SET".to_owned(),
        Action::Delete { .. } => "DEL".to_owned(),
    };
    if ticket.floor.exists() {
        let (writer, seq) = ticket.floor.writer_and_seq();
        let what = if ticket.floor.is_deletion() { "deletion" } else { "write" };
        // What stands in for a version where the target names none says nothing to a reader.
        let is_named = run.plan.guarantee == Guarantee::Mesh;
        finding.acknowledged = is_named.then(|| ticket.floor.version().to_string());
        finding.acknowledged_by = Some(format!("{what} {seq} of writer {writer}"));
        let before = ticket.operation.began.saturating_sub(ticket.floor.acknowledged_at());
        finding.acknowledged_before_s = Some(before.as_secs_f64());
    }
    if violation == Violation::SessionBroken {
        finding.session = Some(ticket.session_floor.to_string());
    }
    if matches!(answer.outcome, Outcome::HitLocal | Outcome::HitRemote) {
        finding.read = Some(match prove(value, &watched.key.name()) {
            Proof::Genuine(stamp) => format!("write {} of writer {}", stamp.seq, stamp.writer.thread),
            Proof::WrongObject | Proof::Corrupt => String::from_utf8_lossy(&value[..value.len().min(60)]).into_owned(),
        });
    }
    finding
}
