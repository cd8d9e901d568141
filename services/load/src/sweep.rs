//! The final sweep: once the mesh has been left alone, every key with an acknowledged write is read from every node. A
//! write is lost if no node has it, or anything newer.

use std::time::Instant;

use crate::check::{Floor, Judgement, Reading};
use crate::{Answer, KeyIndex, NodeIndex, Op, Outcome, Target, Version, worker::Thread};

/// Lost writes that are told in words, per thread.
const EXAMPLES_MAX: usize = 5;

/// What one node said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Value(Version),
    Nothing,
    Failed,
}

pub(crate) async fn sweep_key<T: Target>(thread: &Thread, target: &mut T, key: KeyIndex) {
    let run = &thread.run;
    let floor = run.ledger.floor(key);
    if floor.stamp.is_none() {
        return;
    }
    let name = key.name();
    let mut value = Vec::new();
    let mut said = Vec::with_capacity(run.plan.targets.len());
    for node in (0..run.plan.targets.len()).map(NodeIndex) {
        let began_at = run.ledger_time(Instant::now());
        let answer = target.get_at(node, &name, &mut value).await;
        said.push(match answer.outcome {
            Outcome::HitLocal | Outcome::HitRemote => {
                let reading = Reading { key: &name, value: &value, version: answer.version, began_at };
                let judgement = run.judge(&reading, &floor);
                note_wrong(thread, key, &answer, judgement);
                // A target that names no versions is only asked whether it has the key at all.
                Said::Value(answer.version.unwrap_or(floor.version))
            }
            Outcome::Miss => Said::Nothing,
            Outcome::Acknowledged | Outcome::Error(_) => Said::Failed,
        });
    }
    tally(thread, key, &floor, &said);
}

/// Staleness is judged over all nodes together; values that must never be seen are judged one by one.
fn note_wrong(thread: &Thread, key: KeyIndex, answer: &Answer, judgement: Judgement) {
    if matches!(judgement, Judgement::WrongObject | Judgement::Corrupt | Judgement::NeverWritten) {
        let target = &thread.run.plan.targets[answer.node.0];
        thread.recorder.borrow_mut().integrity.count(judgement, || {
            let key = String::from_utf8_lossy(&key.name()).into_owned();
            format!("final sweep: {} {key} via {target}: {judgement:?}", Op::Get.name())
        });
    }
}

fn tally(thread: &Thread, key: KeyIndex, floor: &Floor, said: &[Said]) {
    let mut recorder = thread.recorder.borrow_mut();
    let sweep = &mut recorder.sweep;
    sweep.keys += 1;
    let newest =
        said.iter().filter_map(|said| if let Said::Value(version) = said { Some(*version) } else { None }).max();
    for (node, said) in said.iter().enumerate() {
        match said {
            Said::Value(version) if newest.is_some_and(|newest| *version < newest) => sweep.stale_by_node[node] += 1,
            Said::Nothing if newest.is_some() => sweep.missing_by_node[node] += 1,
            Said::Failed => sweep.failed_by_node[node] += 1,
            Said::Value(_) | Said::Nothing => {}
        }
    }
    if said.iter().all(|said| *said == Said::Failed) {
        sweep.unread += 1;
        return;
    }
    if newest.is_none() && thread.run.plan.values_expire {
        sweep.expired += 1;
    } else if newest.is_none_or(|newest| newest < floor.version) {
        sweep.lost += 1;
        if sweep.examples.len() < EXAMPLES_MAX {
            let key = String::from_utf8_lossy(&key.name()).into_owned();
            let found = newest.map_or_else(|| "nothing".to_owned(), |newest| newest.to_string());
            sweep.examples.push(format!("{key}: version {} was acknowledged, the nodes have {found}", floor.version));
        }
    }
}
