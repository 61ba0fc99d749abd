//! Shared by the fuzz targets: replay of events with one shard and with three, a collector's output
//! through a ring, and the invariants that hold for any input.

#[path = "../../support/router.rs"]
mod router;

use std::sync::{Arc, LazyLock, OnceLock};

use router::OneShard;
use tapio_collectors::{Context, Site, StatusReport};
use tapio_core::event::{JsonEvent, Reason, Stage, event_json};
use tapio_core::ring::{Bell, Ledger, OnFull, Sink, ring};
use tapio_core::shutdown::Shutdown;
use tapio_dataflow::replay::{Emit, Inputs, Replayed, run_set};
use tapio_dataflow::rules::{Loaded, Rule, RuleSet, builtin};

/// Separates rule documents from events in an input of the target `rules`.
pub const EVENTS_MARK: &str = "\n%events\n";

/// Rules with every pattern over few kinds, added to the built-in ones.
const SHAPES: &str = include_str!("../shapes.yaml");

/// The numbers of shards that are compared.
const SHARDS: [usize; 2] = [1, 3];

/// Rules for one shard and for three.
pub struct Sets([Arc<RuleSet>; 2]);

impl Sets {
    /// Compiles rules.
    #[must_use]
    pub fn new(rules: &[Rule]) -> Self {
        Self(SHARDS.map(|shards| Arc::new(RuleSet::new(rules.to_vec(), "", shards))))
    }

    /// The rule set for one shard.
    #[must_use]
    pub fn of_one_shard(&self) -> Arc<RuleSet> {
        Arc::clone(&self.0[0])
    }
}

/// The built-in rules and those of `shapes.yaml`, compiled once: that takes longer than an input.
///
/// # Panics
/// If they don't load, since the targets would test nothing.
pub fn builtin_sets() -> &'static Sets {
    static KNOWN: LazyLock<Sets> = LazyLock::new(|| {
        let mut loaded: Loaded = builtin();
        loaded.text("shapes.yaml", SHAPES);
        assert_eq!(loaded.errors, []);
        // Only `tapio rules test` uses a rule's tests.
        loaded.rules.iter_mut().for_each(|rule| rule.tests.clear());
        Sets::new(&loaded.rules)
    });
    &KNOWN
}

fn replayed(inputs: Inputs, rules: &Arc<RuleSet>, emit: Emit) -> Option<Replayed> {
    // No thread could be started: the fault of the machine, not of the input.
    let replayed = run_set(inputs, Arc::clone(rules), emit).ok()?;
    let total = &replayed.account.total;
    assert!(replayed.account.holds() && total.held == 0, "CONS-1: {total:?}");
    Some(replayed)
}

/// Replays events with one shard and with three.
///
/// # Panics
/// If the outputs differ, or if CONS-1 doesn't hold.
pub fn replay_agrees(events: &[u8], rules: &Sets) {
    // The input selects the output, so that a crash is reproducible.
    let emit = [Emit::Stories, Emit::Matches, Emit::Events][events.len() % 3];
    let [one, three] =
        rules.0.each_ref().map(|set| replayed(Inputs::text("fuzz", events), set, emit));
    let (Some(one), Some(three)) = (one, three) else {
        return;
    };
    let text = |r: &Replayed| r.lines.iter().map(|l| format!("{l}\n")).collect::<String>();
    assert_eq!(text(&one), text(&three), "one shard and three differ, {emit:?}");
}

/// The output of a collector.
pub struct Collected {
    /// Its events.
    pub events: Vec<serde_json::Value>,
    /// Number of inputs it couldn't decode.
    pub bad_inputs: u64,
}

/// Runs a collector into a ring and reads its events.
///
/// # Panics
/// If an event can't be read back from the ring or from JSON, or if CONS-1 doesn't hold.
pub fn collected<R>(collect: impl FnOnce(&mut Context) -> R) -> (R, Collected) {
    let mut ledger = Ledger::new(vec!["fuzz".into()]);
    let (writer, mut reader) = ring(1 << 12);
    let bell = Arc::new(Bell::new(OnceLock::new()));
    let shutdown = Shutdown::default();
    let stage = ledger.stage(Stage::Collect);
    let sink = Sink::new(
        0,
        OnFull::Drop,
        Arc::new(OneShard),
        vec![(writer, bell)],
        stage,
        shutdown.clone(),
    );
    let stored = ledger.stage(Stage::Bridge);
    // Creating the entity directory takes longer than all the rest.
    static SITE: LazyLock<Site> = LazyLock::new(|| Site::new("node", 7));
    let mut context = Context::new(sink, shutdown, StatusReport::default(), SITE.clone());
    let result = collect(&mut context);
    let mut events = Vec::new();
    reader.drain(usize::MAX, |record| {
        let event = record.event().expect("a written event can be read");
        let json = event_json(&event.borrowed(&mut Vec::new()));
        let again = JsonEvent::parse(&json.to_string(), "fuzz");
        assert!(again.is_ok(), "{:?}: {json}", again.err().map(|e| e.cause));
        events.push(json);
        true
    });
    stored.add_received(0, events.len() as u64);
    stored.add_forwarded(0, events.len() as u64);
    let account = ledger.snapshot();
    assert!(account.holds() && account.total.held == 0, "CONS-1: {account:?}");
    assert_eq!(account.total.forwarded, events.len() as u64);
    let bad = account.total.dropped.iter().filter(|(_, reason, _)| *reason == Reason::BadInput);
    (result, Collected { events, bad_inputs: bad.map(|(_, _, n)| n).sum() })
}
