//! Builds events: fields, entity keys, and filters.
//!
//! | file | purpose |
//! | --- | --- |
//! | `event_builder.rs` | builds one event at a time |
//! | `enrich.rs` | entity keys of pods and containers |
//! | `filter.rs` | [`Filter`]: selects names by glob patterns |
//! | `otlp/` | events from OTLP |
//! | `signals.rs` | names of signals |

pub(crate) mod enrich;
pub(crate) mod event_builder;
mod filter;
pub mod otlp;
pub(crate) mod signals;

pub use filter::Filter;
