//! How fast peers answer, and how many hedges that justifies. These run once per request, so they are a few integers each
//! and never allocate.

use std::time::Duration;

use crate::Monotonic;

/// Sub-buckets per power of two: the widest is a quarter of its lower bound, so its middle is at most 12 % off.
const SUB_BUCKETS_LOG2: u32 = 2;
/// 2^13 ns, about 8 µs: anything faster counts as this.
const SHORTEST_LOG2: u32 = 13;
/// 2^33 ns, about 8.6 s: anything slower counts as just under this.
const LONGEST_LOG2: u32 = 33;
const BUCKETS: usize = ((LONGEST_LOG2 - SHORTEST_LOG2) << SUB_BUCKETS_LOG2) as usize;

/// A decaying latency distribution that yields a p95; no allocation, constant time.
#[derive(Debug)]
pub struct LatencyWindow {
    counts: [u16; BUCKETS],
    total: u16,
}

impl Default for LatencyWindow {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], total: 0 }
    }
}

impl LatencyWindow {
    /// All counts are halved when they reach this sum, so that old answers fade.
    const TOTAL_MAX: u16 = 1024;
    /// Fewer answers than this say nothing about a 95th percentile.
    const TOTAL_MIN: u16 = 20;

    /// Records one answer.
    pub fn record(&mut self, latency: Duration) {
        self.counts[bucket(latency)] += 1;
        self.total += 1;
        if self.total >= Self::TOTAL_MAX {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().sum();
        }
    }

    /// The 95th percentile of about the last thousand answers; nothing before the twentieth.
    #[must_use]
    pub fn p95(&self) -> Option<Duration> {
        if self.total < Self::TOTAL_MIN {
            return None;
        }
        let mut slower = self.total - self.total / 20;
        for (bucket, &count) in self.counts.iter().enumerate() {
            if slower <= count {
                return Some(middle(bucket));
            }
            slower -= count;
        }
        None
    }

    /// The adaptive hedge delay: the p95 of the median peer (of two, the faster), kept within 0.3 ms and 20 ms.
    /// 2 ms while no peer has enough answers. The median, because one bad peer must not talk others out of hedging
    /// (CASSANDRA-14293).
    #[must_use]
    pub fn hedge_delay(p95_by_peer: &mut [Duration]) -> Duration {
        const SHORTEST: Duration = Duration::from_micros(300);
        const LONGEST: Duration = Duration::from_millis(20);
        const UNKNOWN: Duration = Duration::from_millis(2);
        median(p95_by_peer).map_or(UNKNOWN, |p95| p95.clamp(SHORTEST, LONGEST))
    }

    /// When one leg of a read is given up for another: after `least`, or three times the p95 of the median peer if that is
    /// longer. Where all peers are slow, as with large values, asking the next one as well makes them slower.
    #[must_use]
    pub fn per_try(p95_by_peer: &mut [Duration], least: Duration) -> Duration {
        const SLOW: u32 = 3;
        median(p95_by_peer).map_or(least, |p95| least.max(p95 * SLOW))
    }
}

fn median(p95_by_peer: &mut [Duration]) -> Option<Duration> {
    p95_by_peer.sort_unstable();
    p95_by_peer.get(p95_by_peer.len().saturating_sub(1) / 2).copied()
}

fn bucket(latency: Duration) -> usize {
    let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
    let ns = ns.clamp(1 << SHORTEST_LOG2, (1 << LONGEST_LOG2) - 1);
    let power = ns.ilog2();
    let sub = (ns >> (power - SUB_BUCKETS_LOG2)) & ((1 << SUB_BUCKETS_LOG2) - 1);
    (((power - SHORTEST_LOG2) << SUB_BUCKETS_LOG2) as usize) + sub as usize
}

fn middle(bucket: usize) -> Duration {
    let sub_buckets = 1 << SUB_BUCKETS_LOG2;
    let width_ns = 1u64 << (SHORTEST_LOG2 as usize + bucket / sub_buckets - SUB_BUCKETS_LOG2 as usize);
    let lower_ns = (sub_buckets + bucket % sub_buckets) as u64 * width_ns;
    Duration::from_nanos(lower_ns + width_ns / 2)
}

/// A moving average that jumps up at once and decays over time (Finagle's "peak EWMA"), times the requests in flight:
/// the cost of asking this peer next.
#[derive(Debug)]
pub struct PeakEwma {
    average_ns: f64,
    recorded_at: Monotonic,
}

impl PeakEwma {
    /// After this long an answer's part in the average has shrunk to 1/e.
    const DECAY: Duration = Duration::from_secs(10);
    /// Never free: of two peers that nothing is known of, the one with fewer requests in flight is cheaper.
    const COST_MIN_NS: f64 = 1.0;

    /// Starts at `initial`.
    #[must_use]
    pub fn new(initial: Duration, now: Monotonic) -> Self {
        Self { average_ns: ns(initial), recorded_at: now }
    }

    /// An answer took `latency`.
    pub fn record(&mut self, now: Monotonic, latency: Duration) {
        let latency_ns = ns(latency);
        let kept = self.kept(now);
        self.average_ns = latency_ns.max(self.average_ns * kept + latency_ns * (1.0 - kept));
        self.recorded_at = self.recorded_at.max(now);
    }

    /// Nanoseconds times (in flight + 1); lower is better. Decays towards zero while nothing is recorded, so that a
    /// slow peer is tried again.
    #[must_use]
    pub fn cost(&self, now: Monotonic, in_flight: usize) -> f64 {
        let average_ns = (self.average_ns * self.kept(now)).max(Self::COST_MIN_NS);
        average_ns * (in_flight as f64 + 1.0)
    }

    fn kept(&self, now: Monotonic) -> f64 {
        libm::exp(-now.since(self.recorded_at).as_secs_f64() / Self::DECAY.as_secs_f64())
    }
}

fn ns(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}

/// A token bucket that lets at most five in a hundred reads be hedged (Dean and Barroso, "The Tail at Scale", 2013).
#[derive(Debug)]
pub struct HedgeBudget {
    /// In twentieths of a token, the deposit of one read, so that nothing is lost to rounding.
    twentieths: u32,
}

impl Default for HedgeBudget {
    fn default() -> Self {
        Self { twentieths: Self::TOKEN }
    }
}

impl HedgeBudget {
    const TOKEN: u32 = 20;
    /// Ten tokens: a quiet minute does not pay for a storm.
    const CAPACITY: u32 = 10 * Self::TOKEN;

    /// A read began.
    pub fn deposit(&mut self) {
        self.twentieths = (self.twentieths + 1).min(Self::CAPACITY);
    }

    /// Takes a token for one hedge leg, if there is one.
    pub fn withdraw(&mut self) -> bool {
        let left = self.twentieths.checked_sub(Self::TOKEN);
        self.twentieths = left.unwrap_or(self.twentieths);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use proptest::prelude::*;

    use super::*;

    const fn us(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    const fn at(s: u64) -> Monotonic {
        Monotonic::new(Duration::from_secs(s))
    }

    fn close(got: Duration, want: Duration) -> bool {
        (got.as_secs_f64() / want.as_secs_f64() - 1.0).abs() <= 0.2
    }

    #[test]
    fn the_window_says_nothing_before_the_twentieth_answer() {
        let mut window = LatencyWindow::default();
        for _ in 0..19 {
            window.record(us(100));
            assert_eq!(window.p95(), None);
        }
        window.record(us(100));
        assert!(close(window.p95().unwrap(), us(100)));
    }

    #[test]
    fn the_p95_leaves_out_the_slowest_twentieth_and_no_more() {
        for (slow_of_100, want) in [(4, us(200)), (5, us(200)), (7, us(9000))] {
            let mut window = LatencyWindow::default();
            for i in 0..900 {
                window.record(if i % 100 < slow_of_100 { us(9000) } else { us(200) });
            }
            let got = window.p95().unwrap();
            assert!(close(got, want), "{slow_of_100} slow: {got:?}");
        }
    }

    #[test]
    fn a_leg_gets_longer_where_all_peers_are_slow() {
        let least = us(200_000);
        assert_eq!(LatencyWindow::per_try(&mut [], least), least);
        assert_eq!(LatencyWindow::per_try(&mut [us(900_000), us(1000)], least), least, "one is fast");
        assert_eq!(LatencyWindow::per_try(&mut [us(900_000), us(300_000)], least), us(900_000));
    }

    #[test]
    fn old_answers_fade() {
        let mut window = LatencyWindow::default();
        (0..5000).for_each(|_| window.record(us(10_000)));
        (0..12_000).for_each(|_| window.record(us(100)));
        assert!(close(window.p95().unwrap(), us(100)));
    }

    #[test]
    fn the_extremes_stay_within_the_buckets() {
        let mut window = LatencyWindow::default();
        (0..30).for_each(|_| window.record(Duration::ZERO));
        assert!(window.p95().unwrap() < us(11));
        (0..5000).for_each(|_| window.record(Duration::MAX));
        assert!(window.p95().unwrap() > Duration::from_secs(7));
    }

    proptest! {
        #[test]
        fn the_p95_is_within_a_fifth_of_the_exact_one(mut sample in prop::collection::vec(10u64..8_000_000, 20..1000)) {
            let mut window = LatencyWindow::default();
            sample.iter().for_each(|&latency| window.record(us(latency)));
            sample.sort_unstable();
            let exact = us(sample[sample.len() - sample.len() / 20 - 1]);
            let got = window.p95().unwrap();
            prop_assert!(close(got, exact), "got {got:?}, exactly {exact:?}");
        }
    }

    #[test]
    fn the_hedge_delay_follows_the_median_peer_within_limits() {
        let ms = Duration::from_millis;
        assert_eq!(LatencyWindow::hedge_delay(&mut []), ms(2));
        assert_eq!(LatencyWindow::hedge_delay(&mut [ms(5)]), ms(5));
        assert_eq!(LatencyWindow::hedge_delay(&mut [ms(100), ms(1)]), ms(1));
        assert_eq!(LatencyWindow::hedge_delay(&mut [ms(100), ms(1), ms(4)]), ms(4));
        assert_eq!(LatencyWindow::hedge_delay(&mut [us(50)]), us(300));
        assert_eq!(LatencyWindow::hedge_delay(&mut [ms(100)]), ms(20));
    }

    #[test]
    fn the_average_jumps_up_at_once_and_comes_down_slowly() {
        let mut ewma = PeakEwma::new(us(100), at(0));
        ewma.record(at(0), us(5000));
        assert_eq!(ewma.cost(at(0), 0).round(), 5e6);
        ewma.record(at(1), us(100));
        let after_one_fast = ewma.cost(at(1), 0);
        assert!(after_one_fast > 4e6 && after_one_fast < 5e6, "{after_one_fast}");
        (2..60).for_each(|s| ewma.record(at(s), us(100)));
        assert!(ewma.cost(at(59), 0) < 2e5);
    }

    #[test]
    fn a_slow_peer_becomes_cheap_when_it_is_not_asked() {
        let mut slow = PeakEwma::new(us(100), at(0));
        slow.record(at(0), us(100_000));
        let mut fast = PeakEwma::new(us(100), at(0));
        for s in 0..120 {
            fast.record(at(s), us(500));
        }
        assert!(slow.cost(at(1), 0) > fast.cost(at(1), 0));
        assert!(slow.cost(at(119), 0) < fast.cost(at(119), 0));
    }

    #[test]
    fn requests_in_flight_multiply_the_cost_even_of_an_unknown_peer() {
        let peer = PeakEwma::new(us(100), at(0));
        assert_eq!(peer.cost(at(0), 3), 4.0 * peer.cost(at(0), 0));
        let unknown = PeakEwma::new(Duration::ZERO, at(0));
        assert!(unknown.cost(at(0), 1) > unknown.cost(at(0), 0));
    }

    #[test]
    fn hedges_stay_at_five_in_a_hundred_reads() {
        let mut budget = HedgeBudget::default();
        let hedges = (0..10_000).filter(|_| {
            budget.deposit();
            budget.withdraw()
        });
        assert_eq!(hedges.count(), 1 + 500);
    }

    #[test]
    fn the_budget_starts_with_one_token_and_holds_at_most_ten() {
        let mut budget = HedgeBudget::default();
        assert!(budget.withdraw());
        assert!(!budget.withdraw());
        (0..100_000).for_each(|_| budget.deposit());
        assert_eq!((0..20).filter(|_| budget.withdraw()).count(), 10);
    }
}
