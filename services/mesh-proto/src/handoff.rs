//! Hinted handoff: writes that a peer has missed, kept until it can take them. A hint is never an acknowledgement; it only
//! brings a peer back in sync sooner than comparing digests would.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use bytes::Bytes;

use crate::{Body, Monotonic, NodeId, Record, Version};

/// What a hint is charged for beyond key and value, in bytes: its record, its places in two maps, and what an allocator adds.
pub const HINT_OVERHEAD_BYTES: u64 = 256;

/// The bounds of one peer's queue. Beyond either the whole queue is dropped and the peer is due a full comparison: a part
/// of a queue would save nothing, as then all has to be compared anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HintLimits {
    /// Keys, values and book-keeping.
    pub bytes_max: u64,
    /// How old the oldest hint may become. Tombstones are kept for longer.
    pub age_max: Duration,
}

impl Default for HintLimits {
    /// 64 MiB and 10 minutes.
    fn default() -> Self {
        Self { bytes_max: 64 << 20, age_max: Duration::from_secs(600) }
    }
}

/// Why hints were dropped instead of delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HintDrop {
    /// The queue had no room for one more.
    Overflow,
    /// The oldest was too old.
    Age,
    /// The ring has moved: the peer does not own the slot any more.
    NotOwner,
    /// The peer refuses it for good: its clock is too far behind, or it has no room for a record of this size.
    Refused,
    /// The peer is due a full comparison, which makes the hint superfluous.
    FullSync,
}

/// A queue that was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DroppedQueue {
    /// Whose.
    pub peer: NodeId,
    /// Why.
    pub reason: HintDrop,
    /// How many hints.
    pub hints: u64,
    /// What they were charged for.
    pub bytes: u64,
}

/// Totals since the start, and what is queued now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HintStats {
    /// Hints queued now, for all peers.
    pub queued: u64,
    /// What they are charged for.
    pub queued_bytes: u64,
    /// The age of the oldest.
    pub oldest_age: Duration,
    /// Hints that a peer has taken, or had something newer for.
    pub replayed: u64,
    /// Dropped for [`HintDrop::Overflow`].
    pub dropped_overflow: u64,
    /// Dropped for [`HintDrop::Age`].
    pub dropped_age: u64,
    /// Dropped for [`HintDrop::NotOwner`].
    pub dropped_not_owner: u64,
    /// Dropped for [`HintDrop::Refused`].
    pub dropped_refused: u64,
    /// Dropped for [`HintDrop::FullSync`].
    pub dropped_full_sync: u64,
}

impl HintStats {
    /// Dropped for whatever reason.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped_overflow
            + self.dropped_age
            + self.dropped_not_owner
            + self.dropped_refused
            + self.dropped_full_sync
    }
}

/// What is queued for one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerHints {
    /// The peer.
    pub peer: NodeId,
    /// Hints queued now.
    pub queued: u64,
    /// What they are charged for.
    pub queued_bytes: u64,
    /// The age of the oldest.
    pub oldest_age: Duration,
    /// Whether its queue was dropped and not yet made up for by a comparison.
    pub needs_full_sync: bool,
}

/// All peers' hints.
///
/// A missed write goes in through [`Hints::handle_missed`]. While the peer can be reached, [`Hints::poll`] gives hints to
/// send, oldest first, each once; every one of them is then settled by [`Hints::handle_delivered`],
/// [`Hints::handle_unwanted`] or [`Hints::handle_undelivered`].
#[derive(Debug)]
pub struct Hints {
    limits: HintLimits,
    queues: BTreeMap<NodeId, HandoffQueue>,
    totals: HintStats,
    discarded: Vec<HandoffQueue>,
}

/// Queues that were given up and take a while to free.
#[derive(Debug)]
pub struct DiscardedHints(#[expect(dead_code, reason = "held only to be dropped")] Vec<HandoffQueue>);

#[derive(Debug, Default)]
struct HandoffQueue {
    /// By key, for coalescing: where in `hints`.
    places: HashMap<Bytes, u64>,
    /// In the order they came.
    hints: BTreeMap<u64, Hint>,
    /// Those of `hints` that are not under way.
    waiting: BTreeSet<u64>,
    next: u64,
    bytes: u64,
    needs_full_sync: bool,
}

#[derive(Debug)]
struct Hint {
    record: Record,
    since: Monotonic,
}

impl Hints {
    /// No hints for anybody.
    #[must_use]
    pub const fn new(limits: HintLimits) -> Self {
        Self { limits, queues: BTreeMap::new(), totals: NO_TOTALS, discarded: Vec::new() }
    }

    /// `peer` has not confirmed this record; it may or may not have it. Key and value are copied: those of a record are
    /// often views of a network buffer, which a hint would keep alive for minutes. Says if that was one too many.
    pub fn handle_missed(&mut self, now: Monotonic, peer: NodeId, record: &Record) -> Option<DroppedQueue> {
        let queue = self.queues.entry(peer).or_default();
        if queue.needs_full_sync {
            self.totals.dropped_full_sync += 1;
            return None;
        }
        let replaced =
            queue.places.get(&record.key).and_then(|place| queue.hints.get(place).map(|hint| (*place, hint)));
        if let Some((place, hint)) = replaced {
            if hint.record.version >= record.version {
                return None;
            }
            queue.remove(place);
        }
        if queue.bytes + charge(record) > self.limits.bytes_max {
            // The one that had no room is lost as well.
            self.totals.dropped_overflow += 1;
            return Some(self.drop_queue(peer, HintDrop::Overflow));
        }
        queue.insert(copy(record), now);
        None
    }

    /// Drops the queues whose oldest hint is too old.
    pub fn handle_time(&mut self, now: Monotonic) -> Vec<DroppedQueue> {
        let age_max = self.limits.age_max;
        let is_old = |queue: &HandoffQueue| queue.oldest_age(now) > age_max;
        let old: Vec<NodeId> = self.queues.iter().filter(|(_, queue)| is_old(queue)).map(|(peer, _)| *peer).collect();
        old.into_iter().map(|peer| self.drop_queue(peer, HintDrop::Age)).collect()
    }

    /// The oldest hint for `peer` that is not under way; from now on it is.
    pub fn poll(&mut self, peer: NodeId) -> Option<Record> {
        let queue = self.queues.get_mut(&peer)?;
        let place = queue.waiting.pop_first()?;
        queue.hints.get(&place).map(|hint| hint.record.clone())
    }

    /// The peer has taken the record, or has something newer.
    pub fn handle_delivered(&mut self, peer: NodeId, key: &[u8], version: Version) {
        self.totals.replayed += 1;
        self.settle(peer, key, version);
    }

    /// The peer is not to have the record, or cannot.
    pub fn handle_unwanted(&mut self, peer: NodeId, key: &[u8], version: Version, reason: HintDrop) {
        if self.settle(peer, key, version) {
            self.count_dropped(reason, 1);
        }
    }

    /// No verdict: the hint waits again, in its old place.
    pub fn handle_undelivered(&mut self, peer: NodeId, key: &[u8], version: Version) {
        if let Some(queue) = self.queues.get_mut(&peer)
            && let Some(place) = queue.place_of(key, version)
        {
            queue.waiting.insert(place);
        }
    }

    /// Peers with hints that wait.
    #[must_use]
    pub fn waiting(&self) -> Vec<NodeId> {
        self.queues.iter().filter(|(_, queue)| !queue.waiting.is_empty()).map(|(peer, _)| *peer).collect()
    }

    /// Peers whose queue was dropped and that have not been compared with since.
    #[must_use]
    pub fn full_syncs_due(&self) -> Vec<NodeId> {
        self.queues.iter().filter(|(_, queue)| queue.needs_full_sync).map(|(peer, _)| *peer).collect()
    }

    /// A comparison with `peer` is about to begin. It covers what was missed so far; from now on hints are kept again.
    pub fn handle_full_sync_started(&mut self, peer: NodeId) {
        if let Some(queue) = self.queues.get_mut(&peer) {
            queue.needs_full_sync = false;
        }
    }

    /// That comparison came to nothing: it is due again, and covers what has been queued meanwhile.
    pub fn handle_full_sync_failed(&mut self, peer: NodeId) {
        self.drop_queue(peer, HintDrop::FullSync);
    }

    /// Drops the queues of peers that `is_member` does not know any more: they own nothing.
    pub fn retain_members(&mut self, is_member: impl Fn(NodeId) -> bool) {
        let gone: Vec<NodeId> = self.queues.keys().copied().filter(|peer| !is_member(*peer)).collect();
        for peer in gone {
            self.drop_queue(peer, HintDrop::NotOwner);
            self.queues.remove(&peer);
        }
    }

    /// What was given up, to be dropped where nobody waits for it. To be called regularly.
    #[must_use]
    pub fn take_discarded(&mut self) -> DiscardedHints {
        DiscardedHints(std::mem::take(&mut self.discarded))
    }

    /// Totals and sums.
    #[must_use]
    pub fn stats(&self, now: Monotonic) -> HintStats {
        self.queues.values().fold(self.totals, |stats, queue| HintStats {
            queued: stats.queued + queue.hints.len() as u64,
            queued_bytes: stats.queued_bytes + queue.bytes,
            oldest_age: stats.oldest_age.max(queue.oldest_age(now)),
            ..stats
        })
    }

    /// What is queued, by peer. A peer that ever had a hint is listed until it is no member any more.
    #[must_use]
    pub fn by_peer(&self, now: Monotonic) -> Vec<PeerHints> {
        let view = |(peer, queue): (&NodeId, &HandoffQueue)| PeerHints {
            peer: *peer,
            queued: queue.hints.len() as u64,
            queued_bytes: queue.bytes,
            oldest_age: queue.oldest_age(now),
            needs_full_sync: queue.needs_full_sync,
        };
        self.queues.iter().map(view).collect()
    }

    /// Whether this very hint was still there. A newer one that has come meanwhile stays.
    fn settle(&mut self, peer: NodeId, key: &[u8], version: Version) -> bool {
        let Some(queue) = self.queues.get_mut(&peer) else { return false };
        let Some(place) = queue.place_of(key, version) else { return false };
        queue.remove(place);
        true
    }

    fn drop_queue(&mut self, peer: NodeId, reason: HintDrop) -> DroppedQueue {
        let queue = self.queues.entry(peer).or_default();
        // Hints under way may still be delivered; their verdicts find nothing and change nothing.
        let dropped = std::mem::replace(
            queue,
            HandoffQueue { needs_full_sync: true, next: queue.next, ..HandoffQueue::default() },
        );
        let hints = dropped.hints.len() as u64;
        let bytes = dropped.bytes;
        self.discarded.push(dropped);
        self.count_dropped(reason, hints);
        DroppedQueue { peer, reason, hints, bytes }
    }

    const fn count_dropped(&mut self, reason: HintDrop, hints: u64) {
        let total = match reason {
            HintDrop::Overflow => &mut self.totals.dropped_overflow,
            HintDrop::Age => &mut self.totals.dropped_age,
            HintDrop::NotOwner => &mut self.totals.dropped_not_owner,
            HintDrop::Refused => &mut self.totals.dropped_refused,
            HintDrop::FullSync => &mut self.totals.dropped_full_sync,
        };
        *total += hints;
    }
}

const NO_TOTALS: HintStats = HintStats {
    queued: 0,
    queued_bytes: 0,
    oldest_age: Duration::ZERO,
    replayed: 0,
    dropped_overflow: 0,
    dropped_age: 0,
    dropped_not_owner: 0,
    dropped_refused: 0,
    dropped_full_sync: 0,
};

impl HandoffQueue {
    fn insert(&mut self, record: Record, since: Monotonic) {
        let place = self.next;
        self.next += 1;
        self.bytes += charge(&record);
        self.places.insert(record.key.clone(), place);
        self.hints.insert(place, Hint { record, since });
        self.waiting.insert(place);
    }

    fn remove(&mut self, place: u64) {
        let Some(hint) = self.hints.remove(&place) else { return };
        self.waiting.remove(&place);
        self.places.remove(&hint.record.key);
        self.bytes -= charge(&hint.record);
    }

    fn place_of(&self, key: &[u8], version: Version) -> Option<u64> {
        let place = *self.places.get(key)?;
        self.hints.get(&place).is_some_and(|hint| hint.record.version == version).then_some(place)
    }

    fn oldest_age(&self, now: Monotonic) -> Duration {
        self.hints.first_key_value().map_or(Duration::ZERO, |(_, hint)| now.since(hint.since))
    }
}

fn charge(record: &Record) -> u64 {
    (record.key.len() + record.value_bytes()) as u64 + HINT_OVERHEAD_BYTES
}

/// The record with a key and value of its own.
fn copy(record: &Record) -> Record {
    let body = match &record.body {
        Body::Value(value) => Body::Value(Bytes::copy_from_slice(value)),
        Body::Tombstone => Body::Tombstone,
        Body::Expired => Body::Expired,
    };
    Record { key: Bytes::copy_from_slice(&record.key), body, ..*record }
}

#[cfg(test)]
mod tests;
