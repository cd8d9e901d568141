//! Series that exist once per peer. Peers come and go, so their handles are made when a peer is first seen; after that an
//! event costs a look-up under a read lock. The number of peers is bounded, so that peers cannot fill the registry.

use std::{
    collections::{HashMap, HashSet},
    sync::{PoisonError, RwLock},
};

use mesh_proto::{MemberState, NodeId, PeerHints};
use metrics::{Counter, Gauge, Histogram};

use crate::{
    catalogue::{
        HINTS_OLDEST_AGE, HINTS_QUEUED, HINTS_QUEUED_BYTES, MEMBER_STATE, MISSED_WRITES, QUORUM_ACK, SUSPICIONS,
    },
    registry::Registry,
};

/// Beyond so many peers all others share the label `other`.
const PEERS_MAX: usize = 1024;

const STATES: [MemberState; 4] = [MemberState::Alive, MemberState::Suspect, MemberState::Dead, MemberState::Left];

/// The handles of one peer.
#[derive(Clone)]
pub(crate) struct PeerHandles {
    states: [Gauge; STATES.len()],
    pub(crate) suspicions: Counter,
    pub(crate) missed_writes: Counter,
    pub(crate) quorum_ack: Histogram,
    hints_queued: Gauge,
    hints_queued_bytes: Gauge,
    hints_oldest_age: Gauge,
}

impl PeerHandles {
    fn new(registry: &Registry, peer: &str) -> Self {
        let state = |state: MemberState| registry.gauge(&MEMBER_STATE, &[("peer", peer), ("state", state.name())]);
        Self {
            states: STATES.map(state),
            suspicions: registry.counter(&SUSPICIONS, &[("peer", peer)]),
            missed_writes: registry.counter(&MISSED_WRITES, &[("peer", peer)]),
            quorum_ack: registry.histogram(&QUORUM_ACK, &[("peer", peer)]),
            hints_queued: registry.gauge(&HINTS_QUEUED, &[("peer", peer)]),
            hints_queued_bytes: registry.gauge(&HINTS_QUEUED_BYTES, &[("peer", peer)]),
            hints_oldest_age: registry.gauge(&HINTS_OLDEST_AGE, &[("peer", peer)]),
        }
    }

    pub(crate) fn set_hints(&self, hints: &PeerHints) {
        self.hints_queued.set(hints.queued as f64);
        self.hints_queued_bytes.set(hints.queued_bytes as f64);
        self.hints_oldest_age.set(hints.oldest_age.as_secs_f64());
    }

    /// Sets the gauge of `state` to 1 and the others to 0.
    pub(crate) fn set_state(&self, state: MemberState) {
        for (gauge, each) in self.states.iter().zip(STATES) {
            gauge.set(if each == state { 1.0 } else { 0.0 });
        }
    }
}

/// All peers' handles.
pub(crate) struct PeerSeries {
    /// Labels of those that are forgotten: their series are not shown any more.
    forgotten: RwLock<HashSet<String>>,
    // A plain lock: it is written once per peer and read by rare events only.
    peers: RwLock<HashMap<NodeId, PeerHandles>>,
}

impl PeerSeries {
    pub(crate) fn new() -> Self {
        Self { forgotten: RwLock::default(), peers: RwLock::new(HashMap::new()) }
    }

    /// A member is forgotten. Its handles stay, because its series do, in the registry: they count towards the bound.
    pub(crate) fn forget(&self, peer: NodeId) {
        if self.peers.read().unwrap_or_else(PoisonError::into_inner).contains_key(&peer) {
            self.forgotten.write().unwrap_or_else(PoisonError::into_inner).insert(format!("peer=\"{peer}\""));
        }
    }

    /// A member that was forgotten is back.
    pub(crate) fn remember(&self, peer: NodeId) {
        let mut forgotten = self.forgotten.write().unwrap_or_else(PoisonError::into_inner);
        if !forgotten.is_empty() {
            forgotten.remove(&format!("peer=\"{peer}\""));
        }
    }

    /// The exposition without the series of those that are forgotten: the exporter keeps every series for ever.
    pub(crate) fn without_forgotten(&self, text: String) -> String {
        let forgotten = self.forgotten.read().unwrap_or_else(PoisonError::into_inner);
        if forgotten.is_empty() {
            return text;
        }
        let is_shown = |line: &&str| {
            let label = line.find("peer=\"").and_then(|at| Some((at, line[at + 6..].find('"')?)));
            label.is_none_or(|(at, length)| !forgotten.contains(&line[at..=at + 6 + length]))
        };
        text.split_inclusive('\n').filter(is_shown).collect()
    }

    /// Calls `use_handles` with the peer's handles, which are made if this is a new peer.
    pub(crate) fn with(&self, registry: &Registry, peer: NodeId, use_handles: impl FnOnce(&PeerHandles)) {
        // A poisoned lock still guards a whole map: the only write is one insertion.
        if let Some(handles) = self.peers.read().unwrap_or_else(PoisonError::into_inner).get(&peer) {
            return use_handles(handles);
        }
        let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
        if peers.len() < PEERS_MAX {
            use_handles(peers.entry(peer).or_insert_with(|| PeerHandles::new(registry, &peer.to_string())));
        } else {
            use_handles(&PeerHandles::new(registry, "other"));
        }
    }
}
