//! Removes secrets from texts: command lines, URLs, headers, values by the names they have, and
//! values that are secrets by their shape. docs/redaction.md lists the forms.
//!
//! | file | purpose |
//! | --- | --- |
//! | `redactor.rs` | the search of a text |
//! | `triggers.rs` | one search that ordinary text passes |
//! | `names.rs` | names whose values are secrets |
//! | `pairs.rs`, `value.rs` | names with their values in text, and where a value ends |
//! | `shapes.rs` | keys and tokens of known shape, JSON web tokens, PEM |
//! | `urls.rs` | passwords in URLs and data source names |
//! | `command.rs` | options of well-known programs |
//! | `json.rs` | JSON values |
//! | `event.rs` | events |
//! | `log.rs` | a writer for logs |
//! | `config.rs`, `patterns.rs` | the configuration section `redact` |
//!
//! A redacted text is redacted again until nothing is found, so redacting twice changes nothing.

mod command;
mod config;
mod event;
mod json;
mod log;
mod names;
mod pairs;
mod patterns;
mod redactor;
mod shapes;
mod span;
mod triggers;
mod urls;
mod value;

pub use config::RedactConfig;
pub use log::RedactingWriter;
pub use redactor::{RedactError, Redactor};
pub use value::REDACTED;

#[cfg(test)]
mod tests;
