//! TLS of a listener.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ServerConfig, crypto, version};

use super::config::TlsServerConfig;
use super::error::TlsError;
use super::files::{authorities, certificates, private_key, resolve};
use super::reloaded::{Reloaded, is_due};
use tapio_core::clock;

/// TLS of a listener.
pub struct ServerTls {
    files: Reloaded<Settings>,
    looked_ns: AtomicU64,
}

/// The settings of handshakes.
struct Settings {
    config: Arc<ServerConfig>,
    /// Verifies certificates of clients, where they are asked for.
    clients: Option<Arc<dyn ClientCertVerifier>>,
}

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
            let clients = match &client_ca {
                None => None,
                Some(path) => {
                    let roots = Arc::new(authorities(path)?);
                    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                    let verifier = match needs_certificate {
                        true => verifier,
                        false => verifier.allow_unauthenticated(),
                    };
                    Some(verifier.build().map_err(|e| TlsError::new(path, e))?)
                }
            };
            let builder = match &clients {
                None => builder.with_no_client_auth(),
                Some(clients) => builder.with_client_cert_verifier(Arc::clone(clients)),
            };
            let mut config = builder
                .with_single_cert(certificates(&cert)?, private_key(&key)?)
                .map_err(|e| TlsError::new(&cert, format!("with {}: {e}", key.display())))?;
            config.alpn_protocols.clone_from(&protocols);
            Ok(Settings { config: Arc::new(config), clients })
        };
        Ok(Self { files: Reloaded::new(paths, read)?, looked_ns: AtomicU64::new(0) })
    }

    /// The configuration of the next handshake, with the files as they are now.
    pub(crate) fn look(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.files.look().config)
    }

    /// Whether a handshake would accept a client's certificates (its own, then those of
    /// intermediate authorities) with the files as they are now.
    pub(crate) fn accepts(&self, certificates: &[CertificateDer<'static>]) -> bool {
        let settings = match is_due(&self.looked_ns) {
            true => self.files.look(),
            false => self.files.current(),
        };
        let (Some(clients), [own, others @ ..]) = (&settings.clients, certificates) else {
            return false;
        };
        let now = UnixTime::since_unix_epoch(Duration::from_nanos(clock::wall_ns()));
        clients.verify_client_cert(own, others, now).is_ok()
    }

    /// How often changed files couldn't be used.
    pub(crate) fn failures(&self) -> u64 {
        self.files.failures()
    }
}
