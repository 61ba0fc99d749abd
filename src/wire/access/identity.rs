//! The sender of a request.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use rustls::pki_types::CertificateDer;

use super::right::Right;

/// A sender that has authenticated itself, by a certificate or a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The names; `None`: any node.
    names: Option<Vec<String>>,
    can_read: bool,
    can_write: bool,
    can_operate: bool,
}

impl Identity {
    pub(super) fn of_token(names: Option<Vec<String>>, right: Right) -> Self {
        let can_operate = right == Right::Operate;
        let can_read = can_operate || right == Right::Read;
        Self { names, can_read, can_write: right == Right::Write, can_operate }
    }

    /// The holder of a certificate with these names may write as a node of its name.
    pub(super) fn of_certificate(
        names: Vec<String>,
        readers: &[String],
        operators: &[String],
    ) -> Self {
        let is_one_of = |list: &[String]| names.iter().any(|name| list.contains(name));
        let can_operate = is_one_of(operators);
        let can_read = can_operate || is_one_of(readers);
        Self { can_read, can_write: !names.is_empty(), can_operate, names: Some(names) }
    }

    /// Whether it has a right.
    #[must_use]
    pub fn may(&self, right: Right) -> bool {
        match right {
            Right::Read => self.can_read,
            Right::Write => self.can_write,
            Right::Operate => self.can_operate,
        }
    }

    /// Whether it is this node.
    #[must_use]
    pub fn is_node(&self, node: &str) -> bool {
        self.names.as_ref().is_none_or(|names| names.iter().any(|name| name == node))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.names {
            None => f.write_str("any node"),
            Some(names) => f.write_str(&names.join(", ")),
        }
    }
}

/// A connection's client, in the extensions of each of its requests.
#[derive(Clone, Debug, Default)]
pub struct PeerInfo {
    /// The address; `None` for a unix socket.
    pub address: Option<SocketAddr>,
    /// The user of a unix socket's client.
    pub uid: Option<u32>,
    /// Its certificate, once the handshake has verified it.
    pub(crate) certificate: Arc<OnceLock<PeerCertificate>>,
}

/// The certificate of a connection's client.
#[derive(Debug)]
pub(crate) struct PeerCertificate {
    /// The names in it.
    pub(crate) names: Vec<String>,
    /// The certificate, then those of intermediate authorities.
    pub(crate) chain: Vec<CertificateDer<'static>>,
}

/// The sender of a request, as a handler needs it.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// The address; `None` for a unix socket.
    pub address: Option<SocketAddr>,
    /// Its identity; `None` where clients don't authenticate themselves.
    pub identity: Option<Arc<Identity>>,
}

impl Caller {
    /// The sender of a request with these extensions.
    #[must_use]
    pub fn of(extensions: &http::Extensions) -> Self {
        Self {
            address: extensions.get::<PeerInfo>().and_then(|peer| peer.address),
            identity: extensions.get::<Arc<Identity>>().cloned(),
        }
    }

    /// Why it may not send a batch of this node; `None` if it may.
    #[must_use]
    pub fn denial(&self, node: &str) -> Option<String> {
        let identity = self.identity.as_ref().filter(|identity| !identity.is_node(node))?;
        Some(format!("the batch is of node {node:?}, its sender is {identity}"))
    }
}
