//! Frames to bytes and back.
use crate::Frame;
use bytes::BytesMut;
use thiserror::Error;

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

/// Appends the frame, with its length prefix, to `out`.
pub fn encode_into(_frame: &Frame, _out: &mut BytesMut) {
    todo!()
}

/// Cuts a byte stream into frames.
#[derive(Debug)]
pub struct Decoder {
    _todo: (),
}

impl Decoder {
    /// A decoder that refuses frames of more than `frame_bytes_max` bytes (length prefix not counted).
    #[must_use]
    pub fn new(_frame_bytes_max: usize) -> Self {
        todo!()
    }
    /// Where to append what arrives.
    pub fn buffer(&mut self) -> &mut BytesMut {
        todo!()
    }
    /// The next whole frame, or nothing until more bytes are there.
    ///
    /// # Errors
    /// [`WireError`]; the decoder must not be used any further.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, WireError> {
        todo!()
    }
}
