//! Frames to bytes and back. A frame is a fixed binary header written by hand, then a body: by hand for what a request
//! path carries, postcard for the low-rate rest. Everything that arrives is checked here, once, before it is believed.
//!
//! All numbers are little-endian:
//! `u32` bytes that follow, `u8` kind, `u8` flags, `u32` request, `u64` ring, 26 bytes of trace if flagged, `u32` microseconds in the
//! replier's queue if flagged, body.

mod cursor;
mod decode;
mod encode;
mod layout;
mod list;

pub use encode::{
    encode_into, encode_read, encode_read_reply, encode_read_reply_head, encode_write, encode_write_head,
    encode_write_reply,
};
pub(crate) use list::{capped_list, slot_versions};

use bytes::{Buf as _, BytesMut};
use thiserror::Error;

use crate::{Frame, RequestId};

/// The longest key that a frame can carry, in bytes: its length has sixteen bits.
pub const WIRE_KEY_BYTES_MAX: usize = u16::MAX as usize;

/// The most members that one frame may list.
pub const WIRE_MEMBERS_MAX: usize = 1024;

/// Why bytes are not a frame. The connection that sent them is closed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// Longer than the limit.
    #[error("frame of {bytes} bytes, more than the limit of {limit}")]
    TooLong {
        /// Announced length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Anything else that no honest peer sends.
    #[error("malformed frame: {0}")]
    Malformed(&'static str),
    /// A value arrived that is not what was sent.
    #[error("checksum of a value does not match")]
    Checksum,
}

/// Cuts a byte stream into frames: append what arrives to [`Decoder::buffer`], then call [`Decoder::next_frame`] until it
/// gives nothing.
///
/// Keys and values of a decoded frame are views into the receive buffer and keep all of it alive. Whoever stores one for
/// longer than a request must copy it.
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    frame_bytes_max: usize,
}

impl Decoder {
    /// A decoder that refuses frames of more than `frame_bytes_max` bytes (length prefix not counted).
    #[must_use]
    pub fn new(frame_bytes_max: usize) -> Self {
        Self { buffer: BytesMut::new(), frame_bytes_max }
    }

    /// Where to append what arrives.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Which request the next frame is or answers, once so much of it is there.
    #[must_use]
    pub fn next_request(&self) -> Option<RequestId> {
        let head = self.buffer.get(layout::REQUEST_AT..layout::REQUEST_AT + 4)?;
        Some(RequestId(u32::from_le_bytes(head.try_into().ok()?)))
    }

    /// How many bytes of the next frame are missing; 0 if not even its length is there, or it is over the limit.
    #[must_use]
    pub fn missing_bytes(&self) -> usize {
        let Some(prefix) = self.buffer.first_chunk() else { return 0 };
        let bytes = usize::try_from(u32::from_le_bytes(*prefix)).unwrap_or(usize::MAX);
        if bytes > self.frame_bytes_max { 0 } else { (bytes + layout::LENGTH_BYTES).saturating_sub(self.buffer.len()) }
    }

    /// The next whole frame, or nothing until more bytes are there. A frame over the limit is refused as soon as its
    /// length has arrived.
    ///
    /// # Errors
    /// [`WireError`]; the decoder must not be used any further.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, WireError> {
        let Some(prefix) = self.buffer.first_chunk() else { return Ok(None) };
        // Where `usize` has 16 bits the length saturates, and is then over any limit.
        let bytes = usize::try_from(u32::from_le_bytes(*prefix)).unwrap_or(usize::MAX);
        if bytes > self.frame_bytes_max {
            return Err(WireError::TooLong { bytes, limit: self.frame_bytes_max });
        }
        if bytes < layout::HEADER_BYTES {
            return Err(WireError::Malformed("shorter than a header"));
        }
        if self.buffer.len() - layout::LENGTH_BYTES < bytes {
            return Ok(None);
        }
        self.buffer.advance(layout::LENGTH_BYTES);
        decode::frame(self.buffer.split_to(bytes).freeze()).map(Some)
    }
}
