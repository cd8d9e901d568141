//! Nanoseconds per encode and decode of the frames on the request path: `cargo run --release -p mesh-cache-proto --example
//! codec_speed`. A quick look, not a benchmark: the best of five rounds.
#![allow(clippy::disallowed_methods, reason = "a stopwatch, not part of the core")]

use std::{hint::black_box, time::Instant};

use bytes::{Bytes, BytesMut};
use mesh_proto::{
    Body, Decoder, Expiry, KeyHash, Micros, ReadAnswer, Record, ReplyHead, RequestId, RingHash, Version, encode_read,
    encode_read_reply, encode_write,
};

const ROUNDS: u32 = 5;
const OPS: u32 = 1_000_000;
/// Frames that arrive with one read of the socket.
const BATCH: u32 = 32;

fn main() {
    let key = Bytes::from_static(b"key:000000001234");
    let value = Bytes::from_static(b"twenty-four bytes value!");
    let hash = KeyHash::of(&key);
    let (version, expiry) = (Version::new(1 << 100), Expiry::NEVER);
    let record = Record { hash, key: key.clone(), version, expiry, body: Body::Value(value.clone()) };
    let answer = ReadAnswer::Value { version, expiry, value, in_sync: true };
    let (request, ring) = (RequestId(1), RingHash::new(2));
    let head = ReplyHead { request, ring, waited: Micros::new(100) };

    measure("write", |out| encode_write(out, request, ring, None, black_box(&record)));
    measure("read", |out| encode_read(out, request, ring, None, (hash, black_box(&key))));
    measure("read reply", |out| encode_read_reply(out, &head, hash, black_box(&answer)));
}

fn measure(name: &str, mut encode: impl FnMut(&mut BytesMut)) {
    let mut best_encode_ns = f64::MAX;
    let mut best_both_ns = f64::MAX;
    for _ in 0..ROUNDS {
        let mut out = BytesMut::with_capacity(64 * 1024);
        let start = Instant::now();
        for _ in 0..OPS / BATCH {
            out.clear();
            (0..BATCH).for_each(|_| encode(&mut out));
        }
        best_encode_ns = best_encode_ns.min(start.elapsed().as_nanos() as f64 / f64::from(OPS));

        let mut decoder = Decoder::new(64 * 1024);
        let start = Instant::now();
        for _ in 0..OPS / BATCH {
            decoder.buffer().reserve(16 * 1024);
            (0..BATCH).for_each(|_| encode(decoder.buffer()));
            while let Ok(Some(frame)) = decoder.next_frame() {
                black_box(frame);
            }
        }
        best_both_ns = best_both_ns.min(start.elapsed().as_nanos() as f64 / f64::from(OPS));
    }
    println!("{name:>10}: encode {best_encode_ns:5.1} ns, encode and decode {best_both_ns:5.1} ns");
}
