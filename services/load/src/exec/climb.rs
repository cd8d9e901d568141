//! FIND_MAX: the load in steps of different rates, in one run with one history, so that the checker sees all of them as one.

use std::{cell::RefCell, time::Duration};

use super::{
    find_max::{FIRST_RATE, Search},
    lifecycle::{all_stats, process_cpu},
    progress::say,
    run::Run,
    stages::Stages,
};
use crate::{
    Cluster, NodeStats, Violation,
    report::{Measured, Step},
};

/// Between two steps nodes finish what they do in the background: a part of a step's time, within these bounds.
const PAUSE_SHARE: u32 = 5;
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Makes one step after the other until the search ends, the guarantee is found broken, or the load is ended.
pub(super) async fn climb(
    run: &Run,
    stages: &mut Stages,
    cluster: &impl Cluster,
    steps: &RefCell<Vec<Step>>,
) -> Result<(), String> {
    let mut search = Search::new(FIRST_RATE);
    let at_start = all_stats(run, cluster).await;
    let mut before = at_start.clone();
    while let Some(rate) = search.rate() {
        run.begin_step(rate);
        let cpu = process_cpu();
        stages.load().await?;
        let client_cpu = process_cpu().saturating_sub(cpu);
        let took = run.step_elapsed();
        let after = all_stats(run, cluster).await;
        if run.stopping() {
            break;
        }
        let node_cpu = before.iter().zip(&after).map(cpu_between).collect();
        let recorder = stages.step();
        let step = Step::new(&run.plan, &Measured { rate, took, recorder, client_cpu, node_cpu });
        say(&format!("[STEP] {}", step.words()));
        search.judge(step.is_met);
        steps.borrow_mut().push(step);
        stages.end_step();
        if is_broken(run, &at_start, &after) {
            say("[STEP] the guarantee was broken: the search ends");
            break;
        }
        before = after;
        tokio::time::sleep((run.plan.duration / PAUSE_SHARE).clamp(PAUSE_MIN, PAUSE_MAX)).await;
    }
    Ok(())
}

/// Whether something was found that no eviction explains.
fn is_broken(run: &Run, at_start: &[Option<NodeStats>], now: &[Option<NodeStats>]) -> bool {
    let evictions = |all: &[Option<NodeStats>]| all.iter().flatten().map(|stats| stats.evictions).sum::<u64>();
    let evicts = evictions(now) > evictions(at_start);
    let found = crate::Snapshot::of(&run.live);
    let counts = |violation: &Violation| !(evicts && violation.may_be_explained());
    Violation::ALL.into_iter().filter(counts).any(|violation| found.violations(violation) > 0)
}

/// The CPU time that a node used between two answers; nothing if it does not tell.
fn cpu_between((before, after): (&Option<NodeStats>, &Option<NodeStats>)) -> Option<Duration> {
    let (before_ms, after_ms) = (before.as_ref()?.cpu_ms()?, after.as_ref()?.cpu_ms()?);
    Some(Duration::from_secs_f64((after_ms - before_ms).max(0.0) / 1e3))
}
