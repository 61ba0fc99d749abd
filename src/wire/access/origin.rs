//! The headers `Host` and `Origin`. A page of another site can have its own name point to a
//! loopback address and then read what a listener there answers (DNS rebinding); the browser sends
//! the name all the same.

use std::net::IpAddr;

use http::HeaderMap;
use http::header::{HOST, ORIGIN};
use http::uri::Authority;

use super::listen::{ListenAddress, is_loopback};

/// The names that requests may be for.
#[derive(Clone, Debug)]
pub(super) struct Origins {
    /// Configured names, in lower case.
    hosts: Vec<String>,
    /// Whether other names and addresses than loopback ones are refused.
    is_local: bool,
}

impl Origins {
    pub(super) fn new(address: &ListenAddress, hosts: &[String]) -> Self {
        let hosts = hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
        Self { hosts, is_local: !address.is_exposed() }
    }

    /// Checks the headers of a request. `authority`: that of its URI.
    ///
    /// # Errors
    /// The cause of a refusal.
    pub(super) fn check(&self, headers: &HeaderMap, authority: Option<&str>) -> Result<(), String> {
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        let named = text(HOST).into_iter().chain(authority);
        for host in named {
            if !self.admits(host) {
                return Err(format!(
                    "host {host:?} isn't a name of this listener: use localhost or a loopback \
                     address, or add it to `hosts`"
                ));
            }
        }
        // A page of the same site has the name it was loaded by.
        let Some(origin) = text(ORIGIN) else { return Ok(()) };
        let host = origin.split_once("://").map_or(origin, |(_, host)| host);
        let is_same = text(HOST).is_some_and(|own| own.eq_ignore_ascii_case(host));
        match is_same || self.is_configured(host) {
            true => Ok(()),
            false => Err(format!("requests of pages of {origin:?} aren't allowed")),
        }
    }

    fn is_configured(&self, host: &str) -> bool {
        name_of(host).is_some_and(|name| self.hosts.contains(&name))
    }

    fn admits(&self, host: &str) -> bool {
        if !self.is_local && self.hosts.is_empty() {
            return true;
        }
        let Some(name) = name_of(host) else { return false };
        match name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(address) => is_loopback(address) || !self.is_local || self.hosts.contains(&name),
            Err(_) => name == "localhost" || self.hosts.contains(&name),
        }
    }
}

/// The name in `name:port`, in lower case.
fn name_of(host: &str) -> Option<String> {
    let authority: Authority = host.parse().ok()?;
    let is_plain = !authority.as_str().contains('@');
    is_plain.then(|| authority.host().trim_end_matches('.').to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(host: &str, origin: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().unwrap());
        }
        headers
    }

    #[test]
    fn loopback_listener_takes_its_own_names_only() {
        let address = "127.0.0.1:7601".parse().unwrap();
        let origins = Origins::new(&address, &["Tapio.internal".into()]);
        let check = |host, origin| origins.check(&headers(host, origin), None).is_ok();
        for host in [
            "localhost:7601",
            "LOCALHOST",
            "127.0.0.1:7601",
            "127.9.9.9",
            "[::1]:7601",
            "tapio.internal:7601",
        ] {
            assert!(check(host, None), "{host}");
        }
        for host in [
            "attacker.example:7601",
            "localhost.attacker.example",
            "127.0.0.1.nip.io",
            "10.0.0.1",
            "[2001:db8::1]:7601",
            "localhost@attacker.example",
            "",
        ] {
            assert!(!check(host, None), "{host}");
        }
        assert!(origins.check(&headers("localhost", None), Some("attacker.example")).is_err());
        assert!(check("localhost:7601", Some("http://localhost:7601")));
        assert!(check("localhost:7601", Some("https://tapio.internal")));
        for origin in ["http://attacker.example", "null", "http://localhost:8080"] {
            assert!(!check("localhost:7601", Some(origin)), "{origin}");
        }
        assert!(origins.check(&HeaderMap::new(), None).is_ok(), "HTTP/1.0 needs no host");
    }

    #[test]
    fn exposed_listener_takes_every_name_unless_some_are_configured() {
        let address = "0.0.0.0:7601".parse().unwrap();
        let any = Origins::new(&address, &[]);
        assert!(any.check(&headers("tapio.example:7601", None), None).is_ok());
        assert!(any.check(&headers("a.example", Some("http://b.example")), None).is_err());
        let named = Origins::new(&address, &["tapio.example".into()]);
        assert!(named.check(&headers("tapio.example:7601", None), None).is_ok());
        assert!(named.check(&headers("10.0.0.1:7601", None), None).is_ok(), "a probe");
        assert!(named.check(&headers("attacker.example", None), None).is_err());
    }
}
