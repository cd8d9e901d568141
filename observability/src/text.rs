//! Metrics as Prometheus text, where the figures are read when they are asked for.

use std::fmt::Write;

use crate::catalogue::{Family, MetricKind, SECONDS_BUCKETS};

/// A bucket's exemplar: a trace in it that was kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exemplar {
    /// The trace.
    pub trace: u128,
    /// What was measured.
    pub seconds: f64,
    /// When, in seconds of the Unix clock.
    pub unix_s: f64,
}

/// Series that share a label.
pub(crate) struct Text<'a> {
    shared: (&'static str, &'a str),
    pub(crate) text: String,
}

impl<'a> Text<'a> {
    pub(crate) const fn new(label: &'static str, value: &'a str) -> Self {
        Self { shared: (label, value), text: String::new() }
    }

    pub(crate) fn head(&mut self, family: &Family) {
        let kind = match family.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Seconds => "histogram",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "# HELP {0} {1}\n# TYPE {0} {kind}", family.name, family.help);
    }

    pub(crate) fn one(&mut self, family: &Family, value: f64) {
        self.head(family);
        self.line(family.name, &[], value);
    }

    pub(crate) fn line(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.line_with(name, labels, value, None);
    }

    fn line_with(&mut self, name: &str, labels: &[(&str, &str)], value: f64, exemplar: Option<&Exemplar>) {
        let (shared, of) = self.shared;
        let _ = write!(self.text, "{name}{{{shared}=\"{}\"", escape(of));
        for (label, text) in labels {
            let _ = write!(self.text, ",{label}=\"{}\"", escape(text));
        }
        let value = if value == f64::INFINITY { "+Inf".to_owned() } else { value.to_string() };
        let _ = write!(self.text, "}} {value}");
        if let Some(Exemplar { trace, seconds, unix_s }) = exemplar {
            let _ = write!(self.text, " # {{trace_id=\"{trace:032x}\"}} {seconds} {unix_s}");
        }
        self.text.push('\n');
    }

    /// Counters that differ in one label.
    pub(crate) fn family(&mut self, family: &Family, label: &str, counts: &[(&'static str, u64)]) {
        self.head(family);
        for (value, count) in counts {
            self.line(family.name, &[(label, value)], *count as f64);
        }
    }

    /// The load's buckets are finer than ours; one that reaches over a bound counts above it. Of several exemplars in a bucket the
    /// last one counts.
    pub(crate) fn histogram(
        &mut self,
        family: &Family,
        labels: &[(&str, &str)],
        buckets: &[(u64, u64)],
        exemplars: &[Exemplar],
    ) {
        let bucket = format!("{}_bucket", family.name);
        let below = |bound_ns: f64| {
            let inside = buckets.iter().take_while(|(upper_ns, _)| *upper_ns as f64 <= bound_ns);
            inside.map(|(_, count)| count).sum::<u64>() as f64
        };
        let mut lower = f64::NEG_INFINITY;
        for bound in SECONDS_BUCKETS.into_iter().chain([f64::INFINITY]) {
            let le = if bound == f64::INFINITY { "+Inf".to_owned() } else { bound.to_string() };
            let exemplar = exemplars.iter().rfind(|exemplar| lower < exemplar.seconds && exemplar.seconds <= bound);
            self.line_with(&bucket, &[labels, &[("le", &le)]].concat(), below((bound * 1e9).round()), exemplar);
            lower = bound;
        }
        let sum_ns: f64 = buckets.iter().map(|(upper_ns, count)| *upper_ns as f64 * *count as f64).sum();
        self.line(&format!("{}_sum", family.name), labels, sum_ns / 1e9);
        self.line(&format!("{}_count", family.name), labels, below(f64::INFINITY));
    }
}

fn escape(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
