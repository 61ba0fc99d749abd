//! Whether a request is allowed.

use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::config::AccessConfig;
use super::counts::{AccessCounts, Refused};
use super::identity::{Identity, PeerInfo};
use super::listen::ListenAddress;
use super::origin::Origins;
use super::right::{Right, Rights};
use super::tokens::TokenFile;
use crate::tls::{ServerTls, TlsError};

/// Why a request isn't allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// The kind.
    pub refused: Refused,
    /// The cause, for the client.
    pub cause: String,
}

/// Access to a listener.
pub struct Access {
    /// The listener, for the log.
    listener: String,
    rights: Rights,
    is_authenticated: bool,
    tls: Option<ServerTls>,
    tokens: Option<TokenFile>,
    readers: Vec<String>,
    uids: Vec<u32>,
    /// On HTTP, names that requests may be for.
    origins: Option<Origins>,
    counts: AccessCounts,
}

impl Access {
    /// Access to a listener of gRPC.
    ///
    /// # Errors
    /// With the file that can't be used.
    pub fn grpc(
        listener: &str,
        config: &AccessConfig,
        rights: Rights,
    ) -> Result<Arc<Self>, TlsError> {
        Self::new(listener, config, rights, "h2", None)
    }

    /// Access to a listener of HTTP.
    ///
    /// # Errors
    /// With the file that can't be used.
    pub fn http(
        listener: &str,
        address: &ListenAddress,
        config: &AccessConfig,
        rights: Rights,
    ) -> Result<Arc<Self>, TlsError> {
        let origins = Origins::new(address, &config.hosts);
        Self::new(listener, config, rights, "http/1.1", Some(origins))
    }

    fn new(
        listener: &str,
        config: &AccessConfig,
        rights: Rights,
        protocol: &str,
        origins: Option<Origins>,
    ) -> Result<Arc<Self>, TlsError> {
        let needs_certificate = config.token_file.is_none();
        let tls = config.tls.as_ref();
        let tls = tls.map(|tls| ServerTls::new(tls, &[protocol], needs_certificate)).transpose()?;
        let own = rustix::process::geteuid().as_raw();
        Ok(Arc::new(Self {
            listener: listener.to_owned(),
            rights,
            is_authenticated: config.authenticates(),
            tls,
            tokens: config.token_file.as_deref().map(TokenFile::new).transpose()?,
            readers: config.readers.clone(),
            uids: [0, own].into_iter().chain(config.allow_uids.iter().copied()).collect(),
            origins,
            counts: AccessCounts::default(),
        }))
    }

    /// TLS of the listener.
    pub(crate) fn tls(&self) -> Option<&ServerTls> {
        self.tls.as_ref()
    }

    /// The listener, for the log.
    pub(crate) fn listener(&self) -> &str {
        &self.listener
    }

    /// Counters of the refusals.
    #[must_use]
    pub fn counts(&self) -> &AccessCounts {
        &self.counts
    }

    /// How often changed files couldn't be used.
    #[must_use]
    pub fn reload_failures(&self) -> u64 {
        self.tls.as_ref().map_or(0, ServerTls::failures)
            + self.tokens.as_ref().map_or(0, TokenFile::failures)
    }

    /// Whether a user may connect to a unix socket. Counts a refusal.
    pub(crate) fn admits_user(&self, uid: Option<u32>) -> bool {
        let is_admitted = uid.is_some_and(|uid| self.uids.contains(&uid));
        if !is_admitted {
            let cause = format!("user {uid:?} isn't in allow_uids");
            self.counts.request(&self.listener, Refused::User, &cause);
        }
        is_admitted
    }

    /// Checks a request. Returns who sends it, where clients authenticate themselves. Counts a
    /// refusal.
    ///
    /// # Errors
    /// When it isn't allowed.
    pub fn check(
        &self,
        path: &str,
        headers: &HeaderMap,
        authority: Option<&str>,
        peer: &PeerInfo,
    ) -> Result<Option<Arc<Identity>>, Denied> {
        let outcome = self.outcome(path, headers, authority, peer);
        if let Err(denied) = &outcome {
            let from = peer.address.map_or_else(String::new, |address| address.to_string());
            let cause = format!("{from}: {}", denied.cause);
            self.counts.request(&self.listener, denied.refused, &cause);
        }
        outcome
    }

    fn outcome(
        &self,
        path: &str,
        headers: &HeaderMap,
        authority: Option<&str>,
        peer: &PeerInfo,
    ) -> Result<Option<Arc<Identity>>, Denied> {
        if let Some(origins) = &self.origins {
            let denied = |cause| Denied { refused: Refused::Host, cause };
            origins.check(headers, authority).map_err(denied)?;
        }
        let Some(right) = (self.rights)(path) else { return Ok(None) };
        if !self.is_authenticated {
            return Ok(None);
        }
        let identities = [self.of_certificate(peer), self.of_token(headers)?];
        let identities: Vec<_> = identities.into_iter().flatten().collect();
        if let Some(identity) = identities.iter().find(|identity| identity.may(right)) {
            return Ok(Some(Arc::clone(identity)));
        }
        // The system has checked who is at the other end of a unix socket.
        if peer.uid.is_some() && identities.is_empty() {
            return Ok(None);
        }
        let text = match right {
            Right::Read => "read",
            Right::Write => "write",
        };
        Err(match identities.first() {
            Some(identity) => Denied {
                refused: Refused::Forbidden,
                cause: format!("{identity} has no right to {text}"),
            },
            None => Denied {
                refused: Refused::Unauthenticated,
                cause: "needs a client certificate or `authorization: Bearer TOKEN`".into(),
            },
        })
    }

    fn of_certificate(&self, peer: &PeerInfo) -> Option<Arc<Identity>> {
        let names = peer.certificate.get().filter(|names| !names.is_empty())?;
        Some(Arc::new(Identity::of_certificate(names.clone(), &self.readers)))
    }

    fn of_token(&self, headers: &HeaderMap) -> Result<Option<Arc<Identity>>, Denied> {
        let (Some(tokens), Some(value)) = (&self.tokens, headers.get(AUTHORIZATION)) else {
            return Ok(None);
        };
        let token = value.as_bytes().split_at_checked("bearer ".len());
        let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "));
        let identity = token.and_then(|(_, token)| tokens.find(token.trim_ascii()));
        identity.map(Some).ok_or_else(|| Denied {
            refused: Refused::Unauthenticated,
            cause: "the token isn't valid".into(),
        })
    }
}
