//! The two lanes: what is told at once, in the order of arrival, and what it ends as, in the order of
//! the events' own times. However events arrive, the final stories are those of replay.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value as Json, json};
use tapio_core::event::{JsonEvent, Story, StoryState};
use tapio_core::ring::{Header, OwnedRecord, ring};
use tapio_dataflow::evidence::{Assessor, Bounds};
use tapio_dataflow::replay::{Emit, Inputs, run};
use tapio_dataflow::rules::{Loaded, Rule, RuleSet};
use tapio_dataflow::{Found, LaneOptions, Order, Shard};

const START_NS: u64 = 1_700_000_000_000_000_000;
const KINDS: [&str; 3] = ["t.a", "t.b", "t.c"];
const MS: u64 = 1_000_000;

const RULES: &str = "rule: chain
events: { a: { kind: t.a }, b: { kind: t.b }, c: { kind: t.c } }
sequence:
  by: [attributes.k]
  within: 3s
  steps: [{ event: a }, { not: c }, { event: b }]
story: { pattern: chain, close: { idle: 2s, max_age: 20s } }
---
rule: many
events: { a: { kind: t.a } }
count: { event: a, by: [attributes.k], within: 2s, at_least: 3 }
story: { pattern: many, close: { idle: 2s, max_age: 20s } }
---
rule: alone
events: { b: { kind: t.b }, c: { kind: t.c } }
absence: { event: b, followed_by: c, by: [attributes.k], within: 1s }
story: { pattern: alone, close: { idle: 2s, max_age: 20s } }
";

fn rules() -> Vec<Rule> {
    let mut loaded = Loaded::default();
    loaded.text("r.yaml", RULES);
    assert_eq!(loaded.errors, []);
    loaded.rules
}

/// An event of a source, and when it arrives.
#[derive(Clone, Debug)]
struct Sent {
    source: u8,
    /// Its place in its source.
    place: u64,
    time_ms: u64,
    arrives_ms: u64,
    kind: usize,
    key: usize,
}

impl Sent {
    fn line(&self) -> String {
        let time_ns = START_NS + self.time_ms * MS;
        json!({
            "id": format!("{}-{}", self.source, self.place), "time": time_ns, "source": format!("s{}", self.source),
            "kind": KINDS[self.kind], "attributes": { "k": self.key },
        })
        .to_string()
    }
}

/// The same rules under other numbers, among others.
fn reordered() -> Vec<Rule> {
    let mut loaded = Loaded::default();
    loaded.text(
        "other.yaml",
        &RULES.replace("rule: ", "rule: other-").replace("at_least: 3", "at_least: 2"),
    );
    let mut all = rules();
    all.reverse();
    loaded.rules.into_iter().chain(all).collect()
}

/// What happens to the shard while events come.
#[derive(Clone, Copy, Debug)]
enum Turn {
    /// Other rules come or go.
    Reload,
    /// The agent is killed and started again.
    Restart,
}

/// A shard, the time it lives in, and what it told.
struct Live {
    shard: Shard,
    assessor: Assessor,
    told: Vec<Story>,
    tick_ms: u64,
    /// What rules had a use for, when it came, and whether that was too late.
    recorded: Vec<(OwnedRecord, u64, bool)>,
}

fn new_shard(rules: &Arc<RuleSet>) -> Shard {
    let options = LaneOptions { order: Order::Arrival, ..LaneOptions::default() };
    Shard::new(Arc::clone(rules), 0, options, true)
}

impl Live {
    fn new(rules: &Arc<RuleSet>) -> Self {
        Self {
            shard: new_shard(rules),
            assessor: Assessor::new(Bounds::LIVE),
            told: Vec::new(),
            tick_ms: 0,
            recorded: Vec::new(),
        }
    }

    fn take(&mut self) {
        let mut notes = Vec::new();
        self.shard.take_notes(&mut notes, true);
        self.told.extend(notes.into_iter().filter_map(|note| self.assessor.process(note)));
    }

    fn advance(&mut self, to_ms: u64) {
        while self.tick_ms < to_ms {
            self.tick_ms += 100;
            let now_ns = START_NS + self.tick_ms * MS;
            self.shard.advance(now_ns, now_ns);
            self.take();
        }
    }

    fn event(&mut self, one: &Sent) {
        let (mut writer, mut reader) = ring(0);
        let parsed = JsonEvent::parse(&one.line(), "t").unwrap();
        let mut fields = Vec::new();
        let event = parsed.event(0, &mut fields);
        let header = Header { order: one.place, ..Header::event(one.source, 1, event.time_ns) };
        writer.write_event(&header, &event).unwrap();
        reader.drain(usize::MAX, |record| {
            let (now_ns, mut found) = (START_NS + one.arrives_ms * MS, Found::default());
            self.shard.step(record, now_ns, &mut found);
            if found.wanted {
                self.recorded.push((record.to_owned(), now_ns, found.late));
            }
            true
        });
    }

    /// Another shard takes this one's place, with nothing but what was recorded.
    fn restart(&mut self, rules: &Arc<RuleSet>) {
        self.shard = new_shard(rules);
        let mut latest_ns = 0;
        for (record, now_ns, late) in &self.recorded {
            self.shard.recollect(&record.record(), *now_ns, *late);
            latest_ns = latest_ns.max(record.record().header().time_ns);
        }
        self.shard.recollected(latest_ns.saturating_sub(10_000 * MS));
    }
}

/// What a shard tells of events as they arrive: every word, in order.
fn live(sent: &[Sent]) -> (Vec<Story>, tapio_dataflow::SettledStats) {
    live_through(sent, &[])
}

/// The same, with turns at these times (milliseconds).
fn live_through(
    sent: &[Sent],
    turns: &[(u64, Turn)],
) -> (Vec<Story>, tapio_dataflow::SettledStats) {
    let first = Arc::new(RuleSet::new(rules(), "", 1));
    let second = Arc::new(first.successor(reordered()));
    let mut sets = [&second, &first].into_iter().cycle();
    let mut current = &first;
    let mut turns = turns.iter().peekable();
    let mut live = Live::new(&first);
    let mut arrivals: Vec<&Sent> = sent.iter().collect();
    arrivals.sort_by_key(|s| (s.arrives_ms, s.source, s.place));
    for one in &arrivals {
        live.advance(one.arrives_ms);
        while let Some((_, turn)) = turns.next_if(|(at, _)| *at <= one.arrives_ms) {
            match turn {
                Turn::Reload => {
                    current = sets.next().unwrap();
                    live.shard.reload(Arc::clone(current));
                }
                Turn::Restart => live.restart(current),
            }
        }
        live.event(one);
    }
    // Silence, until every story has ended.
    let last_ms = arrivals.last().map_or(0, |s| s.arrives_ms);
    live.advance(last_ms + 60_000);
    let stats = live.shard.stats().settled;
    (live.told, stats)
}

/// What matters of a story, whoever tells it.
fn said(story: &Story) -> Json {
    let members: Vec<Json> =
        story.members.iter().map(|m| json!([m.label, m.role, m.time_ns])).collect();
    json!([
        story.id.to_string(),
        story.rule,
        story.key,
        story.state.as_str(),
        story.first_ns,
        story.last_ns,
        story.members_total,
        members,
        story.continues.map(|c| c.to_string())
    ])
}

fn is_final(story: &Story) -> bool {
    matches!(story.state, StoryState::Closed | StoryState::Expired)
}

fn replayed(sent: &[Sent]) -> Vec<Json> {
    let mut lines: Vec<&Sent> = sent.iter().collect();
    lines.sort_by_key(|s| (s.time_ms, s.source, s.place));
    let text: Vec<String> = lines.iter().map(|s| s.line()).collect();
    let inputs = Inputs::text("t", text.join("\n"));
    let replayed = run(inputs, rules(), "", 1, Emit::Stories).unwrap();
    assert!(replayed.refused.is_empty() && replayed.account.holds());
    let mut said: Vec<Json> = replayed.stories.iter().map(said).collect();
    said.sort_by_key(Json::to_string);
    said
}

fn some_events() -> impl Strategy<Value = Vec<Sent>> {
    let one = (0..3u8, 0..400u64, 0..180u64, 0..3usize, 0..2usize);
    prop::collection::vec(one, 0..60).prop_map(|steps| {
        let (mut now_ms, mut sent) = ([0u64; 3], Vec::new());
        let mut arrived_ms = [0u64; 3];
        for (place, (source, step_ms, delay_ms, kind, key)) in (1u64..).zip(steps) {
            let at = usize::from(source);
            now_ms[at] += step_ms;
            // A source's own events arrive in order.
            arrived_ms[at] = arrived_ms[at].max(now_ms[at] + delay_ms);
            let (time_ms, arrives_ms) = (now_ms[at], arrived_ms[at]);
            sent.push(Sent { source, place, time_ms, arrives_ms, kind, key });
        }
        sent
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn however_events_arrive_the_final_stories_are_those_of_replay(sent in some_events()) {
        let (told, stats) = live(&sent);
        prop_assert_eq!((stats.late, stats.forced), (0, 0));
        let mut finals: Vec<Json> = told.iter().filter(|g| is_final(g)).map(said).collect();
        finals.sort_by_key(Json::to_string);
        prop_assert_eq!(&finals, &replayed(&sent), "{:?}", told.iter().map(said).collect::<Vec<_>>());
        // Whatever was told while it was open has an end, too.
        for story in &told {
            let ends = told.iter().filter(|g| g.id == story.id && (is_final(g) || g.state == StoryState::Retracted));
            let all: Vec<_> = told.iter().filter(|g| g.rule == story.rule && g.key == story.key)
                .map(|g| (g.state, g.revision, said(g))).collect();
            prop_assert_eq!(ends.count(), 1, "{:?}\n{:#?}", said(story), all);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_reload_changes_nothing_for_rules_that_stay(
        sent in some_events(), mut reloads in prop::collection::vec(0..8000u64, 1..5),
    ) {
        reloads.sort_unstable();
        let turns: Vec<_> = reloads.into_iter().map(|at| (at, Turn::Reload)).collect();
        let (told, _) = live_through(&sent, &turns);
        prop_assert_eq!(finals(told), finals(live(&sent).0));
    }

    #[test]
    fn a_restart_in_the_middle_changes_no_final_story(
        sent in some_events(), mut restarts in prop::collection::vec(0..8000u64, 1..4),
    ) {
        restarts.sort_unstable();
        let turns: Vec<_> = restarts.into_iter().map(|at| (at, Turn::Restart)).collect();
        let (told, stats) = live_through(&sent, &turns);
        prop_assert_eq!(stats.late, 0);
        prop_assert_eq!(finals(told), replayed(&sent));
    }
}

/// The final stories of the rules that stay, as they were told last.
fn finals(told: Vec<Story>) -> Vec<Json> {
    let mut last = std::collections::BTreeMap::new();
    for story in told.iter().filter(|g| is_final(g) && !g.rule.starts_with("other-")) {
        last.insert(story.id, said(story));
    }
    let mut said: Vec<Json> = last.into_values().collect();
    said.sort_by_key(Json::to_string);
    said
}

#[test]
fn a_story_whose_rule_goes_ends_with_it() {
    // The reload comes while the story is open and before the watermark has reached it.
    let events = [(0, 1000, 1000, 0), (0, 1200, 1200, 1), (0, 1500, 1500, 2), (0, 1600, 1600, 2)];
    let first = Arc::new(RuleSet::new(rules(), "", 1));
    let others = rules().into_iter().filter(|r| r.name.text() != "chain").collect();
    let without = Arc::new(first.successor(others));
    let mut live = Live::new(&first);
    for (i, one) in sent(&events).iter().enumerate() {
        live.advance(one.arrives_ms);
        if i == 2 {
            live.shard.reload(Arc::clone(&without));
        }
        live.event(one);
    }
    live.take();
    let told = live.told;
    let states: Vec<&str> =
        told.iter().filter(|g| g.rule == "chain").map(|g| g.state.as_str()).collect();
    assert_eq!(states, ["opened", "closed"]);
}

fn sent(list: &[(u8, u64, u64, usize)]) -> Vec<Sent> {
    let number = (1u64..).zip(list);
    number
        .map(|(place, (source, time_ms, arrives_ms, kind))| Sent {
            source: *source,
            place,
            time_ms: *time_ms,
            arrives_ms: *arrives_ms,
            kind: *kind,
            key: 0,
        })
        .collect()
}

#[test]
fn a_story_is_told_before_the_watermark_and_confirmed_after_it() {
    let (told, _) = live(&sent(&[(0, 1000, 1000, 0), (0, 1200, 1200, 1), (0, 1300, 1300, 2)]));
    let chain: Vec<&Story> = told.iter().filter(|g| g.rule == "chain").collect();
    let states: Vec<&str> = chain.iter().map(|g| g.state.as_str()).collect();
    assert_eq!(states, ["opened", "closed"]);
    assert_eq!(chain[0].id, chain[1].id);
    assert!(chain[1].revision > chain[0].revision, "the end is an update of what was told");
}

#[test]
fn what_only_the_order_of_arrival_suggests_is_taken_back() {
    // b happened before a and arrived after it.
    let (told, stats) = live(&sent(&[(0, 1100, 1100, 0), (1, 1000, 1150, 1), (1, 1400, 1400, 2)]));
    let states: Vec<&str> =
        told.iter().filter(|g| g.rule == "chain").map(|g| g.state.as_str()).collect();
    assert_eq!(states, ["opened", "retracted"]);
    assert_eq!(stats.retracted, 1);
}

#[test]
fn a_story_that_began_otherwise_is_linked_to_the_one_told_first() {
    // Of two beginnings the one that happened later arrived first: the run is the other's.
    let events = [(0, 1000, 1150, 0), (1, 1100, 1100, 0), (1, 1300, 1300, 1), (1, 1400, 1400, 2)];
    let (told, stats) = live(&sent(&events));
    let chain: Vec<&Story> = told.iter().filter(|g| g.rule == "chain").collect();
    let states: Vec<&str> = chain.iter().map(|g| g.state.as_str()).collect();
    assert_eq!(states, ["opened", "closed", "retracted"]);
    assert_eq!(chain[1].provisional, Some(chain[0].id));
    assert_eq!(chain[2].id, chain[0].id);
    assert_eq!(stats.relinked, 1);
}

#[test]
fn what_happened_while_nobody_looked_has_its_place_after_a_restart() {
    // A source that has no past to tell goes on at once; another one tells the chain's beginning two seconds later.
    let events = [(0, 500, 500, 2), (0, 9100, 9100, 1), (0, 9900, 9900, 2), (1, 8000, 11_000, 0)];
    let (told, stats) = live_through(&sent(&events), &[(9000, Turn::Restart)]);
    assert_eq!((stats.late, stats.retracted), (0, 0));
    let closed: Vec<&Story> = told.iter().filter(|g| g.rule == "chain" && is_final(g)).collect();
    let [closed] = closed[..] else { panic!("{:?}", told.iter().map(said).collect::<Vec<_>>()) };
    assert_eq!((closed.first_ns, closed.members_total), (START_NS + 8000 * MS, 2));
}

#[test]
fn what_comes_too_late_is_a_member_and_nothing_more() {
    let events = [(0, 1001, 1001, 0), (0, 1501, 1501, 1), (0, 2901, 2901, 0), (1, 1201, 3151, 1)];
    late_member(live(&sent(&events)));
    // The same when somebody else goes on with what was recorded.
    let more = [&events[..], &[(0, 3401, 3401, 2)]].concat();
    late_member(live_through(&sent(&more), &[(3300, Turn::Restart)]));
}

fn late_member((told, stats): (Vec<Story>, tapio_dataflow::SettledStats)) {
    assert_eq!(stats.late, 1);
    let closed: Vec<&Story> = told.iter().filter(|g| g.rule == "chain" && is_final(g)).collect();
    assert_eq!(closed.len(), 1);
    let late: Vec<&str> =
        closed[0].members.iter().filter(|m| m.role == "late").map(|m| m.label.as_str()).collect();
    assert_eq!(late, ["1-4"], "{:?}", told.iter().map(said).collect::<Vec<_>>());
}

#[test]
fn a_late_member_past_those_that_are_kept_is_counted() {
    let mut events: Vec<(u8, u64, u64, usize)> =
        (0..70).map(|n| (0, 1001 + n, 1001 + n, 0)).collect();
    events.extend([(0, 2901, 2901, 0), (1, 1201, 3151, 0)]);
    let (told, stats) = live(&sent(&events));
    assert_eq!(stats.late, 1);
    let many: Vec<&Story> = told.iter().filter(|g| g.rule == "many" && is_final(g)).collect();
    assert_eq!((many.len(), many[0].members_total), (1, 72));
    // None of the members that are kept came late.
    assert!(many[0].members.iter().all(|m| m.role != "late"), "{}", said(many[0]));
}
