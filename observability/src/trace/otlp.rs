//! Where spans go, as OpenTelemetry's specification has it ("OpenTelemetry Protocol Exporter", "Environment Variable Specification"). A
//! variable for traces counts before the one for everything. OTEL_EXPORTER_OTLP_HEADERS and its like for traces are read by the exporter.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::{ArgAction, Args, ValueEnum};
use settings::millis;
use url::Url;

/// When one request to the collector is given up, unless it is set; there is no second try.
const TIMEOUT: Duration = Duration::from_secs(2);

/// A collector's address: `http://host:4317`, or https.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OtlpEndpoint(Url);

impl FromStr for OtlpEndpoint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected the address of an OTLP collector, such as http://localhost:4317";
        let url = Url::parse(text).map_err(|_| EXPECTED)?;
        let is_web = matches!(url.scheme(), "http" | "https") && url.has_host() && url.port() != Some(0);
        let is_bare = url.username().is_empty() && url.password().is_none() && url.query().is_none();
        // A path is for HTTP; gRPC has none.
        if is_web && is_bare && url.fragment().is_none() { Ok(Self(url)) } else { Err(EXPECTED) }
    }
}

/// What is spoken to the collector.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum OtlpProtocol {
    /// gRPC, usually at port 4317.
    #[default]
    Grpc,
    /// HTTP/1.1 with Protobuf, usually at port 4318.
    #[value(name = "http/protobuf")]
    HttpProtobuf,
}

/// How requests to the collector are packed.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum OtlpCompression {
    /// Not at all.
    #[default]
    None,
    /// With gzip.
    Gzip,
}

/// What exports spans.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum TracesExporter {
    /// OTLP, to the collector.
    #[default]
    Otlp,
    /// Nothing.
    None,
}

/// A sampler that asks the caller first.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampler {
    /// All.
    #[value(name = "parentbased_always_on")]
    On,
    /// None, but what turns out to be slow, hedged or failed.
    #[value(name = "parentbased_always_off")]
    Off,
    /// A share of them.
    #[value(name = "parentbased_traceidratio")]
    Ratio,
}

/// The collector, and how it is spoken to.
#[derive(Args, Clone, Debug, Default)]
pub struct OtlpSettings {
    /// Address of a collector that takes OTLP, such as http://localhost:4317; unset, there are no traces
    #[arg(long = "otel-exporter-otlp-endpoint", env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    endpoint: Option<OtlpEndpoint>,
    /// The same for traces only; over HTTP with its path
    #[arg(long = "otel-exporter-otlp-traces-endpoint", env = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", value_name = "URL")]
    traces_endpoint: Option<OtlpEndpoint>,
    /// What is spoken to the collector; unset, it is grpc
    #[arg(
        long = "otel-exporter-otlp-protocol",
        env = "OTEL_EXPORTER_OTLP_PROTOCOL",
        value_enum,
        value_name = "PROTOCOL"
    )]
    protocol: Option<OtlpProtocol>,
    /// The same for traces only
    #[arg(
        long = "otel-exporter-otlp-traces-protocol",
        env = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        value_enum,
        value_name = "PROTOCOL"
    )]
    traces_protocol: Option<OtlpProtocol>,
    /// How requests to the collector are packed; unset, not at all
    #[arg(
        long = "otel-exporter-otlp-compression",
        env = "OTEL_EXPORTER_OTLP_COMPRESSION",
        value_enum,
        value_name = "HOW"
    )]
    compression: Option<OtlpCompression>,
    /// The same for traces only
    #[arg(
        long = "otel-exporter-otlp-traces-compression",
        env = "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
        value_enum,
        value_name = "HOW"
    )]
    traces_compression: Option<OtlpCompression>,
    /// When a request to the collector is given up, in milliseconds; unset, after 2000
    #[arg(
        long = "otel-exporter-otlp-timeout",
        env = "OTEL_EXPORTER_OTLP_TIMEOUT",
        value_parser = millis,
        value_name = "MS"
    )]
    timeout: Option<Duration>,
    /// The same for traces only
    #[arg(
        long = "otel-exporter-otlp-traces-timeout",
        env = "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
        value_parser = millis,
        value_name = "MS"
    )]
    traces_timeout: Option<Duration>,
    /// PEM file with the certificate authority of an https collector; unset, those of the system
    #[arg(long = "otel-exporter-otlp-certificate", env = "OTEL_EXPORTER_OTLP_CERTIFICATE", value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// The same for traces only
    #[arg(
        long = "otel-exporter-otlp-traces-certificate",
        env = "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
        value_name = "FILE"
    )]
    traces_certificate: Option<PathBuf>,
    /// What exports traces
    #[arg(
        long = "otel-traces-exporter",
        env = "OTEL_TRACES_EXPORTER",
        value_enum,
        default_value_t,
        value_name = "EXPORTER"
    )]
    exporter: TracesExporter,
    /// No traces, whatever else is set
    #[arg(
        long = "otel-sdk-disabled",
        env = "OTEL_SDK_DISABLED",
        default_value = "false",
        action = ArgAction::Set,
        value_parser = settings::boolean,
        value_name = "BOOL"
    )]
    is_disabled: bool,
}

/// A collector that spans are to go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Collector {
    /// Whole: over HTTP with its path.
    pub(crate) url: String,
    pub(crate) protocol: OtlpProtocol,
    pub(crate) compression: OtlpCompression,
    pub(crate) timeout: Duration,
    /// Of the certificate authority; nothing for those of the system.
    pub(crate) certificate: Option<PathBuf>,
}

impl OtlpSettings {
    /// Nothing if spans are to go nowhere.
    pub(crate) fn collector(&self) -> Option<Collector> {
        if self.is_disabled || self.exporter == TracesExporter::None {
            return None;
        }
        let protocol = self.traces_protocol.or(self.protocol).unwrap_or_default();
        let url = match (&self.traces_endpoint, &self.endpoint) {
            (Some(OtlpEndpoint(whole)), _) => whole.to_string(),
            (None, Some(OtlpEndpoint(base))) if protocol == OtlpProtocol::HttpProtobuf => {
                format!("{}/v1/traces", base.as_str().trim_end_matches('/'))
            }
            (None, Some(OtlpEndpoint(base))) => base.to_string(),
            (None, None) => return None,
        };
        Some(Collector {
            url,
            protocol,
            compression: self.traces_compression.or(self.compression).unwrap_or_default(),
            timeout: self.traces_timeout.or(self.timeout).unwrap_or(TIMEOUT),
            certificate: self.traces_certificate.clone().or_else(|| self.certificate.clone()),
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        otlp: OtlpSettings,
    }

    fn collector(flags: &[&str]) -> Option<Collector> {
        let flags = flags.iter().map(|flag| format!("--otel-{flag}"));
        Program::try_parse_from(["program".to_owned()].into_iter().chain(flags)).unwrap().otlp.collector()
    }

    #[test]
    fn endpoints_are_addresses_of_the_web() {
        let good = ["http://localhost:4317", "http://127.0.0.1:4317/", "http://[::1]:4317", "https://a.b/v1/traces"];
        assert_eq!(good.map(|text| text.parse::<OtlpEndpoint>().is_ok()), [true; 4]);
        let bad = ["", "localhost:4317", "http://", "http://a:0", "http://a:99999", "http://a b:4317", "grpc://a:4317"];
        assert_eq!(bad.map(|text| text.parse::<OtlpEndpoint>().is_err()), [true; 7]);
        let odd = ["http://me@a:4317", "http://a:4317/?b", "http://a:4317/#b"];
        assert_eq!(odd.map(|text| text.parse::<OtlpEndpoint>().is_err()), [true; 3]);
    }

    #[test]
    fn a_path_is_added_to_the_address_for_everything_over_http_only() {
        let url = |flags: &[&str]| collector(flags).map(|collector| collector.url);
        let (base, http) = ("exporter-otlp-endpoint=http://a:1/b/", "exporter-otlp-protocol=http/protobuf");
        assert_eq!(url(&[base, http]).as_deref(), Some("http://a:1/b/v1/traces"));
        assert_eq!(url(&["exporter-otlp-endpoint=http://a:1"]).as_deref(), Some("http://a:1/"));
        let own = "exporter-otlp-traces-endpoint=http://c:2/d";
        assert_eq!(url(&[base, http, own]).as_deref(), Some("http://c:2/d"));
    }

    #[test]
    fn what_is_set_for_traces_counts_first() {
        let flags = |prefix: &str, protocol: &str, packing: &str, timeout: &str, file: &str| {
            [("protocol", protocol), ("compression", packing), ("timeout", timeout), ("certificate", file)]
                .map(|(name, value)| format!("exporter-otlp-{prefix}{name}={value}"))
        };
        let all = flags("", "grpc", "none", "7", "/a");
        let traces = flags("traces-", "http/protobuf", "gzip", "9", "/b");
        let address = "exporter-otlp-endpoint=http://a:1".to_owned();
        let of = |flags: &[&[String]]| {
            let flags = flags.concat();
            collector(&flags.iter().map(String::as_str).collect::<Vec<_>>()).unwrap()
        };
        let plain = of(&[std::slice::from_ref(&address), &all]);
        assert_eq!((plain.protocol, plain.compression), (OtlpProtocol::Grpc, OtlpCompression::None));
        assert_eq!((plain.timeout, plain.certificate), (Duration::from_millis(7), Some("/a".into())));
        let own = of(&[&[address], &all, &traces]);
        assert_eq!((own.protocol, own.compression), (OtlpProtocol::HttpProtobuf, OtlpCompression::Gzip));
        assert_eq!((own.timeout, own.certificate), (Duration::from_millis(9), Some("/b".into())));
    }

    #[test]
    fn it_can_be_switched_off() {
        let address = "exporter-otlp-endpoint=http://a:1";
        assert!(collector(&[address]).is_some() && collector(&[]).is_none());
        assert!(collector(&[address, "traces-exporter=none"]).is_none());
        assert!(collector(&[address, "sdk-disabled=true"]).is_none());
    }
}
