//! The headers of a node: `X-Cache`, `X-Mesh-*`, `Server-Timing` and W3C `traceparent`. On the request path, so they are
//! written into buffers on the stack.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use mesh_proto::{TraceContext, Version};
use observability::{RequestTrace, Telemetry};

/// `HIT_LOCAL`, `HIT_REMOTE` or `MISS`.
pub(crate) const X_CACHE: HeaderName = HeaderName::from_static("x-cache");
/// The version read or written, 32 hexadecimal digits.
pub(crate) const X_MESH_VERSION: HeaderName = HeaderName::from_static("x-mesh-version");
/// The id of the node whose replica answered, 16 hexadecimal digits.
pub(crate) const X_MESH_NODE: HeaderName = HeaderName::from_static("x-mesh-node");
/// What a `session` read must not be older than.
pub(crate) const X_MESH_MIN_VERSION: HeaderName = HeaderName::from_static("x-mesh-min-version");
/// Where the time went; see `timing`.
pub(crate) const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
/// W3C Trace Context, section 3.2.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A header of text that is known to be printable ASCII; empty if it is not.
pub(crate) fn text(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

/// `X-Mesh-Version`.
pub(crate) fn version(version: Version) -> HeaderValue {
    ascii(&hex::<32>(version.get()))
}

/// `X-Mesh-Node`.
pub(crate) fn node(id: mesh_proto::NodeId) -> HeaderValue {
    ascii(&hex::<16>(u128::from(id.get())))
}

fn ascii(bytes: &[u8]) -> HeaderValue {
    HeaderValue::from_bytes(bytes).unwrap_or(HeaderValue::from_static(""))
}

fn hex<const DIGITS: usize>(mut number: u128) -> [u8; DIGITS] {
    let mut digits = [b'0'; DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
    digits
}

/// The request's trace: its place in it, if traces are recorded, and the header to give back.
pub(crate) struct Trace {
    pub(crate) request: Option<RequestTrace>,
    header: Option<HeaderValue>,
}

impl Trace {
    /// Reads `traceparent`. One that makes no sense is ignored, as the standard demands, and counted.
    pub(crate) fn of(headers: &HeaderMap, telemetry: &Telemetry) -> Self {
        let mut lines = headers.get_all(&TRACEPARENT).iter();
        let Some(header) = lines.next() else {
            return Self { request: telemetry.begin(None), header: None };
        };
        // Of two nobody knows which is meant.
        let caller = parse_traceparent(header.as_bytes()).filter(|_| lines.next().is_none());
        if caller.is_none() {
            telemetry.traceparent_malformed();
        }
        Self { request: telemetry.begin(caller), header: caller.map(|_| header.clone()) }
    }

    /// The caller's header. If this node keeps a trace that the caller has not sampled, it says so in the flags: what the
    /// caller knows of it would otherwise be missing.
    pub(crate) fn returned(&self, is_kept: bool) -> Option<HeaderValue> {
        let header = self.header.as_ref()?;
        let mut bytes = <[u8; 55]>::try_from(header.as_bytes()).ok().filter(|bytes| is_kept && bytes[54] == b'0');
        bytes.as_mut().map_or_else(
            || Some(header.clone()),
            |bytes| {
                bytes[54] = b'1';
                Some(ascii(bytes))
            },
        )
    }

    /// What goes to the mesh.
    pub(crate) fn context(&self) -> Option<TraceContext> {
        self.request.map(|request| request.context)
    }
}

/// `00-<trace id>-<parent id>-<flags>`, all lower-case hexadecimal; later versions may have more behind another dash.
fn parse_traceparent(text: &[u8]) -> Option<TraceContext> {
    const LENGTH: usize = 55;
    let (head, rest) = text.split_at_checked(LENGTH)?;
    let [version] = unhex::<1>(&head[..2])?;
    let fits_version = match version {
        0 => rest.is_empty(),
        0xff => false,
        _ => rest.is_empty() || rest[0] == b'-',
    };
    let has_dashes = [2, 35, 52].iter().all(|at| head[*at] == b'-');
    let (trace, parent, flags) = (unhex::<16>(&head[3..35])?, unhex::<8>(&head[36..52])?, unhex::<1>(&head[53..])?);
    if !fits_version || !has_dashes || trace == [0; 16] || parent == [0; 8] {
        return None;
    }
    let mut context = [0; 26];
    context[1..17].copy_from_slice(&trace);
    context[17..25].copy_from_slice(&parent);
    context[25] = flags[0];
    Some(TraceContext(context))
}

fn unhex<const BYTES: usize>(digits: &[u8]) -> Option<[u8; BYTES]> {
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; BYTES];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = (nibble(pair[0])? << 4) | nibble(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn versions_and_nodes_are_written_as_they_are_displayed() {
        let some = Version::new(0x0123_4567_89ab_cdef_0011_2233_4455_6677);
        assert_eq!(version(some).to_str().ok(), Some(some.to_string().as_str()));
        let id = mesh_proto::NodeId::new(0xabc);
        assert_eq!(node(id).to_str().ok(), Some(id.to_string().as_str()));
    }

    #[test]
    fn a_traceparent_becomes_26_bytes() {
        let context = parse_traceparent(GOOD.as_bytes()).map(|context| context.0);
        let bytes = context.unwrap_or_default();
        assert_eq!((bytes[0], bytes[1], bytes[16], bytes[17], bytes[24], bytes[25]), (0, 0x0a, 0x9c, 0xb7, 0x31, 1));
        let later = format!("cc{}-what the future brings", &GOOD[2..]);
        assert!(parse_traceparent(later.as_bytes()).is_some());
    }

    #[test]
    fn a_caller_hears_what_was_kept() {
        let returned = |header: &'static str, is_kept| {
            let trace = Trace { request: None, header: Some(HeaderValue::from_static(header)) };
            trace.returned(is_kept).and_then(|header| header.to_str().map(str::to_owned).ok())
        };
        const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
        assert_eq!(returned(UNSAMPLED, true).as_deref(), Some(GOOD));
        assert_eq!(returned(UNSAMPLED, false).as_deref(), Some(UNSAMPLED));
        assert_eq!(returned(GOOD, true).as_deref(), Some(GOOD));
        assert!(Trace { request: None, header: None }.returned(true).is_none());
    }

    #[test]
    fn a_malformed_traceparent_is_nothing() {
        let bad = [
            String::new(),
            GOOD[1..].to_owned(),
            format!("{GOOD}-more"),
            GOOD.to_uppercase(),
            format!("ff{}", &GOOD[2..]),
            GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            GOOD.replace("b7ad6b7169203331", &"0".repeat(16)),
            GOOD.replace('-', "_"),
            GOOD.replace("-01", "-0g"),
        ];
        for text in bad {
            assert_eq!(parse_traceparent(text.as_bytes()), None, "{text}");
        }
    }
}
