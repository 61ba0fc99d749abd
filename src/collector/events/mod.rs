//! Builds events: fields, entity keys, and which kinds are collected.
//!
//! | file | purpose |
//! | --- | --- |
//! | `event_builder.rs` | an event while its fields are put together |
//! | `enrich.rs` | the entity keys of pods, containers and units |
//! | `filter.rs` | [`Filter`]: which kinds are collected |

pub(crate) mod enrich;
pub(crate) mod event_builder;
mod filter;

pub use filter::Filter;
