//! Stories of one trace from several nodes are one story, in whatever order they arrive.

use std::path::PathBuf;

use prost::Message as _;
use tapio::server::{List, StateFilter};
use tapio_core::event::LinkedStory;
use tapio_wire::{proto, story_to_proto};

use super::support::sim_disk::{Rng, SimDisk};
use super::*;

/// A story as a node has it.
pub(super) fn part(id: u8, trace: u8, first_ns: u64) -> Story {
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
    storage.append(&bytes, sequence).unwrap();
}

fn select(storage: &Storage, filter: &Filter) -> Vec<LinkedStory> {
    let selection = storage.select_stories(filter.clone(), Cursor::NEWEST);
    selection.read(&Budget::UNLIMITED).items
}

pub(super) fn storage_of(stories: &[(&str, Story)]) -> (Storage, impl Fn() -> Storage + use<>) {
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
        let page = storage.select_stories(Filter::default(), before).read(&budget);
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
        let page = selection.read(&Budget::UNLIMITED);
        assert_eq!((page.items.len(), page.next), (2, None));
        assert_eq!(page.complete_since_ns, 14, "the four that were received until 13 are evicted");
    }
}

/// A revision of a random story of one of three nodes. Stories of one trace have one rule.
fn random_story(rng: &mut Rng) -> (&'static str, Story) {
    let id = 1 + rng.below(12) as u8;
    let node = ["a", "b", "c"][rng.below(3) as usize];
    let mut story = part(id, id.div_ceil(3), 10 * rng.below(20));
    story.severity = Severity(rng.below(25) as u8);
    story.members[0].kind = ["t.one", "u.two"][rng.below(2) as usize].into();
    story.members[0].summary = ["Out of memory", "größer"][rng.below(2) as usize].into();
    (node, story)
}

fn random_filter(rng: &mut Rng) -> Filter {
    let mut one_of = |texts: &[&str]| texts[rng.below(texts.len() as u64) as usize].to_owned();
    Filter {
        pattern: one_of(&["", "", "", "odd", "absent"]),
        node: one_of(&["", "", "", "a", "absent"]),
        kind: one_of(&["", "", "", "t.*", "absent"]),
        entities: one_of(&["", "", "", "host.name=node-1", "host.name=absent"])
            .split_whitespace()
            .map(str::to_owned)
            .collect(),
        text: one_of(&["", "", "", "MEMORY", "GRÖSS", "Größer", "story 1", "absent"]),
        id_prefix: one_of(&["", "", "", "0", "0a", "FF"]),
        no_lifecycles: false,
        rules: Vec::new(),
        trace_id: if rng.one_in(4) { vec![rng.below(5) as u8; 16] } else { Vec::new() },
        severity: Severity(if rng.one_in(3) { rng.below(25) as u8 } else { 0 }),
        since_ns: if rng.one_in(3) { rng.below(200) } else { 0 },
        until_ns: if rng.one_in(3) { 200 + rng.below(100) } else { 0 },
        state: [None, None, Some(StateFilter::Open), Some(StateFilter::Closed)]
            [rng.below(4) as usize],
    }
}

/// The definition of a match of one part.
fn matches(filter: &Filter, node: &str, story: &Story) -> bool {
    let (member, text) = (&story.members[0], filter.text.to_lowercase());
    let id = story.id.to_string();
    (filter.pattern.is_empty() || story.pattern == filter.pattern)
        && (filter.node.is_empty() || node == filter.node)
        && (filter.kind.is_empty() || tapio_core::glob::matches(&filter.kind, &member.kind))
        && filter.entities.iter().all(|entity| entity == "host.name=node-1")
        && [&story.name, &member.summary].iter().any(|t| t.to_lowercase().contains(&text))
        && id.starts_with(&filter.id_prefix.to_lowercase())
        && (filter.trace_id.is_empty() || story.trace_id.0[..] == filter.trace_id)
        && story.severity >= filter.severity
        && filter.state.is_none_or(|state| story.state.is_end() == (state == StateFilter::Closed))
        && story.last_ns >= filter.since_ns
        && (filter.until_ns == 0 || story.first_ns < filter.until_ns)
}

type Sent = (&'static str, Story);

/// The stories that match, the last updated first: the leading part, and when the last was sent.
fn scan(sent: &[Sent], filter: &Filter) -> Vec<(TraceId, String, u64)> {
    let mut last: HashMap<(&str, TraceId), u64> = HashMap::new();
    for (at, (node, story)) in (0..).zip(sent) {
        last.insert((node, story.id), at);
    }
    let mut of_trace: HashMap<TraceId, Vec<u64>> = HashMap::new();
    for at in last.values() {
        of_trace.entry(sent[*at as usize].1.trace_id).or_default().push(*at);
    }
    let mut groups = Vec::new();
    for parts in of_trace.into_values() {
        let is_of_several =
            parts.iter().any(|at| sent[*at as usize].0 != sent[parts[0] as usize].0);
        if is_of_several {
            groups.push(parts);
        } else {
            groups.extend(parts.into_iter().map(|at| vec![at]));
        }
    }
    groups.retain(|parts| {
        parts.iter().map(|at| &sent[*at as usize]).any(|(node, s)| matches(filter, node, s))
    });
    groups.sort_by_key(|parts| std::cmp::Reverse(parts.iter().max().copied()));
    let leading = |parts: &Vec<u64>| {
        let all = parts.iter().map(|at| &sent[*at as usize]);
        let (node, story) = all.min_by_key(|(node, s)| (s.first_ns, s.id, *node)).unwrap();
        (story.id, (*node).to_owned(), parts.iter().max().copied().unwrap())
    };
    groups.iter().map(leading).collect()
}

fn assert_pages(storage: &Storage, filter: &Filter, sent: &[Sent], rng: &mut Rng) {
    let expected = scan(sent, filter);
    let (mut found, mut token) = (Vec::new(), String::new());
    loop {
        let cursor = Cursor::from_token(&token, List::Stories, filter).unwrap();
        let bound = |n: u64| if n == 0 { usize::MAX } else { n as usize };
        let budget = Budget { items: bound(rng.below(5)), ..Budget::UNLIMITED };
        let page = storage.select_stories(filter.clone(), cursor).read(&budget);
        let leading = |linked: &LinkedStory| (linked.story.id, linked.parts[0].node.clone());
        found.extend(page.items.iter().map(leading));
        let so_far = expected.iter().take(found.len()).map(|(id, node, _)| (*id, node.clone()));
        assert!(found.iter().cloned().eq(so_far), "{filter:?}: {found:?} of {expected:?}");
        let missing = expected[found.len()..].iter().map(|(_, _, at)| *at).max();
        assert!(missing.is_none_or(|receipt_ns| receipt_ns < page.complete_since_ns));
        match page.next {
            Some(next) => token = next.token(List::Stories, filter),
            None => break,
        }
    }
    assert_eq!(found.len(), expected.len(), "{filter:?}");
}

#[test]
fn pages_of_stories_are_what_a_scan_finds() {
    for seed in 0..100 {
        let mut rng = Rng(seed);
        let disk = SimDisk::default();
        let config = ServerConfig {
            segment_bytes: 2_000,
            ..server_config(&PathBuf::from("/s"), any_port())
        };
        let open = || Storage::open(&config, Arc::new(disk.clone())).unwrap();
        let (mut storage, mut sent) = (open(), Vec::new());
        for sequence in 0..rng.below(60) {
            let (node, mut story) = random_story(&mut rng);
            story.revision = sequence as u32;
            append(&mut storage, node, &story, sequence);
            sent.push((node, story));
            if rng.one_in(15) {
                drop(storage);
                disk.kill();
                storage = open();
            }
        }
        for _ in 0..20 {
            assert_pages(&storage, &random_filter(&mut rng), &sent, &mut rng);
        }
    }
}
