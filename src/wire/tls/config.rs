//! The sections `tls` of the configuration.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// TLS of a listener. Paths that aren't absolute are below `$CREDENTIALS_DIRECTORY`, if that is
/// set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsServerConfig {
    /// The certificate and those between it and its authority, in PEM.
    pub cert: PathBuf,
    /// Its private key, in PEM; not readable by others.
    pub key: PathBuf,
    /// The authorities of clients' certificates, in PEM. Without it, clients need no certificate.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
}

/// TLS of a client. Paths that aren't absolute are below `$CREDENTIALS_DIRECTORY`, if that is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TlsClientConfig {
    /// The authorities of the server's certificate, in PEM; by default those of the system.
    pub ca: Option<PathBuf>,
    /// The client's certificate and those between it and its authority, in PEM.
    pub cert: Option<PathBuf>,
    /// Its private key, in PEM; not readable by others.
    pub key: Option<PathBuf>,
    /// The name that the server's certificate has to have; by default the host of the endpoint.
    pub server_name: Option<String>,
}

impl TlsClientConfig {
    /// Validates the values.
    ///
    /// # Errors
    /// The key of an invalid value, and why it is invalid.
    pub fn check(&self) -> Result<(), String> {
        match (&self.cert, &self.key) {
            (Some(_), None) => Err("key: missing, with cert".into()),
            (None, Some(_)) => Err("cert: missing, with key".into()),
            _ => Ok(()),
        }
    }
}
