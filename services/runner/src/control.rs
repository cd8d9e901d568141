//! Control calls over HTTP: counters, views, kills. They are rare, so a general client serves them.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use load::{Cluster, NodeIndex, NodeStats, NodeView, OutcomeClass, Run, Served, Version};
use observability::NodeOperations;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode, utf8_percent_encode};
use reqwest::{Client, Response, StatusCode};

use crate::settings::TargetUrl;

/// A control call fails after this long.
const TIMEOUT: Duration = Duration::from_secs(1);

/// What a query must encode: all but the unreserved characters (RFC 3986, section 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A run to watch, once it has begun.
pub(crate) type Watched = Arc<OnceLock<Arc<Run>>>;

/// Control over HTTP nodes.
#[derive(Clone, Debug)]
pub(crate) struct HttpCluster {
    client: Client,
    urls: Vec<String>,
    kill_token: String,
    watched: Watched,
}

impl HttpCluster {
    pub(crate) fn new(targets: &[TargetUrl], kill_token: &str) -> Result<Self, String> {
        // A node that was killed must be seen as gone, not through a connection that is still open.
        let client = Client::builder().timeout(TIMEOUT).pool_max_idle_per_host(0).no_proxy().build();
        let client = client.map_err(|error| format!("cannot make an HTTP client: {}", reason(&error)))?;
        Ok(Self {
            client,
            urls: targets.iter().map(TargetUrl::url).collect(),
            kill_token: kill_token.to_owned(),
            watched: Watched::default(),
        })
    }

    /// The run that these nodes are under, once it has begun.
    pub(crate) fn watched(&self) -> Watched {
        Arc::clone(&self.watched)
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
        let url = format!("{}{path}", self.urls[node]);
        self.client.get(url).send().await.map_err(|error| reason(&error))
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

    async fn served(&self, node: NodeIndex) -> Result<Served, String> {
        let response = self.get(node.0, "/metrics").await?;
        let response = response.error_for_status().map_err(|error| reason(&error))?;
        Ok(served(NodeOperations::parse(&response.text().await.map_err(|error| reason(&error))?)))
    }

    async fn view(&self, node: NodeIndex) -> Result<NodeView, String> {
        self.json(node, "/cluster").await
    }

    async fn ready(&self, node: NodeIndex) -> Result<bool, String> {
        self.is_ready(node.0).await
    }

    async fn kill(&self, node: NodeIndex) -> Result<(), String> {
        let token = utf8_percent_encode(&self.kill_token, RESERVED);
        let url = format!("{}/kill?token={token}&after_ms=0&mode=crash", self.urls[node.0]);
        let status = match self.client.post(url).send().await {
            Ok(response) => response.status(),
            Err(error) if error.is_connect() => return Err(format!("cannot reach /kill: {}", reason(&error))),
            // It may have died before it could answer.
            Err(_) => return Ok(()),
        };
        match status {
            StatusCode::OK => Ok(()),
            StatusCode::FORBIDDEN => Err("/kill answered 403: set ALLOW_KILL=true on the nodes".to_owned()),
            StatusCode::UNAUTHORIZED => Err("/kill answered 401: KILL_TOKEN is not the nodes'".to_owned()),
            other => Err(format!("/kill answered {other}")),
        }
    }

    async fn read(&self, node: NodeIndex, key: &[u8]) -> Result<Option<Version>, String> {
        let key = percent_encode(key, RESERVED);
        let response = self.get(node.0, &format!("/get?k={key}")).await?;
        match response.status() {
            StatusCode::OK => {
                let version = response.headers().get("x-mesh-version").and_then(|v| Version::parse(v.as_bytes()));
                Ok(Some(version.unwrap_or_default()))
            }
            StatusCode::NOT_FOUND => Ok(None),
            other => Err(format!("/get answered {other}")),
        }
    }
}

/// A node's count in the load's own terms. What is not known here is left out, and missed by who compares.
fn served(counted: NodeOperations) -> Served {
    let mut served = Served { since_unix_s: counted.started_unix_s, ..Served::default() };
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
    served
}

/// The innermost cause: `connection refused`, not `error sending request`.
fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return format!("no answer within {} s", TIMEOUT.as_secs());
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
