//! The meta protocol of memcached 1.6 (protocol.txt, "Meta Commands"), as far as it is used: `mg`, `ms` and `md`; and `stats`.

use load::ErrorKind;

use super::{meaning::Meaning, resp::push_decimal};

/// A value may have so many bytes, and a line without its end.
const VALUE_BYTES_MAX: usize = 16 << 20;
const LINE_BYTES_MAX: usize = 2048;

/// Appends a read that asks for the value.
pub(super) fn get(out: &mut Vec<u8>, key: &[u8]) {
    for piece in [&b"mg "[..], key, b" v\r\n"] {
        out.extend_from_slice(piece);
    }
}

/// Appends a write; it lives for so many seconds, 0 is for ever.
pub(super) fn set(out: &mut Vec<u8>, key: &[u8], value: &[u8], ttl_s: usize) {
    for piece in [&b"ms "[..], key, b" "] {
        out.extend_from_slice(piece);
    }
    push_decimal(out, value.len());
    if ttl_s > 0 {
        out.extend_from_slice(b" T");
        push_decimal(out, ttl_s);
    }
    for piece in [b"\r\n", value, b"\r\n"] {
        out.extend_from_slice(piece);
    }
}

/// Appends a deletion.
pub(super) fn delete(out: &mut Vec<u8>, key: &[u8]) {
    for piece in [&b"md "[..], key, b"\r\n"] {
        out.extend_from_slice(piece);
    }
}

/// What the reply means that `buffer` begins with, and how many bytes it has; nothing while it is not whole.
pub(super) fn parse(buffer: &[u8]) -> Result<Option<(Meaning<'_>, usize)>, ErrorKind> {
    let Some((line, after)) = line(buffer)? else { return Ok(None) };
    let Some(rest) = line.strip_prefix(b"VA ") else {
        let meaning = match line {
            b"EN" => Meaning::Nothing,
            // `NF`, not found, is what a deletion of nothing comes to.
            b"HD" | b"NF" => Meaning::Done,
            b"" => return Err(ErrorKind::Protocol),
            // An error, or not stored.
            _ => Meaning::Refused(line),
        };
        return Ok(Some((meaning, after)));
    };
    let length = rest.split(|byte| *byte == b' ').next().and_then(|length| std::str::from_utf8(length).ok());
    let length: Option<usize> = length.and_then(|length| length.parse().ok());
    let length = length.filter(|length| *length <= VALUE_BYTES_MAX).ok_or(ErrorKind::Protocol)?;
    let Some(value) = buffer.get(after..after + length + 2) else { return Ok(None) };
    let (value, end) = value.split_at(length);
    if end == b"\r\n" { Ok(Some((Meaning::Value(value), after + length + 2))) } else { Err(ErrorKind::Protocol) }
}

/// The names and values of `stats`, once it is whole.
pub(super) fn parse_stats(buffer: &[u8]) -> Result<Option<Vec<(String, String)>>, ErrorKind> {
    let (mut stats, mut rest) = (Vec::new(), buffer);
    while let Some((line, after)) = line(rest)? {
        rest = &rest[after..];
        if line == b"END" {
            return Ok(Some(stats));
        }
        let line = std::str::from_utf8(line).ok().and_then(|line| line.strip_prefix("STAT "));
        let (name, value) = line.and_then(|line| line.split_once(' ')).ok_or(ErrorKind::Protocol)?;
        stats.push((name.to_owned(), value.to_owned()));
    }
    Ok(None)
}

fn line(buffer: &[u8]) -> Result<Option<(&[u8], usize)>, ErrorKind> {
    match buffer.windows(2).position(|end| end == b"\r\n") {
        Some(end) => Ok(Some((&buffer[..end], end + 2))),
        None if buffer.len() > LINE_BYTES_MAX => Err(ErrorKind::Protocol),
        None => Ok(None),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_whole_only_at_its_last_byte() {
        for (reply, expected) in [
            (&b"VA 5 s5 c9\r\nhe\r\no\r\n"[..], Meaning::Value(b"he\r\no")),
            (b"VA 0\r\n\r\n", Meaning::Value(b"")),
            (b"EN\r\n", Meaning::Nothing),
            (b"HD\r\n", Meaning::Done),
            (b"NF\r\n", Meaning::Done),
            (b"NS\r\n", Meaning::Refused(b"NS")),
            (
                b"SERVER_ERROR out of memory storing object\r\n",
                Meaning::Refused(b"SERVER_ERROR out of memory storing object"),
            ),
        ] {
            for end in 0..reply.len() {
                assert_eq!(parse(&reply[..end]), Ok(None), "{end} of {reply:?}");
            }
            assert_eq!(parse(reply), Ok(Some((expected, reply.len()))));
        }
        for bad in [&b"VA x\r\n"[..], b"VA -1\r\n", b"VA 99999999999\r\n", b"VA 1\r\nabc\r\n", b"\r\n", &[b'x'; 3000]] {
            assert_eq!(parse(bad), Err(ErrorKind::Protocol), "{bad:?}");
        }
    }

    #[test]
    fn commands_are_those_of_the_protocol() {
        let mut out = Vec::new();
        get(&mut out, b"k");
        set(&mut out, b"k", b"abc", 0);
        set(&mut out, b"k", b"", 60);
        delete(&mut out, b"k");
        assert_eq!(out, b"mg k v\r\nms k 3\r\nabc\r\nms k 0 T60\r\n\r\nmd k\r\n");
    }

    #[test]
    fn stats_are_read_to_their_end() {
        let text = b"STAT pid 7\r\nSTAT version 1.6.18 x\r\nEND\r\n";
        assert_eq!(parse_stats(&text[..text.len() - 1]), Ok(None));
        let stats = parse_stats(text).unwrap().unwrap();
        assert_eq!(stats[1], ("version".to_owned(), "1.6.18 x".to_owned()));
        assert_eq!(parse_stats(b"ERROR\r\n"), Err(ErrorKind::Protocol));
    }
}
