//! The HTTP side of a node under the fuzzing engine.

use std::sync::atomic::{AtomicU64, Ordering};

use mesh_fuzz::{BYTES_MAX, Corpus, http};

static EXECUTIONS: AtomicU64 = AtomicU64::new(0);

#[test]
fn http_request() {
    let corpus = Corpus::load("http_request");
    let node = http::InMemoryNode::start();
    bolero::check!().with_max_len(BYTES_MAX).for_each(|input: &[u8]| {
        EXECUTIONS.fetch_add(1, Ordering::Relaxed);
        node.check(input);
        if !mesh_fuzz::IS_GUIDED {
            node.check(&corpus.damaged(input));
        }
    });
    println!("http_request: {} executions", EXECUTIONS.load(Ordering::Relaxed));
}
