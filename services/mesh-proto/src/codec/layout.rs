//! The numbers of the wire format, and the checksum: what encoder and decoder must agree on. Changing any of them is a
//! new [`crate::Hello::PROTOCOL`].

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::{Expiry, KeyHash, Version};

pub(super) const LENGTH_BYTES: usize = 4;
/// Where the request stands, from the length on.
pub(super) const REQUEST_AT: usize = LENGTH_BYTES + 1 + 1;
/// Kind, flags, request, ring.
pub(super) const HEADER_BYTES: usize = 1 + 1 + 4 + 8;
pub(super) const TRACE_BYTES: usize = 26;

pub(super) const WAITED_BYTES: usize = 4;

pub(super) const FLAG_TRACE: u8 = 1 << 0;
/// Bit 1 is kept for "hedge leg". Until it means something it must be zero, like all the others.
pub(super) const FLAG_WAITED: u8 = 1 << 2;
pub(super) const FLAGS_KNOWN: u8 = FLAG_TRACE | FLAG_WAITED;

/// Hash, key length, version, expiry, tag.
pub(super) const RECORD_HEAD_BYTES: usize = 8 + 2 + 16 + 8 + 1;
/// Checksum and length, before a value.
pub(super) const VALUE_HEAD_BYTES: usize = 4 + 4;

/// The longest `host:port`: a DNS name of 253 bytes, brackets, a colon and five digits.
pub(super) const ADDR_BYTES_MAX: usize = 261;

pub(super) mod kind {
    pub(in crate::codec) const HELLO: u8 = 1;
    pub(in crate::codec) const HELLO_REPLY: u8 = 2;
    pub(in crate::codec) const READ: u8 = 3;
    pub(in crate::codec) const READ_REPLY: u8 = 4;
    pub(in crate::codec) const WRITE: u8 = 5;
    pub(in crate::codec) const WRITE_REPLY: u8 = 6;
    // 7 was "cancel" in protocol 1.
    pub(in crate::codec) const CONTROL: u8 = 8;
    pub(in crate::codec) const CONTROL_REPLY: u8 = 9;
    pub(in crate::codec) const PAGE: u8 = 10;
}

pub(super) mod read_tag {
    pub(in crate::codec) const VALUE: u8 = 0;
    pub(in crate::codec) const GONE: u8 = 1;
    pub(in crate::codec) const ABSENT: u8 = 2;
    pub(in crate::codec) const UNKNOWN: u8 = 3;
    pub(in crate::codec) const WRONG_RING: u8 = 4;
    /// A value of an owner that is still catching up.
    pub(in crate::codec) const VALUE_UNCONFIRMED: u8 = 5;
}

pub(super) mod write_tag {
    pub(in crate::codec) const APPLIED: u8 = 0;
    pub(in crate::codec) const STALE: u8 = 1;
    pub(in crate::codec) const DRIFT: u8 = 2;
    pub(in crate::codec) const TOO_LARGE: u8 = 3;
    pub(in crate::codec) const WRONG_RING: u8 = 4;
    /// By an owner that is still catching up.
    pub(in crate::codec) const APPLIED_UNCONFIRMED: u8 = 5;
    /// By an owner that is still catching up.
    pub(in crate::codec) const STALE_UNCONFIRMED: u8 = 6;
    pub(in crate::codec) const COLLECTED: u8 = 7;
}

pub(super) mod body_tag {
    pub(in crate::codec) const TOMBSTONE: u8 = 0;
    pub(in crate::codec) const VALUE: u8 = 1;
    pub(in crate::codec) const EXPIRED: u8 = 2;
}

/// Ties a value to its key, write and expiry: the low half of xxh3 over the value, seeded with xxh3 over the other
/// three. The one-shot functions keep it at some nanoseconds; the streaming one sets up half a kilobyte of state.
pub(super) fn checksum(hash: KeyHash, version: Version, expiry: Expiry, value: &[u8]) -> u32 {
    let mut identity = [0; 32];
    identity[..8].copy_from_slice(&hash.get().to_le_bytes());
    identity[8..24].copy_from_slice(&version.get().to_le_bytes());
    identity[24..].copy_from_slice(&expiry.get().to_le_bytes());
    xxh3_64_with_seed(value, xxh3_64(&identity)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_depends_on_each_of_its_parts() {
        let of = |hash, version, expiry, value: &[u8]| {
            checksum(KeyHash::new(hash), Version::new(version), Expiry::new(expiry), value)
        };
        let sum = of(1, 2, 3, b"value");
        assert_eq!(sum, of(1, 2, 3, b"value"));
        for other in [of(0, 2, 3, b"value"), of(1, 0, 3, b"value"), of(1, 2, 0, b"value"), of(1, 2, 3, b"valuf")] {
            assert_ne!(sum, other);
        }
    }
}
