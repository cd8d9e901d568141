//! The fault `mode=pause`: HTTP answers nobody for a while, as a stopped process would, and then goes on.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// Whether answers are held back, and until when.
#[derive(Default)]
pub(crate) struct Pause {
    /// Milliseconds after `zero`; 0 while there is no pause, which is all that a request has to look at.
    until_ms: AtomicU64,
    zero: OnceLock<Instant>,
}

impl Pause {
    /// Holds answers back from now on, for `time`.
    pub(crate) fn start(&self, time: Duration) {
        let zero = *self.zero.get_or_init(Instant::now);
        let until = zero.elapsed() + time;
        // At least 1, because 0 means no pause. Relaxed: `zero` is published by its own lock.
        self.until_ms.store(u64::try_from(until.as_millis()).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
    }

    /// Waits until there is no pause.
    pub(crate) async fn wait(&self) {
        loop {
            let until_ms = self.until_ms.load(Ordering::Relaxed);
            let (Some(zero), true) = (self.zero.get(), until_ms > 0) else { return };
            tokio::time::sleep_until(*zero + Duration::from_millis(until_ms)).await;
            // Fails if the pause was prolonged meanwhile.
            let _ = self.until_ms.compare_exchange(until_ms, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_passes_before_its_end_and_everybody_after() {
        let pause = Pause::default();
        pause.wait().await;
        let start = Instant::now();
        pause.start(Duration::from_millis(30));
        pause.wait().await;
        assert!(start.elapsed() >= Duration::from_millis(29));
        let after = Instant::now();
        pause.wait().await;
        assert!(after.elapsed() < Duration::from_millis(29));
    }
}
