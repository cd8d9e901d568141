//! Before the first request: every target must answer, and be ready. A misspelt name is told at once, not as a million
//! failed operations.

use std::{sync::Arc, time::Duration};

use load::{Cluster, NodeIndex, PlannedFault, all_of, check_files};
use settings::raise_file_limit;
use tokio::time::Instant;

use crate::{
    control::HttpCluster,
    http::TargetHealth,
    settings::{Settings, TargetSettings, TargetUrl},
};

/// Targets that give no answer within this time are unreachable; the promise to the user is five seconds.
const REACHABLE_WITHIN: Duration = Duration::from_millis(3500);

const POLL: Duration = Duration::from_millis(100);

/// Threads that make load where RUNNER_THREADS does not say how many: the machine is shared with what is loaded.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(2)
}

/// What must hold wherever the nodes are.
///
/// # Errors
/// One line: the variable, its value and what was expected.
pub(crate) fn check(settings: &Settings) -> Result<(), String> {
    check_files(settings.load.concurrency, raise_file_limit())
}

/// Finds the targets; those that are not ready in the end start as down, if the settings allow that at all.
///
/// # Errors
/// Which targets do not answer or are not ready, and why.
pub(crate) async fn find_targets(
    targets: &[TargetUrl],
    settings: &TargetSettings,
    cluster: &HttpCluster,
) -> Result<Arc<[TargetHealth]>, String> {
    let needed = if settings.targets_min == 0 { targets.len() } else { settings.targets_min.min(targets.len()) };
    let began = Instant::now();
    let mut found = Vec::new();
    for node in 0..targets.len() {
        found.push(find(began + REACHABLE_WITHIN, async move || cluster.is_ready(node).await.map(drop)));
    }
    let found = all_of(found).await;
    if found.iter().filter(|result| result.is_ok()).count() < needed {
        let mut message = "TARGETS: not reachable".to_owned();
        for (target, result) in targets.iter().zip(&found) {
            if let Err(reason) = result {
                message.push_str(&format!("\n  {}: {reason}", target.url()));
            }
        }
        return Err(message);
    }
    let mut ready = Vec::new();
    while {
        ready.clear();
        for (node, found) in found.iter().enumerate() {
            ready.push(found.is_ok() && cluster.is_ready(node).await == Ok(true));
        }
        ready.iter().filter(|ready| **ready).count() < needed
    } {
        if began.elapsed() >= settings.ready_within {
            let mut message = format!("TARGETS: not ready within READY_WITHIN={:?}", settings.ready_within);
            for (node, target) in targets.iter().enumerate().filter(|(node, _)| !ready[*node]) {
                message.push_str(&format!("\n  {}: {}", target.url(), cluster.why_not_ready(node).await));
            }
            return Err(message);
        }
        tokio::time::sleep(POLL).await;
    }
    let checked = all_of((0..targets.len()).map(|node| cluster.check_tokens(node))).await;
    checked.into_iter().collect::<Result<(), _>>()?;
    one_mesh(targets, &ready, cluster).await?;
    let health = |(target, ready): (&TargetUrl, &bool)| {
        Ok(TargetHealth::new(target.clone(), *ready).over(cluster.access().secured(target)?))
    };
    targets.iter().zip(&ready).map(health).collect()
}

/// Whether all targets that are ready are different nodes of one mesh.
async fn one_mesh(targets: &[TargetUrl], ready: &[bool], cluster: &HttpCluster) -> Result<(), String> {
    let views = all_of((0..targets.len()).map(|node| cluster.view(NodeIndex(node)))).await;
    // A target that tells no id is no node of ours, and cannot be asked.
    let known = targets.iter().zip(views).zip(ready).filter(|(_, ready)| **ready);
    let known: Vec<_> = known.filter_map(|((target, view), _)| Some((target, view.ok()?))).collect();
    let known = || known.iter().filter(|(_, view)| !view.id.is_empty());
    for (at, (target, view)) in known().enumerate() {
        for (other, theirs) in known().skip(at + 1) {
            let (target, other) = (target.url(), other.url());
            if view.id == theirs.id {
                return Err(format!("TARGETS: {target} and {other} are the same node: name each node once"));
            }
            if !view.members.is_empty() && !view.members.iter().any(|member| member.id == theirs.id) {
                return Err(format!(
                    "TARGETS: {target} and {other} are not of one mesh: the first does not know the second. Name the nodes \
                     of one mesh, or give these nodes CACHE_SEEDS that lead to each other"
                ));
            }
        }
    }
    Ok(())
}

/// Whether the nodes that faults are about obey; ends what an earlier run may have left there. `setting` asks for the faults.
///
/// # Errors
/// Which node does not, and why.
pub(crate) async fn allow_faults(
    setting: &str,
    faults: &[PlannedFault],
    targets: &[TargetUrl],
    cluster: &HttpCluster,
) -> Result<(), String> {
    for node in faults.iter().flat_map(|fault| &fault.nodes) {
        let healed = cluster.heal(*node).await;
        healed.map_err(|reason| format!("{setting}: {} refuses them: {reason}", targets[node.0].url()))?;
    }
    Ok(())
}

/// Asks until there is an answer. A last try that the deadline cuts short says less than one before it that failed.
///
/// # Errors
/// Why the target cannot be reached.
async fn find(deadline: Instant, mut ask: impl AsyncFnMut() -> Result<(), String>) -> Result<(), String> {
    let mut reason = format!("no answer within {:.1} s", REACHABLE_WITHIN.as_secs_f64());
    while Instant::now() < deadline {
        match tokio::time::timeout_at(deadline + POLL, ask()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(failed)) => reason = failed,
            Err(_) => {}
        }
        tokio::time::sleep(POLL).await;
    }
    Err(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn refused(ask: impl AsyncFnMut() -> Result<(), String>) -> Result<(), String> {
        find(Instant::now() + REACHABLE_WITHIN, ask).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_reason_that_was_told_outlives_a_last_try_without_an_answer() {
        let mut tries = 0;
        let wrong_then_silent = async || {
            tries += 1;
            match tries {
                1 => Err("its certificate has expired".to_owned()),
                _ => std::future::pending().await,
            }
        };
        assert_eq!(refused(wrong_then_silent).await, Err("its certificate has expired".to_owned()));
        assert_eq!(refused(std::future::pending).await, Err("no answer within 3.5 s".to_owned()));
        let mut tries = 0;
        let late = async || {
            tries += 1;
            if tries < 5 { Err("connection refused".to_owned()) } else { Ok(()) }
        };
        assert_eq!(refused(late).await, Ok(()));
    }
}
