//! The client's books against the nodes': how many operations each side counted, and what lies between the client's p99 and
//! the nodes'. Every difference has a name or is called unexplained. The load alone is compared: nodes are asked before it,
//! behind the prefill, and after it, ahead of the final sweep.

use std::fmt::Result as Written;

use serde::Serialize;

use crate::{
    Op, OutcomeClass, Recorder, Report,
    numbers::grouped,
    parts::PartSample,
    served::{ServedOp, during},
    session::Observed,
    summary::{field, heading, ms},
};

/// Fewer requests with known parts say nothing of their slowest hundredth.
const SAMPLES_MIN: usize = 1000;

/// The share of requests on either side of the p99 whose parts stand for those of the p99.
const BAND: f64 = 0.002;

/// See the file's head.
#[derive(Clone, Debug, Serialize)]
pub struct Reconciliation {
    /// By operation; those that the load did not make are left out.
    pub ops: Vec<OpReconciled>,
    /// The nodes, by their place among the targets, whose count is not whole: restarted, or without an answer.
    pub lossy_nodes: Vec<usize>,
}

/// One operation's counts.
#[derive(Clone, Debug, Serialize)]
pub struct OpReconciled {
    /// Which.
    pub op: Op,
    /// What the client got an answer to.
    pub client_answered: u64,
    /// What it did not, or not as it should be.
    pub client_failed: u64,
    /// What the nodes answered.
    pub nodes_answered: u64,
    /// What they did not, or not as it should be.
    pub nodes_failed: u64,
    /// What lost its caller at the node.
    pub nodes_abandoned: u64,
    /// Reads of comparisons that were answered, and those that may have been.
    pub comparisons: (u64, u64),
    /// At most so many answers came too late for the client, which counted a failure or asked another node.
    pub too_late_max: u64,
    /// How many more the nodes answered than all that explains; below zero: fewer. Nothing if a node's count is not whole.
    pub unexplained: Option<i64>,
    /// Latencies; nothing if too few requests told of their parts.
    pub p99: Option<P99Reconciled>,
}

/// The way from the nodes' p99 to the client's, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct P99Reconciled {
    /// As the client sees it, from when an operation should have begun.
    pub response_ms: f64,
    /// From when it was sent.
    pub service_ms: f64,
    /// The mesh's part, from the nodes' histograms.
    pub nodes_ms: f64,
    /// The bucket it lies in. The upper bound is missing beyond the last one.
    pub nodes_bucket_ms: (f64, Option<f64>),
    /// The mesh's part, from what nodes told with their answers.
    pub told_ms: f64,
    /// How many answers that was.
    pub samples: usize,
    /// The parts of the requests around the client's p99, on average: waiting to be sent.
    pub queue_ms: f64,
    /// At another node first.
    pub elsewhere_ms: f64,
    /// Network, kernel, and the queues on both sides.
    pub network_ms: f64,
    /// The node, outside the mesh.
    pub handler_ms: f64,
    /// The mesh.
    pub mesh_ms: f64,
    /// What the parts leave of the response time, and by how much the two figures of the mesh disagree.
    pub unexplained_ms: f64,
    /// That, in percent of the gap between client and nodes.
    pub unexplained_percent: f64,
}

impl Reconciliation {
    pub(crate) fn of(recorder: &Recorder, observed: &Observed) -> Option<Self> {
        observed.served_after_load.iter().flatten().next()?;
        let (nodes, lossy_nodes) = during(&observed.served_before_load, &observed.served_after_load);
        let op = |op: Op| {
            let nodes = &nodes.ops[op as usize];
            let (begun, answered) = if op == Op::Get { observed.comparisons.reads } else { (0, 0) };
            let count = OpReconciled::new(op, recorder, nodes, (answered, begun), lossy_nodes.is_empty());
            (count.client_answered + count.client_failed > 0).then_some(count)
        };
        Some(Self { ops: Op::ALL.into_iter().filter_map(op).collect(), lossy_nodes })
    }
}

impl OpReconciled {
    fn new(op: Op, recorder: &Recorder, nodes: &ServedOp, comparisons: (u64, u64), is_whole: bool) -> Self {
        let of_client = recorder.response.select(|series| series.op == op);
        let failed =
            recorder.response.select(|series| series.op == op && series.outcome == OutcomeClass::Error).count();
        let client_answered = of_client.count() - failed;
        // A failed operation may have been answered too late by two nodes.
        let too_late_max = 2 * failed + recorder.failed_over;
        let extra = nodes.answered() as i64 - client_answered as i64;
        let (response, service) = (of_client.percentile(99.0), recorder.service_of(op).percentile(99.0));
        let mut p99 =
            P99Reconciled::new(response.as_secs_f64(), recorder.aftermath.parts[op as usize].samples(), nodes);
        if let Some(p99) = &mut p99 {
            // A closed loop sends at once.
            p99.service_ms = if service.is_zero() { p99.response_ms } else { service.as_secs_f64() * 1e3 };
        }
        Self {
            op,
            client_answered,
            client_failed: failed,
            nodes_answered: nodes.answered(),
            nodes_failed: nodes.of(OutcomeClass::Error),
            nodes_abandoned: nodes.abandoned,
            comparisons,
            too_late_max,
            unexplained: is_whole.then(|| beyond(extra, comparisons.0, comparisons.1 + too_late_max)),
            p99,
        }
    }
}

/// By how much a figure lies outside of a range.
const fn beyond(extra: i64, least: u64, most: u64) -> i64 {
    let (least, most) = (least as i64, most as i64);
    if extra < least {
        extra - least
    } else if extra > most {
        extra - most
    } else {
        0
    }
}

impl P99Reconciled {
    fn new(response_s: f64, samples: &[PartSample], nodes: &ServedOp) -> Option<Self> {
        let count = samples.len();
        if count < SAMPLES_MIN {
            return None;
        }
        let quantile = nodes.quantile(0.99)?;
        let mut told: Vec<f64> = samples.iter().map(|sample| f64::from(sample.mesh_s)).collect();
        told.sort_by(f64::total_cmp);
        let rank = |share: f64| ((share * count as f64) as usize).min(count - 1);
        let told_s = told[rank(0.99)];
        let mut by_response = samples.to_vec();
        by_response.sort_by(|one, other| one.response_s().total_cmp(&other.response_s()));
        let band = &by_response[rank(0.99 - BAND)..=rank(0.99 + BAND)];
        let mean = |part: fn(&PartSample) -> f32| {
            band.iter().map(|sample| f64::from(part(sample))).sum::<f64>() * 1e3 / band.len() as f64
        };
        let [queue_ms, elsewhere_ms, network_ms, handler_ms, mesh_ms] = [
            mean(|sample| sample.queue_s),
            mean(|sample| sample.elsewhere_s),
            mean(|sample| sample.network_s),
            mean(|sample| sample.handler_s),
            mean(|sample| sample.mesh_s),
        ];
        let left_ms = response_s.mul_add(1e3, -(queue_ms + elsewhere_ms + network_ms + handler_ms + mesh_ms));
        let disagree_s = (quantile.from_s - told_s).max(told_s - quantile.to_s).max(0.0);
        let unexplained_ms = disagree_s.mul_add(1e3, left_ms.abs());
        let gap_ms = (response_s - quantile.guess_s).abs() * 1e3;
        Some(Self {
            response_ms: response_s * 1e3,
            service_ms: response_s * 1e3,
            nodes_ms: quantile.guess_s * 1e3,
            nodes_bucket_ms: (quantile.from_s * 1e3, quantile.to_s.is_finite().then_some(quantile.to_s * 1e3)),
            told_ms: told_s * 1e3,
            samples: count,
            queue_ms,
            elsewhere_ms,
            network_ms,
            handler_ms,
            mesh_ms,
            unexplained_ms,
            unexplained_percent: if gap_ms > 0.0 { unexplained_ms * 100.0 / gap_ms } else { 0.0 },
        })
    }
}

pub(crate) fn write(out: &mut String, report: &Report) -> Written {
    let Some(reconciliation) = &report.reconciliation else { return Ok(()) };
    heading(out, "Client and nodes")?;
    for op in &reconciliation.ops {
        counts(out, op)?;
        op.p99.iter().try_for_each(|p99| latency(out, op.op, p99))?;
    }
    for node in &reconciliation.lossy_nodes {
        let target = &report.setup.targets[*node];
        field(out, "not whole", &format!("{target} was restarted or is gone, and what it had counted with it"))?;
    }
    Ok(())
}

fn counts(out: &mut String, op: &OpReconciled) -> Written {
    let (answered, failed) = (grouped(op.client_answered), grouped(op.client_failed));
    let nodes = [op.nodes_answered, op.nodes_failed, op.nodes_abandoned].map(grouped);
    let name = op.op.name();
    let text = format!("client {answered} answered, {failed} failed");
    field(out, name, &format!("{text}; nodes {} answered, {} failed, {} abandoned", nodes[0], nodes[1], nodes[2]))?;
    let mut named = vec![format!("{} comparison reads", grouped(op.comparisons.0))];
    if op.too_late_max > 0 {
        named.push(format!("up to {} answers too late or after a fail-over", grouped(op.too_late_max)));
    }
    let unexplained =
        op.unexplained.map_or_else(|| "not comparable".to_owned(), |count| format!("unexplained {count}"));
    field(out, "", &format!("more at nodes: {}; {unexplained}", named.join(", ")))
}

fn latency(out: &mut String, op: Op, p99: &P99Reconciled) -> Written {
    let parts = [
        ("queue", p99.queue_ms),
        ("other node", p99.elsewhere_ms),
        ("network", p99.network_ms),
        ("handler", p99.handler_ms),
        ("mesh", p99.mesh_ms),
    ];
    let parts: Vec<_> = parts.iter().map(|(name, part)| format!("{name} {}", ms(*part))).collect();
    field(
        out,
        &format!("{} p99", op.name()),
        &format!("{} ms at the client = {}", ms(p99.response_ms), parts.join(" + ")),
    )?;
    let (from, to) = p99.nodes_bucket_ms;
    let to = to.map_or_else(|| "more".to_owned(), ms);
    let told = ms(p99.told_ms);
    let nodes = format!("{} at the nodes, within {} to {to}; {told} by their answers", ms(p99.nodes_ms), ms(from));
    let unexplained = format!("unexplained {} ({:.1} % of the gap)", ms(p99.unexplained_ms), p99.unexplained_percent);
    field(out, "", &format!("{nodes}; {unexplained}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<PartSample> {
        let sample = |at: u16| PartSample {
            queue_s: 0.0,
            elsewhere_s: 0.0,
            network_s: 1e-6 * f32::from(at),
            handler_s: 1e-4,
            mesh_s: 5e-7 * f32::from(at),
        };
        (0..2000).map(sample).collect()
    }

    fn nodes(bounds: [f64; 2]) -> ServedOp {
        let buckets = vec![(bounds[0], 0), (bounds[1], 2000), (f64::INFINITY, 2000)];
        ServedOp { buckets, ..ServedOp::default() }
    }

    #[test]
    fn parts_explain_the_way_from_the_nodes_to_the_client() {
        let (response_s, all) = (0.001_98 * 1.5 + 1e-4, samples());
        let found = P99Reconciled::new(response_s, &all, &nodes([0.0005, 0.001]));
        let explains = |found: P99Reconciled| {
            found.unexplained_percent < 1.0
                && (found.told_ms - 0.99).abs() < 0.01
                && (found.network_ms - 1.98).abs() < 0.01
                && found.nodes_bucket_ms == (0.5, Some(1.0))
        };
        assert!(found.is_some_and(explains), "{found:?}");
        // Nodes whose histograms say something else than their answers are found out.
        let found = P99Reconciled::new(response_s, &all, &nodes([0.002, 0.005]));
        assert!(found.is_some_and(|found| found.unexplained_ms > 1.0), "{found:?}");
        assert!(P99Reconciled::new(response_s, &all[..100], &nodes([0.0005, 0.001])).is_none(), "too few");
    }

    #[test]
    fn only_what_no_name_explains_is_unexplained() {
        assert_eq!([beyond(5, 5, 5), beyond(7, 5, 8), beyond(4, 5, 8), beyond(10, 5, 8)], [0, 0, -1, 2]);
    }
}
