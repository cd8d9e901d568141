//! Gossip datagrams: whatever arrives is either nothing, or a message that survives being sent on.

use std::sync::atomic::{AtomicU64, Ordering};

use mesh_fuzz::Corpus;
use mesh_proto::GossipMessage;

static EXECUTIONS: AtomicU64 = AtomicU64::new(0);

#[test]
fn gossip_message() {
    let corpus = Corpus::load("gossip_message");
    bolero::check!().with_max_len(64).for_each(|input: &[u8]| {
        check(input);
        check(&corpus.damaged(input));
    });
    println!("gossip_message: {} executions", EXECUTIONS.load(Ordering::Relaxed));
}

#[test]
fn the_corpus_is_valid() {
    for input in Corpus::load("gossip_message").inputs() {
        assert!(GossipMessage::decode(input).is_some(), "written by an older protocol? See the README: {input:?}");
    }
}

fn check(input: &[u8]) {
    EXECUTIONS.fetch_add(1, Ordering::Relaxed);
    if let Some(message) = GossipMessage::decode(input) {
        let encoded = message.encode();
        assert!(encoded.len() <= GossipMessage::BYTES_MAX);
        let again = GossipMessage::decode(&encoded).expect("what was encoded decodes");
        assert_eq!((again.from, again.body), (message.from, message.body));
        // The last updates may go if the message fills the datagram.
        assert!(message.updates.starts_with(&again.updates));
    }
}
