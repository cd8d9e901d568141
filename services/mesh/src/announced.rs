//! A value that many tasks follow. In place of tokio's `watch`, whose waiters wake in random order: here they wake in the
//! order they came, so that a simulated cluster does the same in every run of a seed.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use parking_lot::{RwLock, RwLockReadGuard};
use tokio::sync::Notify;

/// The value and the tasks that wait for it to change.
#[derive(Debug)]
pub(crate) struct Announced<T> {
    value: RwLock<T>,
    /// How often it has changed.
    changes: AtomicU64,
    changed: Notify,
}

impl<T> Announced<T> {
    pub(crate) fn new(value: T) -> Arc<Self> {
        Arc::new(Self { value: RwLock::new(value), changes: AtomicU64::new(0), changed: Notify::new() })
    }

    /// The value now. Not to be held for long.
    pub(crate) fn borrow(&self) -> RwLockReadGuard<'_, T> {
        self.value.read()
    }

    pub(crate) fn send_replace(&self, value: T) {
        self.send_modify(|held| {
            *held = value;
            true
        });
    }

    /// Lets `change` change it and say whether it has; if so all that follow it are told.
    pub(crate) fn send_modify(&self, change: impl FnOnce(&mut T) -> bool) {
        if !change(&mut self.value.write()) {
            return;
        }
        // Release, with the acquire in `changed`: a task that sees the count sees the value.
        self.changes.fetch_add(1, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Follows it: what it is now is not news.
    pub(crate) fn subscribe(self: &Arc<Self>) -> Follower<T> {
        Follower { seen: self.changes.load(Ordering::Acquire), announced: Arc::clone(self) }
    }
}

/// One task's place in what it follows.
pub(crate) struct Follower<T> {
    announced: Arc<Announced<T>>,
    seen: u64,
}

impl<T> Follower<T> {
    /// Waits for a change since the last time; at once if there has been one.
    pub(crate) async fn changed(&mut self) {
        loop {
            let changed = self.announced.changed.notified();
            let changes = self.announced.changes.load(Ordering::Acquire);
            if changes != self.seen {
                self.seen = changes;
                return;
            }
            changed.await;
        }
    }

    /// Waits until the value is as wanted.
    pub(crate) async fn wait_for(&mut self, wanted: impl Fn(&T) -> bool) {
        loop {
            self.seen = self.announced.changes.load(Ordering::Acquire);
            if wanted(&self.announced.borrow()) {
                return;
            }
            self.changed().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_is_seen_once_and_by_all() {
        let number = Announced::new(1);
        let (mut one, mut other) = (number.subscribe(), number.subscribe());
        number.send_replace(2);
        one.changed().await;
        assert_eq!(*number.borrow(), 2);
        let waiting = tokio::spawn(async move { one.wait_for(|number| *number == 4).await });
        other.changed().await;
        number.send_replace(3);
        tokio::task::yield_now().await;
        number.send_replace(4);
        assert!(waiting.await.is_ok());
        other.changed().await;
        assert_eq!(*number.borrow(), 4);
    }
}
