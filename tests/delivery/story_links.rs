//! Stories are linked by the members that they share, whose ids often differ in their last bytes
//! only.

use proptest::prelude::*;
use tapio_core::event::linked_among;

use super::story_parts::storage_of;
use super::*;

/// A story with the events of these numbers, of one source during one boot.
fn story_of(n: u8, events: &[u64]) -> Story {
    let template = story(n, 0);
    let member = |event: &u64| Member {
        id: EventId::from_sequence(7, 1, *event),
        time_ns: 100 + event,
        ..template.members[0].clone()
    };
    Story {
        trace_id: TraceId([n; 16]),
        members: events.iter().map(member).collect(),
        members_total: events.len() as u64,
        first_ns: 100 + events.iter().min().unwrap_or(&0),
        last_ns: 100 + events.iter().max().unwrap_or(&0),
        state: if n % 7 == 6 { StoryState::Retracted } else { StoryState::Closed },
        ..template.clone()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn links_are_those_of_all_pairs(
        events in prop::collection::vec(prop::collection::vec(0..40u64, 1..12), 1..30),
    ) {
        let stories: Vec<Story> =
            (1..).zip(&events).map(|(n, events)| story_of(n, events)).collect();
        let sent: Vec<(&str, Story)> = stories.iter().map(|s| ("a", s.clone())).collect();
        let (storage, open) = storage_of(&sent);
        let read = |storage: &Storage| {
            let selection = storage.select_stories(Filter::default(), Cursor::NEWEST);
            selection.read(&Budget::UNLIMITED).items
        };
        let found = read(&storage);
        drop(storage);
        prop_assert_eq!(&read(&open()), &found, "a restart changes nothing");
        prop_assert_eq!(found.len(), stories.len());
        for linked in &found {
            prop_assert_eq!(&linked.links, &linked_among(&linked.story, &stories).links);
        }
    }
}
