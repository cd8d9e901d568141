//! What changes hands with the ring: a node that leaves goes only when the others hold all that it held, and a node that no
//! longer owns a slot forgets its records only when those who own it have them.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use mesh_proto::{
    ControlReply, ControlRequest, Digest, Event, FrameBody, Member, Mutant, NodeId, RingHash, Slot, Stage,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};
use tracing::Instrument;

use crate::{
    core::Core,
    links::{bounds::CONTROL_TIMEOUT, link::Link, peers::Peers},
    repair::{
        pull::{Pace, Pull, exchange_views, fetch_digests, pull_all},
        spans,
    },
    worker::Worker,
};

/// How often a leaving node asks whether it may go.
const ASK_INTERVAL: Duration = Duration::from_millis(20);

/// After so many entries of others' slots were dropped, callers get a moment to themselves.
const DROP_ENTRIES: usize = 2000;

const DROP_PACE: Duration = Duration::from_millis(5);

/// Nodes that are told to stop at the same time begin so much apart, and two round trips, in the order of their names.
const STAGGER: Duration = Duration::from_millis(5);

/// How long a node that has handed over waits for the rest that it owes: legs under way and hints.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a node that stops tries to tell the others that it has.
const LEFT_TIMEOUT: Duration = Duration::from_millis(100);

/// Leaves the ring, in turn with others that want to, and hands over what this node holds. Whether others hold it all; after
/// [`crate::Config::drain_timeout`] the node is out of the ring in any case.
pub(crate) async fn leave(core: &Arc<Core>, peers: &Arc<Peers>) -> bool {
    let began = Instant::now();
    let patience = core.config.drain_timeout;
    let leaving = async {
        // Who is joining owns nothing.
        while !core.roster.is_joining() && !Mutant::LeavesAtOnce.is_planted() {
            wait_for_turn(core, peers, began + patience / 2).await;
            enter_stage(core, Stage::Leaving);
            if hand_over(core, peers, began + patience / 2).await {
                return;
            }
            enter_stage(core, Stage::Normal);
        }
    };
    let is_handed_over = timeout_at(began + patience, leaving).await.is_ok();
    enter_stage(core, Stage::Leaving);
    is_handed_over
}

/// Waits until writes that this node coordinates have their answers and its hints are delivered, and tells the others that it has
/// left.
pub(crate) async fn say_that_it_has_left(core: &Arc<Core>, peers: &Arc<Peers>, workers: &[Worker]) {
    let settled = async {
        loop {
            let (others, hints) = (others(core), core.hints.lock().by_peer(core.clock.now()));
            let owes = hints.iter().any(|hints| hints.queued > 0 && others.contains(&hints.peer));
            let busy = workers.iter().flat_map(|worker| worker.peers.links()).any(|link| link.in_flight() > 0);
            if !owes && !busy {
                return;
            }
            sleep(ASK_INTERVAL).await;
        }
    };
    if !Mutant::LeavesAtOnce.is_planted() {
        let _ = timeout_at(Instant::now() + SETTLE_TIMEOUT, settled).await;
    }
    core.with_membership(|membership, now| membership.handle_left(now));
    // Datagrams may be lost, and then the others would take this node for dead.
    let told = peers.links().into_iter().map(|link| {
        let core = Arc::clone(core);
        async move { exchange_views(&core, &link).await }
    });
    let _ = timeout_at(Instant::now() + LEFT_TIMEOUT, told.collect::<JoinSet<()>>().join_all()).await;
}

fn enter_stage(core: &Core, stage: Stage) {
    core.with_membership(|membership, now| membership.handle_stage(now, stage));
}

/// The other members of the ring.
fn others(core: &Core) -> BTreeSet<NodeId> {
    core.roster.ring().members().iter().map(|(id, _)| *id).filter(|id| *id != core.id).collect()
}

/// The others that are leaving.
fn leavers(core: &Core) -> Vec<NodeId> {
    let members = core.roster.members.borrow();
    let is_leaving = |member: &&Member| member.stage == Stage::Leaving && member.state.is_present();
    members.iter().filter(is_leaving).map(|member| member.id).filter(|id| *id != core.id).collect()
}

/// How many others a node leaves behind. So many hold what was acknowledged, and one of them may still fail; but a node does not
/// wait for that many for ever.
fn needed(core: &Core, until: Instant) -> usize {
    if Instant::now() < until { core.config.concern.get() } else { 1 }
}

/// Waits until nobody else is about to go, enough others stay, and every slot has all its owners in sync. If two owners of a
/// slot left at once, those who follow them could not say "miss" until they had fetched everything; one at a time, there are
/// always enough who can. From `until` on it goes as soon as there is somebody to hand over to. Who was never in sync itself
/// leaves last: others take what a leaving member holds for all that there is.
async fn wait_for_turn(core: &Arc<Core>, peers: &Arc<Peers>, until: Instant) {
    // The second to begin sees that the first is leaving.
    let rank = core.roster.ring().members().iter().take_while(|(id, _)| *id != core.id).count();
    let round_trip = peers.links().iter().map(|link| link.connection.path().rtt).max().unwrap_or_default();
    sleep((STAGGER + round_trip * 2) * u32::try_from(rank).unwrap_or_default()).await;
    // Where there never was anybody, nobody is waited for.
    while core.roster.members.borrow().len() > 1 && !Mutant::LastLeaves.is_planted() {
        let is_free = leavers(core).is_empty() && core.roster.membership.lock().me().stage == Stage::Normal;
        let is_due = is_free && (Instant::now() >= until || is_in_sync(core, peers).await);
        if others(core).len() >= needed(core, until) && is_due {
            return;
        }
        sleep(ASK_INTERVAL).await;
    }
}

/// Whether every slot has all its owners in sync.
async fn is_in_sync(core: &Arc<Core>, peers: &Arc<Peers>) -> bool {
    let ring = Arc::clone(&core.roster.ring());
    let in_sync = ask_in_sync(peers, others(core)).await;
    let knows = |owner: NodeId, slot| match owner == core.id {
        true => core.replica.sync.is_in_sync(slot),
        false => in_sync.get(&owner).is_some_and(|words| is_set(words, slot)),
    };
    Slot::all().all(|slot| ring.owners(slot).iter().all(|owner| knows(*owner, slot)))
        && core.roster.ring_hash() == ring.hash()
}

/// Waits until every member of the ring has taken over what this node holds of its slots. False if it has to come back to the
/// ring, because it would leave too few behind and it is another one's turn, or nobody is there.
async fn hand_over(core: &Arc<Core>, peers: &Arc<Peers>, until: Instant) -> bool {
    loop {
        let (ring, others) = (Arc::clone(&core.roster.ring()), others(core));
        let is_first = leavers(core).iter().all(|leaver| *leaver > core.id);
        let is_too_few = others.len() < needed(core, until) && core.roster.members.borrow().len() > 1;
        if is_too_few && (others.is_empty() || !is_first) && !Mutant::LastLeaves.is_planted() {
            return false;
        }
        if is_taken_over(core, peers, others).await && core.roster.ring_hash() == ring.hash() {
            return true;
        }
        sleep(ASK_INTERVAL).await;
    }
}

/// Asks all members at once. Those that cannot be reached have not said yes.
async fn is_taken_over(core: &Arc<Core>, peers: &Arc<Peers>, others: BTreeSet<NodeId>) -> bool {
    let mut asked = JoinSet::new();
    let incarnation = core.roster.membership.lock().incarnation();
    for other in others {
        let Some(link) = peers.link(other) else { return false };
        let core = Arc::clone(core);
        asked.spawn(async move {
            let reply = link.control(ControlRequest::HandedOver { incarnation }, CONTROL_TIMEOUT).await;
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

/// Takes over from all that are leaving.
pub(crate) async fn take_over_from_leavers(core: &Arc<Core>, peers: &Arc<Peers>) {
    for (peer, incarnation) in core.roster.to_take_over() {
        let ring = core.roster.ring_hash();
        if let Some(link) = peers.link(peer)
            && take_over(core, &link, ring).instrument(spans::repair(peer)).await
        {
            core.roster.handle_taken_over(peer, incarnation, ring);
            core.handle_in_sync();
        }
    }
}

/// Pulls what a leaving member holds of this node's slots, those in sync included: it may be the second of the two owners that
/// have acknowledged a write. Whether all of it came.
async fn take_over(core: &Arc<Core>, link: &Arc<Link>, ring: RingHash) -> bool {
    let (peer, started) = (link.peer.id, core.clock.now());
    let Some(theirs) = fetch_digests(core, link).await else { return false };
    let differing: Vec<(Slot, Digest)> = {
        let (ring, ours) = (core.roster.ring(), core.replica.store.digests());
        // By the ring and not by what is to be compared: a node that is alone has no plan, and yet owns everything.
        let owns = |slot| match Mutant::AloneTakesNothing.is_planted() {
            true => core.plan.lock().owns(slot),
            false => ring.owns(core.id, slot),
        };
        let held = Slot::all().zip(theirs).filter(|(slot, theirs)| *theirs != Digest::default() && owns(*slot));
        held.filter(|(slot, theirs)| ours[slot.index()] != *theirs).collect()
    };
    let slots = differing.len();
    let (mut keys, mut whole) = (0, 0);
    pull_all(core, link, differing, Pull::all(Pace::Full), |slot, pulled| {
        keys += pulled.records;
        whole += 1;
        core.plan.lock().handle_confirmed(ring, peer, &slot.into(), &core.replica.sync);
    })
    .await;
    if slots > 0 {
        spans::repaired(core, &Event::Repair { peer, slots, keys, took: core.clock.now().since(started) });
    }
    whole == slots && core.roster.ring_hash() == ring
}

/// Forgets what is in slots that others own now, once all owners of a slot are in sync for it: then each write that this node
/// has acknowledged for it is with enough of them.
pub(crate) async fn give_up_slots(core: &Arc<Core>, peers: &Arc<Peers>) {
    let ring = Arc::clone(&core.roster.ring());
    if core.roster.is_joining() || !core.replica.sync.is_complete() {
        return;
    }
    let (owned, digests) = (ring.slots_of(core.id), core.replica.store.digests());
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
            let dropped = core.replica.store.drop_slot(slot);
            paced += dropped;
            // Relaxed: a counter.
            core.counters.given_up.fetch_add(dropped as u64, Ordering::Relaxed);
        }
        if paced >= DROP_ENTRIES {
            paced = 0;
            sleep(DROP_PACE).await;
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
