//! Anti-entropy: a node that starts, returns or takes over slots compares digests with their other owners and pulls what
//! differs; all others do the same in the background, one peer at a time.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use mesh_proto::{
    Applied, ApplyOrigin, ControlReply, ControlRequest, Digest, Event, FrameBody, KeyHash, MemberState, NodeId, SLOTS,
    Slot,
};
use tokio::task::JoinSet;

use crate::{core::Core, link::Link, peers::Peers, upkeep::report_in_sync};

/// The most bytes of records in one page.
pub(crate) const PAGE_BYTES_MAX: usize = 256 << 10;

/// How many slots are pulled from one peer at the same time.
const PULLS_AT_ONCE: usize = 16;

/// How long a control request may take.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(2);

/// How soon a resync that could not finish is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// Runs until the node stops.
pub(crate) async fn run(core: Arc<Core>, peers: Arc<Peers>) {
    let mut out_of_sync_since = Some(core.clock.now());
    let mut background = core.clock.now();
    let mut turn = 0_usize;
    loop {
        let urgent = !core.sync.is_complete();
        let pause = if urgent { RETRY_AFTER } else { core.config.repair_interval };
        tokio::select! {
            () = core.stopped.cancelled() => return,
            () = core.resync_wanted.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
        core.unpaused().await;
        resync(&core, &peers).await;
        match (core.sync.is_complete(), out_of_sync_since) {
            (true, Some(since)) => {
                report_in_sync(&core, since);
                out_of_sync_since = None;
            }
            (false, None) => out_of_sync_since = Some(core.clock.now()),
            _ => {}
        }
        let now = core.clock.now();
        if now.since(background) >= core.config.repair_interval {
            background = now;
            turn = turn.wrapping_add(1);
            compare_with_next(&core, &peers, turn).await;
        }
    }
}

/// Compares every slot out of sync with the owners that have not confirmed it, all of them at the same time.
async fn resync(core: &Arc<Core>, peers: &Arc<Peers>) {
    let mut rounds = JoinSet::new();
    for link in peers.links() {
        let awaited = core.plan.lock().awaited_from(link.peer.id);
        if !awaited.is_empty() {
            rounds.spawn(resync_from(Arc::clone(core), link, awaited));
        }
    }
    while rounds.join_next().await.is_some() {}
}

async fn resync_from(core: Arc<Core>, link: Arc<Link>, awaited: Vec<Slot>) {
    let (peer, started) = (link.peer.id, core.clock.now());
    let Some(theirs) = fetch_digests(&core, &link).await else { return };
    let differing: Vec<Slot> = awaited
        .into_iter()
        .filter(|slot| {
            let same = theirs.get(slot.index()) == Some(&core.store.digest(*slot));
            if same {
                core.plan.lock().handle_confirmed(peer, *slot, &core.sync);
            }
            !same
        })
        .collect();
    let slots = differing.len();
    let mut keys = 0;
    pull_all(&core, &link, differing, |slot, pulled| {
        keys += pulled;
        core.plan.lock().handle_confirmed(peer, slot, &core.sync);
    })
    .await;
    if slots > 0 {
        let took = core.clock.now().since(started);
        core.observer.event(&Event::Repair { peer, slots, keys, took });
    }
}

/// One background comparison, with the next peer in turn.
async fn compare_with_next(core: &Arc<Core>, peers: &Arc<Peers>, turn: usize) {
    let alive: Vec<NodeId> = {
        let members = core.members.borrow();
        let others = members.iter().filter(|member| member.id != core.id && member.state == MemberState::Alive);
        others.map(|member| member.id).collect()
    };
    let Some(link) = (!alive.is_empty()).then(|| alive[turn % alive.len()]).and_then(|peer| peers.link(peer)) else {
        return;
    };
    let (peer, started) = (link.peer.id, core.clock.now());
    let Some(theirs) = fetch_digests(core, &link).await else { return };
    let mut differing = HashMap::new();
    {
        let ring = core.ring();
        let mut plan = core.plan.lock();
        for slot in Slot::all().filter(|slot| ring.owns(core.id, *slot) && ring.owns(peer, *slot)) {
            let ours = core.store.digest(slot);
            let Some(theirs) = theirs.get(slot.index()) else { continue };
            if plan.handle_digests(peer, slot, ours, *theirs) {
                differing.insert(slot, (ours, *theirs));
            }
        }
    }
    if differing.is_empty() {
        return;
    }
    let mut keys = 0;
    pull_all(core, &link, differing.keys().copied().collect(), |slot, pulled| {
        keys += pulled;
        if pulled == 0
            && let Some((ours, theirs)) = differing.get(&slot)
        {
            core.plan.lock().handle_fruitless(peer, slot, *ours, *theirs);
        }
    })
    .await;
    let took = core.clock.now().since(started);
    core.observer.event(&Event::Repair { peer, slots: differing.len(), keys, took });
}

/// All of a peer's digests; nothing if it does not answer or sees another ring, in which case the views are exchanged.
async fn fetch_digests(core: &Arc<Core>, link: &Link) -> Option<Vec<Digest>> {
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

async fn exchange_views(core: &Arc<Core>, link: &Link) {
    let request = ControlRequest::Members(core.members());
    if let Some((FrameBody::ControlReply(ControlReply::Members(members)), _)) =
        link.control(request, CONTROL_TIMEOUT).await
    {
        core.handle_members(&members);
    }
}

/// Pulls slots from a peer, some at a time. `done` hears of each slot that came whole, and how many records were new.
async fn pull_all(core: &Arc<Core>, link: &Arc<Link>, slots: Vec<Slot>, mut done: impl FnMut(Slot, usize)) {
    let mut pulls = JoinSet::new();
    let mut waiting = slots.into_iter();
    loop {
        while pulls.len() < PULLS_AT_ONCE
            && let Some(slot) = waiting.next()
        {
            let (core, link) = (Arc::clone(core), Arc::clone(link));
            pulls.spawn(async move { (slot, pull(&core, &link, slot).await) });
        }
        match pulls.join_next().await {
            Some(Ok((slot, Some(pulled)))) => done(slot, pulled),
            // This slot did not come whole: it stays out of sync, and the next round tries again.
            Some(_) => {}
            None => return,
        }
    }
}

/// Pulls one slot page by page; how many records were new, or nothing if it did not come whole.
async fn pull(core: &Arc<Core>, link: &Link, slot: Slot) -> Option<usize> {
    let mut after: Option<KeyHash> = None;
    let mut pulled = 0;
    loop {
        let request = ControlRequest::Pull { slot, after, bytes_max: u32::try_from(PAGE_BYTES_MAX).ok()? };
        let (reply, _) = link.control(request, CONTROL_TIMEOUT).await?;
        let FrameBody::Page(page) = reply else { return None };
        let now = core.clock.unix();
        for record in &page.records {
            // A version from the future would poison this node's clock; its writer's own owners refuse it likewise.
            if core.versions.observe(record.version, now).is_err() {
                crate::core::count(&core.counters.drift_refused);
                continue;
            }
            let before = core.store.digest(slot);
            if core.store.apply(record, ApplyOrigin::Repair, now) == Applied::Stored
                && core.store.digest(slot) != before
            {
                pulled += 1;
            }
        }
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    // Relaxed: a counter.
    core.counters.repaired.fetch_add(pulled as u64, Ordering::Relaxed);
    Some(pulled)
}
