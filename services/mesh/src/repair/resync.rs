//! Anti-entropy: a node that starts, returns or takes over slots compares digests with their other owners and pulls what
//! differs; all others do the same in the background, one peer at a time.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use mesh_proto::{Digest, Event, MemberState, Monotonic, Mutant, NodeId, RingHash, Slot, SlotSet, Version};
use tokio::task::JoinSet;
use tracing::Instrument;

use crate::{
    core::Core,
    links::{link::Link, peers::Peers},
    repair::{
        collect::{begin_comparison, end_comparison},
        handover,
        pull::{Pace, Pull, fetch_digests, pull_all},
        spans,
    },
};

/// How soon a resync that could not finish is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// In a large mesh a node compares more often than once in a repair interval: with all others within this many of them.
const INTERVALS_PER_CIRCLE: u32 = 4;

/// A slot that differs is looked at again after this part of a repair interval.
const LOOKS_AGAIN_PER_INTERVAL: u32 = 4;

/// Owners that evict each for themselves differ in all slots, nearly always for that reason alone. If they differ in more than this,
/// each comparison in the background looks at one slot in so many, and the others have their turn with the next ones.
const EVICTING_SLOTS_MAX: usize = 256;
const EVICTING_TURNS: usize = 8;

/// Runs until the node stops.
pub(crate) async fn run(core: Arc<Core>, peers: Arc<Peers>) {
    let mut out_of_sync_since = Some(core.clock.now());
    let mut background = core.clock.now() + core.config.repair_interval;
    let mut turn = Turn::default();
    loop {
        let urgent = !core.replica.sync.is_complete()
            || core.roster.is_joining()
            || !core.compare_wanted.lock().is_empty()
            || core.roster.to_take_over().iter().any(|(peer, _)| peers.link(*peer).is_some());
        let pause = background.since(core.clock.now());
        tokio::select! {
            biased;
            () = core.stopped.cancelled() => return,
            () = core.resync_wanted.notified() => {}
            () = tokio::time::sleep(if urgent { pause.min(RETRY_AFTER) } else { pause }) => {}
        }
        core.unpaused().await;
        let enters_empty = core.roster.is_joining() && Mutant::EntersEmpty.is_planted();
        if !enters_empty {
            resync(&core, &peers).await;
        }
        let has_caught_up = core.replica.sync.is_complete() || enters_empty;
        let may_enter = core.reach.is_reachable() && core.has_outlived_writes();
        if core.roster.is_joining() && may_enter && has_caught_up {
            core.enter_ring();
            continue;
        }
        if core.replica.sync.is_complete() {
            core.handle_in_sync();
        }
        handover::take_over_from_leavers(&core, &peers).await;
        compare_with_wanted(&core, &peers).await;
        match (core.replica.sync.is_complete(), out_of_sync_since) {
            (true, Some(since)) if !core.roster.is_joining() => {
                core.observer.event(&Event::InSync { after: core.clock.now().since(since) });
                out_of_sync_since = None;
            }
            (false, None) => out_of_sync_since = Some(core.clock.now()),
            _ => {}
        }
        let now = core.clock.now();
        if now >= background {
            background = now + compare_with_next(&core, &peers, &mut turn).await;
            handover::give_up_slots(&core, &peers).await;
        }
    }
}

/// Compares every slot out of sync with the holders that have not confirmed it, all of them at the same time.
async fn resync(core: &Arc<Core>, peers: &Arc<Peers>) {
    if !core.roster.membership.lock().can_catch_up() {
        return;
    }
    let ring = Arc::clone(&core.roster.ring());
    let mut rounds = JoinSet::new();
    for (turn, link) in peers.links().into_iter().enumerate() {
        let mut awaited: Vec<Slot> = core.plan.lock().awaited_from(link.peer.id).iter().collect();
        // From opposite ends: what one peer has brought need not be pulled from the other.
        if turn % 2 == 1 {
            awaited.reverse();
        }
        if !awaited.is_empty() {
            let span = spans::repair(link.peer.id);
            rounds.spawn(resync_from(Arc::clone(core), link, ring.hash(), awaited).instrument(span));
        }
    }
    while rounds.join_next().await.is_some() {}
}

async fn resync_from(core: Arc<Core>, link: Arc<Link>, ring: RingHash, awaited: Vec<Slot>) {
    let (peer, started) = (link.peer.id, core.clock.now());
    let Some(theirs) = fetch_digests(&core, &link).await else { return };
    let ours = core.replica.store.digests();
    let (mut same, mut differing) = (SlotSet::EMPTY, Vec::new());
    for (slot, theirs) in awaited.into_iter().filter_map(|slot| Some((slot, *theirs.get(slot.index())?))) {
        let is_same = || core.replica.store.is_same_but_for_collected(slot, theirs, core.clock.unix());
        if theirs == Digest::default() || ours[slot.index()] == theirs || is_same() {
            same.insert(slot);
        } else {
            differing.push((slot, theirs));
        }
    }
    core.plan.lock().handle_confirmed(ring, peer, &same, &core.replica.sync);
    let slots = differing.len();
    let mut keys = 0;
    pull_all(&core, &link, differing, Pull::all(Pace::Gentle), |slot, pulled| {
        keys += pulled.records;
        core.plan.lock().handle_confirmed(ring, peer, &slot.into(), &core.replica.sync);
    })
    .await;
    if slots > 0 {
        spans::repaired(&core, &Event::Repair { peer, slots, keys, took: core.clock.now().since(started) });
    }
}

/// Whose turn it is to be compared with in the background.
#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    /// Its place among the living, modulo how many they are.
    peer: usize,
    /// Whether it has been looked at once. Under load there is always something new: a third look would never be the last.
    is_second_look: bool,
}

/// One background comparison, with the peer in turn; says when the next one is due. A peer that differs is looked at a
/// second time before the next has its turn, so that all are through within the time that owners may differ.
async fn compare_with_next(core: &Arc<Core>, peers: &Arc<Peers>, turn: &mut Turn) -> Duration {
    let interval = core.config.repair_interval;
    let alive: Vec<NodeId> = {
        let members = core.roster.members.borrow();
        let others = members.iter().filter(|member| member.id != core.id && member.state == MemberState::Alive);
        others.map(|member| member.id).collect()
    };
    if let Some(peer) = turn.peer.checked_rem(alive.len()).map(|at| alive[at])
        && let Some(link) = peers.link(peer)
        && !Mutant::NeverCompared.is_planted()
        && compare(core, &link, Haste::Twice { turn: turn.peer / alive.len() })
            .instrument(spans::repair(peer))
            .await
            .look_again
        && !turn.is_second_look
    {
        turn.is_second_look = true;
        return interval / LOOKS_AGAIN_PER_INTERVAL;
    }
    *turn = Turn { peer: turn.peer.wrapping_add(1), is_second_look: false };
    let others = u32::try_from(alive.len()).unwrap_or(u32::MAX).max(INTERVALS_PER_CIRCLE);
    interval * INTERVALS_PER_CIRCLE / others
}

/// The comparisons that cannot wait for their turn. Those that come to nothing stay wanted.
async fn compare_with_wanted(core: &Arc<Core>, peers: &Arc<Peers>) {
    let wanted = std::mem::take(&mut *core.compare_wanted.lock());
    if wanted.is_empty() {
        return;
    }
    let ring = Arc::clone(&core.roster.ring());
    // Who is gone will be compared with when it returns.
    for peer in wanted.into_iter().filter(|peer| ring.members().iter().any(|(member, _)| member == peer)) {
        let compared = match peers.link(peer) {
            Some(link) => compare(core, &link, Haste::AtOnce).instrument(spans::repair(peer)).await.is_whole,
            None => false,
        };
        if !compared {
            core.compare_wanted.lock().insert(peer);
        }
    }
}

/// When a slot that differs is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Haste {
    /// When it differs in two comparisons: the usual reason is a write in flight. `turn` counts how often all peers have been looked at.
    Twice { turn: usize },
    /// When it differs.
    AtOnce,
}

/// How a comparison went.
#[derive(Clone, Copy, Debug, Default)]
struct Compared {
    /// Whether all that was to be pulled came whole.
    is_whole: bool,
    /// Whether a slot differs for the first time.
    look_again: bool,
}

/// Compares all slots that this node and a peer both own, and pulls what differs.
async fn compare(core: &Arc<Core>, link: &Arc<Link>, haste: Haste) -> Compared {
    let (peer, started) = (link.peer.id, core.clock.now());
    core.evicted.look(&core.replica);
    let how = match haste {
        // The slots are in sync: what this node lacks it has evicted, unless that is newer.
        Haste::Twice { .. } => Pull { evicted_until: core.evicted.until(), ..Pull::all(Pace::Gentle) },
        // There are writes that it has missed.
        Haste::AtOnce => Pull::all(Pace::Gentle),
    };
    let ring = Arc::clone(&core.roster.ring());
    let began = begin_comparison(core, &ring);
    let Some(theirs) = fetch_digests(core, link).await else { return Compared::default() };
    end_comparison(core, &ring, peer, began, &theirs);
    let (differing, look_again) = find_differing(core, peer, &theirs, began, haste);
    if differing.is_empty() {
        return Compared { is_whole: true, look_again };
    }
    let (mut keys, mut whole) = (0, 0);
    let slots = differing.iter().map(|(slot, (_, theirs))| (*slot, *theirs)).collect();
    pull_all(core, link, slots, how, |slot, pulled| {
        keys += pulled.records;
        whole += 1;
        if pulled.records == 0
            && !pulled.refused
            && let Some((ours, theirs)) = differing.get(&slot)
        {
            core.plan.lock().handle_fruitless(peer, slot, *ours, *theirs);
        }
    })
    .await;
    let (slots, took) = (differing.len(), core.clock.now().since(started));
    spans::repaired(core, &Event::Repair { peer, slots, keys, took });
    Compared { is_whole: whole == differing.len(), look_again }
}

/// The slots to pull, with both digests; and whether a slot differs for the first time.
fn find_differing(
    core: &Core,
    peer: NodeId,
    theirs: &[Digest],
    began: Monotonic,
    haste: Haste,
) -> (BTreeMap<Slot, (Digest, Digest)>, bool) {
    let ring = core.roster.ring();
    let (unix, ours) = (core.clock.unix(), core.replica.store.digests());
    let shared = ring.slots_of(core.id).and(ring.slots_of(peer));
    let differs = |slot: &Slot| theirs.get(slot.index()).is_some_and(|theirs| ours[slot.index()] != *theirs);
    let turn = match haste {
        Haste::Twice { turn } if core.evicted.until() != Version::ZERO => {
            (shared.iter().filter(differs).count() > EVICTING_SLOTS_MAX).then_some(turn)
        }
        _ => None,
    };
    let waits = |slot: &Slot| turn.is_some_and(|turn| slot.index() % EVICTING_TURNS != turn % EVICTING_TURNS);
    let (mut differing, mut look_again) = (BTreeMap::new(), false);
    let mut plan = core.plan.lock();
    for slot in shared.iter().filter(|slot| !(differs(slot) && waits(slot))) {
        let ours = ours[slot.index()];
        let Some(mut theirs) = theirs.get(slot.index()).copied() else { continue };
        // Looked at only if it would be pulled otherwise: it takes longer than a digest.
        if ours != theirs
            && (haste == Haste::AtOnce || plan.is_suspected(peer, slot))
            && core.replica.store.is_same_but_for_collected(slot, theirs, unix)
        {
            core.replica.agreement.lock().handle_agreed(ring.hash(), peer, std::iter::once(slot), began);
            theirs = ours;
        }
        let is_due = plan.handle_digests(peer, slot, ours, theirs);
        if is_due || (haste == Haste::AtOnce && ours != theirs) {
            differing.insert(slot, (ours, theirs));
        } else if ours != theirs {
            look_again |= plan.is_suspected(peer, slot);
        }
    }
    (differing, look_again)
}
