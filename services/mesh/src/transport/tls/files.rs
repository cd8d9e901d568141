//! Keys from PEM files. Whatever peers would refuse later is refused here at start, by the name of the file.

use std::{path::Path, sync::Arc};

use mesh_proto::NodeId;
use ring::digest;
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    sign::CertifiedKey,
};

use super::{
    TlsError,
    name::{MESH_NAME, node_name, peer_id},
};

/// What the files hold.
pub(super) struct KeyFiles {
    /// The authorities that peers' certificates must come from.
    pub(super) roots: RootCertStore,
    /// This node's certificate and key.
    pub(super) leaf: Arc<CertifiedKey>,
    /// What keys for stateless resets are derived from; follows from the private key.
    pub(super) reset_seed: [u8; 32],
}

/// Loads and checks the files of the node `id`.
pub(super) fn load(
    ca: &Path,
    cert: &Path,
    key: &Path,
    id: NodeId,
    provider: &Arc<CryptoProvider>,
) -> Result<KeyFiles, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(ca)? {
        roots.add(authority).map_err(|e| TlsError::new(format!("{} holds no usable authority: {e}", ca.display())))?;
    }
    let chain = certificates(cert)?;
    let named = peer_id(&chain[0]).map_err(|e| TlsError::new(format!("{}: {e}", cert.display())))?;
    if named != id {
        let expected = node_name(id);
        return Err(TlsError::new(format!(
            "{} is the certificate of node {named}, but this is node {id}: expected the subject alternative name {expected}",
            cert.display()
        )));
    }
    check_issued(&roots, &chain, id, provider)
        .map_err(|e| TlsError::new(format!("{} is not acceptable to {}: {e}", cert.display(), ca.display())))?;
    let private_key = PrivateKeyDer::from_pem_file(key)
        .map_err(|e| TlsError::new(format!("{}: expected a private key in PEM: {e}", key.display())))?;
    let mut reset_seed = [0; 32];
    reset_seed.copy_from_slice(digest::digest(&digest::SHA256, private_key.secret_der()).as_ref());
    let leaf = CertifiedKey::from_der(chain, private_key, provider)
        .map_err(|e| TlsError::new(format!("{} is not the private key of {}: {e}", key.display(), cert.display())))?;
    Ok(KeyFiles { roots, leaf: Arc::new(leaf), reset_seed })
}

/// The certificates in a file, at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let expected =
        |e: &dyn std::fmt::Display| TlsError::new(format!("{}: expected certificates in PEM: {e}", path.display()));
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| expected(&e))?;
    if found.is_empty() { Err(expected(&"none found")) } else { Ok(found) }
}

/// Whether peers with the same authority would accept our chain, under both of the names they may ask for.
fn check_issued(
    roots: &RootCertStore,
    chain: &[CertificateDer<'static>],
    id: NodeId,
    provider: &Arc<CryptoProvider>,
) -> Result<(), String> {
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots.clone()), Arc::clone(provider))
        .build()
        .map_err(|e| e.to_string())?;
    for name in [MESH_NAME.to_owned(), node_name(id)] {
        let server = ServerName::try_from(name).map_err(|e| e.to_string())?;
        verifier
            .verify_server_cert(&chain[0], &chain[1..], &server, &[], UnixTime::now())
            .map_err(|e| e.to_string())?;
    }
    Ok(())
}
