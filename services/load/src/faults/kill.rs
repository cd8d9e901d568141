//! The fault: a node is killed, and a clock runs until each survivor has called it dead, it has come back, and it is ready
//! again; then perhaps another one is.

use std::{cell::RefCell, time::Duration};

use rand::Rng;
use serde::Serialize;
use tokio::time::Instant;

use super::log::{KILL, unix_ms};
use crate::{Cluster, Counter, NodeIndex, NodeView, Phase, Run, Snapshot, plan::Kill, say};

/// How often survivors are asked.
const POLL: Duration = Duration::from_millis(25);

/// How long the load goes on after the last of several kills, so that what comes after is measured too.
const RECOVERED_FOR: Duration = Duration::from_secs(2);

/// Draws victims as a thread would that makes no load: there are 255 of those at most.
const DICE: usize = 255;

/// A killed node that still answers after this was not killed.
const EFFECT_WITHIN: Duration = Duration::from_secs(3);

/// What happened to the killed node, in seconds after the load began.
#[derive(Clone, Debug, Serialize)]
pub struct Timeline {
    /// The killed node.
    pub victim: String,
    /// When it was told to die.
    pub killed_at_s: f64,
    /// The same by the wall clock, to lay over dashboards.
    pub killed_at_unix_ms: u64,
    /// Operations that had ended by then.
    pub ops_before: u64,
    /// When it first gave no answer; never if the kill had no effect.
    pub silent_at_s: Option<f64>,
    /// Why the kill had no effect.
    pub failure: Option<String>,
    /// What each survivor saw.
    pub survivors: Vec<Survivor>,
    /// When it answered again.
    pub back_at_s: Option<f64>,
    /// When it was ready again.
    pub ready_at_s: Option<f64>,
}

/// What one survivor saw.
#[derive(Clone, Debug, Serialize)]
pub struct Survivor {
    /// The survivor.
    pub node: String,
    /// When it called the killed node dead.
    pub dead_at_s: Option<f64>,
    /// When it called it alive again.
    pub alive_at_s: Option<f64>,
}

impl Timeline {
    /// When the last survivor called it dead; nothing if one of them never did.
    pub(crate) fn dead_at_s(&self) -> Option<f64> {
        let (first, others) = self.survivors.split_first()?;
        others.iter().try_fold(first.dead_at_s?, |latest, survivor| survivor.dead_at_s.map(|at| latest.max(at)))
    }
}

/// Kills as often as planned, one node at a time, and writes what happens into `kills` as it happens.
pub(crate) async fn inject(run: &Run, cluster: &impl Cluster, kill: Kill, kills: &RefCell<Vec<Timeline>>) {
    tokio::time::sleep(kill.after).await;
    for number in 0..kill.count {
        let next = Instant::now() + kill.every;
        let victim = match number {
            1.. if kill.anew => draw(run, number),
            _ => kill.victim,
        };
        if crash(run, cluster, victim, kills).await.is_err() {
            return;
        }
        if kill.count > 1 {
            all_ready(run, cluster).await;
            let last = number + 1 == kill.count;
            tokio::time::sleep_until(if last { Instant::now() + RECOVERED_FOR } else { next }).await;
        }
    }
    if kill.count > 1 {
        run.end_load();
    }
}

/// The victim of a later kill, by the run's seed.
fn draw(run: &Run, number: u32) -> NodeIndex {
    let mut dice = run.dice(DICE, usize::try_from(number).unwrap_or(usize::MAX));
    NodeIndex(dice.random_range(0..run.plan.targets.len()))
}

/// Nobody is killed while anybody is still recovering.
async fn all_ready(run: &Run, cluster: &impl Cluster) {
    for node in (0..run.plan.targets.len()).map(NodeIndex) {
        while cluster.ready(node).await != Ok(true) {
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Kills one node, verifies that and watches it come back; an error if the kill had no effect.
async fn crash(
    run: &Run,
    cluster: &impl Cluster,
    node: NodeIndex,
    kills: &RefCell<Vec<Timeline>>,
) -> Result<(), String> {
    let id = cluster.view(node).await.map(|view| view.id).unwrap_or_default();
    let victim = run.plan.targets[node.0].clone();
    let survivors: Vec<_> = (0..run.plan.targets.len()).filter(|other| *other != node.0).map(NodeIndex).collect();
    let seen =
        |node: &NodeIndex| Survivor { node: run.plan.targets[node.0].clone(), dead_at_s: None, alive_at_s: None };
    kills.borrow_mut().push(Timeline {
        victim: victim.clone(),
        killed_at_s: now_s(run),
        killed_at_unix_ms: unix_ms(),
        ops_before: Snapshot::of(&run.live).get(Counter::Ops),
        silent_at_s: None,
        failure: None,
        survivors: survivors.iter().map(seen).collect(),
        back_at_s: None,
        ready_at_s: None,
    });
    let update = |change: &dyn Fn(&mut Timeline)| {
        if let Some(timeline) = kills.borrow_mut().last_mut() {
            change(timeline);
        }
    };
    run.phase.set(Phase::AfterKill);
    run.faults.note(KILL, &victim);
    say(&format!("[KILL] t={:.1}s {victim}", now_s(run)));
    let killed = cluster.kill(node).await;
    if let Err(reason) = verify(cluster, node, killed).await {
        say(&format!("[KILL] had no effect: {reason}"));
        update(&|timeline| timeline.failure = Some(reason.clone()));
        run.phase.set(Phase::Steady);
        return Err(reason);
    }
    run.faults.note("silent", &victim);
    update(&|timeline| timeline.silent_at_s = Some(now_s(run)));
    watch(run, cluster, node, &survivors, &id, kills).await;
    run.phase.set(Phase::Recovered);
    run.faults.note("recovered", &victim);
    say(&format!("[RECOVERED] t={:.1}s {victim} is ready again", now_s(run)));
    Ok(())
}

/// The node must fall silent.
async fn verify(cluster: &impl Cluster, victim: NodeIndex, killed: Result<(), String>) -> Result<(), String> {
    killed?;
    let deadline = Instant::now() + EFFECT_WITHIN;
    while Instant::now() < deadline {
        if cluster.ready(victim).await.is_err() {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
    Err(format!("it still answers {} s after it was told to die", EFFECT_WITHIN.as_secs()))
}

/// Asks everyone until the victim is ready again and all survivors have it back.
async fn watch(
    run: &Run,
    cluster: &impl Cluster,
    victim: NodeIndex,
    survivors: &[NodeIndex],
    id: &str,
    kills: &RefCell<Vec<Timeline>>,
) {
    loop {
        for (at, node) in survivors.iter().enumerate() {
            let state = cluster.view(*node).await.ok().and_then(|view| state_of(&view, id));
            if let (Some(state), Some(timeline)) = (state, kills.borrow_mut().last_mut()) {
                let survivor = &mut timeline.survivors[at];
                match state.as_str() {
                    "dead" | "leaving" | "left" => {
                        run.faults.note("dead", &run.plan.targets[victim.0]);
                        mark(&mut survivor.dead_at_s, run);
                    }
                    "alive" if survivor.dead_at_s.is_some() => {
                        mark(&mut survivor.alive_at_s, run);
                    }
                    _ => {}
                }
            }
        }
        let ready = cluster.ready(victim).await;
        if let Some(timeline) = kills.borrow_mut().last_mut() {
            if ready.is_ok() {
                run.faults.note("back", &run.plan.targets[victim.0]);
                mark(&mut timeline.back_at_s, run);
            }
            if ready == Ok(true) {
                run.faults.note("ready", &run.plan.targets[victim.0]);
                mark(&mut timeline.ready_at_s, run);
            }
            let rejoined = timeline.survivors.iter().all(|s| s.dead_at_s.is_none() || s.alive_at_s.is_some());
            if timeline.ready_at_s.is_some() && rejoined {
                return;
            }
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The first time something was seen.
fn mark(at_s: &mut Option<f64>, run: &Run) {
    at_s.get_or_insert_with(|| now_s(run));
}

fn state_of(view: &NodeView, id: &str) -> Option<String> {
    view.members.iter().find(|member| member.id == id).map(|member| member.state.clone())
}

fn now_s(run: &Run) -> f64 {
    run.load_elapsed().as_secs_f64()
}
