//! Gossip datagrams: whatever arrives is either nothing, or a message that survives being sent on.

use mesh_proto::GossipMessage;

/// Panics if a message in `input` does not survive being sent on.
pub fn check(input: &[u8]) {
    if let Some(message) = GossipMessage::decode(input) {
        let encoded = message.encode();
        assert!(encoded.len() <= GossipMessage::BYTES_MAX);
        let again = GossipMessage::decode(&encoded).expect("what was encoded decodes");
        assert_eq!((again.from, again.body), (message.from, message.body));
        // The last updates may go if the message fills the datagram.
        assert!(message.updates.starts_with(&again.updates));
    }
}
