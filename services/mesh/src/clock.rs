//! The node's two clocks. Monotonic time follows tokio's, so that tests can pause it; wall-clock time is the system's, or
//! simulated with an offset that a test can move.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mesh_proto::{Monotonic, UnixMillis};
use tokio::time::Instant;

/// Where wall-clock time comes from.
#[derive(Clone, Debug, Default)]
pub enum WallClock {
    /// The system.
    #[default]
    System,
    /// A fixed date, plus tokio's time since `epoch`, plus an offset: the same in every run of a test.
    Simulated {
        /// The start of the test, the same for all nodes and process starts.
        epoch: Instant,
        /// How far off this node's clock is, in milliseconds.
        offset_ms: Arc<AtomicI64>,
    },
}

/// Unix milliseconds at which a simulated wall clock starts: 2026-01-01.
const SIMULATED_EPOCH_MS: i64 = 1_767_225_600_000;

/// A node's clocks.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    start: Instant,
    wall: WallClock,
    /// How far off a fault has set the wall clock. All copies of the clock share it.
    offset_ms: Arc<AtomicI64>,
}

impl Clock {
    pub(crate) fn new(wall: WallClock) -> Self {
        Self { start: Instant::now(), wall, offset_ms: Arc::default() }
    }

    pub(crate) fn now(&self) -> Monotonic {
        Monotonic::new(self.start.elapsed())
    }

    pub(crate) fn instant(&self, moment: Monotonic) -> Instant {
        self.start + moment.since_start()
    }

    pub(crate) fn set_offset_ms(&self, offset_ms: i64) {
        // Relaxed: nothing else is published with it.
        self.offset_ms.store(offset_ms, Ordering::Relaxed);
    }

    pub(crate) fn offset_ms(&self) -> i64 {
        self.offset_ms.load(Ordering::Relaxed)
    }

    pub(crate) fn unix(&self) -> UnixMillis {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let unix = match &self.wall {
            // A system clock before 1970 counts as 1970: versions then come from the logical part alone.
            WallClock::System => UnixMillis::new(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)),
            WallClock::Simulated { epoch, offset_ms } => {
                // Relaxed: a test moves it, nothing else depends on the order.
                let offset_ms = offset_ms.load(Ordering::Relaxed);
                let since_epoch = i64::try_from(epoch.elapsed().as_millis()).unwrap_or(i64::MAX);
                let unix_ms = SIMULATED_EPOCH_MS.saturating_add(since_epoch).saturating_add(offset_ms);
                UnixMillis::new(u64::try_from(unix_ms).unwrap_or(0))
            }
        };
        UnixMillis::new(unix.get().saturating_add_signed(self.offset_ms()))
    }
}
