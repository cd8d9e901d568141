//! Bearer tokens (RFC 6750): HTTP_TOKEN opens the data routes, HTTP_ADMIN_TOKEN those that show or change the mesh. A route that
//! is not named here is one of the latter, so that a new one is never open by oversight.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::{problem::Problem, settings::HttpSettings, token::Token};

/// What a route needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Open,
    Data,
    Admin,
}

impl Scope {
    fn of(path: &str) -> Self {
        match path {
            "/get" | "/set" | "/del" => Self::Data,
            // The first two are for probes and Prometheus, which read no secrets; the others have KILL_TOKEN.
            "/ready" | "/metrics" | "/kill" | "/fault" => Self::Open,
            _ => Self::Admin,
        }
    }
}

/// The tokens; a scope without one is open.
#[derive(Clone, Debug)]
pub(crate) struct Authorization {
    data: Option<Token>,
    admin: Option<Token>,
}

impl Authorization {
    pub(crate) fn new(settings: &HttpSettings) -> Self {
        Self { data: settings.http_token.clone(), admin: settings.http_admin_token.clone() }
    }

    /// Whether who asks for an administrative route has shown a token.
    pub(crate) const fn guards_admin(&self) -> bool {
        self.admin.is_some()
    }

    /// 401 unless the request has the token that its route needs.
    pub(crate) fn check(&self, path: &str, headers: &HeaderMap) -> Result<(), Problem> {
        let (token, name) = match Scope::of(path) {
            Scope::Open => return Ok(()),
            Scope::Data => (&self.data, "HTTP_TOKEN"),
            Scope::Admin => (&self.admin, "HTTP_ADMIN_TOKEN"),
        };
        let Some(token) = token else { return Ok(()) };
        if bearer(headers).is_some_and(|guess| token.matches(guess)) {
            return Ok(());
        }
        let detail = format!("send `Authorization: Bearer …` with the node's {name}");
        let problem = Problem::new(StatusCode::UNAUTHORIZED, "token-wrong", detail);
        Err(problem.with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")))
    }
}

/// The token of the one Authorization header; the scheme's name is case-insensitive (RFC 9110, section 11.1).
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"Bearer ";
    let mut lines = headers.get_all(header::AUTHORIZATION).iter();
    let line = lines.next()?.as_bytes();
    if lines.next().is_some() {
        return None;
    }
    let (scheme, token) = line.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then(|| token.trim_ascii_start())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        lines.iter().map(|line| (header::AUTHORIZATION, HeaderValue::from_str(line).unwrap())).collect()
    }

    #[test]
    fn a_token_opens_its_own_scope_and_no_other() {
        let both = Authorization { data: Some(Token::new("data")), admin: Some(Token::new("admin")) };
        let opens = |path: &str, line: &str| both.check(path, &headers(&[line])).is_ok();
        for path in ["/get", "/set", "/del"] {
            assert!(opens(path, "Bearer data") && !opens(path, "Bearer admin"), "{path}");
        }
        for path in ["/stats", "/cluster", "/member", "/trace/keep", "/not/there", "/get/", "/%67et", ""] {
            assert!(opens(path, "Bearer admin") && !opens(path, "Bearer data"), "{path}");
        }
        for path in ["/ready", "/metrics", "/kill", "/fault"] {
            assert!(both.check(path, &HeaderMap::new()).is_ok(), "{path}");
        }
        let refusal = format!("{:?}", both.check("/get", &HeaderMap::new()).unwrap_err());
        assert!(
            refusal.contains("401") && refusal.contains("HTTP_TOKEN") && !refusal.contains("\"data\""),
            "{refusal}"
        );
    }

    #[test]
    fn a_scope_without_a_token_is_open() {
        let admin = Authorization { data: None, admin: Some(Token::new("admin")) };
        assert!(admin.check("/get", &HeaderMap::new()).is_ok() && admin.check("/stats", &HeaderMap::new()).is_err());
        let none = Authorization { data: None, admin: None };
        assert!(none.check("/stats", &headers(&["Bearer x"])).is_ok());
    }

    #[test]
    fn one_header_of_the_scheme_is_a_token() {
        for good in ["Bearer t", "bearer t", "BEARER  t"] {
            assert_eq!(bearer(&headers(&[good])), Some(&b"t"[..]), "{good}");
        }
        for bad in [&[][..], &["t"], &["Basic t"], &["Bearer"], &["Bearert"], &["Bearer t", "Bearer t"]] {
            assert_eq!(bearer(&headers(bad)), None, "{bad:?}");
        }
    }
}
