//! Why files can't be used, and why a handshake fails.

use std::io;
use std::path::Path;

use rustls::CertificateError;

/// Why files can't be used: the file and the cause, never a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {cause}")]
pub struct TlsError {
    /// The file, or the key of the configuration.
    pub file: String,
    /// The cause.
    pub cause: String,
}

impl TlsError {
    pub(super) fn new(file: &Path, cause: impl ToString) -> Self {
        Self { file: file.display().to_string(), cause: cause.to_string() }
    }
}

/// The error of a client's handshake, with what to do about it.
pub(crate) fn handshake_error(error: io::Error) -> io::Error {
    let fault = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let remedy = match fault {
        Some(rustls::Error::InvalidMessage(_)) => {
            "it answers without TLS: use the address without https://"
        }
        Some(rustls::Error::InvalidCertificate(fault)) => certificate_remedy(fault),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "it closes the connection in the handshake: this port may have no TLS"
        }
        _ => return error,
    };
    io::Error::new(error.kind(), format!("{remedy} ({error})"))
}

fn certificate_remedy(fault: &CertificateError) -> &'static str {
    match fault {
        CertificateError::UnknownIssuer => {
            "its certificate is of an authority that isn't trusted here: tls.ca or --tls-ca names \
             the file with the authority"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "its certificate has another name: tls.server_name or --tls-server-name is the name in \
             it"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired"
        }
        CertificateError::Other(_) => {
            "its certificate can't be that of a server: a self-signed certificate of an authority \
             must sign another one for the server, and tls.ca or --tls-ca names the authority"
        }
        _ => "its certificate isn't accepted",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshake_errors_have_a_remedy_and_the_cause() {
        let text = |fault: rustls::Error| {
            handshake_error(io::Error::new(io::ErrorKind::InvalidData, fault)).to_string()
        };
        let plain = text(rustls::InvalidMessage::InvalidContentType.into());
        assert!(plain.contains("without https://") && plain.contains("InvalidContentType"));
        for (fault, expected) in [
            (CertificateError::UnknownIssuer, "--tls-ca"),
            (CertificateError::NotValidForName, "--tls-server-name"),
            (CertificateError::Expired, "has expired"),
        ] {
            let error = text(fault.into());
            assert!(error.contains(expected), "{error}");
        }
        let other = handshake_error(io::ErrorKind::ConnectionRefused.into());
        assert_eq!(other.kind(), io::ErrorKind::ConnectionRefused);
        assert!(!other.to_string().contains("certificate"));
    }
}
