//! What changes hands with the ring: a node that leaves goes only when the others hold all that it held, and a node that no
//! longer owns a slot forgets its records only when those who own it have them.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use mesh_proto::{
    ControlReply, ControlRequest, Digest, Event, FrameBody, Member, MemberState, Mutant, NodeId, RingHash, Slot,
};
use tokio::task::JoinSet;

use crate::{
    core::Core,
    link::Link,
    peers::Peers,
    resync::{CONTROL_TIMEOUT, Pace, exchange_views, fetch_digests, pull_all},
    worker::Worker,
};

/// How often a leaving node asks whether it may go.
const ASK_INTERVAL: Duration = Duration::from_millis(20);

/// After so many entries of others' slots were dropped, callers get a moment to themselves.
const DROP_ENTRIES: usize = 2000;

const DROP_PACE: Duration = Duration::from_millis(5);

/// Nodes that are told to stop at the same time begin so much apart, and two round trips, in the order of their names.
const STAGGER: Duration = Duration::from_millis(5);

/// Waits until nobody else is about to go and every slot has all its owners in sync. If two owners of a slot left at once, those who
/// follow them could not say "miss" until they had fetched everything; one at a time, there are always enough who can.
pub(crate) async fn turn(core: &Arc<Core>, peers: &Arc<Peers>) {
    if Mutant::LeavesAtOnce.is_planted() {
        return;
    }
    // Whoever begins second sees the first one's good-bye.
    let rank = core.ring().members().iter().take_while(|(id, _)| *id != core.id).count();
    let round_trip = peers.links().iter().map(|link| link.connection.path().rtt).max().unwrap_or_default();
    tokio::time::sleep((STAGGER + round_trip * 2) * u32::try_from(rank).unwrap_or_default()).await;
    while !is_calm(core, peers).await {
        tokio::time::sleep(ASK_INTERVAL).await;
    }
}

async fn is_calm(core: &Arc<Core>, peers: &Arc<Peers>) -> bool {
    let ring = Arc::clone(&core.ring());
    let others: BTreeSet<NodeId> = ring.members().iter().map(|(id, _)| *id).filter(|id| *id != core.id).collect();
    if others.is_empty() || core.is_joining() {
        return true;
    }
    let in_sync = ask_in_sync(peers, others).await;
    let knows = |owner: NodeId, slot| match owner == core.id {
        true => core.sync.is_in_sync(slot),
        false => in_sync.get(&owner).is_some_and(|words| is_set(words, slot)),
    };
    let is_leaving = |member: &Member| member.state == MemberState::Left && peers.link(member.id).is_some();
    Slot::all().all(|slot| ring.owners(slot).iter().all(|owner| knows(*owner, slot)))
        && core.ring_hash() == ring.hash()
        && !core.members.borrow().iter().any(is_leaving)
}

/// Waits until nothing of this node's is missing elsewhere: writes that it coordinates have their answers, its hints are
/// delivered, and every member of the ring has taken over what this node holds of its slots.
pub(crate) async fn drain(core: &Arc<Core>, peers: &Arc<Peers>, workers: &[Worker]) {
    if Mutant::LeavesAtOnce.is_planted() {
        return;
    }
    loop {
        let ring = Arc::clone(&core.ring());
        let others: BTreeSet<NodeId> = ring.members().iter().map(|(id, _)| *id).filter(|id| *id != core.id).collect();
        let hints = core.hints.lock().by_peer(core.clock.now());
        let owes = hints.iter().any(|hints| hints.queued > 0 && others.contains(&hints.peer));
        let busy = workers.iter().flat_map(|worker| worker.peers.links()).any(|link| link.in_flight() > 0);
        if is_seen_off(core, peers, others).await && !owes && !busy && core.ring_hash() == ring.hash() {
            return;
        }
        tokio::time::sleep(ASK_INTERVAL).await;
    }
}

/// Asks all members at once. Those that cannot be reached have not said yes.
async fn is_seen_off(core: &Arc<Core>, peers: &Arc<Peers>, others: BTreeSet<NodeId>) -> bool {
    let mut asked = JoinSet::new();
    for other in others {
        let Some(link) = peers.link(other) else { return false };
        let core = Arc::clone(core);
        asked.spawn(async move {
            let reply = link.control(ControlRequest::Farewell, CONTROL_TIMEOUT).await;
            let done = matches!(reply, Some((FrameBody::ControlReply(ControlReply::Done), _)));
            if !done {
                // It may not have heard yet that this node leaves.
                exchange_views(&core, &link).await;
            }
            done
        });
    }
    asked.join_all().await.into_iter().all(|done| done)
}

/// Whether a member waits to be seen off.
pub(crate) fn is_wanted(core: &Core, peers: &Peers) -> bool {
    !core.farewells(|peer| peers.link(peer).is_some()).is_empty()
}

/// Takes over from all that want to leave.
pub(crate) async fn see_off(core: &Arc<Core>, peers: &Arc<Peers>) {
    for peer in core.farewells(|peer| peers.link(peer).is_some()) {
        let ring = core.ring_hash();
        if let Some(link) = peers.link(peer)
            && take_over(core, &link, ring).await
        {
            core.handle_taken_over(peer, ring);
        }
    }
}

/// Pulls what a leaving member holds of this node's slots, those in sync included: it may be the second of the two owners that
/// have acknowledged a write. Whether all of it came.
async fn take_over(core: &Arc<Core>, link: &Arc<Link>, ring: RingHash) -> bool {
    let (peer, started) = (link.peer.id, core.clock.now());
    let Some(theirs) = fetch_digests(core, link).await else { return false };
    let differing: Vec<(Slot, Digest)> = {
        let (plan, ours) = (core.plan.lock(), core.store.digests());
        let held = Slot::all().zip(theirs).filter(|(slot, theirs)| *theirs != Digest::default() && plan.owns(*slot));
        held.filter(|(slot, theirs)| ours[slot.index()] != *theirs).collect()
    };
    let slots = differing.len();
    let (mut keys, mut whole) = (0, 0);
    pull_all(core, link, differing, Pace::Full, |slot, pulled| {
        keys += pulled.records;
        whole += 1;
        core.plan.lock().handle_confirmed(ring, peer, &slot.into(), &core.sync);
    })
    .await;
    if slots > 0 {
        core.observer.event(&Event::Repair { peer, slots, keys, took: core.clock.now().since(started) });
    }
    whole == slots && core.ring_hash() == ring
}

/// Forgets what is in slots that others own now, once all owners of a slot are in sync for it: then each write that this node
/// has acknowledged for it is with enough of them.
pub(crate) async fn give_up_slots(core: &Arc<Core>, peers: &Arc<Peers>) {
    let ring = Arc::clone(&core.ring());
    if core.is_joining() || !core.sync.is_complete() {
        return;
    }
    let (owned, digests) = (ring.slots_of(core.id), core.store.digests());
    let held = Slot::all().zip(digests).filter(|(_, digest)| *digest != Digest::default()).map(|(slot, _)| slot);
    let foreign: Vec<Slot> = held.filter(|slot| !owned.contains(*slot)).collect();
    if foreign.is_empty() {
        return;
    }
    let owners: BTreeSet<NodeId> = foreign.iter().flat_map(|slot| ring.owners(*slot)).copied().collect();
    let in_sync = ask_in_sync(peers, owners).await;
    let knows = |owner: &NodeId, slot: Slot| {
        Mutant::ForgetsTooEarly.is_planted() || in_sync.get(owner).is_some_and(|words| is_set(words, slot))
    };
    let mut paced = 0;
    for slot in foreign.into_iter().filter(|slot| ring.owners(*slot).iter().all(|owner| knows(owner, *slot))) {
        {
            // Held over both steps: a next ring, which may give the slot back, waits for it before any write comes by it.
            let plan = core.plan.lock();
            if plan.ring() != ring.hash() || plan.owns(slot) {
                return;
            }
            let dropped = core.store.drop_slot(slot);
            paced += dropped;
            // Relaxed: a counter.
            core.counters.given_up.fetch_add(dropped as u64, Ordering::Relaxed);
        }
        if paced >= DROP_ENTRIES {
            paced = 0;
            tokio::time::sleep(DROP_PACE).await;
        }
    }
}

/// The slots that these owners are in sync for, as bits; nothing for those that see another ring or do not answer.
async fn ask_in_sync(peers: &Arc<Peers>, owners: BTreeSet<NodeId>) -> HashMap<NodeId, Vec<u64>> {
    let mut asked = JoinSet::new();
    for link in owners.into_iter().filter_map(|owner| peers.link(owner)) {
        asked.spawn(async move {
            let (reply, _) = link.control(ControlRequest::InSync, CONTROL_TIMEOUT).await?;
            let FrameBody::ControlReply(ControlReply::InSync(words)) = reply else { return None };
            Some((link.peer.id, words))
        });
    }
    asked.join_all().await.into_iter().flatten().collect()
}

/// One slot's bit of what a peer has said.
fn is_set(words: &[u64], slot: Slot) -> bool {
    words.get(slot.index() / 64).is_some_and(|word| word >> (slot.index() % 64) & 1 == 1)
}
