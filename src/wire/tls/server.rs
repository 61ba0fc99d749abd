//! TLS of a listener.

use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{ServerConfig, crypto, version};

use super::config::TlsServerConfig;
use super::error::TlsError;
use super::files::{authorities, certificates, private_key, resolve};
use super::reloaded::Reloaded;

/// TLS of a listener.
pub struct ServerTls(Reloaded<ServerConfig>);

impl ServerTls {
    /// Reads the files. `protocols`: those that are negotiated (ALPN). `needs_certificate`: whether
    /// a client without a certificate is refused in the handshake.
    ///
    /// # Errors
    /// With the file that can't be used.
    pub fn new(
        config: &TlsServerConfig,
        protocols: &[&str],
        needs_certificate: bool,
    ) -> Result<Self, TlsError> {
        let TlsServerConfig { cert, key, client_ca } = config;
        let (cert, key) = (resolve(cert), resolve(key));
        let client_ca = client_ca.as_deref().map(resolve);
        let paths = [&cert, &key].into_iter().chain(&client_ca).cloned().collect();
        let protocols: Vec<Vec<u8>> = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        let read = move || {
            let provider = Arc::new(crypto::ring::default_provider());
            let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(&[&version::TLS13, &version::TLS12])
                .map_err(|e| TlsError::new(&cert, e))?;
            let builder = match &client_ca {
                None => builder.with_no_client_auth(),
                Some(path) => {
                    let roots = Arc::new(authorities(path)?);
                    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                    let verifier = match needs_certificate {
                        true => verifier,
                        false => verifier.allow_unauthenticated(),
                    };
                    let verifier = verifier.build().map_err(|e| TlsError::new(path, e))?;
                    builder.with_client_cert_verifier(verifier)
                }
            };
            let mut config = builder
                .with_single_cert(certificates(&cert)?, private_key(&key)?)
                .map_err(|e| TlsError::new(&cert, format!("with {}: {e}", key.display())))?;
            config.alpn_protocols.clone_from(&protocols);
            Ok(config)
        };
        Reloaded::new(paths, read).map(Self)
    }

    /// The configuration of the next handshake, with the files as they are now.
    pub(crate) fn look(&self) -> Arc<ServerConfig> {
        self.0.look()
    }

    /// How often changed files couldn't be used.
    pub(crate) fn failures(&self) -> u64 {
        self.0.failures()
    }
}
