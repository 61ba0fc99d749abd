//! What flows: events, stories, names, identifiers and the reasons an event can be lost for.
//!
//! | file | purpose |
//! | --- | --- |
//! | `name.rs` | interned names: kinds, sources, attribute keys |
//! | `names.rs` | the names tapio itself knows |
//! | `id.rs` | 128-bit event and trace identifiers |
//! | `record.rs` | [`Event`], borrowed while it is built, archived while it travels |
//! | `view.rs` | reading an archived event in place |
//! | `story.rs` | [`Story`]: a story with its members, cause, impact and actions |
//! | `link.rs` | which stories have members in common |
//! | `json_in.rs`, `json_out.rs`, `story_in.rs` | the JSON form, one object per line |
//! | `vocabulary.rs` | which attributes events of the known kinds can have |
//! | `troubles.rs` | which kinds tell a trouble, and which end it |
//! | `severity.rs` | OpenTelemetry severity numbers |
//! | `reason.rs` | the closed list of losses, for CONS-1 |
//!
//! Nothing here knows of threads, sockets or clocks.

mod id;
mod json_in;
mod json_out;
mod link;
mod name;
pub mod names;
mod reason;
mod record;
mod severity;
mod story;
mod story_in;
pub mod troubles;
mod view;
pub mod vocabulary;

pub use id::{EventId, TraceId, stable_hash};
pub use json_in::{BadEvent, JsonEvent};
pub use json_out::{event_json, event_json_with, value_json};
pub use link::{Link, LinkIndex, LinkedStory, linked_among};
pub use name::{Name, NameRefused};
pub use reason::{REASONS, Reason, Stage};
pub use record::{ArchivedEvent, ArchivedField, ArchivedValue, ClockQuality, Event, Field, Value};
pub use severity::Severity;
pub use story::{ArchivedStory, Candidate, Impact, Member, Story, StoryState, Term};
