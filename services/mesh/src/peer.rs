//! What one worker knows about one peer, over all the connections it has had to it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use mesh_proto::{LatencyWindow, Monotonic, NodeId, PeakEwma};
use parking_lot::Mutex;

use crate::{Config, link::Link};

/// After this many answers in a row that came too late the peer is asked last.
const BREAKER_LATE_ANSWERS: u32 = 2;

/// What a peer is assumed to take before it has answered once.
const INITIAL_LATENCY: Duration = Duration::from_micros(200);

/// One peer.
pub(crate) struct Peer {
    pub(crate) id: NodeId,
    pub(crate) addr: Mutex<String>,
    pub(crate) link: ArcSwapOption<Link>,
    latency: Mutex<Latency>,
    late_in_a_row: AtomicU32,
}

struct Latency {
    ewma: PeakEwma,
    window: LatencyWindow,
}

impl Peer {
    pub(crate) fn new(id: NodeId, addr: String, now: Monotonic) -> Arc<Self> {
        let latency = Latency { ewma: PeakEwma::new(INITIAL_LATENCY, now), window: LatencyWindow::default() };
        Arc::new(Self {
            id,
            addr: Mutex::new(addr),
            link: ArcSwapOption::empty(),
            latency: Mutex::new(latency),
            late_in_a_row: AtomicU32::new(0),
        })
    }

    pub(crate) fn is_up(&self) -> bool {
        self.link.load().is_some()
    }

    /// What it costs to ask this peer next; the lowest is asked first. Infinite without a connection, and close to it while
    /// the breaker is open.
    pub(crate) fn cost(&self, now: Monotonic) -> f64 {
        let Some(link) = &*self.link.load() else { return f64::INFINITY };
        let cost = self.latency.lock().ewma.cost(now, link.in_flight());
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

/// The longest frame a node of this configuration sends or accepts: the largest record, or a page of records, and headers.
pub(crate) fn frame_bytes_max(config: &Config) -> usize {
    (config.key_bytes_max + config.value_bytes_max).max(crate::resync::PAGE_BYTES_MAX)
        + config.key_bytes_max
        + config.value_bytes_max
        + 4096
}
