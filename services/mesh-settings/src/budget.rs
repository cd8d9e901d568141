//! What a node takes beside its store, and so how large a store fits into the memory that it may have. All figures of the one
//! formula stand here:
//!
//! memory limit = CAPACITY_BYTES × 1.05 + 40 MiB + 2 × HINT_BYTES_MAX + REQUEST_BYTES_MAX + 64 KiB for each connection

use mesh_proto::HintLimits;
use settings::{Memory, MemoryLimit, Mistakes};

/// What the store takes beyond CAPACITY_BYTES, as a part of it: what the allocator rounds up and has not given back.
const OVERHEAD_PART: u64 = 20;

/// Code, threads and their stacks, tables, sockets' buffers, flight records, metrics, logs, and what waits for a peer that is silent.
const BASE_BYTES: u64 = 40 << 20;

/// Queues of hints that may be full at a time: with the usual three owners of a key, this node knows two others.
const FULL_HINT_QUEUES: u64 = 2;

/// An HTTP connection: its buffers here and in the kernel, and a request and an answer of the usual size.
const CONNECTION_BYTES: u64 = 64 << 10;

/// Connections are counted up to this part of the limit. CONNECTIONS_MAX is there to keep a flood away, and few nodes have ever so
/// many: a container of 192 MiB has room for 192 beside a useful store.
const CONNECTIONS_PART: u64 = 16;

/// Hints may take this part of the limit for each peer, unless HINT_BYTES_MAX is set.
const HINTS_PART: u64 = 32;

/// Request bodies may take this part of the limit, unless REQUEST_BYTES_MAX is set, and at most so many bytes.
const BODIES_PART: u64 = 16;
const BODIES_DEFAULT: u64 = 64 << 20;

/// What waits for one peer may take this part of the limit three times: in frames, in the transport, and as requests in flight. A peer
/// that falls silent fills them until its connection is given up.
const PEER_QUEUE_PART: u64 = 128;
const PEER_QUEUE_MIN: u64 = 1 << 20;

/// The store where nothing limits the process, unless half of the machine's memory is less.
const CAPACITY_DEFAULT: u64 = 1 << 30;

/// The least that CAPACITY_BYTES can be.
pub(crate) const CAPACITY_MIN: u64 = 1 << 20;

const MIB: u64 = 1 << 20;

/// Where a node runs.
#[derive(Clone, Debug)]
pub struct Host {
    /// The memory that this process may take.
    pub memory: Memory,
    /// How many nodes share it.
    pub nodes: u64,
    /// The most HTTP connections that a node may have.
    pub connections_max: u64,
    /// The most bytes of request bodies that a node may have in memory at one time, if that is set.
    pub body_bytes_max: Option<u64>,
}

/// How much a node stores at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capacity {
    pub(crate) bytes: u64,
    pub(crate) hint_bytes_max: u64,
}

impl Host {
    /// A node alone in a process that is known to have no limits, for tests.
    #[must_use]
    pub fn unlimited() -> Self {
        Self { memory: Memory::default(), nodes: 1, connections_max: 0, body_bytes_max: None }
    }

    /// The most bytes of request bodies in memory at one time, in bytes.
    #[must_use]
    pub fn body_bytes_max(&self) -> u64 {
        let share = self.memory.limit.as_ref().map_or(u64::MAX, |limit| self.share(limit));
        self.body_bytes_max.unwrap_or_else(|| (share / BODIES_PART).min(BODIES_DEFAULT))
    }

    /// The most bytes that may wait for one peer, at most the default.
    pub(crate) fn peer_queue_bytes_max(&self, default: usize) -> usize {
        let Some(limit) = &self.memory.limit else { return default };
        let part = (self.share(limit) / PEER_QUEUE_PART).max(PEER_QUEUE_MIN);
        usize::try_from(part).unwrap_or(default).min(default)
    }

    /// What is used where CAPACITY_BYTES and HINT_BYTES_MAX are not set, and what is set if it fits.
    pub(crate) fn capacity(&self, bytes: Option<u64>, hints: Option<u64>, mistakes: &mut Mistakes) -> Capacity {
        let most = HintLimits::default().bytes_max;
        let Some(limit) = &self.memory.limit else {
            let of_machine = self.memory.machine_bytes.map_or(u64::MAX, |bytes| bytes / 2 / self.nodes);
            let default = of_machine.clamp(CAPACITY_MIN, CAPACITY_DEFAULT);
            return Capacity { bytes: bytes.unwrap_or(default), hint_bytes_max: hints.unwrap_or(most) };
        };
        let share = self.share(limit);
        let hint_bytes_max = hints.unwrap_or_else(|| (share / HINTS_PART).min(most));
        let fits = self.fits(share, hint_bytes_max);
        match bytes {
            Some(bytes) if bytes > fits => {
                let expected = self.expected(limit, (fits, hint_bytes_max));
                mistakes.refuse("CAPACITY_BYTES", bytes, expected);
            }
            _ => {}
        }
        Capacity { bytes: bytes.unwrap_or(fits).max(CAPACITY_MIN), hint_bytes_max }
    }

    /// What one node has of a limit.
    const fn share(&self, limit: &MemoryLimit) -> u64 {
        limit.bytes / self.nodes
    }

    /// The largest store that leaves room for everything else.
    fn fits(&self, share: u64, hint_bytes_max: u64) -> u64 {
        let connections = (self.connections_max * CONNECTION_BYTES).min(share / CONNECTIONS_PART);
        let hints = FULL_HINT_QUEUES.saturating_mul(hint_bytes_max);
        let rest = BASE_BYTES.saturating_add(connections).saturating_add(hints).saturating_add(self.body_bytes_max());
        let for_store = share.saturating_sub(rest);
        for_store - for_store / (OVERHEAD_PART + 1)
    }

    fn expected(&self, limit: &MemoryLimit, (fits, hint_bytes_max): (u64, u64)) -> String {
        let (all, of) = (limit.bytes / MIB, limit.set_by.as_str());
        let shared = if self.nodes > 1 { format!(", shared by {} nodes", self.nodes) } else { String::new() };
        let within = format!("the memory limit of {all}MiB ({of}){shared}");
        let hints = hint_bytes_max / MIB;
        if fits < CAPACITY_MIN {
            return format!(
                "expected a higher limit: {within} has no room for a store beside {hints}MiB for each peer's hints"
            );
        }
        format!("expected at most {}MiB, which fits into {within} with {hints}MiB for each peer's hints", fits / MIB)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(limit_mib: u64) -> Host {
        let limit = MemoryLimit { bytes: limit_mib * MIB, set_by: "memory.max".to_owned() };
        let memory = Memory { limit: Some(limit), machine_bytes: Some(64 << 30) };
        Host { memory, nodes: 1, connections_max: 4096, body_bytes_max: None }
    }

    /// The default, in MiB, within a limit in MiB.
    fn default_of(host: &Host) -> u64 {
        host.capacity(None, None, &mut Mistakes::default()).bytes / MIB
    }

    #[test]
    fn a_store_and_all_else_fit_into_the_limit() {
        assert_eq!([64, 128, 192, 512, 4096].map(|mib| default_of(&host(mib))), [11, 60, 110, 358, 3436]);
        for mib in [64, 128, 192, 512, 4096, 65_536] {
            let Capacity { bytes, hint_bytes_max } = host(mib).capacity(None, None, &mut Mistakes::default());
            let connections = (4096 * CONNECTION_BYTES).min(mib * MIB / CONNECTIONS_PART);
            let beside = BASE_BYTES + FULL_HINT_QUEUES * hint_bytes_max + connections + host(mib).body_bytes_max();
            let sum = bytes + bytes / OVERHEAD_PART + beside;
            assert!((mib * MIB - MIB..=mib * MIB).contains(&sum), "{sum} of {mib} MiB");
        }
    }

    #[test]
    fn what_waits_for_a_peer_is_a_part_of_the_limit() {
        let queue = |host: &Host| host.peer_queue_bytes_max(16 << 20) as u64 / MIB;
        assert_eq!([64, 192, 512, 1024, 4096].map(|mib| queue(&host(mib))), [1, 1, 4, 8, 16]);
        assert_eq!((queue(&Host { nodes: 2, ..host(1024) }), queue(&Host::unlimited())), (4, 16));
    }

    #[test]
    fn nodes_of_one_host_share_what_it_has() {
        assert_eq!(default_of(&Host { nodes: 3, ..host(576) }), default_of(&host(192)));
        let machine = |machine_bytes, nodes| {
            let memory = Memory { limit: None, machine_bytes };
            default_of(&Host { memory, nodes, connections_max: 4096, body_bytes_max: None })
        };
        assert_eq!(machine(Some(64 << 30), 3), 1024);
        assert_eq!(machine(Some(1 << 30), 1), 512, "half of the machine");
        assert_eq!(machine(Some(3 << 30), 3), 512);
        assert_eq!(machine(None, 1), 1024);
        assert_eq!(default_of(&host(16)), 1, "no room at all");
    }

    #[test]
    fn what_does_not_fit_is_refused_with_what_would() {
        let told = |host: &Host, bytes, hints| {
            let mut mistakes = Mistakes::default();
            host.capacity(Some(bytes), hints, &mut mistakes);
            mistakes.to_string()
        };
        let fits = host(192).fits(192 * MIB, 6 * MIB);
        assert_eq!(told(&host(192), fits, None), "0 settings cannot be used:");
        let expected = "expected at most 110MiB, which fits into the memory limit of 192MiB (memory.max) with 6MiB for \
                        each peer's hints";
        assert_eq!(told(&host(192), fits + 1, None), format!("CAPACITY_BYTES={}: {expected}", fits + 1));
        let expected = "CAPACITY_BYTES=1073741824: expected at most 7MiB, which fits into the memory limit of 192MiB \
                        (memory.max) with 60MiB for each peer's hints";
        assert_eq!(told(&host(192), 1 << 30, Some(60 << 20)), expected);
        let expected = "CAPACITY_BYTES=20971520: expected at most 11MiB, which fits into the memory limit of 192MiB \
                        (memory.max), shared by 3 nodes with 2MiB for each peer's hints";
        assert_eq!(told(&Host { nodes: 3, ..host(192) }, 20 << 20, None), expected);
        assert!(told(&host(32), 1 << 20, None).contains("expected a higher limit: the memory limit of 32MiB"));
        assert_eq!(told(&Host::unlimited(), 1 << 40, None), "0 settings cannot be used:");
    }
}
