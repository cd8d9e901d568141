//! Before the first request: every target must answer, and be ready. A misspelt name is told at once, not as a million
//! failed operations.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use load::{Cluster, PlannedFault, all_of};
use tokio::time::Instant;

use crate::{
    control::HttpCluster,
    http::Health,
    settings::{HttpSettings, TargetUrl},
};

/// Targets that give no answer within this time are unreachable; the promise to the user is five seconds.
const REACHABLE_WITHIN: Duration = Duration::from_millis(3500);

const POLL: Duration = Duration::from_millis(100);

/// Finds the targets; those that are not ready in the end start as down, if the settings allow that at all.
///
/// # Errors
/// Which targets do not answer or are not ready, and why.
pub(crate) async fn find_targets(
    targets: &[TargetUrl],
    settings: &HttpSettings,
    cluster: &HttpCluster,
) -> Result<Arc<[Health]>, String> {
    let needed = if settings.targets_min == 0 { targets.len() } else { settings.targets_min.min(targets.len()) };
    let began = Instant::now();
    let mut found = Vec::new();
    for (node, target) in targets.iter().enumerate() {
        found.push(find(node, target, cluster, began + REACHABLE_WITHIN));
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
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    let health = |((target, found), ready): ((&TargetUrl, &Result<SocketAddr, String>), &bool)| {
        Health::new(target.clone(), found.as_ref().copied().unwrap_or(nowhere), *ready)
    };
    Ok(targets.iter().zip(&found).zip(&ready).map(health).collect())
}

/// Whether the nodes that faults are about obey; ends what an earlier run may have left there.
///
/// # Errors
/// Which node does not, and why.
pub(crate) async fn allow_faults(
    faults: &[PlannedFault],
    targets: &[TargetUrl],
    cluster: &HttpCluster,
) -> Result<(), String> {
    for node in faults.iter().flat_map(|fault| &fault.nodes) {
        let healed = cluster.heal(*node).await;
        healed.map_err(|reason| format!("FAULTS: {} refuses them: {reason}", targets[node.0].url()))?;
    }
    Ok(())
}

async fn find(node: usize, target: &TargetUrl, cluster: &HttpCluster, deadline: Instant) -> Result<SocketAddr, String> {
    loop {
        let asked = async {
            let mut addrs = tokio::net::lookup_host(&target.authority).await.map_err(|error| error.to_string())?;
            let addr = addrs.next().ok_or_else(|| "the name has no address".to_owned())?;
            cluster.is_ready(node).await.map(|_| addr)
        };
        let result = tokio::time::timeout_at(deadline + POLL, asked).await;
        let reason = match result {
            Ok(Ok(addr)) => return Ok(addr),
            Ok(Err(reason)) => reason,
            Err(_) => format!("no answer within {:.1} s", REACHABLE_WITHIN.as_secs_f64()),
        };
        if Instant::now() >= deadline {
            return Err(reason);
        }
        tokio::time::sleep(POLL).await;
    }
}
