//! Reads a frame from front to back. Each step checks that the bytes are there, so that a decoder cannot forget to.

use bytes::{Buf as _, Bytes};

use super::WireError;

const TRUNCATED: WireError = WireError::Malformed("shorter than its fields");

/// What is left of one frame.
pub(super) struct Cursor {
    rest: Bytes,
}

impl Cursor {
    pub(super) const fn new(frame: Bytes) -> Self {
        Self { rest: frame }
    }

    pub(super) fn remaining(&self) -> usize {
        self.rest.len()
    }

    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let head = *self.rest.first_chunk().ok_or(TRUNCATED)?;
        self.rest.advance(N);
        Ok(head)
    }

    pub(super) fn u8(&mut self) -> Result<u8, WireError> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn u128(&mut self) -> Result<u128, WireError> {
        self.array().map(u128::from_le_bytes)
    }

    /// The next `bytes` bytes, as a view.
    #[inline]
    pub(super) fn take(&mut self, bytes: usize) -> Result<Bytes, WireError> {
        if bytes > self.rest.len() {
            return Err(TRUNCATED);
        }
        Ok(self.rest.split_to(bytes))
    }

    /// All that is left.
    pub(super) fn take_rest(&mut self) -> Bytes {
        std::mem::take(&mut self.rest)
    }

    /// Nothing may follow.
    pub(super) fn finish(&self) -> Result<(), WireError> {
        if self.rest.is_empty() { Ok(()) } else { Err(WireError::Malformed("longer than its fields")) }
    }
}
