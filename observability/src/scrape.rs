//! What a node's own metrics say about its operations, read back: for client/server reconciliation. It stands
//! here because the names do.

use std::time::Duration;

use crate::catalogue::{HTTP_CONNECTIONS_REFUSED, HTTP_REQUESTS_SHED, OP_DURATION, REQUESTS, START};

/// One node's operations since it started.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeOperations {
    /// When it started, in Unix seconds: another figure than before means that it has begun to count anew.
    pub started_unix_s: f64,
    /// Requests and connections shed by admission control, which are no operations.
    pub shed: u64,
    /// Operations whose large value was not answered with, to bound memory.
    pub withheld: u64,
    /// Operation, outcome, and how many.
    pub outcomes: Vec<(String, String, u64)>,
    /// Operation, a bucket's upper bound in seconds, and how many took no longer.
    pub buckets: Vec<(String, f64, u64)>,
}

impl NodeOperations {
    /// From `GET /metrics`. Lines that make no sense are skipped: a figure that is missing is seen by who compares.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let (Ok(value), (name, labels)) = (value.parse::<f64>(), series.split_once('{').unwrap_or((series, "")))
            else {
                continue;
            };
            let label = |wanted: &str| label(labels, wanted).map(str::to_owned);
            // Other programs tell when they started, too.
            if name == START.name && label("node").is_some() {
                found.started_unix_s = value;
            } else if name == HTTP_REQUESTS_SHED.name && label("reason").as_deref() == Some("answers") {
                found.withheld += value as u64;
            } else if name == HTTP_REQUESTS_SHED.name || name == HTTP_CONNECTIONS_REFUSED.name {
                found.shed += value as u64;
            } else if name == REQUESTS.name {
                found.outcomes.extend(label("op").zip(label("outcome")).map(|(op, how)| (op, how, value as u64)));
            } else if name.strip_suffix("_bucket") == Some(OP_DURATION.name) {
                let bound = label("le").and_then(|le| le.replace("+Inf", "inf").parse().ok());
                found.buckets.extend(label("op").zip(bound).map(|(op, le)| (op, le, value as u64)));
            }
        }
        found
    }
}

/// PromQL for the p99 of every operation over the last `window`, in seconds, of the nodes that Prometheus scrapes at these
/// addresses.
#[must_use]
pub fn p99_query(instances: &[String], window: Duration) -> String {
    let (name, seconds) = (OP_DURATION.name, window.as_secs().max(1));
    // In a pattern within a string, a dot is escaped twice.
    let instances = instances.join("|").replace('.', "\\\\.");
    format!(
        "histogram_quantile(0.99, sum by (le, op) (increase({name}_bucket{{instance=~\"{instances}\"}}[{seconds}s])))"
    )
}

/// The value of a label that never holds what would have to be escaped, which is so for all that are asked for here.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let values = labels.match_indices(name).filter_map(|(at, _)| {
        let is_whole = labels[..at].chars().next_back().is_none_or(|before| before == ',');
        labels[at + name.len()..].strip_prefix("=\"").filter(|_| is_whole)
    });
    values.filter_map(|value| value.split('"').next()).next()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use arrayvec::ArrayVec;
    use mesh_proto::{KeyHash, Monotonic, NodeId, OpOutcome, OpRecord, OperationKind};

    use super::*;
    use crate::{Exposition, Shed, Telemetry};

    #[test]
    fn what_a_node_writes_is_read_back() {
        let telemetry = Telemetry::new("a{op=\"set\",b", NodeId::new(1), "1").unwrap();
        for millis in [3, 30] {
            telemetry.operation(&OpRecord {
                op: OperationKind::Get,
                outcome: OpOutcome::Miss,
                took: Duration::from_millis(millis),
                started: Monotonic::default(),
                hash: KeyHash::of(b"k"),
                version: None,
                trace: None,
                legs: ArrayVec::new(),
            });
        }
        telemetry.shed(Shed::Queue);
        telemetry.shed(Shed::Answers);
        telemetry.connection_refused();
        for accept in ["", "application/openmetrics-text"] {
            let found = NodeOperations::parse(&telemetry.render(Exposition::negotiate([accept])));
            assert_eq!((found.shed, found.withheld), (2, 1));
            let counted: Vec<_> = found.outcomes.iter().filter(|(.., count)| *count > 0).collect();
            assert_eq!(counted, [&("get".to_owned(), "miss".to_owned(), 2)]);
            let at = |bound: f64| found.buckets.iter().find(|(op, le, _)| op == "get" && *le == bound).unwrap().2;
            assert_eq!((at(0.002), at(0.005), at(0.05), at(f64::INFINITY)), (0, 1, 2, 2));
        }
    }

    #[test]
    fn prometheus_is_asked_of_these_nodes_only() {
        let text = p99_query(&["10.0.0.1:80".to_owned(), "node2:80".to_owned()], Duration::from_millis(2900));
        let nodes = r#"instance=~"10\\.0\\.0\\.1:80|node2:80""#;
        let wanted =
            format!("histogram_quantile(0.99, sum by (le, op) (increase({}_bucket{{{nodes}}}[2s])))", OP_DURATION.name);
        assert_eq!(text, wanted);
    }

    #[test]
    fn nonsense_is_skipped() {
        let text =
            "# HELP x\nmesh_requests_total\nmesh_requests_total{op=\"get\"} 1\nmesh_requests_total{ x\n\u{fffd} 1";
        assert_eq!(NodeOperations::parse(text), NodeOperations::default());
    }
}
