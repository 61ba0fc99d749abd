//! The agent's `/metrics`.
//!
//! | file | purpose |
//! | --- | --- |
//! | `definitions.rs` | the metrics of the pipeline |
//! | `collectors.rs` | the metrics of the collectors' own counters |
//! | `export.rs` | renders the page from a [`super::Status`] |

mod collectors;
mod definitions;
mod export;

pub(super) use export::page;
