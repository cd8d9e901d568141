//! The cluster's certificate authority, the same on every node because it follows from the shared secret.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mesh_proto::NodeId;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, date_time_ymd,
};
use ring::hkdf;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::{
    ClusterSecret, TlsError, ed25519_pkcs8,
    name::{MESH_NAME, node_name},
};

/// How long a node's certificate is good for. It is minted anew at half of it, so a leaked key is soon worthless.
pub(super) const LEAF_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// How far a peer's clock may be behind ours.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(3600);

/// HKDF's salt (RFC 5869, section 3.1): fixed, since all nodes must arrive at the same keys.
const SALT: &[u8] = b"mesh-bench cluster v1";

/// The cluster's certificate authority.
pub(super) struct ClusterAuthority {
    params: CertificateParams,
    issuer: Issuer<'static, KeyPair>,
    reset_seed: [u8; 32],
}

impl ClusterAuthority {
    /// The authority that follows from `secret`.
    pub(super) fn derive(secret: &ClusterSecret) -> Result<Self, TlsError> {
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, SALT).extract(secret.as_bytes());
        let pkcs8 = ed25519_pkcs8(&expand(&root, b"certificate authority ed25519")?);
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(pkcs8.as_slice()), &PKCS_ED25519)
            .map_err(|_| TlsError::new("the cluster key cannot be derived from CACHE_AUTH"))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name("mesh cluster authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Ok(Self { issuer: Issuer::new(params.clone(), key), params, reset_seed: expand(&root, b"stateless reset")? })
    }

    /// Its own certificate, which is what peers' certificates are checked against.
    pub(super) fn certificate(&self) -> Result<CertificateDer<'static>, TlsError> {
        let certificate = self.params.self_signed(self.issuer.key()).map_err(unmintable)?;
        Ok(certificate.der().clone())
    }

    /// What keys for stateless resets are derived from.
    pub(super) const fn reset_seed(&self) -> [u8; 32] {
        self.reset_seed
    }

    /// A new key and a certificate for it that says it is the node `id`, good for [`LEAF_LIFETIME`] from `now`.
    pub(super) fn mint(
        &self,
        id: NodeId,
        now: SystemTime,
    ) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), TlsError> {
        let key = KeyPair::generate_for(&PKCS_ED25519).map_err(unmintable)?;
        let mut params = CertificateParams::new([MESH_NAME.to_owned(), node_name(id)]).map_err(unmintable)?;
        params.distinguished_name = distinguished_name(&format!("mesh node {id}"));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let epoch = date_time_ymd(1970, 1, 1);
        params.not_before = epoch + since_epoch.saturating_sub(CLOCK_SKEW_MAX);
        params.not_after = epoch + since_epoch + LEAF_LIFETIME;
        let certificate = params.signed_by(&key, &self.issuer).map_err(unmintable)?;
        Ok((certificate.der().clone(), PrivateKeyDer::Pkcs8(key.serialize_der().into())))
    }
}

fn distinguished_name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn unmintable(error: rcgen::Error) -> TlsError {
    TlsError::new(format!("a certificate cannot be minted: {error}"))
}

fn expand(root: &hkdf::Prk, info: &[u8]) -> Result<[u8; 32], TlsError> {
    let mut key = [0; 32];
    root.expand(&[info], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut key))
        .map_err(|_| TlsError::new("keys cannot be derived from CACHE_AUTH"))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn authority(secret: &str) -> ClusterAuthority {
        ClusterAuthority::derive(&ClusterSecret::new(secret)).unwrap()
    }

    #[test]
    fn all_nodes_arrive_at_the_same_authority() {
        use rcgen::PublicKeyData;
        let key = |secret| authority(secret).issuer.key().der_bytes().to_vec();
        assert_eq!(key("s1"), key("s1"));
        assert_ne!(key("s1"), key("s2"));
        assert_ne!(authority("s1").reset_seed(), authority("s2").reset_seed());
    }

    #[test]
    fn the_derivation_is_frozen() {
        use rcgen::PublicKeyData;
        let key: String = authority("frozen").issuer.key().der_bytes().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            key, "37dd9ee8e5b473cf35089d208c9fecbe334edaf53e64db6ca6fa871f00dca0a8",
            "nodes of two releases must be able to form one mesh"
        );
    }

    #[test]
    fn a_minted_certificate_is_short_lived_and_for_one_node() {
        let id = NodeId::from_name("a");
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let (certificate, _) = authority("s1").mint(id, now).unwrap();
        assert_eq!(super::super::peer_id(&certificate), Ok(id));
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).unwrap();
        assert_eq!(parsed.validity().not_before.timestamp(), 1_700_000_000 - 3600);
        assert_eq!(parsed.validity().not_after.timestamp(), 1_700_000_000 + 24 * 3600);
    }
}
