//! What a node's resident memory is for, as far as it is known. The parts add up to what is resident: what nothing explains is a
//! part of its own.

use mesh_proto::Stats;

/// What an allocator says of itself, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AllocatorUse {
    /// In use by the program.
    pub allocated: u64,
    /// In pages that are in memory, its own book-keeping and what was freed and not given back included.
    pub resident: u64,
}

/// One look at a process's memory, in bytes; zeros where the system does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// All that is resident.
    pub resident: u64,
    /// Pages of files: the program itself.
    pub code: u64,
    /// The allocator's view.
    pub allocator: AllocatorUse,
    /// Bodies of requests.
    pub request_bodies: u64,
    /// HTTP connections, as estimated.
    pub connections: u64,
    /// Flight records that wait to be asked for.
    pub flight_records: u64,
    /// Spans that wait for the collector, as estimated.
    pub spans: u64,
}

impl MemoryUse {
    /// What the allocator takes beyond what the program has asked it for.
    pub(crate) const fn overhead(&self) -> u64 {
        self.allocator.resident.saturating_sub(self.allocator.allocated)
    }

    /// What is resident and for nothing that is counted.
    pub(crate) fn other(&self, stats: &Stats) -> u64 {
        let known =
            [self.code, self.overhead(), self.request_bodies, self.connections, self.flight_records, self.spans];
        let known = known.into_iter().chain([stats.store.bytes, stats.hints.queued_bytes]);
        known.fold(self.resident, u64::saturating_sub)
    }
}

#[cfg(test)]
mod tests {
    use mesh_proto::{HintStats, StoreStats};

    use super::*;
    use crate::NodeSample;

    #[test]
    fn the_parts_add_up_to_what_is_resident() {
        let memory = MemoryUse {
            resident: 1000,
            code: 100,
            allocator: AllocatorUse { allocated: 700, resident: 750 },
            request_bodies: 20,
            connections: 30,
            flight_records: 40,
            spans: 5,
        };
        let store = StoreStats { bytes: 500, ..StoreStats::default() };
        let hints = HintStats { queued_bytes: 60, ..HintStats::default() };
        let sample = NodeSample { memory, stats: Stats { store, hints, ..Stats::default() }, ..NodeSample::default() };
        let parts: Vec<_> =
            sample.fields().filter_map(|(name, bytes)| Some((name.strip_prefix("memory.")?, bytes))).collect();
        let of = |wanted: &str| parts.iter().find(|(name, _)| *name == wanted).map(|(_, bytes)| *bytes);
        assert_eq!((of("other"), of("store"), of("allocator")), (Some(195), Some(500), Some(50)));
        assert_eq!(parts.iter().map(|(_, bytes)| bytes).sum::<u64>(), 1000, "{parts:?}");
    }

    #[test]
    fn what_is_estimated_too_high_leaves_nothing_unexplained() {
        let memory = MemoryUse { resident: 10, code: 20, ..MemoryUse::default() };
        assert_eq!(memory.other(&Stats::default()), 0);
    }
}
