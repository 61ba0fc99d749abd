//! Stories: open stories and their members, their rendered texts, and the lifecycles of entities.
//!
//! | file | purpose |
//! | --- | --- |
//! | `trace.rs` | ids of traces and spans |
//! | `event_text.rs` | texts and figures of one event: label, summary, affected entities |
//! | `deviation.rs` | the distance of a measured value from what is usual |
//! | `members.rs` | [`Members`](members::Members): the events of a partial match or story |
//! | `open_story.rs` | [`OpenStory`](open_story::OpenStory): one story that hasn't ended |
//! | `render.rs` | [`StoryRenderer`](render::StoryRenderer): names, texts, actions, named causes |
//! | `open_stories.rs` | [`OpenStories`](open_stories::OpenStories): opening, emitting, ending |
//! | `eviction_order.rs` | which open story is evicted for lack of room |
//! | `lifecycle.rs` | [`LifecycleTracker`](lifecycle::LifecycleTracker): pods, units, processes |

pub(crate) mod deviation;
pub(crate) mod event_text;
mod eviction_order;
pub(crate) mod lifecycle;
pub(crate) mod members;
pub(crate) mod open_stories;
pub(crate) mod open_story;
pub(crate) mod render;
pub(crate) mod trace;
