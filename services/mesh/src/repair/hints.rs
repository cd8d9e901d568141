//! Hinted handoff at work: replays what a peer has missed once it can be reached again, and asks for a full comparison where
//! hints had to be given up.

use std::{collections::HashSet, sync::Arc, time::Duration};

use mesh_proto::{
    ControlReply, ControlRequest, Event, FrameBody, HintDrop, MemberState, NodeId, Record, Slot, WriteAnswer,
};
use tokio::{sync::oneshot, task::JoinSet};
use tracing::{Instrument, Span};

use crate::{
    core::Core,
    links::{bounds::CONTROL_TIMEOUT, link::Link, peers::Peers},
    repair::{pull::exchange_views, spans},
};

/// How often it is looked whether a peer with hints can be reached.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// How many hints are under way to one peer at a time.
const BATCH_HINTS_MAX: usize = 64;

/// A batch ends when it holds this many bytes of keys and values.
const BATCH_BYTES: usize = 1 << 20;

/// The pause between two batches, which leaves the peer to its callers: at most 64 000 hints a second.
const PACE: Duration = Duration::from_millis(1);

/// Runs until the node stops.
pub(crate) async fn run(core: Arc<Core>, peers: Arc<Peers>) {
    let mut busy: HashSet<NodeId> = HashSet::new();
    let mut handoffs = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = core.stopped.cancelled() => return,
            Some(done) = handoffs.join_next() => {
                // A handoff does not panic, and is not aborted before the node stops.
                if let Ok(peer) = done {
                    busy.remove(&peer);
                }
                continue;
            }
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
        core.unpaused().await;
        for peer in due(&core) {
            if !busy.contains(&peer)
                && let Some(link) = reachable(&core, &peers, peer)
            {
                busy.insert(peer);
                handoffs.spawn(hand_off(Arc::clone(&core), link).instrument(spans::replay(peer)));
            }
        }
    }
}

/// Peers with something to hand off. Gives up what is too old on the way.
fn due(core: &Core) -> Vec<NodeId> {
    let (given_up, discarded, due) = {
        let members = core.roster.members.borrow();
        let mut hints = core.hints.lock();
        // A member that has left comes back empty, if at all.
        hints.retain_members(|peer| members.iter().any(|m| m.id == peer && m.state != MemberState::Left));
        let given_up = hints.handle_time(core.clock.now());
        let due: Vec<NodeId> = hints.full_syncs_due().into_iter().chain(hints.waiting()).collect();
        (given_up, hints.take_discarded(), due)
    };
    // A whole queue takes a while to free: here, after the lock, and not where writes are made.
    drop(discarded);
    for queue in given_up {
        core.observer.event(&Event::HintsDropped(queue));
    }
    due
}

/// The link to a peer in the ring. A peer that is dead keeps its hints: it may come back as it was. One that comes back empty
/// pulls everything anyway; hints are then superfluous but harmless.
fn reachable(core: &Core, peers: &Peers, peer: NodeId) -> Option<Arc<Link>> {
    let in_ring = core.roster.ring().members().iter().any(|(member, _)| *member == peer);
    if in_ring { peers.link(peer) } else { None }
}

async fn hand_off(core: Arc<Core>, link: Arc<Link>) -> NodeId {
    let peer = link.peer.id;
    let needs_full_sync = core.hints.lock().full_syncs_due().contains(&peer);
    if needs_full_sync {
        full_sync(&core, &link).await;
    }
    let (started, mut taken) = (core.clock.now(), 0);
    while let Some(delivered) = replay_batch(&core, &link).await {
        taken += delivered.hints;
        if !delivered.go_on {
            break;
        }
        tokio::time::sleep(PACE).await;
    }
    if taken > 0 {
        let took = core.clock.now().since(started);
        Span::current().record("hints", taken);
        core.observer.event(&Event::HintsReplayed { peer, hints: taken, took });
    }
    peer
}

/// Both sides compare now, as both may lack something and repair only ever pulls.
async fn full_sync(core: &Arc<Core>, link: &Link) {
    let peer = link.peer.id;
    core.hints.lock().handle_full_sync_started(peer);
    core.compare_now([peer]);
    let reply = link.control(ControlRequest::CompareWithMe, CONTROL_TIMEOUT).await;
    if !matches!(reply, Some((FrameBody::ControlReply(ControlReply::Done), _))) {
        core.hints.lock().handle_full_sync_failed(peer);
    }
}

struct Delivered {
    hints: u64,
    /// Whether the peer has had a verdict on all of them.
    go_on: bool,
}

/// Sends the next hints as ordinary writes and waits for their verdicts; nothing if there are no more.
async fn replay_batch(core: &Arc<Core>, link: &Arc<Link>) -> Option<Delivered> {
    let peer = link.peer.id;
    let batch = next_batch(core, link);
    if batch.is_empty() {
        return None;
    }
    let sent: Vec<(Record, Option<oneshot::Receiver<WriteAnswer>>)> = batch
        .into_iter()
        .map(|record| {
            let reply = link.write(&record);
            (record, reply)
        })
        .collect();
    let mut delivered = Delivered { hints: 0, go_on: true };
    let mut wrong_ring = false;
    for (record, reply) in sent {
        let answer = match reply {
            Some(reply) => reply.await.ok(),
            None => None,
        };
        let (key, version) = (&record.key, record.version);
        let mut hints = core.hints.lock();
        match answer {
            Some(
                WriteAnswer::Applied
                | WriteAnswer::AppliedUnconfirmed
                | WriteAnswer::Stale { .. }
                | WriteAnswer::Collected { .. },
            ) => {
                hints.handle_delivered(peer, key, version);
                delivered.hints += 1;
            }
            Some(WriteAnswer::TooLarge | WriteAnswer::Drift { .. }) => {
                hints.handle_unwanted(peer, key, version, HintDrop::Refused);
            }
            Some(WriteAnswer::WrongRing(_)) | None => {
                wrong_ring |= answer.is_some();
                hints.handle_undelivered(peer, key, version);
                delivered.go_on = false;
            }
        }
    }
    if wrong_ring {
        exchange_views(core, link).await;
    }
    Some(delivered)
}

fn next_batch(core: &Core, link: &Link) -> Vec<Record> {
    let peer = link.peer.id;
    let ring = core.roster.ring();
    let mut hints = core.hints.lock();
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while batch.len() < BATCH_HINTS_MAX
        && bytes < BATCH_BYTES
        && let Some(record) = hints.poll(peer)
    {
        if !ring.owns(peer, Slot::of(record.hash)) {
            // Its new owners have taken the slot from those that have the write.
            hints.handle_unwanted(peer, &record.key, record.version, HintDrop::NotOwner);
        } else if !link.limits.admit(&record) {
            // The peer has been started anew, with lower limits than this node.
            hints.handle_unwanted(peer, &record.key, record.version, HintDrop::Refused);
        } else {
            bytes += record.key.len() + record.value_bytes();
            batch.push(record);
        }
    }
    batch
}
