//! The bounds of a listener, so that no client can take the memory of the others: the bytes of
//! messages that aren't complete or not processed, and the time for one.
//!
//! | file | purpose |
//! | --- | --- |
//! | `budget.rs` | the bytes of a listener's messages, and who gives some up |
//! | `body.rs` | [`BoundedBody`]: a request's body within them |
//! | `layer.rs` | [`DoorLayer`]: applies them to a service |

mod body;
mod budget;
mod layer;

pub use body::BoundedBody;
pub use layer::DoorLayer;
