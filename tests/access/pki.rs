//! Authorities, and their certificates.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType, date_time_ymd,
};
use tapio_wire::{ClientAccess, TlsClientConfig};

/// An authority of certificates, whose files are in a folder.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The begin of its files' paths.
    files: PathBuf,
    /// Its certificate.
    pub(crate) ca: PathBuf,
}

/// Writes a file that only its owner can read.
pub(crate) fn secret(path: &Path, text: &str) {
    // Replaced as a whole, as those who renew certificates do.
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::rename(&new, path).unwrap();
}

impl Authority {
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let ca = folder.join(format!("{name}.pem"));
        std::fs::write(&ca, params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), files: folder.join(name), ca }
    }

    fn issue(&self, name: &str, params: &CertificateParams) -> [PathBuf; 2] {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = [".cert.pem", ".key.pem"]
            .map(|end| PathBuf::from(format!("{}-{name}{end}", self.files.display())));
        secret(&files[1], &key.serialize_pem());
        secret(&files[0], &certificate.pem());
        files
    }

    /// A certificate of a server on this machine; returns the section `tls` without its braces.
    pub(crate) fn server(&self) -> String {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let [cert, key] = self.issue("server", &CertificateParams::new(names).unwrap());
        format!("cert: {}, key: {}", cert.display(), key.display())
    }

    /// The section `tls` of a server that asks clients for certificates of this authority.
    pub(crate) fn mutual(&self) -> String {
        format!("{}, client_ca: {}", self.server(), self.ca.display())
    }

    /// A client of this authority that has a certificate with the name of a node.
    pub(crate) fn node(&self, node: &str) -> ClientAccess {
        let mut params = CertificateParams::default();
        let uri = format!("tapio:node/{node}");
        params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into().unwrap())];
        self.client(node, &params)
    }

    /// A client whose certificate has expired.
    pub(crate) fn expired(&self, node: &str) -> ClientAccess {
        let mut params = CertificateParams::new([node.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        self.client(&format!("expired-{node}"), &params)
    }

    fn client(&self, name: &str, params: &CertificateParams) -> ClientAccess {
        let [cert, key] = self.issue(name, params);
        let tls = TlsClientConfig {
            ca: Some(self.ca.clone()),
            cert: Some(cert),
            key: Some(key),
            server_name: None,
        };
        ClientAccess { tls: Some(tls), token_file: None }
    }

    /// A client without a certificate.
    pub(crate) fn nobody(&self) -> ClientAccess {
        let tls = TlsClientConfig { ca: Some(self.ca.clone()), ..TlsClientConfig::default() };
        ClientAccess { tls: Some(tls), token_file: None }
    }
}
