//! The promises of the hybrid logical clock, which everything called "newer" rests on.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{collections::HashSet, thread};

use mesh_proto::{DRIFT_MAX, DriftRefused, HybridClock, UnixMillis, Version};
use proptest::prelude::*;

const NOW: u64 = 1_700_000_000_000;

fn version(millis: u64, counter: u16, writer: u64) -> Version {
    let writer = writer | Version::BEFORE_MAX;
    Version::new(u128::from(millis) << 80 | u128::from(counter) << 64 | u128::from(writer))
}

#[test]
fn nothing_lies_between_a_version_and_the_places_before_it() {
    let (one, other) = (HybridClock::new(5 << 10), HybridClock::new(4 << 10 | 7));
    let now = UnixMillis::new(NOW);
    let (earlier, below, version) = (one.tick(now), other.tick(now), one.tick(now));
    let (last, first) = (version.before(1), version.before(Version::BEFORE_MAX));
    assert!(first < last && last < version && version.before(0) == version);
    assert!(earlier < first && below < first && other.tick(now) < first, "neither an earlier tick nor another writer");
    assert!(HybridClock::new(6 << 10).tick(now) < first, "of the same moment as the earlier tick");
}

#[test]
fn a_tick_carries_time_counter_and_writer() {
    let clock = HybridClock::new(0xabcd);
    assert_eq!(clock.tick(UnixMillis::new(NOW)), version(NOW, 0, 0xabcd));
    assert_eq!(clock.tick(UnixMillis::new(NOW)), version(NOW, 1, 0xabcd));
    assert_eq!(clock.tick(UnixMillis::new(NOW - 10_000)), version(NOW, 2, 0xabcd), "the wall clock went back");
    assert_eq!(clock.tick(UnixMillis::new(NOW + 1)), version(NOW + 1, 0, 0xabcd));
    assert_eq!(clock.tick(UnixMillis::new(NOW + 1)).unix_millis(), UnixMillis::new(NOW + 1));
}

#[test]
fn a_clock_is_left_ahead_once_the_wall_clock_was_set_back_by_more_than_others_may_be_ahead() {
    let clock = HybridClock::new(1);
    assert!(!clock.is_left_ahead(UnixMillis::new(0)), "it has stamped nothing");
    clock.observe(version(NOW + 500, 0, 2), UnixMillis::new(NOW)).unwrap();
    clock.tick(UnixMillis::new(NOW));
    assert!(!clock.is_left_ahead(UnixMillis::new(NOW)));
    assert!(clock.is_left_ahead(UnixMillis::new(NOW - 1)));
    assert!(clock.is_left_ahead(UnixMillis::new(NOW - 3_600_000)));
}

#[test]
fn a_counter_that_overflows_carries_into_the_milliseconds() {
    let clock = HybridClock::new(1);
    let mut last = Version::ZERO;
    for _ in 0..=u32::from(u16::MAX) {
        let next = clock.tick(UnixMillis::new(NOW));
        assert!(next > last);
        last = next;
    }
    assert_eq!(last, version(NOW, u16::MAX, 1));
    assert_eq!(clock.tick(UnixMillis::new(NOW)), version(NOW + 1, 0, 1));
    assert_eq!(clock.tick(UnixMillis::new(NOW + 1)), version(NOW + 1, 1, 1));
}

#[test]
fn the_drift_bound_is_exact_and_a_refusal_changes_nothing() {
    let edge = u64::try_from(DRIFT_MAX.as_millis()).unwrap();
    assert_eq!(edge, 500);

    let clock = HybridClock::new(1);
    let refused = clock.observe(version(NOW + edge + 1, 0, 2), UnixMillis::new(NOW));
    assert_eq!(refused, Err(DriftRefused { ahead_ms: edge + 1 }));
    assert_eq!(clock.tick(UnixMillis::new(NOW)), version(NOW, 0, 1), "the clock is as it was");

    let ahead = version(NOW + edge, u16::MAX, u64::MAX);
    assert_eq!(clock.observe(ahead, UnixMillis::new(NOW)), Ok(()));
    assert!(clock.tick(UnixMillis::new(NOW)) > ahead);
}

#[test]
fn ticks_of_concurrent_threads_are_unique_and_rise_in_each() {
    const THREADS: usize = 4;
    const TICKS: usize = 10_000;
    let clock = HybridClock::new(7);
    let run = || (0..TICKS).map(|_| clock.tick(UnixMillis::new(NOW))).collect::<Vec<_>>();
    let ticks: Vec<Vec<Version>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(ticks.iter().all(|ticks| ticks.is_sorted_by(|a, b| a < b)));
    let unique: HashSet<Version> = ticks.into_iter().flatten().collect();
    assert_eq!(unique.len(), THREADS * TICKS);
}

#[test]
fn only_what_display_writes_is_parsed() {
    for text in ["", "0", "+0000000000000000000000000000001", "g0000000000000000000000000000000"] {
        assert_eq!(Version::parse(text), None, "{text:?}");
    }
    assert_eq!(Version::parse(&"0".repeat(33)), None);
    assert_eq!(Version::parse(&"0".repeat(32)), Some(Version::ZERO));
}

proptest! {
    #[test]
    fn display_and_parse_are_inverse(raw: u128) {
        let text = Version::new(raw).to_string();
        prop_assert_eq!(text.len(), 32);
        prop_assert_eq!(Version::parse(&text), Some(Version::new(raw)));
    }

    /// Whatever the wall clock does and whatever is observed, a tick is above all that the clock has given or taken.
    #[test]
    fn a_tick_is_above_everything_before_it(
        steps in prop::collection::vec((0_u64..2000, prop::option::of((0_u64..3000, any::<u16>(), any::<u64>()))), 1..200)
    ) {
        let clock = HybridClock::new(9);
        let mut highest = Version::ZERO;
        for (now, remote) in steps {
            let now = UnixMillis::new(NOW + now);
            match remote {
                None => {
                    let tick = clock.tick(now);
                    prop_assert!(tick > highest);
                    prop_assert!(tick.unix_millis() >= now);
                    highest = tick;
                }
                Some((millis, counter, writer)) => {
                    let remote = version(NOW + millis, counter, writer);
                    let accepted = clock.observe(remote, now).is_ok();
                    prop_assert_eq!(accepted, NOW + millis <= now.get() + 500);
                    if accepted {
                        highest = highest.max(remote);
                    }
                }
            }
        }
        let last = clock.tick(UnixMillis::new(0));
        prop_assert!(last > highest);
    }
}
