//! One node's HTTP API, as the tests speak it.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use reqwest::{Client, ClientBuilder, Method, RequestBuilder};
use serde_json::{Value, json};

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// The default.
    One,
    /// Sees every write acknowledged before.
    Quorum,
}

/// An answer to GET, SET or DELETE.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The HTTP status; 0 if there was no HTTP answer at all.
    pub status: u16,
    /// `X-Cache`, or nothing.
    pub cache: String,
    /// The body.
    pub body: String,
    /// From sending to the body's last byte.
    pub took: Duration,
}

/// A client of HTTP and HTTPS. The workspace's reqwest brings no cryptography of its own.
pub fn http_client() -> ClientBuilder {
    // Another test may have done so before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy()
}

/// A client for one node.
#[derive(Clone, Debug)]
pub struct NodeClient {
    http: Client,
    base: String,
}

impl NodeClient {
    /// Longer than every time-out of a node, so that it is the node that gives up.
    const TIMEOUT: Duration = Duration::from_secs(10);

    /// For the node at `addr`, with connections of its own.
    pub fn new(addr: SocketAddr) -> Self {
        let http = http_client().timeout(Self::TIMEOUT).build().expect("a client without options");
        Self { http, base: format!("http://{addr}") }
    }

    /// GET; `key` must not need percent-encoding.
    pub async fn get(&self, key: &str, consistency: Consistency) -> Reply {
        let query = match consistency {
            Consistency::One => "",
            Consistency::Quorum => "&consistency=quorum",
        };
        self.send(self.request(Method::GET, &format!("/get?k={key}{query}"))).await
    }

    /// SET with the node's default expiry.
    pub async fn set(&self, key: &str, value: &str) -> Reply {
        self.send(self.request(Method::POST, "/set").json(&json!({"k": key, "v": value, "ttl_ms": 0}))).await
    }

    /// DELETE.
    pub async fn delete(&self, key: &str) -> Reply {
        self.send(self.request(Method::DELETE, &format!("/del?k={key}"))).await
    }

    /// Whether it says that it is ready.
    pub async fn is_ready(&self) -> bool {
        self.send(self.request(Method::GET, "/ready")).await.status == 200
    }

    /// Orders faults; `query` must not need percent-encoding.
    pub async fn fault(&self, query: &str, order: &str) -> Reply {
        let request = self.request(Method::POST, &format!("/fault?{query}"));
        self.send(request.header("content-type", "application/json").body(order.to_owned())).await
    }

    /// Ends all faults.
    pub async fn heal(&self, query: &str) -> Reply {
        self.send(self.request(Method::DELETE, &format!("/fault?{query}"))).await
    }

    /// What there is at a path.
    pub async fn text(&self, path: &str) -> String {
        self.send(self.request(Method::GET, path)).await.body
    }

    /// `/stats`, or nothing if it does not answer.
    pub async fn stats(&self) -> Option<Value> {
        self.json("/stats").await
    }

    /// `/cluster`, or nothing if it does not answer.
    pub async fn cluster(&self) -> Option<Value> {
        self.json("/cluster").await
    }

    async fn json(&self, path: &str) -> Option<Value> {
        let reply = self.send(self.request(Method::GET, path)).await;
        (reply.status == 200).then(|| serde_json::from_str(&reply.body).expect("valid JSON"))
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    async fn send(&self, request: RequestBuilder) -> Reply {
        let start = Instant::now();
        let (status, cache, body) = match request.send().await {
            Ok(response) => {
                let status = response.status().as_u16();
                let cache = response.headers().get("x-cache").and_then(|value| value.to_str().ok()).unwrap_or_default();
                let cache = cache.to_owned();
                match response.text().await {
                    Ok(body) => (status, cache, body),
                    Err(error) => (0, cache, error.to_string()),
                }
            }
            Err(error) => (0, String::new(), error.to_string()),
        };
        Reply { status, cache, body, took: start.elapsed() }
    }
}
