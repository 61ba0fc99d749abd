//! Events, stories, names, identifiers, and the reasons for which an event can be dropped.
//!
//! | file | purpose |
//! | --- | --- |
//! | `name.rs`, `interner.rs` | interned names of kinds, sources and attribute keys; their table |
//! | `well_known_names.rs` | constants for the names that tapio itself uses (alias [`names`]) |
//! | `id.rs` | 128-bit event and trace identifiers |
//! | `severity.rs` | OpenTelemetry severity numbers |
//! | `record.rs` | [`Event`], borrowed while it is built, archived in a record |
//! | `log_block.rs` | [`LogBlock`]: log records that pass as they came |
//! | `truncate.rs` | cuts an event that is too large for a record |
//! | `view.rs` | in-place access to an archived event |
//! | `story.rs` | [`Story`]: members, root causes, impact and actions |
//! | `json.rs`, `event_json.rs`, `story_json.rs` | the JSON forms, one object per line |
//! | `incident.rs`, `incident_view.rs` | the incident that a story belongs to; with its stories |
//! | `link.rs` | links between stories that share members |
//! | `attribute_schema.rs` | the attributes of each kind |
//! | `fault_lifecycle.rs` | kinds that start a fault, and kinds that end it |
//! | `reason.rs` | the closed list of stages and drop reasons, for CONS-1 |
//!
//! Modules here use no threads, sockets or clocks.

pub mod attribute_schema;
mod event_json;
pub mod fault_lifecycle;
mod id;
mod incident;
mod incident_view;
mod interner;
mod json;
mod link;
mod log_block;
mod name;
mod reason;
mod record;
mod severity;
mod story;
mod story_json;
mod truncate;
mod view;
pub mod well_known_names;

pub use event_json::{JsonEvent, ParsedLine, event_json, event_json_with};
pub use id::{EventId, ParseIdError, TraceId, stable_hash};
pub use incident::{Incident, IncidentRole};
pub use incident_view::IncidentView;
pub use interner::{NameError, NameSource};
pub use json::{EventParseError, parse_rfc3339, rfc3339, value_json};
pub use link::{Link, LinkTarget, LinkedStory, MAX_LINKS, StoryPart, linked_among};
pub use log_block::{ArchivedLogBlock, LogBlock};
pub use name::Name;
pub use reason::{REASON_COUNT, Reason, Stage};
pub use record::{ArchivedEvent, ArchivedField, ArchivedValue, ClockQuality, Event, Field, Value};
pub use severity::Severity;
pub use story::{ArchivedStory, Candidate, CauseEntity, Impact, Member, Story, StoryState, Term};
pub use well_known_names as names;
