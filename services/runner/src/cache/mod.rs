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

use load::{Guarantee, LoadSettings, Plan, ReadConsistency, ValueTtls, run_plan};

use self::{
    control::{CacheCluster, look_for_ever},
    protocol::Protocol,
    target::{CacheClient, CacheOptions},
};
use crate::{metrics, settings::Settings, startup};

/// Whether TARGETS are other caches than ours.
pub(crate) fn are_targets(settings: &Settings) -> bool {
    settings.local.local == 0 && settings.http.targets.first().is_some_and(|target| !target.scheme.is_node())
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
        consistency: ReadConsistency::Quorum,
        check_every: None,
        reconcile: false,
        ..load.plan(names, startup::threads(), ttls)
    }
}
