//! A key's hash, which places it in a slot, and the default bounds of keys and values.

use std::fmt;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// The longest key a node accepts unless configured otherwise, in bytes.
pub const KEY_BYTES_MAX: usize = 4 * 1024;

/// The largest value a node accepts unless configured otherwise, in bytes.
pub const VALUE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// The 64-bit xxh3 hash of a key, seed 0: a frozen specification, so every node of every version places a key alike.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyHash(u64);

impl KeyHash {
    /// Hashes a key's bytes.
    #[must_use]
    pub fn of(key: &[u8]) -> Self {
        Self(xxh3_64(key))
    }

    /// Wraps a hash that came off the wire.
    #[must_use]
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The 64 bits.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key-{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_frozen() {
        assert_eq!(KeyHash::of(b"").get(), 0x2d06_8005_38d3_94c2);
        assert_ne!(KeyHash::of(b"a"), KeyHash::of(b"b"));
    }
}
