//! The configuration as operators see it: its schema, its keys with their defaults, the values in
//! force, and how two configurations differ.
//!
//! | file | purpose |
//! | --- | --- |
//! | `schema.rs` | the JSON Schema, for editors |
//! | `keys.rs` | [`Key`]: every key with type, default and meaning |
//! | `reloaded.rs` | the keys that a reload takes: the only list of them |
//! | `defaults.rs` | every key with its default, as a commented file |
//! | `shown.rs` | the values in force, without secrets |
//! | `changes.rs` | [`Change`]: how two configurations differ |
//! | `yaml.rs` | values as YAML text |

mod changes;
mod defaults;
mod keys;
mod reloaded;
mod schema;
mod shown;
mod yaml;

pub use changes::Change;
pub use keys::Key;
pub use yaml::yaml_text;
