//! What has been acknowledged, and whether what is read agrees with it.
//!
//! A read is judged by what had been acknowledged before it *began* (its [`Floor`]): it may return anything as new or newer,
//! and must not return nothing. Writes whose fate is unknown need no book-keeping: whether they happened or not, the
//! floor is what it was.

use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;

use crate::{Distribution, KeyIndex, Proof, Stamp, Version, Writer, prove};

/// The newest acknowledged write of a key at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Floor {
    /// Its version.
    pub version: Version,
    /// The write; nothing has been acknowledged if there is none.
    pub stamp: Option<Stamp>,
    /// When it was acknowledged, since the ledger's start.
    pub acknowledged_at: Duration,
}

/// The newest acknowledged write of every key, shared by all threads.
#[derive(Debug)]
pub struct Ledger {
    /// A lock per key: two threads meet on one only if they touch the same key at the same moment.
    keys: Box<[Mutex<Floor>]>,
}

/// What is wrong with an answer, if anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Nothing.
    Sound,
    /// An older value than the floor, by this much time; allowed at consistency `one`.
    Stale(Duration),
    /// A valid value of another key.
    WrongObject,
    /// No valid value, or one whose version belongs to another write.
    Corrupt,
    /// A valid value of this key that its writer never sent.
    NeverWritten,
    /// A valid value of this key from another run.
    Foreign,
    /// A miss, though a write had been acknowledged.
    Missing,
    /// A write was acknowledged with a version below that of a write acknowledged before it began.
    OutOfOrder,
}

impl Ledger {
    /// Nothing acknowledged yet for any of `keys` keys.
    #[must_use]
    pub fn new(keys: u32) -> Self {
        Self { keys: (0..keys).map(|_| Mutex::new(Floor::default())).collect() }
    }

    /// What a read of `key` that begins now must at least see.
    #[must_use]
    pub fn floor(&self, key: KeyIndex) -> Floor {
        *self.keys[key.get()].lock()
    }

    /// Takes note of an acknowledged write that began at `floor`, and judges its version.
    pub fn acknowledge(&self, key: KeyIndex, floor: &Floor, version: Version, stamp: Stamp, at: Duration) -> Judgement {
        let mut newest = self.keys[key.get()].lock();
        if newest.stamp.is_none() || version >= newest.version {
            *newest = Floor { version, stamp: Some(stamp), acknowledged_at: at };
        }
        drop(newest);
        let ordered = floor.stamp.is_none() || version > floor.version || version == Version::ZERO;
        if ordered { Judgement::Sound } else { Judgement::OutOfOrder }
    }

    /// How many keys have an acknowledged write.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.keys.iter().filter(|key| key.lock().stamp.is_some()).count()
    }
}

/// One value that was read.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'a> {
    /// The key's name.
    pub key: &'a [u8],
    /// The bytes.
    pub value: &'a [u8],
    /// Their version, if the node named one.
    pub version: Option<Version>,
    /// When the read began, since the ledger's start.
    pub began_at: Duration,
}

/// Judges a value. `sent` says how many writes a writer of this run has sent so far, nothing for one of another run.
pub(crate) fn judge_hit(reading: &Reading<'_>, floor: &Floor, sent: impl Fn(Writer) -> Option<u64>) -> Judgement {
    let stamp = match prove(reading.value, reading.key) {
        Proof::Genuine(stamp) => stamp,
        Proof::WrongObject => return Judgement::WrongObject,
        Proof::Corrupt => return Judgement::Corrupt,
    };
    match sent(stamp.writer) {
        Some(sent) if stamp.seq == 0 || stamp.seq > sent => return Judgement::NeverWritten,
        Some(_) => {}
        None if floor.stamp.is_none() => return Judgement::Foreign,
        None => {}
    }
    let (Some(newest), Some(version)) = (floor.stamp, reading.version) else {
        return Judgement::Sound;
    };
    if version < floor.version {
        Judgement::Stale(reading.began_at.saturating_sub(floor.acknowledged_at))
    } else if version == floor.version && stamp != newest {
        Judgement::Corrupt
    } else {
        Judgement::Sound
    }
}

/// Judges a miss.
#[must_use]
pub(crate) const fn judge_miss(floor: &Floor) -> Judgement {
    if floor.stamp.is_some() { Judgement::Missing } else { Judgement::Sound }
}

/// How many examples of what is wrong are kept.
const EXAMPLES_MAX: usize = 5;

/// What all judgements add up to.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Integrity {
    /// Values of another key.
    pub wrong_object: u64,
    /// Values that are broken.
    pub corrupt: u64,
    /// Values that nobody wrote.
    pub never_written: u64,
    /// Misses of keys with an acknowledged write.
    pub missing: u64,
    /// Values older than one acknowledged before the read began.
    pub stale: u64,
    /// Values left by another run.
    pub foreign: u64,
    /// Acknowledged writes with too low a version.
    pub out_of_order: u64,
    /// The first few of what must not be, in words.
    pub examples: Vec<String>,
    /// How old stale values were.
    #[serde(skip)]
    pub stale_age: Distribution,
}

impl Integrity {
    /// Counts one judgement; `describe` is asked for words if it is something that must not be.
    pub fn count(&mut self, judgement: Judgement, describe: impl FnOnce() -> String) {
        let counter = match judgement {
            Judgement::Sound => return,
            Judgement::Foreign => {
                self.foreign += 1;
                return;
            }
            Judgement::Stale(age) => {
                self.stale += 1;
                self.stale_age.record(age);
                return;
            }
            Judgement::WrongObject => &mut self.wrong_object,
            Judgement::Corrupt => &mut self.corrupt,
            Judgement::NeverWritten => &mut self.never_written,
            Judgement::Missing => &mut self.missing,
            Judgement::OutOfOrder => &mut self.out_of_order,
        };
        *counter += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(describe());
        }
    }

    /// Adds another thread's.
    pub fn merge(&mut self, other: &Self) {
        self.wrong_object += other.wrong_object;
        self.corrupt += other.corrupt;
        self.never_written += other.never_written;
        self.missing += other.missing;
        self.stale += other.stale;
        self.foreign += other.foreign;
        self.out_of_order += other.out_of_order;
        self.stale_age.merge(&other.stale_age);
        let room = EXAMPLES_MAX - self.examples.len();
        self.examples.extend(other.examples.iter().take(room).cloned());
    }

    /// Values that must never be returned, of whatever kind.
    #[must_use]
    pub const fn wrong_values(&self) -> u64 {
        self.wrong_object + self.corrupt + self.never_written
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::write_value;

    const WRITER: Writer = Writer { run: 1, thread: 0 };
    const KEY: KeyIndex = KeyIndex::new(1);

    fn stamp(seq: u64) -> Stamp {
        Stamp { writer: WRITER, seq }
    }

    fn judge(key: KeyIndex, stamp: Stamp, version: u128, floor: &Floor) -> Judgement {
        let mut value = Vec::new();
        write_value(&mut value, &key.name(), stamp, 0);
        let version = Some(Version::new(version));
        let reading = Reading { key: &KEY.name(), value: &value, version, began_at: Duration::from_secs(3) };
        judge_hit(&reading, floor, |writer| (writer == WRITER).then_some(10))
    }

    fn floor_of(version: u128, seq: u64) -> Floor {
        let acknowledged_at = Duration::from_secs(1);
        Floor { version: Version::new(version), stamp: Some(stamp(seq)), acknowledged_at }
    }

    #[test]
    fn every_kind_of_wrong_is_told_apart() {
        let floor = floor_of(100, 5);
        assert_eq!(judge(KEY, stamp(5), 100, &floor), Judgement::Sound);
        assert_eq!(judge(KEY, stamp(6), 101, &floor), Judgement::Sound);
        assert_eq!(judge(KEY, stamp(4), 99, &floor), Judgement::Stale(Duration::from_secs(2)));
        assert_eq!(judge(KEY, stamp(4), 100, &floor), Judgement::Corrupt, "one version, two writes");
        assert_eq!(judge(KEY, stamp(11), 101, &floor), Judgement::NeverWritten);
        assert_eq!(judge(KeyIndex::new(2), stamp(5), 100, &floor), Judgement::WrongObject);
        let foreign = Stamp { writer: Writer { run: 2, thread: 0 }, seq: 99 };
        assert_eq!(judge(KEY, foreign, 50, &Floor::default()), Judgement::Foreign);
        assert_eq!(judge(KEY, foreign, 50, &floor), Judgement::Stale(Duration::from_secs(2)));
        assert_eq!(judge_miss(&floor), Judgement::Missing);
        assert_eq!(judge_miss(&Floor::default()), Judgement::Sound);
    }

    #[test]
    fn the_floor_is_the_highest_version_whatever_the_order_of_acknowledgements() {
        let ledger = Ledger::new(2);
        let before = ledger.floor(KEY);
        let ack = |version, seq, floor: &Floor| {
            ledger.acknowledge(KEY, floor, Version::new(version), stamp(seq), Duration::ZERO)
        };
        assert_eq!(ack(20, 2, &before), Judgement::Sound);
        assert_eq!(ack(10, 1, &before), Judgement::Sound, "both began before either was acknowledged");
        let floor = ledger.floor(KEY);
        assert_eq!((floor.version, floor.stamp), (Version::new(20), Some(stamp(2))));
        assert_eq!(ack(15, 3, &floor), Judgement::OutOfOrder);
        assert_eq!(ack(20, 3, &floor), Judgement::OutOfOrder, "no two writes have one version");
        assert_eq!(ledger.acknowledged(), 1);
    }

    #[test]
    fn tallies_merge() {
        let (mut one, mut two) = (Integrity::default(), Integrity::default());
        one.count(Judgement::Corrupt, || "first".to_owned());
        two.count(Judgement::WrongObject, || "second".to_owned());
        two.count(Judgement::NeverWritten, || "third".to_owned());
        two.count(Judgement::Stale(Duration::from_millis(5)), String::new);
        one.merge(&two);
        assert_eq!((one.wrong_values(), one.stale, one.stale_age.count()), (3, 1, 1));
        assert_eq!(one.examples, ["first", "second", "third"]);
    }
}
