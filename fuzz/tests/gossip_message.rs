//! Gossip datagrams under the fuzzing engine.

use std::sync::atomic::{AtomicU64, Ordering};

use mesh_fuzz::{BYTES_MAX, Corpus, gossip};

static EXECUTIONS: AtomicU64 = AtomicU64::new(0);

#[test]
fn gossip_message() {
    let corpus = Corpus::load("gossip_message");
    bolero::check!().with_max_len(BYTES_MAX).for_each(|input: &[u8]| {
        EXECUTIONS.fetch_add(1, Ordering::Relaxed);
        gossip::check(input);
        if !mesh_fuzz::IS_GUIDED {
            gossip::check(&corpus.damaged(input));
        }
    });
    println!("gossip_message: {} executions", EXECUTIONS.load(Ordering::Relaxed));
}
