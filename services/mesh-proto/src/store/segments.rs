//! The memory of a shard: records one behind the other in segments of 64 KiB, the segments in three queues in the order in which
//! they were filled. Nothing is as large as the next size of an allocator; what is taken is known to the byte; and what is gone
//! leaves a hole until its segment is released, as soon as nothing is left in it, or compacted.
//!
//! A payload that is large has an allocation of its own, so that it is given to readers without being copied.

mod holes;

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use slab::Slab;

use super::{
    limits,
    memory::SegmentMemory,
    record::{ALIGN, Kind, NewRecord, Stored, make_hole, set_born, set_visits, shared_value},
    second::Second,
};
use crate::{Body, Record, UnixMillis};

/// The memory of a queue's first segment grows, from this many bytes on: a store that is nearly empty takes little.
const FIRST_BYTES_MIN: usize = 2 << 10;

/// Low bits of [`At`] that say where in its segment a record begins.
const OFFSET_BITS: u32 = 14;

/// The largest segment, in bytes.
pub(super) const SEGMENT_BYTES_MAX: usize = ALIGN << OFFSET_BITS;

/// The most memory that one shard's segments can have.
pub(super) const SHARE_BYTES_MAX: u64 = (SEGMENT_BYTES_MAX as u64) << (u32::BITS - OFFSET_BITS);

/// Where a record is: its segment's number, and where in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct At(u32);

impl At {
    #[expect(clippy::cast_possible_truncation, reason = "a share is capped below what this can number")]
    const fn new(segment: usize, offset: usize) -> Self {
        Self((segment << OFFSET_BITS) as u32 | (offset / ALIGN) as u32)
    }

    const fn segment(self) -> usize {
        (self.0 >> OFFSET_BITS) as usize
    }

    const fn offset(self) -> usize {
        (self.0 & ((1 << OFFSET_BITS) - 1)) as usize * ALIGN
    }
}

/// The queues: the two of S3-FIFO, and one for what has no value any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueueName {
    /// Values that came lately.
    Small,
    /// Values that have proved useful.
    Main,
    /// Tombstones and stubs.
    Dead,
}

/// Segments in the order in which they were filled: the last one is being filled.
#[derive(Debug, Default)]
struct SegmentQueue {
    order: VecDeque<usize>,
    /// Where to go on in the first segment: all before is holes.
    cursor: usize,
    /// Of records that are not holes, with their large payloads.
    bytes: u64,
    len: u64,
}

/// One piece of memory.
#[derive(Debug)]
struct Segment {
    memory: SegmentMemory,
    /// Bytes of records that are not holes.
    live: usize,
    /// No record in it expires before.
    expiry_min: u64,
    queue: QueueName,
    /// How often it was emptied: an offset from before means nothing.
    emptied: u32,
}

/// A place that the sweep has got to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SweepPosition {
    pub(super) segment: usize,
    pub(super) offset: usize,
    emptied: u32,
}

/// A shard's records.
#[derive(Debug)]
pub(super) struct Segments {
    segment_bytes: usize,
    segments: Vec<Segment>,
    /// Numbers of segments without memory.
    free: Vec<usize>,
    queues: [SegmentQueue; 3],
    large: Slab<Arc<[u8]>>,
    /// Bytes of memory, those of large payloads included.
    taken: u64,
    /// Bytes in segments that are written, and those of them that are not holes.
    written: usize,
    live: usize,
    /// Bytes of keys and values that can be read.
    payload: u64,
    /// Large payloads for the caller to free after the shard's lock is released.
    freed: Vec<Arc<[u8]>>,
}

impl Segments {
    /// None yet, and each to be of this many bytes: at most [`SEGMENT_BYTES_MAX`].
    pub(super) fn new(segment_bytes: usize) -> Self {
        Self {
            segment_bytes,
            segments: Vec::new(),
            free: Vec::new(),
            queues: Default::default(),
            large: Slab::new(),
            taken: 0,
            written: 0,
            live: 0,
            payload: 0,
            freed: Vec::new(),
        }
    }

    /// Bytes of memory.
    pub(super) const fn taken(&self) -> u64 {
        self.taken
    }

    /// Bytes of keys and values that can be read.
    pub(super) const fn payload(&self) -> u64 {
        self.payload
    }

    /// Number of records in a queue.
    pub(super) const fn len(&self, queue: QueueName) -> u64 {
        self.queues[queue as usize].len
    }

    /// Bytes of the records in a queue.
    pub(super) const fn bytes(&self, queue: QueueName) -> u64 {
        self.queues[queue as usize].bytes
    }

    /// Number of all records.
    pub(super) fn records(&self) -> u64 {
        self.queues.iter().map(|queue| queue.len).sum()
    }

    pub(super) fn at(&self, at: At) -> Stored<'_> {
        Stored::at_start_of(self.segments[at.segment()].memory.written().get(at.offset()..).unwrap_or_default())
    }

    /// What is written in its segment from a record on.
    fn bytes_from(&mut self, at: At) -> &mut [u8] {
        &mut self.segments[at.segment()].memory.written_mut()[at.offset()..]
    }

    pub(super) fn queue(&self, at: At) -> QueueName {
        self.segments[at.segment()].queue
    }

    /// Key and value.
    fn payload_of<'a>(&'a self, record: Stored<'a>) -> &'a [u8] {
        record.large().map_or_else(|| record.inline(), |number| &self.large[number as usize])
    }

    /// Bytes of the allocation of its own, if it is large.
    fn large_bytes(&self, record: Stored<'_>) -> u64 {
        record.large().map_or(0, |number| limits::allocated(self.large[number as usize].len()))
    }

    pub(super) fn is_key(&self, at: At, key: &[u8]) -> bool {
        let record = self.at(at);
        record.key_len() == key.len() && self.payload_of(record).starts_with(key)
    }

    /// Bytes of key and value.
    pub(super) fn payload_bytes(&self, at: At) -> usize {
        self.payload_of(self.at(at)).len()
    }

    pub(super) fn key(&self, at: At) -> Bytes {
        let record = self.at(at);
        Bytes::copy_from_slice(&self.payload_of(record)[..record.key_len()])
    }

    /// The value: a large one without copying it.
    pub(super) fn value(&self, at: At) -> Bytes {
        let record = self.at(at);
        match record.large() {
            Some(number) => shared_value(&self.large[number as usize], record.key_len()),
            None => Bytes::copy_from_slice(&record.inline()[record.key_len()..]),
        }
    }

    /// The record that makes another store equal to this one.
    pub(super) fn record(&self, at: At) -> Record {
        let stored = self.at(at);
        let body = match stored.kind() {
            Kind::Live => Body::Value(self.value(at)),
            Kind::Tombstone => Body::Tombstone,
            Kind::Stub | Kind::Hole => Body::Expired,
        };
        let (hash, version, expiry) = (stored.hash(), stored.version(), stored.expiry());
        Record { hash, key: self.key(at), version, expiry, body }
    }

    /// How many bytes of memory it takes to put so many into a queue.
    pub(super) fn growth(&self, queue: QueueName, len: usize) -> usize {
        let head = self.queues[queue as usize].order.back().map(|head| &self.segments[*head].memory);
        match head.filter(|memory| memory.len() + len <= self.segment_bytes) {
            Some(memory) if memory.len() + len <= memory.capacity() => 0,
            Some(memory) => self.grown(memory.len() + len) - memory.capacity(),
            None if head.is_some() => self.segment_bytes,
            None => self.grown(len),
        }
    }

    /// How large a queue's first segment is made for so many bytes.
    fn grown(&self, len: usize) -> usize {
        len.next_power_of_two().max(FIRST_BYTES_MIN).min(self.segment_bytes)
    }

    /// Puts a record at the end of a queue, growing as told by [`Segments::growth`].
    pub(super) fn append(&mut self, queue: QueueName, new: &NewRecord<'_>, visits: u8, born: Second) -> At {
        let segment = self.make_room(queue, new.len());
        self.taken += new.large_bytes();
        let number = new.large.as_ref().map_or(0, |payload| self.large.insert(Arc::clone(payload)));
        let memory = &mut self.segments[segment].memory;
        let at = At::new(segment, memory.len());
        new.write(number as u32, visits, born, memory.append(new.len()));
        self.handle_appended(at);
        at
    }

    /// Moves a record to the end of a queue, growing as told by [`Segments::growth`].
    pub(super) fn relocate(&mut self, at: At, queue: QueueName, visits: u8) -> At {
        let len = self.at(at).len();
        let segment = self.make_room(queue, len);
        let to = At::new(segment, self.segments[segment].memory.len());
        let record = at.offset()..at.offset() + len;
        if segment == at.segment() {
            self.segments[segment].memory.append(len);
            self.segments[segment].memory.written_mut().copy_within(record, to.offset());
        } else if let Ok([from, to]) = self.segments.get_disjoint_mut([at.segment(), segment]) {
            to.memory.append(len).copy_from_slice(&from.memory.written()[record]);
        }
        set_visits(self.bytes_from(to), visits);
        self.handle_appended(to);
        self.handle_gone(at);
        to
    }

    /// The number of the segment that has room for so many bytes at the end of a queue.
    fn make_room(&mut self, queue: QueueName, len: usize) -> usize {
        let growth = self.growth(queue, len);
        let head = self.queues[queue as usize].order.back().copied();
        let has_room = |head: &usize| self.segments[*head].memory.len() + len <= self.segment_bytes;
        let segment = head.filter(has_room).unwrap_or_else(|| self.open(queue));
        let memory = &mut self.segments[segment].memory;
        if growth > 0 {
            let before = memory.capacity();
            memory.grow(before + growth);
            self.taken += (memory.capacity() - before) as u64;
        }
        segment
    }

    /// Begins a new segment at the end of a queue.
    fn open(&mut self, queue: QueueName) -> usize {
        let segment = self.free.pop().unwrap_or_else(|| {
            let memory = SegmentMemory::default();
            self.segments.push(Segment { memory, live: 0, expiry_min: u64::MAX, queue, emptied: 0 });
            self.segments.len() - 1
        });
        self.segments[segment].queue = queue;
        self.queues[queue as usize].order.push_back(segment);
        segment
    }

    /// Puts a record in the place of an older one that takes as much room in its segment.
    pub(super) fn rewrite(&mut self, at: At, new: &NewRecord<'_>, visits: u8) {
        let old = self.at(at);
        let (segment, queue) = (at.segment(), self.queue(at) as usize);
        let (payload_bytes, was, number) = (self.payload_bytes(at), self.large_bytes(old), old.large().unwrap_or(0));
        if let Some(payload) = &new.large {
            let is = new.large_bytes();
            self.taken = self.taken - was + is;
            self.queues[queue].bytes = self.queues[queue].bytes - was + is;
            self.freed.push(std::mem::replace(&mut self.large[number as usize], Arc::clone(payload)));
        }
        self.payload = self.payload - payload_bytes as u64 + new.payload_bytes() as u64;
        new.write(number, visits, Second::default(), &mut self.bytes_from(at)[..new.len()]);
        let expiry = expiry_of(self.at(at));
        let segment = &mut self.segments[segment];
        segment.expiry_min = segment.expiry_min.min(expiry);
    }

    /// Whether [`Segments::rewrite`] can do it, and how many bytes of memory that takes more.
    pub(super) fn rewrite_growth(&self, at: At, new: &NewRecord<'_>) -> Option<u64> {
        let old = self.at(at);
        if old.len() != new.len() || old.large().is_some() != new.large.is_some() {
            return None;
        }
        Some(new.large_bytes().saturating_sub(self.large_bytes(old)))
    }

    /// Takes a record out.
    pub(super) fn remove(&mut self, at: At) {
        let large = self.at(at).large();
        self.handle_gone(at);
        if let Some(number) = large {
            let payload = self.large.remove(number as usize);
            self.taken -= limits::allocated(payload.len());
            self.freed.push(payload);
        }
        if self.large.is_empty() && self.large.capacity() > 0 {
            self.large = Slab::new();
        }
    }

    fn handle_appended(&mut self, at: At) {
        let record = self.at(at);
        let (len, bytes, expiry) = (record.len(), self.bytes_of(at), expiry_of(record));
        let payload = if record.is_live() { self.payload_bytes(at) } else { 0 };
        let segment = &mut self.segments[at.segment()];
        segment.live += len;
        segment.expiry_min = segment.expiry_min.min(expiry);
        self.written += len;
        self.live += len;
        self.payload += payload as u64;
        let queue = &mut self.queues[segment.queue as usize];
        queue.bytes += bytes;
        queue.len += 1;
    }

    /// A record is somewhere else now, or nowhere.
    fn handle_gone(&mut self, at: At) {
        let record = self.at(at);
        let (len, bytes) = (record.len(), self.bytes_of(at));
        let payload = if record.is_live() { self.payload_bytes(at) } else { 0 };
        let segment = &mut self.segments[at.segment()];
        make_hole(&mut segment.memory.written_mut()[at.offset()..]);
        segment.live -= len;
        self.live -= len;
        self.payload -= payload as u64;
        let queue = &mut self.queues[segment.queue as usize];
        queue.bytes -= bytes;
        queue.len -= 1;
        if segment.live == 0 {
            self.empty(at.segment());
        }
    }

    /// Bytes of a record, its large payload included.
    fn bytes_of(&self, at: At) -> u64 {
        let record = self.at(at);
        record.len() as u64 + self.large_bytes(record)
    }

    /// A segment has nothing but holes: it is released, or filled anew from its start if it is the one that is being filled.
    fn empty(&mut self, number: usize) {
        let segment = &mut self.segments[number];
        self.written -= segment.memory.len();
        segment.memory.clear();
        segment.expiry_min = u64::MAX;
        segment.emptied = segment.emptied.wrapping_add(1);
        let queue = &mut self.queues[segment.queue as usize];
        if queue.order.front() == Some(&number) {
            queue.cursor = 0;
        }
        if queue.order.back() != Some(&number) {
            self.release(number);
        }
    }

    fn release(&mut self, number: usize) {
        let segment = &mut self.segments[number];
        self.taken -= segment.memory.capacity() as u64;
        segment.memory = SegmentMemory::default();
        let order = &mut self.queues[segment.queue as usize].order;
        if let Some(at) = order.iter().position(|of_order| *of_order == number) {
            order.remove(at);
        }
        self.free.push(number);
    }

    /// The record of a queue that comes first, if there is one.
    pub(super) fn first(&mut self, queue: QueueName) -> Option<At> {
        let number = *self.queues[queue as usize].order.front()?;
        let segment = &self.segments[number];
        let (bytes, mut offset) = (segment.memory.written(), self.queues[queue as usize].cursor);
        // Ends, because a segment that has only holes is emptied as soon as that is so.
        while let Some(record) = bytes.get(offset..).filter(|rest| !rest.is_empty()).map(Stored::at_start_of) {
            if record.kind() != Kind::Hole {
                self.queues[queue as usize].cursor = offset;
                return Some(At::new(number, offset));
            }
            offset += record.len();
        }
        None
    }

    /// A record was read or written once more.
    pub(super) fn handle_visit(&mut self, at: At, visits: u8) {
        set_visits(self.bytes_from(at), visits);
    }

    /// A tombstone or stub came here at another time.
    pub(super) fn set_born(&mut self, at: At, born: Second) {
        set_born(self.bytes_from(at), born);
    }

    /// The next record to be looked at for its expiry, at or behind a place, and how many segments were passed over because nothing
    /// in them has expired; nothing at the end.
    pub(super) fn next_expiring(&self, place: &mut SweepPosition, now: UnixMillis) -> Option<At> {
        while let Some(segment) = self.segments.get(place.segment) {
            let may_expire = segment.queue == QueueName::Dead || segment.expiry_min <= now.get();
            if place.emptied != segment.emptied {
                (place.offset, place.emptied) = (0, segment.emptied);
            }
            while may_expire && place.offset < segment.memory.len() {
                let record = Stored::at_start_of(&segment.memory.written()[place.offset..]);
                let at = At::new(place.segment, place.offset);
                place.offset += record.len();
                if record.kind() != Kind::Hole {
                    return Some(at);
                }
            }
            *place = SweepPosition { segment: place.segment + 1, offset: 0, emptied: 0 };
        }
        None
    }

    /// What the caller is to drop once the lock is gone.
    pub(super) fn take_freed(&mut self) -> Vec<Arc<[u8]>> {
        std::mem::take(&mut self.freed)
    }
}

/// When a live record expires, for [`Segment::expiry_min`].
fn expiry_of(record: Stored<'_>) -> u64 {
    match record.expiry().get() {
        0 => u64::MAX,
        _ if !record.is_live() => u64::MAX,
        expiry => expiry,
    }
}
