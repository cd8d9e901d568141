//! Whether a history is one that the guarantee allows. Each rule is named after the promise it holds the mesh to.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use mesh_proto::{UnixMillis, Version};

use crate::{
    history::{Action, Fate, Key, Level, Moment, Operation, Seen, WriteId},
    plan::Promise,
};

/// How far the nodes' clocks may be off.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// Between any two of them.
    pub apart: Duration,
    /// Whether one was off by so much that what it said of expiries means nothing.
    pub jumped: bool,
}

/// The wall clock's date at the start of every simulation, where no clock is ahead.
const fn started_at() -> UnixMillis {
    UnixMillis::new(1_767_225_600_000)
}

/// Reports to the findings what is wrong with the operations of a history.
pub fn check(operations: &[Operation], promise: Promise, clocks: Clocks, findings: &mut Vec<String>) {
    let mut by_key: BTreeMap<Key, Vec<&Operation>> = BTreeMap::new();
    for operation in operations {
        by_key.entry(operation.key).or_default().push(operation);
    }
    for (key, operations) in by_key {
        let mut of_key = OfKey::new(key, clocks, &operations, findings);
        of_key.values_are_true();
        if promise == Promise::Whole {
            of_key.versions_follow_time();
            of_key.reads_are_fresh();
            of_key.misses_are_explained();
        }
    }
}

/// One write as reads will meet it.
#[derive(Clone, Copy)]
struct Written {
    begun: Moment,
    ended: Moment,
    /// How long the value lives; nothing for ever.
    ttl: Option<Duration>,
    is_delete: bool,
    fate: Fate,
}

struct OfKey<'a> {
    key: Key,
    clocks: Clocks,
    operations: &'a [&'a Operation],
    writes: Vec<Written>,
    by_id: HashMap<WriteId, Written>,
    /// For each acknowledged write in the order they ended: when, and the highest version so far.
    floors: Vec<(u64, Version)>,
    findings: &'a mut Vec<String>,
}

impl<'a> OfKey<'a> {
    fn new(key: Key, clocks: Clocks, operations: &'a [&'a Operation], findings: &'a mut Vec<String>) -> Self {
        let mut of_key =
            Self { key, clocks, operations, writes: Vec::new(), by_id: HashMap::new(), floors: Vec::new(), findings };
        let mut floor = Version::ZERO;
        for operation in operations {
            let (fate, ttl, id) = match operation.action {
                Action::Set { write, ttl, fate } => (fate, ttl, Some(write)),
                Action::Delete { fate } => (fate, None, None),
                Action::Get { .. } => continue,
            };
            let (begun, ended) = (operation.begun, operation.ended);
            let written = Written { begun, ended, ttl, is_delete: id.is_none(), fate };
            of_key.writes.push(written);
            if let Some(id) = id {
                of_key.by_id.insert(id, written);
            }
            if let Fate::Acknowledged(version) = fate {
                floor = floor.max(version);
                of_key.floors.push((ended.number, floor));
            }
        }
        of_key
    }

    /// The highest version acknowledged before a moment.
    fn floor(&self, moment: Moment) -> Version {
        let before = self.floors.partition_point(|(ended, _)| *ended < moment.number);
        before.checked_sub(1).map_or(Version::ZERO, |last| self.floors[last].1)
    }

    fn finding(&mut self, what: &str, operation: &Operation) {
        let floor = self.floor(operation.begun);
        self.findings.push(format!("{what}: key {}, floor {floor}, {operation:?}", self.key.0));
    }

    /// G1: what is read is what some write to this key wrote, and one version is one write. A write that was refused has
    /// left nothing.
    fn values_are_true(&mut self) {
        let mut writers: HashMap<Version, WriteId> = HashMap::new();
        for operation in self.operations {
            let Action::Get { seen, .. } = &operation.action else { continue };
            match seen {
                Seen::Wrong(_) => self.finding("a wrong value", operation),
                Seen::Value { version, write } => {
                    if writers.insert(*version, *write).is_some_and(|other| other != *write) {
                        self.finding("two writes with one version", operation);
                    }
                    match self.by_id.get(write) {
                        Some(written) if written.begun.number >= operation.ended.number => {
                            self.finding("a value from the future", operation);
                        }
                        None => self.finding("a value that nobody wrote", operation),
                        Some(Written { fate: Fate::Refused, .. }) => {
                            self.finding("a refused write can be read", operation);
                        }
                        // A write that was overtaken is stamped again: its value may be met with an earlier version.
                        Some(Written { fate: Fate::Acknowledged(last), .. }) if last < version => {
                            self.finding("a version above its write's", operation);
                        }
                        Some(_) => {}
                    }
                }
                Seen::Miss | Seen::Failed => {}
            }
        }
    }

    /// G3: a later write has a higher version than every one acknowledged before it began.
    fn versions_follow_time(&mut self) {
        for operation in self.operations {
            if let Action::Set { fate: Fate::Acknowledged(version), .. }
            | Action::Delete { fate: Fate::Acknowledged(version) } = operation.action
                && version <= self.floor(operation.begun)
            {
                self.finding("a version that goes back", operation);
            }
        }
    }

    /// G2, G4, G5: a quorum sees what was acknowledged before it began, a session what it has seen, and nobody what has
    /// expired.
    fn reads_are_fresh(&mut self) {
        for operation in self.operations {
            let Action::Get { level, seen: Seen::Value { version, write } } = &operation.action else { continue };
            let floor = match level {
                Level::One => Version::ZERO,
                Level::Session(floor) => *floor,
                Level::Quorum | Level::Settled => self.floor(operation.begun),
            };
            if *version < floor {
                self.finding("an older value than there must be", operation);
            }
            let expired =
                self.by_id.get(write).and_then(|written| Some(written.ended.time + written.ttl? + self.clocks.apart));
            if !self.clocks.jumped && expired.is_some_and(|expired| operation.begun.time > expired) {
                self.finding("an expired value", operation);
            }
        }
    }

    /// G2: what was acknowledged is not missing, unless it was deleted or has expired, or may have.
    fn misses_are_explained(&mut self) {
        for operation in self.operations {
            let Action::Get { seen: Seen::Miss, .. } = &operation.action else { continue };
            // What a session has seen but nobody has acknowledged may be gone with the only node that had it.
            let floor = self.floor(operation.begun);
            if floor > Version::ZERO && !self.writes.iter().any(|written| self.explains(written, floor, operation)) {
                self.finding("an acknowledged write is missing", operation);
            }
        }
    }

    fn explains(&self, written: &Written, floor: Version, miss: &Operation) -> bool {
        let is_new_enough = match written.fate {
            Fate::Acknowledged(version) => version >= floor,
            // It was stamped before it ended, by a clock that may have been ahead of this one.
            Fate::Unknown(None) => floor.unix_millis() <= started_at() + written.ended.time + self.clocks.apart * 2,
            Fate::Unknown(Some(version)) => version >= floor,
            Fate::Refused => false,
        };
        let may_be_gone = written.is_delete
            || written.ttl.is_some_and(|ttl| {
                self.clocks.jumped || written.begun.time + ttl <= miss.ended.time + self.clocks.apart
            });
        is_new_enough && may_be_gone && written.begun.number < miss.ended.number
    }
}
