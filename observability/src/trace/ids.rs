//! Trace and span ids: random, from a generator of each thread's own, which costs a few nanoseconds.

use std::cell::RefCell;

use rand::{Rng, SeedableRng, rngs::SmallRng};

thread_local! {
    static RANDOM: RefCell<SmallRng> = RefCell::new(SmallRng::from_rng(&mut rand::rng()));
}

/// A trace's id, never zero.
pub(super) fn trace_id() -> u128 {
    RANDOM.with_borrow_mut(|random| random.random::<u128>()).max(1)
}

/// A span's id. Those of a request's parts follow it, so its lowest bits are zero; never zero itself.
pub(super) fn span_id() -> u64 {
    RANDOM.with_borrow_mut(|random| random.random::<u64>() & !0xf).max(0x10)
}

/// As a user reads and searches it.
pub(crate) fn hex(trace: u128) -> String {
    format!("{trace:032x}")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_differ_between_threads_too() {
        let some = || (0..1000).map(|_| (trace_id(), span_id())).collect::<Vec<_>>();
        let elsewhere = std::thread::spawn(some).join().unwrap_or_default();
        let all: Vec<_> = some().into_iter().chain(elsewhere).collect();
        assert_eq!(all.iter().map(|(trace, _)| trace).collect::<HashSet<_>>().len(), 2000);
        assert_eq!(all.iter().map(|(_, span)| span).collect::<HashSet<_>>().len(), 2000);
        assert!(all.iter().all(|(_, span)| span & 0xf == 0 && *span != 0));
    }
}
