//! The periodic comparison of one key between all nodes. Replication takes a moment, so a difference only counts if a
//! node is still behind a second later.

use std::{cell::RefCell, time::Duration};

use borsh::{BorshDeserialize, BorshSerialize};
use serde::Serialize;

use super::{progress::say, run::Run};
use crate::{Cluster, ErrorKind, NodeIndex, Op, stats::Tries, target::cluster::HeldVersion};

/// How long a node may be behind the others.
const GRACE: Duration = Duration::from_secs(1);

/// A node that stayed behind.
#[derive(BorshDeserialize, BorshSerialize, Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Divergence {
    /// When, in seconds after the load began.
    pub at_s: f64,
    /// Which node.
    pub node: String,
    /// Which key.
    pub key: String,
    /// What the node has, or `none`.
    pub has: String,
    /// It has nothing, rather than something older: an eviction would explain that.
    pub has_nothing: bool,
    /// What another node had a second earlier.
    pub newest: String,
    /// The trace of another read of it at this node, right behind.
    pub trace: Option<String>,
}

/// What all comparisons found.
#[derive(BorshDeserialize, BorshSerialize, Clone, Debug)]
pub(crate) struct Comparisons {
    pub(crate) made: u64,
    /// The reads that nodes were asked for.
    pub(crate) tries: Tries,
    pub(crate) divergences: Vec<Divergence>,
}

impl Comparisons {
    pub(crate) fn new(nodes: usize) -> Self {
        Self { made: 0, tries: Tries::new(nodes), divergences: Vec::new() }
    }

    /// Adds another shard's.
    pub(crate) fn merge(&mut self, other: Self) {
        self.made += other.made;
        self.tries.merge(&other.tries);
        self.divergences.extend(other.divergences);
    }
}

/// Compares a random key every `every`, until dropped.
pub(crate) async fn compare_for_ever(run: &Run, cluster: &impl Cluster, every: Duration, found: &RefCell<Comparisons>) {
    let mut dice = run.plan.dice(usize::from(u8::MAX), 0);
    loop {
        tokio::time::sleep(every).await;
        let key = run.plan.keys.choose(Op::Get, run.load_elapsed(), &mut dice).name();
        let first = read_all(run, cluster, &key, found).await;
        found.borrow_mut().made += 1;
        let newest = first.iter().flatten().max().copied().flatten();
        // Who is cut off is behind: that is what the fault is for.
        if run.plan.ttl.is_some() || run.may_differ() || first.iter().flatten().all(|seen| *seen == newest) {
            continue;
        }
        tokio::time::sleep(GRACE).await;
        let second = read_all(run, cluster, &key, found).await;
        if run.may_differ() {
            continue;
        }
        for (node, seen) in second.into_iter().enumerate() {
            // What is gone may have been deleted in the meantime.
            let may_be_gone = run.plan.delete_ratio > 0;
            let is_behind = |seen: &HeldVersion| *seen < newest && !(seen.is_none() && may_be_gone);
            let Some(seen) = seen.filter(is_behind) else { continue };
            let divergence = Divergence {
                at_s: run.load_elapsed().as_secs_f64(),
                node: run.plan.targets[node].clone(),
                key: String::from_utf8_lossy(&key).into_owned(),
                has: words(seen),
                has_nothing: seen.is_none(),
                newest: words(newest),
                trace: traced_read(run, cluster, NodeIndex(node), &key, found).await,
            };
            let trace = divergence.trace.iter().map(|trace| format!(" trace={trace}")).collect::<String>();
            say(&format!(
                "[MISMATCH] t={:.1}s node={} key={} has={} newest={}{trace}",
                divergence.at_s, divergence.node, divergence.key, divergence.has, divergence.newest
            ));
            found.borrow_mut().divergences.push(divergence);
        }
    }
}

/// Reads once more so that there is a trace to look at.
async fn traced_read(
    run: &Run,
    cluster: &impl Cluster,
    node: NodeIndex,
    key: &[u8],
    found: &RefCell<Comparisons>,
) -> Option<String> {
    found.borrow_mut().tries.add_try(node, Op::Get, Err(ErrorKind::Closed), Duration::ZERO);
    let Some((trace, read)) = cluster.traced_read(node, key).await else {
        found.borrow_mut().tries.take_back(node, Op::Get);
        return None;
    };
    if let Ok(outcome) = read {
        found.borrow_mut().tries.mend(node, Op::Get, outcome, run.load_elapsed());
    }
    Some(format!("{trace:032x}"))
}

/// What every node has; nothing for a node that cannot say.
async fn read_all(
    run: &Run,
    cluster: &impl Cluster,
    key: &[u8],
    found: &RefCell<Comparisons>,
) -> Vec<Option<HeldVersion>> {
    let mut seen = Vec::new();
    for node in (0..run.plan.targets.len()).map(NodeIndex) {
        // The load may end while it is under way, and then this is all that is ever known of it.
        found.borrow_mut().tries.add_try(node, Op::Get, Err(ErrorKind::Closed), Duration::ZERO);
        let read = cluster.read(node, key).await;
        if let Ok((outcome, _)) = &read {
            found.borrow_mut().tries.mend(node, Op::Get, *outcome, run.load_elapsed());
        }
        seen.push(read.ok().map(|(_, seen)| seen));
    }
    seen
}

fn words(seen: HeldVersion) -> String {
    seen.map_or_else(|| "none".to_owned(), |version| version.to_string())
}
