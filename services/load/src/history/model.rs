//! A correct mesh, as small as it goes: a register per key in which the highest version wins, used by sessions whose operations
//! overlap in every way. It decides by dice what each operation sees, within what the guarantee allows, and can be told to
//! break one rule once.

use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::SmallRng};

use super::{
    Action, Ending, History, HistorySettings, Integrity, Judgement, Operation, Order, Session, Ticket, Violation,
};
use crate::{Proof, Stamp, WriteVersion, exec::KeyIndex, target::ReadConsistency};

/// By how much expiry may be off, in steps of one millisecond.
const ALLOWANCE_MS: u64 = 5;

/// Between the versions of two writes, so that late copies of writes have room between them.
const SPACING: u128 = 1 << 32;

/// What the sessions do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mix {
    pub(super) keys: u32,
    pub(super) sessions: u8,
    pub(super) steps: u64,
    /// In percent.
    pub(super) sets: u32,
    pub(super) deletes: u32,
    /// Of a hundred writes.
    pub(super) unknown: u32,
    pub(super) refused: u32,
    pub(super) doubtful: u32,
    /// 0 is for ever.
    pub(super) ttl_ms: u64,
}

/// A version that has become visible at some replica.
#[derive(Clone, Copy, Debug)]
struct Effect {
    key: KeyIndex,
    version: WriteVersion,
    stamp: Stamp,
    deletes: bool,
    /// The last and the first millisecond at which it may be seen.
    expires_ms: u64,
    visible_ms: u64,
}

/// One session and what it has in flight.
struct Client {
    session: Session,
    flight: Option<Flight>,
}

struct Flight {
    ticket: Ticket,
    /// The highest version acknowledged when it began.
    floor: WriteVersion,
    /// The version that it will be acknowledged with, once it has one.
    version: Option<WriteVersion>,
}

pub(super) struct Model {
    mix: Mix,
    dice: SmallRng,
    history: History,
    clients: Vec<Client>,
    effects: Vec<Effect>,
    acknowledged: Vec<WriteVersion>,
    now_ms: u64,
    last: u128,
    copies: u128,
    /// The rule to be broken, and how often it was.
    plant: Option<Violation>,
    pub(super) planted: u64,
    pub(super) found: Integrity,
}

impl Model {
    pub(super) fn new(mix: Mix, seed: u64, plant: Option<Violation>) -> Self {
        let expiry_allowance = Duration::from_millis(ALLOWANCE_MS);
        let settings =
            HistorySettings { keys: mix.keys, writers: mix.sessions, run: 7, expiry_allowance, order: Order::Versions };
        let client = |_| Client { session: Session::new(mix.keys), flight: None };
        Self {
            mix,
            dice: SmallRng::seed_from_u64(seed),
            history: History::new(settings),
            clients: (0..mix.sessions).map(client).collect(),
            effects: Vec::new(),
            acknowledged: vec![WriteVersion::ZERO; mix.keys as usize],
            now_ms: 1,
            last: 0,
            copies: 0,
            plant,
            planted: 0,
            found: Integrity::default(),
        }
    }

    /// Goes on until a rule was broken, if one is to be.
    pub(super) fn run(&mut self) {
        for _ in 0..self.mix.steps {
            if self.planted > 0 {
                return;
            }
            self.now_ms += u64::from(self.chance(50));
            let client = self.dice.random_range(0..self.clients.len());
            match self.clients[client].flight.take() {
                None => self.begin(client),
                Some(flight) if flight.ticket.stamp.is_none() => self.end_read(client, flight),
                Some(flight) => self.go_on(client, flight),
            }
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.dice.random_range(0..100) < percent
    }

    fn begin(&mut self, client: usize) {
        let key = KeyIndex::new(self.dice.random_range(0..self.mix.keys));
        let (writer, thrown) = (client as u8, self.dice.random_range(0..100));
        let ttl = (self.mix.ttl_ms > 0).then(|| Duration::from_millis(self.mix.ttl_ms));
        let action = match thrown {
            _ if thrown < self.mix.sets => Action::Set { writer, ttl },
            _ if thrown < self.mix.sets + self.mix.deletes => Action::Delete { writer },
            _ if self.plant == Some(Violation::StaleQuorum) => Action::Get(ReadConsistency::Quorum),
            _ if self.plant == Some(Violation::SessionBroken) => Action::Get(ReadConsistency::Session),
            _ => Action::Get(
                [ReadConsistency::One, ReadConsistency::Session, ReadConsistency::Quorum][self.dice.random_range(0..3)],
            ),
        };
        let began = self.now();
        let ticket =
            self.history.begin(Operation { action, key, intended: began, began }, &self.clients[client].session);
        let floor = self.acknowledged[key.get()];
        self.clients[client].flight = Some(Flight { ticket, floor, version: None });
    }

    fn now(&self) -> Duration {
        Duration::from_millis(self.now_ms)
    }

    fn tick(&mut self) -> WriteVersion {
        self.last += SPACING;
        WriteVersion::new(self.last)
    }

    /// A write takes effect, perhaps more than once with a higher version each time, or ends.
    fn go_on(&mut self, client: usize, mut flight: Flight) {
        if flight.version.is_none() && self.chance(self.mix.refused) {
            return self.end(client, &flight.ticket, Ending::Failed);
        }
        if flight.version.is_none() || self.chance(30) {
            let version = self.tick();
            flight.version = Some(version);
            let delay_ms = if self.chance(30) { self.dice.random_range(0..3) } else { 0 };
            self.take_effect(&flight.ticket, version, delay_ms);
            self.clients[client].flight = Some(flight);
            return;
        }
        if self.chance(self.mix.unknown) {
            if self.chance(50) {
                self.take_effect_later(&flight.ticket);
            }
            return self.end(client, &flight.ticket, Ending::Unknown);
        }
        let doubtful = self.chance(self.mix.doubtful);
        if doubtful && self.chance(50) {
            self.take_effect_later(&flight.ticket);
        }
        let key = flight.ticket.operation.key.get();
        let mut version = flight.version.unwrap();
        if self.plant == Some(Violation::OutOfOrder) && self.planted == 0 && flight.floor > WriteVersion::ZERO {
            self.planted += 1;
            version = flight.floor;
        }
        // A write that was acknowledged is visible.
        for effect in self.effects.iter_mut().filter(|effect| effect.version == version) {
            effect.visible_ms = effect.visible_ms.min(self.now_ms);
        }
        self.acknowledged[key] = self.acknowledged[key].max(version);
        self.end(client, &flight.ticket, Ending::Written { version: Some(version), doubtful });
    }

    fn take_effect(&mut self, ticket: &Ticket, version: WriteVersion, delay_ms: u64) {
        let (key, deletes) = (ticket.operation.key, matches!(ticket.operation.action, Action::Delete { .. }));
        let skew_ms = self.dice.random_range(0..ALLOWANCE_MS);
        let expires_ms = if self.mix.ttl_ms == 0 { u64::MAX } else { self.now_ms + self.mix.ttl_ms + skew_ms - 2 };
        let (visible_ms, stamp) = (self.now_ms + delay_ms, ticket.stamp.unwrap());
        self.effects.push(Effect { key, version, stamp, deletes, expires_ms, visible_ms });
    }

    /// A copy of a write that is under way somewhere takes effect some time, as the newest then.
    fn take_effect_later(&mut self, ticket: &Ticket) {
        let before = self.now_ms;
        self.now_ms += self.dice.random_range(0..200);
        // Somewhere above what there is now, and a version that nothing else has.
        self.copies += 1;
        let version = WriteVersion::new(self.last + self.dice.random_range(0..200) * SPACING + self.copies);
        self.take_effect(ticket, version, 0);
        self.now_ms = before;
    }

    fn end_read(&mut self, client: usize, flight: Flight) {
        let began_ms = u64::try_from(flight.ticket.operation.began.as_millis()).unwrap();
        let at_ms = self.dice.random_range(began_ms..=self.now_ms);
        let key = flight.ticket.operation.key;
        let seen = |effect: &&Effect| effect.key == key && effect.visible_ms <= self.now_ms;
        let visible: Vec<Effect> = self.effects.iter().filter(seen).copied().collect();
        let is_live = |effect: &Effect| !effect.deletes && at_ms < effect.expires_ms;
        let mut ending = None;
        let Action::Get(consistency) = flight.ticket.operation.action else { unreachable!() };
        if consistency != ReadConsistency::Quorum && !visible.is_empty() {
            let any = visible[self.dice.random_range(0..visible.len())];
            let fresh = consistency == ReadConsistency::One || any.version >= flight.ticket.session_floor;
            ending = (is_live(&any) && fresh).then(|| value(any.stamp, any.version));
        }
        // A quorum returns what was acknowledged, or anything newer; and nobody else may say that there is nothing.
        let least = if consistency == ReadConsistency::Session {
            flight.floor.max(flight.ticket.session_floor)
        } else {
            flight.floor
        };
        let newer: Vec<_> = visible.iter().filter(|effect| effect.version >= least).copied().collect();
        let ending = ending.unwrap_or_else(|| {
            if newer.is_empty() {
                return Ending::Miss { version: None };
            }
            let chosen = newer[self.dice.random_range(0..newer.len())];
            if is_live(&chosen) {
                value(chosen.stamp, chosen.version)
            } else {
                Ending::Miss { version: Some(chosen.version) }
            }
        });
        let ending = self.break_rule(&flight, &visible).unwrap_or(ending);
        self.end(client, &flight.ticket, ending);
    }

    /// Breaks the rule once, as soon as what there is to be seen allows it.
    fn break_rule(&mut self, flight: &Flight, visible: &[Effect]) -> Option<Ending> {
        let plant = self.plant.filter(|_| self.planted == 0 && self.now_ms > 20)?;
        let (key, floor) = (flight.ticket.operation.key, flight.floor);
        if flight.ticket.session_floor > floor && plant != Violation::SessionBroken {
            return None;
        }
        let acknowledged = *visible.iter().find(|effect| effect.version == floor)?;
        let is_older = |effect: &&Effect| effect.version < floor && effect.stamp != acknowledged.stamp;
        let older = || visible.iter().rev().find(is_older);
        // Nothing else has happened to the key since the read began, nor is it about to.
        let idle = self.acknowledged[key.get()] == floor
            && self.clients.iter().flat_map(|client| &client.flight).all(|f| f.ticket.operation.key != key);
        let ending = match plant {
            Violation::WrongObject => Ending::Value { proof: Proof::WrongObject, version: Some(floor) },
            Violation::Corrupt => value(older()?.stamp, floor),
            Violation::Unwritten => value(Stamp { seq: 9999, ..acknowledged.stamp }, floor),
            Violation::Missing => Ending::Miss { version: None },
            Violation::StaleQuorum => value(older()?.stamp, older()?.version),
            Violation::SessionBroken => {
                let seen = flight.ticket.session_floor;
                let old = visible.iter().find(|effect| effect.version < seen)?;
                value(old.stamp, old.version)
            }
            Violation::Resurrected | Violation::VersionChanged if !idle => return None,
            Violation::Resurrected => value(older()?.stamp, WriteVersion::new(self.last + 1000 * SPACING)),
            Violation::VersionChanged => value(acknowledged.stamp, WriteVersion::new(self.last + 1000 * SPACING)),
            Violation::Outlived => {
                let lifetime = Duration::from_millis(self.mix.ttl_ms + ALLOWANCE_MS);
                if flight.ticket.operation.began <= flight.ticket.floor.acknowledged_at() + lifetime {
                    return None;
                }
                value(acknowledged.stamp, floor)
            }
            Violation::OutOfOrder | Violation::Lost => return None,
        };
        self.planted += 1;
        Some(ending)
    }

    fn end(&mut self, client: usize, ticket: &Ticket, ending: Ending) {
        let ended = self.now();
        let judgement = self.history.finish(ticket, &mut self.clients[client].session, ending, ended);
        if let Judgement::Broken(violation) = judgement
            && self.plant != Some(violation)
        {
            panic!("{violation:?} at {ended:?}: {ending:?} to {ticket:?}");
        }
        self.found.count(judgement, |_| super::Finding::default());
    }
}

const fn value(stamp: Stamp, version: WriteVersion) -> Ending {
    Ending::Value { proof: Proof::Genuine(stamp), version: Some(version) }
}
