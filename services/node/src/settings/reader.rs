//! Reads one setting at a time and remembers what was wrong, so that a user sees all mistakes at once.

use std::{net::SocketAddr, str::FromStr, time::Duration};

use super::{BadSettings, SettingError};

const MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// Collects mistakes. Each method returns nothing after a mistake; [`Reader::finish`] then fails.
#[derive(Default)]
pub(super) struct Reader {
    errors: Vec<SettingError>,
}

impl Reader {
    /// Notes a mistake.
    pub(super) fn refuse(&mut self, name: &'static str, value: &str, expected: impl Into<String>) {
        self.errors.push(SettingError { name, value: value.to_owned(), expected: expected.into() });
    }

    /// A whole number from `min` to `max`.
    pub(super) fn number(&mut self, name: &'static str, text: &str, min: u64, max: u64) -> Option<u64> {
        let number = text.parse().ok().filter(|number| (min..=max).contains(number));
        if number.is_none() {
            self.refuse(name, text, format!("expected a whole number from {min} to {max}"));
        }
        number
    }

    /// As [`Reader::number`], for sizes of things in memory.
    pub(super) fn count(&mut self, name: &'static str, text: &str, min: u64, max: u64) -> Option<usize> {
        self.number(name, text, min, max).and_then(|number| usize::try_from(number).ok())
    }

    /// Whole milliseconds, at least one and at most a day.
    pub(super) fn millis(&mut self, name: &'static str, text: &str) -> Option<Duration> {
        let millis = text.parse().ok().filter(|millis| (1..=MS_MAX).contains(millis));
        if millis.is_none() {
            self.refuse(name, text, format!("expected whole milliseconds from 1 to {MS_MAX}, such as 500"));
        }
        millis.map(Duration::from_millis)
    }

    /// Bytes, or a number with KiB, MiB or GiB.
    pub(super) fn bytes(&mut self, name: &'static str, text: &str, min: u64, max: u64) -> Option<u64> {
        let bytes = parse_bytes(text).filter(|bytes| (min..=max).contains(bytes));
        if bytes.is_none() {
            self.refuse(name, text, format!("expected bytes from {min} to {max}, such as 65536, 64KiB, 64MiB or 1GiB"));
        }
        bytes
    }

    /// true, false, 1 or 0.
    pub(super) fn boolean(&mut self, name: &'static str, text: &str) -> Option<bool> {
        match text {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => {
                self.refuse(name, text, "expected true, false, 1 or 0");
                None
            }
        }
    }

    /// An IP address and a port; without an address, every interface.
    pub(super) fn socket_addr(&mut self, name: &'static str, text: &str) -> Option<SocketAddr> {
        let whole = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
        let addr = whole.parse().ok();
        if addr.is_none() {
            self.refuse(name, text, "expected an IP address and a port, such as 127.0.0.1:5011 or :5011");
        }
        addr
    }

    /// A host name or IP address, and a port.
    pub(super) fn host_port(&mut self, name: &'static str, text: &str) -> Option<String> {
        let is_good = text.rsplit_once(':').is_some_and(|(host, port)| {
            let is_v6 = host.starts_with('[') && host.ends_with(']');
            let is_host = !host.is_empty() && (is_v6 || !host.contains(':')) && !host.contains(char::is_whitespace);
            is_host && port.parse::<u16>().is_ok_and(|port| port != 0)
        });
        if !is_good {
            self.refuse(name, text, "expected a host and a port, such as node1:5011");
        }
        is_good.then(|| text.to_owned())
    }

    /// Whatever knows itself what it expects.
    pub(super) fn parse<T: FromStr<Err = &'static str>>(&mut self, name: &'static str, text: &str) -> Option<T> {
        text.parse().map_err(|expected| self.refuse(name, text, expected)).ok()
    }

    /// Fails if anything was wrong.
    pub(super) fn finish(self) -> Result<(), BadSettings> {
        if self.errors.is_empty() { Ok(()) } else { Err(BadSettings(self.errors)) }
    }
}

fn parse_bytes(text: &str) -> Option<u64> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("B", 0), ("", 0)];
    let (digits, shift) = units.into_iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, shift)))?;
    digits.trim_end().parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!(parse_bytes("65536"), Some(65_536));
        assert_eq!(parse_bytes("64KiB"), Some(65_536));
        assert_eq!(parse_bytes("64 MiB"), Some(64 << 20));
        assert_eq!(parse_bytes("1GiB"), Some(1 << 30));
        assert_eq!(parse_bytes("17B"), Some(17));
        for bad in ["", "KiB", "1GB", "1.5GiB", "-1", "99999999999GiB", "0x10"] {
            assert_eq!(parse_bytes(bad), None, "{bad}");
        }
    }

    #[test]
    fn hosts_need_ports() {
        for good in ["node1:5011", "127.0.0.1:5011", "[::1]:5011"] {
            assert_eq!(Reader::default().host_port("X", good).as_deref(), Some(good));
        }
        for bad in ["", "node1", "node1:", ":5011", "node1:0", "node1:70000", "::1:5011", "a b:1"] {
            assert_eq!(Reader::default().host_port("X", bad), None, "{bad}");
        }
    }
}
