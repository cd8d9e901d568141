//! The rules: what an answer may be, given what had been acknowledged before the operation began and what may have happened
//! since. Pure decisions; DESIGN's G1 to G5 are the yardstick.

use std::time::Duration;

use parking_lot::Mutex;

use super::{
    Action, Judgement, Ticket, Violation,
    key::{Floor, KeyState, may_expire},
    open::{Mark, OpenWrites, WriteStatus},
    order::Order,
};
use crate::{Proof, Stamp, WriteVersion, target::ReadConsistency};

/// A read, and what it is judged by.
pub(super) struct Reading<'a> {
    pub(super) ticket: &'a Ticket,
    pub(super) ended: Duration,
    pub(super) allowance: Duration,
    pub(super) order: Order,
}

/// Judges a value. `announced` says whether a write of this run was ever sent; nothing for one of another run.
pub(super) fn judge_value(
    reading: &Reading<'_>,
    (proof, version): (Proof, Option<WriteVersion>),
    announced: impl Fn(Stamp) -> Option<bool>,
    now: &KeyState,
    open: &Mutex<OpenWrites>,
) -> Judgement {
    let (stamp, is_ours) = match written(proof, announced) {
        Ok(written) => written,
        Err(violation) => return Judgement::Broken(violation),
    };
    let Ticket { floor, operation, session_floor, .. } = reading.ticket;
    // A target that names no versions cannot be asked for more than a value that somebody wrote.
    let Some(version) = version else { return Judgement::Sound };
    if floor.exists() && version < floor.version() {
        return judge_old(reading, version);
    }
    if operation.action == Action::Get(ReadConsistency::Session) && version < *session_floor {
        return Judgement::Broken(Violation::SessionBroken);
    }
    // The values of another run were written by nobody we know: all that can be said is that they are not older.
    if !is_ours {
        return if floor.exists() && version == floor.version() {
            Judgement::Broken(Violation::Corrupt)
        } else {
            Judgement::Foreign { overwrites: floor.exists() }
        };
    }
    let mark = Mark::of(stamp);
    if floor.exists() && version == floor.version() {
        return judge_floor(reading, mark);
    }
    judge_newer(mark, version, now, open)
}

/// Judges a value of a target that names no versions and has one copy of each key: it is of the newest write that was acknowledged before
/// the read began, or of one that may have taken effect after that.
pub(super) fn judge_unversioned(
    reading: &Reading<'_>,
    proof: Proof,
    announced: impl Fn(Stamp) -> Option<bool>,
    now: &KeyState,
    open: &Mutex<OpenWrites>,
) -> Judgement {
    let floor = &reading.ticket.floor;
    let mark = match written(proof, announced) {
        Ok((stamp, true)) => Mark::of(stamp),
        Ok((_, false)) => return Judgement::Foreign { overwrites: floor.exists() },
        Err(violation) => return Judgement::Broken(violation),
    };
    if floor.is_write(mark) {
        return judge_floor(reading, mark);
    }
    if now.floor().is_write(mark) || now.is_lenient() {
        return Judgement::Sound;
    }
    let is_explained =
        open.lock().of(now.head()).filter(|write| write.mark == mark && !write.deletes).any(|write| match write.fate {
            WriteStatus::InFlight | WriteStatus::Unknown => true,
            WriteStatus::Acknowledged { version, .. } => reading.order.may_follow(version, floor),
        });
    match (is_explained, floor.exists()) {
        (true, _) => Judgement::Sound,
        (false, true) => judge_old(reading, WriteVersion::ZERO),
        (false, false) => Judgement::Broken(Violation::Resurrected),
    }
}

/// The write that a value is of, and whether this run made it; or why nobody can have written it.
fn written(proof: Proof, announced: impl Fn(Stamp) -> Option<bool>) -> Result<(Stamp, bool), Violation> {
    match proof {
        Proof::Genuine(stamp) => match announced(stamp) {
            Some(false) => Err(Violation::Unwritten),
            known => Ok((stamp, known.is_some())),
        },
        Proof::WrongObject => Err(Violation::WrongObject),
        Proof::Corrupt => Err(Violation::Corrupt),
    }
}

/// An older value than one that was acknowledged before the read began.
fn judge_old(reading: &Reading<'_>, version: WriteVersion) -> Judgement {
    let Ticket { floor, operation, session_floor, .. } = reading.ticket;
    let Action::Get(consistency) = operation.action else { return Judgement::Sound };
    match consistency {
        ReadConsistency::Quorum if floor.must_be_gone(operation.began, reading.allowance) => {
            Judgement::Broken(Violation::Resurrected)
        }
        ReadConsistency::Quorum => Judgement::Broken(Violation::StaleQuorum),
        ReadConsistency::Session if version < *session_floor => Judgement::Broken(Violation::SessionBroken),
        ReadConsistency::One | ReadConsistency::Session => {
            Judgement::Stale(operation.began.saturating_sub(floor.acknowledged_at()))
        }
    }
}

/// The very version that was acknowledged last.
fn judge_floor(reading: &Reading<'_>, mark: Mark) -> Judgement {
    let floor = &reading.ticket.floor;
    if !floor.is_write(mark) {
        Judgement::Broken(Violation::Corrupt)
    } else if floor.must_have_expired(reading.ticket.operation.began, reading.allowance) {
        Judgement::Broken(Violation::Outlived)
    } else {
        Judgement::Sound
    }
}

/// A newer version than any that was acknowledged before the read began. Some write must explain it: one in flight, one of
/// unknown fate, or one that was acknowledged since.
fn judge_newer(mark: Mark, version: WriteVersion, now: &KeyState, open: &Mutex<OpenWrites>) -> Judgement {
    let newest = now.floor();
    if newest.exists() && newest.version() == version {
        return if newest.is_write(mark) { Judgement::Sound } else { Judgement::Broken(Violation::Corrupt) };
    }
    // On its way to the version it was acknowledged with, a write may have been tried with lower ones.
    if newest.is_write(mark) && version < newest.version() {
        return Judgement::Sound;
    }
    if now.is_lenient() {
        return Judgement::Sound;
    }
    let is_explained =
        open.lock().of(now.head()).filter(|write| write.mark == mark && !write.deletes).any(|write| match write.fate {
            WriteStatus::InFlight | WriteStatus::Unknown => true,
            WriteStatus::Acknowledged { version: acknowledged, .. } => version <= acknowledged,
        });
    if is_explained {
        Judgement::Sound
    } else if newest.is_write(mark) {
        Judgement::Broken(Violation::VersionChanged)
    } else {
        Judgement::Broken(Violation::Resurrected)
    }
}

/// Judges a miss: if a value had been acknowledged, something must have taken it away.
pub(super) fn judge_miss(reading: &Reading<'_>, now: &KeyState, open: &Mutex<OpenWrites>) -> Judgement {
    let (floor, by) = (&reading.ticket.floor, reading.ended);
    let is_gone = |floor: &Floor| !floor.exists() || floor.may_be_gone(by, reading.allowance);
    if is_gone(floor) || is_gone(&now.floor()) || now.is_lenient() {
        return Judgement::Sound;
    }
    let takes_away = open.lock().of(now.head()).any(|write| {
        let is_newer = match write.fate {
            WriteStatus::InFlight | WriteStatus::Unknown => true,
            WriteStatus::Acknowledged { version, .. } => reading.order.may_follow(version, floor),
        };
        is_newer && (write.deletes || may_expire(write.began_ns, write.ttl_ms, by, reading.allowance))
    });
    if takes_away { Judgement::Sound } else { Judgement::Broken(Violation::Missing) }
}

/// Judges an acknowledged write: its version is above all that were acknowledged before it began, and it is its own.
pub(super) fn judge_write(ticket: &Ticket, version: WriteVersion, now: &KeyState) -> Judgement {
    let above = !ticket.floor.exists() || version > ticket.floor.version();
    let unique = !now.floor().exists() || version != now.floor().version();
    // A target that names no versions is not asked for their order.
    if version == WriteVersion::ZERO || (above && unique) {
        Judgement::Sound
    } else {
        Judgement::Broken(Violation::OutOfOrder)
    }
}
