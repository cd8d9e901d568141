//! What is said to a server, and what its reply means, in the terms of both protocols.

use load::ErrorKind;

use super::{meaning::Meaning, meta, resp};
use crate::settings::Scheme;

/// Which protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Resp,
    Meta,
}

impl Protocol {
    pub(super) fn of(scheme: Scheme) -> Self {
        if scheme == Scheme::Memcached { Self::Meta } else { Self::Resp }
    }

    /// A read, in place of what `out` holds.
    pub(super) fn get(self, out: &mut Vec<u8>, key: &[u8]) {
        out.clear();
        match self {
            Self::Resp => resp::command(out, &[b"GET", key]),
            Self::Meta => meta::get(out, key),
        }
    }

    /// A write, in place of what `out` holds. memcached counts whole seconds.
    pub(super) fn set(self, out: &mut Vec<u8>, key: &[u8], value: &[u8], ttl_ms: i64) {
        out.clear();
        // What is not above 0 lives for ever.
        let ttl_ms = usize::try_from(ttl_ms).unwrap_or(0);
        match self {
            Self::Resp if ttl_ms == 0 => resp::command(out, &[b"SET", key, value]),
            Self::Resp => {
                let mut digits = Vec::new();
                resp::push_decimal(&mut digits, ttl_ms);
                resp::command(out, &[b"SET", key, value, b"PX", &digits]);
            }
            Self::Meta => meta::set(out, key, value, ttl_ms.div_ceil(1000)),
        }
    }

    /// A deletion, in place of what `out` holds.
    pub(super) fn delete(self, out: &mut Vec<u8>, key: &[u8]) {
        out.clear();
        match self {
            Self::Resp => resp::command(out, &[b"DEL", key]),
            Self::Meta => meta::delete(out, key),
        }
    }

    /// What the one reply in `buffer` means; nothing while it is not whole.
    pub(super) fn meaning(self, buffer: &[u8]) -> Result<Option<Meaning<'_>>, ErrorKind> {
        let found = match self {
            Self::Resp => resp::parse(buffer)?.map(|(reply, length)| (of_resp(&reply), length)),
            Self::Meta => meta::parse(buffer)?.map(|(meaning, length)| (Ok(meaning), length)),
        };
        match found {
            None => Ok(None),
            // One request was sent: what follows its reply belongs to nothing.
            Some((meaning, length)) if length == buffer.len() => meaning.map(Some),
            Some(_) => Err(ErrorKind::Protocol),
        }
    }
}

const fn of_resp<'a>(reply: &resp::Reply<'a>) -> Result<Meaning<'a>, ErrorKind> {
    match reply {
        resp::Reply::Text(b"OK") | resp::Reply::Integer(_) => Ok(Meaning::Done),
        resp::Reply::Text(value) => Ok(Meaning::Value(value)),
        resp::Reply::Null => Ok(Meaning::Nothing),
        resp::Reply::Error(reason) => Ok(Meaning::Refused(reason)),
        resp::Reply::List(_) => Err(ErrorKind::Protocol),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn both_protocols_say_the_same() {
        for (protocol, reply, meaning) in [
            (Protocol::Resp, &b"$3\r\nabc\r\n"[..], Meaning::Value(b"abc")),
            (Protocol::Resp, b"$-1\r\n", Meaning::Nothing),
            (Protocol::Resp, b"_\r\n", Meaning::Nothing),
            (Protocol::Resp, b"+OK\r\n", Meaning::Done),
            (Protocol::Resp, b":0\r\n", Meaning::Done),
            (Protocol::Resp, b"-OOM command\r\n", Meaning::Refused(b"OOM command")),
            (Protocol::Meta, b"VA 3\r\nabc\r\n", Meaning::Value(b"abc")),
            (Protocol::Meta, b"EN\r\n", Meaning::Nothing),
            (Protocol::Meta, b"NF\r\n", Meaning::Done),
            (Protocol::Meta, b"NS\r\n", Meaning::Refused(b"NS")),
        ] {
            assert_eq!(protocol.meaning(reply), Ok(Some(meaning)), "{reply:?}");
            let twice = reply.repeat(2);
            assert_eq!(protocol.meaning(&twice), Err(ErrorKind::Protocol), "nobody asked for the second: {reply:?}");
        }
        assert_eq!(Protocol::Resp.meaning(b"*0\r\n"), Err(ErrorKind::Protocol));
    }

    #[test]
    fn times_to_live_are_milliseconds_or_whole_seconds() {
        let set = |protocol: Protocol, ttl_ms: i64| {
            let mut out = b"what was there".to_vec();
            protocol.set(&mut out, b"k", b"v", ttl_ms);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(set(Protocol::Resp, -1), set(Protocol::Resp, 0));
        assert_eq!(set(Protocol::Resp, 0), "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n");
        assert!(set(Protocol::Resp, 1500).ends_with("$2\r\nPX\r\n$4\r\n1500\r\n"));
        assert_eq!(set(Protocol::Meta, 2000), "ms k 1 T2\r\nv\r\n");
    }
}
