//! Who can reach whom. Connections go one way: that a node has found all others does not mean that they have found it. Until
//! they have, it counts for nothing in their writes and quorums, and the next crash would leave them one owner short. So a node
//! asks them before it enters the ring, which takes one that can reach it, and before it calls itself ready, which takes all; and whoever hears from a new process of a peer dials it at once, instead of waiting
//! for a dial to the old one to fail.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use mesh_proto::{ControlReply, ControlRequest, FrameBody, Hello, Member, Mutant, NodeId, Stage};
use parking_lot::Mutex;
use tokio::task::JoinSet;

use crate::{
    announced::{Announced, Follower},
    core::Core,
    link::Link,
    peers::Peers,
    resync::CONTROL_TIMEOUT,
};

/// How often a node that starts asks whether the others have a connection to it.
const ASK_INTERVAL: Duration = Duration::from_millis(20);

/// How long it waits for all of them. A node that one cannot reach for longer is of more use to clients than none.
const ASK_MAX: Duration = Duration::from_secs(10);

/// The latest process start that each peer has greeted with.
pub(crate) type Starts = BTreeMap<NodeId, u64>;

/// What a node knows about ways between it and its peers.
pub(crate) struct Reach {
    pub(crate) starts: Arc<Announced<Starts>>,
    /// Each runtime's connections.
    peers: Mutex<Vec<Weak<Peers>>>,
    /// Whether a member has said that it can send to this node.
    is_reachable: AtomicBool,
    /// Whether all living members have said so.
    is_reached: AtomicBool,
    /// Whether not all have, and this node does not wait for them any more.
    has_waited: AtomicBool,
}

impl Default for Reach {
    fn default() -> Self {
        Self {
            starts: Announced::new(Starts::new()),
            peers: Mutex::default(),
            is_reachable: AtomicBool::new(false),
            is_reached: AtomicBool::new(false),
            has_waited: AtomicBool::new(false),
        }
    }
}

impl Reach {
    pub(crate) fn add(&self, peers: &Arc<Peers>) {
        self.peers.lock().push(Arc::downgrade(peers));
    }

    /// Whether each of this node's threads can send to that process of a peer.
    pub(crate) fn can_send(&self, peer: NodeId, start: u64) -> bool {
        let all = self.peers.lock();
        all.iter().filter_map(Weak::upgrade).all(|peers| peers.link(peer).is_some_and(|link| link.start == start))
    }

    /// Whether some member could send to this node, since it was last alone.
    pub(crate) fn is_reachable(&self) -> bool {
        // Relaxed, here and below: whoever asks a moment too early is told to wait a moment longer.
        self.is_reachable.load(Ordering::Relaxed) || Mutant::UnreachableCounts.is_planted()
    }

    /// Whether all living members could send to this node, since it was last alone.
    pub(crate) fn is_reached(&self) -> bool {
        self.is_reached.load(Ordering::Relaxed)
    }

    /// Whether some could not for so long that this node goes on without them.
    pub(crate) fn has_waited(&self) -> bool {
        self.has_waited.load(Ordering::Relaxed)
    }
}

impl Core {
    /// A peer has greeted, or answered a greeting.
    pub(crate) fn handle_greeting(&self, peer: NodeId, hello: &Hello) {
        let start = hello.start;
        *self.duplicate_since.lock() = None;
        if !hello.limits.cover(self.config.record_limits()) {
            self.has_smaller_peer.store(true, Ordering::Relaxed);
        }
        let members = Arc::clone(&self.members.borrow());
        self.reach.starts.send_modify(|starts| {
            if starts.get(&peer) == Some(&start) {
                return false;
            }
            // Who greets may not be a member yet; whoever is none any more is forgotten here.
            starts.retain(|id, _| members.iter().any(|member| member.id == *id));
            starts.insert(peer, start);
            true
        });
    }

    /// The process of a peer that last greeted; nothing if none did.
    pub(crate) fn start_of(&self, peer: NodeId) -> Option<u64> {
        self.reach.starts.borrow().get(&peer).copied()
    }
}

/// Waits until another process of a peer greets than the one that is known; for ever if none is.
pub(crate) async fn restarted(starts: &mut Follower<Starts>, peer: NodeId, known: Option<u64>) {
    let Some(known) = known else { return std::future::pending().await };
    starts.wait_for(|starts| starts.get(&peer).is_some_and(|start| *start != known)).await;
}

/// Asks the others until all that are in the ring can send to this node, and again after it was alone. Runs until the node stops.
pub(crate) async fn run(core: Arc<Core>, peers: Arc<Peers>) {
    let mut asking_since = None;
    loop {
        tokio::select! {
            biased;
            () = core.stopped.cancelled() => return,
            () = tokio::time::sleep(ASK_INTERVAL) => {}
        }
        core.unpaused().await;
        // Whom this node suspects is there until it is declared dead.
        let (joining, others): (Vec<NodeId>, Vec<NodeId>) = {
            let members = core.members();
            let present = members.into_iter().filter(|member| member.state.is_present() && member.id != core.id);
            let (joining, others): (Vec<_>, Vec<_>) = present.partition(|member| member.stage == Stage::Joining);
            let ids = |members: Vec<Member>| members.into_iter().map(|member| member.id).collect();
            (ids(joining), ids(others))
        };
        if joining.is_empty() && others.is_empty() {
            core.reach.is_reached.store(core.is_seed(), Ordering::Relaxed);
            core.reach.is_reachable.store(core.is_seed(), Ordering::Relaxed);
            core.reach.has_waited.store(false, Ordering::Relaxed);
            asking_since = None;
        } else if !core.reach.is_reached() {
            let since = *asking_since.get_or_insert_with(|| core.clock.now());
            let has_waited = core.clock.now().since(since) > ASK_MAX;
            let yes = ask(&core, &peers, others.iter().chain(&joining)).await;
            let is_reached = !others.is_empty() && others.iter().all(|other| yes.contains(other));
            if !yes.is_empty() {
                core.reach.is_reachable.store(true, Ordering::Relaxed);
                core.enter_small_ring();
            }
            // One that nobody can reach goes on asking.
            core.reach.is_reached.store(is_reached || (has_waited && core.reach.is_reachable()), Ordering::Relaxed);
            core.reach.has_waited.store(has_waited && !is_reached, Ordering::Relaxed);
        }
    }
}

/// Asks all of them at once; who has said yes. Those that cannot be asked have not.
async fn ask(core: &Arc<Core>, peers: &Peers, others: impl Iterator<Item = &NodeId>) -> BTreeSet<NodeId> {
    let mut asked = JoinSet::new();
    for link in others.filter_map(|other| peers.link(*other)) {
        let start = core.start;
        asked.spawn(async move { has_reached(Arc::clone(&link), start).await.then_some(link.peer.id) });
    }
    asked.join_all().await.into_iter().flatten().collect()
}

async fn has_reached(link: Arc<Link>, start: u64) -> bool {
    let reply = link.control(ControlRequest::Reached { start }, CONTROL_TIMEOUT).await;
    matches!(reply, Some((FrameBody::ControlReply(ControlReply::Done), _)))
}
