//! The fault: one node is killed, and a clock runs until each survivor has called it dead, it has come back, and it is
//! ready again.

use std::{
    cell::RefCell,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use crate::{Cluster, Kill, NodeIndex, NodeView, Phase, Run, say};

/// How often survivors are asked.
const POLL: Duration = Duration::from_millis(25);

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

/// Waits for the moment, kills, verifies and watches; writes what happens into `timeline` as it happens.
pub(crate) async fn inject(run: &Run, cluster: &impl Cluster, kill: Kill, timeline: &RefCell<Option<Timeline>>) {
    tokio::time::sleep(kill.after).await;
    let id = cluster.view(kill.victim).await.map(|view| view.id).unwrap_or_default();
    let victim = run.plan.targets[kill.victim.0].clone();
    let survivors = (0..run.plan.targets.len()).filter(|node| *node != kill.victim.0);
    let survivors: Vec<_> = survivors.map(NodeIndex).collect();
    let seen =
        |node: &NodeIndex| Survivor { node: run.plan.targets[node.0].clone(), dead_at_s: None, alive_at_s: None };
    timeline.replace(Some(Timeline {
        victim: victim.clone(),
        killed_at_s: now_s(run),
        killed_at_unix_ms: unix_ms(),
        silent_at_s: None,
        failure: None,
        survivors: survivors.iter().map(seen).collect(),
        back_at_s: None,
        ready_at_s: None,
    }));
    let update = |change: &dyn Fn(&mut Timeline)| {
        if let Some(timeline) = timeline.borrow_mut().as_mut() {
            change(timeline);
        }
    };
    run.phase.set(Phase::AfterKill);
    say(&format!("[KILL] t={:.1}s {victim}", now_s(run)));
    let killed = cluster.kill(kill.victim).await;
    if let Err(reason) = verify(cluster, kill.victim, killed).await {
        say(&format!("[KILL] had no effect: {reason}"));
        update(&|timeline| timeline.failure = Some(reason.clone()));
        run.phase.set(Phase::Steady);
        return;
    }
    update(&|timeline| timeline.silent_at_s = Some(now_s(run)));
    watch(run, cluster, kill.victim, &survivors, &id, timeline).await;
    run.phase.set(Phase::Recovered);
    say(&format!("[RECOVERED] t={:.1}s {victim} is ready again", now_s(run)));
}

/// The node must fall silent.
async fn verify(cluster: &impl Cluster, victim: NodeIndex, killed: Result<(), String>) -> Result<(), String> {
    killed?;
    let deadline = tokio::time::Instant::now() + EFFECT_WITHIN;
    while tokio::time::Instant::now() < deadline {
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
    timeline: &RefCell<Option<Timeline>>,
) {
    loop {
        for (at, node) in survivors.iter().enumerate() {
            let state = cluster.view(*node).await.ok().and_then(|view| state_of(&view, id));
            if let (Some(state), Some(timeline)) = (state, timeline.borrow_mut().as_mut()) {
                let survivor = &mut timeline.survivors[at];
                match state.as_str() {
                    "dead" | "left" => mark(&mut survivor.dead_at_s, run),
                    "alive" if survivor.dead_at_s.is_some() => {
                        mark(&mut survivor.alive_at_s, run);
                    }
                    _ => {}
                }
            }
        }
        let ready = cluster.ready(victim).await;
        if let Some(timeline) = timeline.borrow_mut().as_mut() {
            if ready.is_ok() {
                mark(&mut timeline.back_at_s, run);
            }
            if ready == Ok(true) {
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

fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
