//! The HTTP API from outside: real processes, single nodes on loopback, every kind of bad input.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};

#[path = "http_api/clients.rs"]
mod clients;

const DEADLINE: Duration = Duration::from_secs(20);
const BINARY: &str = env!("CARGO_BIN_EXE_node");

/// A `node` process of its own environment, killed when dropped.
struct NodeProcess {
    child: Child,
    addr: SocketAddr,
    client: Client,
}

fn command(settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(BINARY);
    command.env_clear().envs([
        ("PORT", "0"),
        ("HTTP_BIND", "127.0.0.1"),
        ("CACHE_BIND", "127.0.0.1:0"),
        ("CACHE_PUBLIC", "127.0.0.1:1"),
        ("REPLICATION_FACTOR", "1"),
        ("WRITE_CONCERN", "1"),
        ("WORKERS", "2"),
        ("LOG_FORMAT", "json"),
    ]);
    command.envs(settings.iter().copied()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

impl NodeProcess {
    /// Starts a node and waits until it is ready. The log tells which port the system chose.
    async fn start(settings: &[(&str, &str)]) -> Self {
        let mut child = command(settings).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let (found, addr) = mpsc::channel();
        thread::spawn(move || {
            // Read to the end, or the node would block on a full pipe.
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let fields: Value = serde_json::from_str(&line).unwrap_or_default();
                if let Some(http) = fields["http"].as_str() {
                    let _ = found.send(http.parse::<SocketAddr>().unwrap());
                }
            }
        });
        let addr = addr.recv_timeout(DEADLINE).expect("the node logs its address");
        // The workspace's reqwest brings no cryptography of its own; another test may have installed it before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let node = Self { child, addr, client: Client::builder().no_proxy().build().unwrap() };
        node.wait_until_ready().await;
        node
    }

    /// Polls, because an idle connection may have been closed since the last request.
    async fn wait_until_ready(&self) {
        let deadline = Instant::now() + DEADLINE;
        while !self.is_ready().await {
            assert!(Instant::now() < deadline, "not ready within {DEADLINE:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn is_ready(&self) -> bool {
        let url = self.url("/ready");
        self.client.get(url).send().await.is_ok_and(|response| response.status() == StatusCode::OK)
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    async fn send(&self, method: Method, path: &str) -> Response {
        self.client.request(method, self.url(path)).send().await.unwrap()
    }

    async fn get(&self, path: &str) -> Response {
        self.send(Method::GET, path).await
    }

    async fn post(&self, path: &str, content_type: &str, body: impl Into<reqwest::Body>) -> Response {
        let request = self.client.post(self.url(path)).header("content-type", content_type);
        request.body(body).send().await.unwrap()
    }

    async fn set(&self, entry: Value) -> Response {
        self.post("/set", "application/json", entry.to_string()).await
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    /// Sends bytes as they are and reads until the node closes the connection.
    fn raw(&self, request: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(request).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn exit(&mut self) -> ExitStatus {
        wait(&mut self.child)
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            panic!("the process did not end within {DEADLINE:?}");
        }
        #[expect(clippy::disallowed_methods, reason = "no runtime here: this polls a child with a deadline")]
        thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a node that cannot start: its exit code and what it said.
fn refused(settings: &[(&str, &str)], args: &[&str]) -> (Option<i32>, String) {
    let mut child = command(settings).args(args).spawn().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let status = wait(&mut child);
    let mut said = String::new();
    stderr.read_to_string(&mut said).unwrap();
    (status.code(), said)
}

async fn assert_problem(response: Response, status: u16, mentions: &str) {
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert_eq!(response.status().as_u16(), status);
    let problem: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    assert_eq!(problem["status"], status);
    assert!(problem["title"].is_string() && problem["type"].is_string());
    assert!(problem.to_string().contains(mentions), "{problem} does not mention {mentions}");
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn a_value_is_written_read_and_deleted() {
    let node = NodeProcess::start(&[]).await;
    assert_problem(node.get("/get?k=a").await, 404, "no such key").await;

    let written = node.set(json!({"k": "a", "v": "some value", "ttl_ms": 0})).await;
    assert_eq!(written.status(), StatusCode::OK);
    let version = header(&written, "x-mesh-version").to_owned();
    assert_eq!(version.len(), 32);
    assert_eq!(written.text().await.unwrap(), "OK");

    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let read = node.client.get(node.url("/get?k=a")).header("traceparent", trace).send().await.unwrap();
    assert_eq!(read.status(), StatusCode::OK);
    assert_eq!(header(&read, "x-cache"), "HIT_LOCAL");
    assert_eq!(header(&read, "x-mesh-version"), version);
    assert_eq!(header(&read, "x-mesh-node").len(), 16);
    assert_eq!(header(&read, "traceparent"), trace);
    assert_eq!(read.text().await.unwrap(), "some value");

    for path in ["/get?k=a&consistency=one", "/get?k=a&consistency=quorum", "/get?k=a&consistency=session"] {
        assert_eq!(node.get(path).await.text().await.unwrap(), "some value", "{path}");
    }
    assert_eq!(node.send(Method::DELETE, "/del?k=a").await.status(), StatusCode::OK);
    let miss = node.get("/get?k=a").await;
    assert_eq!((miss.status(), header(&miss, "x-cache")), (StatusCode::NOT_FOUND, "MISS"));
}

#[tokio::test]
async fn deleting_what_is_not_there_is_quick() {
    let node = NodeProcess::start(&[]).await;
    let start = Instant::now();
    assert_eq!(node.send(Method::DELETE, "/del?k=never").await.status(), StatusCode::OK);
    assert!(start.elapsed() < Duration::from_secs(1), "took {:?}", start.elapsed());
}

#[tokio::test]
async fn any_key_and_value_round_trips() {
    let node = NodeProcess::start(&[]).await;
    for (key, encoded) in
        [("ключ 鍵 🔑", "%D0%BA%D0%BB%D1%8E%D1%87%20%E9%8D%B5%20%F0%9F%94%91"), ("a+b&c=d%", "a%2Bb%26c%3Dd%25")]
    {
        assert_eq!(node.set(json!({"k": key, "v": key})).await.status(), StatusCode::OK);
        assert_eq!(node.get(&format!("/get?k={encoded}")).await.text().await.unwrap(), key);
    }
    let bytes: Vec<u8> = (0..=255).collect();
    let encoded: String = bytes.iter().map(|byte| format!("%{byte:02X}")).collect();
    let written = node.post(&format!("/set?k={encoded}&ttl_ms=-1"), "application/octet-stream", bytes.clone()).await;
    assert_eq!(written.status(), StatusCode::OK);
    assert_eq!(node.get(&format!("/get?k={encoded}")).await.bytes().await.unwrap(), bytes);
    // The empty value is a value.
    assert_eq!(node.set(json!({"k": "empty", "v": ""})).await.status(), StatusCode::OK);
    let empty = node.get("/get?k=empty").await;
    assert_eq!((empty.status(), empty.text().await.unwrap()), (StatusCode::OK, String::new()));
    // As large as allowed.
    let large = "x".repeat(2 << 20);
    assert_eq!(node.set(json!({"k": "large", "v": large})).await.status(), StatusCode::OK);
    assert_eq!(node.get("/get?k=large").await.text().await.unwrap().len(), 2 << 20);
}

#[tokio::test]
async fn an_entry_expires() {
    let node = NodeProcess::start(&[]).await;
    assert_eq!(node.set(json!({"k": "brief", "v": "x", "ttl_ms": 50})).await.status(), StatusCode::OK);
    let deadline = Instant::now() + DEADLINE;
    while node.get("/get?k=brief").await.status() != StatusCode::NOT_FOUND {
        assert!(Instant::now() < deadline, "still there after {DEADLINE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn bad_reads_are_refused_with_a_reason() {
    let node = NodeProcess::start(&[]).await;
    let long = "k".repeat(5 << 10);
    let cases = [
        ("/get", 400, "which key"),
        ("/get?k=", 400, "which key"),
        ("/get?k=%zz", 400, "percent-encoding"),
        ("/get?k=%f", 400, "percent-encoding"),
        ("/get?k=a&k=b", 400, "twice"),
        ("/get?key=a", 400, "unknown parameter"),
        ("/get?k=a&consistency=strong", 400, "one, session or quorum"),
        (&format!("/get?k={long}"), 413, "5120 bytes"),
        ("/nowhere", 404, "no such path"),
    ];
    for (path, status, mentions) in cases {
        assert_problem(node.get(path).await, status, mentions).await;
    }
    assert_problem(node.send(Method::DELETE, "/del").await, 400, "which key").await;
    let request = node.client.get(node.url("/get?k=a&consistency=session")).header("x-mesh-min-version", "7");
    assert_problem(request.send().await.unwrap(), 400, "32 hexadecimal").await;
}

#[tokio::test]
async fn bad_writes_are_refused_with_a_reason() {
    let node = NodeProcess::start(&[]).await;
    let (long, large) = ("k".repeat(5 << 10), "v".repeat(3 << 20));
    let json_cases = [
        ("{", 400, "EOF"),
        ("[1]", 400, "array"),
        (r#"{"v":"x"}"#, 400, "missing field `k`"),
        (r#"{"k":"x"}"#, 400, "missing field `v`"),
        (r#"{"k":1,"v":"x"}"#, 400, "integer"),
        (r#"{"k":"x","v":{}}"#, 400, "map"),
        (r#"{"k":"","v":"x"}"#, 400, "empty"),
        (r#"{"k":"x","v":"x","ttl":1}"#, 400, "unknown field"),
        (r#"{"k":"x","v":"x","ttl_ms":-2}"#, 400, "ttl_ms"),
        (r#"{"k":"x","v":"x","ttl_ms":0.5}"#, 400, "ttl_ms"),
        (&json!({"k": long, "v": "x"}).to_string(), 413, "5120 bytes"),
        (&json!({"k": "x", "v": large}).to_string(), 413, "value-too-large"),
    ];
    for (body, status, mentions) in json_cases {
        let response = node.post("/set", "application/json", body.to_owned()).await;
        assert_problem(response, status, mentions).await;
    }
    assert_problem(node.post("/set", "text/plain", "x").await, 400, "application/octet-stream").await;
    let raw = "application/octet-stream";
    assert_problem(node.post("/set", raw, "x").await, 400, "which key").await;
    assert_problem(node.post("/set?k=x&ttl_ms=soon", raw, "x").await, 400, "ttl_ms").await;
    assert_problem(node.post("/set?k=x", raw, large).await, 413, "value-too-large").await;
    assert_eq!(node.get("/get?k=x").await.status(), StatusCode::NOT_FOUND, "nothing was written");
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_it_is_sent() {
    let node = NodeProcess::start(&[]).await;
    let head = "POST /set HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 3145728\r\n\r\n";
    let answer = node.raw(head.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    // In chunks nobody knows the size until it is too much.
    let mut request = b"POST /set HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..3 {
        request.extend_from_slice(b"100000\r\n");
        request.resize(request.len() + (1 << 20), b'x');
        request.extend_from_slice(b"\r\n");
    }
    let answer = node.raw(&request);
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn slow_clients_are_given_up() {
    let node = NodeProcess::start(&[("HEADER_TIMEOUT_MS", "200"), ("REQUEST_TIMEOUT_MS", "200")]).await;
    // Bodies without end, in chunks and announced; each read ends because the node closes the connection.
    for head in ["transfer-encoding: chunked\r\n\r\n5\r\nhello", "content-length: 100\r\n\r\nhello"] {
        let answer = node.raw(format!("POST /set HTTP/1.1\r\nhost: x\r\n{head}").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("within 200 ms"), "{answer}");
    }
    for head in ["GET /get?k=a HTTP/1.1\r\nhost: x\r\n", ""] {
        let start = Instant::now();
        node.raw(head.as_bytes());
        assert!(start.elapsed() < Duration::from_secs(10), "took {:?}", start.elapsed());
    }
    node.wait_until_ready().await;
}

#[tokio::test]
async fn garbage_is_refused_and_harms_nobody() {
    let node = NodeProcess::start(&[]).await;
    for garbage in [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], b"HELO mesh\r\n\r\n", &[0xff; 64]] {
        let mut request = garbage.to_vec();
        request.extend_from_slice(b"\r\n\r\n");
        let answer = node.raw(&request);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    node.wait_until_ready().await;
}

#[tokio::test]
async fn a_wrong_method_names_the_right_one() {
    let node = NodeProcess::start(&[]).await;
    for (method, path, allowed) in [
        (Method::POST, "/get?k=a", "GET"),
        (Method::GET, "/set", "POST"),
        (Method::PUT, "/set", "POST"),
        (Method::GET, "/del?k=a", "DELETE"),
        (Method::DELETE, "/stats", "GET"),
        (Method::GET, "/kill", "POST"),
    ] {
        let response = node.send(method, path).await;
        assert!(header(&response, "allow").split(',').any(|one| one == allowed), "{path}: {:?}", response.headers());
        assert_problem(response, 405, "Allow").await;
    }
    // HEAD goes wherever GET does (RFC 9110, section 9.3.2).
    assert_eq!(node.send(Method::HEAD, "/stats").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn connections_are_bounded() {
    let node = NodeProcess::start(&[("CONNECTIONS_MAX", "2"), ("WORKERS", "1")]).await;
    let deadline = Instant::now() + DEADLINE;
    let mut held = Vec::new();
    loop {
        assert!(Instant::now() < deadline, "no connection was refused");
        let mut stream = node.connect();
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut answer = [0; 12];
        if stream.read_exact(&mut answer).is_ok() {
            assert_eq!(&answer, b"HTTP/1.1 503");
            break;
        }
        held.push(stream);
        assert!(held.len() <= 2, "more than CONNECTIONS_MAX are open");
    }
    drop(held);
    // Places become free again.
    node.wait_until_ready().await;
}

#[tokio::test]
async fn stats_cluster_and_metrics_have_their_shapes() {
    let node = NodeProcess::start(&[("NODE_ID", "alone")]).await;
    node.set(json!({"k": "a", "v": "b"})).await;
    node.get("/get?k=a").await;
    let stats: Value = serde_json::from_str(&node.get("/stats").await.text().await.unwrap()).unwrap();
    for name in ["Hits", "Misses", "Evictions", "Expirations", "Size", "Capacity", "HitRatio", "Shards"] {
        assert!(stats[name].is_number(), "{name} in {stats}");
    }
    assert!(stats["mesh"]["cpu_ms"].is_number() && stats["mesh"]["rss_bytes"].is_number(), "{stats}");
    let cluster: Value = serde_json::from_str(&node.get("/cluster").await.text().await.unwrap()).unwrap();
    assert_eq!((&cluster["name"], &cluster["replication_factor"]), (&json!("alone"), &json!(1)));

    let plain = node.get("/metrics").await;
    assert!(header(&plain, "content-type").starts_with("text/plain; version=0.0.4"));
    let plain = plain.text().await.unwrap();
    let counted = "mesh_requests_total{node=\"alone\",op=\"get\",outcome=\"hit_local\"} 1";
    assert!(plain.contains(counted), "{plain}");
    let request = node.client.get(node.url("/metrics")).header("accept", "application/openmetrics-text; version=1.0.0");
    let open = request.send().await.unwrap();
    assert!(header(&open, "content-type").starts_with("application/openmetrics-text; version=1.0.0"));
    assert!(open.text().await.unwrap().ends_with("\n# EOF\n"));
}

#[tokio::test]
async fn killing_needs_permission_and_the_token() {
    let node = NodeProcess::start(&[]).await;
    assert_problem(node.send(Method::POST, "/kill?token=x").await, 403, "ALLOW_KILL").await;
    let mut node = NodeProcess::start(&[("ALLOW_KILL", "true"), ("KILL_TOKEN", "s3cret")]).await;
    assert_problem(node.send(Method::POST, "/kill").await, 401, "KILL_TOKEN").await;
    assert_problem(node.send(Method::POST, "/kill?token=s3cre7").await, 401, "KILL_TOKEN").await;
    assert_problem(node.send(Method::POST, "/kill?token=s3cret&mode=gently").await, 400, "graceful").await;
    let bye = node.send(Method::POST, "/kill?token=s3cret").await;
    assert_eq!((bye.status(), bye.text().await.unwrap().as_str()), (StatusCode::OK, "bye"));
    assert_eq!(node.exit().code(), Some(137));
}

#[tokio::test]
async fn a_node_can_be_killed_gracefully_or_paused() {
    let mut node = NodeProcess::start(&[("ALLOW_KILL", "1"), ("KILL_TOKEN", "t")]).await;
    let paused = node.send(Method::POST, "/kill?token=t&mode=pause&for_ms=400").await;
    assert_eq!(paused.status(), StatusCode::OK);
    // From the answer to the end of the pause is at least its length; polling finds out when it has begun.
    let start = Instant::now();
    let mut longest = Duration::ZERO;
    while longest < Duration::from_millis(200) {
        assert!(start.elapsed() < DEADLINE, "answered all the time");
        let asked = Instant::now();
        assert_eq!(node.get("/stats").await.status(), StatusCode::OK);
        longest = longest.max(asked.elapsed());
    }
    assert_eq!(node.send(Method::POST, "/kill?token=t&mode=graceful").await.text().await.unwrap(), "bye");
    assert_eq!(node.exit().code(), Some(0));
}

#[tokio::test]
async fn sigterm_ends_a_node_in_order() {
    let mut node = NodeProcess::start(&[]).await;
    let kill = Command::new("kill").args(["-TERM", &node.child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    assert_eq!(node.exit().code(), Some(0));
}

#[test]
fn a_port_in_use_is_named() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = tcp.local_addr().unwrap().port().to_string();
    let (code, said) = refused(&[("PORT", &port)], &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("127.0.0.1:{port}")) && said.contains("set PORT"), "{said}");

    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = udp.local_addr().unwrap().to_string();
    let (code, said) = refused(&[("CACHE_BIND", &addr)], &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&addr) && said.contains("set CACHE_BIND"), "{said}");
}

#[tokio::test]
async fn two_nodes_do_not_share_a_port() {
    let node = NodeProcess::start(&[]).await;
    let (code, said) = refused(&[("PORT", &node.addr.port().to_string())], &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("set PORT"), "{said}");
}

#[test]
fn bad_settings_end_the_process_with_all_mistakes() {
    let secrets = [("CACHE_AUTH", "hunter2"), ("KILL_TOKEN", "hunter2")];
    let bad = [("PORT", "http"), ("WRITE_CONCERN", "3"), ("READ_TIMEOUT_MS", "3s")];
    let (code, said) = refused(&[&secrets[..], &bad[..]].concat(), &[]);
    assert_eq!(code, Some(2), "{said}");
    for mention in ["PORT=http: expected", "WRITE_CONCERN=3: expected 1 to REPLICATION_FACTOR", "READ_TIMEOUT_MS=3s"] {
        assert!(said.contains(mention), "{said}");
    }
    assert!(!said.contains("hunter2"), "{said}");

    let (code, said) = refused(&[], &["--cache-bnd", "x"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("--cache-bnd"), "{said}");

    let (code, said) = refused(&[("CACHE_BIND", ":0"), ("CACHE_AUTH", "")], &[]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("CACHE_AUTH="), "{said}");
}

#[test]
fn help_shows_defaults_and_no_secrets() {
    let mut help = command(&[("CACHE_AUTH", "hunter2"), ("KILL_TOKEN", "hunter2")]);
    let output = help.arg("--help-all").stdout(Stdio::piped()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    for shown in ["--suspicion-after-ms", "SUSPICION_AFTER_MS", "[default: 2000]", "CACHE_AUTH"] {
        assert!(text.contains(shown), "{text}");
    }
    assert!(!text.contains("hunter2"), "{text}");
}
