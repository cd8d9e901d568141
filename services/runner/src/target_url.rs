//! One of TARGETS: which driver loads it, where it is, and how to log in there.

use std::{fmt, str::FromStr};

use percent_encoding::percent_decode_str;

/// Which driver loads a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// A node of the mesh.
    Http,
    /// A node of the mesh, over TLS.
    Https,
    /// Redis, or a node of a Redis Cluster.
    Redis,
    Memcached,
}

impl Scheme {
    const ALL: [Self; 4] = [Self::Http, Self::Https, Self::Redis, Self::Memcached];

    /// As URLs begin.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Redis => "redis",
            Self::Memcached => "memcached",
        }
    }

    /// Whether it is one of the mesh's own.
    pub(crate) const fn is_node(self) -> bool {
        matches!(self, Self::Http | Self::Https)
    }
}

/// User and password; neither is ever shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Login {
    /// Empty for the server's default user.
    pub(crate) user: String,
    pub(crate) password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(***)")
    }
}

/// `scheme://host:port`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TargetUrl {
    pub(crate) scheme: Scheme,
    /// `host:port`.
    pub(crate) authority: String,
    pub(crate) login: Option<Login>,
}

impl TargetUrl {
    /// A node of the mesh.
    pub(crate) fn new(authority: &str) -> Self {
        Self::of(Scheme::Http, authority)
    }

    /// A target without a login.
    pub(crate) fn of(scheme: Scheme, authority: &str) -> Self {
        Self { scheme, authority: authority.to_owned(), login: None }
    }

    pub(crate) fn host(&self) -> &str {
        self.server().0
    }

    /// Host and port.
    pub(crate) fn server(&self) -> (&str, u16) {
        let (host, port) = self.authority.rsplit_once(':').unwrap_or((&self.authority, ""));
        (host, port.parse().unwrap_or(80))
    }

    /// As it is shown, and asked if it is a node: without user and password.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme.name(), self.authority)
    }
}

impl FromStr for TargetUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || {
            "expected http://host:port or https://host:port, comma-separated, or redis://host:port or memcached://host:port for all"
                .to_owned()
        };
        let (scheme, rest) = text.trim().split_once("://").ok_or_else(expected)?;
        let scheme = Scheme::ALL.into_iter().find(|known| known.name() == scheme).ok_or_else(expected)?;
        let rest = rest.trim_end_matches('/');
        let (login, authority) = match rest.rsplit_once('@') {
            Some((login, authority)) => (Some(login_of(scheme, login)?), authority),
            None => (None, rest),
        };
        let port = authority.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse());
        let is_valid = matches!(port, Some(Ok(1_u16..))) && !authority.contains(['/', '?', '#', '@', ' ']);
        if is_valid { Ok(Self { scheme, authority: authority.to_owned(), login }) } else { Err(expected()) }
    }
}

/// `user:password` or `:password`, percent-encoded.
fn login_of(scheme: Scheme, text: &str) -> Result<Login, String> {
    if scheme != Scheme::Redis {
        return Err("expected no user and password: only redis:// targets take them".to_owned());
    }
    let decoded = |text| percent_decode_str(text).decode_utf8().ok().map(String::from);
    let login = text.split_once(':').and_then(|(user, password)| {
        Some(Login { user: decoded(user)?, password: decoded(password).filter(|password| !password.is_empty())? })
    });
    login.ok_or_else(|| {
        "expected redis://user:password@host:port, where user may be empty; or no user, and TARGET_PASSWORD".to_owned()
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_read_and_never_shown() {
        let url: TargetUrl = "redis://me:s%40cret@host:6379".parse().unwrap();
        let login = url.login.clone().unwrap();
        assert_eq!((login.user.as_str(), login.password.as_str()), ("me", "s@cret"));
        assert_eq!((url.url().as_str(), url.host()), ("redis://host:6379", "host"));
        assert!(!format!("{url:?}").contains("cret"), "{url:?}");
        let login = "redis://:only@host:6379/".parse::<TargetUrl>().unwrap().login.unwrap();
        assert_eq!((login.user.as_str(), login.password.as_str()), ("", "only"));
        for (bad, expected) in [
            ("http://a:b@host:1", "only redis://"),
            ("memcached://a:b@host:1", "only redis://"),
            ("redis://me@host:1", "expected redis://user:password@host:port"),
            ("redis://me:@host:1", "expected redis://user:password@host:port"),
            ("rediss://host:1", "expected http://host:port"),
            ("redis://host", "expected http://host:port"),
        ] {
            let message = bad.parse::<TargetUrl>().unwrap_err();
            assert!(message.contains(expected), "{bad}: {message}");
        }
    }
}
