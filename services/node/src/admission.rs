//! Who is let in when more is asked than can be answered. Two bounds: requests in flight, which bounds memory, and the time
//! that requests wait before a thread looks at them, which bounds latency. Requests wait unseen, in sockets and in the
//! runtime's queue; but whatever is ready waits as long, so a timer that comes late tells how long that is.
//!
//! As in CoDel (RFC 8289), only a queue that stands counts: a burst may wait longer. Then a rising share is shed,
//! until the queue is short again.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use observability::Shed;
use tokio::time::{Instant, sleep_until};

/// How often a thread looks at how late it is.
const TICK: Duration = Duration::from_millis(10);

/// How long the queue must have stood before requests are shed.
const STANDING: Duration = Duration::from_secs(1);

/// Shares are counted in thousandths.
const WHOLE: u32 = 1000;

/// At least one request in twenty is always let in: a thread that nobody visits would learn nothing.
const SHARE_MAX: u32 = 950;

/// What a late tick adds to the share that is shed. Ticks are rare when they are late: four a second at 250 ms.
const RISE: u32 = 100;

/// What a tick in time takes off it: all of it within ten seconds.
const FALL: u32 = 1;

/// One thread's gate.
#[derive(Debug)]
pub(crate) struct Admission {
    requests_max: usize,
    queue_delay_max: Duration,
    /// The share that is shed, in thousandths. Written by the watch only. Atomics, though one thread uses them, because
    /// a runtime's tasks have to be `Send`.
    share: AtomicU32,
    /// What the requests so far have gathered towards the next one that is shed.
    gathered: AtomicU32,
    delay_us: AtomicU64,
}

impl Admission {
    pub(crate) fn new(requests_max: usize, queue_delay_max: Duration) -> Self {
        Self {
            requests_max,
            queue_delay_max,
            share: AtomicU32::new(0),
            gathered: AtomicU32::new(0),
            delay_us: AtomicU64::new(0),
        }
    }

    /// Whether one more request may come in, besides the others in flight. On the request path: two comparisons.
    pub(crate) fn admit(&self, others_in_flight: usize) -> Result<(), Shed> {
        if others_in_flight >= self.requests_max {
            return Err(Shed::Requests);
        }
        // Relaxed here and below: figures of their own.
        let share = self.share.load(Ordering::Relaxed);
        if share == 0 {
            return Ok(());
        }
        let gathered = self.gathered.load(Ordering::Relaxed) + share;
        let is_refused = gathered >= WHOLE;
        self.gathered.store(if is_refused { gathered - WHOLE } else { gathered }, Ordering::Relaxed);
        if is_refused { Err(Shed::Queue) } else { Ok(()) }
    }

    /// How late the thread has lately been.
    pub(crate) fn queue_delay(&self) -> Duration {
        Duration::from_micros(self.delay_us.load(Ordering::Relaxed))
    }

    /// Watches the thread that it runs on, for ever.
    pub(crate) async fn watch(&self) {
        let mut queue = Queue::default();
        loop {
            let due = Instant::now() + TICK;
            sleep_until(due).await;
            let now = Instant::now();
            let delay = now.saturating_duration_since(due);
            self.delay_us.store(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
            self.share.store(queue.tick(now, delay, self.queue_delay_max), Ordering::Relaxed);
        }
    }
}

/// Whether the queue stands, and what share is shed for it.
#[derive(Debug, Default)]
struct Queue {
    late_since: Option<Instant>,
    share: u32,
}

impl Queue {
    fn tick(&mut self, now: Instant, delay: Duration, delay_max: Duration) -> u32 {
        if delay <= delay_max {
            self.late_since = None;
            self.share = self.share.saturating_sub(FALL);
        } else if now.saturating_duration_since(*self.late_since.get_or_insert(now)) >= STANDING {
            self.share = (self.share + RISE).min(SHARE_MAX);
        }
        self.share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY_MAX: Duration = Duration::from_millis(250);

    #[test]
    fn a_burst_is_let_through_and_a_standing_queue_is_not() {
        let (mut queue, mut now) = (Queue::default(), Instant::now());
        let mut tick = |queue: &mut Queue, delay_ms| {
            let delay = Duration::from_millis(delay_ms);
            now += TICK + delay;
            queue.tick(now, delay, DELAY_MAX)
        };
        // However long one delay is: the process may have been stopped.
        assert_eq!(tick(&mut queue, 60_000), 0);
        assert_eq!(tick(&mut queue, 0), 0);
        assert_eq!([300, 300, 300, 300].map(|delay| tick(&mut queue, delay)), [0; 4]);
        assert_eq!([300, 300, 300].map(|delay| tick(&mut queue, delay)), [100, 200, 300]);
        // It goes on being late: nearly all requests are shed, but never all.
        assert_eq!((0..20).map(|_| tick(&mut queue, 300)).last(), Some(SHARE_MAX));
        // Back in time: everybody comes in again, little by little.
        assert_eq!(tick(&mut queue, 0), SHARE_MAX - FALL);
        assert_eq!((0..1000).map(|_| tick(&mut queue, 10)).last(), Some(0));
    }

    #[test]
    fn the_share_that_is_turned_away_is_exact() {
        let admission = Admission::new(10, DELAY_MAX);
        let refused = |admission: &Admission| (0..1000).filter(|_| admission.admit(0).is_err()).count();
        assert_eq!(refused(&admission), 0);
        admission.share.store(300, Ordering::Relaxed);
        assert_eq!(refused(&admission), 300);
    }

    #[test]
    fn requests_in_flight_are_bounded() {
        let admission = Admission::new(2, DELAY_MAX);
        assert_eq!(admission.admit(0), Ok(()));
        assert_eq!(admission.admit(1), Ok(()));
        assert_eq!(admission.admit(2), Err(Shed::Requests));
    }

    #[tokio::test]
    async fn a_thread_that_is_kept_busy_turns_requests_away() {
        let admission = std::sync::Arc::new(Admission::new(10, Duration::from_millis(5)));
        let watched = std::sync::Arc::clone(&admission);
        let watch = tokio::spawn(async move { watched.watch().await });
        let deadline = Instant::now() + Duration::from_secs(60);
        while (0..10).all(|_| admission.admit(0).is_ok()) {
            assert!(Instant::now() < deadline, "never");
            // What every request of a long queue does to those behind it.
            #[expect(clippy::disallowed_methods, reason = "this is the point")]
            std::thread::sleep(Duration::from_millis(40));
            tokio::task::yield_now().await;
        }
        assert!(admission.queue_delay() > Duration::from_millis(5));
        watch.abort();
    }
}
