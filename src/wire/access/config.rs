//! Access, as the section of a listener configures it.

use std::path::PathBuf;

use super::listen::ListenAddress;
use super::tokens::TokenFile;
use crate::tls::{ServerTls, TlsServerConfig, expiry_warning};

/// Access, as the section of a listener configures it. The sections have these keys themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessConfig {
    /// TLS.
    pub tls: Option<TlsServerConfig>,
    /// The file of tokens.
    pub token_file: Option<PathBuf>,
    /// Names of certificates that may read.
    pub readers: Vec<String>,
    /// Names of certificates that may read, annotate and silence.
    pub operators: Vec<String>,
    /// Names that the `Host` header may have, besides loopback ones and addresses.
    pub hosts: Vec<String>,
    /// Users that may connect to a unix socket, besides root and the own one.
    pub allow_uids: Vec<u32>,
    /// Whether an address beyond loopback may do without TLS and authentication.
    pub insecure: bool,
}

impl AccessConfig {
    /// Whether clients have to authenticate themselves.
    #[must_use]
    pub fn authenticates(&self) -> bool {
        self.token_file.is_some() || self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some())
    }

    /// Validates the values for the listeners of a section, by the key of their address.
    ///
    /// # Errors
    /// The key of an invalid value, and why it is invalid.
    pub fn check(&self, listeners: &[(&str, &ListenAddress)]) -> Result<(), String> {
        let has_certificates = self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        for (key, names) in [("readers", &self.readers), ("operators", &self.operators)] {
            if !names.is_empty() && !has_certificates {
                return Err(format!("{key}: are names of certificates: needs tls.client_ca"));
            }
        }
        for (key, address) in listeners {
            let is_secure = self.tls.is_some() && self.authenticates();
            if address.is_exposed() && !is_secure && !self.insecure {
                return Err(format!(
                    "{key}: {address} is reachable from other machines: set tls, and \
                     tls.client_ca or token_file; or insecure: true"
                ));
            }
        }
        Ok(())
    }

    /// Opens the files, as a start does. Returns warnings, by key, about those that can be used
    /// but won't serve. `now`: the time as `YYYYMMDDHHMMSS` in UTC.
    ///
    /// # Errors
    /// The key, the file that can't be used, and why.
    pub fn check_files(&self, now: &str) -> Result<Vec<String>, String> {
        if let Some(path) = &self.token_file {
            TokenFile::new(path).map_err(|e| format!("token_file: {e}"))?;
        }
        let Some(tls) = &self.tls else { return Ok(Vec::new()) };
        ServerTls::new(tls, &[], self.token_file.is_none()).map_err(|e| format!("tls: {e}"))?;
        let expired = expiry_warning(&tls.cert, now).map_err(|e| format!("tls.cert: {e}"))?;
        Ok(expired.map(|warning| format!("tls.cert: {warning}")).into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_beyond_loopback_need_tls_and_authentication() {
        let tls = |client_ca: Option<&str>| TlsServerConfig {
            cert: "c".into(),
            key: "k".into(),
            client_ca: client_ca.map(PathBuf::from),
        };
        let none = AccessConfig::default();
        let secure = AccessConfig { tls: Some(tls(Some("ca"))), ..AccessConfig::default() };
        let only_tls = AccessConfig { tls: Some(tls(None)), ..AccessConfig::default() };
        let only_tokens = AccessConfig { token_file: Some("t".into()), ..AccessConfig::default() };
        let both = AccessConfig { token_file: Some("t".into()), ..only_tls.clone() };
        let insecure = AccessConfig { insecure: true, ..AccessConfig::default() };
        for address in ["0.0.0.0:1", "[::]:1", "10.1.2.3:1", "[2001:db8::1]:1"] {
            let address: ListenAddress = address.parse().unwrap();
            let check = |config: &AccessConfig| config.check(&[("listen", &address)]);
            for config in [&none, &only_tls, &only_tokens] {
                let error = check(config).unwrap_err();
                assert!(error.starts_with("listen: ") && error.contains("insecure"), "{error}");
            }
            for config in [&secure, &both, &insecure] {
                assert_eq!(check(config), Ok(()));
            }
        }
        for address in ["127.0.0.1:1", "127.3.2.1:1", "[::1]:1", "unix:/run/x.sock"] {
            assert_eq!(none.check(&[("listen", &address.parse().unwrap())]), Ok(()));
        }
        let readers = AccessConfig { readers: vec!["r".into()], ..only_tokens };
        assert!(readers.check(&[]).unwrap_err().starts_with("readers: "));
    }
}
