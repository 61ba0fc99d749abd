//! The two lanes: stories emitted at once in order of arrival, and their final forms in event-time
//! order. However events arrive, the final stories equal those of replay.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value as Json, json};
use tapio_core::event::{JsonEvent, Story, StoryState};
use tapio_core::ring::{Header, OwnedRecord, ring};
use tapio_dataflow::evidence::{Assessor, Bounds};
use tapio_dataflow::replay::{Emit, Inputs, run};
use tapio_dataflow::rules::{Loaded, Rule, RuleSet};
use tapio_dataflow::{EventTimeStats, LaneOptions, Order, Shard, StepOutput};

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
---
rule: unusual
events: { a: { kind: t.a } }
count:
  event: a
  by: [attributes.k]
  within: 200ms
  condition: { deviation: { gte: 1.5, learn: 6 } }
story:
  pattern: unusual
  name: '{value} instead of {usual}: {deviation}'
  close: { idle: 500ms, max_age: 20s }
";

fn rules() -> Vec<Rule> {
    let mut loaded = Loaded::default();
    loaded.text("r.yaml", RULES);
    assert_eq!(loaded.errors, []);
    loaded.rules
}

/// An event of a source, and when it arrives.
#[derive(Clone, Debug)]
struct Arrival {
    source: u8,
    /// Its position in its source.
    position: u64,
    time_ms: u64,
    arrives_ms: u64,
    kind: usize,
    key: usize,
}

impl Arrival {
    fn line(&self) -> String {
        let time_ns = START_NS + self.time_ms * MS;
        json!({
            "id": format!("{}-{}", self.source, self.position), "time": time_ns, "source": format!("s{}", self.source),
            "kind": KINDS[self.kind], "attributes": { "k": self.key },
        })
        .to_string()
    }
}

/// The same rules with other numbers, among further rules.
fn renumbered_rules() -> Vec<Rule> {
    let mut loaded = Loaded::default();
    loaded.text(
        "other.yaml",
        &RULES.replace("rule: ", "rule: other-").replace("at_least: 3", "at_least: 2"),
    );
    let mut all = rules();
    all.reverse();
    loaded.rules.into_iter().chain(all).collect()
}

/// A change to the shard between two events.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// The rule set is reloaded.
    Reload,
    /// The agent is killed and restarted.
    Restart,
}

/// A streaming shard, its driver's clock, and what it emitted.
struct Live {
    shard: Shard,
    assessor: Assessor,
    emitted: Vec<Story>,
    tick_ms: u64,
    /// Relevant events with their arrival times, and whether they were late.
    recorded: Vec<(OwnedRecord, u64, bool)>,
}

fn new_shard(rules: &Arc<RuleSet>) -> Shard {
    Shard::new(Arc::clone(rules), 0, Order::Arrival, LaneOptions::default())
}

impl Live {
    fn new(rules: &Arc<RuleSet>) -> Self {
        Self {
            shard: new_shard(rules),
            assessor: Assessor::new(Bounds::LIVE),
            emitted: Vec::new(),
            tick_ms: 0,
            recorded: Vec::new(),
        }
    }

    fn take(&mut self) {
        let mut messages = Vec::new();
        self.shard.take_messages(&mut messages, true);
        let stories = messages.into_iter().filter_map(|m| self.assessor.process(m));
        self.emitted.extend(stories);
    }

    fn advance(&mut self, to_ms: u64) {
        while self.tick_ms < to_ms {
            self.tick_ms += 100;
            let now_ns = START_NS + self.tick_ms * MS;
            self.shard.advance(now_ns, now_ns);
            self.take();
        }
    }

    fn event(&mut self, one: &Arrival) {
        let (mut writer, mut reader) = ring(0);
        let parsed = JsonEvent::parse(&one.line(), "t").unwrap();
        let mut fields = Vec::new();
        let event = parsed.event(0, &mut fields);
        let header = Header { order: one.position, ..Header::event(one.source, 1, event.time_ns) };
        writer.write_event(&header, &event).unwrap();
        reader.drain(usize::MAX, |record| {
            let (now_ns, mut output) = (START_NS + one.arrives_ms * MS, StepOutput::default());
            self.shard.step(record, now_ns, &mut output);
            if output.relevant {
                self.recorded.push((record.to_owned(), now_ns, output.late));
            }
            true
        });
    }

    /// Replaces the shard with one that is restored from the recorded events.
    fn restart(&mut self, rules: &Arc<RuleSet>) {
        self.shard = new_shard(rules);
        let mut latest_ns = 0;
        for (record, now_ns, late) in &self.recorded {
            self.shard.restore(&record.record(), *now_ns, *late);
            latest_ns = latest_ns.max(record.record().header().time_ns);
        }
        self.shard.finish_restore(latest_ns.saturating_sub(10_000 * MS));
    }
}

/// All that a shard emits for these events, in order.
fn live(sent: &[Arrival]) -> (Vec<Story>, EventTimeStats) {
    live_through(sent, &[])
}

/// The same, with changes at these times in milliseconds.
fn live_through(sent: &[Arrival], changes: &[(u64, Change)]) -> (Vec<Story>, EventTimeStats) {
    let first = Arc::new(RuleSet::new(rules(), "", 1));
    let second = Arc::new(first.successor(renumbered_rules()));
    let mut sets = [&second, &first].into_iter().cycle();
    let mut current = &first;
    let mut changes = changes.iter().peekable();
    let mut live = Live::new(&first);
    let mut arrivals: Vec<&Arrival> = sent.iter().collect();
    arrivals.sort_by_key(|s| (s.arrives_ms, s.source, s.position));
    for one in &arrivals {
        live.advance(one.arrives_ms);
        while let Some((_, change)) = changes.next_if(|(at, _)| *at <= one.arrives_ms) {
            match change {
                Change::Reload => {
                    current = sets.next().unwrap();
                    live.shard.reload(Arc::clone(current));
                }
                Change::Restart => live.restart(current),
            }
        }
        live.event(one);
    }
    // Silence, until every story has ended.
    let last_ms = arrivals.last().map_or(0, |s| s.arrives_ms);
    live.advance(last_ms + 60_000);
    let stats = live.shard.stats().event_time;
    (live.emitted, stats)
}

/// The parts of a story that live and replay have in common.
fn summary(story: &Story) -> Json {
    let members: Vec<Json> =
        story.members.iter().map(|m| json!([m.label, m.role, m.time_ns])).collect();
    json!([
        story.id.to_string(),
        story.rule,
        story.name,
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

fn replayed(sent: &[Arrival]) -> Vec<Json> {
    let mut lines: Vec<&Arrival> = sent.iter().collect();
    lines.sort_by_key(|s| (s.time_ms, s.source, s.position));
    let text: Vec<String> = lines.iter().map(|s| s.line()).collect();
    let inputs = Inputs::text("t", text.join("\n"));
    let replayed = run(inputs, rules(), "", 1, Emit::Stories).unwrap();
    assert!(replayed.refused.is_empty() && replayed.account.holds());
    let mut summaries: Vec<Json> = replayed.stories.iter().map(summary).collect();
    summaries.sort_by_key(Json::to_string);
    summaries
}

fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    let one = (0..3u8, 0..400u64, 0..180u64, 0..3usize, 0..2usize);
    prop::collection::vec(one, 0..60).prop_map(|steps| {
        let (mut now_ms, mut sent) = ([0u64; 3], Vec::new());
        let mut arrived_ms = [0u64; 3];
        for (position, (source, step_ms, delay_ms, kind, key)) in (1u64..).zip(steps) {
            let at = usize::from(source);
            now_ms[at] += step_ms;
            // A source's own events arrive in order.
            arrived_ms[at] = arrived_ms[at].max(now_ms[at] + delay_ms);
            let (time_ms, arrives_ms) = (now_ms[at], arrived_ms[at]);
            sent.push(Arrival { source, position, time_ms, arrives_ms, kind, key });
        }
        sent
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn final_stories_equal_those_of_replay_for_any_arrival_order(sent in arrivals()) {
        let (emitted, stats) = live(&sent);
        prop_assert_eq!((stats.late, stats.forced), (0, 0));
        let mut finals: Vec<Json> = emitted.iter().filter(|s| is_final(s)).map(summary).collect();
        finals.sort_by_key(Json::to_string);
        prop_assert_eq!(&finals, &replayed(&sent), "{:?}", emitted.iter().map(summary).collect::<Vec<_>>());
        // Every story that was emitted while open ends, too.
        for story in &emitted {
            let ends = emitted.iter().filter(|s| s.id == story.id && (is_final(s) || s.state == StoryState::Retracted));
            let all: Vec<_> = emitted.iter().filter(|s| s.rule == story.rule && s.key == story.key)
                .map(|s| (s.state, s.revision, summary(s))).collect();
            prop_assert_eq!(ends.count(), 1, "{:?}\n{:#?}", summary(story), all);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn reload_changes_no_final_story_of_unchanged_rules(
        sent in arrivals(), mut reloads in prop::collection::vec(0..8000u64, 1..5),
    ) {
        reloads.sort_unstable();
        let changes: Vec<_> = reloads.into_iter().map(|at| (at, Change::Reload)).collect();
        let (emitted, _) = live_through(&sent, &changes);
        prop_assert_eq!(finals(emitted), finals(live(&sent).0));
    }

    #[test]
    fn restart_changes_no_final_story(
        sent in arrivals(), mut restarts in prop::collection::vec(0..8000u64, 1..4),
    ) {
        restarts.sort_unstable();
        let changes: Vec<_> = restarts.into_iter().map(|at| (at, Change::Restart)).collect();
        let (emitted, stats) = live_through(&sent, &changes);
        prop_assert_eq!(stats.late, 0);
        prop_assert_eq!(finals(emitted), replayed(&sent));
    }
}

/// The last emissions of the final stories of unchanged rules.
fn finals(emitted: Vec<Story>) -> Vec<Json> {
    let mut last = std::collections::BTreeMap::new();
    for story in emitted.iter().filter(|s| is_final(s) && !s.rule.starts_with("other-")) {
        last.insert(story.id, summary(story));
    }
    let mut summaries: Vec<Json> = last.into_values().collect();
    summaries.sort_by_key(Json::to_string);
    summaries
}

#[test]
fn deviation_survives_reload_and_restart() {
    let usual = (0..20).map(|n| (0, 100 + n * 200, 100 + n * 200, 0));
    let burst = (0..9).map(|n| (0, 4_120 + n, 4_130 + n, 0));
    let events: Vec<_> = usual.chain(burst).chain([(0, 9_000, 9_000, 2)]).collect();
    let changes = [(2_000, Change::Reload), (3_000, Change::Restart), (4_125, Change::Restart)];
    for changes in [&[], &changes[..]] {
        let (emitted, _) = live_through(&sent(&events), changes);
        let unusual: Vec<&Story> = emitted.iter().filter(|s| s.rule == "unusual").collect();
        let last = unusual.last().unwrap();
        assert_eq!((last.name.as_str(), last.state), ("9 instead of 1: 8", StoryState::Closed));
        assert!(unusual.iter().all(|s| s.id == last.id), "{changes:?}");
    }
}

#[test]
fn story_of_removed_rule_ends() {
    // The reload happens while the story is open, before the watermark has passed it.
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
    let emitted = live.emitted;
    let states: Vec<&str> =
        emitted.iter().filter(|s| s.rule == "chain").map(|s| s.state.as_str()).collect();
    assert_eq!(states, ["opened", "closed"]);
}

fn sent(list: &[(u8, u64, u64, usize)]) -> Vec<Arrival> {
    let number = (1u64..).zip(list);
    number
        .map(|(position, (source, time_ms, arrives_ms, kind))| Arrival {
            source: *source,
            position,
            time_ms: *time_ms,
            arrives_ms: *arrives_ms,
            kind: *kind,
            key: 0,
        })
        .collect()
}

#[test]
fn story_is_emitted_before_watermark_and_confirmed_after_it() {
    let (emitted, _) = live(&sent(&[(0, 1000, 1000, 0), (0, 1200, 1200, 1), (0, 1300, 1300, 2)]));
    let chain: Vec<&Story> = emitted.iter().filter(|s| s.rule == "chain").collect();
    let states: Vec<&str> = chain.iter().map(|s| s.state.as_str()).collect();
    assert_eq!(states, ["opened", "closed"]);
    assert_eq!(chain[0].id, chain[1].id);
    assert!(chain[1].revision > chain[0].revision, "the end is an update of the emitted story");
}

#[test]
fn story_not_confirmed_by_event_time_is_retracted() {
    // b happened before a and arrived after it.
    let (emitted, stats) =
        live(&sent(&[(0, 1100, 1100, 0), (1, 1000, 1150, 1), (1, 1400, 1400, 2)]));
    let states: Vec<&str> =
        emitted.iter().filter(|s| s.rule == "chain").map(|s| s.state.as_str()).collect();
    assert_eq!(states, ["opened", "retracted"]);
    assert_eq!(stats.retracted, 1);
}

#[test]
fn story_with_another_first_event_names_the_emitted_one() {
    // Of two first events the later one arrives first: event time begins the story with the other.
    let events = [(0, 1000, 1150, 0), (1, 1100, 1100, 0), (1, 1300, 1300, 1), (1, 1400, 1400, 2)];
    let (emitted, stats) = live(&sent(&events));
    let chain: Vec<&Story> = emitted.iter().filter(|s| s.rule == "chain").collect();
    let states: Vec<&str> = chain.iter().map(|s| s.state.as_str()).collect();
    assert_eq!(states, ["opened", "closed", "retracted"]);
    assert_eq!(chain[1].provisional, Some(chain[0].id));
    assert_eq!(chain[2].id, chain[0].id);
    assert_eq!(stats.relinked, 1);
}

#[test]
fn events_of_the_absence_keep_their_order_after_restart() {
    // One source reports the present at once; another one reports the chain's first event two
    // seconds later.
    let events = [(0, 500, 500, 2), (0, 9100, 9100, 1), (0, 9900, 9900, 2), (1, 8000, 11_000, 0)];
    let (emitted, stats) = live_through(&sent(&events), &[(9000, Change::Restart)]);
    assert_eq!((stats.late, stats.retracted), (0, 0));
    let closed: Vec<&Story> = emitted.iter().filter(|s| s.rule == "chain" && is_final(s)).collect();
    let [closed] = closed[..] else {
        panic!("{:?}", emitted.iter().map(summary).collect::<Vec<_>>())
    };
    assert_eq!((closed.first_ns, closed.members_total), (START_NS + 8000 * MS, 2));
}

#[test]
fn late_event_becomes_member_only() {
    let events = [(0, 1001, 1001, 0), (0, 1501, 1501, 1), (0, 2901, 2901, 0), (1, 1201, 3151, 1)];
    late_member(live(&sent(&events)));
    // The same after a restart.
    let more = [&events[..], &[(0, 3401, 3401, 2)]].concat();
    late_member(live_through(&sent(&more), &[(3300, Change::Restart)]));
}

fn late_member((emitted, stats): (Vec<Story>, EventTimeStats)) {
    assert_eq!(stats.late, 1);
    let closed: Vec<&Story> = emitted.iter().filter(|s| s.rule == "chain" && is_final(s)).collect();
    assert_eq!(closed.len(), 1);
    let late: Vec<&str> =
        closed[0].members.iter().filter(|m| m.role == "late").map(|m| m.label.as_str()).collect();
    assert_eq!(late, ["1-4"], "{:?}", emitted.iter().map(summary).collect::<Vec<_>>());
}

#[test]
fn late_member_beyond_kept_ones_is_counted() {
    let mut events: Vec<(u8, u64, u64, usize)> =
        (0..70).map(|n| (0, 1001 + n, 1001 + n, 0)).collect();
    events.extend([(0, 2901, 2901, 0), (1, 1201, 3151, 0)]);
    let (emitted, stats) = live(&sent(&events));
    assert_eq!(stats.late, 1);
    let many: Vec<&Story> = emitted.iter().filter(|s| s.rule == "many" && is_final(s)).collect();
    assert_eq!((many.len(), many[0].members_total), (1, 72));
    // None of the kept members is a late event.
    assert!(many[0].members.iter().all(|m| m.role != "late"), "{}", summary(many[0]));
}
