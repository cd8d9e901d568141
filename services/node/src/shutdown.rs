//! The way out, as all threads see it: running, draining, stopped.

use std::sync::Arc;

use tokio::sync::watch;

/// How far the way out has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Serving.
    Running,
    /// No new connections; requests under way are answered.
    Draining,
    /// The mesh has been left; threads end.
    Stopped,
}

/// Starts the way out, and tells how far it has gone.
#[derive(Clone)]
pub struct Shutdown {
    phase: Arc<watch::Sender<Phase>>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { phase: Arc::new(watch::Sender::new(Phase::Running)) }
    }
}

impl Shutdown {
    /// Where it is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Begins to drain.
    pub fn start(&self) {
        self.advance(Phase::Draining);
    }

    /// The mesh has been left.
    pub fn finish(&self) {
        self.advance(Phase::Stopped);
    }

    /// Waits until `phase` is reached.
    pub async fn reached(&self, phase: Phase) {
        // Fails only if the sender is gone, which `self` holds.
        let _ = self.phase.subscribe().wait_for(|now| *now >= phase).await;
    }

    fn advance(&self, to: Phase) {
        self.phase.send_if_modified(|now| {
            let is_later = to > *now;
            *now = (*now).max(to);
            is_later
        });
    }
}
