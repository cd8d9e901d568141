//! Two kinds of time that must never be mixed: [`Monotonic`], for timers and failure detection, and [`UnixMillis`], for
//! versions and expiry. Both are arguments everywhere; nothing in this crate reads a clock.

use std::{ops::Add, time::Duration};

use serde::{Deserialize, Serialize};

/// Time since some fixed start of this process. It never goes back, and means nothing to another node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Monotonic(Duration);

impl Monotonic {
    /// The moment `since_start` after the process's own zero.
    #[must_use]
    pub const fn new(since_start: Duration) -> Self {
        Self(since_start)
    }

    /// How long after the process's own zero this is.
    #[must_use]
    pub const fn since_start(self) -> Duration {
        self.0
    }

    /// The time from `earlier` to this moment, zero if `earlier` is in fact later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Monotonic {
    type Output = Self;

    fn add(self, delay: Duration) -> Self {
        Self(self.0.saturating_add(delay))
    }
}

/// A duration in whole microseconds, of an hour at most, where many are kept or sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Micros(u32);

impl Micros {
    /// Wraps microseconds.
    #[must_use]
    pub const fn new(micros: u32) -> Self {
        Self(micros)
    }

    /// The microseconds.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl From<Duration> for Micros {
    fn from(duration: Duration) -> Self {
        Self(u32::try_from(duration.as_micros()).unwrap_or(u32::MAX))
    }
}

impl From<Micros> for Duration {
    fn from(micros: Micros) -> Self {
        Self::from_micros(micros.0.into())
    }
}

/// Wall-clock time: whole milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UnixMillis(u64);

impl UnixMillis {
    /// Wraps milliseconds since the Unix epoch.
    #[must_use]
    pub const fn new(millis: u64) -> Self {
        Self(millis)
    }

    /// The milliseconds.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl Add<Duration> for UnixMillis {
    type Output = Self;

    fn add(self, delay: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_since_a_later_moment_is_zero() {
        let (early, late) = (Monotonic::new(Duration::from_secs(1)), Monotonic::new(Duration::from_secs(3)));
        assert_eq!(late.since(early), Duration::from_secs(2));
        assert_eq!(early.since(late), Duration::ZERO);
        assert_eq!(early + Duration::from_secs(2), late);
    }

    #[test]
    fn sums_stop_at_the_end_of_time() {
        let end = Monotonic::new(Duration::MAX);
        assert_eq!(end + Duration::from_secs(1), end);
        assert_eq!(UnixMillis::new(u64::MAX) + Duration::from_millis(1), UnixMillis::new(u64::MAX));
        assert_eq!(UnixMillis::new(1) + Duration::MAX, UnixMillis::new(u64::MAX));
        assert_eq!(UnixMillis::new(1) + Duration::from_micros(1999), UnixMillis::new(2), "whole milliseconds");
    }
}
