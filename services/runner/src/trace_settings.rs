//! What the runner is told of traces. The names are those of the nodes and of OpenTelemetry.

use std::{str::FromStr, time::Duration};

use clap::Args;
use observability::{OtlpEndpoint, ResourceAttributes, SampleRatio, TraceMode, TraceSettings};

/// Traces. Without a collector there are none, and they cost nothing.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Traces")]
pub(crate) struct TraceFlags {
    /// Collector that takes OTLP over gRPC, such as http://localhost:4317; empty is off
    #[arg(long, env, default_value = "", hide_default_value = true, value_parser = endpoint)]
    otel_exporter_otlp_endpoint: Endpoint,
    /// The service's name in traces; empty is mesh-runner
    #[arg(long, env, default_value = "", hide_default_value = true)]
    otel_service_name: String,
    /// More about the service, as key=value pairs between commas
    #[arg(long, env, default_value = "", hide_default_value = true, value_parser = ResourceAttributes::from_str)]
    otel_resource_attributes: ResourceAttributes,
    /// Which requests are kept: all; tail for sampled, slow, failed and wrong ones; or off
    #[arg(long, env, default_value = "tail", value_parser = TraceMode::from_str)]
    trace_mode: TraceMode,
    /// Share of requests that is kept whatever becomes of them, 0 to 1
    #[arg(long, env, default_value = "0.01", value_parser = SampleRatio::from_str)]
    trace_sample_ratio: SampleRatio,
    /// Requests that take longer are kept, in milliseconds
    #[arg(long, env, default_value_t = 50)]
    trace_slow_ms: u32,
    /// Where a browser finds the traces, for links in the summary
    #[arg(long, env, default_value = "http://localhost:16686", value_parser = url)]
    pub(crate) jaeger_url: String,
}

/// A collector, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Endpoint(Option<OtlpEndpoint>);

impl TraceFlags {
    pub(crate) fn settings(&self) -> TraceSettings {
        TraceSettings {
            mode: self.trace_mode,
            sample_ratio: self.trace_sample_ratio,
            slow: Duration::from_millis(self.trace_slow_ms.into()),
            endpoint: self.otel_exporter_otlp_endpoint.0.clone(),
            service_name: Some(self.otel_service_name.clone()).filter(|name| !name.is_empty()),
            attributes: self.otel_resource_attributes.clone(),
        }
    }
}

fn endpoint(text: &str) -> Result<Endpoint, &'static str> {
    if text.is_empty() { Ok(Endpoint(None)) } else { text.parse().map(|endpoint| Endpoint(Some(endpoint))) }
}

/// `http://…` or `https://…`, without a slash at its end.
pub(crate) fn url(text: &str) -> Result<String, &'static str> {
    let text = text.trim_end_matches('/');
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let is_url =
        rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/') && !rest.contains(char::is_whitespace));
    is_url.then(|| text.to_owned()).ok_or("expected a URL such as http://localhost:16686")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::ffi::OsString;

    use load::parse_settings;

    use crate::settings::Settings;

    fn parse(argument: &str) -> Result<Settings, String> {
        parse_settings(["runner", argument].map(OsString::from))
    }

    #[test]
    fn without_a_collector_there_are_no_traces() {
        assert!(parse("--duration=1s").unwrap().traces.settings().endpoint.is_none());
        let settings = parse("--otel-exporter-otlp-endpoint=http://jaeger:4317").unwrap().traces.settings();
        assert!(settings.endpoint.is_some() && settings.service_name.is_none());
        assert_eq!(settings.slow.as_millis(), 50);
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        for (flag, value) in [
            ("otel-exporter-otlp-endpoint", "jaeger:4317"),
            ("otel-exporter-otlp-endpoint", "https://jaeger:4317"),
            ("otel-exporter-otlp-endpoint", "http://jaeger"),
            ("otel-resource-attributes", "a"),
            ("trace-mode", "some"),
            ("trace-sample-ratio", "2"),
            ("trace-sample-ratio", "half"),
            ("trace-slow-ms", "soon"),
            ("jaeger-url", "localhost:16686"),
            ("jaeger-url", "http://"),
        ] {
            let message = parse(&format!("--{flag}={value}")).unwrap_err();
            let name = flag.to_uppercase().replace('-', "_");
            assert!(message.starts_with(&format!("{name}={value}: ")), "{message}");
            assert_eq!(message.lines().count(), 1, "{message}");
        }
    }
}
