//! Versions from a hybrid logical clock (Kulkarni et al., "Logical Physical Clocks", 2014): later acknowledged writes
//! have higher versions, whatever the wall clocks of the nodes say, as long as they drift less than [`DRIFT_MAX`].

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{Mutant, UnixMillis};

/// How far ahead of the local clock a remote version may be before it is refused.
pub const DRIFT_MAX: Duration = Duration::from_millis(500);

const COUNTER_BITS: u32 = 16;

/// When and by whom a value was written: 48 bits of Unix milliseconds, 16 of counter, 54 of node and process start, and ten that are
/// all set but for writes that another one carries: those count down from it.
/// Totally ordered, and never equal for two writes. Zero means "before every write".
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version(u128);

impl Version {
    /// Before every write.
    pub const ZERO: Self = Self(0);

    /// How many places there are just before a version that a clock has given.
    pub const BEFORE_MAX: u64 = (1 << 10) - 1;

    /// Wraps a version that came off the wire.
    #[must_use]
    pub const fn new(raw: u128) -> Self {
        Self(raw)
    }

    /// The 128 bits.
    #[must_use]
    pub const fn get(self) -> u128 {
        self.0
    }

    /// The wall-clock part.
    #[must_use]
    pub const fn unix_millis(self) -> UnixMillis {
        UnixMillis::new((self.0 >> (64 + COUNTER_BITS)) as u64)
    }

    /// Reads the 32 hexadecimal digits that `Display` writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        digits.then(|| u128::from_str_radix(text, 16).ok().map(Self)).flatten()
    }

    /// The version so many places, at most [`Version::BEFORE_MAX`], before one that a clock has given. None of another writer and
    /// none of another tick lies between the two.
    #[must_use]
    pub const fn before(self, places: u64) -> Self {
        assert!(places <= Self::BEFORE_MAX, "no room for so many");
        Self(self.0 - places as u128)
    }

    const fn logical(self) -> u64 {
        (self.0 >> 64) as u64
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{:032x}", self.0)
    }
}

/// A remote version was too far in the future; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the version is {ahead_ms} ms ahead of this node's clock, more than the {} ms allowed: check the clocks", DRIFT_MAX.as_millis())]
pub struct DriftRefused {
    /// How far ahead, in milliseconds.
    pub ahead_ms: u64,
}

/// One node's hybrid logical clock. It is shared by all threads of the node: one atomic word, compare-and-swap.
#[derive(Debug)]
pub struct HybridClock {
    /// 48 bits of milliseconds and 16 of counter. A counter that overflows carries into the milliseconds, which is
    /// what keeps 65 537 writes in one millisecond ordered.
    last: AtomicU64,
    writer: u64,
}

impl HybridClock {
    /// A clock whose versions end in `writer`, with the lowest ten bits set: the others must differ for every node and every process
    /// start.
    #[must_use]
    pub const fn new(writer: u64) -> Self {
        Self { last: AtomicU64::new(0), writer: writer | Version::BEFORE_MAX }
    }

    /// A version higher than every version this clock has given or observed.
    pub fn tick(&self, now: UnixMillis) -> Version {
        let physical = now.get() << COUNTER_BITS;
        let step = |last: u64| last.saturating_add(1).max(physical);
        // Relaxed: the word orders only itself; the data it stamps is published by the store's locks.
        let last = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(step(last)));
        let logical = last.map_or_else(step, step);
        Version((u128::from(logical) << 64) | u128::from(self.writer))
    }

    /// Whether it is ahead of the wall clock by more than versions of others may be: the wall clock was set back, and whatever
    /// this clock stamps is refused elsewhere. Then a new clock has to take its place, with a writer of its own, because the
    /// same moments come again.
    #[must_use]
    pub fn is_left_ahead(&self, now: UnixMillis) -> bool {
        // Relaxed, for the same reason as in `tick`.
        let last = UnixMillis::new(self.last.load(Ordering::Relaxed) >> COUNTER_BITS);
        last > now + DRIFT_MAX
    }

    /// Takes note of a version made elsewhere, so that the next [`HybridClock::tick`] is above it.
    ///
    /// # Errors
    /// [`DriftRefused`] if it is more than [`DRIFT_MAX`] ahead of `now`; the clock is then unchanged.
    pub fn observe(&self, remote: Version, now: UnixMillis) -> Result<(), DriftRefused> {
        let ahead_ms = remote.unix_millis().get().saturating_sub(now.get());
        if u128::from(ahead_ms) > DRIFT_MAX.as_millis() && !Mutant::DriftAccepted.is_planted() {
            return Err(DriftRefused { ahead_ms });
        }
        // Relaxed, for the same reason as in `tick`.
        self.last.fetch_max(remote.logical(), Ordering::Relaxed);
        Ok(())
    }
}
