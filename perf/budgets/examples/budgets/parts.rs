//! Parts alone: frames, the store, and what the load does besides sending.

use std::{hint::black_box, time::Duration};

use bytes::{Bytes, BytesMut};
use load::alone::{Checker, Measurements, Schedule};
use mesh_proto::{
    Applied, ApplyOrigin, Body, Decoder, Expiry, Found, KeyHash, Micros, ReadAnswer, Record, ReplyHead, RequestId,
    RingHash, Store, StoreConfig, UnixMillis, Version, encode_read, encode_read_reply, encode_write,
    encode_write_reply,
};

use crate::{Operation, cluster::VALUE};

const KEYS: usize = 64;
const NOW: UnixMillis = UnixMillis::new(1_700_000_000_000);
const RING: RingHash = RingHash::new(2);
const FRAME_BYTES_MAX: usize = 64 << 10;
/// Entries of the store that evicts.
const ENTRIES_MAX: usize = 2048;

fn version(number: usize) -> Version {
    Version::new((u128::from(NOW.get()) << 80) | (number as u128 + 1))
}

fn record(key: usize) -> Record {
    let key = Bytes::from(format!("k-{key:010}"));
    let body = Body::Value(Bytes::from_static(VALUE));
    Record { hash: KeyHash::of(&key), key, version: version(0), expiry: Expiry::NEVER, body }
}

/// Of an answer to a request that has waited, as most have.
fn reply() -> ReplyHead {
    ReplyHead { request: RequestId(1), ring: RING, waited: Micros::new(100) }
}

fn decoder() -> Decoder {
    Decoder::new(FRAME_BYTES_MAX)
}

/// Encodes one frame where it arrives, and decodes it.
fn pass(decoder: &mut Decoder, encode: impl FnOnce(&mut BytesMut)) {
    decoder.buffer().reserve(4096);
    encode(decoder.buffer());
    assert!(black_box(decoder.next_frame()).unwrap().is_some());
}

/// A write and its reply, there and back.
pub(crate) struct CodecWrite(Decoder, Record);

impl Default for CodecWrite {
    fn default() -> Self {
        Self(decoder(), record(1))
    }
}

impl Operation for CodecWrite {
    async fn step(&mut self, _number: usize) {
        let Self(decoder, record) = self;
        let (id, head) = (RequestId(1), reply());
        pass(decoder, |out| encode_write(out, id, RING, None, black_box(record)));
        let answer = mesh_proto::WriteAnswer::Applied;
        pass(decoder, |out| encode_write_reply(out, &head, record.hash, black_box(&answer)));
    }
}

/// A read and its reply, there and back.
pub(crate) struct CodecRead(Decoder, Record, ReadAnswer);

impl Default for CodecRead {
    fn default() -> Self {
        let value = Bytes::from_static(VALUE);
        let answer = ReadAnswer::Value { version: version(1), expiry: Expiry::NEVER, value, in_sync: true };
        Self(decoder(), record(1), answer)
    }
}

impl Operation for CodecRead {
    async fn step(&mut self, _number: usize) {
        let Self(decoder, Record { hash, key, .. }, answer) = self;
        let (id, head) = (RequestId(1), reply());
        pass(decoder, |out| encode_read(out, id, RING, None, (*hash, black_box(key))));
        pass(decoder, |out| encode_read_reply(out, &head, *hash, black_box(answer)));
    }
}

fn store(entries_max: u64) -> Store {
    let tombstone_age_min = Duration::from_secs(600);
    Store::new(&StoreConfig { bytes_max: 64 << 20, entries_max, tombstones_max: 1000, tombstone_age_min })
}

/// Reads keys that are there.
pub(crate) struct StoreGet(Store, Vec<Record>);

impl StoreGet {
    pub(crate) fn new() -> Self {
        let (store, records) = (store(1 << 20), (0..KEYS).map(record).collect::<Vec<_>>());
        for record in &records {
            assert_eq!(store.apply(record, ApplyOrigin::Write, NOW), Applied::Stored);
        }
        Self(store, records)
    }
}

impl Operation for StoreGet {
    async fn step(&mut self, number: usize) {
        let record = &self.1[number % KEYS];
        assert!(matches!(black_box(self.0.get(record.hash, &record.key, NOW)), Found::Value { .. }));
    }
}

/// Writes keys one after the other, again and again.
pub(crate) struct StoreSet(Store, Vec<Record>);

impl StoreSet {
    /// Few enough to stay.
    pub(crate) fn overwriting() -> Self {
        Self(store(1 << 20), (0..KEYS).map(record).collect())
    }

    /// So many that each has been evicted when its turn comes again.
    pub(crate) fn evicting() -> Self {
        let set = Self(store(ENTRIES_MAX as u64), (0..4 * ENTRIES_MAX).map(record).collect());
        for record in &set.1 {
            assert_eq!(set.0.apply(record, ApplyOrigin::Write, NOW), Applied::Stored);
        }
        set
    }
}

impl Operation for StoreSet {
    async fn step(&mut self, number: usize) {
        let at = number % self.1.len();
        self.1[at].version = version(number + 1);
        assert_eq!(self.0.apply(&self.1[at], ApplyOrigin::Write, NOW), Applied::Stored);
    }
}

/// Reads, judged.
pub(crate) struct CheckerGet(Checker);

/// Writes, judged.
pub(crate) struct CheckerSet(Checker);

impl Default for CheckerGet {
    fn default() -> Self {
        Self(Checker::new(KEYS as u32))
    }
}

impl Default for CheckerSet {
    fn default() -> Self {
        Self(Checker::new(KEYS as u32))
    }
}

impl Operation for CheckerGet {
    async fn step(&mut self, number: usize) {
        assert!(self.0.get((number % KEYS) as u32));
    }
}

impl Operation for CheckerSet {
    async fn step(&mut self, number: usize) {
        assert!(self.0.set((number % KEYS) as u32));
    }
}

/// One latency more.
#[derive(Default)]
pub(crate) struct Recorder(Measurements);

/// One start time more.
#[derive(Default)]
pub(crate) struct Pace(Schedule);

impl Operation for Recorder {
    async fn step(&mut self, number: usize) {
        self.0.record(Duration::from_micros(50 + (number % 400) as u64));
    }
}

impl Operation for Pace {
    async fn step(&mut self, _number: usize) {
        assert!(self.0.step().await);
    }
}
