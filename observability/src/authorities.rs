//! Whom a TLS client of this process trusts.

use std::path::Path;

use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, pem::PemObject};

/// The certificates in a PEM file; there may be none.
///
/// # Errors
/// Why it cannot be read, or one of them not be used.
pub fn of_file(file: &Path) -> Result<RootCertStore, String> {
    let found = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let mut roots = RootCertStore::empty();
    for certificate in found.map_err(|error| error.to_string())? {
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    Ok(roots)
}

/// Those of the system; there may be none. Systems have odd ones among many, which are left out.
#[must_use]
pub fn of_system() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}
