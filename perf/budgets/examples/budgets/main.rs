//! One scenario per run: `budgets SCENARIO COUNT` warms up, and then does COUNT operations between [`counted_from_here`] and
//! [`counted_to_here`], which `perf/budgets.py` counts under callgrind. One thread, paused time, fixed seeds: two runs do the same.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a measurement stops at the first surprise")]

mod cluster;
mod http;
mod parts;
mod replica;
mod through_mesh;

use std::hint::black_box;

use tokio::runtime::{Builder, Runtime};

use cluster::Cluster;

/// The node's own allocator: its calls are what is counted as allocations.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Operations before those that are counted: tables and buffers have their size then.
const WARM_UP: usize = 1000;

/// Callgrind writes down what it has counted when this is called.
#[inline(never)]
fn counted_from_here() {
    black_box(());
}

/// As above.
#[inline(never)]
fn counted_to_here() {
    black_box(1);
}

/// Something that is done many times; the number tells one time from the others.
trait Operation {
    async fn step(&mut self, number: usize);
}

fn run(runtime: &Runtime, mut operation: impl Operation, count: usize) {
    runtime.block_on(async {
        for number in 0..WARM_UP {
            operation.step(number).await;
        }
        counted_from_here();
        for number in WARM_UP..WARM_UP + count {
            operation.step(number).await;
        }
        counted_to_here();
    });
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let scenario = arguments.next().expect("the name of a scenario");
    let count = arguments.next().and_then(|count| count.parse().ok()).expect("a count of operations");
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let cluster = || runtime.block_on(Cluster::start());
    let run_in = |cluster: &Cluster| {
        let runtime = &runtime;
        match scenario.as_str() {
            "get-local" => run(runtime, through_mesh::Get::local(cluster), count),
            "get-remote" => run(runtime, through_mesh::Get::remote(cluster), count),
            "set" => run(runtime, through_mesh::Set::new(cluster), count),
            "set-replica" => run(runtime, runtime.block_on(replica::Writes::start(cluster)), count),
            "http-get-local" => run(runtime, runtime.block_on(http::Requests::get_local(cluster)), count),
            "http-get-remote" => run(runtime, runtime.block_on(http::Requests::get_remote(cluster)), count),
            "http-set" => run(runtime, runtime.block_on(http::Requests::set(cluster)), count),
            other => panic!("no scenario is called {other}"),
        }
    };
    match scenario.as_str() {
        "codec-write" => run(&runtime, parts::CodecWrite::default(), count),
        "codec-read" => run(&runtime, parts::CodecRead::default(), count),
        "store-get" => run(&runtime, parts::StoreGet::new(), count),
        "store-set" => run(&runtime, parts::StoreSet::overwriting(), count),
        "store-set-evicting" => run(&runtime, parts::StoreSet::evicting(), count),
        "checker-get" => run(&runtime, parts::CheckerGet::default(), count),
        "checker-set" => run(&runtime, parts::CheckerSet::default(), count),
        "recorder" => run(&runtime, parts::Recorder::default(), count),
        "pacer" => run(&runtime, parts::Pace::default(), count),
        _ => run_in(&cluster()),
    }
}
