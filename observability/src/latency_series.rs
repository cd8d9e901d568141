//! Latencies, with exemplars: a bucket names one of the traces in it that were kept. Only this family is kept by
//! `prometheus-client`, because the exporter of all others knows no exemplars; both are written as one document.

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime},
};

use prometheus_client::{
    encoding::text::encode_registry,
    metrics::{exemplar::HistogramWithExemplars, family::Family as Series},
    registry::Registry,
};

use crate::{
    catalogue::{Family, MetricKind, SECONDS_BUCKETS},
    trace::hex,
};

type ExemplarLabels = [(&'static str, String); 1];
type ExemplarHistogram = HistogramWithExemplars<ExemplarLabels>;
type Labels = [(&'static str, &'static str); 1];

/// What Grafana looks for.
const TRACE_ID: &str = "trace_id";

/// How an exemplar begins. No label can hold it, because quotes in labels are escaped.
const EXEMPLAR: &str = " # {trace_id=\"";

/// One family of latencies with a label that takes `N` values.
pub(crate) struct LatencySeries<const N: usize> {
    registry: Registry,
    series: [ExemplarHistogram; N],
}

impl<const N: usize> LatencySeries<N> {
    pub(crate) fn new(family: &Family, node: &str, label: &'static str, values: [&'static str; N]) -> Self {
        debug_assert_eq!(family.kind, MetricKind::Seconds, "{}", family.name);
        let mut registry = Registry::with_labels([("node".into(), node.to_owned().into())].into_iter());
        let all = Series::<Labels, ExemplarHistogram, fn() -> ExemplarHistogram>::new_with_constructor(latency);
        let series = values.map(|value| all.get_or_create_owned(&[(label, value)]));
        // The encoder ends it with a full stop.
        registry.register(family.name, family.help.trim_end_matches('.'), all);
        Self { registry, series }
    }

    /// Counts one; `kept` is the id of its trace if that can be looked at.
    pub(crate) fn observe(&self, index: usize, took: Duration, kept: Option<u128>) {
        let exemplar = kept.map(|trace| [(TRACE_ID, hex(trace))]);
        self.series[index].observe(took.as_secs_f64(), exemplar, kept.map(|_| SystemTime::now()));
    }

    /// As OpenMetrics, without the end mark.
    pub(crate) fn openmetrics(&self) -> String {
        let mut text = String::new();
        // A String takes all that it is given.
        let _ = encode_registry(&mut text, &self.registry);
        text
    }

    /// As Prometheus text, which knows no exemplars.
    pub(crate) fn prometheus(&self) -> String {
        let mut text = String::new();
        for line in self.openmetrics().lines() {
            let series = line.rfind(EXEMPLAR).map_or(line, |at| &line[..at]);
            let _ = writeln!(text, "{series}");
        }
        text
    }
}

fn latency() -> ExemplarHistogram {
    HistogramWithExemplars::new(SECONDS_BUCKETS.into_iter())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::OP_DURATION;

    #[test]
    fn a_hostile_name_stays_inside_its_label() {
        let name = "n\"} 1\n# {trace_id=\"x";
        let latencies = LatencySeries::new(&OP_DURATION, name, "op", ["get"]);
        latencies.observe(0, Duration::from_millis(1), None);
        for text in [latencies.openmetrics(), latencies.prometheus()] {
            let label = r#"node="n\"} 1\n# {trace_id=\"x","#;
            assert_eq!(text.matches(label).count(), SECONDS_BUCKETS.len() + 3, "{text}");
            assert!(text.lines().skip(2).all(|line| line.starts_with(OP_DURATION.name)), "{text}");
        }
    }

    fn series() -> LatencySeries<2> {
        LatencySeries::new(&OP_DURATION, "n1", "op", ["get", "set"])
    }

    #[test]
    fn only_kept_traces_become_exemplars() {
        let latencies = series();
        latencies.observe(0, Duration::from_micros(300), None);
        latencies.observe(1, Duration::from_millis(30), Some(0xabc));
        let text = latencies.openmetrics();
        let exemplars: Vec<&str> = text.lines().filter(|line| line.contains(" # {")).collect();
        assert_eq!(exemplars.len(), 1, "{text}");
        assert!(
            exemplars[0].contains("op=\"set\"")
                && exemplars[0].contains("{trace_id=\"00000000000000000000000000000abc\"} 0.03 "),
            "{text}"
        );
        assert!(text.contains("mesh_op_duration_seconds_count{node=\"n1\",op=\"get\"} 1\n"), "{text}");
    }

    #[test]
    fn prometheus_text_has_none() {
        let latencies = series();
        latencies.observe(1, Duration::from_millis(30), Some(0xabc));
        let text = latencies.prometheus();
        assert!(!text.contains("trace_id"), "{text}");
        let values = text.lines().filter(|line| !line.starts_with('#')).map(|line| line.rsplit_once(' '));
        assert!(values.into_iter().all(|value| value.is_some_and(|(_, value)| value.parse::<f64>().is_ok())), "{text}");
    }
}
