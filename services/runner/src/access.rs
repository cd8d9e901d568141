//! What nodes ask of their clients and clients of nodes: bearer tokens, and certificates of an authority that the runner trusts.

use std::{fmt, io, path::Path, sync::Arc, time::Duration};

use observability::authorities;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};
use reqwest::{Client, ClientBuilder, RequestBuilder};
use rustls::{CertificateError, ClientConfig, InvalidMessage, RootCertStore, pki_types::ServerName};
use tokio_rustls::TlsConnector;

use crate::settings::{Scheme, Settings, TargetSettings, TargetUrl};

/// A control call fails after this long.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(1);

/// What a query must encode: all but the unreserved characters (RFC 3986, section 2.3).
pub(crate) const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Tokens, and whom the runner trusts.
#[derive(Clone)]
pub(crate) struct Access {
    tls: Arc<ClientConfig>,
    data_token: Option<Arc<str>>,
    admin_token: Option<Arc<str>>,
}

/// How connections to one target are secured.
#[derive(Clone)]
pub(crate) struct Secured {
    pub(crate) connector: TlsConnector,
    pub(crate) name: ServerName<'static>,
}

impl Access {
    /// What the settings say. Authorities are read only if something speaks TLS.
    ///
    /// # Errors
    /// One line: HTTP_TLS_CA, its value and what was expected.
    pub(crate) fn new(settings: &Settings) -> Result<Self, String> {
        let TargetSettings { targets, http_tls_ca, http_token, http_admin_token, .. } = &settings.http;
        let is_secure = (settings.local.local > 0 && settings.local.http_tls_cert.is_some())
            || targets.iter().any(|target| target.scheme == Scheme::Https)
            || settings.observers.prometheus_url.as_ref().is_some_and(|url| url.starts_with("https://"));
        let roots = match http_tls_ca {
            Some(file) => roots_of(file)?,
            None if is_secure => roots_of_the_system()?,
            None => RootCertStore::empty(),
        };
        Self::with(roots, http_token.as_deref(), http_admin_token.as_deref())
    }

    fn with(roots: RootCertStore, data_token: Option<&str>, admin_token: Option<&str>) -> Result<Self, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(|error| format!("cannot set up TLS: {error}"))?;
        let mut tls = config.with_root_certificates(roots).with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            tls: Arc::new(tls),
            data_token: data_token.map(Into::into),
            admin_token: admin_token.map(Into::into),
        })
    }

    /// A general HTTP client that trusts the same authorities, to be finished by who needs it.
    pub(crate) fn client(&self) -> ClientBuilder {
        Client::builder().no_proxy().tls_backend_preconfigured(ClientConfig::clone(&self.tls))
    }

    /// How connections to a target are secured; nothing for http://.
    ///
    /// # Errors
    /// If its host can be in no certificate.
    pub(crate) fn secured(&self, target: &TargetUrl) -> Result<Option<Secured>, String> {
        if target.scheme != Scheme::Https {
            return Ok(None);
        }
        let host = target.host().trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host).map_err(|error| format!("TARGETS={}: {error}", target.url()))?;
        Ok(Some(Secured { connector: TlsConnector::from(Arc::clone(&self.tls)), name }))
    }

    /// The header line of requests for data; empty without a token.
    pub(crate) fn data_header(&self) -> Arc<str> {
        self.data_token.as_ref().map_or_else(|| "".into(), |token| format!("Authorization: Bearer {token}\r\n").into())
    }

    /// With the token for data, if there is one.
    pub(crate) fn data(&self, request: RequestBuilder) -> RequestBuilder {
        with_token(request, self.data_token.as_deref())
    }

    /// With the token for administration, if there is one.
    pub(crate) fn admin(&self, request: RequestBuilder) -> RequestBuilder {
        with_token(request, self.admin_token.as_deref())
    }
}

impl fmt::Debug for Secured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secured").field("name", &self.name).finish_non_exhaustive()
    }
}

fn with_token(request: RequestBuilder, token: Option<&str>) -> RequestBuilder {
    match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    }
}

fn roots_of(file: &Path) -> Result<RootCertStore, String> {
    let refused = |reason: &str| format!("HTTP_TLS_CA={}: expected certificates in PEM: {reason}", file.display());
    let roots = authorities::of_file(file).map_err(|reason| refused(&reason))?;
    if roots.is_empty() { Err(refused("none found")) } else { Ok(roots) }
}

fn roots_of_the_system() -> Result<RootCertStore, String> {
    let roots = authorities::of_system();
    let missing = || "HTTP_TLS_CA=: expected a file, because this system knows no certificate authorities".to_owned();
    if roots.is_empty() { Err(missing()) } else { Ok(roots) }
}

/// The innermost cause: `connection refused`, not `error sending request`.
pub(crate) fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return format!("no answer within {} s", TIMEOUT.as_secs());
    }
    let mut cause: &(dyn std::error::Error + 'static) = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    tls_failure(cause).unwrap_or_else(|| cause.to_string())
}

/// Why TLS failed, in words that say what to change; nothing if that is not the cause.
pub(crate) fn tls_failure(cause: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut cause = cause;
    // Each may wrap the next, and names it as no source of its own.
    let error = loop {
        match cause.downcast_ref::<rustls::Error>() {
            Some(error) => break error,
            None => cause = cause.downcast_ref::<io::Error>()?.get_ref()?,
        }
    };
    Some(match error {
        rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "its certificate has expired: give the node another one in HTTP_TLS_CERT".to_owned()
        }
        // The latter is another authority of the same name.
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "its certificate comes from an unknown authority: set HTTP_TLS_CA to that authority's certificate"
                .to_owned()
        }
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "it does not speak TLS: use http://, or give the node HTTP_TLS_CERT".to_owned()
        }
        other => other.to_string(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// Access without tokens that trusts nobody.
    impl Default for Access {
        fn default() -> Self {
            Self::with(RootCertStore::empty(), None, None).unwrap()
        }
    }

    #[test]
    fn a_file_without_certificates_is_refused() {
        for (file, reason) in [("/no/such/ca.pem", "No such file"), ("/dev/null", "none found")] {
            let message = roots_of(Path::new(file)).unwrap_err();
            assert!(message.starts_with(&format!("HTTP_TLS_CA={file}: expected certificates in PEM: ")), "{message}");
            assert!(message.contains(reason), "{message}");
        }
    }

    #[test]
    fn https_targets_are_secured_under_their_hosts_and_no_others() {
        let access = Access::default();
        let secured = |url: &str| {
            access.secured(&url.parse().unwrap()).unwrap().map(|secured| secured.name.to_str().into_owned())
        };
        assert_eq!(secured("http://a:1"), None);
        assert_eq!(secured("https://a:1").as_deref(), Some("a"));
        assert_eq!(secured("https://[::1]:1").as_deref(), Some("::1"));
        assert!(
            access.secured(&"https://a..b:1".parse().unwrap()).unwrap_err().starts_with("TARGETS=https://a..b:1: ")
        );
    }

    #[test]
    fn tokens_become_headers() {
        assert_eq!(&*Access::default().data_header(), "");
        let access = Access::with(RootCertStore::empty(), Some("d"), Some("a")).unwrap();
        assert_eq!(&*access.data_header(), "Authorization: Bearer d\r\n");
        let client = access.client().build().unwrap();
        let header = |request: RequestBuilder| request.build().unwrap().headers()["authorization"].clone();
        assert_eq!(header(access.data(client.get("http://a"))), "Bearer d");
        assert_eq!(header(access.admin(client.get("http://a"))), "Bearer a");
    }
}
