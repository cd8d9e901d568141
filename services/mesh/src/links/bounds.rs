//! What both ends of a connection keep to: how much room they offer, what travels apart, and how long they wait.

use std::time::Duration;

use mesh_proto::Decoder;

use crate::Config;

/// Large values that are sent to one peer, or back to it, at one time: enough to fill the path. All at once would all end last.
pub(crate) const APART_AT_ONCE_MAX: usize = 4;

/// Values larger than this travel on a stream of their own, so that small ones do not wait behind them.
pub(crate) const INLINE_VALUE_BYTES_MAX: usize = 64 << 10;

/// How much room a reader offers at a time, at first and at most.
const READ_BYTES_FIRST: usize = 2 << 10;
const READ_BYTES: usize = 64 << 10;

/// A reader asks for new room once less than this part of it is left. Values that callers still hold keep a buffer from being used
/// again, so asking for all of it each time would allocate all of it each time.
const NEW_ROOM_BELOW: usize = 16;

/// How long a peer may leave unread what it is sent. A peer that is well reads at once; one that does not would keep a
/// stream's buffers for ever.
pub(crate) const UNREAD_MAX: Duration = Duration::from_secs(10);

/// How long a control request may take.
pub(crate) const CONTROL_TIMEOUT: Duration = Duration::from_secs(2);

/// The most bytes of records in one page.
pub(crate) const PAGE_BYTES_MAX: usize = PAGE_BYTES as usize;

pub(crate) const PAGE_BYTES: u32 = 256 << 10;

/// The longest frame a node of this configuration sends or accepts: the largest record, or a page of records, and headers.
pub(crate) fn frame_bytes_max(config: &Config) -> usize {
    (config.key_bytes_max + config.value_bytes_max).max(PAGE_BYTES_MAX)
        + config.key_bytes_max
        + config.value_bytes_max
        + 4096
}

/// How much room a reader offers: little at first, as most streams carry little, and more as reads fill it.
pub(crate) struct Room(usize);

impl Room {
    pub(crate) const fn new() -> Self {
        Self(READ_BYTES_FIRST)
    }

    /// Makes room for the next read: for all of a large frame at once, lest it is copied as it grows.
    pub(crate) fn make(&self, decoder: &mut Decoder) {
        let missing = decoder.missing_bytes();
        let buffer = decoder.buffer();
        let left = buffer.capacity() - buffer.len();
        if left < (self.0 / NEW_ROOM_BELOW).max(missing) {
            buffer.reserve(self.0.max(missing));
        }
    }

    /// So much was read.
    pub(crate) fn handle_read(&mut self, bytes: usize) {
        if bytes * 2 >= self.0 {
            self.0 = (self.0 * 4).min(READ_BYTES);
        }
    }
}
