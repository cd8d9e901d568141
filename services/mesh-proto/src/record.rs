//! What is stored and replicated for one key: a value or the fact of its deletion, with its version and expiry.

use bytes::Bytes;

use crate::{KeyHash, UnixMillis, Version};

/// An absolute point of expiry, resolved once by the coordinator of the write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Expiry(u64);

impl Expiry {
    /// Never expires.
    pub const NEVER: Self = Self(0);

    /// Expires at this moment, which is itself already too late to read the value.
    #[must_use]
    pub const fn at(moment: UnixMillis) -> Self {
        Self(moment.get())
    }

    /// Wraps what [`Expiry::get`] gave: Unix milliseconds, zero for never.
    #[must_use]
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// Unix milliseconds, zero for never.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Whether the value is gone at `now`.
    #[must_use]
    pub const fn is_past(self, now: UnixMillis) -> bool {
        self.0 != 0 && self.0 <= now.get()
    }
}

/// A key's state as one write left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The hash of `key`, kept so that it is computed once per request.
    pub hash: KeyHash,
    /// The key itself: two keys may share a hash, and a value must never answer for another key.
    pub key: Bytes,
    /// Which write this is.
    pub version: Version,
    /// When the value stops being readable; meaningless for a tombstone.
    pub expiry: Expiry,
    /// The value, or why there is none.
    pub body: Body,
}

impl Record {
    /// How many bytes the value has; none without one.
    #[must_use]
    pub fn value_bytes(&self) -> usize {
        if let Body::Value(value) = &self.body { value.len() } else { 0 }
    }
}

/// What a write left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A value.
    Value(Bytes),
    /// The key was deleted.
    Tombstone,
    /// There was a value, and it has expired. Nobody writes this; it is how an owner passes on what it no longer has the value
    /// of, and it is never readable, however far behind the reader's clock is.
    Expired,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_moment_of_expiry_is_already_too_late() {
        let expiry = Expiry::at(UnixMillis::new(1000));
        assert!(!expiry.is_past(UnixMillis::new(999)));
        assert!(expiry.is_past(UnixMillis::new(1000)));
        assert!(expiry.is_past(UnixMillis::new(1001)));
        assert_eq!(Expiry::new(expiry.get()), expiry);
    }

    #[test]
    fn never_is_never_past() {
        assert!(!Expiry::NEVER.is_past(UnixMillis::new(u64::MAX)));
    }
}
