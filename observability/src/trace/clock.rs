//! From the moments that a process measures to the dates that spans carry.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use mesh_proto::Monotonic;

/// A difference below this stays, so that the spans of one trace are measured with one clock.
const DRIFT_MIN: Duration = Duration::from_millis(1);

/// One pair of readings, taken again when the wall clock has moved away from it.
pub(super) struct SpanClock {
    base: Instant,
    /// Nanoseconds since the Unix epoch at `base`.
    unix_ns: AtomicU64,
    /// The zero of the mesh's own times.
    epoch: OnceLock<Instant>,
}

impl SpanClock {
    pub(super) fn new() -> Self {
        let base = Instant::now();
        Self { base, unix_ns: AtomicU64::new(unix_ns_at(base)), epoch: OnceLock::new() }
    }

    /// The mesh tells its times since this moment.
    pub(super) fn align(&self, epoch: Instant) {
        // There is one mesh per telemetry; who comes second has the same epoch.
        let _ = self.epoch.set(epoch);
    }

    /// Follows the wall clock. Called every second.
    pub(super) fn follow(&self) {
        let now = unix_ns_at(self.base);
        // Relaxed: one number that nothing else depends on.
        let held = self.unix_ns.load(Ordering::Relaxed);
        if u128::from(now.abs_diff(held)) > DRIFT_MIN.as_nanos() {
            self.unix_ns.store(now, Ordering::Relaxed);
        }
    }

    pub(super) fn date(&self, moment: Instant) -> SystemTime {
        let base = UNIX_EPOCH + Duration::from_nanos(self.unix_ns.load(Ordering::Relaxed));
        base + moment.saturating_duration_since(self.base)
    }

    pub(super) fn mesh_date(&self, moment: Monotonic) -> SystemTime {
        self.date(*self.epoch.get().unwrap_or(&self.base) + moment.since_start())
    }
}

/// What the wall clock would have shown at `base`.
fn unix_ns_at(base: Instant) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.saturating_sub(base.elapsed()).as_nanos()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_as_far_apart_as_the_moments() {
        let clock = SpanClock::new();
        let later = clock.base + Duration::from_millis(5);
        let apart = clock.date(later).duration_since(clock.date(clock.base));
        assert_eq!(apart.ok(), Some(Duration::from_millis(5)));
        clock.align(later);
        assert_eq!(clock.mesh_date(Monotonic::new(Duration::from_secs(1))), clock.date(later + Duration::from_secs(1)));
    }

    #[test]
    fn a_wall_clock_that_was_set_is_followed() {
        let clock = SpanClock::new();
        let right = clock.unix_ns.load(Ordering::Relaxed);
        clock.unix_ns.store(right - 5_000_000_000, Ordering::Relaxed);
        clock.follow();
        let now = SystemTime::now();
        let date = clock.date(Instant::now());
        let off = date.duration_since(now).or_else(|_| now.duration_since(date)).unwrap_or_default();
        assert!(off < Duration::from_secs(1), "{off:?}");
    }
}
