//! Whether a request is allowed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::header::AUTHORIZATION;
use http::{HeaderMap, Method};

use super::config::AccessConfig;
use super::counts::{AccessCounts, Refused};
use super::identity::{Identity, PeerInfo};
use super::listen::ListenAddress;
use super::origin::Origins;
use super::right::Rights;
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
    operators: Vec<String>,
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
            operators: config.operators.clone(),
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
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        authority: Option<&str>,
        peer: &PeerInfo,
    ) -> Result<Option<Arc<Identity>>, Denied> {
        let outcome = self.outcome(method, path, headers, authority, peer);
        if let Err(denied) = &outcome {
            let from = peer.address.map_or_else(String::new, |address| address.to_string());
            let cause = format!("{from}: {}", denied.cause);
            self.counts.request(&self.listener, denied.refused, &cause);
        }
        outcome
    }

    fn outcome(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        authority: Option<&str>,
        peer: &PeerInfo,
    ) -> Result<Option<Arc<Identity>>, Denied> {
        if let Some(origins) = &self.origins {
            let denied = |cause| Denied { refused: Refused::Host, cause };
            origins.check(headers, authority).map_err(denied)?;
        }
        let Some(right) = (self.rights)(method, path) else { return Ok(None) };
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
        let text = right.as_str();
        Err(match identities.first() {
            Some(identity) => Denied {
                refused: Refused::Forbidden,
                cause: format!("{identity} has no right to {text}"),
            },
            None => Denied {
                refused: Refused::Unauthenticated,
                cause: "needs a client certificate or a token (the commands' --token-file, or the \
                        header Authorization)"
                    .into(),
            },
        })
    }

    fn of_certificate(&self, peer: &PeerInfo) -> Option<Arc<Identity>> {
        let names = &peer.certificate.get().filter(|of| !of.names.is_empty())?.names;
        Some(Arc::new(Identity::of_certificate(names.clone(), &self.readers, &self.operators)))
    }

    /// Whether a request that was allowed would be allowed now: its token or certificate may have
    /// been removed. Counts it as revoked otherwise.
    ///
    /// # Errors
    /// When it wouldn't.
    pub(super) fn check_again(&self, pass: &Pass) -> Result<(), Denied> {
        let is_valid = match &pass.token {
            Some(token) => self.tokens.as_ref().and_then(|tokens| tokens.find(token)).is_some_and(
                // Another identity may have got the token.
                |identity| identity == pass.identity,
            ),
            None => self.tls.as_ref().is_some_and(|tls| {
                pass.peer.certificate.get().is_some_and(|of| tls.accepts(&of.chain))
            }),
        };
        // Relaxed: the flag is about itself only. Once revoked, both directions of a stream end.
        if is_valid && !pass.is_revoked.load(Ordering::Relaxed) {
            return Ok(());
        }
        let cause = format!("{}'s token or certificate isn't accepted any more", pass.identity);
        if !pass.is_revoked.swap(true, Ordering::Relaxed) {
            let from = pass.peer.address.map_or_else(String::new, |address| address.to_string());
            self.counts.request(&self.listener, Refused::Revoked, &format!("{from}: {cause}"));
        }
        Err(Denied { refused: Refused::Revoked, cause })
    }

    /// The proof of a request that is allowed, to be checked again.
    pub(super) fn pass(
        &self,
        identity: &Arc<Identity>,
        headers: &HeaderMap,
        peer: &PeerInfo,
    ) -> Pass {
        // A certificate without the right may have come with a token that has it.
        let token = self.tokens.as_ref().and_then(|_| bearer(headers)).map(<[u8]>::to_vec);
        let is_token = token.as_deref().is_some_and(|token| {
            let found = self.tokens.as_ref().and_then(|tokens| tokens.find(token));
            found.is_some_and(|of_token| of_token == *identity)
        });
        Pass {
            identity: Arc::clone(identity),
            token: token.filter(|_| is_token),
            peer: peer.clone(),
            is_revoked: AtomicBool::new(false),
        }
    }

    fn of_token(&self, headers: &HeaderMap) -> Result<Option<Arc<Identity>>, Denied> {
        let Some(tokens) = self.tokens.as_ref().filter(|_| headers.contains_key(AUTHORIZATION))
        else {
            return Ok(None);
        };
        let identity = bearer(headers).and_then(|token| tokens.find(token));
        identity.map(Some).ok_or_else(|| Denied {
            refused: Refused::Unauthenticated,
            cause: "the token isn't valid".into(),
        })
    }
}

/// The proof of a request that was allowed.
pub(super) struct Pass {
    identity: Arc<Identity>,
    /// The token; `None`: the certificate of the peer.
    token: Option<Vec<u8>>,
    peer: PeerInfo,
    is_revoked: AtomicBool,
}

/// The token of a request.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(AUTHORIZATION)?.as_bytes().split_at_checked("bearer ".len());
    let value = value.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "));
    value.map(|(_, token)| token.trim_ascii())
}
