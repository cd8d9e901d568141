//! How the store fared over the last minute: what counters tell only to those who look twice.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use mesh_proto::StoreStats;
use observability::LastMinute;

/// How far it looks back.
const WINDOW: Duration = Duration::from_secs(60);

/// The store's counters, once a second.
#[derive(Debug)]
pub(crate) struct Minute {
    /// The oldest is at the beginning of the window, or just before it.
    looks: VecDeque<(Instant, StoreStats)>,
}

impl Minute {
    /// Begins with a store that has counted nothing.
    pub(crate) fn new(now: Instant) -> Self {
        Self { looks: VecDeque::from([(now, StoreStats::default())]) }
    }

    /// One more look.
    pub(crate) fn look(&mut self, now: Instant, store: &StoreStats) {
        while self.looks.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW) {
            self.looks.pop_front();
        }
        self.looks.push_back((now, *store));
    }

    /// What has come to pass since a minute ago, or since the start.
    pub(crate) fn until(&self, now: Instant, store: &StoreStats) -> LastMinute {
        let Some((began, before)) = self.looks.front() else { return LastMinute::default() };
        let rose = |field: fn(&StoreStats) -> u64| field(store).saturating_sub(field(before)) as f64;
        let (hits, misses) = (rose(|store| store.hits), rose(|store| store.misses));
        let evictions = rose(|store| store.evictions);
        let seconds = now.duration_since(*began).max(Duration::from_secs(1)).as_secs_f64();
        LastMinute {
            evictions_per_s: evictions / seconds,
            evicted_age_s: (evictions > 0.0).then(|| rose(|store| store.evicted_age_ms) / evictions / 1000.0),
            hit_ratio: (hits + misses > 0.0).then(|| hits / (hits + misses)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_a_minute_does_not_count() {
        let start = Instant::now();
        let store = |evictions, hits, misses| StoreStats {
            evictions,
            evicted_age_ms: evictions * 1500,
            hits,
            misses,
            ..StoreStats::default()
        };
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut minute = Minute::new(start);
        assert_eq!(minute.until(start, &store(0, 0, 0)), LastMinute::default());
        let first = minute.until(at(2), &store(10, 3, 1));
        assert_eq!(
            first,
            LastMinute { evictions_per_s: 5.0, evicted_age_s: Some(1.5), hit_ratio: Some(0.75) },
            "since the start"
        );
        for second in 1..=100 {
            minute.look(at(second), &store(if second <= 10 { second * 100 } else { 1000 }, second, second));
        }
        assert!(minute.looks.len() <= 62, "{}", minute.looks.len());
        let later = minute.until(at(100), &store(1000, 130, 110));
        assert_eq!(later, LastMinute { evictions_per_s: 0.0, evicted_age_s: None, hit_ratio: Some(90.0 / 160.0) });
        assert!(!later.is_full() && first.is_full());
    }
}
