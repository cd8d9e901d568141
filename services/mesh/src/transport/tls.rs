//! Mutual TLS from one shared secret: every node derives the same cluster CA and mints its own short-lived certificate.
use std::path::PathBuf;
use thiserror::Error;
/// The cluster's shared secret (CACHE_AUTH). Never printed.
#[derive(Clone)]
pub struct ClusterSecret(String);
impl ClusterSecret {
    /// Wraps a secret.
    #[must_use]
    pub fn new(secret: &str) -> Self {
        Self(secret.to_owned())
    }
}
/// Where a node's keys come from.
#[derive(Clone)]
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
