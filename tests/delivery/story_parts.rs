//! Stories of one trace from several nodes are one story, in whatever order they arrive.

use std::path::PathBuf;

use prost::Message as _;
use tapio_core::event::LinkedStory;
use tapio_wire::{proto, story_to_proto};

use super::support::sim_disk::{Rng, SimDisk};
use super::*;

/// A story as a node has it.
fn part(id: u8, trace: u8, first_ns: u64) -> Story {
    Story {
        id: TraceId([id; 16]),
        trace_id: TraceId([trace; 16]),
        first_ns,
        last_ns: first_ns + 10,
        members_total: u64::from(id),
        ..story(id, 0)
    }
}

fn append(storage: &mut Storage, node: &str, story: &Story, sequence: u64) {
    let bytes = proto::EventBatch {
        first_sequence: sequence,
        count: 1,
        node: node.into(),
        epoch: 7,
        stories: vec![story_to_proto(story)],
        ..Default::default()
    }
    .encode_to_vec();
    storage.append(&Batch::parse(&bytes).unwrap(), &bytes, sequence).unwrap();
}

fn select(storage: &Storage, filter: &Filter) -> Vec<LinkedStory> {
    let selection = storage.select_stories(filter.clone(), Cursor::NEWEST);
    selection.read(&Budget::UNLIMITED).unwrap().items
}

fn storage_of(stories: &[(&str, Story)]) -> (Storage, impl Fn() -> Storage + use<>) {
    let (disk, config) = (SimDisk::default(), server_config(&PathBuf::from("/s"), any_port()));
    let open = move || {
        disk.kill();
        Storage::open(&config, Arc::new(disk.clone())).unwrap()
    };
    let mut storage = open();
    for (sequence, (node, story)) in (0..).zip(stories) {
        append(&mut storage, node, story, sequence);
    }
    (storage, open)
}

/// The nodes of the parts and their ids' first bytes.
fn parts(linked: &LinkedStory) -> Vec<(&str, u8)> {
    linked.parts.iter().map(|part| (part.node.as_str(), part.id.0[0])).collect()
}

/// Two traces that three nodes have, and a story of one node.
fn stories() -> Vec<(&'static str, Story)> {
    let closed = |story: Story| Story { state: StoryState::Closed, ..story };
    vec![
        ("c", closed(part(3, 1, 300))),
        ("a", part(1, 1, 200)),
        ("b", part(2, 1, 100)),
        ("a", part(4, 2, 50)),
        ("b", part(4, 2, 50)),
        ("a", part(9, 9, 1)),
    ]
}

#[test]
fn order_of_arrival_does_not_matter() {
    for seed in 0..200 {
        let (mut rng, mut shuffled) = (Rng(seed), stories());
        for end in (1..shuffled.len()).rev() {
            shuffled.swap(end, rng.below(end as u64 + 1) as usize);
        }
        let (storage, open) = storage_of(&shuffled);
        let mut all = select(&storage, &Filter::default());
        drop(storage);
        assert_eq!(select(&open(), &Filter::default()), all, "a restart changes nothing");
        all.sort_by_key(|linked| linked.story.id);
        let all: Vec<_> = all.iter().map(|l| (l.story.id.0[0], parts(l))).collect();
        let expected = vec![
            (2, vec![("b", 2), ("a", 1), ("c", 3)]),
            (4, vec![("a", 4), ("b", 4)]),
            (9, vec![("a", 9)]),
        ];
        assert_eq!(all, expected, "seed {seed}");
    }
}

#[test]
fn every_part_finds_the_story() {
    let (storage, _) = storage_of(&stories());
    for id in 1..=3u8 {
        let id_prefix = TraceId([id; 16]).to_string();
        let found = select(&storage, &Filter { id_prefix, ..Filter::default() });
        assert_eq!((found.len(), found[0].story.id), (1, TraceId([2; 16])), "{id}");
        let last = &found[0].parts[2];
        assert_eq!((last.state, last.members_total), (StoryState::Closed, 3));
        assert_eq!((last.first_ns, last.last_ns, last.severity), (300, 310, Severity::ERROR));
    }
    for (filter, expected) in [
        (Filter { node: "c".into(), ..Filter::default() }, vec![2]),
        (Filter { since_ns: 305, ..Filter::default() }, vec![2]),
        (Filter { until_ns: 60, ..Filter::default() }, vec![9, 4]),
        (Filter { text: "STORY 3".into(), ..Filter::default() }, vec![2]),
    ] {
        let found = select(&storage, &filter);
        let ids: Vec<u8> = found.iter().map(|linked| linked.story.id.0[0]).collect();
        assert_eq!(ids, expected, "{filter:?}");
    }
}

#[test]
fn stories_of_other_rules_and_retracted_ones_stand_alone() {
    let mut stories = stories();
    stories[0].1.rule = "other-rule".into();
    stories[1].1.state = StoryState::Retracted;
    let (storage, _) = storage_of(&stories[..3]);
    let found = select(&storage, &Filter::default());
    assert_eq!(
        found.iter().map(parts).collect::<Vec<_>>(),
        [vec![("b", 2)], vec![("a", 1)], vec![("c", 3)]]
    );
}

#[test]
fn pages_have_each_story_once() {
    let (storage, _) = storage_of(&stories());
    let budget = Budget { items: 1, ..Budget::UNLIMITED };
    let (mut ids, mut cursor) = (Vec::new(), Some(Cursor::NEWEST));
    while let Some(before) = cursor {
        let page = storage.select_stories(Filter::default(), before).read(&budget).unwrap();
        ids.extend(page.items.iter().map(|linked| linked.story.id.0[0]));
        assert_eq!(page.complete_since_ns == 0, page.next.is_none());
        cursor = page.next;
    }
    assert_eq!(ids, [9, 4, 2]);
}

#[test]
fn evicted_stories_make_an_answer_incomplete() {
    let disk = SimDisk::default();
    let config =
        ServerConfig { stories_kept: 2, ..server_config(&PathBuf::from("/s"), any_port()) };
    let open = || Storage::open(&config, Arc::new(disk.clone())).unwrap();
    let mut storage = open();
    for (sequence, (node, story)) in (10..).zip(stories()) {
        append(&mut storage, node, &story, sequence);
    }
    storage.seal();
    for storage in [storage, {
        disk.kill();
        open()
    }] {
        let selection = storage.select_stories(Filter::default(), Cursor::NEWEST);
        let page = selection.read(&Budget::UNLIMITED).unwrap();
        assert_eq!((page.items.len(), page.next), (2, None));
        assert_eq!(page.complete_since_ns, 14, "the four that were received until 13 are evicted");
    }
}
