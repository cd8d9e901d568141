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
pub(crate) enum Schedule {
    /// As soon as the one before has ended.
    Closed,
    /// At fixed times.
    Open(Pacer),
}

impl Schedule {
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

/// How far behind the schedule may fall, in seconds' worth of operations, before more are given up and counted.
const BACKLOG_SECONDS_MAX: f64 = 10.0;

/// The timer's shortest and longest tick. tokio's own timer is too coarse: it counts whole milliseconds.
const TICK_MIN: Duration = Duration::from_micros(100);
const TICK_MAX: Duration = Duration::from_millis(1);

/// Hands out start times at a fixed rate to the tasks of one thread.
#[derive(Debug)]
pub(crate) struct Pacer {
    interval: Duration,
    backlog_max: usize,
    due: RefCell<VecDeque<Instant>>,
    idle: RefCell<VecDeque<Waker>>,
    closed: Cell<bool>,
    offered: Cell<u64>,
    dropped: Cell<u64>,
    late_max: Cell<Duration>,
    backlog_high: Cell<usize>,
}

impl Pacer {
    /// `rate` operations per second.
    #[must_use]
    pub(crate) fn new(rate: f64) -> Self {
        Self {
            interval: Duration::from_secs_f64(1.0 / rate),
            backlog_max: (rate * BACKLOG_SECONDS_MAX) as usize + 1,
            due: RefCell::default(),
            idle: RefCell::default(),
            closed: Cell::new(false),
            offered: Cell::new(0),
            dropped: Cell::new(0),
            late_max: Cell::new(Duration::ZERO),
            backlog_high: Cell::new(0),
        }
    }

    /// Operations that were due.
    #[must_use]
    pub(crate) const fn offered(&self) -> u64 {
        self.offered.get()
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
    pub(crate) const fn backlog_high(&self) -> usize {
        self.backlog_high.get()
    }

    /// Makes operations due until the load ends. What was due by then and has not begun is given up.
    ///
    /// # Errors
    /// If the system gives no timer.
    pub(crate) async fn drive(&self, run: &Run) -> io::Result<()> {
        let timer = ticker(self.interval.clamp(TICK_MIN, TICK_MAX))?;
        let mut next = Instant::now();
        loop {
            let now = Instant::now();
            if run.load_ended(now) {
                break;
            }
            self.late_max.set(self.late_max.get().max(now.saturating_duration_since(next)));
            while next <= now {
                self.offer(next);
                next += self.interval;
            }
            let mut ready = timer.readable().await?;
            let mut expirations = [0; 8];
            // The count of expirations does not matter: the clock says what is due.
            let _ = rustix::io::read(timer.get_ref(), &mut expirations);
            ready.clear_ready();
        }
        // The load has ended: what had no turn has none any more.
        self.dropped.set(self.dropped.get() + self.due.borrow_mut().drain(..).count() as u64);
        self.closed.set(true);
        self.idle.borrow_mut().drain(..).for_each(Waker::wake);
        Ok(())
    }

    pub(crate) async fn next(&self) -> Option<Instant> {
        poll_fn(|context| {
            if let Some(start) = self.due.borrow_mut().pop_front() {
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

    pub(crate) fn offer(&self, start: Instant) {
        self.offered.set(self.offered.get() + 1);
        let mut due = self.due.borrow_mut();
        if due.len() >= self.backlog_max {
            self.dropped.set(self.dropped.get() + 1);
            return;
        }
        due.push_back(start);
        self.backlog_high.set(self.backlog_high.get().max(due.len()));
        drop(due);
        if let Some(waker) = self.idle.borrow_mut().pop_front() {
            waker.wake();
        }
    }
}

fn ticker(tick: Duration) -> io::Result<AsyncFd<OwnedFd>> {
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
    let tick = Timespec { tv_sec: 0, tv_nsec: tick.subsec_nanos().into() };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: tick, it_value: tick })?;
    // Deprecated for types that may close their descriptor early, which an owned one cannot; the new name is `unsafe`.
    #[allow(deprecated, reason = "sound for an OwnedFd, and unsafe code is forbidden here")]
    AsyncFd::with_interest(timer, Interest::READABLE)
}
