//! TLS of a client.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore, crypto, version};

use super::config::TlsClientConfig;
use super::error::TlsError;
use super::files::{authorities, certificates, private_key, resolve};
use super::reloaded::Reloaded;

/// TLS of a client. Clones share the files.
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<Reloaded<ClientConfig>>,
    server_name: Option<ServerName<'static>>,
}

impl ClientTls {
    /// Reads the files. `protocols`: those that are negotiated (ALPN).
    ///
    /// # Errors
    /// With the file that can't be used.
    pub fn new(config: &TlsClientConfig, protocols: &[&str]) -> Result<Self, TlsError> {
        let invalid = |cause: String| TlsError { file: "tls".into(), cause };
        config.check().map_err(invalid)?;
        let server_name = config.server_name.clone().map(ServerName::try_from).transpose();
        let server_name = server_name.map_err(|e| invalid(format!("server_name: invalid: {e}")))?;
        let [ca, cert, key] =
            [&config.ca, &config.cert, &config.key].map(|path| path.as_deref().map(resolve));
        let paths = [&ca, &cert, &key].into_iter().flatten().cloned().collect();
        let protocols: Vec<Vec<u8>> = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        let read = move || {
            let roots = ca.as_deref().map_or_else(system_authorities, authorities)?;
            let provider = Arc::new(crypto::ring::default_provider());
            let builder = ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&[&version::TLS13, &version::TLS12])
                .map_err(|e| invalid(e.to_string()))?
                .with_root_certificates(roots);
            let mut config = match (&cert, &key) {
                (Some(cert), Some(key)) => builder
                    .with_client_auth_cert(certificates(cert)?, private_key(key)?)
                    .map_err(|e| TlsError::new(cert, format!("with {}: {e}", key.display())))?,
                _ => builder.with_no_client_auth(),
            };
            config.alpn_protocols.clone_from(&protocols);
            Ok(config)
        };
        let config = Arc::new(Reloaded::new(paths, read)?);
        Ok(Self { config, server_name })
    }

    /// The configuration of the next handshake, with the files as they are now.
    pub(crate) fn look(&self) -> Arc<ClientConfig> {
        self.config.look()
    }

    /// The name that the certificate of a server at `host` has to have.
    pub(crate) fn server_name(&self, host: &str) -> Option<ServerName<'static>> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        self.server_name.clone().or_else(|| ServerName::try_from(host.to_owned()).ok())
    }
}

/// The authorities that the system trusts.
fn system_authorities() -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    match store.is_empty() {
        true => Err(TlsError {
            file: "tls".into(),
            cause: "the system has no authorities of certificates: set ca".into(),
        }),
        false => Ok(store),
    }
}
