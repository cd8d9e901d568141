//! How long a try may take before the request goes to another node, and how many may. What is slow because there is too much of
//! it gets slower if it is done twice: so a try is given three times what nearly all of its kind take now, and those given up
//! all the same are a bounded share of the operations.

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

use load::Op;

/// A try is slow beyond so many times what 99 % of its kind take.
const SLOW: u32 = 3;

/// What is given to a kind of which nothing has ended yet.
const UNKNOWN: Duration = Duration::from_secs(1);

/// Kinds of tries: reads and deletions, and writes by the size of their request.
const KINDS: usize = 10;

/// A sample counts until this many ticks have passed twice, if others have come since.
const WINDOW_TICKS: u64 = 40;

/// A window ends only with so many samples, unless it has lasted ten times as long.
const WINDOW_SAMPLES: u32 = 100;

/// Buckets are a quarter of a power of two wide, from the shortest time that matters: what is below needs no more patience than
/// anybody has.
const BUCKETS: usize = 48;

const SHORTEST_MS: u64 = 64;

/// The budget's most, in operations' worth of tries: a burst after a long calm.
const BURST: u32 = 10;

/// One thread's.
#[derive(Debug)]
pub(crate) struct Patience {
    floor: Duration,
    ceiling: Duration,
    kinds: [RefCell<Recent>; KINDS],
    /// What an operation adds to the budget. A try takes a hundred.
    percent: u32,
    budget: Cell<u32>,
}

/// What takes about as long as each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestKind(usize);

impl RequestKind {
    /// A read, whose size is not known before its answer; a deletion; or a write with a request of this many bytes.
    pub(crate) fn new(op: Op, request_bytes: usize) -> Self {
        match op {
            Op::Get => Self(0),
            Op::Delete => Self(1),
            // Eightfold sizes, up to 2 MiB.
            Op::Set => Self(2 + (request_bytes.max(1).ilog2() as usize / 3).min(KINDS - 3)),
        }
    }
}

impl Patience {
    /// No try is given up before `floor`. Half of `timeout` is left to the second one.
    pub(crate) fn new(floor: Duration, timeout: Duration, percent: u32) -> Self {
        Self { floor, ceiling: timeout / 2, kinds: Default::default(), percent, budget: Cell::new(0) }
    }

    /// How long a try of this kind may take before another node is thought of. A new operation begins.
    pub(crate) fn begin(&self, kind: RequestKind) -> Duration {
        self.budget.set((self.budget.get() + self.percent).min(100 * BURST));
        let usual = self.kinds[kind.0].borrow().p99;
        usual.map_or(UNKNOWN, |usual| usual * SLOW).min(self.ceiling).max(self.floor)
    }

    /// A try of this kind has ended, or was given up, after `took` at tick `now`.
    pub(crate) fn record(&self, kind: RequestKind, took: Duration, now: u64) {
        self.kinds[kind.0].borrow_mut().record(took, now);
    }

    /// Whether one more slow try may be given up for another.
    pub(crate) fn spend(&self) -> bool {
        let left = self.budget.get().checked_sub(100);
        self.budget.set(left.unwrap_or_else(|| self.budget.get()));
        left.is_some()
    }
}

/// How long one kind of tries takes now.
#[derive(Debug)]
struct Recent {
    /// This window and the one before.
    windows: [[u32; BUCKETS]; 2],
    samples: u32,
    began: u64,
    p99: Option<Duration>,
}

impl Default for Recent {
    fn default() -> Self {
        Self { windows: [[0; BUCKETS]; 2], samples: 0, began: 0, p99: None }
    }
}

impl Recent {
    fn record(&mut self, took: Duration, now: u64) {
        let age = now.saturating_sub(self.began);
        if age >= 10 * WINDOW_TICKS || age >= WINDOW_TICKS && self.samples >= WINDOW_SAMPLES {
            self.windows.swap(0, 1);
            self.windows[0] = [0; BUCKETS];
            (self.samples, self.began) = (0, now);
        }
        let bucket = bucket_of(took);
        self.windows[0][bucket] += 1;
        self.samples += 1;
        // Few samples say each something new; of many, none does alone.
        if self.samples < WINDOW_SAMPLES || self.samples.is_multiple_of(32) {
            self.p99 = Some(self.percentile());
        }
    }

    /// The end of the bucket that holds what 99 % do not exceed.
    fn percentile(&self) -> Duration {
        let count = |bucket: usize| u64::from(self.windows[0][bucket]) + u64::from(self.windows[1][bucket]);
        let above = (0..BUCKETS).map(count).sum::<u64>() / 100;
        let mut seen = 0;
        let found = (0..BUCKETS).rev().find(|bucket| {
            seen += count(*bucket);
            seen > above
        });
        end_of(found.unwrap_or(0))
    }
}

fn bucket_of(took: Duration) -> usize {
    let quarters = u64::try_from(took.as_millis() * 4).unwrap_or(u64::MAX) / SHORTEST_MS;
    let Some(octave) = quarters.checked_ilog2().and_then(|octave| octave.checked_sub(2)) else { return 0 };
    (1 + octave as usize * 4 + (quarters >> octave) as usize - 4).min(BUCKETS - 1)
}

fn end_of(bucket: usize) -> Duration {
    let (octave, quarter) = (bucket / 4, bucket as u64 % 4);
    Duration::from_millis(((SHORTEST_MS * (4 + quarter)) << octave) >> 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOR: Duration = Duration::from_millis(250);
    const TIMEOUT: Duration = Duration::from_secs(10);

    fn patience() -> Patience {
        Patience::new(FLOOR, TIMEOUT, 10)
    }

    #[test]
    fn a_bucket_ends_a_quarter_above_its_beginning() {
        for ms in 0..60_000 {
            let (took, end) = (Duration::from_millis(ms), end_of(bucket_of(Duration::from_millis(ms))));
            assert!(
                took < end && (ms < SHORTEST_MS || end <= took * 5 / 4 + Duration::from_millis(1)),
                "{ms}: {end:?}"
            );
        }
        assert_eq!(bucket_of(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn a_try_gets_three_times_what_its_kind_takes_now() {
        let patience = patience();
        let (small, large) = (RequestKind::new(Op::Set, 100), RequestKind::new(Op::Set, 1_000_000));
        assert_eq!(patience.begin(small), UNKNOWN);
        for now in 0..1000 {
            patience.record(small, Duration::from_millis(2), now / 10);
            patience.record(large, Duration::from_millis(400), now / 10);
        }
        assert_eq!(patience.begin(small), FLOOR);
        let given = patience.begin(large);
        assert!((1200..1600).contains(&given.as_millis()), "{given:?}");
        // One in two hundred does not count, three in a hundred do, and none that is long past.
        for now in 0..2000 {
            patience.record(small, Duration::from_millis(if now % 200 == 0 { 900 } else { 2 }), 200 + now / 10);
        }
        assert_eq!(patience.begin(small), FLOOR);
        for now in 0..1000 {
            patience.record(small, Duration::from_millis(if now % 33 == 0 { 900 } else { 2 }), 600 + now / 10);
        }
        let given = patience.begin(small);
        assert!((2700..3600).contains(&given.as_millis()), "{given:?}");
        for now in 0..1000 {
            patience.record(small, Duration::from_millis(2), 1000 + now / 10);
        }
        assert_eq!(patience.begin(small), FLOOR);
        (0..32).for_each(|_| patience.record(large, Duration::from_secs(60), 100));
        assert_eq!(patience.begin(large), TIMEOUT / 2);
    }

    #[test]
    fn slow_tries_given_up_are_a_tenth_of_the_operations() {
        let patience = patience();
        let kind = RequestKind::new(Op::Get, 0);
        assert!(!patience.spend());
        let given_up = (0..1000).filter(|_| {
            patience.begin(kind);
            patience.spend()
        });
        assert_eq!(given_up.count(), 100);
        // A long calm pays for a burst, and no more.
        (0..1000).for_each(|_| {
            patience.begin(kind);
        });
        assert_eq!((0..1000).filter(|_| patience.spend()).count(), BURST as usize);
    }

    #[test]
    fn sizes_are_told_apart() {
        let kinds = [100, 4096, 65_536, 1_000_000, 64 << 20].map(|bytes| RequestKind::new(Op::Set, bytes).0);
        assert!(kinds.is_sorted() && kinds[0] != kinds[1] && kinds[2] != kinds[3], "{kinds:?}");
        assert!(kinds[4] < KINDS && !kinds.contains(&RequestKind::new(Op::Delete, 100).0));
    }
}
