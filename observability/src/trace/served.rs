//! What this node has lately served for others' traces. Whether a trace is kept is often known only at its end, at the node
//! that coordinated it; until then its records wait here (Zhang et al., "The Benefit of Hindsight", NSDI 2023).

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use mesh_proto::{Monotonic, ServeRecord};

const SHARDS: usize = 16;

/// Records in one shard: 131 072 in all, some seconds of a busy node in 15 MB.
const RECORDS_MAX: usize = 8192;

/// Traces in one shard that were asked for before anything was served for them, such as for a large value under way.
const AWAITED_MAX: usize = 64;

/// How long they are waited for.
const AWAITED_FOR: Duration = Duration::from_secs(5);

/// How far the search goes on behind the first record found: a peer may have been asked twice.
const FURTHER: usize = 256;

/// The last records, by trace.
pub(super) struct Served {
    // By trace, not by thread: a trace may be asked for on any connection. Held for some nanoseconds by threads whose
    // requests belong to different traces.
    shards: [Mutex<ServedShard>; SHARDS],
}

#[derive(Default)]
struct ServedShard {
    records: VecDeque<ServeRecord>,
    /// With the moment of the newest record when it was asked for.
    awaited: VecDeque<(u128, Monotonic)>,
}

impl Served {
    pub(super) fn new() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()) }
    }

    /// What they take, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        let records =
            |shard: &Mutex<ServedShard>| shard.lock().unwrap_or_else(PoisonError::into_inner).records.capacity();
        (self.shards.iter().map(records).sum::<usize>() * size_of::<ServeRecord>()) as u64
    }

    fn with<T>(&self, trace: u128, work: impl FnOnce(&mut ServedShard) -> T) -> T {
        // Ids are random in all their bits. A poisoned lock still guards whole records.
        work(&mut self.shards[(trace % SHARDS as u128) as usize].lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Remembers a record, unless its trace has been asked for already: then it is handed back.
    pub(super) fn push(&self, record: &ServeRecord) -> bool {
        let trace = record.trace.trace_id();
        self.with(trace, |shard| {
            if !shard.awaited.is_empty() && shard.is_awaited(trace, record.started) {
                return false;
            }
            if shard.records.len() >= RECORDS_MAX {
                shard.records.pop_front();
            }
            shard.records.push_back(*record);
            true
        })
    }

    /// The records of a trace. If there are none, those to come are handed back by [`Served::push`].
    pub(super) fn take(&self, trace: u128) -> Vec<ServeRecord> {
        self.with(trace, |shard| {
            let mut found = Vec::new();
            let mut further = usize::MAX;
            for record in shard.records.iter().rev() {
                if record.trace.trace_id() == trace {
                    found.push(*record);
                    further = FURTHER;
                }
                further -= 1;
                if further == 0 {
                    break;
                }
            }
            if found.is_empty() {
                if shard.awaited.len() >= AWAITED_MAX {
                    shard.awaited.pop_front();
                }
                let now = shard.records.back().map_or_else(Monotonic::default, |newest| newest.started);
                shard.awaited.push_back((trace, now));
            }
            found
        })
    }
}

impl ServedShard {
    fn is_awaited(&mut self, trace: u128, now: Monotonic) -> bool {
        while self.awaited.front().is_some_and(|(_, since)| now.since(*since) > AWAITED_FOR) {
            self.awaited.pop_front();
        }
        self.awaited.iter().any(|(awaited, _)| *awaited == trace)
    }
}

#[cfg(test)]
mod tests {
    use mesh_proto::{KeyHash, Micros, NodeId, ServeOutcome, TraceContext};

    use super::*;

    fn record(trace: u128, at: Duration) -> ServeRecord {
        ServeRecord {
            peer: NodeId::new(1),
            trace: TraceContext::new(trace, 1, false),
            is_write: false,
            outcome: ServeOutcome::Hit,
            hash: KeyHash::new(1),
            version: None,
            started: Monotonic::new(at),
            took: Duration::ZERO,
            waited: Micros::default(),
        }
    }

    #[test]
    fn what_was_served_can_be_asked_for() {
        let served = Served::new();
        for trace in 1..100 {
            assert!(served.push(&record(trace, Duration::ZERO)));
        }
        assert!(served.push(&record(7, Duration::from_secs(1))));
        assert_eq!(served.take(7).len(), 2);
        assert_eq!(served.take(99).len(), 1);
        assert!(served.take(100).is_empty());
    }

    #[test]
    fn what_is_asked_for_early_is_handed_back_when_it_comes() {
        let served = Served::new();
        assert!(served.push(&record(16, Duration::from_secs(10))));
        assert!(served.take(32).is_empty());
        assert!(served.push(&record(48, Duration::from_secs(11))), "another trace");
        assert!(!served.push(&record(32, Duration::from_secs(14))), "awaited");
        assert!(served.push(&record(32, Duration::from_secs(16))), "no longer");
    }

    #[test]
    fn memory_is_bounded() {
        let served = Served::new();
        let step = SHARDS as u128;
        for n in 0..=RECORDS_MAX as u128 {
            served.push(&record(step * (n + 1), Duration::ZERO));
        }
        assert!(served.take(step).is_empty(), "the oldest has gone");
        assert_eq!(served.take(step * 2).len(), 1);
        for n in 0..2 * AWAITED_MAX as u128 {
            assert!(served.take(step * (1_000_000 + n)).is_empty());
        }
        let (records, awaited) = served.with(0, |shard| (shard.records.len(), shard.awaited.len()));
        assert_eq!((records, awaited), (RECORDS_MAX, AWAITED_MAX));
        let least = (RECORDS_MAX * size_of::<ServeRecord>()) as u64;
        assert!((least..2 * least).contains(&served.bytes()), "{}", served.bytes());
    }
}
