//! How fast and how reliable one peer has been, over all the connections that one worker has had to it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use mesh_proto::{LatencyWindow, Monotonic, NodeId, PeakEwma};
use parking_lot::Mutex;

/// After this many answers in a row that came too late the peer is asked last.
const BREAKER_LATE_ANSWERS: u32 = 2;

/// What a peer is assumed to take before it has answered once.
const INITIAL_LATENCY: Duration = Duration::from_micros(200);

/// One peer's health.
pub(crate) struct Health {
    pub(crate) id: NodeId,
    latency: Mutex<Latency>,
    late_in_a_row: AtomicU32,
}

struct Latency {
    ewma: PeakEwma,
    window: LatencyWindow,
}

impl Health {
    pub(crate) fn new(id: NodeId, now: Monotonic) -> Arc<Self> {
        let latency = Latency { ewma: PeakEwma::new(INITIAL_LATENCY, now), window: LatencyWindow::default() };
        Arc::new(Self { id, latency: Mutex::new(latency), late_in_a_row: AtomicU32::new(0) })
    }

    /// What it costs to ask this peer next, with so many requests in flight to it; the lowest is asked first. Close to infinite
    /// while the breaker is open.
    pub(crate) fn cost(&self, now: Monotonic, in_flight: usize) -> f64 {
        let cost = self.latency.lock().ewma.cost(now, in_flight);
        // Relaxed, here and below: a hint for steering.
        if self.late_in_a_row.load(Ordering::Relaxed) >= BREAKER_LATE_ANSWERS { cost + 1e18 } else { cost }
    }

    pub(crate) fn p95(&self) -> Option<Duration> {
        self.latency.lock().window.p95()
    }

    pub(crate) fn record_read(&self, now: Monotonic, took: Duration) {
        let mut latency = self.latency.lock();
        latency.ewma.record(now, took);
        latency.window.record(took);
        drop(latency);
        self.late_in_a_row.store(0, Ordering::Relaxed);
    }

    pub(crate) fn record_write(&self, now: Monotonic, took: Duration) {
        self.latency.lock().ewma.record(now, took);
        self.late_in_a_row.store(0, Ordering::Relaxed);
    }

    /// An answer is overdue by now.
    pub(crate) fn record_late(&self, now: Monotonic, so_far: Duration) {
        self.latency.lock().ewma.record(now, so_far);
        self.late_in_a_row.fetch_add(1, Ordering::Relaxed);
    }

    /// Gives the peer another chance: the next late answer opens the breaker again.
    pub(crate) fn ease_breaker(&self) {
        self.late_in_a_row.fetch_min(BREAKER_LATE_ANSWERS - 1, Ordering::Relaxed);
    }
}
