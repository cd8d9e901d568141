//! The way out, as all threads see it: running, leaving, draining, stopped.

use std::{io, sync::Arc};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// How far the way out has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ShutdownPhase {
    /// Serving.
    Running,
    /// Serving still, while the mesh takes over what this node holds; not ready any more.
    Leaving,
    /// No new connections; requests under way are answered.
    Draining,
    /// The mesh has been left; threads end.
    Stopped,
}

/// Starts the way out, and tells how far it has gone.
#[derive(Clone)]
pub struct Shutdown {
    phase: Arc<watch::Sender<ShutdownPhase>>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { phase: Arc::new(watch::Sender::new(ShutdownPhase::Running)) }
    }
}

impl Shutdown {
    /// Where it is.
    #[must_use]
    pub fn phase(&self) -> ShutdownPhase {
        *self.phase.borrow()
    }

    /// From now on the first SIGTERM or SIGINT begins the way out, and the second ends the process at once.
    ///
    /// # Errors
    /// If the system refuses to hand signals over.
    #[expect(clippy::disallowed_methods, reason = "a second signal means: do not wait")]
    pub fn start_on_signals(&self) -> io::Result<()> {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let shutdown = self.clone();
        tokio::spawn(async move {
            loop {
                // As a shell reports a process that a signal ended.
                let code = tokio::select! { _ = terminate.recv() => 143, _ = interrupt.recv() => 130 };
                if shutdown.phase() > ShutdownPhase::Running {
                    std::process::exit(code);
                }
                shutdown.start();
            }
        });
        Ok(())
    }

    /// Begins the way out.
    pub fn start(&self) {
        self.advance(ShutdownPhase::Leaving);
    }

    /// The others hold what this node held: it answers what is under way.
    pub fn drain(&self) {
        self.advance(ShutdownPhase::Draining);
    }

    /// The mesh has been left.
    pub fn finish(&self) {
        self.advance(ShutdownPhase::Stopped);
    }

    /// Waits until `phase` is reached.
    pub async fn reached(&self, phase: ShutdownPhase) {
        // Fails only if the sender is gone, which `self` holds.
        let _ = self.phase.subscribe().wait_for(|now| *now >= phase).await;
    }

    fn advance(&self, to: ShutdownPhase) {
        self.phase.send_if_modified(|now| {
            let is_later = to > *now;
            *now = (*now).max(to);
            is_later
        });
    }
}
