//! Since when everybody agrees with this node on what is in a slot: what tombstones and stubs wait for before they are collected.
//!
//! A tombstone may go once nothing older than it can come back. What could bring it back is another member's content, and what
//! was under way when the tombstone came: legs, pages, hints. So it stays until all of that has had its time, and every other
//! member has then been compared with and held the same (or nothing, if it does not own the slot). Whatever makes it doubtful who
//! the others are, or how much time has passed, starts the whole wait anew.

use std::{collections::BTreeMap, time::Duration};

use crate::{DRIFT_MAX, Monotonic, Mutant, NodeId, RingHash, SLOTS, Slot, UnixMillis};

/// A process that was not heard for so long stood still, and does not know what it has missed.
const STANDSTILL: Duration = Duration::from_secs(2);

/// Who has agreed on what, and when. Tell it the time several times a second, and of the ring before each comparison.
#[derive(Debug)]
pub struct Agreement {
    /// How long anything may be under way.
    margin: Duration,
    ring: RingHash,
    /// The other members of the ring.
    others: Vec<NodeId>,
    /// Since when nothing has happened that would make it start anew.
    since: Monotonic,
    /// The last time that was told.
    told: Option<(Monotonic, UnixMillis)>,
    /// For each member and slot: when the last comparison began that found no difference.
    agreed: BTreeMap<NodeId, Box<[Option<Monotonic>]>>,
}

impl Agreement {
    /// Nobody agrees on anything yet. Whatever is on its way arrives within `margin`, or never.
    #[must_use]
    pub fn new(margin: Duration) -> Self {
        Self {
            margin,
            ring: RingHash::default(),
            others: Vec::new(),
            since: Monotonic::default(),
            told: None,
            agreed: BTreeMap::new(),
        }
    }

    /// What time it is. Says whether the process has stood still, or the wall clock jumped.
    pub fn handle_time(&mut self, now: Monotonic, unix: UnixMillis) -> bool {
        let Some((then, unix_then)) = self.told.replace((now, unix)) else { return false };
        let passed = now.since(then);
        let expected = unix_then + passed;
        let is_off = u128::from(expected.get().abs_diff(unix.get())) > DRIFT_MAX.as_millis();
        if is_off || passed > STANDSTILL {
            self.start_anew(now);
        }
        is_off || passed > STANDSTILL
    }

    /// This ring is in force, with these others in it. Says whether that is news.
    pub fn handle_ring(&mut self, now: Monotonic, ring: RingHash, others: impl FnOnce() -> Vec<NodeId>) -> bool {
        if ring == self.ring {
            return false;
        }
        self.ring = ring;
        self.others = others();
        self.start_anew(now);
        true
    }

    /// Not all members are in the ring: one that is dead, or about to join, may hold what is older.
    pub fn handle_absence(&mut self, now: Monotonic) {
        self.start_anew(now);
    }

    /// A comparison with `peer` that began at `began`, while `ring` was in force at both, found no difference in these slots.
    pub fn handle_agreed(&mut self, ring: RingHash, peer: NodeId, slots: impl Iterator<Item = Slot>, began: Monotonic) {
        if ring == self.ring && began >= self.since {
            let agreed = self.agreed.entry(peer).or_insert_with(|| vec![None; SLOTS].into_boxed_slice());
            slots.for_each(|slot| agreed[slot.index()] = Some(began));
        }
    }

    /// Tombstones and stubs of `slot` that came before this moment are not needed any more; nothing if none can be told to be.
    #[must_use]
    pub fn collectable_before(&self, slot: Slot, now: Monotonic) -> Option<Monotonic> {
        if Mutant::CollectsUnconfirmed.is_planted() {
            return before(now, self.margin);
        }
        if now.since(self.since) < self.margin {
            return None;
        }
        let agreed = |peer: &NodeId| self.agreed.get(peer).and_then(|slots| slots[slot.index()]);
        let all = self.others.iter().map(agreed).try_fold(now, |all, agreed| Some(all.min(agreed?)))?;
        if all.since(self.since) < self.margin { None } else { before(all, self.margin) }
    }

    fn start_anew(&mut self, now: Monotonic) {
        self.since = now;
        self.agreed.clear();
    }
}

fn before(moment: Monotonic, by: Duration) -> Option<Monotonic> {
    moment.since_start().checked_sub(by).map(Monotonic::new)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const MARGIN: Duration = Duration::from_secs(100);
    const RING: RingHash = RingHash::new(7);

    fn at(secs: u64) -> Monotonic {
        Monotonic::new(Duration::from_secs(secs))
    }

    fn ids() -> Vec<NodeId> {
        ["b", "c"].map(NodeId::from_name).to_vec()
    }

    fn slot() -> Slot {
        Slot::new(9).unwrap()
    }

    /// Both others agree at these times, in a ring that is in force from the tenth second on.
    fn agreed(b: Option<u64>, c: Option<u64>) -> Agreement {
        let mut agreement = Agreement::new(MARGIN);
        assert!(agreement.handle_ring(at(10), RING, ids));
        for (peer, when) in ids().into_iter().zip([b, c]) {
            if let Some(secs) = when {
                agreement.handle_agreed(RING, peer, [slot()].into_iter(), at(secs));
            }
        }
        agreement
    }

    #[test]
    fn everybody_has_to_agree_a_margin_after_it_came() {
        let before = |b, c| agreed(b, c).collectable_before(slot(), at(1000));
        assert_eq!(before(Some(300), Some(250)), Some(at(150)));
        assert_eq!(before(Some(300), None), None);
        assert_eq!(before(None, None), None);
        assert_eq!(agreed(Some(300), Some(250)).collectable_before(Slot::new(8).unwrap(), at(1000)), None);
    }

    #[test]
    fn a_ring_has_to_be_in_force_for_a_margin() {
        assert_eq!(agreed(Some(109), Some(300)).collectable_before(slot(), at(1000)), None);
        assert_eq!(agreed(Some(110), Some(300)).collectable_before(slot(), at(1000)), Some(at(10)));
    }

    #[test]
    fn what_was_agreed_on_under_another_ring_counts_for_nothing() {
        let mut agreement = agreed(Some(300), Some(300));
        agreement.handle_agreed(RingHash::new(8), ids()[0], [slot()].into_iter(), at(400));
        assert_eq!(agreement.collectable_before(slot(), at(1000)), Some(at(200)));
        assert!(!agreement.handle_ring(at(500), RING, ids), "no news");
        assert!(agreement.handle_ring(at(500), RingHash::new(8), ids));
        assert_eq!(agreement.collectable_before(slot(), at(1000)), None);
    }

    #[test]
    fn absence_and_what_makes_time_doubtful_start_the_wait_anew() {
        let starts: [fn(&mut Agreement); 4] = [
            |agreement| agreement.handle_absence(at(500)),
            |agreement| assert!(agreement.handle_time(at(500) + STANDSTILL * 2, UnixMillis::new(4000))),
            |agreement| assert!(agreement.handle_time(at(500), UnixMillis::new(501))),
            |agreement| assert!(agreement.handle_time(at(501), UnixMillis::new(3_600_000))),
        ];
        for start in starts {
            let mut agreement = agreed(Some(300), Some(300));
            assert!(!agreement.handle_time(at(500), UnixMillis::new(0)));
            start(&mut agreement);
            assert_eq!(agreement.collectable_before(slot(), at(1000)), None);
            for peer in ids() {
                agreement.handle_agreed(RING, peer, [slot()].into_iter(), at(499));
                assert_eq!(agreement.collectable_before(slot(), at(1000)), None, "asked before");
                agreement.handle_agreed(RING, peer, [slot()].into_iter(), at(700));
            }
            assert_eq!(agreement.collectable_before(slot(), at(1000)), Some(at(600)));
        }
        let mut agreement = agreed(Some(300), Some(300));
        assert!(!agreement.handle_time(at(500), UnixMillis::new(0)));
        assert!(!agreement.handle_time(at(501), UnixMillis::new(1400)), "clocks may be a little off");
    }

    #[test]
    fn a_mesh_of_one_agrees_with_itself() {
        let mut agreement = Agreement::new(MARGIN);
        agreement.handle_ring(at(10), RING, Vec::new);
        assert_eq!(agreement.collectable_before(slot(), at(100)), None);
        assert_eq!(agreement.collectable_before(slot(), at(150)), Some(at(50)));
    }
}
