//! Asks the others whether they have a connection to this node, until all that are in the ring have, and again after it was alone.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use mesh_proto::{ControlReply, ControlRequest, FrameBody, Member, NodeId, Stage};
use tokio::task::JoinSet;

use crate::{
    core::Core,
    links::{bounds::CONTROL_TIMEOUT, link::Link, peers::Peers},
};

/// How often a node that starts asks whether the others have a connection to it.
const ASK_INTERVAL: Duration = Duration::from_millis(20);

/// How often it then looks whether it is alone again.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// How long it waits for all of them. A node that one cannot reach for longer is of more use to clients than none.
const ASK_MAX: Duration = Duration::from_secs(10);

/// Runs until the node stops.
pub(crate) async fn run(core: Arc<Core>, peers: Arc<Peers>) {
    let mut asking_since = None;
    loop {
        tokio::select! {
            biased;
            () = core.stopped.cancelled() => return,
            () = tokio::time::sleep(if core.reach.is_reached() { LOOK_INTERVAL } else { ASK_INTERVAL }) => {}
        }
        core.unpaused().await;
        // Whom this node suspects is there until it is declared dead.
        let present =
            core.roster.members().into_iter().filter(|member| member.state.is_present() && member.id != core.id);
        let (joining, others): (Vec<Member>, Vec<Member>) = present.partition(|member| member.stage == Stage::Joining);
        if joining.is_empty() && others.is_empty() {
            core.reach.set_reachable(core.roster.is_seed);
            core.reach.set_reached(core.roster.is_seed, false);
            asking_since = None;
        } else if !core.reach.is_reached() {
            let since = *asking_since.get_or_insert_with(|| core.clock.now());
            let has_waited = core.clock.now().since(since) > ASK_MAX;
            let yes = ask(&core, &peers, others.iter().chain(&joining)).await;
            let is_reached = !others.is_empty() && others.iter().all(|other| yes.contains(&other.id));
            if !yes.is_empty() {
                core.reach.set_reachable(true);
                core.enter_small_ring();
            }
            // One that nobody can reach goes on asking.
            core.reach.set_reached(is_reached || (has_waited && core.reach.is_reachable()), has_waited && !is_reached);
        }
    }
}

/// Asks all of them at once; who has said yes. Those that cannot be asked have not.
async fn ask(core: &Arc<Core>, peers: &Peers, others: impl Iterator<Item = &Member>) -> BTreeSet<NodeId> {
    let mut asked = JoinSet::new();
    for link in others.filter_map(|other| peers.link(other.id)) {
        let start = core.start;
        asked.spawn(async move { has_reached(Arc::clone(&link), start).await.then_some(link.peer.id) });
    }
    asked.join_all().await.into_iter().flatten().collect()
}

async fn has_reached(link: Arc<Link>, start: u64) -> bool {
    let reply = link.control(ControlRequest::Reached { start }, CONTROL_TIMEOUT).await;
    matches!(reply, Some((FrameBody::ControlReply(ControlReply::Done), _)))
}
