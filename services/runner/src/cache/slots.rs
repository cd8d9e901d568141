//! The slots of a Redis Cluster (redis.io/docs/reference/cluster-spec): which of 16 384 a key is in, and which server has it.

use super::resp::Reply;

/// How many there are.
pub(super) const SLOTS: usize = 16_384;

/// Slots from one to another, both included, and who serves them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SlotRange {
    pub(super) from: usize,
    pub(super) to: usize,
    /// `host:port` of the master, then of its replicas.
    pub(super) servers: Vec<String>,
}

/// The slot of a key: CRC16 (XMODEM) of what stands between the first `{` and the next `}`, if anything does, or of the whole.
pub(super) fn slot_of(key: &[u8]) -> usize {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let close = rest.iter().position(|byte| *byte == b'}')?;
        (close > 0).then(|| &rest[..close])
    });
    usize::from(crc16(tag.unwrap_or(key))) % SLOTS
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| (crc << 8) ^ TABLE[usize::from((crc >> 8) as u8 ^ byte)])
}

const TABLE: [u16; 256] = {
    let (mut table, mut at) = ([0; 256], 0);
    while at < 256 {
        let (mut crc, mut bit) = ((at as u16) << 8, 0);
        while bit < 8 {
            crc = (crc << 1) ^ (if crc & 0x8000 != 0 { 0x1021 } else { 0 });
            bit += 1;
        }
        table[at] = crc;
        at += 1;
    }
    table
};

/// The answer to CLUSTER SLOTS of the server at `asked`, whose host stands in for one that is not named.
pub(super) fn ranges(reply: &Reply<'_>, asked: &str) -> Vec<SlotRange> {
    let range = |range: &Reply<'_>| {
        let [Reply::Integer(from), Reply::Integer(to), servers @ ..] = range.elements() else { return None };
        let (from, to) = (usize::try_from(*from).ok()?, usize::try_from(*to).ok().filter(|to| *to < SLOTS)?);
        let server = |server: &Reply<'_>| {
            let [host, Reply::Integer(port), ..] = server.elements() else { return None };
            Some(address(host.text().unwrap_or_default(), &port.to_string(), asked))
        };
        Some(SlotRange { from, to, servers: servers.iter().filter_map(server).collect() })
    };
    reply.elements().iter().filter_map(range).filter(|range| !range.servers.is_empty()).collect()
}

/// Where a MOVED or ASK error of the server at `asked` sends to, and whether it is for this one request only (ASK).
pub(super) fn redirect(error: &[u8], asked: &str) -> Option<(String, bool)> {
    let mut words = std::str::from_utf8(error).ok()?.split(' ');
    let is_ask = match words.next()? {
        "MOVED" => false,
        "ASK" => true,
        _ => return None,
    };
    let (host, port) = words.nth(1)?.rsplit_once(':')?;
    Some((address(host, port, asked), is_ask))
}

fn address(host: &str, port: &str, asked: &str) -> String {
    let asked = asked.rsplit_once(':').map_or(asked, |(host, _)| host);
    let host = if host.is_empty() || host == "?" { asked } else { host };
    // An IPv6 address without brackets.
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::{super::resp::parse, *};

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        for (key, same) in [("{user1000}.following", "user1000"), ("foo{{bar}}zap", "{bar"), ("foo{bar}{zap}", "bar")] {
            assert_eq!(slot_of(key.as_bytes()), slot_of(same.as_bytes()), "{key}");
        }
        // An empty tag is none. As CLUSTER KEYSLOT of Redis 7 says it:
        for (key, slot) in [("foo", 12_182), ("foo{}{bar}", 8363), ("key-00000001", 4680), ("", 0)] {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
    }

    #[test]
    fn a_redirection_names_a_server() {
        let to = |error: &str| redirect(error.as_bytes(), "h:1");
        assert_eq!(to("MOVED 3999 127.0.0.1:6381"), Some(("127.0.0.1:6381".to_owned(), false)));
        assert_eq!(to("ASK 3999 :6381"), Some(("h:6381".to_owned(), true)));
        assert_eq!(to("MOVED 3999 ::1:6381"), Some(("[::1]:6381".to_owned(), false)));
        for none in ["ERR MOVED", "MOVED 1", "MOVED 1 x", ""] {
            assert_eq!(to(none), None, "{none}");
        }
    }

    #[test]
    fn ranges_are_read_and_nonsense_among_them_is_left_out() {
        let text = b"*3\r\n*4\r\n:0\r\n:5460\r\n*3\r\n$1\r\na\r\n:7000\r\n$2\r\nid\r\n*3\r\n_\r\n:7003\r\n$2\r\nid\r\n\
            *3\r\n:5461\r\n:99999\r\n*2\r\n$1\r\nb\r\n:1\r\n*1\r\n:7\r\n";
        let (reply, _) = parse(text).unwrap().unwrap();
        let servers = vec!["a:7000".to_owned(), "h:7003".to_owned()];
        assert_eq!(ranges(&reply, "h:1"), [SlotRange { from: 0, to: 5460, servers }]);
    }
}
