//! The history of a run, checked while it is made: every operation is announced before it begins and judged when it has
//! ended, against what had been acknowledged by then. It knows no clock and no network, so a simulation can use it as well.
//!
//! Nothing is kept for long, so the cost of an operation does not depend on how many there were. Per key there is the newest
//! acknowledged write (its [`Floor`]), and in a bounded list what may explain something newer: writes in flight, writes whose
//! fate nobody knows, and those acknowledged while an operation that is still in flight had already begun. Per session and key
//! there is the highest version it has met.
//!
//! No false alarms, then, whatever the order in which concurrent operations took effect: where something had to be forgotten,
//! the key is judged leniently. A write without an answer may take effect at any later time, or never.

mod finding;
mod judge;
mod key;
mod open;
mod order;
mod session;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use parking_lot::Mutex;

pub use self::finding::Violation;
pub(crate) use self::{
    finding::{Finding, Integrity, Judgement},
    key::Floor,
    order::Order,
    session::Session,
};
use self::{
    judge::{Reading, judge_miss, judge_unversioned, judge_value, judge_write},
    key::{Acknowledgement, KeyState},
    open::{OpenWrite, OpenWrites, WriteStatus},
};
use crate::{Proof, Stamp, WriteVersion, Writer, exec::KeyIndex, target::ReadConsistency};

/// Lists of open writes; a key's is found by its number. More than one, so that threads rarely meet.
const LISTS: usize = 64;

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Reads.
    Get(ReadConsistency),
    /// Writes a value that lives this long; for ever, or as long as nobody here knows, without one.
    Set {
        /// Which of the history's writers it is.
        writer: u8,
        /// How long the value lives.
        ttl: Option<Duration>,
    },
    /// Deletes.
    Delete {
        /// Which of the history's writers it is.
        writer: u8,
    },
}

/// One operation that is about to begin. Times count from the start of the history.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// What it does.
    pub action: Action,
    /// To which key.
    pub key: KeyIndex,
    /// When it should have begun.
    pub intended: Duration,
    /// When it did.
    pub began: Duration,
}

/// An operation that has begun. It goes to [`History::finish`] once.
#[derive(Debug)]
#[must_use = "an operation that never ends makes the checker lenient"]
pub struct Ticket {
    /// The operation.
    pub operation: Operation,
    /// What a written value must carry; nothing for a read.
    pub stamp: Option<Stamp>,
    /// The newest write of the key that had been acknowledged.
    pub floor: Floor,
    /// The highest version of the key that the session had met; zero if none.
    pub session_floor: WriteVersion,
    generation: u8,
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// A read returned a value.
    Value {
        /// What the value proves to be.
        proof: Proof,
        /// Its version, if the node named one.
        version: Option<WriteVersion>,
    },
    /// A read found nothing.
    Miss {
        /// The version of the deletion or expired value that was found instead.
        version: Option<WriteVersion>,
    },
    /// A write was acknowledged.
    Written {
        /// Its version, if the node named one.
        version: Option<WriteVersion>,
        /// It was tried more than once, and an earlier try may have happened, or may yet happen, under another version.
        doubtful: bool,
    },
    /// A write may have happened, or may yet happen.
    Unknown,
    /// A read failed, or a write that certainly never happened did.
    Failed,
}

/// How a history is checked.
#[derive(Clone, Copy, Debug)]
pub struct HistorySettings {
    /// How many keys there are.
    pub keys: u32,
    /// How many writers there are.
    pub writers: u8,
    /// Tells this history's values from another's.
    pub run: u32,
    /// By how much nodes' clocks and the sweeping of expired values may be off.
    pub expiry_allowance: Duration,
    /// What tells which of two writes is the later one.
    pub order: Order,
}

/// What has been acknowledged, and what is under way; shared by all threads.
#[derive(Debug)]
pub struct History {
    settings: HistorySettings,
    /// A lock per key: two threads meet on one only if they touch the same key at the same moment.
    keys: Box<[Mutex<KeyState>]>,
    /// Locked for a few steps, by a thread that holds the key's lock and needs its list, never the other way round.
    open: Box<[Mutex<OpenWrites>]>,
    sent: Box<[AnnouncedWrites]>,
}

/// Writes announced by one writer, on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct AnnouncedWrites(AtomicU64);

impl History {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(settings: HistorySettings) -> Self {
        Self {
            keys: (0..settings.keys).map(|_| Mutex::default()).collect(),
            open: (0..LISTS).map(|_| Mutex::default()).collect(),
            sent: (0..settings.writers).map(|_| AnnouncedWrites::default()).collect(),
            settings,
        }
    }

    /// Takes note that an operation begins. A writer's writes must all be announced by one thread at a time.
    pub fn begin(&self, operation: Operation, session: &Session) -> Ticket {
        let key = operation.key;
        let (stamp, write) = match operation.action {
            Action::Get(_) => (None, None),
            Action::Set { writer, ttl } => {
                let stamp = self.announce(writer);
                (Some(stamp), Some(OpenWrite::set(stamp, operation.began, ttl)))
            }
            Action::Delete { writer } => {
                let stamp = self.announce(writer);
                (Some(stamp), Some(OpenWrite::delete(stamp, operation.began)))
            }
        };
        let mut state = self.keys[key.get()].lock();
        let generation = state.enter();
        if let Some(write) = write {
            state.open(&mut self.list(key).lock(), write);
        }
        Ticket { operation, stamp, floor: state.floor(), session_floor: session.floor(key), generation }
    }

    /// Judges how an operation ended, at the time it ended.
    pub fn finish(&self, ticket: &Ticket, session: &mut Session, ending: Ending, ended: Duration) -> Judgement {
        let (key, order) = (ticket.operation.key, self.settings.order);
        let mut state = self.keys[key.get()].lock();
        let reading = Reading { ticket, ended, allowance: self.settings.expiry_allowance, order };
        let judgement = match ending {
            Ending::Value { proof, version } => {
                let known = |stamp: Stamp| (stamp.writer.run == self.settings.run).then(|| self.announced(stamp));
                match order {
                    Order::Versions => judge_value(&reading, (proof, version), known, &state, self.list(key)),
                    Order::Times => judge_unversioned(&reading, proof, known, &state, self.list(key)),
                }
            }
            Ending::Miss { .. } => judge_miss(&reading, &state, self.list(key)),
            Ending::Written { version, doubtful } => {
                let (version, judgement) = match order {
                    Order::Versions => {
                        let version = version.unwrap_or(WriteVersion::ZERO);
                        (version, judge_write(ticket, version, &state))
                    }
                    Order::Times => (order::version_of(ticket.operation.began, ended), Judgement::Sound),
                };
                if let Some(stamp) = ticket.stamp {
                    let acknowledgement = Acknowledgement { stamp, version, ended, doubtful };
                    state.acknowledge(&mut self.list(key).lock(), acknowledgement, order);
                }
                judgement
            }
            Ending::Unknown | Ending::Failed => {
                if let Some(stamp) = ticket.stamp {
                    let fate = (ending == Ending::Unknown).then_some(WriteStatus::Unknown);
                    state.settle(&mut self.list(key).lock(), stamp, fate);
                }
                Judgement::Sound
            }
        };
        if state.leave(ticket.generation) && state.has_open() {
            let generation = state.generation();
            state.prune(&mut self.list(key).lock(), generation, order);
        }
        drop(state);
        if let Ending::Value { version, .. } | Ending::Miss { version } | Ending::Written { version, .. } = ending
            && !judgement.is_broken()
        {
            session.note(key, version);
        }
        judgement
    }

    /// The newest acknowledged write of a key.
    #[must_use]
    pub fn floor(&self, key: KeyIndex) -> Floor {
        self.keys[key.get()].lock().floor()
    }

    /// How many keys have an acknowledged write.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.keys.iter().filter(|key| key.lock().floor().exists()).count()
    }

    /// How many keys are judged leniently for ever, because too many of their writes have an unknown fate.
    #[must_use]
    pub fn lenient(&self) -> usize {
        self.keys.iter().filter(|key| key.lock().is_lenient_for_ever()).count()
    }

    /// Writes announced so far, deletions included.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.iter().map(|sent| sent.0.load(Ordering::Acquire)).sum()
    }

    fn list(&self, key: KeyIndex) -> &Mutex<OpenWrites> {
        &self.open[key.get() % LISTS]
    }

    /// The next stamp of a writer. Only for writes that are not checked: [`History::begin`] announces the others.
    pub fn announce(&self, writer: u8) -> Stamp {
        let sent = &self.sent[usize::from(writer)].0;
        // A plain load and store: a writer is used by one thread. Release pairs with the acquire in `announced`: a
        // thread that has read a value finds its write announced.
        let seq = sent.load(Ordering::Relaxed) + 1;
        sent.store(seq, Ordering::Release);
        Stamp { writer: Writer { run: self.settings.run, thread: writer }, seq }
    }

    /// Whether a write of this run has been announced.
    fn announced(&self, stamp: Stamp) -> bool {
        let sent = self.sent.get(usize::from(stamp.writer.thread));
        stamp.seq > 0 && sent.is_some_and(|sent| stamp.seq <= sent.0.load(Ordering::Acquire))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod model;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod one_copy;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
