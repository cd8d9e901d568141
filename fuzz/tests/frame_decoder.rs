//! The stream decoder: whatever arrives, in whatever pieces, it neither panics nor contradicts itself.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use mesh_fuzz::Corpus;
use mesh_proto::{Decoder, Frame, WireError, encode_into};

const FRAME_BYTES_MAX: usize = 1 << 20;

static EXECUTIONS: AtomicU64 = AtomicU64::new(0);

#[test]
fn frame_decoder() {
    let corpus = Corpus::load("frame_decoder");
    bolero::check!().with_max_len(64).for_each(|input: &[u8]| {
        check(input);
        let mut damaged = corpus.damaged(input);
        check(&damaged);
        // Once more with a length prefix that fits, so that the damage reaches the body.
        if let Some((prefix, rest)) = damaged.split_first_chunk_mut() {
            *prefix = u32::try_from(rest.len()).expect("short").to_le_bytes();
            check(&damaged);
        }
    });
    println!("frame_decoder: {} executions", EXECUTIONS.load(Ordering::Relaxed));
}

#[test]
fn the_corpus_is_valid() {
    for input in Corpus::load("frame_decoder").inputs() {
        let (frames, error) = decode(input, input.len());
        assert_eq!((frames.len(), error), (1, None), "written by an older protocol? See the README: {input:?}");
    }
}

fn check(input: &[u8]) {
    EXECUTIONS.fetch_add(1, Ordering::Relaxed);
    let (frames, error) = decode(input, input.len());
    assert_eq!(decode(input, 7), (frames.clone(), error), "the result depends on how the bytes arrive");
    let mut wire = BytesMut::new();
    for frame in &frames {
        encode_into(frame, &mut wire);
    }
    assert_eq!(decode(&wire, wire.len()), (frames, None), "a decoded frame does not encode to itself");
}

/// The frames in `input`, given in pieces of `piece_bytes`, up to the first error.
fn decode(input: &[u8], piece_bytes: usize) -> (Vec<Frame>, Option<WireError>) {
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
