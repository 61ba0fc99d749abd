//! Causes and impact from evidence.
//!
//! Facts are observed at home: every event is shown to the shard of its home entity, which sees all
//! events of that entity. What depends on their order (templates, what came before what) is found
//! there. What leaves a shard are sums and unions, which commute, so that one assessor takes them in any
//! order and says the same for any number of shards.
//!
//! | file | purpose |
//! | --- | --- |
//! | `entity.rs` | [`Entity`]: what events are about |
//! | `relations.rs` | facts for the graph that events state |
//! | `observer.rs` | a shard's side: sums, facts, templates |
//! | `drain.rs` | log templates and how often they come |
//! | `draft.rs` | [`Note`]: what goes from a shard to the assessor |
//! | `assessor.rs` | [`Assessor`]: the one owner of all facts |
//! | `desk.rs` | the assessor's thread |
//! | `story_counts.rs` | emitted stories by pattern and severity |
//! | `graph.rs` | who runs where and talks to whom, as of any time |
//! | `times.rs` | when things were seen and ended |
//! | `standing.rs` | troubles that were told and not ended |
//! | `baseline.rs` | what is usual, and how far now is from it |
//! | `pairs.rs` | which kind comes before which |
//! | `rank.rs`, `impact.rs` | causes, impact |
//! | `calibration.rs` | where the weights of causes come from |
//! | `suggest.rs` | rules that pairs suggest |

mod assessor;
mod baseline;
#[cfg(test)]
mod calibration;
mod desk;
mod draft;
mod drain;
mod entity;
mod graph;
mod impact;
mod observer;
mod pairs;
mod rank;
mod relations;
mod standing;
mod story_counts;
mod suggest;
mod times;

pub use assessor::{Assessor, AssessorCounts};
pub use baseline::{Deviation, deviation};
pub use desk::{Desk, DeskStats, NoteReader, NoteWriter, notes};
pub use draft::Note;
pub(crate) use draft::{Asked, Draft, NamedCause, Seen, Source, add_source};
pub(crate) use entity::subject;
pub use entity::{Entity, EntityKind};
pub use graph::{Criticality, Edge, Relation};
pub(crate) use impact::MAX_AFFECTED;
pub use observer::Bounds;
pub(crate) use observer::Observer;
pub use pairs::{HomeKind, Learned, PairKey};
pub use suggest::rule_documents;
