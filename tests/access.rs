//! Access to the listeners: real servers and agents, with certificates of authorities that the
//! tests make, tokens, unix sockets, and senders that aren't who they say.
#![expect(clippy::unwrap_used, reason = "fixtures of tests fail as tests do")]

#[path = "access/exposed.rs"]
mod exposed;
#[path = "access/forged.rs"]
mod forged;
#[path = "access/hosts.rs"]
mod hosts;
#[path = "access/otlp.rs"]
mod otlp;
#[path = "access/pki.rs"]
mod pki;
#[path = "access/reflection.rs"]
mod reflection;
#[path = "access/reload.rs"]
mod reload;
#[path = "access/revoked.rs"]
mod revoked;
#[path = "access/sender.rs"]
mod sender;
#[path = "access/status.rs"]
mod status;
#[path = "support/mod.rs"]
mod support;
#[path = "access/tls.rs"]
mod tls;
#[path = "access/tokens.rs"]
mod tokens;
#[path = "access/unix.rs"]
mod unix;
