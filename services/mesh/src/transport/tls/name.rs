//! The names in certificates: how a node is called, and who a certificate says it is.

use mesh_proto::NodeId;
use rustls::pki_types::CertificateDer;
use x509_parser::{extensions::GeneralName, parse_x509_certificate};

/// The name that every node of a mesh answers to; asked for by those who know a seed only by its address.
pub(super) const MESH_NAME: &str = "mesh.internal";

/// What follows the node id in a node's own name.
const NODE_SUFFIX: &str = ".node.mesh.internal";

/// The name that only the node `id` answers to.
pub(super) fn node_name(id: NodeId) -> String {
    format!("{id}{NODE_SUFFIX}")
}

/// The name to ask the other side for.
pub(in crate::transport) fn server_name(expect: Option<NodeId>) -> String {
    expect.map_or_else(|| MESH_NAME.to_owned(), node_name)
}

/// Who a certificate says it is, or in words why it does not. Its signature is somebody else's to check.
pub(in crate::transport) fn peer_id(certificate: &CertificateDer<'_>) -> Result<NodeId, String> {
    let (_, parsed) = parse_x509_certificate(certificate).map_err(|e| format!("the certificate is malformed: {e}"))?;
    let names = parsed
        .subject_alternative_name()
        .map_err(|e| format!("the certificate's subject alternative names are malformed: {e}"))?;
    let mut ids = names.into_iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(name) => name.strip_suffix(NODE_SUFFIX).and_then(NodeId::parse),
        _ => None,
    });
    match (ids.next(), ids.next()) {
        (Some(id), None) => Ok(id),
        (None, _) => Err(format!("the certificate has no subject alternative name <node id>{NODE_SUFFIX}")),
        (Some(_), Some(_)) => Err("the certificate claims to be several nodes".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn certificate(names: &[&str]) -> CertificateDer<'static> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        rcgen::generate_simple_self_signed(names).unwrap().cert.der().clone()
    }

    #[test]
    fn a_certificate_names_exactly_one_node() {
        let (a, b) = (NodeId::from_name("a"), NodeId::from_name("b"));
        assert_eq!(peer_id(&certificate(&[MESH_NAME, &node_name(a)])), Ok(a));
        assert!(peer_id(&certificate(&[MESH_NAME])).unwrap_err().contains("no subject alternative name"));
        assert!(peer_id(&certificate(&[&node_name(a), &node_name(b)])).unwrap_err().contains("several nodes"));
        assert!(peer_id(&certificate(&["xyz.node.mesh.internal"])).is_err());
        assert!(peer_id(&CertificateDer::from(vec![1, 2, 3])).unwrap_err().contains("malformed"));
    }
}
