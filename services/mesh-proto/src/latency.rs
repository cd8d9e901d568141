//! How fast peers answer, and how many hedges that justifies.
use crate::Monotonic;
use std::time::Duration;

/// A decaying latency distribution that yields a p95; no allocation, constant time.
#[derive(Debug, Default)]
pub struct LatencyWindow {
    _todo: (),
}

impl LatencyWindow {
    /// Records one answer.
    pub fn record(&mut self, _latency: Duration) {
        todo!()
    }
    /// The 95th percentile of about the last thousand answers; nothing before the twentieth.
    #[must_use]
    pub fn p95(&self) -> Option<Duration> {
        todo!()
    }
    /// The adaptive hedge delay: the p95 of the median peer (of two, the faster), kept within 0.3 ms and 20 ms.
    /// 2 ms while no peer has enough answers.
    #[must_use]
    pub fn hedge_delay(_p95_by_peer: &mut [Duration]) -> Duration {
        todo!()
    }
}

/// A moving average that jumps up at once and decays over time (Finagle's "peak EWMA"), times the requests in flight:
/// the cost of asking this peer next.
#[derive(Debug)]
pub struct PeakEwma {
    _todo: (),
}

impl PeakEwma {
    /// Starts at `initial`.
    #[must_use]
    pub fn new(_initial: Duration, _now: Monotonic) -> Self {
        todo!()
    }
    /// An answer took `latency`.
    pub fn record(&mut self, _now: Monotonic, _latency: Duration) {
        todo!()
    }
    /// Nanoseconds times (in flight + 1); lower is better. Decays towards zero while nothing is recorded, so that a
    /// slow peer is tried again.
    #[must_use]
    pub fn cost(&self, _now: Monotonic, _in_flight: usize) -> f64 {
        todo!()
    }
}

/// A token bucket that lets at most five in a hundred reads be hedged (Dean and Barroso, "The Tail at Scale", 2013).
#[derive(Debug, Default)]
pub struct HedgeBudget {
    _todo: (),
}

impl HedgeBudget {
    /// A read began.
    pub fn deposit(&mut self) {
        todo!()
    }
    /// Takes a token for one hedge leg, if there is one.
    pub fn withdraw(&mut self) -> bool {
        todo!()
    }
}
