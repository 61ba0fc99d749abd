//! Collector `systemd`: lifecycle events of the node's units, from the service manager's signals
//! on the system bus (org.freedesktop.systemd1(5)).
//!
//! | file | purpose |
//! | --- | --- |
//! | `collector.rs` | configuration and one run |
//! | `session.rs` | connections, one after the other: signals, requests, cursor |
//! | `bus.rs` | one connection: every call has a timeout |
//! | `properties.rs` | properties from the bus into a snapshot |
//! | `unit.rs` | transitions of a unit, derived from its snapshots; pure |
//! | `unit_table.rs` | all units and jobs: signals and replies in, changes and requests out |
//! | `to_event.rs` | changes as events |
//!
//! A run begins with a snapshot of all units, and so does each connection after the first. Changes
//! in between are emitted once, with systemd's own timestamps; a state that already held is not.
//! The cursor is the monotonic time of the latest change emitted. Ids derive from the unit's
//! invocation and the timestamp, so a transition that is emitted again has the same id.

mod bus;
mod collector;
mod properties;
mod session;
mod to_event;
mod unit;
mod unit_table;

pub use collector::Config;
