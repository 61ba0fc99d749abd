//! Root causes and impact from evidence.
//!
//! Each event is processed at the shard of its home entity, which sees all events of that entity.
//! Facts that depend on the order of these events (log templates, which kind precedes which) are
//! computed there. Shards send commutative aggregates only: sums and unions. One assessor combines
//! them in any order and computes the same result for any number of shards.
//!
//! | file | purpose |
//! | --- | --- |
//! | `bounds.rs` | [`Bounds`] of all state |
//! | `entity.rs` | [`Entity`], and the entities that an event names |
//! | `relation.rs` | [`Relation`], [`Edge`] and [`Criticality`] |
//! | `second_set.rs` | sets of seconds, histories of states |
//! | `graph_fact.rs` | facts for the graph that an event states |
//! | `graph.rs` | the entity graph, as of any time |
//! | `baseline.rs` | the usual count of a kind, and deviations from it |
//! | `active_faults.rs` | faults that have started and not ended, as of any time |
//! | `log_template.rs` | log templates (Drain) and their rates |
//! | `pairs.rs` | which kind precedes which |
//! | `suggest.rs` | rules that learned pairs suggest |
//! | `pending_story.rs` | a story without root causes and impact |
//! | `message.rs` | [`EvidenceMessage`]: facts or a pending story, from a shard to the assessor |
//! | `feature_extractor.rs` | a shard's part: aggregates and facts from events |
//! | `store.rs` | the assessor's evidence of all shards |
//! | `weights.rs` | [`Weights`] of the terms, and [`LiveWeights`], those in force |
//! | `calibrate.rs` | fits the weights to stories of which people know the cause |
//! | `rank.rs`, `impact.rs` | root causes and impact from that evidence |
//! | `incidents.rs`, `explained_rules.rs` | which stories have one cause |
//! | `story_counts.rs` | counts of emitted stories by pattern and severity, for `/metrics` |
//! | `story_writer.rs` | stories into the ring to the bridge |
//! | `assessor.rs` | [`Assessor`]: completes pending stories |
//! | `assessor_thread.rs` | the assessor's thread and the rings that lead to it |

mod active_faults;
mod assessor;
mod assessor_thread;
mod baseline;
mod bounds;
mod calibrate;
mod entity;
mod explained_rules;
mod feature_extractor;
mod graph;
mod graph_fact;
mod impact;
mod incidents;
mod log_template;
mod message;
mod pairs;
mod pending_story;
#[cfg(test)]
mod random;
mod rank;
mod relation;
mod second_set;
mod store;
mod story_counts;
mod story_writer;
mod suggest;
mod weights;

pub use assessor::{Assessor, AssessorCounts};
pub use assessor_thread::{
    AssessorStats, AssessorThread, EvidenceReader, EvidenceWriter, Keep, Kept, KeptServices,
    evidence_ring,
};
pub use baseline::{Deviation, deviation};
pub use bounds::Bounds;
pub use calibrate::{Calibration, Evidence, Label, LabelledStory, Ranked, calibrate};
pub(crate) use entity::{AffectedEntity, subject};
pub use entity::{Entity, EntityKind};
pub(crate) use feature_extractor::FeatureExtractor;
pub(crate) use impact::MAX_AFFECTED;
pub use message::EvidenceMessage;
pub use pairs::{HomeKind, LearnedPair, PairKey};
pub(crate) use pending_story::{
    ImpactSpec, MemberFacts, NamedCause, Observation, PendingStory, add_member,
};
pub use relation::{Criticality, Edge, Relation};
pub(crate) use story_writer::{Written, write_story};
pub use suggest::rule_documents;
pub use weights::{LiveWeights, MAX_WEIGHT, TERMS, Weights};
