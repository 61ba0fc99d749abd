//! Access to a listener: addresses, tokens, identities and rights.
//!
//! | file | purpose |
//! | --- | --- |
//! | `config.rs` | [`AccessConfig`]: what the section of a listener says about it |
//! | `listen.rs` | [`ListenAddress`]: TCP or a unix socket |
//! | `socket.rs` | [`Listening`]: the bound socket |
//! | `tokens.rs` | the file of tokens |
//! | `identity.rs` | [`Identity`], [`Caller`]: who sends a request |
//! | `right.rs` | [`Right`]: to read, to write |
//! | `rights.rs` | [`Access`]: whether a request is allowed |
//! | `origin.rs` | the headers `Host` and `Origin` |
//! | `layer.rs` | [`AccessLayer`]: applies it to a service |
//! | `revocation.rs` | [`WatchedBody`]: ends streams whose identity isn't accepted any more |
//! | `http.rs` | applies it to listeners of HTTP |
//! | `counts.rs` | [`AccessCounts`]: what was refused |

mod config;
mod counts;
mod http;
mod identity;
mod layer;
mod listen;
mod origin;
mod revocation;
mod right;
mod rights;
mod socket;
mod tokens;

pub use config::AccessConfig;
pub use counts::{AccessCounts, HandshakeFailure, Refused};
pub(crate) use identity::PeerCertificate;
pub use identity::{Caller, Identity, PeerInfo};
pub use layer::AccessLayer;
pub use listen::ListenAddress;
pub use revocation::WatchedBody;
pub use right::{Right, Rights};
pub use rights::{Access, Denied};
pub use socket::{Listening, bind};
