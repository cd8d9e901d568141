//! Drives three in-process nodes without HTTP.

mod settings;
mod target;
mod trio;

use std::process::ExitCode;

use ::settings::raise_file_limit;
use load::{NodeIndex, block_on, exit_code, run_plan};

use crate::{settings::Settings, target::DirectClient, trio::Trio};

/// What it is told is in `malloc_conf.c`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    exit_code("direct-runner", start())
}

fn start() -> Result<u8, String> {
    let settings = Settings::from_args(std::env::args_os()).unwrap_or_else(|exit| exit.exit());
    settings.load.begin_output();
    block_on(run(&settings))
}

async fn run(settings: &Settings) -> Result<u8, String> {
    let load = &settings.load;
    raise_file_limit();
    let results = load.open_results()?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut plan = load.plan(Vec::new(), cores, &settings.set_ttl_ms);
    let (trio, questions) = Trio::start(settings, plan.threads).await?;
    plan.targets = trio.names();
    plan.nodes_within = true;
    plan.add_kills(load, Some(NodeIndex(0)));
    let mut questions = Some(questions);
    let client =
        |thread| DirectClient { nodes: trio.nodes(), seed: plan.seed ^ (thread << 32), questions: questions.take() };
    let clients = (0..plan.threads as u64).map(client).collect();
    let report = run_plan::<DirectClient>(plan, clients, &trio).await?;
    report.publish(results)
}
