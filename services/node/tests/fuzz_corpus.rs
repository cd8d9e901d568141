//! Replays the requests that fuzzing has found: every committed input of `fuzz/`, through the very checks that the fuzzing
//! engine runs, against a node in memory.
#![allow(clippy::expect_used, dead_code, unreachable_pub, reason = "tests; the engine uses more of it")]

#[path = "../../../fuzz/src/corpus.rs"]
mod corpus;
#[path = "../../../fuzz/src/http.rs"]
mod http;

use corpus::Corpus;

#[test]
fn requests_that_fuzzing_has_found() {
    let node = http::InMemoryNode::start();
    let valid = Corpus::load("http_request");
    for input in valid.inputs().iter().chain(&Corpus::found("http_request")) {
        node.check(input);
    }
}
