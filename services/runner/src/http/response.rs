//! One HTTP/1.1 response, parsed where it lies. Only the headers that the load looks at are kept.

use load::{ErrorKind, WriteVersion};

/// Headers a response may have.
const HEADERS_MAX: usize = 48;

/// So many interim responses (1xx) may come before the answer.
const INTERIM_MAX: usize = 8;

/// A response's body may be this long.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Where a value came from (`X-Cache`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CacheHeader {
    HitLocal,
    HitRemote,
    Miss,
    Absent,
}

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

/// What stands before the body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) cache: CacheHeader,
    pub(crate) version: Option<WriteVersion>,
    /// Where `Server-Timing` lies in the buffer; empty if there is none.
    pub(super) timing: (usize, usize),
    /// The node has kept the request's trace.
    pub(crate) is_kept: bool,
    /// The node whose replica answered (`X-Mesh-Node`).
    pub(crate) node: Option<u64>,
    /// The server will close the connection.
    pub(crate) close: bool,
    bytes: usize,
    framing: Framing,
}

/// The head of the answer in `buffer`, or nothing while it is not whole. Interim responses before it are skipped.
pub(crate) fn parse_head(buffer: &[u8]) -> Result<Option<Head>, ErrorKind> {
    let mut from = 0;
    for _ in 0..=INTERIM_MAX {
        match parse_one(buffer, from)? {
            // Nobody has asked for another protocol.
            Some(head) if head.status == 101 => return Err(ErrorKind::Protocol),
            Some(head) if head.status < 200 => from = head.bytes,
            found => return Ok(found),
        }
    }
    Err(ErrorKind::Protocol)
}

/// The head that begins at `from`.
fn parse_one(buffer: &[u8], from: usize) -> Result<Option<Head>, ErrorKind> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(bytes) = response.parse(&buffer[from..]).map_err(|_| ErrorKind::Protocol)? else {
        return Ok(None);
    };
    let status = response.code.ok_or(ErrorKind::Protocol)?;
    let close = response.version == Some(0);
    let mut head = Head {
        status,
        cache: CacheHeader::Absent,
        version: None,
        timing: (0, 0),
        is_kept: false,
        node: None,
        close,
        bytes: from + bytes,
        framing: Framing::UntilClose,
    };
    for header in response.headers.iter() {
        // The lengths are compared first, so most headers cost one comparison.
        match header.name.len() {
            7 if header.name.eq_ignore_ascii_case("x-cache") => {
                head.cache = match header.value {
                    b"HIT_LOCAL" => CacheHeader::HitLocal,
                    b"HIT_REMOTE" => CacheHeader::HitRemote,
                    b"MISS" => CacheHeader::Miss,
                    _ => CacheHeader::Absent,
                };
            }
            11 if header.name.eq_ignore_ascii_case("traceparent") => head.is_kept = header.value.ends_with(b"1"),
            13 if header.name.eq_ignore_ascii_case("server-timing") => {
                let start = header.value.as_ptr() as usize - buffer.as_ptr() as usize;
                head.timing = (start, start + header.value.len());
            }
            11 if header.name.eq_ignore_ascii_case("x-mesh-node") => head.node = parse_node(header.value),
            14 if header.name.eq_ignore_ascii_case("x-mesh-version") => {
                head.version = WriteVersion::parse(header.value)
            }
            14 if header.name.eq_ignore_ascii_case("content-length") => {
                let length = std::str::from_utf8(header.value).ok().and_then(|text| text.trim().parse().ok());
                let length = length.filter(|length| *length <= BODY_BYTES_MAX).ok_or(ErrorKind::Protocol)?;
                head.framing = Framing::Length(length);
            }
            17 if header.name.eq_ignore_ascii_case("transfer-encoding") => head.framing = Framing::Chunked,
            10 if header.name.eq_ignore_ascii_case("connection") => {
                head.close = header.value.eq_ignore_ascii_case(b"close");
            }
            _ => {}
        }
    }
    if matches!(status, 204 | 304) {
        head.framing = Framing::Length(0);
    }
    Ok(Some(head))
}

/// 16 hexadecimal digits.
fn parse_node(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok().and_then(|digits| u64::from_str_radix(digits, 16).ok())
}

impl Head {
    /// Copies the whole body behind this head into `body` and says so, or says that more bytes are needed. `ended`: no more
    /// will come.
    pub(crate) fn copy_body(&self, buffer: &[u8], ended: bool, body: &mut Vec<u8>) -> Result<bool, ErrorKind> {
        body.clear();
        let rest = &buffer[self.bytes..];
        match self.framing {
            Framing::Length(length) => {
                let whole = rest.get(..length);
                body.extend_from_slice(whole.unwrap_or_default());
                Ok(whole.is_some())
            }
            Framing::Chunked => copy_chunks(rest, body),
            Framing::UntilClose if rest.len() > BODY_BYTES_MAX => Err(ErrorKind::Protocol),
            Framing::UntilClose => {
                body.extend_from_slice(rest);
                Ok(ended)
            }
        }
    }
}

fn copy_chunks(mut rest: &[u8], body: &mut Vec<u8>) -> Result<bool, ErrorKind> {
    loop {
        let httparse::Status::Complete((start, length)) =
            httparse::parse_chunk_size(rest).map_err(|_| ErrorKind::Protocol)?
        else {
            return Ok(false);
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length.saturating_add(body.len()) > BODY_BYTES_MAX {
            return Err(ErrorKind::Protocol);
        }
        let Some(chunk) = rest.get(start..start + length + 2) else { return Ok(false) };
        if length == 0 {
            return Ok(true);
        }
        body.extend_from_slice(&chunk[..length]);
        rest = &rest[start + length + 2..];
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn body_of(response: &[u8]) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        let head = parse_head(response).unwrap()?;
        head.copy_body(response, false, &mut body).unwrap().then_some(body)
    }

    #[test]
    fn a_response_is_whole_only_at_its_last_byte() {
        let plain = b"HTTP/1.1 200 OK\r\nX-Cache: HIT_REMOTE\r\nx-mesh-version: 0000000000000000000000000000002a\r\n\
            X-Mesh-Node: 00000000000000ff\r\nContent-Length: 5\r\n\r\nhello";
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n";
        for response in [&plain[..], &chunked[..]] {
            for end in 0..response.len() {
                assert_eq!(body_of(&response[..end]), None, "{end}");
            }
            assert_eq!(body_of(response).unwrap(), b"hello");
        }
        let head = parse_head(plain).unwrap().unwrap();
        assert_eq!((head.status, head.cache, head.version), (200, CacheHeader::HitRemote, Some(WriteVersion::new(42))));
        assert_eq!((head.node, head.close), (Some(255), false));
    }

    #[test]
    fn an_interim_response_is_no_answer() {
        let early = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
        let answer = b"HTTP/1.1 200 OK\r\nServer-Timing: mesh;dur=1\r\nContent-Length: 5\r\n\r\nhello";
        let both = [&early[..], &b"HTTP/1.1 100 Continue\r\n\r\n"[..], &answer[..]].concat();
        for end in 0..both.len() {
            assert_eq!(body_of(&both[..end]), None, "{end}");
        }
        assert_eq!(body_of(&both).unwrap(), b"hello");
        let head = parse_head(&both).unwrap().unwrap();
        assert_eq!((head.status, &both[head.timing.0..head.timing.1]), (200, &b"mesh;dur=1"[..]));
        assert_eq!(parse_head(&early.repeat(INTERIM_MAX + 1)).unwrap_err(), ErrorKind::Protocol, "no end of them");
        assert_eq!(parse_head(b"HTTP/1.1 101 Switching\r\n\r\n").unwrap_err(), ErrorKind::Protocol);
    }

    #[test]
    fn what_is_no_http_is_an_error() {
        assert_eq!(parse_head(b"SSH-2.0-OpenSSH\r\n\r\n").unwrap_err(), ErrorKind::Protocol);
        let absurd = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n";
        assert_eq!(parse_head(absurd).unwrap_err(), ErrorKind::Protocol);
        assert!(parse_head(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").unwrap().unwrap().close);
    }
}
