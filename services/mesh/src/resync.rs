//! Anti-entropy: a node that starts, returns or takes over slots compares digests with their other owners and pulls what
//! differs; all others do the same in the background, one peer at a time.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use mesh_proto::{
    Applied, ApplyOrigin, ControlReply, ControlRequest, Digest, Event, FrameBody, KeyHash, MemberState, Mutant, NodeId,
    RingHash, SLOTS, Slot, SlotSet, keys_to_pull,
};
use tokio::task::JoinSet;

use crate::{core::Core, handover, link::Link, peers::Peers};

/// The most bytes of records in one page.
pub(crate) const PAGE_BYTES_MAX: usize = PAGE_BYTES as usize;

const PAGE_BYTES: u32 = 256 << 10;

/// How many slots are pulled from one peer at the same time.
const PULLS_AT_ONCE: usize = 16;

/// How many records a second are pulled from one peer at most. As fast as it goes would be seven times that on one machine, but
/// then the peer's clients wait behind pages.
const PULLED_PER_SECOND: u64 = 100_000;

/// How long a control request may take.
pub(crate) const CONTROL_TIMEOUT: Duration = Duration::from_secs(2);

/// How soon a resync that could not finish is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// In a large mesh a node compares more often than once in a repair interval: with all others within this many of them.
const INTERVALS_PER_CIRCLE: u32 = 4;

/// A slot that differs is looked at again after this part of a repair interval.
const LOOKS_AGAIN_PER_INTERVAL: u32 = 4;

/// Runs until the node stops.
pub(crate) async fn run(core: Arc<Core>, peers: Arc<Peers>) {
    let mut out_of_sync_since = Some(core.clock.now());
    let mut background = core.clock.now() + core.config.repair_interval;
    let mut turn = Turn::default();
    loop {
        let urgent = !core.sync.is_complete()
            || core.is_joining()
            || !core.compare_wanted.lock().is_empty()
            || core.to_take_over().iter().any(|(peer, _)| peers.link(*peer).is_some());
        let pause = background.since(core.clock.now());
        tokio::select! {
            biased;
            () = core.stopped.cancelled() => return,
            () = core.resync_wanted.notified() => {}
            () = tokio::time::sleep(if urgent { pause.min(RETRY_AFTER) } else { pause }) => {}
        }
        core.unpaused().await;
        resync(&core, &peers).await;
        if core.is_joining()
            && core.reach.is_reachable()
            && (core.sync.is_complete() || Mutant::EntersEmpty.is_planted())
        {
            core.enter_ring();
            continue;
        }
        if core.sync.is_complete() {
            core.handle_in_sync();
        }
        handover::take_over_from_leavers(&core, &peers).await;
        compare_with_wanted(&core, &peers).await;
        match (core.sync.is_complete(), out_of_sync_since) {
            (true, Some(since)) if !core.is_joining() => {
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
    if !core.membership.lock().can_catch_up() {
        return;
    }
    let ring = Arc::clone(&core.ring());
    let mut rounds = JoinSet::new();
    for (turn, link) in peers.links().into_iter().enumerate() {
        let mut awaited: Vec<Slot> = core.plan.lock().awaited_from(link.peer.id).iter().collect();
        // From opposite ends: what one peer has brought need not be pulled from the other.
        if turn % 2 == 1 {
            awaited.reverse();
        }
        if !awaited.is_empty() {
            rounds.spawn(resync_from(Arc::clone(core), link, ring.hash(), awaited));
        }
    }
    while rounds.join_next().await.is_some() {}
}

async fn resync_from(core: Arc<Core>, link: Arc<Link>, ring: RingHash, awaited: Vec<Slot>) {
    let (peer, started) = (link.peer.id, core.clock.now());
    let Some(theirs) = fetch_digests(&core, &link).await else { return };
    let ours = core.store.digests();
    let (mut same, mut differing) = (SlotSet::EMPTY, Vec::new());
    for (slot, theirs) in awaited.into_iter().filter_map(|slot| Some((slot, *theirs.get(slot.index())?))) {
        let is_same = || core.store.is_same_but_for_collected(slot, theirs, core.clock.unix());
        if theirs == Digest::default() || ours[slot.index()] == theirs || is_same() {
            same.insert(slot);
        } else {
            differing.push((slot, theirs));
        }
    }
    core.plan.lock().handle_confirmed(ring, peer, &same, &core.sync);
    let slots = differing.len();
    let mut keys = 0;
    pull_all(&core, &link, differing, Pace::Gentle, |slot, pulled| {
        keys += pulled.records;
        core.plan.lock().handle_confirmed(ring, peer, &slot.into(), &core.sync);
    })
    .await;
    if slots > 0 {
        let took = core.clock.now().since(started);
        core.observer.event(&Event::Repair { peer, slots, keys, took });
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
        let members = core.members.borrow();
        let others = members.iter().filter(|member| member.id != core.id && member.state == MemberState::Alive);
        others.map(|member| member.id).collect()
    };
    if let Some(peer) = turn.peer.checked_rem(alive.len()).map(|at| alive[at])
        && let Some(link) = peers.link(peer)
        && !Mutant::NeverCompared.is_planted()
        && compare(core, &link, Haste::Twice).await.look_again
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
    let ring = Arc::clone(&core.ring());
    // Who is gone will be compared with when it returns.
    for peer in wanted.into_iter().filter(|peer| ring.members().iter().any(|(member, _)| member == peer)) {
        let compared = match peers.link(peer) {
            Some(link) => compare(core, &link, Haste::AtOnce).await.is_whole,
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
    /// When it differs in two comparisons: the usual reason is a write in flight.
    Twice,
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
    let ring = Arc::clone(&core.ring());
    let began = core.begin_comparison(&ring);
    let Some(theirs) = fetch_digests(core, link).await else { return Compared::default() };
    core.end_comparison(&ring, peer, began, &theirs);
    let mut differing = BTreeMap::new();
    let mut look_again = false;
    {
        let ring = core.ring();
        let (unix, ours) = (core.clock.unix(), core.store.digests());
        let mut plan = core.plan.lock();
        for slot in ring.slots_of(core.id).and(ring.slots_of(peer)).iter() {
            let ours = ours[slot.index()];
            let Some(mut theirs) = theirs.get(slot.index()).copied() else { continue };
            // Looked at only if it would be pulled otherwise: it takes longer than a digest.
            if ours != theirs
                && (haste == Haste::AtOnce || plan.is_suspected(peer, slot))
                && core.store.is_same_but_for_collected(slot, theirs, unix)
            {
                core.agreement.lock().handle_agreed(ring.hash(), peer, std::iter::once(slot), began);
                theirs = ours;
            }
            let is_due = plan.handle_digests(peer, slot, ours, theirs);
            if is_due || (haste == Haste::AtOnce && ours != theirs) {
                differing.insert(slot, (ours, theirs));
            } else if ours != theirs {
                look_again |= plan.is_suspected(peer, slot);
            }
        }
    }
    if differing.is_empty() {
        return Compared { is_whole: true, look_again };
    }
    let (mut keys, mut whole) = (0, 0);
    let slots = differing.iter().map(|(slot, (_, theirs))| (*slot, *theirs)).collect();
    pull_all(core, link, slots, Pace::Gentle, |slot, pulled| {
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
    let took = core.clock.now().since(started);
    core.observer.event(&Event::Repair { peer, slots: differing.len(), keys, took });
    Compared { is_whole: whole == differing.len(), look_again }
}

/// All of a peer's digests; nothing if it does not answer or sees another ring, in which case the views are exchanged.
pub(crate) async fn fetch_digests(core: &Arc<Core>, link: &Link) -> Option<Vec<Digest>> {
    let first = Slot::all().next()?;
    let count = u16::try_from(SLOTS).unwrap_or(u16::MAX);
    let (reply, _) = link.control(ControlRequest::Digests { first, count }, CONTROL_TIMEOUT).await?;
    match reply {
        FrameBody::ControlReply(ControlReply::Digests(page)) => Some(page.digests),
        FrameBody::ControlReply(ControlReply::Refused) => {
            exchange_views(core, link).await;
            None
        }
        _ => None,
    }
}

pub(crate) async fn exchange_views(core: &Arc<Core>, link: &Link) {
    let request = ControlRequest::Members(core.members());
    if let Some((FrameBody::ControlReply(ControlReply::Members(members)), _)) =
        link.control(request, CONTROL_TIMEOUT).await
    {
        core.handle_members(&members);
    }
}

/// What one slot's pull has brought.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pulled {
    /// How many records were new.
    pub(crate) records: usize,
    /// Whether some could not be taken yet, because this node's clock is behind.
    refused: bool,
}

/// How fast a peer is asked for its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// No faster than is good for the peer's clients.
    Gentle,
    /// As fast as it goes: the peer waits for it.
    Full,
}

/// Pulls slots from a peer, which had these digests, some at a time. `done` hears of each slot that came whole.
pub(crate) async fn pull_all(
    core: &Arc<Core>,
    link: &Arc<Link>,
    slots: Vec<(Slot, Digest)>,
    pace: Pace,
    mut done: impl FnMut(Slot, Pulled),
) {
    let mut pulls = JoinSet::new();
    let mut waiting = slots.into_iter();
    let (started, mut records) = (core.clock.now(), 0_u64);
    loop {
        while pulls.len() < PULLS_AT_ONCE
            && let Some((slot, theirs)) = waiting.next()
        {
            if core.store.digest(slot) == theirs {
                // Another peer's pull has brought the same meanwhile.
                done(slot, Pulled::default());
                continue;
            }
            let (core, link) = (Arc::clone(core), Arc::clone(link));
            pulls.spawn(async move { (slot, pull(&core, &link, slot).await) });
        }
        match pulls.join_next().await {
            Some(Ok((slot, Some(pulled)))) => {
                // Relaxed: a counter.
                core.counters.repaired.fetch_add(pulled.records as u64, Ordering::Relaxed);
                done(slot, pulled);
                records += pulled.records as u64;
                if pace == Pace::Gentle {
                    let due = Duration::from_micros(records.saturating_mul(1_000_000) / PULLED_PER_SECOND);
                    let early = due.saturating_sub(core.clock.now().since(started));
                    // A timer that is due at once still lasts until the next millisecond, and there are thousands of slots.
                    if !early.is_zero() {
                        tokio::time::sleep(early).await;
                    }
                }
            }
            // This slot did not come whole: it stays out of sync, and the next round tries again.
            Some(_) => {}
            None => return,
        }
    }
}

/// Pulls one slot, or only those of its keys that are missing or older here if they are few; nothing if it did not come whole.
async fn pull(core: &Arc<Core>, link: &Link, slot: Slot) -> Option<Pulled> {
    let mut pulled = Pulled::default();
    let Some(keys) = few_keys(core, link, slot).await? else {
        let mut after = None;
        loop {
            after = fetch(core, link, slot, ControlRequest::Pull { slot, after, bytes_max: PAGE_BYTES }, &mut pulled)
                .await?;
            if after.is_none() {
                return Some(pulled);
            }
        }
    };
    let mut rest = &keys[..];
    while !rest.is_empty() {
        let named = &rest[..rest.len().min(ControlRequest::PULL_KEYS_MAX)];
        let request = ControlRequest::PullKeys { slot, hashes: named.to_vec(), bytes_max: PAGE_BYTES };
        let next = fetch(core, link, slot, request, &mut pulled).await?;
        let looked_at = next.map_or(named.len(), |next| named.partition_point(|hash| *hash <= next));
        // A page that gets nowhere is none that an honest peer sends.
        rest = rest.get(looked_at.max(1)..)?;
    }
    Some(pulled)
}

/// The keys to pull if it is worth naming them, `Some(None)` if the whole slot is to be pulled; nothing if the peer does not
/// answer. One stale key in a slot of large values then does not move the slot.
async fn few_keys(core: &Core, link: &Link, slot: Slot) -> Option<Option<Vec<KeyHash>>> {
    if core.store.digest(slot) == Digest::default() {
        return Some(None);
    }
    let (reply, _) = link.control(ControlRequest::Versions { slots: vec![slot] }, CONTROL_TIMEOUT).await?;
    let FrameBody::ControlReply(reply) = reply else { return None };
    let theirs = match reply {
        ControlReply::Versions(mut listed) => listed.pop().filter(|(listed, _)| *listed == slot)?.1,
        // Too many to list, or another ring, which the pull will find out.
        ControlReply::Refused => return Some(None),
        _ => return None,
    };
    let wanted = keys_to_pull(&core.store.versions(slot), &theirs);
    Some((wanted.len() * 2 <= theirs.len()).then_some(wanted))
}

/// Fetches one page and offers its records to the store; where to go on.
async fn fetch(
    core: &Core,
    link: &Link,
    slot: Slot,
    request: ControlRequest,
    pulled: &mut Pulled,
) -> Option<Option<KeyHash>> {
    let (reply, _) = link.control(request, CONTROL_TIMEOUT).await?;
    let FrameBody::Page(page) = reply else { return None };
    let now = core.clock.unix();
    for mut record in page.records {
        if Mutant::RestampedMove.is_planted() {
            record.version = core.tick();
        }
        // A version from the future would poison this node's clock; its writer's own owners refuse it likewise.
        if core.versions.load().observe(record.version, now).is_err() {
            crate::core::count(&core.counters.drift_refused);
            pulled.refused = true;
            continue;
        }
        let before = core.store.digest(slot);
        if core.store.apply(&record, ApplyOrigin::Repair, now) == Applied::Stored && core.store.digest(slot) != before {
            pulled.records += 1;
        }
    }
    Some(page.next)
}
