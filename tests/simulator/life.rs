//! Whether one start of a node is still running. What is in flight through a node that crashes is never answered: its
//! callers wait for this instead.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// One start of a node.
#[derive(Debug, Default)]
pub struct Life {
    is_over: AtomicBool,
    ended: Notify,
}

impl Life {
    /// The process is gone.
    pub fn end(&self) {
        // One thread per simulation: no order to keep.
        self.is_over.store(true, Ordering::Relaxed);
        self.ended.notify_waiters();
    }

    /// Waits until it is gone.
    pub async fn over(&self) {
        let ended = self.ended.notified();
        if !self.is_over.load(Ordering::Relaxed) {
            ended.await;
        }
    }
}
