//! The state of a story.

use tapio_core::event::StoryState;

/// The state as filters have it.
pub(crate) fn state_text(state: StoryState) -> &'static str {
    match state {
        StoryState::Opened | StoryState::Updated => "open",
        StoryState::Closed | StoryState::Expired => "closed",
        StoryState::Retracted => "retracted",
    }
}
