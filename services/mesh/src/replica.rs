//! This node's own replica: its records, which slots are in sync, and the clock that stamps and checks versions.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use arc_swap::ArcSwap;
use mesh_proto::{
    Agreement, Applied, ApplyOrigin, DriftRefused, Found, HybridClock, KeyHash, Monotonic, Mutant, NodeId, ReadAnswer,
    Record, Slot, SlotSync, Store, UnixMillis, Version, WriteAnswer,
};
use parking_lot::Mutex;

use crate::{Config, clock::Clock};

/// A clock that moves by no more than this is not taken to have been set.
const CLOCK_STEP_MAX_MS: u64 = 100;

/// One node's replica.
pub(crate) struct Replica {
    id: NodeId,
    /// Random per process start.
    start: u64,
    clock: Clock,
    pub(crate) store: Store,
    pub(crate) sync: SlotSync,
    /// What tombstones wait for. Locked by upkeep alone.
    pub(crate) agreement: Mutex<Agreement>,
    /// Replaced when the wall clock was set back.
    versions: ArcSwap<HybridClock>,
    /// See [`Replica::handle_clock_confirmed`]. At first no clock is near it.
    confirmed_ms: AtomicI64,
}

/// Whether a clock has not been set between these two offsets.
const fn is_near(one_ms: i64, other_ms: i64) -> bool {
    one_ms.abs_diff(other_ms) <= CLOCK_STEP_MAX_MS
}

/// What versions end in: never the same for two nodes, two process starts or two clocks.
fn writer(id: NodeId, start: u64, since: Monotonic) -> u64 {
    let since_ns = u64::try_from(since.since_start().as_nanos()).unwrap_or(u64::MAX);
    KeyHash::of(&[id.get().to_le_bytes(), start.wrapping_add(since_ns).to_le_bytes()].concat()).get()
}

impl Replica {
    pub(crate) fn new(config: &Config, id: NodeId, start: u64, clock: Clock) -> Self {
        Self {
            id,
            start,
            clock,
            store: Store::new(&config.store),
            sync: SlotSync::default(),
            agreement: Mutex::new(Agreement::new(config.tombstone_margin())),
            versions: ArcSwap::from_pointee(HybridClock::new(writer(id, start, Monotonic::default()))),
            confirmed_ms: AtomicI64::new(i64::MIN),
        }
    }

    /// What this node's own replica says about a key. Only an owner may be asked.
    pub(crate) fn read(&self, slot: Slot, hash: KeyHash, key: &[u8]) -> ReadAnswer {
        match self.store.get(hash, key, self.clock.unix()) {
            Found::Value { version, expiry, value } => {
                ReadAnswer::Value { version, expiry, value, in_sync: self.sync.is_in_sync(slot) }
            }
            _ if !self.sync.is_in_sync(slot) && !Mutant::MissWhenEmpty.is_planted() => ReadAnswer::Unknown,
            Found::Gone { version } => ReadAnswer::Gone { version },
            Found::Absent => ReadAnswer::Absent,
        }
    }

    /// A version above all that this node has given or met.
    pub(crate) fn tick(&self) -> Version {
        self.versions.load().tick(self.clock.unix())
    }

    /// A version that another node has given: later ones of this node are above it.
    ///
    /// # Errors
    /// [`DriftRefused`] if it is too far ahead of this node's clock.
    pub(crate) fn observe(&self, version: Version, now: UnixMillis) -> Result<(), DriftRefused> {
        self.versions.load().observe(version, now)
    }

    /// By how much the wall clock is ahead of the process's own time: constant, unless it is set.
    pub(crate) fn clock_offset_ms(&self) -> i64 {
        let own_ms = i64::try_from(self.clock.now().since_start().as_millis()).unwrap_or(i64::MAX);
        i64::try_from(self.clock.unix().get()).unwrap_or(i64::MAX).saturating_sub(own_ms)
    }

    /// Whether the wall clock is as it was when another owner last took a write that was stamped by it.
    pub(crate) fn is_in_step(&self) -> bool {
        // Relaxed, here and below: an old figure makes a write wait for another owner, no more.
        is_near(self.confirmed_ms.load(Ordering::Relaxed), self.clock_offset_ms())
    }

    /// Another owner has taken a write that was stamped while the wall clock was ahead by so much.
    pub(crate) fn handle_clock_confirmed(&self, offset_ms: i64) {
        if !is_near(self.confirmed_ms.load(Ordering::Relaxed), offset_ms) {
            self.confirmed_ms.store(offset_ms, Ordering::Relaxed);
        }
    }

    /// If the wall clock was set back, makes versions by it again: what was stamped since has been refused everywhere. A key's
    /// owners see to it that a write is newer than what they hold, so nothing goes back. Whether it was.
    pub(crate) fn follow_wall_clock(&self) -> bool {
        let is_set_back = self.versions.load().is_left_ahead(self.clock.unix());
        if is_set_back {
            // What is being stamped meanwhile has the old writer: never the same as anything new.
            let since = self.clock.now();
            self.versions.store(Arc::new(HybridClock::new(writer(self.id, self.start, since))));
        }
        is_set_back
    }

    /// Applies a write.
    ///
    /// # Errors
    /// [`DriftRefused`] if its version is too far ahead of this node's clock.
    pub(crate) fn write(&self, record: &Record) -> Result<WriteAnswer, DriftRefused> {
        // Before the record is applied: what is newer may come with the rest of the slot only afterwards.
        let in_sync = self.sync.is_in_sync(Slot::of(record.hash));
        let now = self.clock.unix();
        self.observe(record.version, now)?;
        Ok(match self.store.apply(record, ApplyOrigin::Write, now) {
            // Only repairs are skipped.
            Applied::Stored | Applied::Skipped if in_sync => WriteAnswer::Applied,
            Applied::Stored | Applied::Skipped => WriteAnswer::AppliedUnconfirmed,
            Applied::Stale { .. } if Mutant::StaleWriteAcked.is_planted() => WriteAnswer::Applied,
            Applied::Stale { newer } => WriteAnswer::Stale { newer, in_sync },
            Applied::Collected { newer } => WriteAnswer::Collected { newer },
            Applied::TooLarge => WriteAnswer::TooLarge,
        })
    }
}
