//! Collects tombstones and stubs that nobody needs any more, a few slots at a time. Which these are `mesh_proto::Agreement`
//! says, from the comparisons that repair makes anyway.

use std::time::Duration;

use mesh_proto::{Agreement, Digest, MemberState, Monotonic, NodeId, Ring, SLOTS, Slot, UnixMillis};

use crate::core::Core;

/// A slot's turn comes this often in the time that tombstones are kept at least.
const TURNS_PER_AGE: u32 = 32;

/// All nodes collect up to the same moments, of which there are so many in the time that tombstones are kept at least. So
/// what one has collected and another has not is rare, and easy to recognise.
const STEPS_PER_AGE: u32 = 16;

/// The slots whose turn it is, of those that come round every [`TURNS_PER_AGE`]: the same at all nodes, by the wall clock.
fn slots_in_turn(margin: Duration, interval: Duration, unix: UnixMillis) -> impl Iterator<Item = Slot> {
    let turns = (margin / TURNS_PER_AGE).as_millis().div_ceil(interval.as_millis().max(1)).clamp(1, SLOTS as u128);
    let turns = usize::try_from(turns).unwrap_or(SLOTS);
    let turn = u128::from(unix.get()) / interval.as_millis().max(1) % turns as u128;
    let turn = usize::try_from(turn).unwrap_or(0);
    (turn..SLOTS).step_by(turns).filter_map(|number| Slot::new(u16::try_from(number).ok()?))
}

/// Tells the time, and collects what may be collected in the slots whose turn it is. To be called every `interval`.
pub(crate) fn collect_tombstones(core: &Core, interval: Duration) {
    let (now, unix) = (core.clock.now(), core.clock.unix());
    core.replica.store.handle_time(now);
    let ring = core.roster.ring();
    let is_time_doubtful = core.replica.agreement.lock().handle_time(now, unix);
    if is_time_doubtful {
        core.plan.lock().handle_clock_set();
    }
    let mut agreement = core.replica.agreement.lock();
    if agree_on_ring(core, &mut agreement, &ring, now) || is_time_doubtful {
        core.replica.store.forget_collected();
    }
    if core
        .roster
        .members
        .borrow()
        .iter()
        .any(|m| m.id != core.id && (m.state == MemberState::Dead || (m.state.is_present() && !m.stage.is_in_ring())))
    {
        agreement.handle_absence(now);
    }
    let margin = core.config.tombstone_margin();
    let step_ms = u64::try_from((margin / STEPS_PER_AGE).as_millis()).unwrap_or(u64::MAX).max(1);
    let margin_ms = u64::try_from(margin.as_millis()).unwrap_or(u64::MAX);
    let ended_until = UnixMillis::new(unix.get().saturating_sub(margin_ms + step_ms) / step_ms * step_ms);
    let owned = ring.slots_of(core.id);
    for slot in slots_in_turn(margin, interval, unix).filter(|slot| owned.contains(*slot)) {
        if let Some(before) = agreement.collectable_before(slot, now) {
            core.replica.store.collect(slot, unix, ended_until, before);
        }
    }
}

/// Before a comparison: what comes from now on is not part of it.
pub(crate) fn begin_comparison(core: &Core, ring: &Ring) -> Monotonic {
    let now = core.clock.now();
    core.replica.store.handle_time(now);
    if agree_on_ring(core, &mut core.replica.agreement.lock(), ring, now) {
        core.replica.store.forget_collected();
    }
    now
}

/// After it: a peer's digests, which it gave while this ring was in force there.
pub(crate) fn end_comparison(core: &Core, ring: &Ring, peer: NodeId, began: Monotonic, theirs: &[Digest]) {
    if core.roster.ring_hash() != ring.hash() {
        return;
    }
    let (ours, of_peer) = (core.replica.store.digests(), ring.slots_of(peer));
    let agreed = ring.slots_of(core.id).iter().filter(|slot| {
        let Some(theirs) = theirs.get(slot.index()) else { return false };
        // Who does not own the slot any more keeps what it has until the owners have taken it.
        let is_empty = !of_peer.contains(*slot) && *theirs == Digest::default();
        is_empty || ours[slot.index()] == *theirs
    });
    core.replica.agreement.lock().handle_agreed(ring.hash(), peer, agreed, began);
}

fn agree_on_ring(core: &Core, agreement: &mut Agreement, ring: &Ring, now: Monotonic) -> bool {
    let others = || ring.members().iter().map(|(id, _)| *id).filter(|id| *id != core.id).collect();
    agreement.handle_ring(now, ring.hash(), others)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_slot_has_its_turn() {
        let interval = Duration::from_millis(50);
        for (secs, most) in [(6, 5000), (606, 12), (100_000, 1)] {
            let margin = Duration::from_secs(secs);
            let turns = (margin / TURNS_PER_AGE).as_millis() / 50 + 1;
            let mut seen = BTreeSet::new();
            for turn in 0..turns.min(SLOTS as u128) {
                let unix = UnixMillis::new(1_767_225_600_000 + u64::try_from(turn).unwrap_or(0) * 50);
                let slots: Vec<Slot> = slots_in_turn(margin, interval, unix).collect();
                assert!(slots.len() <= most, "{} slots at a time", slots.len());
                seen.extend(slots);
            }
            assert_eq!(seen.len(), SLOTS, "{secs} s");
        }
    }
}
