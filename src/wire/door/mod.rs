//! The bounds of a listener, so that no client can take the memory and the descriptors of the
//! others: connections, the bytes of messages that aren't complete or not processed, and the time
//! for one.
//!
//! | file | purpose |
//! | --- | --- |
//! | `budget.rs` | the bytes of a listener's messages, and who gives some up |
//! | `body.rs` | [`BoundedBody`]: a request's body within them |
//! | `connection.rs` | the state of a connection |
//! | `connections.rs` | [`DoorListener`]: bounded connections |
//! | `socket.rs` | a connection's socket, and until when it has to say something |
//! | `stream.rs` | [`DoorStream`]: the connection, with TLS where the listener has it |
//! | `refusal.rs` | what a client is answered whose handshake fails |
//! | `layer.rs` | [`DoorLayer`]: applies them to a service |

mod body;
mod budget;
mod connection;
mod connections;
mod layer;
mod refusal;
mod socket;
mod stream;

pub use body::BoundedBody;
pub use connections::DoorListener;
pub use layer::DoorLayer;
pub use stream::DoorStream;
