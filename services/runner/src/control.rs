//! Control calls over HTTP: counters, views, kills. They are rare, so a general client serves them.

use std::{
    sync::{Arc, OnceLock, Weak},
    time::{Duration, Instant},
};

use load::{Cluster, FaultRequest, NodeIndex, NodeStats, NodeView, Op, OutcomeClass, Run, ServerCounts, WriteVersion};
use observability::{ClientTrace, NodeOperations};
use percent_encoding::{percent_encode, utf8_percent_encode};
use reqwest::{Client, Response, StatusCode};
use serde::Deserialize;

use crate::{
    access::{Access, RESERVED, TIMEOUT, reason},
    prometheus::Prometheus,
    settings::TargetUrl,
    traces::Traces,
};

/// So long may a node take until it looks at an order to crash. An order that was given up is not executed: a request that was given up
/// is forgotten.
const STRUCK_WITHIN: Duration = Duration::from_secs(5);

/// An order for faults fails after this long: a node may be as slow as 10 s.
const LAID_WITHIN: Duration = Duration::from_secs(11);

/// A run to watch, once it has begun.
pub(crate) type WatchedRun = Arc<OnceLock<Arc<Run>>>;

/// Control over HTTP nodes.
#[derive(Clone)]
pub(crate) struct HttpCluster {
    client: Client,
    urls: Vec<String>,
    access: Access,
    kill_token: String,
    watched: WatchedRun,
    prometheus: Option<Prometheus>,
    traces: Arc<OnceLock<Weak<Traces>>>,
    /// Another shard orders the faults, and this one looks on.
    looks_on: bool,
}

impl HttpCluster {
    pub(crate) fn new(targets: &[TargetUrl], kill_token: &str, access: &Access) -> Result<Self, String> {
        // A node that was killed must be seen as gone, not through a connection that is still open.
        let client = access.client().timeout(TIMEOUT).pool_max_idle_per_host(0).build();
        let client = client.map_err(|error| format!("cannot make an HTTP client: {}", reason(&error)))?;
        Ok(Self {
            client,
            access: access.clone(),
            urls: targets.iter().map(TargetUrl::url).collect(),
            kill_token: kill_token.to_owned(),
            watched: WatchedRun::default(),
            prometheus: None,
            traces: Arc::default(),
            looks_on: false,
        })
    }

    /// The same nodes, which the Prometheus at this URL watches; none does if it is empty.
    #[must_use]
    pub(crate) fn watched_by(mut self, url: Option<&str>, targets: &[TargetUrl]) -> Self {
        let instances = targets.iter().map(|target| target.authority.clone()).collect();
        self.prometheus = url.map(|url| Prometheus { url: url.to_owned(), instances });
        self
    }

    /// The same nodes, whose faults another shard orders, if `looks_on`.
    #[must_use]
    pub(crate) const fn looked_on(mut self, looks_on: bool) -> Self {
        self.looks_on = looks_on;
        self
    }

    /// Reads that are worth it have traces from now on, for as long as these live.
    pub(crate) fn trace_with(&self, traces: &Arc<Traces>) {
        // There is one run per process.
        let _ = self.traces.set(Arc::downgrade(traces));
    }

    /// The run that these nodes are under, once it has begun.
    pub(crate) fn watched(&self) -> WatchedRun {
        Arc::clone(&self.watched)
    }

    pub(crate) const fn access(&self) -> &Access {
        &self.access
    }

    /// Whether a node is ready; an error if it gives no HTTP answer.
    pub(crate) async fn is_ready(&self, node: usize) -> Result<bool, String> {
        Ok(self.get(node, "/ready").await?.status() == StatusCode::OK)
    }

    /// Why a node is not ready, in its own words.
    pub(crate) async fn why_not_ready(&self, node: usize) -> String {
        match self.get(node, "/ready").await {
            Ok(response) => {
                let status = response.status();
                format!("{status} {}", response.text().await.unwrap_or_default().trim())
            }
            Err(reason) => reason,
        }
    }

    async fn get(&self, node: usize, path: &str) -> Result<Response, String> {
        let request = self.access.admin(self.client.get(format!("{}{path}", self.urls[node])));
        request.send().await.map_err(|error| reason(&error))
    }

    /// Whether a node takes the tokens of this runner; a node that does not answer is not asked.
    ///
    /// # Errors
    /// Which token it does not take.
    pub(crate) async fn check_tokens(&self, node: usize) -> Result<(), String> {
        // Without a key nothing is read, and the answer is another error.
        let data = self.access.data(self.client.get(format!("{}/get", self.urls[node]))).send().await;
        let admin = self.access.admin(self.client.get(format!("{}/cluster", self.urls[node]))).send().await;
        for (answer, name) in [(data, "HTTP_TOKEN"), (admin, "HTTP_ADMIN_TOKEN")] {
            if answer.is_ok_and(|response| response.status() == StatusCode::UNAUTHORIZED) {
                return Err(format!("{name}: {} answered 401: expected the node's {name}", self.urls[node]));
            }
        }
        Ok(())
    }

    fn with_token(&self, node: NodeIndex, path: &str) -> String {
        format!("{}{path}?token={}", self.urls[node.0], utf8_percent_encode(&self.kill_token, RESERVED))
    }

    /// Lets a process end or be silent.
    async fn strike(&self, node: NodeIndex, how: &str, within: Duration) -> Result<(), String> {
        if self.looks_on {
            return Ok(());
        }
        let url = format!("{}&after_ms=0&{how}", self.with_token(node, "/kill"));
        match self.client.post(url).timeout(within).send().await {
            Ok(response) => accepted("/kill", response).await,
            Err(error) if error.is_connect() => Err(format!("cannot reach /kill: {}", reason(&error))),
            // It may have died before it could answer.
            Err(_) => Ok(()),
        }
    }

    async fn json<T: serde::de::DeserializeOwned>(&self, node: NodeIndex, path: &str) -> Result<T, String> {
        let response = self.get(node.0, path).await?;
        let response = response.error_for_status().map_err(|error| reason(&error))?;
        response.json().await.map_err(|error| reason(&error))
    }
}

impl Cluster for HttpCluster {
    fn begins(&self, run: &Arc<Run>) {
        // There is one run per process.
        let _ = self.watched.set(Arc::clone(run));
    }

    async fn stats(&self, node: NodeIndex) -> Result<NodeStats, String> {
        self.json(node, "/stats").await
    }

    async fn server_counts(&self, node: NodeIndex) -> Result<ServerCounts, String> {
        let response = self.get(node.0, "/metrics").await?;
        let response = response.error_for_status().map_err(|error| reason(&error))?;
        counts_of(NodeOperations::parse(&response.text().await.map_err(|error| reason(&error))?))
    }

    async fn watched_p99(&self, window: Duration) -> Option<Result<[Option<f64>; Op::ALL.len()], String>> {
        Some(self.prometheus.as_ref()?.p99(&self.client, window).await)
    }

    async fn view(&self, node: NodeIndex) -> Result<NodeView, String> {
        self.json(node, "/cluster").await
    }

    async fn ready(&self, node: NodeIndex) -> Result<bool, String> {
        self.is_ready(node.0).await
    }

    async fn addresses(&self, node: NodeIndex) -> Vec<String> {
        let name = self.urls[node.0].split_once("://").map_or("", |(_, authority)| authority).to_owned();
        let found = tokio::time::timeout(TIMEOUT, tokio::net::lookup_host(name)).await;
        found.into_iter().flatten().flatten().map(|address| address.ip().to_string()).collect()
    }

    async fn kill(&self, node: NodeIndex) -> Result<(), String> {
        self.strike(node, "mode=crash", STRUCK_WITHIN).await
    }

    async fn stop(&self, node: NodeIndex) -> Result<(), String> {
        self.strike(node, "mode=graceful", TIMEOUT).await
    }

    async fn pause(&self, node: NodeIndex, time: Duration) -> Result<(), String> {
        self.strike(node, &format!("mode=pause&for_ms={}", time.as_millis()), TIMEOUT).await
    }

    async fn lay(&self, node: NodeIndex, order: &FaultRequest) -> Result<(), String> {
        if self.looks_on {
            return Ok(());
        }
        let request = self.client.post(self.with_token(node, "/fault")).json(order);
        // The answer may already be late by the fault itself.
        let response = request.timeout(LAID_WITHIN).send().await;
        accepted("/fault", response.map_err(|error| format!("/fault: {}", reason(&error)))?).await
    }

    async fn heal(&self, node: NodeIndex) -> Result<(), String> {
        if self.looks_on {
            return Ok(());
        }
        match self.client.delete(self.with_token(node, "/fault")).send().await {
            Ok(response) => accepted("/fault", response).await,
            Err(error) if error.is_connect() && !error.is_timeout() => Ok(()),
            Err(error) => Err(format!("/fault: {}", reason(&error))),
        }
    }

    async fn read(&self, node: NodeIndex, key: &[u8]) -> Result<(OutcomeClass, Option<WriteVersion>), String> {
        self.read_with(node, key, None).await
    }

    async fn traced_read(&self, node: NodeIndex, key: &[u8]) -> Option<(u128, Result<OutcomeClass, String>)> {
        let traces = self.traces.get()?.upgrade()?;
        let (trace, began) = (traces.begin_kept(), Instant::now());
        let read = self.read_with(node, key, Some(trace)).await;
        let read = read.map(|(outcome, _)| outcome);
        traces.keep_divergence(trace, node, *read.as_ref().unwrap_or(&OutcomeClass::Error), began);
        Some((trace.trace, read))
    }
}

impl HttpCluster {
    async fn read_with(
        &self,
        node: NodeIndex,
        key: &[u8],
        trace: Option<ClientTrace>,
    ) -> Result<(OutcomeClass, Option<WriteVersion>), String> {
        let url = format!("{}/get?k={}", self.urls[node.0], percent_encode(key, RESERVED));
        let mut request = self.access.data(self.client.get(url));
        if let Some(trace) = trace {
            request = request.header("traceparent", &trace.traceparent(0)[..]);
        }
        let response = request.send().await.map_err(|error| reason(&error))?;
        match response.status() {
            StatusCode::OK => {
                let version = response.headers().get("x-mesh-version").and_then(|v| WriteVersion::parse(v.as_bytes()));
                let is_local = response.headers().get("x-cache").is_some_and(|cache| cache == "HIT_LOCAL");
                let hit = if is_local { OutcomeClass::Local } else { OutcomeClass::Remote };
                Ok((hit, Some(version.unwrap_or_default())))
            }
            StatusCode::NOT_FOUND => Ok((OutcomeClass::Miss, None)),
            other => Err(format!("/get answered {other}")),
        }
    }
}

/// Whether a node does as it was told.
async fn accepted(path: &str, response: Response) -> Result<(), String> {
    match response.status() {
        StatusCode::OK => Ok(()),
        StatusCode::FORBIDDEN => Err(format!("{path} answered 403: set ALLOW_KILL=true on the nodes")),
        StatusCode::UNAUTHORIZED => Err(format!("{path} answered 401: KILL_TOKEN is not the nodes'")),
        other => {
            let problem: ProblemDetail = response.json().await.unwrap_or_default();
            Err(format!("{path} answered {} {}", other.as_u16(), problem.detail).trim_end().to_owned())
        }
    }
}

/// The part of an `application/problem+json` that is for people.
#[derive(Default, Deserialize)]
struct ProblemDetail {
    #[serde(default)]
    detail: String,
}

/// A node's count in the load's own terms. What is not known here is left out, and missed by who compares.
///
/// # Errors
/// If these are the metrics of something else.
fn counts_of(counted: NodeOperations) -> Result<ServerCounts, String> {
    if counted.started_unix_s <= 0.0 {
        return Err("its metrics tell nothing of its operations".to_owned());
    }
    let mut served = ServerCounts { since_unix_s: counted.started_unix_s, ..ServerCounts::default() };
    (served.shed, served.withheld) = (counted.shed, counted.withheld);
    let place = |op: &str| ["get", "set", "delete"].iter().position(|known| *known == op);
    for (op, outcome, count) in counted.outcomes {
        let Some(op) = place(&op) else { continue };
        let class = match outcome.as_str() {
            "hit_local" => OutcomeClass::Local,
            "hit_remote" => OutcomeClass::Remote,
            "miss" => OutcomeClass::Miss,
            "acknowledged" => OutcomeClass::Acknowledged,
            "abandoned" => {
                served.ops[op].abandoned += count;
                continue;
            }
            _ => OutcomeClass::Error,
        };
        served.ops[op].outcomes[class as usize] += count;
    }
    for (op, bound_s, count) in counted.buckets {
        place(&op).into_iter().for_each(|op| served.ops[op].buckets.push((bound_s, count)));
    }
    Ok(served)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_node_s_own_metrics_are_its_count() {
        let counted = |text: &str| counts_of(NodeOperations::parse(text));
        assert!(counted("up 1\nprocess_start_time_seconds 9\n").is_err());
        let text = "process_start_time_seconds{node=\"a\"} 9\nmesh_requests_total{op=\"set\",outcome=\"refused\"} 3\n";
        let errors = counted(text).map(|served| (served.since_unix_s, served.ops[1].outcomes));
        assert_eq!(errors, Ok((9.0, [0, 0, 0, 0, 3])));
    }
}
