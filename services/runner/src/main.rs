//! Drives HTTP load against a mesh, breaks nodes, and tells what happened.

mod abba;
mod access;
mod cache;
mod control;
mod http;
mod keep;
mod local_shards;
mod metrics;
mod null_server;
mod prometheus;
mod recorded;
mod settings;
mod startup;
mod supervisor;
mod target_url;
mod traces;
mod wire;

use std::{process::ExitCode, sync::Arc};

use load::{Interrupts, Results, StoredRuns, block_on, exit_code, merge, run_plan};

use crate::{
    abba::Abba,
    access::Access,
    control::HttpCluster,
    http::{HttpClient, HttpOptions, probe_for_ever},
    settings::{Command, KillMode, Reconcile, Settings, TargetUrl},
    supervisor::Supervisor,
    traces::Recording,
};

/// What it is told is in `malloc_conf.c`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    exit_code("runner", start())
}

fn start() -> Result<u8, String> {
    let settings = Settings::from_args(std::env::args_os()).unwrap_or_else(|exit| exit.exit());
    settings.load.begin_output();
    match &settings.command {
        Some(Command::NullServer { port, threads, value_bytes }) => {
            null_server::serve(*port, *threads, *value_bytes).map(|()| 0)
        }
        Some(Command::Merge { shards }) => {
            let report = merge(shards)?;
            report.publish(Results::open(settings.load.results.as_deref(), Some(&report.run_id))?)
        }
        Some(Command::Stored(StoredRuns::Compare { a, b, abba: Some(rounds), format, fail_on })) => {
            let abba = Abba { settings: &settings, files: [a, b], rounds: *rounds };
            let runs = async { abba.run().await?.compare(*format, fail_on) };
            block_on(runs)
        }
        Some(Command::Stored(runs)) => runs.run(settings.load.results.as_deref()),
        Some(Command::LocalShards { count }) => block_on(local_shards::run(&settings, *count)),
        // A run file was read with the settings.
        Some(Command::Run { .. } | Command::Rerun { .. }) | None => block_on(run(&settings)),
    }
}

/// Runs against TARGETS, or against nodes of our own that are gone afterwards.
async fn run(settings: &Settings) -> Result<u8, String> {
    startup::check(settings)?;
    if cache::are_targets(settings) {
        return cache::run(settings).await;
    }
    let (local, kill_token) = (&settings.local, &settings.kill.kill_token);
    let access = Access::new(settings)?;
    if local.local == 0 {
        let targets = &settings.http.targets;
        let cluster = HttpCluster::new(targets, kill_token, &access)?
            .watched_by(settings.observers.prometheus_url.as_deref(), targets);
        let cluster = cluster.looked_on(settings.load.shard.is_some_and(|shard| !shard.is_first()));
        return drive(settings, targets, &cluster).await;
    }
    let supervisor = Supervisor::start(settings)?;
    let result = run_local(settings, &supervisor, &access).await;
    supervisor.stop().await;
    result
}

async fn run_local(settings: &Settings, supervisor: &Supervisor, access: &Access) -> Result<u8, String> {
    let cluster = HttpCluster::new(&supervisor.targets, &supervisor.kill_token, access)?;
    let cluster = cluster.watched_by(settings.observers.prometheus_url.as_deref(), &supervisor.targets);
    let mut interrupts = Interrupts::new().map_err(|error| format!("cannot listen for signals: {error}"))?;
    supervisor.wait_ready(&cluster, &mut interrupts).await?;
    drive(settings, &supervisor.targets, &cluster).await
}

async fn drive(settings: &Settings, targets: &[TargetUrl], cluster: &HttpCluster) -> Result<u8, String> {
    let results = settings.load.open_results()?;
    let recording = Recording::start(settings, targets, cluster.access())?;
    if let Some(recording) = &recording {
        cluster.trace_with(&recording.traces());
    }
    if settings.observers.metrics_port > 0 {
        metrics::serve(settings.observers.metrics_port, cluster.watched(), recording.as_ref().map(Recording::counts))?;
    }
    let http = &settings.http;
    let victim = settings.victim(targets).map_err(|mistake| mistake.to_string())?;
    let faults = settings.faults(targets).map_err(|mistake| mistake.to_string())?;
    let mut interrupts = Interrupts::new().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let health = tokio::select! {
        health = startup::find_targets(targets, http, cluster) => health?,
        // As a container's first process it would ignore the signal.
        () = interrupts.next() => return Err("interrupted before the nodes were ready".to_owned()),
    };
    startup::allow_faults("FAULTS", &faults, targets, cluster).await?;
    let names = targets.iter().map(TargetUrl::url).collect();
    let mut plan = settings.load.plan(names, startup::threads(), &http.set_ttl_ms);
    plan.reconcile &= http.reconcile == Reconcile::Strict;
    let planned = faults.len();
    plan.faults = faults;
    if settings.kill.kill_mode != KillMode::None {
        plan.add_kills(&settings.load, victim);
        let kills = plan.faults.len() - planned;
        startup::allow_faults("KILL_MODE", &plan.faults[..kills], targets, cluster).await?;
    }
    let options = HttpOptions {
        entry: http.entry,
        failover_after: http.failover_after,
        request_timeout: http.request_timeout,
        extra_tries_max_percent: http.extra_tries_max_percent,
        kernel_timestamps: http.kernel_timestamps,
    };
    let traces = recording.as_ref().map(Recording::traces);
    let client = |thread| HttpClient {
        targets: Arc::clone(&health),
        options,
        seed: plan.seed ^ (thread << 32),
        authorization: cluster.access().data_header(),
        traces: traces.clone(),
    };
    let clients = (0..plan.threads as u64).map(client).collect();
    let probe = tokio::spawn(probe_for_ever(Arc::clone(&health), cluster.clone()));
    let mut report = run_plan::<HttpClient>(plan, clients, cluster).await?;
    probe.abort();
    drop(traces);
    if let Some(recording) = recording {
        report.set_spans(recording.finish().await, &settings.observers.jaeger_url);
    }
    report.publish(results)
}
