//! This node's own key and certificate, as rustls asks for them in each handshake: fixed ones, or minted ones that are
//! replaced long before they expire, so that a node can run for months.

use std::{fmt, sync::Arc, time::SystemTime};

use mesh_proto::NodeId;
use parking_lot::Mutex;
use rustls::{
    SignatureScheme,
    client::ResolvesClientCert,
    crypto::CryptoProvider,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::{
    TlsError,
    authority::{ClusterAuthority, LEAF_LIFETIME},
};

/// This node's own key and certificate.
pub(super) struct LeafKeys(Source);

enum Source {
    Fixed(Arc<CertifiedKey>),
    Minted(Box<Mint>),
}

struct Mint {
    authority: ClusterAuthority,
    id: NodeId,
    provider: Arc<CryptoProvider>,
    // Held while minting: handshakes that begin meanwhile want the new certificate, too. Twice a day, some 50 µs.
    current: Mutex<(Arc<CertifiedKey>, SystemTime)>,
}

impl LeafKeys {
    /// The same key for ever, as from files.
    pub(super) const fn fixed(key: Arc<CertifiedKey>) -> Self {
        Self(Source::Fixed(key))
    }

    /// Keys that are minted by `authority` when they are due.
    pub(super) fn minted(
        authority: ClusterAuthority,
        id: NodeId,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let now = SystemTime::now();
        let first = mint(&authority, id, &provider, now)?;
        Ok(Self(Source::Minted(Box::new(Mint { authority, id, provider, current: Mutex::new((first, now)) }))))
    }

    fn at(&self, now: SystemTime) -> Arc<CertifiedKey> {
        let mint_keys = match &self.0 {
            Source::Fixed(key) => return Arc::clone(key),
            Source::Minted(mint_keys) => mint_keys,
        };
        let mut current = mint_keys.current.lock();
        // A clock that went backwards makes the age an error: then, too, a new certificate is the safe answer.
        let is_fresh = now.duration_since(current.1).is_ok_and(|age| age < LEAF_LIFETIME / 2);
        if !is_fresh {
            match mint(&mint_keys.authority, mint_keys.id, &mint_keys.provider, now) {
                Ok(key) => *current = (key, now),
                Err(error) => tracing::error!(%error, "this node's certificate could not be renewed"),
            }
        }
        Arc::clone(&current.0)
    }
}

fn mint(
    authority: &ClusterAuthority,
    id: NodeId,
    provider: &CryptoProvider,
    now: SystemTime,
) -> Result<Arc<CertifiedKey>, TlsError> {
    let (certificate, key) = authority.mint(id, now)?;
    CertifiedKey::from_der(vec![certificate], key, provider)
        .map(Arc::new)
        .map_err(|e| TlsError::new(format!("a minted key is unusable: {e}")))
}

impl fmt::Debug for LeafKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LeafKeys(not shown)")
    }
}

impl ResolvesServerCert for LeafKeys {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.at(SystemTime::now()))
    }
}

impl ResolvesClientCert for LeafKeys {
    fn resolve(&self, _root_hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.at(SystemTime::now()))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::time::Duration;

    use super::*;
    use crate::transport::ClusterSecret;

    #[test]
    fn a_certificate_is_replaced_at_half_of_its_life() {
        let authority = ClusterAuthority::derive(&ClusterSecret::new("s")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let keys = LeafKeys::minted(authority, NodeId::new(1), provider).unwrap();
        let now = SystemTime::now();
        let first = keys.at(now);
        assert!(Arc::ptr_eq(&first, &keys.at(now + LEAF_LIFETIME / 3)));
        let second = keys.at(now + LEAF_LIFETIME / 2 + Duration::from_secs(1));
        assert_ne!(first.cert, second.cert);
        assert_ne!(second.cert, keys.at(now - Duration::from_secs(60)).cert, "the clock was set back");
    }
}
