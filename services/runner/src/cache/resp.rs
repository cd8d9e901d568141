//! RESP, the protocol of Redis, versions 2 and 3 (redis.io/docs/reference/protocol-spec): commands are written, replies are parsed where
//! they lie. Streamed replies are not asked for and not understood.

use load::ErrorKind;

/// A string of a reply may have so many bytes, a list so many elements, and lists may be so deep.
const STRING_BYTES_MAX: usize = 16 << 20;
const ELEMENTS_MAX: usize = 1 << 20;
const DEPTH_MAX: usize = 8;

/// A line without its end may have so many bytes.
const LINE_BYTES_MAX: usize = 64 << 10;

/// One reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply<'a> {
    /// A string of any kind; numbers that are no whole ones and booleans are left as text.
    Text(&'a [u8]),
    Error(&'a [u8]),
    Integer(i64),
    Null,
    /// An array or a set; a map is a list of keys and values in turn.
    List(Vec<Self>),
}

impl Reply<'_> {
    /// Its elements; none if it is no list.
    pub(super) fn elements(&self) -> &[Self] {
        if let Self::List(elements) = self { elements } else { &[] }
    }

    /// Its text, if it is one.
    pub(super) fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { std::str::from_utf8(text).ok() } else { None }
    }
}

/// Appends a command: a list of strings.
pub(super) fn command(out: &mut Vec<u8>, parts: &[&[u8]]) {
    out.push(b'*');
    push_decimal(out, parts.len());
    for part in parts {
        out.extend_from_slice(b"\r\n$");
        push_decimal(out, part.len());
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(part);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends a number in decimal digits.
pub(super) fn push_decimal(out: &mut Vec<u8>, number: usize) {
    let (mut digits, mut at, mut rest) = ([0; 20], 20, number);
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// The reply that `buffer` begins with, and how many bytes it has; nothing while it is not whole. Attributes before it, and what the
/// server sends unasked, are skipped.
pub(super) fn parse(buffer: &[u8]) -> Result<Option<(Reply<'_>, usize)>, ErrorKind> {
    let mut cursor = RespCursor { buffer, at: 0 };
    loop {
        let skipped = matches!(buffer.get(cursor.at), Some(b'|' | b'>'));
        let Some(reply) = cursor.reply(DEPTH_MAX)? else { return Ok(None) };
        if !skipped {
            return Ok(Some((reply, cursor.at)));
        }
    }
}

struct RespCursor<'a> {
    buffer: &'a [u8],
    at: usize,
}

/// A line's type and the rest of it.
type Line<'a> = (u8, &'a [u8]);

impl<'a> RespCursor<'a> {
    fn line(&mut self) -> Result<Option<Line<'a>>, ErrorKind> {
        let rest = &self.buffer[self.at..];
        let Some(end) = rest.windows(2).position(|end| end == b"\r\n") else {
            return if rest.len() > LINE_BYTES_MAX { Err(ErrorKind::Protocol) } else { Ok(None) };
        };
        let (kind, text) = rest[..end].split_first().ok_or(ErrorKind::Protocol)?;
        self.at += end + 2;
        Ok(Some((*kind, text)))
    }

    fn reply(&mut self, depth: usize) -> Result<Option<Reply<'a>>, ErrorKind> {
        let Some((kind, text)) = self.line()? else { return Ok(None) };
        match kind {
            b'+' | b',' | b'(' | b'#' => Ok(Some(Reply::Text(text))),
            b'-' => Ok(Some(Reply::Error(text))),
            b':' => Ok(Some(Reply::Integer(number(text)?))),
            b'_' if text.is_empty() => Ok(Some(Reply::Null)),
            b'$' | b'*' if text == b"-1" => Ok(Some(Reply::Null)),
            b'$' => self.string(text, Reply::Text),
            // Its first three bytes and a colon name its format.
            b'=' => self.string(text, |text| Reply::Text(text.get(4..).unwrap_or_default())),
            b'!' => self.string(text, Reply::Error),
            b'*' | b'~' | b'>' => self.list(length(text, ELEMENTS_MAX)?, depth),
            b'%' | b'|' => self.list(length(text, ELEMENTS_MAX)? * 2, depth),
            _ => Err(ErrorKind::Protocol),
        }
    }

    fn string(&mut self, text: &[u8], of: impl Fn(&'a [u8]) -> Reply<'a>) -> Result<Option<Reply<'a>>, ErrorKind> {
        let length = length(text, STRING_BYTES_MAX)?;
        let Some(string) = self.buffer.get(self.at..self.at + length + 2) else { return Ok(None) };
        let (string, end) = string.split_at(length);
        self.at += length + 2;
        if end == b"\r\n" { Ok(Some(of(string))) } else { Err(ErrorKind::Protocol) }
    }

    fn list(&mut self, length: usize, depth: usize) -> Result<Option<Reply<'a>>, ErrorKind> {
        let deeper = depth.checked_sub(1).ok_or(ErrorKind::Protocol)?;
        let mut elements = Vec::new();
        for _ in 0..length {
            let Some(element) = self.reply(deeper)? else { return Ok(None) };
            elements.push(element);
        }
        Ok(Some(Reply::List(elements)))
    }
}

fn number(text: &[u8]) -> Result<i64, ErrorKind> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(ErrorKind::Protocol)
}

fn length(text: &[u8], max: usize) -> Result<usize, ErrorKind> {
    usize::try_from(number(text)?).ok().filter(|length| *length <= max).ok_or(ErrorKind::Protocol)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;
    use redis::Value;

    use super::*;

    /// The same as the `redis` crate says it.
    fn of_oracle(value: &Value) -> Option<String> {
        Some(match value {
            Value::Nil => "null".to_owned(),
            Value::Int(number) => format!("int {number}"),
            Value::BulkString(text) => format!("text {text:?}"),
            Value::SimpleString(text) => format!("text {:?}", text.as_bytes()),
            Value::Okay => format!("text {:?}", b"OK"),
            Value::Array(list) | Value::Set(list) => {
                format!("list {:?}", list.iter().map(of_oracle).collect::<Option<Vec<_>>>()?)
            }
            Value::Map(map) => {
                let list = map.iter().flat_map(|(key, value)| [of_oracle(key), of_oracle(value)]);
                format!("list {:?}", list.collect::<Option<Vec<_>>>()?)
            }
            Value::ServerError(error) => format!("error {}", error.code()),
            _ => return None,
        })
    }

    fn of_ours(reply: &Reply<'_>) -> String {
        match reply {
            Reply::Null => "null".to_owned(),
            Reply::Integer(number) => format!("int {number}"),
            Reply::Text(text) => format!("text {text:?}"),
            Reply::Error(text) => format!("error {}", String::from_utf8_lossy(text).split(' ').next().unwrap()),
            Reply::List(list) => format!("list {:?}", list.iter().map(of_ours).collect::<Vec<_>>()),
        }
    }

    /// Replies of all kinds that are used.
    fn replies() -> impl Strategy<Value = Vec<u8>> {
        let scalar = prop_oneof![
            any::<i64>().prop_map(|number| format!(":{number}\r\n").into_bytes()),
            proptest::collection::vec(any::<u8>(), 0..40)
                .prop_map(|text| { [format!("${}\r\n", text.len()).as_bytes(), &text, b"\r\n"].concat() }),
            Just(b"+OK\r\n".to_vec()),
            Just(b"$-1\r\n".to_vec()),
            Just(b"_\r\n".to_vec()),
            Just(b"*-1\r\n".to_vec()),
            "[A-Z]{3,9} [a-z ]{0,20}".prop_map(|text| format!("-{text}\r\n").into_bytes()),
        ];
        scalar.prop_recursive(3, 30, 6, |inner| {
            (proptest::collection::vec(inner, 0..6), 0_usize..3).prop_map(|(mut list, kind)| {
                let is_map = kind == 2;
                list.truncate(if is_map { list.len() / 2 * 2 } else { list.len() });
                let count = if is_map { list.len() / 2 } else { list.len() };
                let head = format!("{}{count}\r\n", ['*', '~', '%'][kind]);
                [vec![head.into_bytes()], list].concat().concat()
            })
        })
    }

    proptest! {
        #[test]
        fn replies_are_understood_as_another_client_does(reply in replies(), more: Vec<u8>) {
            let value = redis::parse_redis_value(&reply);
            for end in 0..reply.len() {
                prop_assert_eq!(parse(&reply[..end]), Ok(None), "cut at {}", end);
            }
            let whole = [&reply[..], &more].concat();
            let (ours, length) = parse(&whole).unwrap().unwrap();
            prop_assert_eq!(length, reply.len());
            if let Some(theirs) = value.ok().as_ref().and_then(of_oracle) {
                prop_assert_eq!(of_ours(&ours), theirs);
            }
        }

        #[test]
        fn noise_is_no_panic(noise: Vec<u8>) {
            let _ = parse(&noise);
        }

        #[test]
        fn commands_are_written_as_another_client_does(parts: Vec<Vec<u8>>, number: usize) {
            prop_assume!(!parts.is_empty());
            let mut theirs = redis::Cmd::new();
            parts.iter().for_each(|part| { theirs.arg(part); });
            let mut ours = Vec::new();
            command(&mut ours, &parts.iter().map(Vec::as_slice).collect::<Vec<_>>());
            prop_assert_eq!(ours, theirs.get_packed_command());
            let mut digits = Vec::new();
            push_decimal(&mut digits, number);
            prop_assert_eq!(digits, number.to_string().into_bytes());
        }
    }

    #[test]
    fn what_was_not_asked_for_is_skipped_and_nonsense_refused() {
        let reply = b">2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n|1\r\n+ttl\r\n:3\r\n$2\r\nhi\r\n";
        assert_eq!(parse(reply), Ok(Some((Reply::Text(b"hi"), reply.len()))));
        assert_eq!(parse(b"=7\r\ntxt:abc\r\n"), Ok(Some((Reply::Text(b"abc"), 13))));
        assert_eq!(parse(b"!5\r\nERR x\r\n"), Ok(Some((Reply::Error(b"ERR x"), 11))));
        for bad in [
            &b"hello\r\n"[..],
            b"$x\r\n",
            b"$-2\r\n",
            b"$99999999999\r\n",
            b"\r\n",
            b"$2\r\nabc\r\n",
            b":\r\n",
            b"$?\r\n",
        ] {
            assert_eq!(parse(bad), Err(ErrorKind::Protocol), "{bad:?}");
        }
        assert_eq!(parse(&b"*1\r\n".repeat(DEPTH_MAX + 1)), Err(ErrorKind::Protocol), "too deep");
        assert_eq!(parse(&[b'+'; LINE_BYTES_MAX + 2]), Err(ErrorKind::Protocol), "a line without end");
    }
}
