//! When operations begin. A closed loop begins one when another ends. An open loop begins them at times fixed
//! beforehand, whatever the mesh does, so that a stall is felt by all the operations that should have begun in it
//! (coordinated omission, Tene 2013).

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    io,
    os::fd::OwnedFd,
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::{Interest, unix::AsyncFd};

use super::run::Run;

/// One thread's schedule.
#[derive(Debug)]
pub(crate) enum ThreadSchedule {
    /// As soon as the one before has ended.
    Closed,
    /// At fixed times.
    Open(Pacer),
}

impl ThreadSchedule {
    /// The schedule of one of `threads` threads that together make `rate` operations per second, or a closed loop.
    #[must_use]
    pub(crate) fn new(rate: Option<f64>, threads: usize) -> Self {
        rate.map_or(Self::Closed, |rate| Self::Open(Pacer::new(rate / threads as f64)))
    }

    /// Waits for the next operation and says when it should have begun; nothing once the load has ended.
    pub(crate) async fn next(&self, run: &Run) -> Option<Instant> {
        match self {
            Self::Closed => {
                let now = Instant::now();
                (!run.load_ended(now)).then_some(now)
            }
            Self::Open(pacer) => pacer.next().await,
        }
    }
}

/// How far behind the schedule may fall, in seconds' worth of operations, before the oldest of them are given up and counted.
const BACKLOG_SECONDS_MAX: f64 = 10.0;

/// Where operations are closer to each other than the shorter pause, several begin at a time. After the longer one it is looked whether
/// the load has ended.
const PAUSE_MIN: Duration = Duration::from_micros(100);
const PAUSE_MAX: Duration = Duration::from_millis(5);

/// Hands out start times at a fixed rate to the tasks of one thread.
///
/// Operations are numbered in the order of the schedule, and a number gives the time: those that wait to begin are the numbers
/// from `next` to `due`. So a pass over the schedule costs the same at every rate, and a backlog of any length takes no memory.
#[derive(Debug)]
pub(crate) struct Pacer {
    /// Operations per second.
    rate: f64,
    backlog_max: u64,
    began: Cell<Option<Instant>>,
    /// The first operation that has not begun.
    next: Cell<u64>,
    /// The first operation that is not due; how many were offered.
    due: Cell<u64>,
    idle: RefCell<VecDeque<Waker>>,
    closed: Cell<bool>,
    dropped: Cell<u64>,
    late_max: Cell<Duration>,
    backlog_high: Cell<u64>,
}

impl Pacer {
    /// `rate` operations per second.
    #[must_use]
    pub(crate) fn new(rate: f64) -> Self {
        Self {
            rate,
            backlog_max: (rate * BACKLOG_SECONDS_MAX) as u64 + 1,
            began: Cell::new(None),
            next: Cell::new(0),
            due: Cell::new(0),
            idle: RefCell::default(),
            closed: Cell::new(false),
            dropped: Cell::new(0),
            late_max: Cell::new(Duration::ZERO),
            backlog_high: Cell::new(0),
        }
    }

    /// Operations that were due.
    #[must_use]
    pub(crate) const fn offered(&self) -> u64 {
        self.due.get()
    }

    /// By how much the schedule itself was late.
    #[must_use]
    pub(crate) const fn late_max(&self) -> Duration {
        self.late_max.get()
    }

    /// Operations that were given up because too many others were waiting to begin, or the load has ended.
    #[must_use]
    pub(crate) const fn dropped(&self) -> u64 {
        self.dropped.get()
    }

    /// The most operations that were waiting to begin at one time.
    #[must_use]
    pub(crate) fn backlog_high(&self) -> usize {
        usize::try_from(self.backlog_high.get()).unwrap_or(usize::MAX)
    }

    /// Makes operations due until the load ends. What was due by then and has not begun is given up.
    ///
    /// # Errors
    /// If the system gives no timer.
    pub(crate) async fn drive(&self, run: &Run) -> io::Result<()> {
        let timer = timer()?;
        self.begin(Instant::now());
        loop {
            let now = Instant::now();
            if run.load_ended(now) {
                break;
            }
            self.offer(now);
            // What is due begins before the timer is set.
            tokio::task::yield_now().await;
            set(timer.get_ref(), self.pause(Instant::now()))?;
            let mut ready = timer.readable().await?;
            let mut expirations = [0; 8];
            // The count of expirations does not matter: the clock says what is due.
            let _ = rustix::io::read(timer.get_ref(), &mut expirations);
            ready.clear_ready();
        }
        // The load has ended: what had no turn has none any more.
        self.give_up(self.due.get() - self.next.get());
        self.closed.set(true);
        self.idle.borrow_mut().drain(..).for_each(Waker::wake);
        Ok(())
    }

    /// The first operation is due at `now`.
    pub(crate) fn begin(&self, now: Instant) {
        self.began.set(Some(now));
    }

    pub(crate) async fn next(&self) -> Option<Instant> {
        poll_fn(|context| {
            if let Some(start) = self.take() {
                return Poll::Ready(Some(start));
            }
            if self.closed.get() {
                return Poll::Ready(None);
            }
            self.idle.borrow_mut().push_back(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// The next operation that is due, if there is one: when it should have begun.
    fn take(&self) -> Option<Instant> {
        let next = self.next.get();
        if next == self.due.get() {
            return None;
        }
        self.next.set(next + 1);
        self.start_of(next)
    }

    /// When an operation is due; nothing before the schedule begins.
    fn start_of(&self, number: u64) -> Option<Instant> {
        Some(self.began.get()? + Duration::from_secs_f64(number as f64 / self.rate))
    }

    /// All that should have begun by `now` is due, and as many tasks as there are operations may begin them.
    pub(crate) fn offer(&self, now: Instant) {
        let (Some(began), Some(first)) = (self.began.get(), self.start_of(self.due.get())) else { return };
        if first > now {
            return;
        }
        self.late_max.set(self.late_max.get().max(now - first));
        let due = ((now - began).as_secs_f64() * self.rate) as u64 + 1;
        let added = due.saturating_sub(self.due.get());
        self.due.set(self.due.get() + added);
        let waiting = self.due.get() - self.next.get();
        self.give_up(waiting.saturating_sub(self.backlog_max));
        self.backlog_high.set(self.backlog_high.get().max(waiting.min(self.backlog_max)));
        let mut idle = self.idle.borrow_mut();
        let woken = usize::try_from(added).unwrap_or(usize::MAX).min(idle.len());
        idle.drain(..woken).for_each(Waker::wake);
    }

    /// How long it is until the next operation is due.
    fn pause(&self, now: Instant) -> Duration {
        let pause = self.start_of(self.due.get()).map_or(PAUSE_MAX, |due| due.saturating_duration_since(now));
        // A timer of no time is none.
        let least = if self.rate * PAUSE_MIN.as_secs_f64() > 1.0 { PAUSE_MIN } else { Duration::from_nanos(1) };
        pause.clamp(least, PAUSE_MAX)
    }

    /// Gives up the oldest operations that wait.
    fn give_up(&self, operations: u64) {
        self.next.set(self.next.get() + operations);
        self.dropped.set(self.dropped.get() + operations);
    }
}

/// tokio's own timer is too coarse: it counts whole milliseconds.
fn timer() -> io::Result<AsyncFd<OwnedFd>> {
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
    // Deprecated for types that may close their descriptor early, which an owned one cannot; the new name is `unsafe`.
    #[allow(deprecated, reason = "sound for an OwnedFd, and unsafe code is forbidden here")]
    AsyncFd::with_interest(timer, Interest::READABLE)
}

/// It is readable once this pause is over.
fn set(timer: &OwnedFd, pause: Duration) -> io::Result<()> {
    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    let once = Itimerspec { it_interval: zero, it_value: Timespec { tv_nsec: pause.subsec_nanos().into(), ..zero } };
    timerfd_settime(timer, TimerfdTimerFlags::empty(), &once)?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn pacer(rate: f64) -> (Pacer, Instant) {
        let (pacer, began) = (Pacer::new(rate), Instant::now());
        pacer.began.set(Some(began));
        (pacer, began)
    }

    #[test]
    fn operations_begin_at_the_times_of_the_schedule() {
        let (pacer, began) = pacer(1000.0);
        assert_eq!(pacer.take(), None, "nothing is due before the first pass");
        pacer.offer(began);
        pacer.offer(began + Duration::from_micros(2500));
        let starts: Vec<_> = std::iter::from_fn(|| pacer.take()).map(|start| start - began).collect();
        assert_eq!(starts, [0, 1, 2].map(Duration::from_millis));
        assert_eq!((pacer.offered(), pacer.dropped(), pacer.backlog_high()), (3, 0, 3));
        // The operation of 1 ms was made due at 2.5 ms.
        assert_eq!(pacer.late_max(), Duration::from_micros(1500));
    }

    #[test]
    fn a_pause_ends_when_the_next_operation_is_due() {
        let us = Duration::from_micros;
        let (slow, began) = pacer(2000.0);
        slow.offer(began);
        assert_eq!([10, 470, 700].map(|at| slow.pause(began + us(at))), [us(490), us(30), Duration::from_nanos(1)]);
        let (fast, began) = pacer(1e6);
        fast.offer(began);
        assert_eq!(fast.pause(began), PAUSE_MIN, "as many as are due by then begin together");
        let (rare, began) = pacer(1.0);
        rare.offer(began);
        assert_eq!(rare.pause(began), PAUSE_MAX);
    }

    #[test]
    fn a_pass_at_the_highest_rate_takes_neither_time_nor_memory() {
        let (pacer, began) = pacer(1e7);
        let passes = Instant::now();
        for second in 0..3600 {
            pacer.offer(began + Duration::from_secs(second));
        }
        assert!(passes.elapsed() < Duration::from_secs(1), "{:?}", passes.elapsed());
        assert_eq!(pacer.offered(), 3599 * 10_000_000 + 1);
        assert_eq!(pacer.dropped() + pacer.backlog_max, pacer.offered());
        // The oldest that is left is as old as the backlog is long.
        assert_eq!(pacer.take().unwrap() - began, Duration::from_secs(3589));
    }
}
