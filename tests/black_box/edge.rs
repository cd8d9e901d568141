//! The HTTP edge as the outside meets it: certificates and handshakes, their renewal, and bearer tokens.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http_body_util::{BodyExt, Empty};
use hyper::{Method, Request, body::Bytes, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::{
    harness::{Machine, NodeProcess, NodeSpec, eventually, http_client},
    runner_cli::Runner,
};

const WITHIN: Duration = Duration::from_secs(30);

/// An authority that only a test trusts, and the files that nodes and runners are given.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    folder: TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
        Self { issuer: Issuer::new(params, key), certificate: certificate.der().clone(), folder }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.file(name).display().to_string()
    }

    /// Writes `NAME.pem` and `NAME-key.pem` for a host, until a year.
    fn issue(&self, name: &str, host: &str, last_year: i32) -> CertificateDer<'static> {
        let mut params = CertificateParams::new([host.to_owned()]).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(last_year, 12, 31));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(self.file(&format!("{name}.pem")), certificate.pem()).unwrap();
        fs::write(self.file(&format!("{name}-key.pem")), key.serialize_pem()).unwrap();
        certificate.der().clone()
    }

    /// A node that is a mesh by itself, with the certificate of this name.
    fn node(&self, spec: NodeSpec, name: &str) -> NodeSpec {
        let seeds = spec.public.to_string();
        spec.with("REPLICATION_FACTOR", "1")
            .with("WRITE_CONCERN", "1")
            .with("CACHE_SEEDS", &seeds)
            .with("HTTP_TLS_CERT", &self.text(&format!("{name}.pem")))
            .with("HTTP_TLS_KEY", &self.text(&format!("{name}-key.pem")))
    }

    /// Dials a node, which shows its certificate.
    async fn dial(&self, addr: SocketAddr) -> (SendRequest<Empty<Bytes>>, CertificateDer<'static>) {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let stream = TcpStream::connect(addr).await.unwrap();
        let name = ServerName::from(addr.ip());
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        let shown = stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        (sender, shown)
    }
}

/// Asks over a connection that is open, and reads the whole answer.
async fn ask(sender: &mut SendRequest<Empty<Bytes>>, method: Method, path: &str, token: &str) -> (u16, String) {
    let request = Request::builder().method(method).uri(path).header("host", "edge");
    let request = if token.is_empty() { request } else { request.header("authorization", format!("Bearer {token}")) };
    sender.ready().await.unwrap();
    let response = sender.send_request(request.body(Empty::new()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (parts.status.as_u16(), format!("{:?} {}", parts.headers, String::from_utf8_lossy(&body)))
}

async fn started(authority: &Authority, spec: NodeSpec) -> NodeProcess {
    let addr = spec.http;
    let node = NodeProcess::start(spec, authority.folder.path());
    let ready = async || {
        TcpStream::connect(addr).await.ok()?;
        (ask(&mut authority.dial(addr).await.0, Method::GET, "/ready", "").await.0 == 200).then_some(())
    };
    eventually("the node to be ready", WITHIN, ready).await;
    node
}

/// Starts a node whose certificate is wrong.
async fn listening(authority: &Authority, spec: NodeSpec, name: &str) -> NodeProcess {
    let addr = spec.http;
    let node = NodeProcess::start(authority.node(spec, name), authority.folder.path());
    eventually("the node to listen", WITHIN, async || TcpStream::connect(addr).await.ok()).await;
    node
}

/// One series of a node's metrics.
async fn figure(authority: &Authority, addr: SocketAddr, series: &str) -> f64 {
    let metrics = ask(&mut authority.dial(addr).await.0, Method::GET, "/metrics", "").await.1;
    let line = metrics.lines().find(|line| line.starts_with(series)).unwrap_or_else(|| panic!("no {series}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn data_and_administration_have_tokens_of_their_own() {
    let _machine = Machine::alone().await;
    let authority = Authority::new();
    let spec = NodeSpec::new("guarded").with("HTTP_TOKEN", "data-token").with("HTTP_ADMIN_TOKEN", "admin-token");
    authority.issue("node", &spec.http.ip().to_string(), 2099);
    let node = started(&authority, authority.node(spec, "node")).await;
    let mut sender = authority.dial(node.spec().http).await.0;
    for (method, path, good, status) in [
        (Method::GET, "/get?k=a", "data-token", 404),
        (Method::DELETE, "/del?k=a", "data-token", 200),
        (Method::GET, "/stats", "admin-token", 200),
        (Method::GET, "/cluster", "admin-token", 200),
        (Method::DELETE, "/member?id=00000000000000ab", "admin-token", 404),
        (Method::GET, "/nowhere", "admin-token", 404),
    ] {
        let other = if good == "data-token" { "admin-token" } else { "data-token" };
        for wrong in ["", "a guess", other] {
            let (status, answer) = ask(&mut sender, method.clone(), path, wrong).await;
            assert_eq!(status, 401, "{path} with {wrong:?}: {answer}");
            assert!(answer.contains(r#""www-authenticate": "Bearer""#), "{answer}");
            assert!(answer.contains("urn:problem-type:mesh:token-wrong"), "{answer}");
        }
        let (found, answer) = ask(&mut sender, method, path, good).await;
        assert_eq!(found, status, "{path}: {answer}");
    }
    for path in ["/ready", "/metrics"] {
        assert_eq!(ask(&mut sender, Method::GET, path, "").await.0, 200, "{path}");
    }
    let url = format!("https://{}/set", node.spec().http);
    let ca = reqwest::Certificate::from_der(&authority.certificate).unwrap();
    let http = http_client().tls_certs_only([ca]).build().unwrap();
    for (token, status) in [("", 401), ("admin-token", 401), ("data-token", 200)] {
        let request = http.post(&url).bearer_auth(token).body(r#"{"k":"a","v":"b","ttl_ms":0}"#);
        assert_eq!(request.send().await.unwrap().status(), status, "{token:?}");
    }
    assert!(!node.log().contains("data-token") && !node.log().contains("admin-token"));
}

/// How a runner is refused by, or refuses, what is at `addr`.
async fn refused(test: &str, addr: SocketAddr, settings: &[(&str, &str)]) -> String {
    let targets = format!("https://{addr}");
    let settings: Vec<_> = [("TARGETS", &targets[..]), ("DURATION", "1s")].iter().chain(settings).copied().collect();
    let mut runner = Runner::start_binary("runner", test, &[], &settings);
    let status = runner.exit_within(WITHIN).await;
    let said = runner.output();
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(!said.contains("Summary"), "it began all the same: {said}");
    said
}

#[tokio::test]
async fn a_runner_refuses_a_wrong_certificate_and_names_a_wrong_token_before_the_load() {
    let _machine = Machine::alone().await;
    let (authority, stranger) = (Authority::new(), Authority::new());
    let ca = authority.text("ca.pem");
    let test = "a_runner_refuses";

    let spec = NodeSpec::new("expired");
    authority.issue("expired", &spec.http.ip().to_string(), 2021);
    let expired = listening(&authority, spec, "expired").await;
    let said = refused(test, expired.spec().http, &[("HTTP_TLS_CA", &ca)]).await;
    assert!(said.contains("its certificate has expired"), "{said}");
    assert!(expired.log().contains("the HTTP certificate has expired"), "{}", expired.log());

    let spec = NodeSpec::new("elsewhere");
    authority.issue("elsewhere", "node1.example", 2099);
    let elsewhere = listening(&authority, spec, "elsewhere").await;
    let said = refused(test, elsewhere.spec().http, &[("HTTP_TLS_CA", &ca)]).await;
    assert!(said.contains("not valid for name") && said.contains("node1.example"), "{said}");

    let spec = NodeSpec::new("good").with("HTTP_TOKEN", "data-token").with("HTTP_ADMIN_TOKEN", "admin-token");
    authority.issue("good", &spec.http.ip().to_string(), 2099);
    let good = started(&authority, authority.node(spec, "good")).await;
    let addr = good.spec().http;
    let said = refused(test, addr, &[("HTTP_TLS_CA", &stranger.text("ca.pem"))]).await;
    assert!(said.contains("its certificate comes from an unknown authority: set HTTP_TLS_CA"), "{said}");
    for (token, admin, named) in [
        ("a-guess", "admin-token", "HTTP_TOKEN: https://"),
        ("", "admin-token", "HTTP_TOKEN: https://"),
        ("data-token", "a-guess", "HTTP_ADMIN_TOKEN: https://"),
    ] {
        let settings = [("HTTP_TLS_CA", &ca[..]), ("HTTP_TOKEN", token), ("HTTP_ADMIN_TOKEN", admin)];
        let said = refused(test, addr, &settings).await;
        assert!(said.contains(named) && said.contains("answered 401"), "{said}");
        assert!(!said.contains("a-guess") && !said.contains("-token"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_replaced_under_load_without_a_failed_request() {
    let _machine = Machine::alone().await;
    let authority = Arc::new(Authority::new());
    let spec = NodeSpec::new("renewed");
    let addr = spec.http;
    let first = authority.issue("node", &addr.ip().to_string(), 2099);
    let node = started(&authority, authority.node(spec, "node")).await;
    let (over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]));
    let (mut kept, shown) = authority.dial(addr).await;
    assert_eq!(shown, first);
    let load = {
        let (authority, over, answered) = (Arc::clone(&authority), Arc::clone(&over), Arc::clone(&answered));
        // Any failure ends the task with a panic.
        tokio::spawn(async move {
            while !over.load(Ordering::Relaxed) {
                assert_eq!(ask(&mut kept, Method::GET, "/get?k=a", "").await.0, 404);
                answered[0].fetch_add(1, Ordering::Relaxed);
                let (mut fresh, _) = authority.dial(addr).await;
                assert_eq!(ask(&mut fresh, Method::GET, "/get?k=a", "").await.0, 404);
                answered[1].fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    fs::write(authority.file("node.pem"), "half a file").unwrap();
    let warned = || node.log().matches("the HTTP certificate is not replaced").count();
    eventually("the broken file to be reported", WITHIN, async || (warned() > 0).then_some(())).await;
    let next = authority.issue("node", &addr.ip().to_string(), 2098);
    let replaced = async || (authority.dial(addr).await.1 == next).then_some(());
    eventually("the new certificate to be shown", WITHIN, replaced).await;
    let before = [0, 1].map(|kind| answered[kind].load(Ordering::Relaxed));
    let more = async || (0..2).all(|kind| answered[kind].load(Ordering::Relaxed) > before[kind] + 20).then_some(());
    eventually("both kinds of connections to go on", WITHIN, more).await;
    over.store(true, Ordering::Relaxed);
    load.await.expect("no request failed");
    assert_eq!(warned(), 1, "{}", node.log());
    let expiry = figure(&authority, addr, "mesh_http_tls_certificate_expiry_timestamp_seconds").await;
    let year_2099 = 4_070_908_800.0;
    assert!((year_2099 - 86_400.0 * 366.0..year_2099).contains(&expiry), "{expiry}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_does_not_end_holds_nobody_up_and_is_given_up() {
    const SILENT: usize = 40;
    let _machine = Machine::alone().await;
    let authority = Authority::new();
    let spec = NodeSpec::new("patient").with("HEADER_TIMEOUT_MS", "6000");
    let addr = spec.http;
    authority.issue("node", &addr.ip().to_string(), 2099);
    let _node = started(&authority, authority.node(spec, "node")).await;
    let mut silent = Vec::new();
    for number in 0..SILENT {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        // Half of them begin.
        if number % 2 == 0 {
            stream.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
        }
        silent.push(stream);
    }
    let began = Instant::now();
    let open = async || (figure(&authority, addr, "mesh_http_connections{").await >= SILENT as f64).then_some(());
    eventually("handshakes to count as connections", Duration::from_secs(2), open).await;
    for _ in 0..20 {
        assert_eq!(ask(&mut authority.dial(addr).await.0, Method::GET, "/get?k=a", "").await.0, 404);
    }
    assert!(began.elapsed() < Duration::from_millis(5800), "held up: {:?}", began.elapsed());
    for mut stream in silent {
        let closed = tokio::time::timeout(WITHIN, stream.read(&mut [0; 64])).await.expect("it is given up");
        assert_eq!(closed.unwrap_or(0), 0);
    }
    let series = "mesh_http_tls_handshake_failures_total{node=\"patient\",reason=\"timed_out\"}";
    assert_eq!(figure(&authority, addr, series).await, SILENT as f64);
}

#[tokio::test]
async fn a_run_over_https_with_tokens_passes() {
    let _machine = Machine::alone().await;
    let authority = Authority::new();
    authority.issue("local", "127.0.0.1", 2099);
    let (ca, cert, key) = (authority.text("ca.pem"), authority.text("local.pem"), authority.text("local-key.pem"));
    let logs = authority.text("logs");
    let settings = [
        ("DURATION", "3s"),
        ("KEYS", "2000"),
        ("CONCURRENCY", "16"),
        ("LOG_DIR", &logs[..]),
        ("HTTP_TLS_CA", &ca),
        ("HTTP_TLS_CERT", &cert),
        ("HTTP_TLS_KEY", &key),
        // Nodes are told what came by a flag, too.
        ("HTTP_ADMIN_TOKEN", "admin-token"),
    ];
    let arguments = ["--local", "3", "--http-token", "data-token"];
    let mut runner = Runner::start_binary("runner", "a_run_over_https", &arguments, &settings);
    let status = runner.exit_within(Duration::from_secs(90)).await;
    let said = runner.output();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("Targets: [https://127.0.0.1:") && said.contains("Errors: 0"), "{said}");
    assert!(!said.contains("data-token") && !said.contains("admin-token"), "{said}");
    let results = runner.results().to_string();
    assert!(!results.contains("data-token") && !results.contains("admin-token"), "{results}");
}
