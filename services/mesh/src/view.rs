//! What a node says about itself and its mesh, ready to be written as JSON.

use std::{collections::HashMap, sync::atomic::Ordering, time::Duration};

use mesh_proto::{MemberState, NodeId, Stage};
use serde::Serialize;

use crate::{FaultView, core::Core, links::peers::Peers, worker::Worker};

/// The mesh as one node sees it.
#[derive(Clone, Debug, Serialize)]
pub struct ClusterView {
    /// This node's id, 16 hexadecimal digits.
    pub id: String,
    /// This node's configured name.
    pub name: String,
    /// The ring's 64-bit hash, 16 hexadecimal digits.
    pub ring: String,
    /// REPLICATION_FACTOR.
    pub replication_factor: usize,
    /// WRITE_CONCERN.
    pub write_concern: usize,
    /// Progress of the resync.
    pub sync: SyncView,
    /// What this node's wall clock says, in milliseconds since 1970.
    pub unix_ms: u64,
    /// Faults in force at this node.
    pub faults: Vec<FaultView>,
    /// All members ever heard of, this node included, sorted by id.
    pub members: Vec<MemberView>,
}

/// One member.
#[derive(Clone, Debug, Serialize)]
pub struct MemberView {
    /// 16 hexadecimal digits.
    pub id: String,
    /// `host:port` over UDP.
    pub addr: String,
    /// `alive`, `suspect`, `dead` or `left`; `joining` if it is alive but not in the ring yet, `leaving` if it has left the ring
    /// but is still handing over.
    pub state: &'static str,
    /// Its latest incarnation.
    pub incarnation: u64,
    /// Its share, 1 to 16.
    pub weight: u8,
    /// How many of the 4096 slots it owns, as any replica.
    pub slots_owned: usize,
    /// Whether this node has a data connection to it.
    pub connected: bool,
    /// Why this node cannot connect to it, if it is heard and could not be connected to for 10 s.
    pub unreachable: Option<String>,
    /// Smoothed round-trip time over QUIC, in microseconds; nothing for this node itself or without a connection.
    pub rtt_us: Option<u64>,
    /// Requests in flight to it.
    pub in_flight: usize,
    /// Its connections together; nothing for this node itself or without a connection.
    pub path: Option<PathView>,
}

/// The QUIC paths to one member, over all connections that are up. A connection that breaks takes its counts with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PathView {
    /// Congestion windows, in bytes.
    pub cwnd_bytes: u64,
    /// Packets sent.
    pub sent_packets: u64,
    /// Packets lost.
    pub lost_packets: u64,
    /// Times that a window shrank.
    pub congestion_events: u64,
}

/// Progress of the resync.
#[derive(Clone, Debug, Serialize)]
pub struct SyncView {
    /// Slots this node owns.
    pub slots_owned: usize,
    /// Those of them it can say "miss" for.
    pub slots_in_sync: usize,
    /// Records taken from peers since start.
    pub keys_pulled: u64,
}

/// Whether a node should be given traffic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Readiness {
    /// Joined (or alone by configuration) and resynced.
    Ready,
    /// No other member has been reached yet.
    Joining,
    /// No other member can reach this node.
    Unreachable {
        /// Where it says it is.
        addr: String,
    },
    /// Fewer members than writes have to reach.
    TooFew {
        /// Members of the ring, this node included.
        members: usize,
        /// WRITE_CONCERN.
        needed: usize,
    },
    /// Joined, but still refilling.
    Resyncing {
        /// Slots in sync.
        done: usize,
        /// Slots owned.
        owned: usize,
    },
    /// Paused by a fault, or about to stop.
    Stopping,
    /// Turned away by the mesh for good; the reason in words.
    Refused(String),
}

/// The mesh as `core` sees it.
pub(crate) fn cluster(core: &Core, upkeep: &Peers, workers: &[Worker], faults: Vec<FaultView>) -> ClusterView {
    let ring = core.roster.ring();
    let rtt: HashMap<_, Duration> =
        upkeep.links().iter().map(|link| (link.peer.id, link.connection.path().rtt)).collect();
    let paths = paths(upkeep, workers);
    let in_flight = |id| workers.iter().filter_map(|worker| worker.peers.link(id)).map(|link| link.in_flight()).sum();
    let member_view = |member: &mesh_proto::Member| MemberView {
        id: member.id.to_string(),
        addr: member.addr.clone(),
        state: state_name(member),
        incarnation: member.incarnation.get(),
        weight: member.weight.get(),
        slots_owned: ring.slots_owned(member.id),
        connected: member.id == core.id || workers.iter().any(|worker| worker.peers.is_up(member.id)),
        unreachable: member.state.is_present().then(|| upkeep.get(member.id)?.unreachable(core.clock.now())).flatten(),
        rtt_us: rtt.get(&member.id).and_then(|rtt| u64::try_from(rtt.as_micros()).ok()),
        in_flight: in_flight(member.id),
        path: paths.get(&member.id).copied(),
    };
    let (slots_in_sync, slots_owned) = core.plan.lock().progress();
    ClusterView {
        id: core.id.to_string(),
        name: core.config.name.clone(),
        ring: format!("{:016x}", ring.hash().get()),
        replication_factor: core.config.replicas.get(),
        write_concern: core.config.concern.get(),
        sync: SyncView { slots_owned, slots_in_sync, keys_pulled: core.stats().repaired },
        unix_ms: core.clock.unix().get(),
        faults,
        members: core.roster.members().iter().map(member_view).collect(),
    }
}

fn paths(upkeep: &Peers, workers: &[Worker]) -> HashMap<NodeId, PathView> {
    let mut paths = HashMap::<_, PathView>::new();
    for link in workers.iter().flat_map(|worker| worker.peers.links()).chain(upkeep.links()) {
        let (sum, path) = (paths.entry(link.peer.id).or_default(), link.connection.path());
        sum.cwnd_bytes += path.cwnd_bytes;
        sum.sent_packets += path.sent_packets;
        sum.lost_packets += path.lost_packets;
        sum.congestion_events += path.congestion_events;
    }
    paths
}

/// Whether `core` should be given traffic.
pub(crate) fn readiness(core: &Core, workers: &[Worker]) -> Readiness {
    if let Some(reason) = core.refused.borrow().as_ref() {
        return Readiness::Refused(reason.clone());
    }
    if core.stopped.is_cancelled() || *core.paused.borrow() {
        return Readiness::Stopping;
    }
    let alone = core.roster.ring().members().len() < 2;
    // Relaxed: a request a moment too early is answered with the state before.
    if alone && !core.roster.is_seed {
        core.has_joined.store(false, Ordering::Relaxed);
    } else if !workers.is_empty()
        && core.reach.is_reached()
        && (core.reach.has_waited() || workers.iter().all(|worker| worker.peers.all_up()))
    {
        core.has_joined.store(true, Ordering::Relaxed);
    }
    // Only at first does it take a connection to everyone, and from everyone: later a peer that is lost is no reason to turn
    // clients away.
    if !core.has_joined.load(Ordering::Relaxed) {
        let is_unreachable = core.reach.has_waited() && !core.reach.is_reachable();
        let addr = core.config.public_addr.clone();
        return if is_unreachable { Readiness::Unreachable { addr } } else { Readiness::Joining };
    }
    let (members, needed) = (core.roster.ring().members().len(), core.config.concern.get());
    if members < needed {
        return Readiness::TooFew { members, needed };
    }
    if core.replica.sync.is_complete() && !core.roster.is_joining() {
        return Readiness::Ready;
    }
    let (done, owned) = core.plan.lock().progress();
    if owned == 0 && !alone && !core.roster.is_joining() {
        Readiness::Ready
    } else {
        Readiness::Resyncing { done, owned }
    }
}

const fn state_name(member: &mesh_proto::Member) -> &'static str {
    match (member.state, member.stage) {
        (MemberState::Alive, Stage::Joining) => "joining",
        (MemberState::Alive, Stage::Leaving) => "leaving",
        (state, _) => state.name(),
    }
}
