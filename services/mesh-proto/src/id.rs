//! Who a node is. A [`NodeId`] outlives a process; an [`Incarnation`] tells one process start, and each refutation, from
//! another.

use std::fmt;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// A node's identity: the 64-bit xxh3 hash of its configured name, so that a restarted node is the same node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(u64);

impl NodeId {
    /// The identity of the node called `name`.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        Self(xxh3_64(name.as_bytes()))
    }

    /// Wraps an identity that was made elsewhere, such as one read from a frame or a certificate.
    #[must_use]
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The 64 bits, for the wire and for hashing.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Reads the 16 hexadecimal digits that `Display` writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        // Digits only: `from_str_radix` would take a sign as well.
        let digits = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        digits.then(|| u64::from_str_radix(text, 16).ok().map(Self)).flatten()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node-{:016x}", self.0)
    }
}

/// Which claim about a node is the newer one (SWIM, section 4.2). It starts at random with each process, and only its
/// owner raises it, to refute a suspicion or to publish a new weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incarnation(u64);

impl Incarnation {
    /// Wraps a number; a process start draws it from 32 random bits.
    #[must_use]
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The number itself.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The incarnation after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_it_is_written() {
        for id in [NodeId::new(0), NodeId::new(u64::MAX), NodeId::new(0xabc), NodeId::from_name("node1:5011")] {
            assert_eq!(NodeId::parse(&id.to_string()), Some(id));
        }
        for text in ["", "abc", "+00000000000000f", "00000000000000000", "000000000000000g", "é00000000000000"] {
            assert_eq!(NodeId::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_name_always_gives_the_same_id() {
        assert_eq!(NodeId::from_name("node1:5011"), NodeId::from_name("node1:5011"));
        assert_ne!(NodeId::from_name("node1:5011"), NodeId::from_name("node2:5011"));
        assert_eq!(NodeId::from_name("").get(), 0x2d06_8005_38d3_94c2, "xxh3 is a frozen specification");
    }

    #[test]
    fn incarnations_rise_and_stop_at_the_end() {
        assert!(Incarnation::new(7).next() > Incarnation::new(7));
        assert_eq!(Incarnation::new(u64::MAX).next(), Incarnation::new(u64::MAX));
    }
}
