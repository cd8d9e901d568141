//! Values that prove themselves: `v:<key>:<writer>:<seq>:<checksum>`, and padding behind it if one is asked for. Whoever
//! reads one knows which key it belongs to, which write made it, and whether a bit of it has changed.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Who writes: one thread of one run. The run's part is random, so the values of an earlier run are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Writer {
    /// The run, 24 random bits.
    pub run: u32,
    /// The thread within it, below 256.
    pub thread: u8,
}

/// One write: who, and how many writes they had made before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Who.
    pub writer: Writer,
    /// The writer's count of writes, from 1.
    pub seq: u64,
}

/// What a value proves to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// This write, to the key that was asked for.
    Genuine(Stamp),
    /// A whole and valid value that was written to another key.
    WrongObject,
    /// Not a value that anyone can have written.
    Corrupt,
}

/// Writes the value of one write into `out`, which is cleared. It is padded to `value_bytes` if it is shorter.
pub fn write_value(out: &mut Vec<u8>, key: &[u8], stamp: Stamp, value_bytes: usize) {
    out.clear();
    out.extend_from_slice(b"v:");
    out.extend_from_slice(key);
    out.push(b':');
    push_hex(out, (u64::from(stamp.writer.run) << 8) | u64::from(stamp.writer.thread), 1);
    out.push(b':');
    push_hex(out, stamp.seq, 1);
    let proven = out.len();
    let padding = value_bytes.saturating_sub(proven + 1 + CHECKSUM_DIGITS + 1);
    let mut checksum = xxh3_64(out);
    out.push(b':');
    let checksum_at = out.len();
    out.resize(checksum_at + CHECKSUM_DIGITS, b'0');
    if padding > 0 {
        out.push(b':');
        // Letters that start at another place for every write, so that padding of another value is noticed. What is there is
        // copied behind itself by whole alphabets: letter by letter, a megabyte takes longer than sending it.
        let (start, end) = (out.len(), out.len() + padding);
        out.extend(
            (0..ALPHABET.min(padding))
                .map(|n| b'a' + ((stamp.seq % ALPHABET as u64 + n as u64) % ALPHABET as u64) as u8),
        );
        while out.len() < end {
            let whole = (out.len() - start) / ALPHABET * ALPHABET;
            out.extend_from_within(start..start + whole.min(end - out.len()));
        }
        checksum = xxh3_64_with_seed(&out[checksum_at + CHECKSUM_DIGITS..], checksum);
    }
    for (at, digit) in out[checksum_at..checksum_at + CHECKSUM_DIGITS].iter_mut().enumerate() {
        *digit = HEX[(checksum >> (60 - 4 * at)) as usize & 15];
    }
}

/// Says what `value`, read for `key`, proves to be.
#[must_use]
pub fn prove(value: &[u8], key: &[u8]) -> Proof {
    parse(value).map_or(
        Proof::Corrupt,
        |(owner, stamp)| {
            if owner == key { Proof::Genuine(stamp) } else { Proof::WrongObject }
        },
    )
}

const CHECKSUM_DIGITS: usize = 16;
const ALPHABET: usize = 26;
const HEX: &[u8; 16] = b"0123456789abcdef";

/// The key and the write that a valid value names.
fn parse(value: &[u8]) -> Option<(&[u8], Stamp)> {
    let mut fields = value.strip_prefix(b"v:")?.splitn(5, |byte| *byte == b':');
    let key = fields.next()?;
    let writer = parse_hex(fields.next()?)?;
    let seq = parse_hex(fields.next()?)?;
    let checksum = fields.next()?;
    if checksum.len() != CHECKSUM_DIGITS {
        return None;
    }
    // What stands before the checksum, without the colon; what follows it, with the colon.
    let proven = 2 + key.len() + 1 + value[2 + key.len() + 1..].iter().position(|byte| *byte == b':')?;
    let proven = proven + 1 + value[proven + 1..].iter().position(|byte| *byte == b':')?;
    let padding = &value[proven + 1 + CHECKSUM_DIGITS..];
    let mut expected = xxh3_64(&value[..proven]);
    if !padding.is_empty() {
        expected = xxh3_64_with_seed(padding, expected);
    }
    if parse_hex(checksum)? != expected {
        return None;
    }
    let writer = Writer { run: u32::try_from(writer >> 8).ok()?, thread: (writer & 0xff) as u8 };
    Some((key, Stamp { writer, seq }))
}

fn push_hex(out: &mut Vec<u8>, number: u64, digits_min: u32) {
    let digits = (16 - number.leading_zeros() / 4).max(digits_min);
    out.extend((0..digits).rev().map(|digit| HEX[(number >> (4 * digit)) as usize & 15]));
}

fn parse_hex(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    digits.iter().try_fold(0, |number, digit| Some((number << 4) | u64::from(char::from(*digit).to_digit(16)?)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &[u8] = b"key-00000001";

    fn stamp(seq: u64) -> Stamp {
        Stamp { writer: Writer { run: 0x00ab_cdef, thread: 3 }, seq }
    }

    fn value(seq: u64, value_bytes: usize) -> Vec<u8> {
        let mut out = Vec::new();
        write_value(&mut out, KEY, stamp(seq), value_bytes);
        out
    }

    #[test]
    fn the_format_is_the_documented_one() {
        let text = String::from_utf8(value(0x2a, 0)).unwrap();
        let (proven, checksum) = text.rsplit_once(':').unwrap();
        assert_eq!(proven, "v:key-00000001:abcdef03:2a");
        assert_eq!(checksum, format!("{:016x}", xxh3_64(proven.as_bytes())));
    }

    #[test]
    fn a_valid_value_of_another_key_is_a_wrong_object() {
        assert_eq!(prove(&value(1, 0), KEY), Proof::Genuine(stamp(1)));
        assert_eq!(prove(&value(1, 0), b"key-00000002"), Proof::WrongObject);
        assert_eq!(prove(&value(1, 100), b"key-00000002"), Proof::WrongObject);
    }

    #[test]
    fn padding_reaches_the_size_asked_for() {
        for bytes in [60, 61, 85, 86, 87, 100, 4096, 1 << 20] {
            let value = value(7, bytes);
            assert_eq!(value.len(), bytes);
            assert_eq!(prove(&value, KEY), Proof::Genuine(stamp(7)));
            let padding = value.rsplit(|byte| *byte == b':').next().unwrap();
            assert!(padding.iter().zip(7_u64..).all(|(letter, n)| *letter == b'a' + (n % 26) as u8), "{bytes}");
        }
    }

    proptest! {
        #[test]
        fn every_write_proves_itself(run in 0_u32..1 << 24, thread: u8, seq: u64, bytes in 0_usize..200) {
            let stamp = Stamp { writer: Writer { run, thread }, seq };
            let mut out = Vec::new();
            write_value(&mut out, KEY, stamp, bytes);
            prop_assert_eq!(prove(&out, KEY), Proof::Genuine(stamp));
        }

        #[test]
        fn every_changed_byte_and_every_cut_is_noticed(bytes in 0_usize..120, at: prop::sample::Index, flip in 1_u8..=255) {
            let whole = value(99, bytes);
            let at = at.index(whole.len());
            let mut changed = whole.clone();
            changed[at] ^= flip;
            // The same checksum in capital letters is no change.
            prop_assume!(!changed.eq_ignore_ascii_case(&whole));
            prop_assert_eq!(prove(&changed, KEY), Proof::Corrupt);
            prop_assert_eq!(prove(&whole[..at], KEY), Proof::Corrupt);
        }

        #[test]
        fn noise_is_corrupt(noise: Vec<u8>) {
            prop_assert_eq!(prove(&noise, KEY), Proof::Corrupt);
        }
    }
}
