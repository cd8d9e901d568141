//! What nodes and the runner are told of HTTPS and bearer tokens: both read the same values under the same names.

use std::path::Path;

use crate::Mistakes;

/// A bearer token: printable ASCII without spaces, which a header can carry.
///
/// # Errors
/// What was expected.
pub fn bearer_token(text: &str) -> Result<String, String> {
    let fits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(text.to_owned()) } else { Err("expected printable ASCII characters without spaces".to_owned()) }
}

/// Refuses a certificate without its key, and a key without its certificate.
pub fn check_https_files(cert: Option<&Path>, key: Option<&Path>, mistakes: &mut Mistakes) {
    let files = [("HTTP_TLS_CERT", cert), ("HTTP_TLS_KEY", key)];
    if files.iter().any(|(_, file)| file.is_some()) {
        for (name, _) in files.iter().filter(|(_, file)| file.is_none()) {
            mistakes.refuse(name, "", "expected a file: HTTP_TLS_CERT and HTTP_TLS_KEY go together");
        }
    }
}
