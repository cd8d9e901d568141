//! The stream decoder: whatever arrives, in whatever pieces, it neither panics nor contradicts itself.

use bytes::BytesMut;
use mesh_proto::{Decoder, Frame, WireError, encode_into};

/// The longest frame that is accepted.
const FRAME_BYTES_MAX: usize = 1 << 20;

/// Panics if the decoder contradicts itself about `input`.
pub fn check(input: &[u8]) {
    let (frames, error) = decode(input, input.len());
    assert_eq!(decode(input, 7), (frames.clone(), error), "the result depends on how the bytes arrive");
    let mut wire = BytesMut::new();
    for frame in &frames {
        encode_into(frame, &mut wire);
    }
    assert_eq!(decode(&wire, wire.len()), (frames, None), "a decoded frame does not encode to itself");
}

/// As [`check`], with a length prefix that fits, so that what follows it is looked at.
pub fn check_body(input: &[u8]) {
    let mut input = input.to_vec();
    if let Some((prefix, rest)) = input.split_first_chunk_mut() {
        *prefix = u32::try_from(rest.len()).expect("short").to_le_bytes();
        check(&input);
    }
}

/// The frames in `input`, given in pieces of `piece_bytes`, up to the first error.
pub fn decode(input: &[u8], piece_bytes: usize) -> (Vec<Frame>, Option<WireError>) {
    let mut decoder = Decoder::new(FRAME_BYTES_MAX);
    let mut frames = Vec::new();
    for piece in input.chunks(piece_bytes.max(1)) {
        decoder.buffer().extend_from_slice(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}
