//! Control calls to Redis and memcached: counters, slots, whether they take requests. They are rare, so each has a connection of its own.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use load::{Cluster, ErrorKind, NodeIndex, NodeStats, NodeView, OutcomeClass, Run, WriteVersion};
use serde_json::Value;

use super::{
    dial::{ServerFailure, dial},
    meta,
    protocol::Protocol,
    resp::{self, Reply},
    servers::Servers,
    slots::{SlotRange, ranges, replicas_of},
};
use crate::{control::WatchedRun, http::TargetHealth};

/// A control call fails after this long.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The least time between two looks at who has which slots.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// What these targets answer to all that only nodes of the mesh can be told.
const NO_MESH: &str = "Redis and memcached have no such thing";

/// Control over the servers of a run.
#[derive(Clone)]
pub(crate) struct CacheCluster {
    servers: Arc<Servers>,
    watched: WatchedRun,
}

/// What a server says about itself, by name.
pub(super) type Info = BTreeMap<String, String>;

impl CacheCluster {
    pub(super) fn new(servers: &Arc<Servers>) -> Self {
        Self { servers: Arc::clone(servers), watched: WatchedRun::default() }
    }

    /// The run that these servers are under, once it has begun.
    pub(super) fn watched(&self) -> WatchedRun {
        Arc::clone(&self.watched)
    }

    fn server(&self, node: NodeIndex) -> Arc<TargetHealth> {
        Arc::clone(&self.servers.topology().servers[node.0])
    }
}

impl Cluster for CacheCluster {
    fn begins(&self, run: &Arc<Run>) {
        // There is one run per process.
        let _ = self.watched.set(Arc::clone(run));
    }

    async fn stats(&self, node: NodeIndex) -> Result<NodeStats, String> {
        let server = self.server(node);
        let info = info(&server).await?;
        Ok(stats_of(Protocol::of(server.target.scheme), &info))
    }

    async fn view(&self, _: NodeIndex) -> Result<NodeView, String> {
        Err(NO_MESH.to_owned())
    }

    async fn ready(&self, node: NodeIndex) -> Result<bool, String> {
        Ok(why_not_ready(&info(&self.server(node)).await?).is_none())
    }

    async fn kill(&self, _: NodeIndex) -> Result<(), String> {
        Err(NO_MESH.to_owned())
    }

    async fn read(&self, _: NodeIndex, _: &[u8]) -> Result<(OutcomeClass, Option<WriteVersion>), String> {
        Err(NO_MESH.to_owned())
    }
}

/// Looks again at who has which slots whenever somebody has met a server that is gone or has others, and until none that has slots is gone.
pub(super) async fn look_for_ever(servers: Arc<Servers>) {
    loop {
        if !servers.topology().lacks_masters() {
            servers.stale.notified().await;
        }
        let known = servers.topology();
        for server in &known.servers {
            // A server that was cut off has heard of nothing since; those it lists may answer, and then redirect.
            if let Ok(ranges) = slot_ranges(server).await
                && !ranges.is_empty()
            {
                servers.assign(&ranges);
                break;
            }
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

/// Why a server does not take requests, if it does not.
pub(super) fn why_not_ready(info: &Info) -> Option<String> {
    let is = |name: &str, value: &str| info.get(name).is_some_and(|found| found == value);
    if is("loading", "1") {
        return Some("it is loading its data".to_owned());
    }
    (is("cluster_enabled", "1") && !is("cluster_state", "ok")).then(|| "cluster_state is not ok".to_owned())
}

/// What a server says about itself: INFO and, of a node of a cluster, CLUSTER INFO; or `stats`.
pub(super) async fn info(server: &TargetHealth) -> Result<Info, String> {
    if Protocol::of(server.target.scheme) == Protocol::Meta {
        let stats = ask(server, b"stats\r\n", meta::parse_stats).await?;
        return Ok(stats.into_iter().collect());
    }
    let mut info = told(server, &[b"INFO"]).await?;
    if info.get("cluster_enabled").is_some_and(|enabled| enabled == "1") {
        info.extend(told(server, &[b"CLUSTER", b"INFO"]).await?);
    }
    Ok(info)
}

/// Lines of names and values with a colon in between.
async fn told(server: &TargetHealth, command: &[&[u8]]) -> Result<Info, String> {
    let pairs = |reply: &Reply<'_>| {
        let lines = reply.text()?.lines().filter_map(|line| line.split_once(':'));
        Some(lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    };
    tell(server, command, pairs).await
}

/// Who has which slots, as this server knows it.
pub(super) async fn slot_ranges(server: &TargetHealth) -> Result<Vec<SlotRange>, String> {
    tell(server, &[b"CLUSTER", b"SLOTS"], |reply| Some(ranges(reply, &server.target.authority))).await
}

/// The replicas of a cluster that this server knows. CLUSTER SLOTS leaves out those that have received nothing yet.
pub(super) async fn replicas(server: &TargetHealth) -> Result<Vec<String>, String> {
    let of = |reply: &Reply<'_>| Some(replicas_of(reply.text()?, &server.target.authority));
    tell(server, &[b"CLUSTER", b"NODES"], of).await
}

async fn tell<R>(
    server: &TargetHealth,
    command: &[&[u8]],
    read: impl Fn(&Reply<'_>) -> Option<R>,
) -> Result<R, String> {
    let mut request = Vec::new();
    resp::command(&mut request, command);
    let read = |buffer: &[u8]| {
        let Some((reply, _)) = resp::parse(buffer)? else { return Ok(None) };
        match reply {
            Reply::Error(reason) => Ok(Some(Err(ServerFailure::refused(reason).words()))),
            reply => Ok(Some(Ok(read(&reply).ok_or(ErrorKind::Protocol)?))),
        }
    };
    ask(server, &request, read).await?
}

async fn ask<R>(
    server: &TargetHealth,
    request: &[u8],
    read: impl Fn(&[u8]) -> Result<Option<R>, ErrorKind>,
) -> Result<R, String> {
    let asked = async {
        let mut connection = dial(server, false).await?;
        Ok(connection.exchange(request, |buffer, _| read(buffer)).await?)
    };
    match tokio::time::timeout(TIMEOUT, asked).await {
        Ok(answer) => answer.map_err(|failure: ServerFailure| failure.words()),
        Err(_) => Err(format!("no answer within {} s", TIMEOUT.as_secs())),
    }
}

/// A server's counters in the names of ours.
fn stats_of(protocol: Protocol, info: &Info) -> NodeStats {
    let whole = |name: &str| info.get(name).and_then(|value| value.parse::<u64>().ok());
    let number = |name: &str| info.get(name).and_then(|value| value.parse::<f64>().ok());
    let first = |names: [&str; 2]| names.iter().find_map(|name| whole(name)).unwrap_or_default();
    let (cpu_s, started) = match protocol {
        Protocol::Resp => (
            number("used_cpu_user").zip(number("used_cpu_sys")),
            // The process's number may be the same each time, as in a container.
            info.get("run_id").cloned().map(Value::from),
        ),
        Protocol::Meta => (
            number("rusage_user").zip(number("rusage_system")),
            whole("time").zip(whole("uptime")).map(|(now, uptime)| Value::from(now.saturating_sub(uptime))),
        ),
    };
    let mut own = serde_json::Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        value.into_iter().for_each(|value| {
            own.insert(name.to_owned(), value);
        });
    };
    put("cpu_ms", cpu_s.map(|(user, system)| Value::from((user + system) * 1e3)));
    put("pid", whole("process_id").or_else(|| whole("pid")).map(Value::from));
    put("started", started);
    put("epoch", whole("cluster_current_epoch").map(Value::from));
    put("version", info.get("redis_version").or_else(|| info.get("version")).cloned().map(Value::from));
    NodeStats {
        hits: first(["keyspace_hits", "get_hits"]),
        misses: first(["keyspace_misses", "get_misses"]),
        evictions: first(["evicted_keys", "evictions"]),
        expirations: first(["expired_keys", "expired_unfetched"]),
        size: whole("curr_items").unwrap_or_else(|| keys_of(info)),
        capacity: first(["maxmemory", "limit_maxbytes"]),
        mesh: own,
    }
}

/// `db0:keys=5,expires=0,avg_ttl=0`.
fn keys_of(info: &Info) -> u64 {
    let keys = info.get("db0").and_then(|db| db.strip_prefix("keys="));
    keys.and_then(|keys| keys.split(',').next()?.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info_of(text: &str) -> Info {
        text.split(' ').filter_map(|pair| pair.split_once(':')).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
    }

    #[test]
    fn counters_have_our_names() {
        let redis = "redis_version:7.0.15 process_id:7 run_id:ab used_cpu_sys:0.5 used_cpu_user:1.0 keyspace_hits:3 \
                     keyspace_misses:4 evicted_keys:5 expired_keys:6 maxmemory:9 db0:keys=8,expires=0 cluster_current_epoch:2";
        let stats = stats_of(Protocol::Resp, &info_of(redis));
        assert_eq!((stats.hits, stats.misses, stats.evictions, stats.expirations), (3, 4, 5, 6));
        assert_eq!((stats.size, stats.capacity, stats.own("epoch"), stats.cpu_ms()), (8, 9, Some(2), Some(1500.0)));
        let memcached = "pid:7 uptime:10 time:1010 version:1.6 rusage_user:1.0 rusage_system:0.5 get_hits:3 get_misses:4 \
                         evictions:5 curr_items:8 limit_maxbytes:9";
        let stats = stats_of(Protocol::Meta, &info_of(memcached));
        assert_eq!((stats.hits, stats.misses, stats.evictions, stats.size), (3, 4, 5, 8));
        assert_eq!((stats.own("started"), stats.own("pid"), stats.cpu_ms()), (Some(1000), Some(7), Some(1500.0)));
    }

    #[test]
    fn a_server_that_loads_or_a_cluster_that_is_down_is_not_ready() {
        let why = |text: &str| why_not_ready(&info_of(text));
        assert_eq!(why("loading:0 cluster_enabled:0"), None);
        assert_eq!(why("loading:0 cluster_enabled:1 cluster_state:ok"), None);
        assert!(why("loading:1").is_some() && why("cluster_enabled:1 cluster_state:fail").is_some());
        assert_eq!(why("uptime:1"), None, "memcached");
    }
}
