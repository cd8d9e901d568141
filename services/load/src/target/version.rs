//! The version that a node gives to a write, as the load sees it: a number that grows with every later write of a key.

use std::fmt;

/// A write's version (`X-Mesh-Version`), 128 bits, 32 hexadecimal digits as text. Only its order means anything here.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteVersion(u128);

impl WriteVersion {
    /// Before every write; what a target that names no versions is given.
    pub const ZERO: Self = Self(0);

    /// Wraps the 128 bits.
    #[must_use]
    pub const fn new(raw: u128) -> Self {
        Self(raw)
    }

    /// The 128 bits.
    #[must_use]
    pub const fn get(self) -> u128 {
        self.0
    }

    /// Reads 1 to 32 hexadecimal digits.
    #[must_use]
    pub fn parse(digits: &[u8]) -> Option<Self> {
        if digits.is_empty() || digits.len() > 32 {
            return None;
        }
        let mut raw = 0_u128;
        for &digit in digits {
            raw = (raw << 4) | u128::from(char::from(digit).to_digit(16)?);
        }
        Some(Self(raw))
    }
}

impl fmt::Display for WriteVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for WriteVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{:x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes_and_nothing_else() {
        let version = WriteVersion::new(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        assert_eq!(WriteVersion::parse(version.to_string().as_bytes()), Some(version));
        assert_eq!(WriteVersion::parse(b"ff"), Some(WriteVersion::new(255)));
        for bad in ["", "xyz", "-1", "000000000000000000000000000000000"] {
            assert_eq!(WriteVersion::parse(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
