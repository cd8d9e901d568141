//! What lies between the client's p99 and the nodes': the parts that add up to it, from requests that were looked at closely
//! by both sides.

use serde::Serialize;

use crate::{parts::PartSample, served::ServedOp};

/// Fewer requests with known parts say nothing of their slowest hundredth.
const SAMPLES_MIN: usize = 1000;

/// The share of requests on either side of the p99 whose parts stand for those of the p99.
const BAND: f64 = 0.002;

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

impl P99Reconciled {
    pub(crate) fn new(response_s: f64, samples: &[PartSample], nodes: &ServedOp) -> Option<Self> {
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
}
