//! A router without rules.

use tapio_core::event::Event;
use tapio_core::ring::{Route, Router};

/// Routes every event to the first shard.
pub(crate) struct OneShard;

impl Router for OneShard {
    fn route(&self, _: &Event<'_>) -> Route {
        Route { visits: 1 }
    }
}
