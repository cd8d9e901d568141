//! A correct cache without versions: a register per key in which each operation takes effect at one moment between its beginning and
//! its end. It decides by dice when that is, and can be told to return something old once.

use std::time::Duration;

use proptest::prelude::*;
use rand::{Rng, SeedableRng, rngs::SmallRng};

use super::{Action, Ending, History, HistorySettings, Judgement, Operation, Order, Session, Ticket, Violation};
use crate::{Proof, Stamp, exec::KeyIndex, target::ReadConsistency};

const KEYS: u32 = 3;
const CLIENTS: u8 = 8;

/// What one client waits for.
enum Flight {
    /// Not done yet.
    Sent(Ticket),
    /// Done, and the answer is on its way.
    Done(Ticket, Ending),
}

struct Cache {
    dice: SmallRng,
    history: History,
    session: Session,
    flights: Vec<Option<Flight>>,
    values: [Option<Stamp>; KEYS as usize],
    /// Writes that nobody waits for any more; each is done some time.
    late: Vec<(usize, Option<Stamp>)>,
    now_ms: u64,
    /// Return something old, or nothing, once.
    plant: Option<Ending>,
    found: Option<Violation>,
}

impl Cache {
    fn new(seed: u64, plant: Option<Ending>) -> Self {
        let expiry_allowance = Duration::from_secs(1);
        let settings = HistorySettings { keys: KEYS, writers: CLIENTS, run: 7, expiry_allowance, order: Order::Times };
        Self {
            dice: SmallRng::seed_from_u64(seed),
            history: History::new(settings),
            session: Session::new(KEYS),
            flights: (0..CLIENTS).map(|_| None).collect(),
            values: [None; KEYS as usize],
            late: Vec::new(),
            now_ms: 0,
            plant,
            found: None,
        }
    }

    /// The first violation that is found in so many steps.
    fn run(mut self, steps: u32, deletes: bool, unknown: u32) -> Option<Violation> {
        for _ in 0..steps {
            self.now_ms += self.dice.random_range(0..2);
            let client = self.dice.random_range(0..self.flights.len());
            self.flights[client] = match self.flights[client].take() {
                None => Some(self.begin(client, deletes)),
                Some(Flight::Sent(ticket)) => self.take_effect(ticket, unknown),
                Some(Flight::Done(ticket, ending)) => {
                    self.end(&ticket, ending);
                    None
                }
            };
            if !self.late.is_empty() && self.dice.random_range(0..50) == 0 {
                let (key, value) = self.late.swap_remove(0);
                self.values[key] = value;
            }
            if self.found.is_some() {
                break;
            }
        }
        self.found
    }

    fn begin(&mut self, client: usize, deletes: bool) -> Flight {
        let writer = u8::try_from(client).unwrap();
        let action = match self.dice.random_range(0..10) {
            0..3 => Action::Set { writer, ttl: None },
            3 if deletes => Action::Delete { writer },
            _ => Action::Get(ReadConsistency::Quorum),
        };
        let (key, began) = (KeyIndex::new(self.dice.random_range(0..KEYS)), Duration::from_millis(self.now_ms));
        Flight::Sent(self.history.begin(Operation { action, key, intended: began, began }, &self.session))
    }

    fn take_effect(&mut self, ticket: Ticket, unknown: u32) -> Option<Flight> {
        let key = ticket.operation.key.get();
        let ending = match ticket.operation.action {
            Action::Get(_) => self.read(key, &ticket),
            Action::Set { .. } | Action::Delete { .. } => {
                let value = ticket.stamp.filter(|_| matches!(ticket.operation.action, Action::Set { .. }));
                if self.dice.random_range(0..100) < unknown {
                    self.late.push((key, value));
                    Ending::Unknown
                } else {
                    self.values[key] = value;
                    Ending::Written { version: None, doubtful: false }
                }
            }
        };
        Some(Flight::Done(ticket, ending))
    }

    /// What there is; or what must not be any more, if nothing else has happened to the key meanwhile.
    fn read(&mut self, key: usize, ticket: &Ticket) -> Ending {
        let value = |stamp: Option<Stamp>| {
            stamp.map_or(Ending::Miss { version: None }, |stamp| Ending::Value {
                proof: Proof::Genuine(stamp),
                version: None,
            })
        };
        let is_written = |flight: &Option<Flight>| {
            flight.as_ref().is_some_and(|flight| {
                let (Flight::Sent(ticket) | Flight::Done(ticket, _)) = flight;
                ticket.operation.key.get() == key && ticket.stamp.is_some()
            })
        };
        let is_idle = !self.flights.iter().any(is_written) && ticket.floor.exists() && self.values[key].is_some();
        // The first write of that client is old by now, or of another key.
        let is_floor = self.values[key]
            .is_some_and(|stamp| stamp.seq > 2 && (stamp.writer.thread, stamp.seq) == ticket.floor.writer_and_seq());
        if is_idle && is_floor && self.now_ms > 50 {
            match self.plant.take() {
                Some(Ending::Miss { version }) => return Ending::Miss { version },
                Some(_) => return value(Some(Stamp { seq: 1, ..self.values[key].unwrap() })),
                None => {}
            }
        }
        value(self.values[key])
    }

    fn end(&mut self, ticket: &Ticket, ending: Ending) {
        let ended = Duration::from_millis(self.now_ms);
        if let Judgement::Broken(violation) = self.history.finish(ticket, &mut self.session, ending, ended) {
            self.found = Some(violation);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_correct_cache_without_versions_is_never_accused(seed: u64, unknown in 0_u32..20, deletes: bool) {
        prop_assert_eq!(Cache::new(seed, None).run(5000, deletes, unknown), None);
    }

    #[test]
    fn what_is_old_or_gone_without_a_reason_is_found(seed: u64) {
        let miss = Ending::Miss { version: None };
        prop_assert_eq!(Cache::new(seed, Some(miss)).run(20_000, false, 0), Some(Violation::Missing));
        let found = Cache::new(seed, Some(Ending::Failed)).run(20_000, false, 0);
        prop_assert_eq!(found, Some(Violation::StaleQuorum));
    }
}
