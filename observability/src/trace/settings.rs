//! What tracing can be told. Each type can only hold what makes sense, so a mistake is found before anything is started.

use std::{str::FromStr, time::Duration};

use clap::{Args, ValueEnum};
use settings::millis;

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

/// A collector that takes OTLP over gRPC, unencrypted: `http://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpEndpoint(String);

impl OtlpEndpoint {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for OtlpEndpoint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected an OTLP collector for gRPC without TLS, such as http://localhost:4317";
        let authority = text.strip_prefix("http://").ok_or(EXPECTED)?;
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let (host, port) = authority.rsplit_once(':').ok_or(EXPECTED)?;
        let is_v6 = host.starts_with('[') && host.ends_with(']') && host.len() > 2;
        let is_name = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
        let has_host = is_v6 || (!host.is_empty() && is_name);
        let has_port = port.parse::<u16>().is_ok_and(|port| port != 0);
        if has_host && has_port { Ok(Self(format!("http://{authority}"))) } else { Err(EXPECTED) }
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
    /// Collector that takes OTLP over gRPC, such as http://localhost:4317; unset, there are no traces
    #[arg(long = "otel-exporter-otlp-endpoint", env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub endpoint: Option<OtlpEndpoint>,
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
    pub sample_ratio: SampleRatio,
    /// Requests that take longer are kept, in milliseconds
    #[arg(long = "trace-slow-ms", env = "TRACE_SLOW_MS", default_value = "50", value_name = "MS", value_parser = millis)]
    pub slow: Duration,
}

impl Default for TraceSettings {
    fn default() -> Self {
        Self {
            mode: TraceMode::Tail,
            sample_ratio: SampleRatio(0.01),
            slow: Duration::from_millis(50),
            endpoint: None,
            service_name: None,
            attributes: ResourceAttributes::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_plain_grpc() {
        for good in ["http://localhost:4317", "http://127.0.0.1:4317/", "http://[::1]:4317", "http://otel-collector:1"]
        {
            assert!(good.parse::<OtlpEndpoint>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "localhost:4317",
            "https://localhost:4317",
            "http://",
            "http://localhost",
            "http://:4317",
            "http://a:0",
            "http://a:99999",
            "http://a b:4317",
            "http://a:4317/v1/traces",
            "http://me@a:4317",
            "grpc://a:4317",
        ] {
            assert!(bad.parse::<OtlpEndpoint>().is_err(), "{bad}");
        }
    }

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
    fn resource_attributes_are_pairs() {
        let parsed = "a=1, b = x%20y ,".parse::<ResourceAttributes>();
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(parsed, Ok(ResourceAttributes(vec![pair("a", "1"), pair("b", "x y")])));
        for bad in ["a", "=1", "a=1,b", "a=%ff", "a=%zz", "a=1%"] {
            assert!(bad.parse::<ResourceAttributes>().is_err(), "{bad}");
        }
    }
}
