//! The checker checked: no false alarm in what a correct mesh may do, and every planted defect found under its own name.

use std::time::Duration;

use proptest::prelude::*;

use super::{
    Action, Ending, History, HistorySettings, Judgement, Operation, Order, Session, Ticket, Violation,
    model::{Mix, Model},
};
use crate::{Proof, Stamp, WriteVersion, Writer, exec::KeyIndex, target::ReadConsistency};

const KEY: KeyIndex = KeyIndex::new(1);
const ALLOWANCE: Duration = Duration::from_secs(1);

/// Everything that can happen, at once.
const EVERYTHING: Mix =
    Mix { keys: 3, sessions: 8, steps: 1500, sets: 30, deletes: 10, unknown: 10, refused: 5, doubtful: 10, ttl_ms: 0 };

/// Nothing that could explain a miss or a surprise.
const PLAIN: Mix = Mix { deletes: 0, unknown: 0, refused: 0, doubtful: 0, ..EVERYTHING };

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_correct_mesh_is_never_accused(seed: u64, keys in 1_u32..20, sessions in 2_u8..24, ttl in 0_u64..3) {
        let mix = Mix { keys, sessions, ttl_ms: ttl * 15, ..EVERYTHING };
        // The model panics at the first judgement that accuses it.
        Model::new(mix, seed, None).run();
        Model::new(Mix { deletes: 0, ..mix }, seed, None).run();
        Model::new(Mix { keys, sessions, ttl_ms: ttl * 15, ..PLAIN }, seed, None).run();
    }

    #[test]
    fn every_planted_defect_is_found(seed: u64) {
        for (plant, ttl_ms) in [
            (Violation::WrongObject, 0),
            (Violation::Corrupt, 0),
            (Violation::Unwritten, 0),
            (Violation::Missing, 0),
            (Violation::OutOfOrder, 0),
            (Violation::StaleQuorum, 0),
            (Violation::SessionBroken, 0),
            (Violation::Resurrected, 0),
            (Violation::VersionChanged, 0),
            (Violation::Outlived, 10),
        ] {
            let steps = 100_000;
            let mut model = Model::new(Mix { ttl_ms, steps, ..PLAIN }, seed, Some(plant));
            model.run();
            prop_assert_eq!(model.planted, 1, "{:?} was never planted", plant);
            prop_assert_eq!(model.found.of(plant), 1, "{:?} was not found", plant);
        }
    }
}

/// One key's history, told step by step; every step takes a second.
struct ReportedP99 {
    history: History,
    session: Session,
    now: Duration,
}

impl ReportedP99 {
    fn new() -> Self {
        Self::ordered_by(Order::Versions)
    }

    fn ordered_by(order: Order) -> Self {
        let settings = HistorySettings { keys: 3, writers: 1, run: 7, expiry_allowance: ALLOWANCE, order };
        Self { history: History::new(settings), session: Session::new(3), now: Duration::ZERO }
    }

    fn begin(&mut self, action: Action) -> Ticket {
        self.now += Duration::from_secs(1);
        self.history.begin(Operation { action, key: KEY, intended: self.now, began: self.now }, &self.session)
    }

    fn end(&mut self, ticket: &Ticket, ending: Ending) -> Judgement {
        self.now += Duration::from_secs(1);
        self.history.finish(ticket, &mut self.session, ending, self.now)
    }

    fn write(&mut self, action: Action, ending: Ending) -> Stamp {
        let ticket = self.begin(action);
        assert_eq!(self.end(&ticket, ending), Judgement::Sound);
        ticket.stamp.unwrap()
    }

    fn set(&mut self, version: u128) -> Stamp {
        self.write(SET, written(version))
    }

    fn read(&mut self, consistency: ReadConsistency, ending: Ending) -> Judgement {
        let ticket = self.begin(Action::Get(consistency));
        self.end(&ticket, ending)
    }

    fn read_one(&mut self, stamp: Stamp, version: u128) -> Judgement {
        self.read(ReadConsistency::One, value(stamp, version))
    }
}

const SET: Action = Action::Set { writer: 0, ttl: None };
const DELETE: Action = Action::Delete { writer: 0 };
const MISS: Ending = Ending::Miss { version: None };

const fn written(version: u128) -> Ending {
    Ending::Written { version: Some(WriteVersion::new(version)), doubtful: false }
}

const fn value(stamp: Stamp, version: u128) -> Ending {
    Ending::Value { proof: Proof::Genuine(stamp), version: Some(WriteVersion::new(version)) }
}

const fn broken(violation: Violation) -> Judgement {
    Judgement::Broken(violation)
}

#[test]
fn an_old_value_is_stale_or_broken_by_how_fresh_it_had_to_be() {
    let mut told = ReportedP99::new();
    let (old, _new) = (told.set(10), told.set(20));
    assert_eq!(told.read_one(old, 10), Judgement::Stale(Duration::from_secs(1)));
    assert_eq!(told.read(ReadConsistency::Quorum, value(old, 10)), broken(Violation::StaleQuorum));
    assert_eq!(told.read(ReadConsistency::Session, value(old, 10)), broken(Violation::SessionBroken));
    told.session = Session::new(3);
    let fresh_session = told.read(ReadConsistency::Session, value(old, 10));
    assert!(matches!(fresh_session, Judgement::Stale(_)), "{fresh_session:?}");
}

#[test]
fn a_session_never_goes_back_behind_what_it_has_read() {
    let mut told = ReportedP99::new();
    let old = told.set(10);
    let ticket = told.begin(SET);
    let unacknowledged = ticket.stamp.unwrap();
    assert_eq!(told.read_one(unacknowledged, 20), Judgement::Sound);
    assert_eq!(told.read(ReadConsistency::Session, value(old, 10)), broken(Violation::SessionBroken));
    assert_eq!(
        told.read(ReadConsistency::Quorum, value(old, 10)),
        Judgement::Sound,
        "nobody has acknowledged the newer"
    );
}

#[test]
fn what_was_deleted_stays_deleted_unless_a_write_explains_it() {
    let mut told = ReportedP99::new();
    let gone = told.set(10);
    told.write(DELETE, written(20));
    assert_eq!(told.read(ReadConsistency::Quorum, MISS), Judgement::Sound);
    assert_eq!(told.read(ReadConsistency::Quorum, value(gone, 10)), broken(Violation::Resurrected));
    assert!(matches!(told.read_one(gone, 10), Judgement::Stale(_)), "a replica has missed the deletion");
    assert_eq!(told.read_one(gone, 30), broken(Violation::Resurrected), "nobody has written it again");
    let again = told.set(40);
    assert_eq!(told.read_one(again, 40), Judgement::Sound);
}

#[test]
fn a_write_of_unknown_fate_may_happen_at_any_time_and_a_refused_one_never() {
    let mut told = ReportedP99::new();
    told.set(10);
    let unknown = told.write(SET, Ending::Unknown);
    let refused = told.write(SET, Ending::Failed);
    let doubtful = told.write(SET, Ending::Written { version: Some(WriteVersion::new(20)), doubtful: true });
    told.write(DELETE, written(30));
    assert_eq!(told.read_one(unknown, 40), Judgement::Sound);
    assert_eq!(told.read_one(doubtful, 50), Judgement::Sound, "its first try arrived late");
    assert_eq!(told.read_one(refused, 60), broken(Violation::Resurrected));
}

#[test]
fn a_deletion_of_unknown_fate_explains_a_miss() {
    let mut told = ReportedP99::new();
    told.set(10);
    assert_eq!(told.read(ReadConsistency::One, MISS), broken(Violation::Missing));
    told.write(DELETE, Ending::Failed);
    assert_eq!(told.read(ReadConsistency::One, MISS), broken(Violation::Missing), "it never happened");
    told.write(DELETE, Ending::Unknown);
    told.set(20);
    assert_eq!(told.read(ReadConsistency::One, MISS), Judgement::Sound);
}

#[test]
fn an_expired_value_may_be_missing_and_must_not_be_read() {
    let mut told = ReportedP99::new();
    let ttl = Some(Duration::from_secs(10));
    let stamp = told.write(Action::Set { writer: 0, ttl }, written(10));
    assert_eq!(told.read(ReadConsistency::One, MISS), broken(Violation::Missing), "too early");
    told.now = Duration::from_secs(10);
    assert_eq!(told.read(ReadConsistency::One, MISS), Judgement::Sound);
    assert_eq!(told.read_one(stamp, 10), Judgement::Sound, "about now");
    assert_eq!(told.read_one(stamp, 10), broken(Violation::Outlived));
    let older = Stamp { seq: 1, writer: Writer { run: 8, thread: 0 } };
    assert_eq!(told.read(ReadConsistency::Quorum, value(older, 9)), broken(Violation::Resurrected));
}

#[test]
fn a_version_belongs_to_one_write_and_never_changes() {
    let mut told = ReportedP99::new();
    let (one, two) = (told.set(10), told.set(20));
    assert_eq!(told.read_one(one, 20), broken(Violation::Corrupt), "one version, two writes");
    assert_eq!(told.read_one(two, 30), broken(Violation::VersionChanged));
    let ticket = told.begin(SET);
    assert_eq!(told.end(&ticket, written(15)), broken(Violation::OutOfOrder));
    let ticket = told.begin(SET);
    assert_eq!(told.end(&ticket, written(20)), broken(Violation::OutOfOrder));
}

#[test]
fn writes_that_overlap_may_be_acknowledged_in_any_order() {
    let mut told = ReportedP99::new();
    let (one, two) = (told.begin(SET), told.begin(SET));
    let reading = told.begin(Action::Get(ReadConsistency::Quorum));
    assert_eq!(told.end(&two, written(20)), Judgement::Sound);
    assert_eq!(told.end(&one, written(10)), Judgement::Sound);
    assert_eq!(told.history.floor(KEY).version(), WriteVersion::new(20));
    assert_eq!(told.end(&reading, value(one.stamp.unwrap(), 10)), Judgement::Sound, "it began before either");
    let late = told.read(ReadConsistency::Quorum, value(one.stamp.unwrap(), 10));
    assert_eq!(late, broken(Violation::StaleQuorum));
}

#[test]
fn values_of_another_run_are_told_apart() {
    let mut told = ReportedP99::new();
    let foreign = Stamp { writer: Writer { run: 8, thread: 0 }, seq: 99 };
    assert_eq!(told.read_one(foreign, 5), Judgement::Foreign { overwrites: false });
    told.set(10);
    assert!(matches!(told.read_one(foreign, 5), Judgement::Stale(_)));
    assert_eq!(told.read_one(foreign, 10), broken(Violation::Corrupt));
    assert_eq!(told.read_one(Stamp { writer: Writer { run: 7, thread: 0 }, seq: 2 }, 11), broken(Violation::Unwritten));
}

#[test]
fn a_target_without_versions_is_asked_only_for_what_was_written() {
    let mut told = ReportedP99::new();
    let unversioned = Ending::Written { version: None, doubtful: false };
    let stamp = told.write(SET, unversioned);
    told.write(SET, unversioned);
    let read = Ending::Value { proof: Proof::Genuine(stamp), version: None };
    assert_eq!(told.read(ReadConsistency::Quorum, read), Judgement::Sound);
    assert_eq!(told.read(ReadConsistency::One, MISS), broken(Violation::Missing));
}

#[test]
fn where_there_are_no_versions_time_tells_what_was_overwritten() {
    let mut told = ReportedP99::ordered_by(Order::Times);
    let unversioned = Ending::Written { version: None, doubtful: false };
    let read = |stamp| Ending::Value { proof: Proof::Genuine(stamp), version: None };
    let first = told.write(SET, unversioned);
    assert_eq!(told.read(ReadConsistency::Quorum, read(first)), Judgement::Sound);
    assert_eq!(told.read(ReadConsistency::Quorum, MISS), broken(Violation::Missing));
    // Two that overlap: either may be the later one, for ever.
    let (one, other) = (told.begin(SET), told.begin(SET));
    let both = [&one, &other].map(|ticket| ticket.stamp.unwrap());
    assert_eq!(told.end(&other, unversioned), Judgement::Sound);
    assert_eq!(told.end(&one, unversioned), Judgement::Sound);
    for _ in 0..5 {
        for stamp in both {
            assert_eq!(told.read(ReadConsistency::Quorum, read(stamp)), Judgement::Sound);
        }
    }
    assert_eq!(told.read(ReadConsistency::Quorum, read(first)), broken(Violation::StaleQuorum));
    assert!(matches!(told.read(ReadConsistency::One, read(first)), Judgement::Stale(_)));
    // One after both.
    told.write(SET, unversioned);
    for stamp in both {
        assert_eq!(told.read(ReadConsistency::Quorum, read(stamp)), broken(Violation::StaleQuorum));
    }
    // A deletion that overlaps a write explains that nothing is there, and no longer once another write has followed.
    let (set, delete) = (told.begin(SET), told.begin(DELETE));
    assert_eq!(told.end(&delete, unversioned), Judgement::Sound);
    assert_eq!(told.end(&set, unversioned), Judgement::Sound);
    assert_eq!(told.read(ReadConsistency::Quorum, MISS), Judgement::Sound);
    assert_eq!(told.read(ReadConsistency::Quorum, read(set.stamp.unwrap())), Judgement::Sound);
    let last = told.write(SET, unversioned);
    assert_eq!(told.read(ReadConsistency::Quorum, MISS), broken(Violation::Missing));
    // What was deleted stays deleted, and what nobody wrote is wrong as everywhere.
    told.write(DELETE, unversioned);
    assert_eq!(told.read(ReadConsistency::Quorum, read(last)), broken(Violation::Resurrected));
    let never = Stamp { seq: 99, ..last };
    assert_eq!(told.read(ReadConsistency::One, read(never)), broken(Violation::Unwritten));
}

#[test]
fn too_many_open_writes_make_a_key_lenient_and_no_other() {
    let mut told = ReportedP99::new();
    let first = told.set(10);
    for _ in 0..200 {
        told.write(SET, Ending::Unknown);
    }
    assert_eq!((told.history.lenient(), told.history.acknowledged(), told.history.sent()), (1, 1, 201));
    assert_eq!(told.read(ReadConsistency::One, MISS), Judgement::Sound, "it might have been one of those forgotten");
    assert_eq!(told.read_one(first, 10), Judgement::Sound);
}
