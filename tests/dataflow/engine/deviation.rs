//! Deviations from what is usual, against an engine that keeps the plain list of a key's events and
//! computes every window again for each event.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::case::{KEYS, TestEvent, ordered, replayed};

/// Windows that are remembered, and the distance from which one is set aside.
const WINDOWS: usize = 120;
const ASIDE: f64 = 4.0;

#[derive(Clone, Debug)]
struct Rule {
    measure: &'static str,
    within_s: u64,
    learn: usize,
    bounds: Vec<(&'static str, f64)>,
    at_least: Option<f64>,
}

impl Rule {
    fn text(&self) -> String {
        let field = if self.measure == "count" { "" } else { "field: attributes.n, " };
        let bounds: String =
            self.bounds.iter().map(|(c, bound)| format!("{c}: {bound}, ")).collect();
        let absolute = self.at_least.map(|bound| format!("gte: {bound}, ")).unwrap_or_default();
        format!(
            "rule: r\nevents: {{ e: {{ kind: 't.*' }} }}\n{}: {{ event: e, by: [attributes.k], \
             {field}within: {}s, condition: {{ {absolute}deviation: {{ {bounds}learn: {} }} }} }}\n\
             story: {{ pattern: case }}\n",
            self.measure, self.within_s, self.learn
        )
    }

    fn is_amount(&self) -> bool {
        self.measure != "avg"
    }

    fn measured(&self, events: &[&TestEvent]) -> f64 {
        let numbers = events.iter().map(|e| e.number());
        let sum = || numbers.clone().sum::<i64>() as f64;
        match self.measure {
            "count" => events.len() as f64,
            "sum" => sum(),
            "avg" => sum() / events.len() as f64,
            _ => numbers.collect::<std::collections::BTreeSet<_>>().len() as f64,
        }
    }

    fn floor(&self, median: f64) -> f64 {
        match self.measure {
            "count" | "distinct" => median.max(0.0).sqrt().max(1.0),
            _ if median == 0.0 => 1.0,
            _ => median.abs() / 10.0,
        }
    }

    /// Median and standard deviation of the learned ones of the latest windows.
    fn usual(&self, windows: &[Window]) -> Option<(f64, f64)> {
        let latest = &windows[windows.len().saturating_sub(WINDOWS)..];
        let mut learned: Vec<f64> =
            latest.iter().filter_map(|w| w.value.filter(|_| w.is_learned)).collect();
        if learned.len() < self.learn {
            return None;
        }
        learned.sort_by(f64::total_cmp);
        let quantile = |share: f64| {
            let at = share * (learned.len() - 1) as f64;
            let (low, high) = (learned[at.floor() as usize], learned[at.ceil() as usize]);
            low + (high - low) * at.fract()
        };
        let quartiles = (quantile(0.75) - quantile(0.25)) / 1.349;
        let deciles = (quantile(0.9) - quantile(0.1)) / 2.563;
        let median = quantile(0.5);
        Some((median, quartiles.max(deciles).max(self.floor(median))))
    }

    fn deviation(&self, windows: &[Window], value: f64) -> Option<f64> {
        self.usual(windows).map(|(median, spread)| (value - median) / spread)
    }

    /// Appends a window that had these events, all of one key.
    fn learn(&self, windows: &mut Vec<Window>, events: &[&TestEvent]) {
        let value = match events {
            [] => self.is_amount().then_some(0.0),
            events => Some(f64::from(self.measured(events) as f32)),
        };
        let deviates =
            value.and_then(|v| self.deviation(windows, v)).is_some_and(|z| z.abs() > ASIDE);
        let is_silent = events.is_empty();
        windows.push(Window { value, is_learned: !deviates, is_silent });
        let start = windows.len().saturating_sub(WINDOWS);
        let aside = |w: &Window| !w.is_learned && !w.is_silent;
        if !deviates
            || is_silent
            || windows[start..].iter().filter(|w| aside(w)).count() < self.learn
        {
            return;
        }
        let with_value: Vec<usize> =
            (start..windows.len()).filter(|i| windows[*i].value.is_some()).collect();
        let row = &with_value[with_value.len() - self.learn..];
        if row.iter().all(|i| aside(&windows[*i])) {
            windows.drain(..row[0]);
        }
        let start = windows.len().saturating_sub(WINDOWS);
        windows[start..].iter_mut().filter(|w| !w.is_silent).for_each(|w| w.is_learned = true);
    }
}

/// A window of one key that is over.
#[derive(Clone, Debug)]
struct Window {
    value: Option<f64>,
    is_learned: bool,
    is_silent: bool,
}

/// Firings as (line, value, deviation).
fn firings(rule: &Rule, events: &[TestEvent]) -> Vec<(usize, f64, f64)> {
    let all = ordered(events);
    let mut firings = Vec::new();
    for (position, (line, event)) in all.iter().enumerate() {
        let Some(key) = event.key else { continue };
        let of_key: Vec<&TestEvent> =
            all[..=position].iter().map(|(_, e)| *e).filter(|e| e.key == Some(key)).collect();
        let number = |e: &TestEvent| (1_700_000_000 + e.time_s) / rule.within_s;
        let gap = |pair: &[&TestEvent]| number(pair[1]) - number(pair[0]) > WINDOWS as u64;
        let start = of_key.windows(2).rposition(gap).map_or(0, |at| at + 1);
        let of_key = &of_key[start..];
        let mut windows = Vec::new();
        for window in number(of_key[0]) + 1..number(event) {
            let inside: Vec<&TestEvent> =
                of_key.iter().copied().filter(|e| number(e) == window).collect();
            rule.learn(&mut windows, &inside);
        }
        let trailing: Vec<&TestEvent> =
            of_key.iter().copied().filter(|e| event.time_s - e.time_s <= rule.within_s).collect();
        let value = rule.measured(&trailing);
        let Some(deviation) = rule.deviation(&windows, value) else { continue };
        let holds = rule.bounds.iter().all(|(comparison, bound)| match *comparison {
            "gt" => deviation > *bound,
            "gte" => deviation >= *bound,
            "lt" => deviation < *bound,
            _ => deviation <= *bound,
        });
        if holds && rule.at_least.is_none_or(|least| value >= least) {
            firings.push((*line, value, deviation));
        }
    }
    firings
}

fn arbitrary_rule() -> impl Strategy<Value = Rule> {
    let measure = prop_oneof![
        3 => Just("count"), 1 => Just("sum"), 1 => Just("avg"), 1 => Just("distinct"),
    ];
    let bounds = prop_oneof![
        3 => Just(vec![("gt", 3.0)]),
        1 => Just(vec![("lte", -1.5)]),
        1 => Just(vec![("gte", 1.0), ("lt", 5.0)]),
    ];
    let at_least = prop::option::weighted(0.3, (1..6u8).prop_map(f64::from));
    (measure, 1..6u64, 6..9usize, bounds, at_least).prop_map(
        |(measure, within_s, learn, bounds, at_least)| Rule {
            measure,
            within_s,
            learn,
            bounds,
            at_least,
        },
    )
}

/// Quiet and busy times, new levels, gaps, and silence after which everything is forgotten.
fn arbitrary_history() -> impl Strategy<Value = Vec<TestEvent>> {
    let phase = (prop_oneof![8 => 0..5u64, 2 => 20..60u64, 1 => 300..800u64], 1..12usize, 1..25u64);
    prop::collection::vec(phase, 1..12).prop_map(|phases| {
        let (mut time_s, mut events) = (0, Vec::new());
        for (gap_s, rate, seconds) in phases {
            time_s += gap_s;
            for _ in 0..seconds {
                time_s += 1;
                // Beside a second key that sees a part of it, and events without a key.
                for n in 0..rate {
                    let key = [Some(0), Some(0), Some(1), None, Some(0)][n % 5];
                    events.push(TestEvent { time_s, kind: n % 4, key });
                }
            }
        }
        events
    })
}

fn printed(rule: &Rule, events: &[TestEvent], shards: usize) -> Vec<Json> {
    let lines = replayed(&rule.text(), events, shards);
    lines
        .iter()
        .map(|m| json!([m["event"], m["value"], rounded(m["deviation"].as_f64().unwrap())]))
        .collect()
}

/// Beyond rounding errors.
fn rounded(number: f64) -> i64 {
    (number * 1e6).round() as i64
}

fn expected(rule: &Rule, events: &[TestEvent]) -> Vec<Json> {
    let number = |v: f64| if v.fract() == 0.0 { json!(v as i64) } else { json!(v) };
    let firing =
        |(line, value, z): (usize, f64, f64)| json!([line.to_string(), number(value), rounded(z)]);
    firings(rule, events).into_iter().map(firing).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn deviations_equal_naive_engine(rule in arbitrary_rule(), events in arbitrary_history()) {
        let expected = expected(&rule, &events);
        for shards in [1, 3] {
            prop_assert_eq!(printed(&rule, &events, shards), &expected[..], "{} shards\n{}", shards, rule.text());
        }
    }
}

/// `rate` events of a key in each of these seconds.
fn at_rate(seconds: std::ops::Range<u64>, rate: usize) -> Vec<TestEvent> {
    let event = |time_s| TestEvent { time_s, kind: 0, key: Some(0) };
    seconds.flat_map(|time_s| std::iter::repeat_n(event(time_s), rate)).collect()
}

fn count(bounds: Vec<(&'static str, f64)>) -> Rule {
    Rule { measure: "count", within_s: 10, learn: 12, bounds, at_least: None }
}

/// The seconds in which the rule fires, from the first to the last.
fn fires(rule: &Rule, events: &[TestEvent]) -> Vec<u64> {
    let lines = replayed(&rule.text(), events, 2);
    let mut seconds: Vec<u64> = lines
        .iter()
        .map(|m| events[m["event"].as_str().unwrap().parse::<usize>().unwrap()].time_s)
        .collect();
    seconds.dedup();
    seconds
}

#[test]
fn burst_deviates_once_enough_windows_are_learned() {
    let above = count(vec![("gt", 6.0)]);
    // The window that is open when the key is seen first isn't learned.
    for (learned_s, deviates) in [(125, false), (140, true)] {
        let events = [at_rate(5..learned_s, 2), at_rate(learned_s..learned_s + 5, 40)].concat();
        assert_eq!(fires(&above, &events).is_empty(), !deviates, "{learned_s}");
    }
}

#[test]
fn new_level_is_usual_after_as_many_windows_as_are_learned() {
    let above = count(vec![("gt", 6.0)]);
    let events = [at_rate(0..400, 1), at_rate(400..1_000, 10)].concat();
    let seconds = fires(&above, &events);
    let (first, last) = (seconds[0], seconds[seconds.len() - 1]);
    assert!((400..410).contains(&first), "{first}");
    // Twelve windows of ten seconds.
    assert!((510..=530).contains(&last), "{last}");
    // The level before would be a fall now.
    let back = [events, at_rate(1_000..1_100, 1)].concat();
    let below = count(vec![("lt", -6.0)]);
    assert!(fires(&below, &back).contains(&1_050));
}

#[test]
fn silence_does_not_become_usual_while_busy_windows_are_remembered() {
    let above = count(vec![("gt", 6.0)]);
    let events = [at_rate(0..400, 10), at_rate(900..1_000, 10)].concat();
    assert_eq!(fires(&above, &events), Vec::<u64>::new());
    // Of a key that is silent most of the time, silence is usual.
    let rare = [at_rate(0..1, 1), at_rate(300..301, 1), at_rate(600..603, 10)].concat();
    assert_eq!(fires(&above, &rare), [600, 601, 602]);
    // After 120 windows, all is forgotten.
    let long_ago = [at_rate(0..1, 1), at_rate(1_300..1_303, 10)].concat();
    assert_eq!(fires(&above, &long_ago), Vec::<u64>::new());
}

#[test]
fn keys_are_learned_each_for_itself() {
    let of_key = |mut events: Vec<TestEvent>, key| {
        events.iter_mut().for_each(|event| event.key = Some(key));
        events
    };
    let busy = of_key(at_rate(0..400, 20), 0);
    let quiet = of_key([at_rate(0..350, 1), at_rate(350..355, 20)].concat(), 1);
    let lines = replayed(&count(vec![("gt", 6.0)]).text(), &[busy, quiet].concat(), 3);
    assert!(!lines.is_empty());
    assert!(lines.iter().all(|m| m["key"]["attributes.k"] == KEYS[1]), "{lines:?}");
}
