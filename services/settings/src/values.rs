//! One parser per kind of value. Each says in words what it expects, so that a mistake reads `NAME=value: expected …`.

use std::{net::SocketAddr, time::Duration};

/// The longest time that a value may be asked to live, in milliseconds: a hundred years, so that an expiry can never overflow.
pub const TTL_MS_MAX: u64 = 100 * 365 * 24 * 60 * 60 * 1000;

/// The longest time of a setting in milliseconds: a day.
const MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// The longest duration. A clock can add it to any moment.
const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A duration, or nothing for `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Every(pub Option<Duration>);

/// What a value parser is.
type Parsed<T> = Result<T, String>;

fn found<T>(value: Option<T>, expected: impl FnOnce() -> String) -> Parsed<T> {
    value.ok_or_else(|| format!("expected {}", expected()))
}

/// A whole number from `min` to `max`.
pub fn whole<T: TryFrom<u64>>(min: u64, max: u64) -> impl Fn(&str) -> Parsed<T> + Clone {
    move |text| {
        let number = text.parse().ok().filter(|number| (min..=max).contains(number));
        found(number.and_then(|number| T::try_from(number).ok()), || format!("a whole number from {min} to {max}"))
    }
}

/// A number from `min` to `max`.
pub fn number(min: f64, max: f64) -> impl Fn(&str) -> Parsed<f64> + Clone {
    move |text| {
        let number = text.parse().ok().filter(|number| (min..=max).contains(number));
        found(number, || format!("a number from {min} to {max}"))
    }
}

/// true, on, yes or 1; false, off, no or 0.
///
/// # Errors
/// What was expected.
pub fn boolean(text: &str) -> Parsed<bool> {
    let boolean = match text {
        "true" | "on" | "yes" | "1" => Some(true),
        "false" | "off" | "no" | "0" => Some(false),
        _ => None,
    };
    found(boolean, || "true or false (or on, off, yes, no, 1, 0)".to_owned())
}

/// Whole milliseconds, at least one and at most a day.
///
/// # Errors
/// What was expected.
pub fn millis(text: &str) -> Parsed<Duration> {
    millis_to(MS_MAX)(text)
}

/// Whole milliseconds from one to `max`.
pub fn millis_to(max: u64) -> impl Fn(&str) -> Parsed<Duration> + Clone {
    move |text| {
        let millis = text.parse().ok().filter(|millis| (1..=max).contains(millis)).map(Duration::from_millis);
        found(millis, || format!("whole milliseconds from 1 to {max}, such as 500"))
    }
}

/// Milliseconds until a second owner is asked, from zero to a minute; nothing for `adaptive`.
///
/// # Errors
/// What was expected.
pub fn hedge_delay(text: &str) -> Parsed<Option<Duration>> {
    let millis = || text.parse().ok().filter(|millis| *millis <= 60_000).map(Duration::from_millis);
    let delay = if text == "adaptive" { Some(None) } else { millis().map(Some) };
    found(delay, || "adaptive, or whole milliseconds from 0 to 60000".to_owned())
}

/// How long a value lives, in milliseconds: -1 for ever, 0 as the node is configured.
///
/// # Errors
/// What was expected.
pub fn ttl_ms(text: &str) -> Parsed<i64> {
    let millis = text.parse().ok().filter(|millis: &i64| *millis >= -1 && millis.unsigned_abs() <= TTL_MS_MAX);
    found(millis, || format!("-1 (for ever), 0 (as the node is configured) or whole milliseconds up to {TTL_MS_MAX}"))
}

/// How long a value lives on a node that is not told: milliseconds above zero; nothing, which is for ever, for -1.
///
/// # Errors
/// What was expected.
pub fn default_ttl(text: &str) -> Parsed<Option<Duration>> {
    let ttl = if text == "-1" { Ok(None) } else { millis_to(TTL_MS_MAX)(text).map(Some) };
    ttl.map_err(|_| format!("expected -1 (for ever) or whole milliseconds from 1 to {TTL_MS_MAX}"))
}

/// A duration that may be zero, at most a year.
///
/// # Errors
/// What was expected.
pub fn duration(text: &str) -> Parsed<Duration> {
    let duration = humantime::parse_duration(text).ok().filter(|duration| *duration <= DURATION_MAX);
    found(duration, || "a duration such as 60s, 1m30s or 250ms, at most 365d".to_owned())
}

/// A duration above zero.
///
/// # Errors
/// What was expected.
pub fn positive_duration(text: &str) -> Parsed<Duration> {
    let duration = duration(text).ok().filter(|duration| !duration.is_zero());
    found(duration, || "a duration above zero, such as 60s, 1m30s or 250ms, at most 365d".to_owned())
}

impl std::str::FromStr for Every {
    type Err = String;

    fn from_str(text: &str) -> Parsed<Self> {
        off_or(positive_duration)(text).map(Self)
    }
}

/// What `parse` takes, or nothing for `off`, and for an empty flag; an empty variable never comes here.
pub fn off_or<T>(parse: impl Fn(&str) -> Parsed<T> + Clone) -> impl Fn(&str) -> Parsed<Option<T>> + Clone {
    move |text| match text {
        "off" | "" => Ok(None),
        _ => parse(text).map(Some).map_err(|error| error.replacen("expected", "expected off or", 1)),
    }
}

/// Bytes, or a number with KiB, MiB or GiB.
pub fn bytes<T: TryFrom<u64>>(min: u64, max: u64) -> impl Fn(&str) -> Parsed<T> + Clone {
    move |text| {
        let bytes = byte_size(text).filter(|bytes| (min..=max).contains(bytes));
        let expected = || format!("bytes from {min} to {max}, such as 65536, 64KiB, 64MiB or 1GiB");
        found(bytes.and_then(|bytes| T::try_from(bytes).ok()), expected)
    }
}

/// As [`bytes`], without bounds.
#[must_use]
pub fn byte_size(text: &str) -> Option<u64> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("B", 0), ("", 0)];
    let (digits, shift) = units.into_iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, shift)))?;
    digits.trim_end().parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// An IP address and a port; without an address, every interface.
///
/// # Errors
/// What was expected.
pub fn socket_addr(text: &str) -> Parsed<SocketAddr> {
    let whole = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
    found(whole.parse().ok(), || "an IP address and a port, such as 127.0.0.1:5011 or :5011".to_owned())
}

/// A host name or IP address, and a port.
///
/// # Errors
/// What was expected.
pub fn host_port(text: &str) -> Parsed<String> {
    let text = text.trim();
    let is_good = text.rsplit_once(':').is_some_and(|(host, port)| {
        let is_v6 = host.starts_with('[') && host.ends_with(']') && host.len() > 2;
        let is_host = is_v6 || !host.contains([':', '/', '?', '#', '@', '[', ']']);
        let is_host = is_host && !host.is_empty() && !host.contains(char::is_whitespace);
        is_host && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    found(is_good.then(|| text.to_owned()), || "a host and a port, such as node1:5011".to_owned())
}

/// `http://…` or `https://…`, without a slash at its end.
///
/// # Errors
/// What was expected.
pub fn url(text: &str) -> Parsed<String> {
    let text = text.trim_end_matches('/');
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let is_url =
        rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/') && !rest.contains(char::is_whitespace));
    found(is_url.then(|| text.to_owned()), || "a URL such as http://localhost:9090".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!(byte_size("65536"), Some(65_536));
        assert_eq!(byte_size("64KiB"), Some(65_536));
        assert_eq!(byte_size("64 MiB"), Some(64 << 20));
        assert_eq!(byte_size("1GiB"), Some(1 << 30));
        assert_eq!(byte_size("17B"), Some(17));
        for bad in ["", "KiB", "1GB", "1.5GiB", "-1", "99999999999GiB", "0x10"] {
            assert_eq!(byte_size(bad), None, "{bad}");
        }
    }

    #[test]
    fn hosts_need_ports() {
        for good in ["node1:5011", "127.0.0.1:5011", "[::1]:5011"] {
            assert_eq!(host_port(good).as_deref(), Ok(good));
        }
        for bad in ["", "node1", "node1:", ":5011", "node1:0", "node1:70000", "::1:5011", "a b:1", "[]:1", "a/b:1"] {
            assert!(host_port(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_bounded() {
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("365d"), Ok(DURATION_MAX));
        for bad in ["", "60", "366d", "18446744073709551615s", "18446744073709551615000d", "99999999999999999999y"] {
            assert!(duration(bad).is_err_and(|error| error.contains("at most 365d")), "{bad}");
        }
        assert!(positive_duration("0s").is_err() && duration("0s").is_ok());
        assert_eq!(off_or(positive_duration)("off"), Ok(None));
        assert_eq!(off_or(positive_duration)(""), Ok(None));
        assert!(
            off_or(positive_duration)("x").is_err_and(|error| error.starts_with("expected off or a duration above"))
        );
    }

    #[test]
    fn milliseconds_have_bounds() {
        assert_eq!(millis("86400000"), Ok(Duration::from_secs(86_400)));
        for bad in ["0", "86400001", "-1", "1s", "", "1.5", "18446744073709551616"] {
            assert!(millis(bad).is_err(), "{bad}");
        }
        assert_eq!(hedge_delay("adaptive"), Ok(None));
        assert_eq!(hedge_delay("0"), Ok(Some(Duration::ZERO)));
        assert!(hedge_delay("60001").is_err() && hedge_delay("auto").is_err());
        assert_eq!((ttl_ms("-1"), ttl_ms("0")), (Ok(-1), Ok(0)));
        assert!(ttl_ms("-2").is_err() && ttl_ms("9223372036854775807").is_err());
        assert_eq!(default_ttl("-1"), Ok(None));
        assert!(default_ttl("0").is_err() && default_ttl("-2").is_err());
    }

    #[test]
    fn booleans_take_the_same_words_everywhere() {
        for (text, value) in [("true", true), ("on", true), ("yes", true), ("1", true), ("off", false), ("0", false)] {
            assert_eq!(boolean(text), Ok(value), "{text}");
        }
        assert!(boolean("maybe").is_err() && boolean("").is_err() && boolean("TRUE").is_err());
    }

    #[test]
    fn numbers_have_bounds() {
        assert_eq!(whole::<u8>(1, 8)("8"), Ok(8));
        assert_eq!(whole::<u8>(1, 8)("9"), Err("expected a whole number from 1 to 8".to_owned()));
        assert!(whole::<u8>(0, 1000)("256").is_err());
        assert_eq!(number(0.0, 1.0)("0.5"), Ok(0.5));
        assert!(number(0.0, 1.0)("nan").is_err() && number(0.0, 1.0)("1.5").is_err());
        assert_eq!(url("http://p:9090/").as_deref(), Ok("http://p:9090"));
        assert!(url("p:9090").is_err() && url("http://").is_err());
    }
}
