//! Asks the others whether they have a connection to this node, until all have, and again after it was alone.

use std::{sync::Arc, time::Duration};

use mesh_proto::{ControlReply, ControlRequest, FrameBody, NodeId};
use tokio::task::JoinSet;

use crate::{bounds::CONTROL_TIMEOUT, core::Core, link::Link, peers::Peers};

/// How often a node that starts asks whether the others have a connection to it.
const ASK_INTERVAL: Duration = Duration::from_millis(20);

/// How long it goes on asking. Who cannot be reached by somebody for longer is of more use to clients than nobody.
const ASK_MAX: Duration = Duration::from_secs(10);

/// Runs until the node stops.
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
            core.reach.set_reached(core.is_seed());
            asking_since = None;
        } else if !core.reach.is_reached() {
            let since = *asking_since.get_or_insert_with(|| core.clock.now());
            let is_reached = ask(&core, &peers, others).await || core.clock.now().since(since) > ASK_MAX;
            core.reach.set_reached(is_reached);
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
