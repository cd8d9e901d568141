//! Group commit: writes of one key that wait at the same worker go out as one. While one is in flight, later ones queue. When it
//! ends, the last of them goes out. The others take effect just before it, share its outcome, and are never sent.

use std::sync::Arc;

use bytes::Bytes;
use mesh_proto::{KeyHash, Mutant, Version};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{WriteError, Written};

/// How many keys can be written as groups at the same time. A write whose place has another key goes out alone.
const PLACES: usize = 1024;

/// How many writes one can carry: as many as versions have room for just before its own.
const CARRIED_MAX: usize = Version::BEFORE_MAX as usize;

/// A worker's writes in flight, as far as others may wait for them.
pub(crate) struct Groups {
    places: Box<[Mutex<QueuePlace>]>,
}

#[derive(Default)]
struct QueuePlace {
    /// What the write in flight here writes.
    key: Option<KeyHash>,
    /// Those that wait for it, in the order they came.
    queue: Vec<Queued>,
}

struct Queued {
    key: Bytes,
    told: oneshot::Sender<GroupOutcome>,
}

/// What a write is to do.
pub(crate) enum WriteTurn {
    /// Go out now; with the lead of its key's next group unless another key has its place.
    Go(Option<Lead>),
    /// Wait for word.
    Wait(oneshot::Receiver<GroupOutcome>),
}

/// What becomes of a write that has waited.
pub(crate) enum GroupOutcome {
    /// It goes out now.
    Go(Lead),
    /// Another one has carried it.
    Carried(Result<Written, WriteError>),
}

/// The right of a write to go out, while later ones of its key wait. If its caller goes away, those that it carries wait again.
pub(crate) struct Lead {
    groups: Arc<Groups>,
    place: usize,
    /// In the order they came.
    carried: Vec<Queued>,
}

impl Groups {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { places: (0..PLACES).map(|_| Mutex::default()).collect() })
    }

    /// A write of this key wants to go out.
    pub(crate) fn enter(self: &Arc<Self>, hash: KeyHash, key: &Bytes) -> WriteTurn {
        // The low bits: slots are made of the high ones, and 1024 places are few enough to fit any `usize`.
        let at = (hash.get() % PLACES as u64) as usize;
        let mut place = self.places[at].lock();
        match place.key {
            None => {
                place.key = Some(hash);
                WriteTurn::Go(Some(Lead { groups: Arc::clone(self), place: at, carried: Vec::new() }))
            }
            Some(other) if other == hash && place.queue.len() < CARRIED_MAX => {
                let (told, waits) = oneshot::channel();
                place.queue.push(Queued { key: key.clone(), told });
                WriteTurn::Wait(waits)
            }
            Some(_) => WriteTurn::Go(None),
        }
    }
}

impl Lead {
    /// The write has ended; so have those that it carries, which took effect just before it, one after the other. If only it was too
    /// large they wait again.
    pub(crate) fn end(mut self, result: Result<Written, WriteError>) {
        if result == Err(WriteError::TooLarge) {
            return;
        }
        for (places, queued) in (1..).zip(std::mem::take(&mut self.carried).into_iter().rev()) {
            let result = match result {
                Ok(Written { version }) => Ok(Written { version: version.before(places) }),
                Err(WriteError::Indeterminate { version, .. }) if Mutant::CarriedRegardless.is_planted() => {
                    Ok(Written { version: version.before(places) })
                }
                Err(WriteError::Indeterminate { acks, needed, version }) => {
                    Err(WriteError::Indeterminate { acks, needed, version: version.before(places) })
                }
                Err(error) => Err(error),
            };
            // Its caller may be gone.
            let _ = queued.told.send(GroupOutcome::Carried(result));
        }
    }
}

impl Drop for Lead {
    /// Passes the lead to the last one that waits and is still there, which carries the others of its key.
    fn drop(&mut self) {
        let (last, carried) = {
            let mut place = self.groups.places[self.place].lock();
            let mut waiting = std::mem::take(&mut self.carried);
            waiting.append(&mut place.queue);
            waiting.retain(|queued| !queued.told.is_closed());
            let Some(last) = waiting.pop() else {
                place.key = None;
                return;
            };
            // Hashes of keys may be the same; keys are not.
            let (mut same, mut other): (Vec<_>, Vec<_>) =
                waiting.into_iter().partition(|queued| queued.key == last.key);
            let surplus = same.len().saturating_sub(CARRIED_MAX);
            other.extend(same.drain(..surplus));
            place.queue = other;
            (last, same)
        };
        let lead = Self { groups: Arc::clone(&self.groups), place: self.place, carried };
        // If its caller has just gone the lead comes back, and is dropped and passed on once more.
        drop(last.told.send(GroupOutcome::Go(lead)));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn enter(groups: &Arc<Groups>, key: &'static str) -> WriteTurn {
        groups.enter(KeyHash::of(b"the same for all"), &Bytes::from_static(key.as_bytes()))
    }

    fn lead(groups: &Arc<Groups>, key: &'static str) -> Lead {
        match enter(groups, key) {
            WriteTurn::Go(Some(lead)) => lead,
            _ => panic!("another write is in flight"),
        }
    }

    fn wait(groups: &Arc<Groups>, key: &'static str) -> oneshot::Receiver<GroupOutcome> {
        match enter(groups, key) {
            WriteTurn::Wait(told) => told,
            WriteTurn::Go(_) => panic!("no write is in flight"),
        }
    }

    /// The lead, if it has come.
    fn led(waits: &mut oneshot::Receiver<GroupOutcome>) -> Option<Lead> {
        match waits.try_recv().ok()? {
            GroupOutcome::Go(lead) => Some(lead),
            GroupOutcome::Carried(result) => panic!("{result:?}"),
        }
    }

    fn carried(waits: &mut oneshot::Receiver<GroupOutcome>) -> Result<Version, WriteError> {
        match waits.try_recv().unwrap() {
            GroupOutcome::Carried(result) => result.map(|written| written.version),
            GroupOutcome::Go(_) => panic!("it leads"),
        }
    }

    const WRITTEN: Result<Written, WriteError> = Ok(Written { version: Version::new(1 << 64 | 1023) });

    #[test]
    fn the_last_that_waits_carries_the_others_which_stand_just_before_it() {
        let groups = Groups::new();
        let first = lead(&groups, "k");
        let mut waiting: Vec<_> = (0..4).map(|_| wait(&groups, "k")).collect();
        first.end(WRITTEN);
        let second = led(&mut waiting[3]).unwrap();
        assert_eq!(second.carried.len(), 3);
        let mut late = wait(&groups, "k");
        second.end(WRITTEN);
        let versions: Vec<_> = waiting[..3].iter_mut().map(|waits| carried(waits).unwrap().get() - (1 << 64)).collect();
        assert_eq!(versions, [1020, 1021, 1022]);
        led(&mut late).unwrap().end(WRITTEN);
        lead(&groups, "k").end(WRITTEN);
    }

    #[test]
    fn what_becomes_of_the_carrier_becomes_of_those_it_carries() {
        let version = Version::new(1023);
        let indeterminate = |version| WriteError::Indeterminate { acks: 1, needed: 2, version };
        for (of_carrier, of_carried) in [
            (indeterminate(version), indeterminate(version.before(1))),
            (WriteError::NoQuorum { reachable: 1, needed: 2 }, WriteError::NoQuorum { reachable: 1, needed: 2 }),
            (WriteError::Drift, WriteError::Drift),
        ] {
            let groups = Groups::new();
            let first = lead(&groups, "k");
            let (mut one, mut two) = (wait(&groups, "k"), wait(&groups, "k"));
            first.end(WRITTEN);
            led(&mut two).unwrap().end(Err(of_carrier));
            assert_eq!(carried(&mut one), Err(of_carried));
        }
    }

    #[test]
    fn a_carrier_that_is_too_large_takes_nobody_with_it() {
        let groups = Groups::new();
        let first = lead(&groups, "k");
        let (mut small, mut large) = (wait(&groups, "k"), wait(&groups, "k"));
        first.end(WRITTEN);
        led(&mut large).unwrap().end(Err(WriteError::TooLarge));
        led(&mut small).unwrap().end(WRITTEN);
    }

    #[test]
    fn callers_that_go_away_hold_up_nobody() {
        let groups = Groups::new();
        let first = lead(&groups, "k");
        let (mut one, mut two, three) = (wait(&groups, "k"), wait(&groups, "k"), wait(&groups, "k"));
        drop(three);
        drop(first);
        let second = led(&mut two).unwrap();
        assert_eq!(second.carried.len(), 1, "the one that is gone is not carried");
        drop(second);
        let third = led(&mut one).unwrap();
        // Its word has come, but its caller goes before it looks.
        let four = wait(&groups, "k");
        drop(third);
        drop(four);
        lead(&groups, "k").end(WRITTEN);
    }

    #[test]
    fn another_key_is_not_carried_and_one_elsewhere_does_not_wait() {
        let groups = Groups::new();
        let first = lead(&groups, "k");
        let (mut one, mut other, mut two) = (wait(&groups, "k"), wait(&groups, "other"), wait(&groups, "k"));
        let elsewhere = KeyHash::new(KeyHash::of(b"the same for all").get() ^ 1 << 63);
        assert!(matches!(groups.enter(elsewhere, &Bytes::from_static(b"elsewhere")), WriteTurn::Go(None)));
        first.end(WRITTEN);
        led(&mut two).unwrap().end(WRITTEN);
        assert!(carried(&mut one).is_ok());
        led(&mut other).unwrap().end(WRITTEN);
    }

    #[test]
    fn no_more_are_carried_than_versions_have_room_for() {
        let groups = Groups::new();
        let first = lead(&groups, "k");
        let mut waiting: Vec<_> = (0..CARRIED_MAX).map(|_| wait(&groups, "k")).collect();
        assert!(matches!(enter(&groups, "k"), WriteTurn::Go(None)), "the queue is full");
        first.end(WRITTEN);
        let second = led(&mut waiting[CARRIED_MAX - 1]).unwrap();
        let mut later: Vec<_> = (0..CARRIED_MAX).map(|_| wait(&groups, "k")).collect();
        // Those that it was to carry wait again, with the later ones.
        drop(second);
        let third = led(&mut later[CARRIED_MAX - 1]).unwrap();
        assert_eq!(third.carried.len(), CARRIED_MAX);
        third.end(WRITTEN);
        let mut rest: usize = 0;
        for waits in &mut waiting {
            rest += usize::from(matches!(waits.try_recv(), Ok(GroupOutcome::Carried(_))));
        }
        assert_eq!(rest, 1, "the newest of the older ones");
    }
}
