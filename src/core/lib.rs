//! What every stage of tapio shares.
//!
//! | module | purpose |
//! | --- | --- |
//! | `event` | events, stories, names, identifiers, and the reasons an event can be dropped for |
//! | `identity` | the entity directory: process → container → pod → workload → service |
//! | `ring` | record rings, the wake protocol around them, and the accounts of CONS-1 |
//! | `shutdown` | event-driven shutdown, and the liveness of a collector's run |
//! | `clock` | the only place that reads a clock |
//! | `glob` | glob patterns with `*` and `?` |
//! | `durations` | durations as configuration and rules write them |
//!
//! Dependencies point one way: `clock, durations, glob ← event ← identity`, `event, shutdown ← ring`.

pub mod clock;
pub mod durations;
pub mod event;
pub mod glob;
pub mod identity;
pub mod ring;
pub mod shutdown;
