//! The final sweep: once the mesh has been left alone, every key with an acknowledged write or deletion is read from a quorum.
//! A write is lost if the quorum has neither it nor anything newer; what was deleted or has expired must be gone. Then every
//! node is asked for what it has itself, which tells who is behind. Where there is one copy of each key, it is read once.

use std::time::Instant;

use super::{
    judged::{JudgedReply, Start, count, finding},
    keys::KeyIndex,
    worker::Thread,
};
use crate::{
    NodeIndex, Op, Outcome, Target, Violation, WriteVersion,
    history::{Floor, Judgement},
    stats::Finished,
    target::ReadConsistency,
};

/// What was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Value(WriteVersion),
    Nothing,
    Failed,
}

pub(crate) async fn sweep_key<T: Target>(thread: &Thread, target: &mut T, key: KeyIndex) {
    let run = &thread.run;
    let floor = run.history.floor(key);
    if !floor.exists() {
        return;
    }
    let nodes = run.plan.targets.len();
    let mut quorum = Said::Failed;
    // A key's quorum is asked for through a node that its number picks, or through the next one that has an answer.
    for node in (0..nodes).map(|step| NodeIndex((key.get() + step) % nodes)) {
        quorum = read(thread, target, node, key, ReadConsistency::Quorum).await;
        if quorum != Said::Failed {
            break;
        }
    }
    let mut said = Vec::with_capacity(nodes);
    // A key that was evicted is with nobody, and each node would ask all others in vain. What was deleted is not to be there.
    let is_evicted = quorum == Said::Nothing && run.evicts() && !floor.is_deletion();
    let is_asked = !is_evicted && run.plan.guarantee.has_replicas();
    for node in (0..nodes).filter(|_| is_asked).map(NodeIndex) {
        said.push(read(thread, target, node, key, ReadConsistency::One).await);
    }
    tally(thread, &floor, quorum, &said);
}

/// There is no time for this key.
pub(crate) fn leave_out(thread: &Thread, key: KeyIndex) {
    thread.recorder.borrow_mut().sweep.left_out += u64::from(thread.run.history.floor(key).exists());
}

async fn read<T: Target>(
    thread: &Thread,
    target: &mut T,
    node: NodeIndex,
    key: KeyIndex,
    consistency: ReadConsistency,
) -> Said {
    let run = &thread.run;
    let now = Instant::now();
    let start = Start { intended: now, sent: now };
    let watched = thread.judge.get(run, key, consistency, start);
    let mut value = Vec::new();
    let answer = target.get_at(node, &key.name(), consistency.of(watched.met), &mut value).await;
    let (times, trace) = (start.end(), target.trace());
    let reply = JudgedReply { watched: &watched, answer: &answer, value: &value, times, trace };
    let judgement = match (thread.judge.judge(run, &reply), consistency) {
        (Judgement::Broken(Violation::Missing | Violation::StaleQuorum), ReadConsistency::Quorum) => {
            Judgement::Broken(Violation::Lost)
        }
        // What one node lacks is told by node, and a miss of the quorum's once.
        (Judgement::Stale(_) | Judgement::Foreign { .. } | Judgement::Broken(Violation::Missing), _) => {
            Judgement::Sound
        }
        (judgement, _) => judgement,
    };
    note(thread, &reply, judgement);
    thread.follow_up_aside(target, &Finished { op: Op::Get, answer: &answer, times, judgement });
    match answer.outcome {
        // A target that names no versions is only asked whether it has the key at all.
        Outcome::HitLocal | Outcome::HitRemote => Said::Value(answer.version.unwrap_or(WriteVersion::ZERO)),
        Outcome::Miss => Said::Nothing,
        Outcome::Acknowledged | Outcome::Error(_) => Said::Failed,
    }
}

fn note(thread: &Thread, reply: &JudgedReply<'_>, judgement: Judgement) {
    let Judgement::Broken(violation) = judgement else { return };
    let mut recorder = thread.recorder.borrow_mut();
    if violation == Violation::Lost {
        recorder.sweep.lost += 1;
    }
    count(&mut recorder, thread.live(), judgement, |violation| {
        let mut found = finding(&thread.run, reply, violation);
        found.op = format!("final sweep, {}", found.op);
        found
    });
}

fn tally(thread: &Thread, floor: &Floor, quorum: Said, said: &[Said]) {
    let mut recorder = thread.recorder.borrow_mut();
    let sweep = &mut recorder.sweep;
    sweep.keys += 1;
    match quorum {
        Said::Failed => sweep.unread += 1,
        Said::Nothing if floor.is_deletion() => sweep.deleted += 1,
        Said::Nothing if floor.expires() => sweep.expired += 1,
        Said::Nothing | Said::Value(_) => {}
    }
    let version = |said: &Said| if let Said::Value(version) = said { Some(*version) } else { None };
    let newest = said.iter().chain([&quorum]).filter_map(version).max();
    // A node that still has what was deleted is behind.
    let newest = newest.max(floor.is_deletion().then_some(floor.version()));
    for (node, said) in said.iter().enumerate() {
        match said {
            Said::Value(version) if newest.is_some_and(|newest| *version < newest) => sweep.stale_by_node[node] += 1,
            Said::Nothing if version(&quorum).is_some() => sweep.missing_by_node[node] += 1,
            Said::Failed => sweep.failed_by_node[node] += 1,
            Said::Value(_) | Said::Nothing => {}
        }
    }
}
