//! TLS of listeners and clients, by rustls: TLS 1.2 and 1.3. Certificates are looked at before each
//! handshake, so that new ones are used without a restart.
//!
//! | file | purpose |
//! | --- | --- |
//! | `config.rs` | [`TlsServerConfig`], [`TlsClientConfig`]: the sections `tls` |
//! | `error.rs` | [`TlsError`]: why files can't be used; why a handshake fails |
//! | `files.rs` | certificates, keys and tokens on disk, and whether they have changed |
//! | `names.rs` | the names in a certificate |
//! | `reloaded.rs` | a value read from files, read again when they change |
//! | `server.rs` | [`ServerTls`]: TLS of a listener |
//! | `client.rs` | [`ClientTls`]: TLS of a client |

mod client;
mod config;
mod error;
mod files;
mod names;
mod reloaded;
mod server;

pub use client::ClientTls;
pub use config::{TlsClientConfig, TlsServerConfig};
pub use error::TlsError;
pub(crate) use error::handshake_error;
pub(crate) use files::{expiry_warning, resolve, secret_text};
pub(crate) use names::certificate_names;
pub(crate) use reloaded::{Reloaded, is_due};
pub use server::ServerTls;
