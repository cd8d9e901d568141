//! The stream decoder under the fuzzing engine.

use std::sync::atomic::{AtomicU64, Ordering};

use mesh_fuzz::{BYTES_MAX, Corpus, frame};

static EXECUTIONS: AtomicU64 = AtomicU64::new(0);

#[test]
fn frame_decoder() {
    let corpus = Corpus::load("frame_decoder");
    bolero::check!().with_max_len(BYTES_MAX).for_each(|input: &[u8]| {
        EXECUTIONS.fetch_add(1, Ordering::Relaxed);
        frame::check(input);
        frame::check_body(input);
        if !mesh_fuzz::IS_GUIDED {
            let damaged = corpus.damaged(input);
            frame::check(&damaged);
            frame::check_body(&damaged);
        }
    });
    println!("frame_decoder: {} executions", EXECUTIONS.load(Ordering::Relaxed));
}
