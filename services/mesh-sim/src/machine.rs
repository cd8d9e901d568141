//! The machine that all simulated nodes share, if there is one: handshakes and datagrams take its time one after the other. So
//! what waits for its turn and is given up has cost as much as what was done, and doing it again makes the queue longer.

use std::time::Duration;

use tokio::time::Instant;

/// What work costs. Nothing by default: then nodes wait for each other's packets alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkCosts {
    /// A handshake, at each of its two ends.
    pub handshake: Duration,
    /// A datagram, sent and received.
    pub datagram: Duration,
}

/// One core, and its queue.
#[derive(Debug, Default)]
pub(crate) struct SimulatedCore {
    pub(crate) costs: WorkCosts,
    free_at: Option<Instant>,
}

impl SimulatedCore {
    /// Enqueues work that takes `cost`; says when it is done. Nothing if it takes no time.
    pub(crate) fn enqueue(&mut self, cost: Duration) -> Option<Instant> {
        if cost.is_zero() {
            return None;
        }
        let now = Instant::now();
        let done = self.free_at.map_or(now, |free_at| free_at.max(now)) + cost;
        self.free_at = Some(done);
        Some(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_waits_for_work_and_not_for_idle_time() {
        let (mut machine, began) = (SimulatedCore::default(), Instant::now());
        let cost = Duration::from_millis(10);
        assert_eq!(machine.enqueue(Duration::ZERO), None);
        assert_eq!(machine.enqueue(cost), Some(began + cost));
        assert_eq!(machine.enqueue(cost), Some(began + 2 * cost));
        tokio::time::sleep(5 * cost).await;
        assert_eq!(machine.enqueue(cost), Some(began + 6 * cost));
    }
}
