//! Query strings in form encoding (WHATWG URL, section 5), as clients' libraries send it: `+` is a space, `%2B` a plus, and any byte
//! can be written with a percent sign. A parameter that is unknown or duplicated is refused: to ignore it would answer another
//! question than the one that was asked.

use std::borrow::Cow;

use bytes::Bytes;
use percent_encoding::percent_decode;

use crate::{app::Limits, problem::Problem};

/// The parameters called `names`, still encoded.
pub(crate) fn parameters<'a, const N: usize>(
    query: Option<&'a str>,
    names: [&'static str; N],
) -> Result<[Option<&'a str>; N], Problem> {
    let mut found = [None; N];
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some(index) = names.iter().position(|known| *known == name) else {
            let known = names.join(", ");
            let detail = format!("unknown parameter `{}`: this path knows {known}", name.escape_default());
            return Err(Problem::bad_request("parameter-unknown", detail));
        };
        if found[index].replace(value).is_some() {
            let detail = format!("parameter `{}` is duplicated: send it once", names[index]);
            return Err(Problem::bad_request("parameter-twice", detail));
        }
    }
    Ok(found)
}

/// The bytes behind form encoding.
pub(crate) fn decode<'a>(name: &'static str, encoded: &'a str) -> Result<Cow<'a, [u8]>, Problem> {
    let bytes = encoded.as_bytes();
    // The decoder lets a stray percent sign through, which would make two spellings of one key.
    let is_pair = |at: usize| bytes.get(at + 1..at + 3).is_some_and(|pair| pair.iter().all(u8::is_ascii_hexdigit));
    if !bytes.iter().enumerate().all(|(at, byte)| *byte != b'%' || is_pair(at)) {
        let detail =
            format!("bad percent-encoding in `{name}`: each % needs two hexadecimal digits, and % itself is %25");
        return Err(Problem::bad_request("percent-encoding", detail));
    }
    if !bytes.contains(&b'+') {
        return Ok(percent_decode(bytes).into());
    }
    let spaced: Vec<u8> = bytes.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    Ok(percent_decode(&spaced).collect::<Vec<u8>>().into())
}

/// The key in parameter `k`.
pub(crate) fn key(encoded: Option<&str>, limits: &Limits) -> Result<Bytes, Problem> {
    let Some(encoded) = encoded.filter(|encoded| !encoded.is_empty()) else {
        return Err(Problem::bad_request("key-missing", "say which key: ?k=KEY, percent-encoded and not empty"));
    };
    let key = decode("k", encoded)?;
    check_key(&key, limits)?;
    Ok(Bytes::copy_from_slice(&key))
}

/// Whether a key is within bounds.
pub(crate) fn check_key(key: &[u8], limits: &Limits) -> Result<(), Problem> {
    if key.is_empty() {
        return Err(Problem::bad_request("key-missing", "the key must not be empty"));
    }
    if key.len() > limits.key_bytes_max {
        let detail = format!("the key has {} bytes, more than the {} allowed", key.len(), limits.key_bytes_max);
        return Err(Problem::too_large("key-too-large", detail));
    }
    Ok(())
}

/// A whole number from 0 to `max` in parameter `name`, or `default` without it.
pub(crate) fn number(name: &'static str, text: Option<&str>, default: u64, max: u64) -> Result<u64, Problem> {
    let Some(text) = text else { return Ok(default) };
    text.parse().ok().filter(|number| *number <= max).ok_or_else(|| {
        let detail = format!("`{name}` must be a whole number from 0 to {max}");
        Problem::bad_request("parameter-malformed", detail)
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use std::time::Duration;

    use super::*;

    const LIMITS: Limits = Limits { key_bytes_max: 4, value_bytes_max: 8, request_timeout: Duration::ZERO };

    #[test]
    fn parameters_are_found_by_name() {
        assert_eq!(
            parameters(Some("k=a%20b&&consistency=one"), ["consistency", "k"]).unwrap(),
            [Some("one"), Some("a%20b")]
        );
        assert_eq!(parameters(None, ["k"]).unwrap(), [None]);
        assert_eq!(parameters(Some("k"), ["k"]).unwrap(), [Some("")]);
        assert_eq!(parameters(Some("k=a=b"), ["k"]).unwrap(), [Some("a=b")]);
        assert!(parameters(Some("k=1&k=2"), ["k"]).is_err());
        assert!(parameters(Some("key=1"), ["k"]).is_err());
    }

    #[test]
    fn decoding_is_exact_or_refused() {
        assert_eq!(decode("k", "a+b%2B%00%ff%C3%A4").unwrap().as_ref(), b"a b+\0\xff\xc3\xa4");
        assert_eq!(decode("k", "a%20b").unwrap().as_ref(), b"a b");
        for bad in ["%", "a%2", "%zz", "%+1", "100%"] {
            assert!(decode("k", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_are_bounded_after_decoding() {
        assert_eq!(key(Some("%61%62%63%64"), &LIMITS).unwrap(), "abcd");
        assert!(key(Some("abcde"), &LIMITS).is_err());
        assert!(key(Some(""), &LIMITS).is_err());
        assert!(key(None, &LIMITS).is_err());
    }

    #[test]
    fn numbers_are_whole_and_bounded() {
        assert_eq!(number("after_ms", None, 7, 10).unwrap(), 7);
        assert_eq!(number("after_ms", Some("10"), 7, 10).unwrap(), 10);
        for bad in ["", "11", "-1", "1.5", "x"] {
            assert!(number("after_ms", Some(bad), 7, 10).is_err(), "{bad}");
        }
    }
}
