//! Fetches digests and records from a peer: some slots at a time, page by page, and only the keys that differ where they are few.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use mesh_proto::{
    Applied, ApplyOrigin, Body, ControlReply, ControlRequest, Digest, Found, FrameBody, KeyHash, Mutant, SLOTS, Slot,
    Version, keys_to_pull,
};
use tokio::task::JoinSet;

use crate::{
    core::{Core, count},
    links::{
        bounds::{CONTROL_TIMEOUT, PAGE_BYTES},
        link::Link,
    },
};

/// How many slots are pulled from one peer at the same time.
const PULLS_AT_ONCE: usize = 16;

/// How many records a second are pulled from one peer at most. As fast as it goes would be seven times that on one machine, but
/// then the peer's clients wait behind pages.
const PULLED_PER_SECOND: u64 = 100_000;

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
    let request = ControlRequest::Members(core.roster.members());
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
    pub(crate) refused: bool,
    /// See [`Pull`].
    evicted_until: Version,
}

/// How fast a peer is asked for its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// No faster than is good for the peer's clients.
    Gentle,
    /// As fast as it goes: the peer waits for it.
    Full,
}

/// How a peer's records are pulled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pull {
    pub(crate) pace: Pace,
    /// What this node lacks up to this version it has evicted, and does not take back. Zero takes everything: for slots of which it
    /// may have missed anything.
    pub(crate) evicted_until: Version,
}

impl Pull {
    /// Everything that is missing or older here.
    pub(crate) const fn all(pace: Pace) -> Self {
        Self { pace, evicted_until: Version::ZERO }
    }
}

/// Pulls slots from a peer, which had these digests, some at a time. `done` hears of each slot that came whole.
pub(crate) async fn pull_all(
    core: &Arc<Core>,
    link: &Arc<Link>,
    slots: Vec<(Slot, Digest)>,
    how: Pull,
    mut done: impl FnMut(Slot, Pulled),
) {
    let mut pulls = JoinSet::new();
    let mut waiting = slots.into_iter();
    let (started, mut records) = (core.clock.now(), 0_u64);
    loop {
        while pulls.len() < PULLS_AT_ONCE
            && let Some((slot, theirs)) = waiting.next()
        {
            if core.replica.store.digest(slot) == theirs {
                // Another peer's pull has brought the same meanwhile.
                done(slot, Pulled::default());
                continue;
            }
            let (core, link) = (Arc::clone(core), Arc::clone(link));
            pulls.spawn(async move { (slot, pull(&core, &link, slot, how.evicted_until).await) });
        }
        match pulls.join_next().await {
            Some(Ok((slot, Some(pulled)))) => {
                // Relaxed: a counter.
                core.counters.repaired.fetch_add(pulled.records as u64, Ordering::Relaxed);
                done(slot, pulled);
                records += pulled.records as u64;
                if how.pace == Pace::Gentle {
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
async fn pull(core: &Arc<Core>, link: &Link, slot: Slot, evicted_until: Version) -> Option<Pulled> {
    let mut pulled = Pulled { evicted_until, ..Pulled::default() };
    let Some(keys) = few_keys(core, link, slot, evicted_until).await? else {
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
async fn few_keys(core: &Core, link: &Link, slot: Slot, evicted_until: Version) -> Option<Option<Vec<KeyHash>>> {
    if core.replica.store.digest(slot) == Digest::default() && evicted_until == Version::ZERO {
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
    let wanted = keys_to_pull(&core.replica.store.versions(slot), &theirs, evicted_until);
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
        if Mutant::VersionChangedByMove.is_planted() {
            record.version = core.replica.tick();
        }
        // A version from the future would poison this node's clock; its writer's own owners refuse it likewise.
        if core.replica.observe(record.version, now).is_err() {
            count(&core.counters.drift_refused);
            pulled.refused = true;
            continue;
        }
        let is_evicted = || matches!(core.replica.store.peek(record.hash, &record.key, now), Found::Absent);
        if record.version <= pulled.evicted_until && matches!(record.body, Body::Value(_)) && is_evicted() {
            continue;
        }
        let before = core.replica.store.digest(slot);
        if core.replica.store.apply(&record, ApplyOrigin::Repair, now) == Applied::Stored
            && core.replica.store.digest(slot) != before
        {
            pulled.records += 1;
        }
    }
    Some(page.next)
}
