//! Deadlines for a thread's requests, without a timer per request: one tick for all, which wakes those that are late.
//! A deadline is late by up to one tick, and costs a few nanoseconds.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::{Poll, Waker},
    time::Duration,
};

/// How often deadlines are looked at.
pub(crate) const TICK: Duration = Duration::from_millis(25);

/// A time in whole ticks, rounded up.
pub(crate) fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_millis().div_ceil(TICK.as_millis())).unwrap_or(u64::MAX / 2)
}

/// All deadlines of one thread.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    now: Cell<u64>,
    slots: RefCell<Vec<DeadlineSlot>>,
    free: RefCell<Vec<usize>>,
}

#[derive(Debug, Default)]
struct DeadlineSlot {
    /// Nothing waits if this is zero.
    due: u64,
    waker: Option<Waker>,
}

/// One task's place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Deadline {
    all: Rc<Deadlines>,
    slot: usize,
}

impl Deadlines {
    /// Ticks so far.
    pub(crate) const fn now(&self) -> u64 {
        self.now.get()
    }

    /// Ticks for ever.
    pub(crate) async fn tick_for_ever(self: Rc<Self>) {
        let mut ticker = tokio::time::interval(TICK);
        loop {
            ticker.tick().await;
            let now = self.now.get() + 1;
            self.now.set(now);
            for slot in self.slots.borrow_mut().iter_mut() {
                if slot.due != 0
                    && slot.due <= now
                    && let Some(waker) = slot.waker.take()
                {
                    slot.due = 0;
                    waker.wake();
                }
            }
        }
    }
}

impl Deadline {
    pub(crate) fn new(all: &Rc<Deadlines>) -> Self {
        let slot = all.free.borrow_mut().pop().unwrap_or_else(|| {
            let mut slots = all.slots.borrow_mut();
            slots.push(DeadlineSlot::default());
            slots.len() - 1
        });
        Self { all: Rc::clone(all), slot }
    }

    /// A number that no other task of this thread has.
    pub(crate) const fn place(&self) -> u64 {
        self.slot as u64
    }

    /// Runs `work` for at most `limit`, rounded up to whole ticks; nothing if that was too short.
    pub(crate) async fn within<F: Future>(&self, limit: Duration, work: F) -> Option<F::Output> {
        let due = self.all.now.get() + ticks(limit) + 1;
        let mut work = pin!(work);
        let output = poll_fn(|context| {
            if let Poll::Ready(output) = work.as_mut().poll(context) {
                return Poll::Ready(Some(output));
            }
            if self.all.now.get() >= due {
                return Poll::Ready(None);
            }
            let slot = &mut self.all.slots.borrow_mut()[self.slot];
            slot.due = due;
            if !slot.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                slot.waker = Some(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
        self.all.slots.borrow_mut()[self.slot].due = 0;
        output
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        self.all.slots.borrow_mut()[self.slot] = DeadlineSlot::default();
        self.all.free.borrow_mut().push(self.slot);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::task::LocalSet;

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn late_work_is_given_up_and_quick_work_is_not() {
        LocalSet::new()
            .run_until(async {
                let all = Rc::new(Deadlines::default());
                tokio::task::spawn_local(Rc::clone(&all).tick_for_ever());
                let deadline = Deadline::new(&all);
                let began = Instant::now();
                assert_eq!(deadline.within(Duration::from_millis(60), std::future::pending::<()>()).await, None);
                assert!(began.elapsed() >= Duration::from_millis(50), "{:?}", began.elapsed());
                assert_eq!(deadline.within(Duration::from_secs(9), async { 7 }).await, Some(7));
                let slow = tokio::time::sleep(Duration::from_millis(40));
                assert_eq!(deadline.within(Duration::from_secs(9), slow).await, Some(()));
                drop(deadline);
                assert_eq!(all.free.borrow().len(), 1);
            })
            .await;
    }
}
