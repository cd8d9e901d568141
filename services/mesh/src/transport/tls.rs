//! Mutual TLS for the mesh: TLS 1.3 only, both sides authenticated, no early data and no resumption, so that every
//! connection proves itself anew. The keys come from one shared secret, or from files.

use std::{fmt, path::PathBuf, sync::Arc};

use mesh_proto::NodeId;
use ring::hmac;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::{Resumption, WebPkiServerVerifier},
    crypto::CryptoProvider,
    pki_types::CertificateDer,
    server::WebPkiClientVerifier,
    version::TLS13,
};
use thiserror::Error;

mod authority;
mod files;
mod leaf;
mod name;

pub(super) use name::{peer_id, server_name};

use authority::ClusterAuthority;
use leaf::LeafKeys;

/// What peers agree to speak, so that another protocol's client is refused in the handshake.
const ALPN: &[u8] = b"mesh/1";

/// The cluster's shared secret (CACHE_AUTH). Never printed.
///
/// An attacker who reaches a node's port can test guesses against its certificate offline, so it has to be long and random.
#[derive(Clone)]
pub struct ClusterSecret(String);

impl ClusterSecret {
    /// Wraps a secret.
    #[must_use]
    pub fn new(secret: &str) -> Self {
        Self(secret.to_owned())
    }

    fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterSecret(not shown)")
    }
}

/// Where a node's keys come from.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// Derived from the secret.
    Secret(ClusterSecret),
    /// PEM files.
    Files {
        /// The certificate authority that all peers' certificates must come from.
        ca: PathBuf,
        /// This node's certificate chain, with its node id as SAN.
        cert: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
}

/// Keys or certificates are unusable.
#[derive(Debug, Error)]
#[error("cannot set up TLS: {reason}")]
pub struct TlsError {
    /// What is wrong and what to change.
    pub reason: String,
}

impl TlsError {
    fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

/// Everything about keys that the QUIC transport needs.
pub(super) struct TlsSetup {
    /// For those who dial us.
    pub(super) server: Arc<ServerConfig>,
    /// For those whom we dial.
    pub(super) client: Arc<ClientConfig>,
    /// Signs stateless resets. It outlives the process, so that a restarted node can end what its predecessor began.
    pub(super) reset_key: Arc<hmac::Key>,
}

impl TlsSetup {
    /// Derives or loads the keys of the node `id`.
    pub(super) fn new(credentials: &Credentials, id: NodeId) -> Result<Self, TlsError> {
        // Named here and nowhere installed as the process's default: other crates may have their own idea.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let (roots, leaf, reset_seed) = match credentials {
            Credentials::Secret(secret) => {
                let authority = ClusterAuthority::derive(secret)?;
                let mut roots = RootCertStore::empty();
                add_root(&mut roots, authority.certificate()?)?;
                let reset_seed = authority.reset_seed();
                (roots, LeafKeys::minted(authority, id, Arc::clone(&provider))?, reset_seed)
            }
            Credentials::Files { ca, cert, key } => {
                let files = files::load(ca, cert, key, id, &provider)?;
                (files.roots, LeafKeys::fixed(files.leaf), files.reset_seed)
            }
        };
        let (roots, leaf) = (Arc::new(roots), Arc::new(leaf));
        Ok(Self {
            server: Arc::new(server_config(&roots, &leaf, &provider)?),
            client: Arc::new(client_config(&roots, &leaf, &provider)?),
            reset_key: Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &reset_key(&reset_seed, id))),
        })
    }
}

fn add_root(roots: &mut RootCertStore, certificate: CertificateDer<'static>) -> Result<(), TlsError> {
    roots.add(certificate).map_err(|e| TlsError::new(format!("the certificate authority is unusable: {e}")))
}

fn server_config(
    roots: &Arc<RootCertStore>,
    leaf: &Arc<LeafKeys>,
    provider: &Arc<CryptoProvider>,
) -> Result<ServerConfig, TlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider))
        .build()
        .map_err(|e| TlsError::new(format!("the certificate authority is unusable: {e}")))?;
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])
        .map_err(|e| TlsError::new(e.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::clone(leaf) as _);
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(config)
}

fn client_config(
    roots: &Arc<RootCertStore>,
    leaf: &Arc<LeafKeys>,
    provider: &Arc<CryptoProvider>,
) -> Result<ClientConfig, TlsError> {
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider))
        .build()
        .map_err(|e| TlsError::new(format!("the certificate authority is unusable: {e}")))?;
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])
        .map_err(|e| TlsError::new(e.to_string()))?
        .with_webpki_verifier(verifier)
        .with_client_cert_resolver(Arc::clone(leaf) as _);
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The node's own key for stateless resets, the same for as long as its credentials are.
fn reset_key(seed: &[u8; 32], id: NodeId) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, seed), &id.get().to_be_bytes());
    let mut key = [0; 32];
    key.copy_from_slice(tag.as_ref());
    key
}

/// An Ed25519 private key in PKCS#8 version 1 (RFC 8410, section 7): a fixed prefix and the seed.
fn ed25519_pkcs8(seed: &[u8; 32]) -> Vec<u8> {
    const PREFIX: [u8; 16] =
        [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    [&PREFIX[..], &seed[..]].concat()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

    use super::*;

    const ID: NodeId = NodeId::new(7);

    fn setup(secret: &str, id: NodeId) -> TlsSetup {
        TlsSetup::new(&Credentials::Secret(ClusterSecret::new(secret)), id).unwrap()
    }

    #[test]
    fn reset_keys_belong_to_a_secret_and_a_node() {
        let key = |secret: &str, id| {
            let authority = ClusterAuthority::derive(&ClusterSecret::new(secret)).unwrap();
            reset_key(&authority.reset_seed(), id)
        };
        assert_eq!(key("s1", ID), key("s1", ID), "a restarted node signs as before");
        assert_ne!(key("s1", ID), key("s2", ID));
        assert_ne!(key("s1", ID), key("s1", NodeId::new(8)));
    }

    #[test]
    fn the_secret_is_never_printed() {
        let credentials = Credentials::Secret(ClusterSecret::new("opensesame"));
        assert!(!format!("{credentials:?} {credentials:#?}").contains("sesame"));
    }

    #[test]
    fn every_connection_is_a_full_handshake() {
        let setup = setup("s1", ID);
        assert_eq!(setup.server.send_tls13_tickets, 0);
        assert_eq!(setup.server.max_early_data_size, 0);
        assert!(!setup.client.enable_early_data);
    }
}
