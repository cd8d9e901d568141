//! Client/server reconciliation: how many operations each side counted, by node, operation and outcome. Every try that
//! had a reply must stand in its node's count, and nothing else but the tries that had none; what is beyond that is unexplained.
//! The load alone is compared: nodes are asked before it, after the prefill, and after it, before the final sweep.

use serde::Serialize;

use super::numbers::grouped;
use crate::{
    Op, OutcomeClass, ServerCounts,
    exec::Observed,
    stats::{Cover, OpTries, P99Reconciled, Recorder, ServerOpCounts, Tries, during},
};

/// The outcome of client/server reconciliation.
#[derive(Clone, Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Reconciliation {
    /// What nothing explains makes the run invalid.
    pub is_binding: bool,
    /// By operation, over the nodes whose count is whole; those that the load did not make are left out.
    pub ops: Vec<OpReconciled>,
    /// The nodes whose count is not.
    pub lossy_nodes: Vec<LossyNode>,
    /// Why Prometheus has no p99, if it was asked.
    pub prometheus: Option<String>,
    /// What nothing explains, at nodes whose count is whole.
    pub differences: Vec<Difference>,
}

/// One operation's counts. Reads of comparisons are among them on both sides.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OpReconciled {
    /// Which.
    pub op: Op,
    /// Replies and operations by outcome.
    pub outcomes: Vec<OutcomeReconciled>,
    /// The client's tries that were given up. Their nodes may have counted them.
    pub timed_out: u64,
    /// The client's tries whose connection broke. As above.
    pub broken_off: u64,
    /// What lost its caller at the node.
    pub nodes_abandoned: u64,
    /// Errors that nodes gave before they looked at the request, which are no operations there.
    pub shed: u64,
    /// Errors in place of a large value for which a node had no memory: a hit there.
    pub withheld: u64,
    /// Reads of comparisons that had a reply.
    pub comparisons: u64,
    /// The sum of what nothing explains.
    pub unexplained: u64,
    /// Latencies; nothing if too few requests told of their parts.
    pub p99: Option<P99Reconciled>,
}

/// One outcome on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OutcomeReconciled {
    /// Which.
    pub outcome: &'static str,
    /// Replies that the client had.
    pub client: u64,
    /// Operations that the nodes counted.
    pub nodes: u64,
}

/// A node that lost what it had counted, or does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LossyNode {
    /// Its place among the targets.
    pub node: usize,
    /// When it began to count anew, in seconds after the load began; nothing if it does not tell its count at all.
    pub counts_since_s: Option<f64>,
    /// The client's replies from it that nothing can be compared with.
    pub unknowable: u64,
    /// The least and the most that it can have done since, by the client's replies.
    pub client_since: (u64, u64),
    /// What it has counted since.
    pub node_since: u64,
    /// By how much that lies outside.
    pub unexplained: i64,
}

/// Something that nothing explains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Difference {
    /// The node's place among the targets.
    pub node: usize,
    /// Which operation.
    pub op: Op,
    /// Which outcome; `all` if it is not known which.
    pub outcome: &'static str,
    /// What the client had.
    pub client: u64,
    /// What the node counted.
    pub counted: u64,
    /// How much of the difference has no name.
    pub unexplained: u64,
}

impl Difference {
    /// In a sentence.
    pub(crate) fn words(&self, targets: &[String]) -> String {
        let [client, counted, unexplained] = [self.client, self.counted, self.unexplained].map(grouped);
        let (target, op, outcome) = (&targets[self.node], self.op.name(), self.outcome);
        format!("{target} counted {counted} {op} {outcome}, the client had {client} replies: {unexplained} unexplained")
    }
}

impl Reconciliation {
    pub(crate) fn of(recorder: &Recorder, observed: &Observed, is_binding: bool) -> Option<Self> {
        let after = &observed.served_after_load;
        after.iter().flatten().next()?;
        let mut tries = recorder.tries.clone();
        observed.comparisons.iter().for_each(|comparisons| tries.merge(&comparisons.tries));
        let mut books = Books::default();
        for (node, (before, after)) in observed.served_before_load.iter().zip(after).enumerate() {
            let (served, cover) = during(before.as_ref(), after.as_ref());
            books.histograms.iter_mut().zip(&served.ops).for_each(|(sum, op)| sum.add(op));
            if cover == Cover::Whole {
                books.whole_nodes.push(node);
                books.enter(node, &tries, &served);
            } else {
                let began_s = observed.times.load_began as f64 / 1e3;
                books.lossy_nodes.push(LossyNode::new(node, &tries, &served, cover, began_s));
            }
        }
        let ops = Op::ALL.into_iter().filter_map(|op| books.op(op, recorder, observed)).collect();
        let prometheus = observed.watched_p99.as_ref().and_then(|watched| watched.as_ref().err().cloned());
        let Books { lossy_nodes, differences, .. } = books;
        Some(Self { is_binding, ops, lossy_nodes, prometheus, differences })
    }
}

/// Both sides while they are being compared.
#[derive(Default)]
struct Books {
    whole_nodes: Vec<usize>,
    lossy_nodes: Vec<LossyNode>,
    client: [OpTries; Op::ALL.len()],
    nodes: [ServerOpCounts; Op::ALL.len()],
    shed: [u64; Op::ALL.len()],
    withheld: [u64; Op::ALL.len()],
    differences: Vec<Difference>,
    /// Of all nodes, as far as they tell.
    histograms: [ServerOpCounts; Op::ALL.len()],
}

impl Books {
    /// Enters a node whose count is whole.
    fn enter(&mut self, node: usize, tries: &Tries, served: &ServerCounts) {
        let mut refused = Refused { at_the_door: served.shed, withheld: served.withheld };
        for op in Op::ALL {
            let (client, counted) = (tries.of(node, op), &served.ops[op as usize]);
            let (found, of_op) = compare(node, op, client, counted, refused);
            refused.at_the_door -= of_op.at_the_door;
            refused.withheld -= of_op.withheld;
            self.shed[op as usize] += of_op.at_the_door;
            self.withheld[op as usize] += of_op.withheld;
            self.differences.extend(found);
            self.client[op as usize].add(client);
            self.nodes[op as usize].add(counted);
        }
    }

    fn op(&self, op: Op, recorder: &Recorder, observed: &Observed) -> Option<OpReconciled> {
        let response = recorder.response.select(|series| series.op == op);
        if response.count() == 0 {
            return None;
        }
        let (client, nodes) = (&self.client[op as usize], &self.nodes[op as usize]);
        let both = |outcome: OutcomeClass| {
            let (client, nodes) = (client.replies[outcome as usize], nodes.outcomes[outcome as usize]);
            (client + nodes > 0).then_some(OutcomeReconciled { outcome: outcome.name(), client, nodes })
        };
        let compared = observed
            .comparisons
            .iter()
            .flat_map(|comparisons| self.whole_nodes.iter().map(|node| comparisons.tries.of(*node, op).replied()));
        let of_op = self.differences.iter().filter(|difference| difference.op == op);
        let (response, service) = (response.percentile(99.0), recorder.service_of(op).percentile(99.0));
        let samples = recorder.aftermath.parts[op as usize].samples();
        let mut p99 = P99Reconciled::new(response.as_secs_f64(), samples, &self.histograms[op as usize]);
        if let Some(p99) = &mut p99 {
            // A closed loop sends at once.
            let watched = observed.watched_p99.as_ref().and_then(|watched| watched.as_ref().ok()?[op as usize]);
            p99.prometheus_ms = watched.map(|seconds| seconds * 1e3);
            p99.service_ms = if service.is_zero() { p99.response_ms } else { service.as_secs_f64() * 1e3 };
        }
        Some(OpReconciled {
            op,
            outcomes: OutcomeClass::ALL.into_iter().filter_map(both).collect(),
            timed_out: client.timed_out,
            broken_off: client.broken_off,
            nodes_abandoned: nodes.abandoned,
            shed: self.shed[op as usize],
            withheld: self.withheld[op as usize],
            comparisons: compared.sum(),
            unexplained: of_op.map(|difference| difference.unexplained).sum(),
            p99,
        })
    }
}

/// Errors that a node gave and counted neither as an error nor with another outcome that its client has.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Refused {
    /// No operation began.
    at_the_door: u64,
    /// The operation ended with a hit.
    withheld: u64,
}

/// What nothing explains at one node, and how many of the client's errors were refused.
fn compare(
    node: usize,
    op: Op,
    client: &OpTries,
    nodes: &ServerOpCounts,
    refused: Refused,
) -> (Vec<Difference>, Refused) {
    let (mut found, mut of_op, mut more) = (Vec::new(), Refused::default(), nodes.abandoned);
    for outcome in OutcomeClass::ALL {
        let (had, counted) = (client.replies[outcome as usize], nodes.outcomes[outcome as usize]);
        more += counted.saturating_sub(had);
        let mut fewer = had.saturating_sub(counted);
        if outcome == OutcomeClass::Error {
            // Only reads have values to withhold.
            of_op.withheld = if op == Op::Get { fewer.min(refused.withheld) } else { 0 };
            of_op.at_the_door = (fewer - of_op.withheld).min(refused.at_the_door);
            fewer -= of_op.withheld + of_op.at_the_door;
        }
        if fewer > 0 {
            found.push(Difference { node, op, outcome: outcome.name(), client: had, counted, unexplained: fewer });
        }
    }
    let beyond = more.saturating_sub(client.silent() + of_op.withheld);
    if beyond > 0 {
        let (client, counted) = (client.replied(), nodes.all());
        found.push(Difference { node, op, outcome: "operations", client, counted, unexplained: beyond });
    }
    (found, of_op)
}

impl LossyNode {
    fn new(node: usize, tries: &Tries, served: &ServerCounts, cover: Cover, load_began_unix_s: f64) -> Self {
        let all = tries.at(node);
        let nothing = Self {
            node,
            counts_since_s: None,
            unknowable: all.replied(),
            client_since: (0, 0),
            node_since: 0,
            unexplained: 0,
        };
        let Cover::Since(since_unix_s) = cover else { return nothing };
        let since_s = since_unix_s - load_began_unix_s;
        // A node that is older than the load and did not tell its count ahead of it has counted more than the load.
        let Ok(since) = std::time::Duration::try_from_secs_f64(since_s) else { return nothing };
        let (least, most) = tries.replies_since(node, since);
        let node_since = served.ops.iter().map(ServerOpCounts::all).sum();
        let client_since = (least.saturating_sub(served.shed), most + all.silent());
        Self {
            counts_since_s: Some(since_s),
            unknowable: all.replied() - least,
            client_since,
            node_since,
            unexplained: beyond(node_since, client_since),
            ..nothing
        }
    }
}

/// By how much a figure lies outside of a range.
const fn beyond(figure: u64, (least, most): (u64, u64)) -> i64 {
    if figure < least {
        -((least - figure) as i64)
    } else if figure > most {
        (figure - most) as i64
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{ErrorKind, NodeIndex};

    fn nodes(outcomes: [u64; 5], abandoned: u64) -> ServerOpCounts {
        ServerOpCounts { outcomes, abandoned, ..ServerOpCounts::default() }
    }

    fn found(client: &OpTries, nodes: &ServerOpCounts, at_the_door: u64) -> (Vec<(&'static str, u64)>, u64) {
        let (found, refused) = compare(0, Op::Get, client, nodes, Refused { at_the_door, withheld: 0 });
        (found.iter().map(|difference| (difference.outcome, difference.unexplained)).collect(), refused.at_the_door)
    }

    #[test]
    fn only_tries_without_a_reply_may_be_counted_besides() {
        let client = OpTries { replies: [100, 10, 1, 0, 2], timed_out: 2, broken_off: 1 };
        let nothing = (Vec::new(), 0);
        assert_eq!(found(&client, &nodes([100, 10, 1, 0, 2], 0), 0), nothing);
        assert_eq!(found(&client, &nodes([101, 10, 1, 0, 3], 1), 0), nothing, "late, and abandoned");
        assert_eq!(found(&client, &nodes([101, 10, 1, 0, 3], 2), 0), (vec![("operations", 1)], 0));
        // One too few is not made up for by one too many of another outcome.
        assert_eq!(found(&client, &nodes([99, 11, 1, 0, 2], 0), 0), (vec![("HIT_LOCAL", 1)], 0));
        assert_eq!(found(&client, &nodes([100, 10, 1, 0, 0], 0), 5), (Vec::new(), 2), "shed");
        assert_eq!(found(&client, &nodes([100, 10, 1, 0, 0], 0), 1), (vec![("ERROR", 1)], 1));
    }

    #[test]
    fn a_hit_that_was_answered_with_an_error_is_explained_once() {
        let client = OpTries { replies: [98, 9, 0, 0, 3], ..OpTries::default() };
        let compared = |at_the_door, withheld| {
            let (found, refused) =
                compare(0, Op::Get, &client, &nodes([100, 10, 0, 0, 0], 0), Refused { at_the_door, withheld });
            (found.len(), refused.withheld, refused.at_the_door)
        };
        assert_eq!([compared(0, 4), compared(0, 3), compared(0, 2)], [(0, 3, 0), (0, 3, 0), (2, 2, 0)]);
        // Those at the door are left to other operations.
        assert_eq!(compared(5, 3), (0, 3, 0));
        let client = OpTries { replies: [0, 0, 0, 5, 2], ..OpTries::default() };
        let refused = Refused { at_the_door: 2, withheld: 3 };
        let (found, of_op) = compare(0, Op::Set, &client, &nodes([0, 0, 0, 5, 0], 0), refused);
        assert_eq!((found.len(), of_op), (0, Refused { at_the_door: 2, withheld: 0 }));
    }

    #[test]
    fn a_node_that_counts_anew_is_compared_since_then() {
        let mut tries = Tries::new(1);
        let mut get = |at_s, reply| tries.add_try(NodeIndex(0), Op::Get, reply, Duration::from_secs(at_s));
        for at_s in [1, 1, 2, 7, 8, 9] {
            get(at_s, Ok(OutcomeClass::Local));
        }
        get(2, Err(ErrorKind::Closed));
        let served = |hits, cover| {
            let mut served = ServerCounts::default();
            served.ops[0].outcomes[0] = hits;
            LossyNode::new(0, &tries, &served, cover, 1000.0)
        };
        let node = served(3, Cover::Since(1005.0));
        assert_eq!((node.unknowable, node.client_since, node.unexplained), (3, (3, 4), 0));
        assert_eq!(served(2, Cover::Since(1005.0)).unexplained, -1);
        assert_eq!(served(6, Cover::Since(1005.0)).unexplained, 2);
        let unknowable = |node: LossyNode| (node.counts_since_s, node.unknowable, node.unexplained);
        assert_eq!(unknowable(served(9, Cover::Since(999.0))), (None, 6, 0));
        assert_eq!(unknowable(served(0, Cover::Nothing)), (None, 6, 0));
    }
}
