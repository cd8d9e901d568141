//! The slots of a Redis Cluster (redis.io/docs/reference/cluster-spec): which of 16 384 a key is in, and which server has it.

use super::resp::Reply;

/// How many there are.
pub(super) const SLOTS: usize = 16_384;

/// Slots from one to another, both included, and who has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SlotRange {
    pub(super) from: usize,
    pub(super) to: usize,
    /// `host:port`.
    pub(super) master: String,
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
        let [Reply::Integer(from), Reply::Integer(to), master, ..] = range.elements() else { return None };
        let to = usize::try_from(*to).ok().filter(|to| *to < SLOTS)?;
        let from = usize::try_from(*from).ok().filter(|from| *from <= to)?;
        let [host, Reply::Integer(port), ..] = master.elements() else { return None };
        Some(SlotRange { from, to, master: address(host.text().unwrap_or_default(), &port.to_string(), asked) })
    };
    reply.elements().iter().filter_map(range).collect()
}

/// The replicas in an answer to CLUSTER NODES: lines of id, `host:port@port,name`, flags and more.
pub(super) fn replicas_of(nodes: &str, asked: &str) -> Vec<String> {
    let replica = |line: &str| {
        let mut words = line.split(' ').skip(1);
        let (address_of, flags) = (words.next()?.split(['@', ',']).next()?, words.next()?);
        let (host, port) = address_of.rsplit_once(':')?;
        flags.split(',').any(|flag| flag == "slave").then(|| address(host, port, asked))
    };
    nodes.lines().filter_map(replica).collect()
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
        for (key, slot) in
            [("foo", 12_182), ("foo{}{bar}", 8363), ("key-00000001", 16_302), ("key-00000007", 8040), ("", 0)]
        {
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
    fn replicas_are_told_from_masters() {
        let nodes = "ab 127.0.0.1:7001@17001 master - 0 1 1 connected 0-5460\n\
                     cd 127.0.0.1:7004@17004,name myself,slave ab 0 1 1 connected\nef :7005@17005 slave,fail ab 0 1 1 connected\n";
        assert_eq!(replicas_of(nodes, "h:1"), ["127.0.0.1:7004", "h:7005"]);
        assert!(replicas_of("nonsense\n\n x", "h:1").is_empty());
    }

    #[test]
    fn ranges_are_read_and_nonsense_among_them_is_left_out() {
        let text = b"*3\r\n*4\r\n:0\r\n:5460\r\n*3\r\n$1\r\na\r\n:7000\r\n$2\r\nid\r\n*3\r\n_\r\n:7003\r\n$2\r\nid\r\n\
            *3\r\n:5461\r\n:99999\r\n*2\r\n$1\r\nb\r\n:1\r\n*1\r\n:7\r\n";
        let (reply, _) = parse(text).unwrap().unwrap();
        assert_eq!(ranges(&reply, "h:1"), [SlotRange { from: 0, to: 5460, master: "a:7000".to_owned() }]);
    }
}
