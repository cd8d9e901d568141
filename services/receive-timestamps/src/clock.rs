//! The kernel's timestamps are of the wall clock, which may be set: they become times of the monotonic clock by what both clocks say
//! when the bytes are read. A step of the wall clock in between is noticed.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::received::EPOCH;

/// The two clocks drift apart by less than this between two reads of a busy process, and are not further apart by chance.
const STEP_NANOS: i64 = 1_000_000;

/// How far ahead the wall clock was of the monotonic one when they were last compared, in nanoseconds; 0 before.
static AHEAD_NANOS: AtomicI64 = AtomicI64::new(0);

/// The monotonic time of a timestamp of the wall clock; nothing right after a step.
pub(crate) fn monotonic(stamp: Duration) -> Option<Instant> {
    let (mut now, epoch) = (Instant::now(), *EPOCH);
    let read = || {
        now = Instant::now();
        Some((now.saturating_duration_since(epoch), SystemTime::now().duration_since(UNIX_EPOCH).ok()?))
    };
    let age = age(&AHEAD_NANOS, read, stamp)?;
    now.checked_sub(age)
}

/// How long ago that was, by both clocks as they are read.
fn age(ahead: &AtomicI64, mut read: impl FnMut() -> Option<(Duration, Duration)>, stamp: Duration) -> Option<Duration> {
    // Relaxed: threads that disagree about a step each lose one timestamp.
    let before = ahead.load(Ordering::Relaxed);
    let mut compare = || {
        let (monotonic, wall) = read()?;
        let now_ahead = i64::try_from(wall.as_nanos()).ok()? - i64::try_from(monotonic.as_nanos()).ok()?;
        Some((wall, now_ahead, now_ahead.abs_diff(before) > STEP_NANOS.unsigned_abs()))
    };
    let (mut wall, _, is_off) = compare()?;
    if is_off {
        // This thread may have been held up between the two clocks.
        let (again, now_ahead, is_still_off) = compare()?;
        if is_still_off {
            ahead.store(now_ahead, Ordering::Relaxed);
            if before != 0 {
                return None;
            }
        }
        wall = again;
    }
    Some(wall.saturating_sub(stamp))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_the_wall_clock_costs_one_timestamp() {
        let (ahead, ms) = (AtomicI64::new(0), Duration::from_millis);
        let age = |ahead: &AtomicI64, monotonic, wall, stamp| age(ahead, || Some((monotonic, wall)), stamp);
        let day = ms(86_400_000);
        assert_eq!(age(&ahead, ms(10), day + ms(10), day + ms(7)), Some(ms(3)), "compared for the first time");
        assert_eq!(age(&ahead, ms(20), day + ms(20), day + ms(17)), Some(ms(3)));
        // An hour back, between the timestamp and now: it is not said to have waited for minus an hour, nor for an hour.
        let back = day - ms(3_600_000);
        assert_eq!(age(&ahead, ms(30), back + ms(30), day + ms(27)), None);
        assert_eq!(age(&ahead, ms(40), back + ms(40), back + ms(36)), Some(ms(4)));
        assert_eq!(age(&ahead, ms(50), day + ms(50), back + ms(46)), None, "and forward");
        // A clock that is adjusted slowly does not step.
        assert_eq!(
            age(&ahead, ms(1000), day + ms(1000) + Duration::from_micros(500), day + ms(999)),
            Some(Duration::from_micros(1500))
        );
    }

    #[test]
    fn a_thread_that_was_held_up_between_the_clocks_looks_again() {
        let (ahead, ms) = (AtomicI64::new(0), Duration::from_millis);
        assert_eq!(age(&ahead, || Some((ms(10), ms(1010))), ms(1007)), Some(ms(3)));
        let mut readings = [(ms(20), ms(1045)), (ms(45), ms(1045))].into_iter();
        assert_eq!(age(&ahead, || readings.next(), ms(1007)), Some(ms(38)));
    }
}
