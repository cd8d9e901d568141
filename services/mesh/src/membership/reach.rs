//! Who can reach whom. Connections go one way: that a node has found all others does not mean that they have found it. Until
//! they have, it counts for nothing in their writes and quorums, and the next crash would leave them one owner short. So a node
//! asks them before it enters the ring, which takes one that can reach it, and before it calls itself ready, which takes all; and a node that hears from a new process of a peer dials it at once, instead of waiting
//! for a dial to the old one to fail.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use mesh_proto::{Member, Mutant, NodeId};
use parking_lot::Mutex;

use crate::announced::{Announced, Follower};

/// The latest process start that each peer has greeted with.
pub(crate) type Starts = BTreeMap<NodeId, u64>;

/// How often upkeep has lost its connection to each peer.
pub(crate) type Losses = BTreeMap<NodeId, u64>;

/// Which process of each peer one runtime has a connection to.
pub(crate) type Connected = Mutex<BTreeMap<NodeId, u64>>;

/// What a node knows about ways between it and its peers.
pub(crate) struct Reach {
    pub(crate) starts: Arc<Announced<Starts>>,
    pub(crate) losses: Arc<Announced<Losses>>,
    /// Each runtime's connections.
    connected: Mutex<Vec<Weak<Connected>>>,
    /// Whether a member has said that it can send to this node.
    is_reachable: AtomicBool,
    /// Whether all members of the ring have said so.
    is_reached: AtomicBool,
    /// Whether not all have, and this node does not wait for them any more.
    has_waited: AtomicBool,
}

impl Default for Reach {
    fn default() -> Self {
        Self {
            starts: Announced::new(Starts::new()),
            losses: Announced::new(Losses::new()),
            connected: Mutex::default(),
            is_reachable: AtomicBool::new(false),
            is_reached: AtomicBool::new(false),
            has_waited: AtomicBool::new(false),
        }
    }
}

impl Reach {
    /// A runtime's connections, to be kept by it as they come and go.
    pub(crate) fn add_runtime(&self) -> Arc<Connected> {
        let connected = Arc::default();
        self.connected.lock().push(Arc::downgrade(&connected));
        connected
    }

    /// Whether each of this node's runtimes can send to that process of a peer.
    pub(crate) fn can_send(&self, peer: NodeId, start: u64) -> bool {
        let all = self.connected.lock();
        all.iter().filter_map(Weak::upgrade).all(|connected| connected.lock().get(&peer) == Some(&start))
    }

    /// Whether some member could send to this node, since it was last alone.
    pub(crate) fn is_reachable(&self) -> bool {
        // Relaxed, here and below: a request that comes a moment too early waits a moment longer.
        self.is_reachable.load(Ordering::Relaxed) || Mutant::UnreachableCounts.is_planted()
    }

    /// Whether all members of the ring could send to this node, since it was last alone.
    pub(crate) fn is_reached(&self) -> bool {
        self.is_reached.load(Ordering::Relaxed)
    }

    /// Whether some could not for so long that this node goes on without them.
    pub(crate) fn has_waited(&self) -> bool {
        self.has_waited.load(Ordering::Relaxed)
    }

    pub(crate) fn set_reachable(&self, is_reachable: bool) {
        self.is_reachable.store(is_reachable, Ordering::Relaxed);
    }

    pub(crate) fn set_reached(&self, is_reached: bool, has_waited: bool) {
        self.is_reached.store(is_reached, Ordering::Relaxed);
        self.has_waited.store(has_waited, Ordering::Relaxed);
    }

    /// A peer has greeted, or answered a greeting. Those that are no members any more are forgotten here.
    pub(crate) fn handle_greeting(&self, peer: NodeId, start: u64, members: &[Member]) {
        self.starts.send_modify(|starts| {
            if starts.get(&peer) == Some(&start) {
                return false;
            }
            // A peer that greets may not be a member yet.
            starts.retain(|id, _| members.iter().any(|member| member.id == *id));
            starts.insert(peer, start);
            true
        });
    }

    /// Upkeep has lost its connection to a peer. Those that are no members any more are forgotten here.
    pub(crate) fn handle_loss(&self, peer: NodeId, members: &[Member]) {
        self.losses.send_modify(|losses| {
            losses.retain(|id, _| *id == peer || members.iter().any(|member| member.id == *id));
            *losses.entry(peer).or_default() += 1;
            true
        });
    }

    /// How often upkeep has lost its connection to a peer.
    pub(crate) fn losses_of(&self, peer: NodeId) -> u64 {
        self.losses.borrow().get(&peer).copied().unwrap_or_default()
    }

    /// The process of a peer that last greeted; nothing if none did.
    pub(crate) fn start_of(&self, peer: NodeId) -> Option<u64> {
        self.starts.borrow().get(&peer).copied()
    }
}

/// Waits until another process of a peer greets than the one that is known; for ever if none is.
pub(crate) async fn restarted(starts: &mut Follower<Starts>, peer: NodeId, known: Option<u64>) {
    let Some(known) = known else { return std::future::pending().await };
    starts.wait_for(|starts| starts.get(&peer).is_some_and(|start| *start != known)).await;
}

/// Waits until upkeep has lost its connection to a peer more often than is known.
pub(crate) async fn lost(losses: &mut Follower<Losses>, peer: NodeId, known: u64) {
    losses.wait_for(|losses| losses.get(&peer).is_some_and(|losses| *losses > known)).await;
}
