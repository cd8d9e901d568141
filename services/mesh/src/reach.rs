//! Who can reach whom. Connections go one way: that a node has found all others does not mean that they have found it. Until
//! they have, it counts for nothing in their writes and quorums, and the next crash would leave them one owner short. So a node
//! asks them before it calls itself ready; and whoever hears from a new process of a peer dials it at once, instead of waiting
//! for a dial to the old one to fail.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use mesh_proto::{ControlReply, ControlRequest, FrameBody, Hello, NodeId};
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

/// How long it goes on asking. Who cannot be reached by somebody for longer is of more use to clients than nobody.
const ASK_MAX: Duration = Duration::from_secs(10);

/// The latest process start that each peer has greeted with.
pub(crate) type Starts = BTreeMap<NodeId, u64>;

/// What a node knows about ways between it and its peers.
pub(crate) struct Reach {
    pub(crate) starts: Arc<Announced<Starts>>,
    /// Each runtime's connections.
    peers: Mutex<Vec<Weak<Peers>>>,
    /// Whether all living members have said that they can send to this node.
    is_reached: AtomicBool,
}

impl Default for Reach {
    fn default() -> Self {
        Self { starts: Announced::new(Starts::new()), peers: Mutex::default(), is_reached: AtomicBool::new(false) }
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

    /// Whether all living members could send to this node, since it was last alone.
    pub(crate) fn is_reached(&self) -> bool {
        // Relaxed, here and below: whoever asks a moment too early is told to wait a moment longer.
        self.is_reached.load(Ordering::Relaxed)
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

/// Asks the others until all can send to this node, and again after it was alone. Runs until the node stops.
pub(crate) async fn run(core: Arc<Core>, peers: Arc<Peers>) {
    let mut asking_since = None;
    loop {
        tokio::select! {
            biased;
            () = core.stopped.cancelled() => return,
            () = tokio::time::sleep(ASK_INTERVAL) => {}
        }
        core.unpaused().await;
        let others: Vec<NodeId> = {
            let members = core.members.borrow();
            // Whom this node suspects is there until it is declared dead.
            let present = members.iter().filter(|member| member.state.is_present() && member.id != core.id);
            present.map(|member| member.id).collect()
        };
        if others.is_empty() {
            core.reach.is_reached.store(core.is_seed(), Ordering::Relaxed);
            asking_since = None;
        } else if !core.reach.is_reached() {
            let since = *asking_since.get_or_insert_with(|| core.clock.now());
            let is_reached = ask(&core, &peers, others).await || core.clock.now().since(since) > ASK_MAX;
            core.reach.is_reached.store(is_reached, Ordering::Relaxed);
        }
    }
}

/// Asks all of them at once. Those that cannot be asked have not said yes.
async fn ask(core: &Arc<Core>, peers: &Peers, others: Vec<NodeId>) -> bool {
    let mut asked = JoinSet::new();
    for other in others {
        let Some(link) = peers.link(other) else { return false };
        asked.spawn(has_reached(link, core.start));
    }
    asked.join_all().await.into_iter().all(|yes| yes)
}

async fn has_reached(link: Arc<Link>, start: u64) -> bool {
    let reply = link.control(ControlRequest::Reached { start }, CONTROL_TIMEOUT).await;
    matches!(reply, Some((FrameBody::ControlReply(ControlReply::Done), _)))
}
