//! What tracing can be told. Each type can only hold what makes sense, so a mistake is found before anything is started.

use std::{str::FromStr, time::Duration};

use clap::{Args, ValueEnum};
use settings::millis;

use super::{Collector, OtlpSettings, Sampler, budget::Budget};

/// What is kept.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TraceMode {
    /// Every request.
    All,
    /// What is sampled at its start, and what turns out to be slow, hedged or failed.
    #[default]
    Tail,
    /// Nothing, and nothing is recorded.
    Off,
}

/// The share of requests that are kept whatever becomes of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleRatio(f64);

impl SampleRatio {
    /// Whether a request whose trace id ends in these random bits is among them.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a threshold; the cast saturates")]
    pub(crate) fn takes(self, random: u64) -> bool {
        // Every u64 is below 2^64, so that a ratio of 1 takes all.
        self.0 >= 1.0 || random < (self.0 * 2.0_f64.powi(64)) as u64
    }
}

impl FromStr for SampleRatio {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
        ratio.map(Self).ok_or("expected a number from 0 to 1, such as 0.01")
    }
}

/// `OTEL_RESOURCE_ATTRIBUTES`: `key=value` pairs between commas, percent-encoded as in W3C Baggage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceAttributes(pub(crate) Vec<(String, String)>);

impl FromStr for ResourceAttributes {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let pair = |pair: &str| {
            let (key, value) = pair.split_once('=')?;
            let key = key.trim();
            (!key.is_empty() && is_percent_encoded(value)).then_some(())?;
            Some((key.to_owned(), percent_encoding::percent_decode_str(value.trim()).decode_utf8().ok()?.into_owned()))
        };
        let pairs = text.split(',').filter(|pair| !pair.trim().is_empty()).map(pair).collect::<Option<Vec<_>>>();
        pairs
            .map(Self)
            .ok_or("expected key=value pairs between commas, percent-encoded, such as deployment.environment=demo")
    }
}

/// Whether each percent sign begins a byte: a decoder would leave others as they are.
fn is_percent_encoded(text: &str) -> bool {
    let is_byte = |rest: &str| rest.len() >= 2 && rest.bytes().take(2).all(|digit| digit.is_ascii_hexdigit());
    text.split('%').skip(1).all(is_byte)
}

/// What tracing is told, by nodes and the runner alike. Without a collector nothing is recorded.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Traces")]
pub struct TraceSettings {
    /// Where they go.
    #[command(flatten)]
    pub otlp: OtlpSettings,
    /// The service's name in traces; unset, it is mesh-node or mesh-runner
    #[arg(long = "otel-service-name", env = "OTEL_SERVICE_NAME", value_name = "NAME")]
    pub service_name: Option<String>,
    /// More about the service, as key=value pairs
    #[arg(
        long = "otel-resource-attributes",
        env = "OTEL_RESOURCE_ATTRIBUTES",
        default_value = "",
        hide_default_value = true,
        value_name = "KEY=VALUE,…"
    )]
    pub attributes: ResourceAttributes,
    /// Which requests are kept: all; tail for sampled, slow, hedged, failed and wrong ones; or off
    #[arg(long = "trace-mode", env = "TRACE_MODE", value_enum, default_value_t, value_name = "MODE")]
    pub mode: TraceMode,
    /// Share of requests that is kept whatever becomes of them, 0 to 1; at a node, a traceparent header decides for itself
    #[arg(long = "trace-sample-ratio", env = "TRACE_SAMPLE_RATIO", default_value = "0.01", value_name = "RATIO")]
    sample_ratio: SampleRatio,
    /// Traces per second that are kept for being sampled, for being slow, and for having failed, of each at most; fewer while the collector
    /// does not keep up
    #[arg(long = "trace-per-s-max", env = "TRACE_PER_S_MAX", default_value_t = 100, value_name = "N")]
    pub(crate) per_s_max: u32,
    /// The same as OpenTelemetry says it; counts before TRACE_SAMPLE_RATIO
    #[arg(long = "otel-traces-sampler", env = "OTEL_TRACES_SAMPLER", value_enum, value_name = "SAMPLER")]
    sampler: Option<Sampler>,
    /// The share for parentbased_traceidratio, 0 to 1
    #[arg(
        long = "otel-traces-sampler-arg",
        env = "OTEL_TRACES_SAMPLER_ARG",
        default_value = "1",
        hide_default_value = true,
        value_name = "RATIO"
    )]
    sampler_ratio: SampleRatio,
    /// Requests that take longer are kept, in milliseconds
    #[arg(long = "trace-slow-ms", env = "TRACE_SLOW_MS", default_value = "50", value_name = "MS", value_parser = millis)]
    slow: Duration,
}

impl TraceSettings {
    /// The share of requests that is kept whatever becomes of them.
    pub(crate) fn sample_ratio(&self) -> SampleRatio {
        match self.sampler {
            None => self.sample_ratio,
            Some(Sampler::On) => SampleRatio(1.0),
            Some(Sampler::Off) => SampleRatio(0.0),
            Some(Sampler::Ratio) => self.sampler_ratio,
        }
    }

    /// Whether spans are to go anywhere.
    #[must_use]
    pub fn are_wanted(&self) -> bool {
        self.collector().is_some()
    }

    pub(crate) fn budget(&self) -> Budget {
        // TRACE_MODE=all is a request for all.
        let per_s_max = if self.mode == TraceMode::All { u32::MAX } else { self.per_s_max };
        Budget::new(per_s_max, self.slow)
    }

    /// Where spans go; nothing if there are to be none.
    pub(crate) fn collector(&self) -> Option<Collector> {
        self.otlp.collector().filter(|_| self.mode != TraceMode::Off)
    }
}

impl Default for TraceSettings {
    fn default() -> Self {
        Self {
            mode: TraceMode::Tail,
            sample_ratio: SampleRatio(0.01),
            per_s_max: 100,
            sampler: None,
            sampler_ratio: SampleRatio(1.0),
            slow: Duration::from_millis(50),
            otlp: OtlpSettings::default(),
            service_name: None,
            attributes: ResourceAttributes::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_shares() {
        for bad in ["", "1.1", "-0.1", "nan", "inf", "1%"] {
            assert!(bad.parse::<SampleRatio>().is_err(), "{bad}");
        }
        let share = |text: &str| {
            let ratio = text.parse::<SampleRatio>().ok();
            let taken = (0..1000_u64).filter(|n| ratio.is_some_and(|ratio| ratio.takes(n * (u64::MAX / 999)))).count();
            (taken, ratio.is_some_and(|ratio| ratio.takes(u64::MAX)))
        };
        assert_eq!(share("0"), (0, false));
        assert_eq!(share("1"), (1000, true));
        assert_eq!(share("0.25"), (250, false));
    }

    #[test]
    fn a_sampler_is_another_word_for_a_ratio() {
        let with = |sampler| TraceSettings { sampler, sampler_ratio: SampleRatio(0.25), ..TraceSettings::default() };
        let ratios = [None, Some(Sampler::On), Some(Sampler::Off), Some(Sampler::Ratio)];
        assert_eq!(ratios.map(|sampler| with(sampler).sample_ratio().0), [0.01, 1.0, 0.0, 0.25]);
    }

    #[test]
    fn resource_attributes_are_pairs() {
        let parsed = "a=1, b = x%20y ,".parse::<ResourceAttributes>();
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(parsed, Ok(ResourceAttributes(vec![pair("a", "1"), pair("b", "x y")])));
        for bad in ["a", "=1", "a=1,b", "a=%ff", "a=%zz", "a=1%"] {
            assert!(bad.parse::<ResourceAttributes>().is_err(), "{bad}");
        }
    }
}
