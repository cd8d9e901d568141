//! Where handles come from: it knows the exporter, so that the files that count need only know handles.

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::PrometheusRecorder;

use crate::catalogue::{ALL, Family, MetricKind};

/// The registry behind one node's handles. Descriptions come from the catalogue, and counters start at 0, so that the
/// first increment is an increase to Prometheus.
pub(crate) struct Registry {
    recorder: PrometheusRecorder,
}

impl Registry {
    pub(crate) fn new(recorder: PrometheusRecorder) -> Self {
        for Family { name, kind, help } in ALL {
            let (name, help) = (KeyName::from(*name), (*help).into());
            match kind {
                MetricKind::Counter => recorder.describe_counter(name, None, help),
                MetricKind::Gauge => recorder.describe_gauge(name, None, help),
                MetricKind::Seconds => recorder.describe_histogram(name, None, help),
            }
        }
        Self { recorder }
    }

    pub(crate) fn counter(&self, family: &Family, labels: &[(&'static str, &str)]) -> Counter {
        debug_assert_eq!(family.kind, MetricKind::Counter, "{}", family.name);
        let counter = self.recorder.register_counter(&key(family, labels), &METADATA);
        counter.increment(0);
        counter
    }

    pub(crate) fn gauge(&self, family: &Family, labels: &[(&'static str, &str)]) -> Gauge {
        debug_assert_eq!(family.kind, MetricKind::Gauge, "{}", family.name);
        self.recorder.register_gauge(&key(family, labels), &METADATA)
    }

    pub(crate) fn histogram(&self, family: &Family, labels: &[(&'static str, &str)]) -> Histogram {
        debug_assert_eq!(family.kind, MetricKind::Seconds, "{}", family.name);
        self.recorder.register_histogram(&key(family, labels), &METADATA)
    }
}

static METADATA: Metadata<'_> = Metadata::new("mesh", Level::INFO, None);

fn key(family: &Family, labels: &[(&'static str, &str)]) -> Key {
    let labels: Vec<Label> = labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
    Key::from_parts(family.name, labels)
}
