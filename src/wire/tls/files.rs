//! Certificates, keys and tokens on disk.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::error::TlsError;
use super::names::certificate_end;

/// The largest file that is read.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;
/// The rights of users that are neither the owner nor of the group.
const OTHERS: u32 = 0o007;

/// The path below `$CREDENTIALS_DIRECTORY` (systemd.exec(5)), unless it is absolute or that isn't
/// set.
pub(crate) fn resolve(path: &Path) -> PathBuf {
    let folder = std::env::var_os("CREDENTIALS_DIRECTORY").filter(|folder| !folder.is_empty());
    match folder {
        // An absolute path replaces the folder.
        Some(folder) => Path::new(&folder).join(path),
        None => path.to_owned(),
    }
}

/// Changes when a file is replaced or written: a link to another one, as Kubernetes replaces
/// them, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileState(Option<[i128; 6]>);

impl FileState {
    pub(super) fn of(path: &Path) -> Self {
        Self(std::fs::metadata(path).ok().map(|of| {
            let (modified, changed) =
                ((of.mtime(), of.mtime_nsec()), (of.ctime(), of.ctime_nsec()));
            let ns = |(s, ns): (i64, i64)| i128::from(s) * 1_000_000_000 + i128::from(ns);
            let (device, inode) = (i128::from(of.dev()), i128::from(of.ino()));
            [device, inode, i128::from(of.len()), i128::from(of.mode()), ns(modified), ns(changed)]
        }))
    }
}

fn read(path: &Path, is_secret: bool) -> Result<Vec<u8>, TlsError> {
    let file = File::open(path).map_err(|e| TlsError::new(path, e))?;
    let metadata = file.metadata().map_err(|e| TlsError::new(path, e))?;
    if !metadata.is_file() {
        return Err(TlsError::new(path, "not a file"));
    }
    // A secret that others could read, or write, isn't one.
    if is_secret && metadata.mode() & OTHERS != 0 {
        let mode = metadata.mode() & 0o777;
        let cause = format!("has mode {mode:04o}: others can use it; `chmod 0600` it");
        return Err(TlsError::new(path, cause));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(|e| TlsError::new(path, e))?;
    Ok(bytes)
}

/// The text of a file that only its owner and group may read.
///
/// # Errors
/// With the file, when it can't be read, others can, or it isn't text.
pub(crate) fn secret_text(path: &Path) -> Result<String, TlsError> {
    String::from_utf8(read(path, true)?).map_err(|_| TlsError::new(path, "isn't UTF-8"))
}

/// The certificates in a file.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(path, false)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|e| TlsError::new(path, e))?;
    match found.is_empty() {
        true => Err(TlsError::new(path, "has no certificate in PEM")),
        false => Ok(found),
    }
}

/// The warning about the first certificate of a file when it has expired. `now`: the time as
/// `YYYYMMDDHHMMSS` in UTC.
///
/// # Errors
/// When the file can't be read.
pub(crate) fn expiry_warning(path: &Path, now: &str) -> Result<Option<String>, TlsError> {
    let path = resolve(path);
    let end = certificates(&path)?.first().and_then(certificate_end);
    let is_past = end.as_deref().is_some_and(|end| end < now);
    Ok(is_past.then(|| format!("{}: the certificate has expired", path.display())))
}

/// The private key in a file.
pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    // The library's error has no part of the key.
    PrivateKeyDer::from_pem_slice(&read(path, true)?)
        .map_err(|_| TlsError::new(path, "has no private key in PEM"))
}

/// The authorities in a file.
pub(super) fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store.add(certificate).map_err(|e| TlsError::new(path, e))?;
    }
    Ok(store)
}
