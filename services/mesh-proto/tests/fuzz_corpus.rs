//! Replays what fuzzing has found: every committed input of `fuzz/`, through the very checks that the fuzzing engine runs.
#![allow(clippy::expect_used, dead_code, unreachable_pub, reason = "tests; the engine uses more of it")]

#[path = "../../../fuzz/src/corpus.rs"]
mod corpus;
#[path = "../../../fuzz/src/frame.rs"]
mod frame;
#[path = "../../../fuzz/src/gossip.rs"]
mod gossip;

use corpus::Corpus;
use mesh_proto::GossipMessage;

#[test]
fn frames_that_fuzzing_has_found() {
    let valid = Corpus::load("frame_decoder");
    for input in valid.inputs() {
        let (frames, error) = frame::decode(input, input.len());
        assert_eq!((frames.len(), error), (1, None), "written by an older protocol? See fuzz/README.md: {input:?}");
    }
    for input in valid.inputs().iter().chain(&Corpus::found("frame_decoder")) {
        frame::check(input);
        frame::check_body(input);
    }
}

#[test]
fn gossip_that_fuzzing_has_found() {
    let valid = Corpus::load("gossip_message");
    for input in valid.inputs() {
        assert!(GossipMessage::decode(input).is_some(), "written by an older protocol? See fuzz/README.md: {input:?}");
    }
    for input in valid.inputs().iter().chain(&Corpus::found("gossip_message")) {
        gossip::check(input);
    }
}
