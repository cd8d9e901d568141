//! What is remembered about one key: 64 bytes, one cache line, its lock included.

use std::time::Duration;

use super::{
    open::{ListHead, Mark, OpenWrite, OpenWrites, WriteStatus, nanos},
    order::{Order, overlaps},
};
use crate::{Stamp, WriteVersion};

/// `KeyState::lenient` of a key that has lost track of a write whose fate is open.
const FOR_EVER: u8 = u8::MAX;

/// Generations until no operation is in flight that had begun before.
const GENERATIONS: u8 = 2;

/// The newest acknowledged write of a key at one moment, if there is one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Floor {
    version: WriteVersion,
    mark: Mark,
    began_ns: u64,
    acknowledged_ns: u64,
    ttl_ms: u32,
    kind: FloorKind,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum FloorKind {
    #[default]
    Nothing,
    Value,
    Deletion,
}

impl Floor {
    /// Whether anything has been acknowledged.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.kind != FloorKind::Nothing
    }

    /// Whether it is a deletion.
    #[must_use]
    pub fn is_deletion(&self) -> bool {
        self.kind == FloorKind::Deletion
    }

    /// Whether its value expires some time.
    #[must_use]
    pub const fn expires(&self) -> bool {
        self.ttl_ms > 0
    }

    /// Its version.
    #[must_use]
    pub const fn version(&self) -> WriteVersion {
        self.version
    }

    /// Its writer's number and count.
    #[must_use]
    pub const fn writer_and_seq(&self) -> (u8, u64) {
        self.mark.parts()
    }

    /// When it began, in nanoseconds since the history's start.
    pub(super) const fn began_ns(&self) -> u64 {
        self.began_ns
    }

    /// When it was acknowledged.
    #[must_use]
    pub const fn acknowledged_at(&self) -> Duration {
        Duration::from_nanos(self.acknowledged_ns)
    }

    /// Whether it may have expired by `at`.
    pub(super) fn may_be_gone(&self, at: Duration, allowance: Duration) -> bool {
        self.is_deletion() || may_expire(self.began_ns, self.ttl_ms, at, allowance)
    }

    /// Whether it was deleted, or must have expired, before `at`.
    pub(super) fn must_be_gone(&self, at: Duration, allowance: Duration) -> bool {
        self.is_deletion() || (self.kind == FloorKind::Value && self.must_have_expired(at, allowance))
    }

    pub(super) fn must_have_expired(&self, at: Duration, allowance: Duration) -> bool {
        let lifetime = Duration::from_millis(self.ttl_ms.into()) + allowance;
        self.ttl_ms > 0 && at > self.acknowledged_at() + lifetime
    }

    pub(super) fn is_write(&self, mark: Mark) -> bool {
        self.kind == FloorKind::Value && self.mark == mark
    }
}

/// Whether a value may have expired: its life begins no earlier than the write did.
pub(super) fn may_expire(began_ns: u64, ttl_ms: u32, at: Duration, allowance: Duration) -> bool {
    ttl_ms > 0 && Duration::from_nanos(began_ns) + Duration::from_millis(ttl_ms.into()) <= at + allowance
}

/// A write has been acknowledged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Acknowledgement {
    pub(super) stamp: Stamp,
    pub(super) version: WriteVersion,
    pub(super) ended: Duration,
    /// An earlier try of it may have happened, or may yet happen.
    pub(super) doubtful: bool,
}

/// One key.
///
/// Operations in flight are counted by generation: the present one and the one before. Once the earlier ones have all
/// ended the next generation begins, so what was acknowledged two generations ago concerns no operation any more.
/// The fields of the floor lie side by side with the others, its version in halves: as a struct of its own it would not fit.
#[derive(Debug, Default)]
pub(super) struct KeyState {
    version: [u64; 2],
    mark: Mark,
    began_ns: u64,
    acknowledged_ns: u64,
    ttl_ms: u32,
    open: ListHead,
    in_flight: u16,
    in_flight_before: u16,
    generation: u8,
    lenient: u8,
    kind: FloorKind,
}

impl KeyState {
    /// The newest acknowledged write.
    pub(super) const fn floor(&self) -> Floor {
        let [high, low] = self.version;
        let Self { mark, began_ns, acknowledged_ns, ttl_ms, kind, .. } = *self;
        let version = WriteVersion::new((high as u128) << 64 | low as u128);
        Floor { version, mark, began_ns, acknowledged_ns, ttl_ms, kind }
    }

    fn set_floor(&mut self, floor: Floor) {
        let Floor { version, mark, began_ns, acknowledged_ns, ttl_ms, kind } = floor;
        self.version = [(version.get() >> 64) as u64, version.get() as u64];
        (self.mark, self.began_ns, self.acknowledged_ns) = (mark, began_ns, acknowledged_ns);
        (self.ttl_ms, self.kind) = (ttl_ms, kind);
    }

    /// An operation begins; its generation.
    pub(super) const fn enter(&mut self) -> u8 {
        if let Some(in_flight) = self.in_flight.checked_add(1) {
            self.in_flight = in_flight;
        } else {
            // One generation has lost count, so generations are no longer to be trusted.
            self.lenient = FOR_EVER;
        }
        self.generation
    }

    /// An operation of this generation has ended; whether the next one begins.
    pub(super) fn leave(&mut self, generation: u8) -> bool {
        let count = if generation == self.generation { &mut self.in_flight } else { &mut self.in_flight_before };
        *count = count.saturating_sub(1);
        if self.in_flight_before > 0 {
            return false;
        }
        (self.in_flight_before, self.in_flight) = (self.in_flight, 0);
        // If nothing at all is in flight, the generation after the next begins at once.
        let generations = if self.in_flight_before == 0 { GENERATIONS } else { 1 };
        self.generation = self.generation.wrapping_add(generations);
        if self.lenient != FOR_EVER {
            self.lenient = self.lenient.saturating_sub(generations);
        }
        true
    }

    pub(super) const fn generation(&self) -> u8 {
        self.generation
    }

    pub(super) const fn has_open(&self) -> bool {
        !self.open.is_empty()
    }

    pub(super) const fn head(&self) -> ListHead {
        self.open
    }

    /// Whether something has been forgotten that might explain what looks wrong.
    pub(super) const fn is_lenient(&self) -> bool {
        self.lenient > 0
    }

    pub(super) const fn is_lenient_for_ever(&self) -> bool {
        self.lenient == FOR_EVER
    }

    /// A write begins.
    pub(super) fn open(&mut self, list: &mut OpenWrites, write: OpenWrite) {
        if !list.push(&mut self.open, write) {
            self.lenient = FOR_EVER;
        }
    }

    /// A write has ended without an acknowledgement.
    pub(super) fn settle(&mut self, list: &mut OpenWrites, stamp: Stamp, fate: Option<WriteStatus>) {
        let mark = Mark::of(stamp);
        match fate {
            Some(fate) => {
                if let Some(write) = list.find(self.open, mark) {
                    write.fate = fate;
                }
            }
            None => list.retain(&mut self.open, |write| write.mark != mark),
        }
    }

    /// A write has been acknowledged. The higher version becomes, or stays, the floor; what is below it is of interest to those
    /// operations only that are in flight now.
    pub(super) fn acknowledge(&mut self, list: &mut OpenWrites, written: Acknowledgement, order: Order) {
        let Acknowledgement { stamp, version, ended, doubtful } = written;
        let mark = Mark::of(stamp);
        let Some(write) = list.find(self.open, mark).map(|write| *write) else {
            // It did not fit when it began: the key is lenient, and its floor stays where it was.
            return;
        };
        self.settle(list, stamp, doubtful.then_some(WriteStatus::Unknown));
        let newer = Floor {
            version,
            mark,
            began_ns: write.began_ns,
            acknowledged_ns: nanos(ended),
            ttl_ms: write.ttl_ms,
            kind: if write.deletes { FloorKind::Deletion } else { FloorKind::Value },
        };
        let floor = self.floor();
        let is_newest = !floor.exists() || version >= floor.version;
        let below = if is_newest { floor } else { newer };
        if is_newest {
            if order == Order::Times {
                // Those in flight may still meet what this write has overwritten.
                list.renew(self.open, self.generation, |version| overlaps(version, &floor));
            }
            self.set_floor(newer);
        }
        // The write itself is still counted as in flight.
        let others = u32::from(self.in_flight) + u32::from(self.in_flight_before) > 1;
        let may_follow = order == Order::Times && overlaps(below.version, &self.floor());
        if below.exists() && (others || may_follow) {
            let fate = WriteStatus::Acknowledged { version: below.version, generation: self.generation };
            let deletes = below.is_deletion();
            let below =
                OpenWrite { mark: below.mark, began_ns: below.began_ns, ttl_ms: below.ttl_ms, deletes, ..write };
            if !list.push(&mut self.open, OpenWrite { fate, ..below }) {
                self.lenient = self.lenient.max(GENERATIONS);
            }
        }
    }

    /// Forgets acknowledged writes that no operation in flight can have met, and none that begins later can meet.
    pub(super) fn prune(&mut self, list: &mut OpenWrites, now: u8, order: Order) {
        let floor = self.floor();
        list.retain(&mut self.open, |write| match write.fate {
            WriteStatus::Acknowledged { generation, version } => {
                let is_recent = now.wrapping_sub(generation) < GENERATIONS;
                is_recent || (order == Order::Times && overlaps(version, &floor))
            }
            WriteStatus::InFlight | WriteStatus::Unknown => true,
        });
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    #[test]
    fn a_key_is_one_cache_line() {
        assert!(size_of::<Mutex<KeyState>>() <= 64, "{}", size_of::<Mutex<KeyState>>());
    }

    #[test]
    fn a_generation_begins_when_all_before_the_last_have_ended() {
        let mut key = KeyState::default();
        let slow = key.enter();
        let quick = key.enter();
        assert!(key.leave(quick), "nothing was in flight before");
        let later = key.enter();
        assert!(later != slow && !key.leave(later), "the slow one holds the generation");
        let last = key.enter();
        assert!(key.leave(slow));
        assert_eq!(key.generation(), slow + GENERATIONS);
        assert!(key.leave(last) && key.in_flight == 0 && key.in_flight_before == 0);
    }
}
