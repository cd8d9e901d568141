//! OpenTelemetry's environment variables. Those that are settings are flags as well, and two the exporter reads by itself;
//! whatever else is set has no effect, which must not pass for an effect.

use clap::{Arg, Command};

const PREFIX: &str = "OTEL_";

/// The exporter reads these itself, and skips what is not `key=value` between commas.
const BY_THE_EXPORTER: &[&str] = &["OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"];

/// Values that ask for what is done anyway.
const AS_IT_IS: &[(&str, &str)] = &[
    ("OTEL_EXPORTER_OTLP_INSECURE", "true"),
    ("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "true"),
    ("OTEL_LOGS_EXPORTER", "none"),
    ("OTEL_METRICS_EXPORTER", "none"),
    ("OTEL_PROPAGATORS", "tracecontext"),
];

/// The variables of OpenTelemetry that `command` obeys; nothing if it makes no traces.
pub(crate) fn obeyed(command: &Command) -> Vec<&str> {
    command.get_arguments().filter_map(Arg::get_env).filter_map(|name| name.to_str()).filter(is_otel).collect()
}

/// Whether a variable is one of OpenTelemetry's that has no effect on a program that obeys others.
pub(crate) fn has_no_effect(name: &str, value: &str, obeyed: &[&str]) -> bool {
    let is_known = obeyed.contains(&name) || BY_THE_EXPORTER.contains(&name);
    let is_default = AS_IT_IS.iter().any(|known| known.0 == name && known.1.eq_ignore_ascii_case(value.trim()));
    is_otel(&name) && !obeyed.is_empty() && !is_known && !is_default
}

/// Whether it is a list of headers of which the exporter skips some.
pub(crate) fn is_malformed(name: &str, value: &str, obeyed: &[&str]) -> bool {
    let is_pair = |pair: &str| pair.split_once('=').is_some_and(|(key, _)| !key.trim().is_empty());
    let mut pairs = value.split(',').filter(|pair| !pair.trim().is_empty());
    BY_THE_EXPORTER.contains(&name) && !obeyed.is_empty() && !pairs.all(is_pair)
}

fn is_otel(name: &&str) -> bool {
    name.starts_with(PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_obeyed_or_done_anyway_is_left_alone() {
        let obeyed = ["OTEL_SERVICE_NAME"];
        for (name, value, expected) in [
            ("OTEL_BSP_MAX_QUEUE_SIZE", "1", true),
            ("OTEL_METRICS_EXPORTER", "otlp", true),
            ("OTEL_METRICS_EXPORTER", "None", false),
            ("OTEL_PROPAGATORS", "b3", true),
            ("OTEL_PROPAGATORS", "tracecontext", false),
            ("OTEL_SERVICE_NAME", "a", false),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=b", false),
            ("HOTEL_NAME", "Adlon", false),
        ] {
            assert_eq!(has_no_effect(name, value, &obeyed), expected, "{name}={value}");
            assert!(!has_no_effect(name, value, &[]), "{name}: a program without traces obeys none");
        }
    }

    #[test]
    fn headers_are_pairs() {
        let obeyed = ["OTEL_SERVICE_NAME"];
        for (value, expected) in [("a=b", false), ("a=b, c=d,", false), ("Bearer token", true), ("a=b,=d", true)] {
            assert_eq!(is_malformed("OTEL_EXPORTER_OTLP_HEADERS", value, &obeyed), expected, "{value}");
            assert!(!is_malformed("OTEL_EXPORTER_OTLP_HEADERS", value, &[]), "{value}");
            assert!(!is_malformed("OTEL_SERVICE_NAME", value, &obeyed), "{value}");
        }
    }
}
