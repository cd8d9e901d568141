//! The time at which the bytes that were read last were received.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Before every time that is told.
pub(crate) static EPOCH: LazyLock<Instant> = LazyLock::new(|| {
    let now = Instant::now();
    // What was received before this process first asked.
    now.checked_sub(Duration::from_secs(60)).unwrap_or(now)
});

/// When the bytes that were read last from a stream were received; its clones tell the same. Bytes of several requests that were
/// read at once have one time, that of the last segment.
#[derive(Clone, Debug, Default)]
pub struct Received(Arc<AtomicU64>);

impl Received {
    /// Nothing if it is not known.
    #[must_use]
    pub fn get(&self) -> Option<Instant> {
        // Relaxed: a stream and its readers are one task.
        let nanos = self.0.load(Ordering::Relaxed);
        (nanos > 0).then(|| *EPOCH + Duration::from_nanos(nanos))
    }

    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "nothing is known there"))]
    pub(crate) fn set(&self, at: Option<Instant>) {
        let nanos = at.and_then(|at| u64::try_from(at.saturating_duration_since(*EPOCH).as_nanos()).ok());
        self.0.store(nanos.unwrap_or(0), Ordering::Relaxed);
    }
}
