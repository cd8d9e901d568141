//! Other caches than ours under the same load and the same checks: Redis, Redis Cluster and memcached. What they do not promise is not
//! judged; what only nodes of the mesh can be told is refused at the start.

mod control;
mod dial;
mod meaning;
mod meta;
mod protocol;
mod resp;
mod servers;
mod slots;
mod start;
mod target;

use std::sync::Arc;

use load::{Consistency, Guarantee, LoadSettings, Plan, ValueTtls, run_plan};
use settings::Mistakes;

use self::{
    control::{CacheCluster, look_for_ever},
    protocol::Protocol,
    target::{CacheClient, CacheOptions},
};
use crate::{
    metrics,
    settings::{KillMode, Scheme, Settings, TargetUrl},
    startup,
};

/// memcached takes a longer time to live for a date.
const MEMCACHED_TTL_MS_MAX: i64 = 30 * 24 * 60 * 60 * 1000;

/// Whether TARGETS are other caches than ours.
pub(crate) fn are_targets(settings: &Settings) -> bool {
    settings.local.local == 0 && settings.http.targets.first().is_some_and(|target| !target.scheme.is_node())
}

/// Refuses what these targets cannot be told, and targets that are of several kinds.
pub(crate) fn check_together(settings: &Settings, mistakes: &mut Mistakes) {
    let targets = &settings.http.targets;
    let Some(first) = targets.first().filter(|_| settings.local.local == 0) else { return };
    if let Some(other) = targets.iter().find(|target| target.scheme != first.scheme) {
        let all = targets.iter().map(TargetUrl::url).collect::<Vec<_>>().join(",");
        let expected = format!("expected one kind of target, not {} and {}", first.scheme.name(), other.scheme.name());
        return mistakes.refuse("TARGETS", all, expected);
    }
    if first.scheme.is_node() {
        return;
    }
    let name = first.scheme.name();
    let faults = &settings.kill.faults;
    if !faults.is_empty() {
        let expected = format!("expected none, because a {name} target has no HTTP API that orders faults");
        mistakes.refuse("FAULTS", faults, expected);
    }
    if settings.kill.kill_mode != KillMode::None {
        let expected = format!("expected none, because a {name} target has no HTTP API that ends its process");
        mistakes.refuse("KILL_MODE", settings.kill.kill_mode.name(), expected);
    }
    if settings.traces.are_wanted() {
        let expected = format!("expected none, because a {name} target records no traces");
        mistakes.refuse("OTEL_EXPORTER_OTLP_ENDPOINT", "", expected);
    }
    if let Some(url) = &settings.observers.prometheus_url {
        let expected = format!("expected none, because a {name} target counts nothing that could be compared");
        mistakes.refuse("PROMETHEUS_URL", url, expected);
    }
    let ttls = &settings.http.set_ttl_ms;
    let is_taken = |ttl_ms: i64| ttl_ms <= 0 || (ttl_ms % 1000 == 0 && ttl_ms <= MEMCACHED_TTL_MS_MAX);
    if first.scheme == Scheme::Memcached && !ttls.all().all(is_taken) {
        let expected = "expected whole seconds up to 30 days, because memcached counts in these";
        mistakes.refuse("SET_TTL_MS", ttls, expected);
    }
}

/// Runs against Redis or memcached.
///
/// # Errors
/// Why there is no report.
pub(crate) async fn run(settings: &Settings) -> Result<u8, String> {
    let results = settings.load.open_results()?;
    let (servers, names) = start::find(&settings.http).await?;
    let cluster = CacheCluster::new(&servers);
    if settings.observers.metrics_port > 0 {
        metrics::serve(settings.observers.metrics_port, cluster.watched(), None)?;
    }
    let plan = plan(&settings.load, names, &settings.http.set_ttl_ms);
    let options = CacheOptions {
        protocol: Protocol::of(settings.http.targets[0].scheme),
        request_timeout: settings.http.request_timeout,
        kernel_timestamps: settings.http.kernel_timestamps,
    };
    let client = |_| CacheClient { servers: Arc::clone(&servers), options };
    let clients = (0..plan.threads).map(client).collect();
    let looking = servers.are_cluster().then(|| tokio::spawn(look_for_ever(Arc::clone(&servers))));
    let report = run_plan::<CacheClient>(plan, clients, &cluster).await;
    looking.iter().for_each(tokio::task::JoinHandle::abort);
    report?.publish(results)
}

/// One server answers for each key, so every read is to find the last acknowledged write, and there are no replicas to compare.
fn plan(load: &LoadSettings, names: Vec<String>, ttls: &ValueTtls) -> Plan {
    Plan {
        guarantee: Guarantee::OneCopy,
        consistency: Consistency::Quorum,
        check_every: None,
        reconcile: false,
        ..load.plan(names, startup::threads(), ttls)
    }
}
