//! A future beside busier ones in the same task: it is polled when it was woken itself, and not each time that one of them was.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use parking_lot::Mutex;

/// A future that its task seldom polls.
pub(crate) struct Seldom<F> {
    future: Pin<Box<F>>,
    woken: Arc<Woken>,
    /// Wakes through `woken`; kept, so that a poll makes none.
    waker: Waker,
    /// The task's waker that `woken` has.
    task: Option<Waker>,
}

/// Whether the future was woken, and whom that concerns.
struct Woken {
    is_woken: AtomicBool,
    // Locked for a clone.
    task: Mutex<Option<Waker>>,
}

impl<F: Future> Seldom<F> {
    /// Its first poll polls the future.
    pub(crate) fn new(future: F) -> Self {
        let woken = Arc::new(Woken { is_woken: AtomicBool::new(true), task: Mutex::new(None) });
        Self { future: Box::pin(future), waker: Waker::from(Arc::clone(&woken)), woken, task: None }
    }
}

impl<F: Future> Future for Seldom<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        // Before the flag is read: what wakes later finds this task, what woke earlier has set the flag.
        if this.task.as_ref().is_none_or(|task| !task.will_wake(context.waker())) {
            *this.woken.task.lock() = Some(context.waker().clone());
            this.task = Some(context.waker().clone());
        }
        // Acquire, and release below: what was done before a wake is seen by the poll that follows.
        if !this.woken.is_woken.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        // Before the poll: a wake during it asks for another one.
        this.woken.is_woken.store(false, Ordering::Relaxed);
        this.future.as_mut().poll(&mut Context::from_waker(&this.waker))
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_woken.store(true, Ordering::Release);
        let task = self.task.lock().clone();
        task.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use std::{pin::pin, sync::atomic::AtomicUsize, time::Duration};

    use tokio::sync::{mpsc, oneshot};

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn task() -> (Arc<Wakes>, Waker) {
        let wakes = Arc::<Wakes>::default();
        (Arc::clone(&wakes), Waker::from(wakes))
    }

    #[test]
    fn it_is_polled_once_for_each_wake() {
        let polls = AtomicUsize::new(0);
        let (send, mut receive) = mpsc::channel(8);
        let mut seldom = pin!(Seldom::new(std::future::poll_fn(|context| {
            polls.fetch_add(1, Ordering::Relaxed);
            receive.poll_recv(context)
        })));
        let (wakes, waker) = task();
        let mut poll = || seldom.as_mut().poll(&mut Context::from_waker(&waker));
        assert!((0..10).all(|_| poll().is_pending()));
        assert_eq!(polls.load(Ordering::Relaxed), 1);
        send.try_send(7).unwrap();
        assert_eq!((wakes.0.load(Ordering::Relaxed), poll()), (1, Poll::Ready(Some(7))));
        assert_eq!(polls.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn the_task_that_polled_last_is_woken() {
        let (send, receive) = oneshot::channel();
        let mut seldom = pin!(Seldom::new(receive));
        let ((earlier, first), (later, second)) = (task(), task());
        for waker in [first, second] {
            assert!(seldom.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        send.send(7).unwrap();
        assert_eq!([&earlier, &later].map(|wakes| wakes.0.load(Ordering::Relaxed)), [0, 1]);
        let (_, third) = task();
        assert_eq!(seldom.as_mut().poll(&mut Context::from_waker(&third)), Poll::Ready(Ok(7)));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_from_another_thread_is_lost() {
        let (send, mut receive) = mpsc::channel(1);
        let sender = tokio::spawn(async move {
            for number in 0..20_000_u32 {
                send.send(number).await.unwrap();
            }
        });
        let received = Seldom::new(async {
            let mut count = 0;
            while receive.recv().await.is_some() {
                count += 1;
            }
            count
        });
        assert_eq!(tokio::time::timeout(Duration::from_secs(60), received).await.unwrap(), 20_000);
        sender.await.unwrap();
    }
}
