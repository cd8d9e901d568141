//! The two text forms of `/metrics`. The exporter writes Prometheus text 0.0.4; OpenMetrics 1.0 is made of it, because
//! only OpenMetrics can carry exemplars.

use crate::latency_series::LatencySeries;

/// A text form of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposition {
    /// Prometheus text format 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Exposition {
    /// What to answer to a request with these `Accept` lines (RFC 9110, section 12.5.1). OpenMetrics only when it is asked for by
    /// name, in a version that this is, and no less gladly than plain text; anything else gets what every scraper reads.
    #[must_use]
    pub fn negotiate<'a>(accept: impl IntoIterator<Item = &'a str>) -> Self {
        let (mut openmetrics, mut text) = (0.0_f32, 0.0_f32);
        for range in accept.into_iter().flat_map(|line| line.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let (mut quality, mut version) = (Some(1.0), None);
            for (parameter, value) in parts.filter_map(|part| part.split_once('=')) {
                match parameter.trim_end() {
                    q if q.eq_ignore_ascii_case("q") => quality = parse_quality(value),
                    v if v.eq_ignore_ascii_case("version") => version = Some(value.trim().trim_matches('"')),
                    _ => {}
                }
            }
            let Some(quality) = quality else { continue };
            if name.eq_ignore_ascii_case("application/openmetrics-text") {
                if matches!(version, None | Some("1.0.0" | "0.0.1")) {
                    openmetrics = openmetrics.max(quality);
                }
            } else if name.eq_ignore_ascii_case("text/plain") {
                text = text.max(quality);
            }
        }
        if openmetrics > 0.0 && openmetrics >= text { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// The full content type; Prometheus 3 refuses a scrape without it.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// Writes Prometheus text in this form.
    pub(crate) fn write(self, prometheus: &str) -> String {
        match self {
            Self::Prometheus => prometheus.to_owned(),
            Self::OpenMetrics => [&to_openmetrics(prometheus), "# EOF\n"].concat(),
        }
    }

    /// Writes the exporter's Prometheus text in this form, and the latencies behind it.
    pub(crate) fn write_with<const N: usize>(self, prometheus: &str, latencies: &LatencySeries<N>) -> String {
        match self {
            Self::Prometheus => [prometheus, &latencies.prometheus()].concat(),
            Self::OpenMetrics => [&to_openmetrics(prometheus), &*latencies.openmetrics(), "# EOF\n"].concat(),
        }
    }
}

/// From 0 to 1, with three decimals at most.
fn parse_quality(text: &str) -> Option<f32> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.parse().ok().filter(|quality| is_number && (0.0..=1.0).contains(quality))
}

/// OpenMetrics has no blank lines, and names counter families without `_total`.
fn to_openmetrics(prometheus: &str) -> String {
    // Which names are counters is only known from their TYPE line, which follows HELP.
    let counters: Vec<&str> = prometheus
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .filter(|name| name.ends_with("_total"))
        .collect();
    let mut text = String::with_capacity(prometheus.len() + 8);
    for line in prometheus.lines().filter(|line| !line.is_empty()) {
        match counter_comment(line, &counters) {
            Some((keyword, family, rest)) => {
                text.extend([keyword, family, " ", rest]);
            }
            None => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

/// Splits a HELP or TYPE line of a counter into keyword, family name without `_total`, and the rest.
fn counter_comment<'a>(line: &'a str, counters: &[&str]) -> Option<(&'static str, &'a str, &'a str)> {
    let (keyword, body) = ["# HELP ", "# TYPE "].into_iter().find_map(|k| Some((k, line.strip_prefix(k)?)))?;
    let (name, rest) = body.split_once(' ')?;
    counters.contains(&name).then_some(())?;
    Some((keyword, name.strip_suffix("_total")?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_only_when_asked_for() {
        let prometheus_3 =
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;q=0.2,*/*;q=0.1";
        let form = |accept: &[&str]| Exposition::negotiate(accept.iter().copied());
        for openmetrics in [
            &[prometheus_3][..],
            &["application/openmetrics-text"],
            &["Application/OpenMetrics-Text; Version=1.0.0; Q=0.5, text/plain;q=0.4"],
            &["text/plain", "application/openmetrics-text"],
        ] {
            assert_eq!(form(openmetrics), Exposition::OpenMetrics, "{openmetrics:?}");
        }
        for prometheus in [
            &["application/openmetrics-text;q=0, text/plain"][..],
            &["application/openmetrics-text; Q=0"],
            &["application/openmetrics-text;q=0.000"],
            &["application/openmetrics-text;q=nan"],
            &["application/openmetrics-text;version=2.0.0"],
            &["text/plain;q=1, application/openmetrics-text;q=0.1"],
            &["*/*"],
            &[""],
            &[],
        ] {
            assert_eq!(form(prometheus), Exposition::Prometheus, "{prometheus:?}");
        }
    }

    #[test]
    fn only_counters_lose_their_suffix_and_only_in_comments() {
        let text =
            "# HELP a_total Things.\n# TYPE a_total counter\na_total{x=\"1\"} 2\n\n# TYPE b_total gauge\nb_total 1\n\n";
        let expected = "# HELP a Things.\n# TYPE a counter\na_total{x=\"1\"} 2\n# TYPE b_total gauge\nb_total 1\n";
        assert_eq!(to_openmetrics(text), expected);
    }
}
