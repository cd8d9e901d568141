//! Who is let into a mesh, and who is not: everything that is not mutually authenticated is refused on both ends, in
//! words that help, and does no harm.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use mesh::transport::{
    Accepted, ClusterSecret, Connection, Credentials, DialError, Endpoint, QuicConfig, QuicTransport, Transport,
    TransportError,
};
use mesh_proto::NodeId;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::{net::UdpSocket, time::timeout};

const SOON: Duration = Duration::from_secs(5);

fn secret(secret: &str) -> Credentials {
    Credentials::Secret(ClusterSecret::new(secret))
}

fn transport(name: &str, credentials: Credentials) -> Result<QuicTransport, TransportError> {
    let bind = "127.0.0.1:0".parse().unwrap();
    QuicTransport::new(QuicConfig::new(NodeId::from_name(name), bind, credentials))
}

struct TestNode {
    addr: SocketAddr,
    endpoint: Arc<dyn Endpoint>,
}

fn node(name: &str, credentials: Credentials) -> TestNode {
    let transport = transport(name, credentials).unwrap();
    TestNode { addr: transport.local_addr(), endpoint: transport.open(true).unwrap() }
}

impl TestNode {
    async fn dial(&self, to: &Self) -> Result<Arc<dyn Connection>, DialError> {
        self.endpoint.dial(&to.addr.to_string(), None).await
    }

    async fn refusal(&self) -> String {
        match timeout(SOON, self.endpoint.accept()).await.expect("a refusal is reported").unwrap() {
            Accepted::Refused { reason, .. } => reason,
            Accepted::Connection(connection) => panic!("{} was let in", connection.peer()),
        }
    }

    async fn accepts_from(&self, dialler: &Self) {
        let (dialled, accepted) = tokio::join!(dialler.dial(self), timeout(SOON, self.endpoint.accept()));
        dialled.unwrap();
        assert!(matches!(accepted.unwrap(), Some(Accepted::Connection(_))));
    }
}

#[tokio::test]
async fn another_secret_is_refused_on_both_ends() {
    let (a, b) = (node("a", secret("one")), node("b", secret("another")));
    let (dialled, refusal) = tokio::join!(a.dial(&b), b.refusal());
    let error = dialled.err().unwrap();
    assert!(matches!(error, DialError::Untrusted { .. }), "{error}");
    assert!(error.to_string().contains("CACHE_AUTH"), "{error}");
    assert!(refusal.contains("CACHE_AUTH"), "{refusal}");
    for text in [error.to_string(), refusal] {
        assert!(!text.contains("one ") && !text.contains("another\""), "{text}");
    }
    b.accepts_from(&node("c", secret("another"))).await;
}

/// Trusts every server, and presents no certificate.
#[derive(Debug)]
struct Gullible(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        unreachable!("TLS 1.3 only")
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A client that is not of the mesh. It speaks `alpn`.
async fn strange_client(to: SocketAddr, alpn: &[u8]) -> Result<(), quinn::ConnectionError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(config).unwrap();
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let connecting = endpoint.connect_with(quinn::ClientConfig::new(Arc::new(crypto)), to, "mesh.internal").unwrap();
    let connection = connecting.await?;
    // The client's side of the handshake is done before the server has seen that there is no certificate.
    connection.accept_uni().await.map(drop)
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let (a, b) = (node("a", secret("s")), node("b", secret("s")));
    let (client, refusal) = tokio::join!(timeout(SOON, strange_client(b.addr, b"mesh/1")), b.refusal());
    assert!(client.unwrap().is_err());
    assert!(refusal.contains("no certificate"), "{refusal}");
    b.accepts_from(&a).await;
}

#[tokio::test]
async fn a_client_of_another_protocol_is_refused() {
    let (a, b) = (node("a", secret("s")), node("b", secret("s")));
    let (client, _refusal) = tokio::join!(timeout(SOON, strange_client(b.addr, b"h3")), b.refusal());
    assert!(client.unwrap().is_err());
    b.accepts_from(&a).await;
}

#[tokio::test]
async fn garbage_and_plaintext_do_no_harm() {
    let (a, b) = (node("a", secret("s")), node("b", secret("s")));
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut datagrams: Vec<Vec<u8>> =
        vec![Vec::new(), b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![0; 1200], vec![255; 1472]];
    // By their first bits and version these look like QUIC's initial and short packets.
    for length in [1, 20, 40, 1199, 1200, 1400] {
        let fill = |first: u8| (0..length).map(move |i: usize| if i == 0 { first } else { i.to_le_bytes()[0] });
        datagrams.push(fill(0x40).collect());
        let mut initial: Vec<u8> = fill(0xc3).collect();
        for (byte, version) in initial.iter_mut().skip(1).zip([0, 0, 0, 1, 8]) {
            *byte = version;
        }
        datagrams.push(initial);
    }
    for datagram in datagrams.iter().cycle().take(datagrams.len() * 20) {
        socket.send_to(datagram, b.addr).await.unwrap();
    }
    b.accepts_from(&a).await;
    let quiet = timeout(Duration::from_millis(200), b.endpoint.accept()).await;
    assert!(quiet.is_err(), "garbage is nobody to report");
}

/// Beginnings of handshakes, from many addresses, that are never carried on.
#[tokio::test]
async fn unfinished_handshakes_do_not_keep_a_peer_out() {
    const HANDSHAKES_MAX: usize = 4;
    let config = QuicConfig::new(NodeId::from_name("b"), "127.0.0.1:0".parse().unwrap(), secret("s"));
    let transport = QuicTransport::new(QuicConfig { handshakes_max: HANDSHAKES_MAX, ..config }).unwrap();
    let b = TestNode { addr: transport.local_addr(), endpoint: transport.open(true).unwrap() };
    let a = node("a", secret("s"));

    // A dial to a socket that never answers yields a genuine first packet, to be sent on from elsewhere.
    let sink = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = sink.local_addr().unwrap().to_string();
    let mut senders = Vec::new();
    for _ in 0..3 * HANDSHAKES_MAX {
        let mut first = [0; 2048];
        let length = tokio::select! {
            _ = a.endpoint.dial(&addr, None) => panic!("nobody answers"),
            length = sink.recv(&mut first) => length.unwrap(),
        };
        let sender = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        sender.send_to(&first[..length], b.addr).await.unwrap();
        senders.push(sender);
        // What is left of the dial that was given up.
        while sink.try_recv(&mut first).is_ok() {}
    }
    b.accepts_from(&a).await;
    let refusal = b.refusal().await;
    assert!(refusal.contains("not done within 2 s"), "{refusal}");
}

/// Forwards packets between clients and `to`, and keeps what came.
async fn relay(to: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<Vec<u8>>>>) {
    let (front, back) = (UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let (addr, kept) = (front.local_addr().unwrap(), Arc::<Mutex<Vec<Vec<u8>>>>::default());
    let keeping = Arc::clone(&kept);
    tokio::spawn(async move {
        let (mut caller, mut there, mut back_again) = (None, [0; 2048], [0; 2048]);
        loop {
            tokio::select! {
                Ok((length, from)) = front.recv_from(&mut there) => {
                    caller = Some(from);
                    keeping.lock().unwrap().push(there[..length].to_vec());
                    let _ = back.send_to(&there[..length], to).await;
                }
                Ok((length, _)) = back.recv_from(&mut back_again) => {
                    if let Some(caller) = caller {
                        let _ = front.send_to(&back_again[..length], caller).await;
                    }
                }
            }
        }
    });
    (addr, kept)
}

#[tokio::test]
async fn handshakes_that_are_replayed_or_cut_short_let_nobody_in() {
    let (a, b) = (node("a", secret("s")), node("b", secret("s")));
    let (relayed, kept) = relay(b.addr).await;
    let relayed = relayed.to_string();
    let (dialled, accepted) = tokio::join!(a.endpoint.dial(&relayed, None), timeout(SOON, b.endpoint.accept()));
    assert!(matches!(accepted.unwrap(), Some(Accepted::Connection(_))));
    dialled.unwrap().close("that is all");
    let packets = kept.lock().unwrap().clone();
    assert!(packets.len() >= 2, "a handshake takes more than {}", packets.len());

    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for share in [100, 99, 50, 10] {
        for packet in packets.iter().chain(packets.iter().rev()) {
            stranger.send_to(&packet[..packet.len() * share / 100], b.addr).await.unwrap();
        }
    }
    // Packets of a connection that is known are dropped; what begins a new one comes to nothing.
    if let Ok(accepted) = timeout(Duration::from_secs(3), b.endpoint.accept()).await {
        assert!(matches!(accepted, Some(Accepted::Refused { .. })), "a replay was let in");
    }
    b.accepts_from(&a).await;
}

#[test]
fn a_port_in_use_is_an_error_that_names_it() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    let bind = || QuicTransport::new(QuicConfig::new(NodeId::new(1), addr, secret("s")));
    let error = bind().err().expect("somebody has the port");
    assert!(matches!(error, TransportError::Bind { .. }));
    assert!(error.to_string().contains(&addr.to_string()), "{error}");
    drop(socket);

    // Another node would share the port, and take every other connection.
    let first = bind().unwrap();
    assert!(matches!(bind().err(), Some(TransportError::Bind { .. })));
    drop(first);
    assert!(bind().is_ok());
}

#[test]
fn secrets_are_not_printed() {
    let config = QuicConfig::new(NodeId::new(1), "127.0.0.1:0".parse().unwrap(), secret("opensesame"));
    assert!(!format!("{config:?} {config:#?} {:?}", ClusterSecret::new("opensesame")).contains("sesame"));
}

/// A certificate authority and what it issued, as PEM files.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// The certificate and key of the node called `name`, that trusts `roots`.
    fn issue(&self, dir: &Path, name: &str, roots: &[&Self]) -> Files {
        let id = NodeId::from_name(name);
        let key = KeyPair::generate().unwrap();
        let names = ["mesh.internal".to_owned(), format!("{id}.node.mesh.internal")];
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.0).unwrap();
        let ca: String = roots.iter().map(|root| root.0.pem()).collect();
        let write = |kind: &str, pem: String| {
            let path = dir.join(format!("{name}.{kind}.pem"));
            std::fs::write(&path, pem).unwrap();
            path
        };
        Files { ca: write("ca", ca), cert: write("cert", certificate.pem()), key: write("key", key.serialize_pem()) }
    }
}

#[derive(Clone)]
struct Files {
    ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

impl Files {
    fn credentials(&self) -> Credentials {
        let Self { ca, cert, key } = self.clone();
        Credentials::Files { ca, cert, key }
    }
}

#[tokio::test]
async fn certificates_may_come_from_files() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("ours");
    let a = node("a", authority.issue(dir.path(), "a", &[&authority]).credentials());
    let b = node("b", authority.issue(dir.path(), "b", &[&authority]).credentials());
    b.accepts_from(&a).await;
    let stranger = node("c", secret("s"));
    assert!(matches!(stranger.dial(&b).await.err(), Some(DialError::Untrusted { .. })));
}

/// In TLS 1.3 the dialler has finished its handshake before the other side looks at its certificate.
#[tokio::test]
async fn a_dialler_that_is_not_trusted_learns_of_it_from_its_dial() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let trusting = node("a", other.issue(dir.path(), "a", &[&ours, &other]).credentials());
    let strict = node("b", ours.issue(dir.path(), "b", &[&ours]).credentials());
    let (dialled, refusal) = tokio::join!(trusting.dial(&strict), strict.refusal());
    let error = dialled.err().unwrap();
    assert!(matches!(error, DialError::Untrusted { .. }), "{error}");
    assert!(refusal.contains("not trusted"), "{refusal}");
}

#[test]
fn unusable_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let good = ours.issue(dir.path(), "a", &[&ours]);
    assert!(transport("a", good.credentials()).is_ok());
    let another_key = other.issue(dir.path(), "other", &[&other]).key;
    let misissued = other.issue(dir.path(), "x", &[&ours]);
    let absent = dir.path().join("absent.pem");
    let text = dir.path().join("text.pem");
    std::fs::write(&text, "no PEM").unwrap();

    let cases: [(&str, Files, &[&str]); 8] = [
        ("a", Files { ca: absent.clone(), ..good.clone() }, &["absent.pem", "certificates in PEM"]),
        ("a", Files { ca: text.clone(), ..good.clone() }, &["text.pem", "certificates in PEM"]),
        ("a", Files { cert: absent.clone(), ..good.clone() }, &["absent.pem", "certificates in PEM"]),
        ("a", Files { key: absent, ..good.clone() }, &["absent.pem", "private key in PEM"]),
        ("a", Files { key: text, ..good.clone() }, &["text.pem", "private key in PEM"]),
        ("a", Files { key: another_key, ..good.clone() }, &["other.key.pem", "a.cert.pem"]),
        ("x", misissued, &["x.cert.pem", "x.ca.pem", "not acceptable"]),
        ("b", good, &["a.cert.pem", ".node.mesh.internal", "this is node"]),
    ];
    for (name, files, expected) in cases {
        let error = transport(name, files.credentials()).err().expect("unusable").to_string();
        assert!(expected.iter().all(|part| error.contains(part)), "{error} should mention {expected:?}");
    }
}
