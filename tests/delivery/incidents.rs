//! Incidents as the server has them: stories with their parent, pages, stories that replace others.

use serde_json::Value as Json;
use tapio_core::event::{Incident, IncidentRole, IncidentView};

use super::story_parts::{part, storage_of};
use super::*;

fn child(id: u8, parent: u8, role: IncidentRole) -> Story {
    let incident = Incident { id: TraceId([parent; 16]), role, because: "because".into() };
    Story { incident: Some(incident), ..part(id, id, u64::from(id)) }
}

fn parent(id: u8) -> Story {
    part(id, id, u64::from(id))
}

fn select(storage: &Storage, filter: Filter) -> Vec<IncidentView> {
    let selection = storage.select_stories(filter, Cursor::NEWEST);
    selection.read_incidents(&Budget::UNLIMITED).items
}

/// The first bytes of the stories' ids.
fn ids(incident: &IncidentView) -> Vec<u8> {
    incident.stories().map(|story| story.id.0[0]).collect()
}

#[test]
fn stories_are_listed_with_their_parent_the_last_updated_first() {
    let stories = [
        ("a", parent(1)),
        ("a", parent(2)),
        ("a", child(3, 1, IncidentRole::Cause)),
        ("b", child(4, 2, IncidentRole::Effect)),
        ("b", child(5, 1, IncidentRole::Same)),
        // The parent was evicted, or another agent has it.
        ("b", child(6, 9, IncidentRole::Same)),
    ];
    let (storage, open) = storage_of(&stories);
    drop(storage);
    let storage = open();
    let all = select(&storage, Filter::default());
    assert_eq!(all.iter().map(ids).collect::<Vec<_>>(), [vec![6], vec![1, 3, 5], vec![2, 4]]);
    let json = all[1].json();
    assert_eq!(json["cause_story"], stories[2].1.id.to_string());
    let roles = json["stories"].as_array().unwrap().iter().map(|story| &story["role"]);
    assert_eq!(roles.collect::<Vec<_>>(), ["parent", "cause", "same"]);
    assert_eq!(json["stories"][2]["node"], "b");
    // Found by any of its stories.
    for id in [1, 3, 5] {
        let filter = Filter { id_prefix: stories_id(id), ..Filter::default() };
        assert_eq!(select(&storage, filter).iter().map(ids).collect::<Vec<_>>(), [[1, 3, 5]]);
    }
    let filter = Filter { node: "a".into(), ..Filter::default() };
    assert_eq!(select(&storage, filter).len(), 2);
}

fn stories_id(id: u8) -> String {
    TraceId([id; 16]).to_string()
}

#[test]
fn story_that_replaces_the_parent_is_the_parent() {
    let mut replacing = parent(7);
    replacing.provisional = Some(TraceId([1; 16]));
    let stories = [
        ("a", parent(1)),
        ("a", child(3, 1, IncidentRole::Effect)),
        ("a", replacing),
        ("a", child(4, 1, IncidentRole::Effect)),
    ];
    let (storage, _) = storage_of(&stories);
    let all = select(&storage, Filter::default());
    assert_eq!(all.iter().map(ids).collect::<Vec<_>>(), [[7, 3, 4]]);
    // The list of stories has it once, and it is found by both ids.
    let read = |filter: Filter| {
        let selection = storage.select_stories(filter, Cursor::NEWEST);
        let stories = selection.read(&Budget::UNLIMITED).items;
        stories.iter().map(|linked| linked.story.id.0[0]).collect::<Vec<_>>()
    };
    assert_eq!(read(Filter::default()), [4, 7, 3]);
    for id in [1, 7] {
        assert_eq!(read(Filter { id_prefix: stories_id(id), ..Filter::default() }), [7]);
    }
}

#[test]
fn pages_have_each_incident_once() {
    let mut stories = vec![("a", parent(1)), ("a", parent(2)), ("a", parent(3))];
    stories.extend((10..30).map(|id| ("a", child(id, 1 + id % 3, IncidentRole::Same))));
    let (storage, _) = storage_of(&stories);
    let budget = Budget { items: 1, ..Budget::UNLIMITED };
    let (mut found, mut cursor) = (Vec::new(), Some(Cursor::NEWEST));
    while let Some(before) = cursor {
        let page = storage.select_stories(Filter::default(), before).read_incidents(&budget);
        found.extend(page.items.iter().map(|incident| incident.json()["id"].clone()));
        cursor = page.next;
    }
    let expected = [3, 2, 1].map(|id| Json::from(stories_id(id)));
    let all: Vec<&Json> = found.iter().collect();
    assert_eq!(all.len(), 3, "{found:?}");
    assert!(expected.iter().all(|id| all.contains(&id)), "{found:?}");
}
