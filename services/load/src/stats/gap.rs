//! What lies between the client's p99 and the nodes': the parts that add up to it, from requests that were looked at closely
//! by both sides.

use serde::Serialize;

use super::{parts::PartSample, server_counts::ServerOpCounts};

/// Fewer requests with known parts say nothing of their slowest hundredth.
const SAMPLES_MIN: usize = 1000;

/// This share of the requests, those nearest to the client's p99, stands for it with its parts.
const NEAREST: f64 = 0.004;

/// So many standard deviations is what is told by a part of the requests allowed to be off by chance.
const DEVIATIONS: f64 = 2.0;

/// The way from the nodes' p99 to the client's, in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct P99Reconciled {
    /// As the client sees it, from when an operation should have begun.
    pub response_ms: f64,
    /// From when it was sent.
    pub service_ms: f64,
    /// The mesh's part, from the nodes' histograms.
    pub nodes_ms: f64,
    /// The bucket it lies in. The upper bound is missing beyond the last one.
    pub nodes_bucket_ms: (f64, Option<f64>),
    /// The same as Prometheus computes it, if it was asked.
    pub prometheus_ms: Option<f64>,
    /// The mesh's part, from what nodes told with their answers, which is what spans say.
    pub told_ms: f64,
    /// How many answers that was.
    pub samples: usize,
    /// The gap between the client's p99 and the nodes', in the parts of the requests around the client's p99, on average.
    pub gap_ms: f64,
    /// Waiting to be sent.
    pub lag_ms: f64,
    /// At another node first.
    pub elsewhere_ms: f64,
    /// From when the client's kernel had received the answer until the client had read it.
    pub client_queue_ms: f64,
    /// From one kernel to the other and back.
    pub network_ms: f64,
    /// From when the node's kernel had received the request until the node looked at it.
    pub server_queue_ms: f64,
    /// Of requests whose kernels did not tell: network and queues.
    pub residual_ms: f64,
    /// The node, outside the mesh.
    pub handler_ms: f64,
    /// The mesh, beyond the nodes' p99; below zero if these requests were quicker there.
    pub mesh_ms: f64,
    /// All of their time in the mesh.
    pub in_mesh_ms: f64,
    /// Of that, the longest leg that made the answer; nodes report legs beyond a millisecond.
    pub legs_ms: f64,
    /// Of that, in the queues of the peers and of the node: from when a host had received what a leg sent until its thread looked.
    pub legs_queued_ms: f64,
    /// What the parts leave of the gap, and by how much the figures for the mesh disagree.
    pub unexplained_ms: f64,
    /// That, in percent of the gap.
    pub unexplained_percent: f64,
}

impl P99Reconciled {
    pub(crate) fn new(response_s: f64, samples: &[PartSample], nodes: &ServerOpCounts) -> Option<Self> {
        let count = samples.len();
        if count < SAMPLES_MIN {
            return None;
        }
        let quantile = nodes.quantile(0.99)?;
        let told = ReportedP99::new(samples);
        let mut nearest = samples.to_vec();
        let off = |sample: &PartSample| (sample.response_s() - response_s).abs();
        nearest.sort_by(|one, other| off(one).total_cmp(&off(other)));
        nearest.truncate((NEAREST * count as f64) as usize);
        let mean = |part: fn(&PartSample) -> f32| {
            nearest.iter().map(|sample| f64::from(part(sample))).sum::<f64>() * 1e3 / nearest.len() as f64
        };
        let (lag_ms, elsewhere_ms) = (mean(|sample| sample.lag_s), mean(|sample| sample.elsewhere_s));
        let (client_queue_ms, server_queue_ms) =
            (mean(|sample| sample.client_queue_s), mean(|sample| sample.server_queue_s));
        let (network_ms, residual_ms) = (mean(|sample| sample.network_s), mean(|sample| sample.residual_s));
        let handler_ms = mean(|sample| sample.handler_s);
        let (in_mesh_ms, legs_ms) = (mean(|sample| sample.mesh_s), mean(|sample| sample.legs_s));
        let legs_queued_ms = mean(|sample| sample.legs_queued_s);
        let (response_ms, nodes_ms) = (response_s * 1e3, quantile.guess_s * 1e3);
        let between_ms = client_queue_ms + network_ms + server_queue_ms + residual_ms;
        let left_ms = response_ms - (lag_ms + elsewhere_ms + between_ms + handler_ms + in_mesh_ms);
        let disagree_s = (quantile.from_s - told.most_s).max(told.least_s - quantile.to_s).max(0.0);
        let unexplained_ms = disagree_s.mul_add(1e3, left_ms.abs());
        let gap_ms = response_ms - nodes_ms;
        Some(Self {
            response_ms,
            service_ms: response_ms,
            nodes_ms,
            nodes_bucket_ms: (quantile.from_s * 1e3, quantile.to_s.is_finite().then_some(quantile.to_s * 1e3)),
            prometheus_ms: None,
            told_ms: told.p99_s * 1e3,
            samples: count,
            gap_ms,
            lag_ms,
            elsewhere_ms,
            client_queue_ms,
            network_ms,
            server_queue_ms,
            residual_ms,
            handler_ms,
            mesh_ms: in_mesh_ms - nodes_ms,
            in_mesh_ms,
            legs_ms,
            legs_queued_ms,
            unexplained_ms,
            unexplained_percent: if gap_ms == 0.0 { 0.0 } else { unexplained_ms * 100.0 / gap_ms.abs() },
        })
    }
}

/// The mesh's p99 as nodes told it with some of their answers, and between what bounds that of all answers lies.
struct ReportedP99 {
    p99_s: f64,
    least_s: f64,
    most_s: f64,
}

impl ReportedP99 {
    fn new(samples: &[PartSample]) -> Self {
        let mut told: Vec<f64> = samples.iter().map(|sample| f64::from(sample.mesh_s)).collect();
        told.sort_by(f64::total_cmp);
        let count = told.len() as f64;
        // How many of the samples lie below the true quantile is binomially distributed.
        let off = DEVIATIONS * (count * 0.99 * 0.01).sqrt();
        let at = |rank: f64| told[(rank.max(0.0) as usize).min(told.len() - 1)];
        Self {
            p99_s: at(0.99 * count),
            least_s: at(0.99f64.mul_add(count, -off)),
            most_s: at(0.99f64.mul_add(count, off)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<PartSample> {
        let sample = |at: u16| PartSample {
            network_s: 9e-7 * f32::from(at),
            server_queue_s: 1e-7 * f32::from(at),
            handler_s: 1e-4,
            mesh_s: 5e-7 * f32::from(at),
            legs_s: 4e-7 * f32::from(at),
            legs_queued_s: 3e-7 * f32::from(at),
            ..PartSample::default()
        };
        (0..2000).map(sample).collect()
    }

    fn nodes(bounds: [f64; 2]) -> ServerOpCounts {
        let buckets = vec![(bounds[0], 0), (bounds[1], 2000), (f64::INFINITY, 2000)];
        ServerOpCounts { buckets, ..ServerOpCounts::default() }
    }

    #[test]
    fn parts_explain_the_way_from_the_nodes_to_the_client() {
        let (response_s, all) = (0.001_98 * 1.5 + 1e-4, samples());
        let found = P99Reconciled::new(response_s, &all, &nodes([0.0005, 0.001]));
        let explains = |found: P99Reconciled| {
            found.unexplained_percent < 1.0
                && (found.told_ms - 0.99).abs() < 0.01
                && (found.network_ms + found.server_queue_ms - 1.98).abs() < 0.01
                && (found.server_queue_ms - 0.198).abs() < 0.001
                && (found.legs_ms - 0.79).abs() < 0.01
                && (found.legs_queued_ms - 0.59).abs() < 0.01
                && found.nodes_bucket_ms == (0.5, Some(1.0))
                && (found.server_queue_ms + found.network_ms + found.handler_ms + found.mesh_ms - found.gap_ms).abs()
                    < 0.02
        };
        assert!(found.is_some_and(explains), "{found:?}");
        // Nodes whose histograms say something else than their answers are found out.
        let found = P99Reconciled::new(response_s, &all, &nodes([0.002, 0.005]));
        assert!(found.is_some_and(|found| found.unexplained_ms > 1.0), "{found:?}");
        assert!(P99Reconciled::new(response_s, &all[..100], &nodes([0.0005, 0.001])).is_none(), "too few");
    }
}
