//! Mesh Bench as a user meets it: the built binaries, as real processes on loopback, driven over HTTP and by signals.
//!
//! Every test has the machine to itself (see `harness::machine`), because most of them measure time. The binaries are
//! taken from beside this test's own: build them first, `cargo build --workspace`, or run `make test`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![expect(unreachable_pub, reason = "the whole tree is private to this test")]

mod harness;

mod crashes;
mod direct_runner_cli;
mod edge;
mod fault_plan;
mod faults;
mod make;
mod memory;
mod no_loss;
mod open_files;
mod ordered_faults;
mod otlp;
mod overload;
mod packaging;
mod partition;
mod queues;
mod refusals;
mod restarts;
mod ring_change;
mod run_files;
mod runner_cli;
mod runner_traces;
mod secrets;
mod settings;
mod shards;
mod told;
mod traces;
mod two_replicas;
