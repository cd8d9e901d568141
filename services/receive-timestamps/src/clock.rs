//! The kernel's timestamps are of the wall clock, which may be set: they become times of the monotonic clock by what both clocks said
//! when they were last compared. That is done anew every few milliseconds, and where a time would be in the future or long ago: a step
//! of the wall clock is noticed, and costs one timestamp.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// The clocks are further apart by no more than this by chance or by being adjusted slowly.
const STEP_NANOS: i64 = 1_000_000;

/// For so long a comparison is believed, as long as nothing speaks against it.
const BELIEVED_NANOS: i64 = 10_000_000;

/// What seems to have waited for longer may be a step of the wall clock instead.
const LONG_NANOS: i64 = 50_000_000;

/// Times of the monotonic clock are counted from here, which is before every time that is told.
static EPOCH: LazyLock<Instant> = LazyLock::new(|| {
    let now = Instant::now();
    now.checked_sub(Duration::from_secs(60)).unwrap_or(now)
});

static CLOCKS: Clocks = Clocks { ahead: AtomicI64::new(0), compared: AtomicI64::new(0) };

/// The monotonic time of a timestamp, in nanoseconds since 1970, if the monotonic clock says `now`; nothing right after a step.
pub(crate) fn monotonic(stamp: i64, now: Instant) -> Option<Instant> {
    let epoch = *EPOCH;
    let since_epoch = i64::try_from(now.checked_duration_since(epoch)?.as_nanos()).ok()?;
    let read = || {
        let monotonic = i64::try_from(epoch.elapsed().as_nanos()).ok()?;
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        Some((monotonic, i64::try_from(wall.as_nanos()).ok()?))
    };
    let waited = since_epoch - CLOCKS.monotonic(stamp, since_epoch, read)?;
    now.checked_sub(Duration::from_nanos(u64::try_from(waited).unwrap_or(0)))
}

/// What both clocks last said, in nanoseconds.
struct Clocks {
    /// How far ahead the wall clock was of the monotonic one; 0 before they were compared.
    ahead: AtomicI64,
    /// When they were compared, by the monotonic one.
    compared: AtomicI64,
}

impl Clocks {
    /// The monotonic time of a timestamp. `read` says what both clocks say now: the monotonic one, and the wall clock.
    fn monotonic(&self, stamp: i64, now: i64, read: impl FnMut() -> Option<(i64, i64)>) -> Option<i64> {
        // Relaxed: threads that disagree about a step each lose one timestamp.
        let before = self.ahead.load(Ordering::Relaxed);
        let (at, age) = (stamp - before, now - self.compared.load(Ordering::Relaxed));
        let is_likely = (now - LONG_NANOS..now + STEP_NANOS).contains(&at);
        if before != 0 && age < BELIEVED_NANOS && is_likely {
            return Some(at);
        }
        self.compare(before, read).map(|ahead| stamp - ahead)
    }

    /// How far ahead the wall clock is; nothing if it was set since.
    fn compare(&self, before: i64, mut read: impl FnMut() -> Option<(i64, i64)>) -> Option<i64> {
        let (mut monotonic, mut wall) = read()?;
        let is_step = |ahead: i64| before != 0 && ahead.abs_diff(before) > STEP_NANOS.unsigned_abs();
        if is_step(wall - monotonic) {
            // This thread may have been held up between the two clocks.
            (monotonic, wall) = read()?;
        }
        let ahead = wall - monotonic;
        self.ahead.store(ahead, Ordering::Relaxed);
        self.compared.store(monotonic, Ordering::Relaxed);
        (!is_step(ahead)).then_some(ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;
    const DAY: i64 = 86_400_000 * MS;
    const HOUR: i64 = 3_600_000 * MS;

    fn clocks() -> Clocks {
        Clocks { ahead: AtomicI64::new(0), compared: AtomicI64::new(0) }
    }

    /// What becomes of a timestamp while the wall clock is ahead by so much.
    fn at(clocks: &Clocks, now: i64, ahead: i64, stamp: i64) -> Option<i64> {
        clocks.monotonic(stamp, now, || Some((now, now + ahead)))
    }

    #[test]
    fn a_step_of_the_wall_clock_costs_one_timestamp() {
        let clocks = clocks();
        assert_eq!(at(&clocks, 10 * MS, DAY, DAY + 7 * MS), Some(7 * MS), "compared for the first time");
        assert_eq!(at(&clocks, 12 * MS, DAY, DAY + 11 * MS), Some(11 * MS));
        // An hour back, between the timestamp and now: it is not said to have waited for minus an hour, nor for an hour.
        let back = DAY - HOUR;
        assert_eq!(at(&clocks, 30 * MS, back, DAY + 27 * MS), None);
        assert_eq!(at(&clocks, 31 * MS, back, back + 30 * MS), Some(30 * MS));
        assert_eq!(
            at(&clocks, 32 * MS, DAY, DAY + 31 * MS),
            None,
            "and forward, while the last comparison is believed"
        );
        assert_eq!(at(&clocks, 33 * MS, DAY, DAY + 32 * MS), Some(32 * MS));
        assert_eq!(at(&clocks, 34 * MS, back, back + 33 * MS), None, "and back");
    }

    #[test]
    fn a_clock_that_is_adjusted_slowly_does_not_step() {
        let clocks = clocks();
        for second in 1..100 {
            let (now, ahead) = (second * 1000 * MS, DAY + second * MS / 2);
            assert_eq!(at(&clocks, now, ahead, now + ahead - MS), Some(now - MS), "{second}");
        }
    }

    #[test]
    fn what_waited_for_long_is_told_so() {
        let clocks = clocks();
        for waited in [0, MS, 40 * MS, 60 * MS, HOUR] {
            assert_eq!(at(&clocks, DAY, DAY, 2 * DAY - waited), Some(DAY - waited));
        }
    }

    #[test]
    fn clocks_are_compared_seldom() {
        let (clocks, mut compared) = (clocks(), 0);
        for now in 0..100_000_i64 {
            let now = DAY + now * MS / 1000;
            let read = || {
                compared += 1;
                Some((now, now + DAY))
            };
            assert_eq!(clocks.monotonic(DAY + now - 1, now, read), Some(now - 1));
        }
        assert_eq!(compared, 100 / 10, "in 100 ms");
    }

    #[test]
    fn a_thread_that_was_held_up_between_the_clocks_looks_again() {
        let clocks = clocks();
        assert_eq!(at(&clocks, 10 * MS, 1000 * MS, 1007 * MS), Some(7 * MS));
        let mut readings = [(20 * MS, 1045 * MS), (45 * MS, 1045 * MS)].into_iter();
        assert_eq!(clocks.monotonic(1007 * MS, 20 * MS, || readings.next()), Some(7 * MS));
    }
}
