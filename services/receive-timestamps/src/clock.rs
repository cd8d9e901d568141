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
    let (now, wall) = (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH).ok()?);
    let since_epoch = now.saturating_duration_since(*EPOCH);
    let age = age(&AHEAD_NANOS, since_epoch, wall, stamp)?;
    now.checked_sub(age)
}

/// How long ago that was.
fn age(ahead: &AtomicI64, monotonic: Duration, wall: Duration, stamp: Duration) -> Option<Duration> {
    let now_ahead = i64::try_from(wall.as_nanos()).ok()? - i64::try_from(monotonic.as_nanos()).ok()?;
    // Relaxed: threads that disagree about a step each lose one timestamp.
    let before = ahead.load(Ordering::Relaxed);
    let has_stepped = before != 0 && now_ahead.abs_diff(before) > STEP_NANOS.unsigned_abs();
    if before == 0 || has_stepped {
        ahead.store(now_ahead, Ordering::Relaxed);
    }
    (!has_stepped).then(|| wall.saturating_sub(stamp))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_the_wall_clock_costs_one_timestamp() {
        let (ahead, ms) = (AtomicI64::new(0), Duration::from_millis);
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
}
