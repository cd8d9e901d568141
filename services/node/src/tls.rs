//! TLS for clients, with the certificate of HTTP_TLS_CERT and HTTP_TLS_KEY. Files that change are read again: new connections get
//! the new certificate, and those that are open go on.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use observability::{Telemetry, TlsFailure};
use receive_timestamps::TimestampedStream;
use rustls::{
    ServerConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use thiserror::Error;
use tokio::{
    io::AsyncWriteExt,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tracing::{debug, info, warn};
use x509_parser::parse_x509_certificate;

/// How often the files are compared with what is in use.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The first byte of a TLS connection: the type of a handshake's record (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;

/// What is read of a request without TLS. Closing a socket with more unread would reset the connection, and the answer with it.
const PLAIN_REQUEST_BYTES: usize = 8 << 10;

const PLAIN: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\n\
connection: close\r\ncontent-length: 125\r\n\r\n\
{\"type\":\"urn:problem-type:mesh:tls-missing\",\"title\":\"Bad Request\",\"status\":400,\"detail\":\"this port speaks TLS: use https://\"}";

/// The files cannot be used.
#[derive(Debug, Error)]
#[error("{name}={}: {reason}", .file.display())]
pub struct TlsFileError {
    name: &'static str,
    file: PathBuf,
    // Not named `source`: the message holds it, and a chain of errors would print it twice.
    reason: String,
}

/// The certificate in use, and where it comes from.
pub struct HttpTls {
    cert: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
    current: ArcSwap<Loaded>,
}

struct Loaded {
    files: Files,
    config: Arc<ServerConfig>,
    expires_unix_s: i64,
}

/// What is in both files.
#[derive(Clone, PartialEq, Eq)]
struct Files {
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl HttpTls {
    /// Reads certificate chain and private key from PEM files.
    ///
    /// # Errors
    /// [`TlsFileError`] says which file, and what was expected of it.
    pub fn load(cert: PathBuf, key: PathBuf) -> Result<Self, TlsFileError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let files = Files::read(&cert, &key)?;
        let current = ArcSwap::from_pointee(files.load((&cert, &key), &provider)?);
        Ok(Self { cert, key, provider, current })
    }

    /// Reads the files again whenever they change, for ever. Files that cannot be used leave the certificate in use where it is.
    pub async fn reload_for_ever(self: Arc<Self>) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut seen, mut judged) = (None, None);
        loop {
            ticks.tick().await;
            let tls = Arc::clone(&self);
            // A file system that hangs must not hold up this thread, which hosts the mesh's upkeep.
            let found = spawn_blocking(move || Files::read(&tls.cert, &tls.key).map_err(|error| error.to_string()));
            let Ok(found) = found.await else { continue };
            // Two files are not written at once: only what has not changed since the last look is judged, and that once.
            let has_settled = seen.as_ref() == Some(&found);
            let is_news = judged.as_ref() != Some(&found) && found.as_ref().ok() != Some(&self.current.load().files);
            if has_settled && is_news {
                self.take(found.clone());
            }
            if has_settled {
                judged = Some(found.clone());
            }
            seen = Some(found);
        }
    }

    fn take(&self, found: Result<Files, String>) {
        let load =
            |files: Files| files.load((&self.cert, &self.key), &self.provider).map_err(|error| error.to_string());
        match found.and_then(load) {
            Ok(loaded) => {
                info!(expires_unix_s = loaded.expires_unix_s, "the HTTP certificate was replaced");
                self.current.store(Arc::new(loaded));
            }
            Err(error) => warn!(error, "the HTTP certificate is not replaced"),
        }
    }

    /// When the certificate in use expires, in seconds since 1970.
    pub(crate) fn expires_unix_s(&self) -> i64 {
        self.current.load().expires_unix_s
    }

    /// The handshake; nothing if there is none within `patience`.
    pub(crate) async fn accept(
        &self,
        stream: TimestampedStream,
        patience: Duration,
        telemetry: &Telemetry,
    ) -> Option<TlsStream<TimestampedStream>> {
        let failure = match timeout(patience, self.handshake(stream)).await {
            Ok(Ok(stream)) => return stream,
            Ok(Err(failure)) => failure,
            Err(_) => TlsFailure::TimedOut,
        };
        telemetry.tls_failed(failure);
        None
    }

    /// Nothing if the client sends nothing and goes, as probes of the port do.
    async fn handshake(
        &self,
        mut stream: TimestampedStream,
    ) -> Result<Option<TlsStream<TimestampedStream>>, TlsFailure> {
        let mut first = [0];
        match stream.socket().peek(&mut first).await {
            Ok(0) | Err(_) => return Ok(None),
            Ok(_) if first[0] == HANDSHAKE => {}
            Ok(_) => {
                let _ = stream.socket().try_read(&mut [0; PLAIN_REQUEST_BYTES]);
                // A client that is gone does not read it.
                let _ = stream.write_all(PLAIN).await;
                return Err(TlsFailure::Plaintext);
            }
        }
        let acceptor = TlsAcceptor::from(Arc::clone(&self.current.load().config));
        acceptor.accept(stream).await.map(Some).map_err(|error| {
            debug!(%error, "TLS handshake failed");
            TlsFailure::Failed
        })
    }
}

impl fmt::Debug for HttpTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpTls").field("cert", &self.cert).field("key", &self.key).finish_non_exhaustive()
    }
}

impl Files {
    fn read(cert: &Path, key: &Path) -> Result<Self, TlsFileError> {
        let read =
            |name, file: &Path| fs::read(file).map_err(|error| refused(name, file, format!("cannot read it: {error}")));
        Ok(Self { cert: read("HTTP_TLS_CERT", cert)?, key: read("HTTP_TLS_KEY", key)? })
    }

    fn load(self, (cert, key): (&Path, &Path), provider: &Arc<CryptoProvider>) -> Result<Loaded, TlsFileError> {
        let chain = CertificateDer::pem_slice_iter(&self.cert).collect::<Result<Vec<_>, _>>();
        let chain = chain.ok().filter(|chain| !chain.is_empty());
        let expires = |leaf: &CertificateDer<'_>| {
            parse_x509_certificate(leaf).ok().map(|(_, parsed)| parsed.validity().not_after.timestamp())
        };
        let certificates = chain.and_then(|chain| Some((expires(&chain[0])?, chain)));
        let (expires_unix_s, chain) = certificates
            .ok_or_else(|| refused("HTTP_TLS_CERT", cert, "expected certificates in PEM, the node's own first"))?;
        let private = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| refused("HTTP_TLS_KEY", key, "expected a private key in PEM, without a password"))?;
        let config = ServerConfig::builder_with_provider(Arc::clone(provider))
            .with_safe_default_protocol_versions()
            .map(|builder| builder.with_no_client_auth())
            .and_then(|builder| builder.with_single_cert(chain, private));
        let mut config = config.map_err(|error| {
            refused(
                "HTTP_TLS_KEY",
                key,
                format!("expected the private key of HTTP_TLS_CERT={}: {error}", cert.display()),
            )
        })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if u64::try_from(expires_unix_s).is_ok_and(|expires| expires <= now) {
            warn!(expires_unix_s, "the HTTP certificate has expired: clients refuse it");
        }
        Ok(Loaded { files: self, config: Arc::new(config), expires_unix_s })
    }
}

fn refused(name: &'static str, file: &Path, reason: impl Into<String>) -> TlsFileError {
    TlsFileError { name, file: file.to_owned(), reason: reason.into() }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use mesh_proto::NodeId;
    use rcgen::{CertificateParams, KeyPair};
    use tempfile::TempDir;
    use tokio::{
        io::AsyncReadExt,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    fn write(folder: &TempDir, cert: &str, key: &str) -> (PathBuf, PathBuf) {
        let paths = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        fs::write(&paths.0, cert).unwrap();
        fs::write(&paths.1, key).unwrap();
        paths
    }

    fn issued() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        (cert.pem(), key.serialize_pem())
    }

    #[test]
    fn the_prepared_refusal_is_as_long_as_it_says() {
        let text = String::from_utf8_lossy(PLAIN);
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body.len()).unwrap();
        assert!(text.contains(&format!("content-length: {body}\r\n")), "{body}");
    }

    #[test]
    fn files_that_cannot_be_used_are_named_with_what_is_wrong() {
        let folder = TempDir::new().unwrap();
        let ((cert, key), (_, other)) = (issued(), issued());
        for (cert, key, expected) in [
            ("", key.as_str(), "cert.pem: expected certificates in PEM"),
            (key.as_str(), key.as_str(), "cert.pem: expected certificates in PEM"),
            (cert.as_str(), "-----BEGIN PRIVATE", "key.pem: expected a private key in PEM"),
            (cert.as_str(), other.as_str(), "key.pem: expected the private key of HTTP_TLS_CERT="),
        ] {
            let (cert, key) = write(&folder, cert, key);
            let text = HttpTls::load(cert, key).unwrap_err().to_string();
            assert!(text.starts_with("HTTP_TLS_") && text.contains(expected), "{text}");
        }
        let (cert, key) = write(&folder, &cert, &key);
        assert!(HttpTls::load(cert, key).unwrap().expires_unix_s() > 0);
    }

    #[tokio::test(start_paused = true)]
    async fn files_that_change_are_read_again_and_broken_ones_change_nothing() {
        let folder = TempDir::new().unwrap();
        let (cert, key) = issued();
        let (cert_path, key_path) = write(&folder, &cert, &key);
        let tls = Arc::new(HttpTls::load(cert_path, key_path).unwrap());
        let in_use = || String::from_utf8(tls.current.load().files.cert.clone()).unwrap();
        let reload = tokio::spawn(Arc::clone(&tls).reload_for_ever());
        let looks = || tokio::time::sleep(LOOK_EVERY * 4);
        looks().await;
        let (next, next_key) = issued();
        write(&folder, &next, &key);
        looks().await;
        assert_eq!(in_use(), cert, "the key is another's");
        fs::remove_file(folder.path().join("key.pem")).unwrap();
        looks().await;
        assert_eq!(in_use(), cert);
        write(&folder, &next, &next_key);
        looks().await;
        assert_eq!(in_use(), next);
        reload.abort();
    }

    async fn connected() -> (TcpStream, TimestampedStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (dialled, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (dialled.unwrap(), TimestampedStream::new(accepted.unwrap().0, false))
    }

    #[tokio::test]
    async fn a_client_without_tls_is_told_and_a_silent_one_is_given_up() {
        let folder = TempDir::new().unwrap();
        let (cert, key) = issued();
        let (cert, key) = write(&folder, &cert, &key);
        let tls = HttpTls::load(cert, key).unwrap();
        let telemetry = Telemetry::new("n", NodeId::new(1), "0").unwrap();

        let (mut client, stream) = connected().await;
        client.write_all(b"GET /get?k=a HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert!(tls.accept(stream, Duration::from_secs(60), &telemetry).await.is_none());
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 400 ") && text.ends_with("use https://\"}"), "{text}");

        let (client, stream) = connected().await;
        assert!(tls.accept(stream, Duration::from_millis(20), &telemetry).await.is_none());
        drop(client);
        let (client, stream) = connected().await;
        drop(client);
        assert!(tls.accept(stream, Duration::from_secs(60), &telemetry).await.is_none());

        let (mut client, stream) = connected().await;
        client.write_all(&[HANDSHAKE, 3, 1, 0, 200]).await.unwrap();
        drop(client);
        assert!(tls.accept(stream, Duration::from_secs(60), &telemetry).await.is_none());
        let text = telemetry.render(observability::Exposition::Prometheus);
        for reason in ["timed_out", "plaintext", "failed"] {
            let line = format!("mesh_http_tls_handshake_failures_total{{node=\"n\",reason=\"{reason}\"}} 1\n");
            assert!(text.contains(&line), "{text}");
        }
    }
}
