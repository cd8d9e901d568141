//! The exporter for a collector: gRPC or HTTP, plain or with TLS.

use std::{fs, path::Path, sync::Arc};

use opentelemetry_otlp::{
    Compression, Protocol, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig,
    tonic_types::transport::{Certificate, ClientTlsConfig},
};
use rustls::{ClientConfig, RootCertStore};

use super::{Collector, InitError, OtlpCompression, OtlpProtocol};
use crate::authorities;

/// To be called within the runtime that exports.
pub(super) fn exporter(collector: &Collector) -> Result<SpanExporter, InitError> {
    let built = match collector.protocol {
        OtlpProtocol::Grpc => {
            let builder =
                SpanExporter::builder().with_tonic().with_endpoint(&collector.url).with_timeout(collector.timeout);
            let builder = match collector.compression {
                OtlpCompression::Gzip => builder.with_compression(Compression::Gzip),
                OtlpCompression::None => builder,
            };
            let builder = match is_encrypted(collector) {
                true => builder.with_tls_config(tonic_config(collector)?),
                false => builder,
            };
            builder.with_retry_policy(RetryPolicy::disabled()).build()
        }
        OtlpProtocol::HttpProtobuf => {
            let builder = SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary);
            let builder = builder.with_endpoint(&collector.url).with_timeout(collector.timeout);
            let builder = match collector.compression {
                OtlpCompression::Gzip => builder.with_compression(Compression::Gzip),
                OtlpCompression::None => builder,
            };
            builder.with_http_client(http_client(collector)?).build()
        }
    };
    built.map_err(|error| InitError::Endpoint { endpoint: collector.url.clone(), error })
}

fn is_encrypted(collector: &Collector) -> bool {
    collector.url.starts_with("https:")
}

fn tonic_config(collector: &Collector) -> Result<ClientTlsConfig, InitError> {
    let config = ClientTlsConfig::new();
    let Some(file) = &collector.certificate else { return Ok(config.with_native_roots()) };
    // Read here as well, because it is not looked at before the first request otherwise.
    authorities_of(file)?;
    Ok(config.ca_certificate(Certificate::from_pem(read(file)?)))
}

fn http_client(collector: &Collector) -> Result<reqwest::Client, InitError> {
    let roots = match &collector.certificate {
        Some(file) => authorities_of(file)?,
        None if is_encrypted(collector) => native_roots()?,
        None => RootCertStore::empty(),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let tls = versions.map(|config| config.with_root_certificates(roots).with_no_client_auth());
    let tls = tls.map_err(|error| InitError::Roots(error.to_string()))?;
    let client = reqwest::Client::builder().tls_backend_preconfigured(tls).build();
    client.map_err(|error| InitError::Roots(error.to_string()))
}

/// Those of the system.
fn native_roots() -> Result<RootCertStore, InitError> {
    let roots = authorities::of_system();
    if roots.is_empty() { Err(InitError::Roots("this system has no certificates".to_owned())) } else { Ok(roots) }
}

fn authorities_of(file: &Path) -> Result<RootCertStore, InitError> {
    let refuse = |reason: String| InitError::Certificate { file: file.display().to_string(), reason };
    let roots = authorities::of_file(file).map_err(refuse)?;
    if roots.is_empty() { Err(refuse("there is no certificate in it".to_owned())) } else { Ok(roots) }
}

fn read(file: &Path) -> Result<Vec<u8>, InitError> {
    fs::read(file)
        .map_err(|error| InitError::Certificate { file: file.display().to_string(), reason: error.to_string() })
}
