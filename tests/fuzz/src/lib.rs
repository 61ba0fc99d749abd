//! What the fuzz targets share: events through the rules with one shard and with three, and what
//! must hold whatever they are.

use std::sync::LazyLock;

use tapio::dataflow::rules::{Loaded, Rule, builtin};
use tapio::runtime::replay::{Emit, Inputs, Replayed, run};

/// Stands between a rule document and the events it is shown, in an input of the target `rules`.
pub const EVENTS_MARK: &str = "\n%events\n";

/// Rules of every shape over few kinds, beside the built-in ones.
const SHAPES: &str = include_str!("../shapes.yaml");

/// The built-in rules and those of `shapes.yaml`.
///
/// # Panics
/// When they don't load: the targets would look at nothing.
pub fn known_rules() -> Vec<Rule> {
    static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
        let mut loaded: Loaded = builtin();
        loaded.text("shapes.yaml", SHAPES);
        assert_eq!(loaded.errors, []);
        loaded.rules
    });
    RULES.clone()
}

fn replayed(inputs: Inputs, rules: &[Rule], shards: usize, emit: Emit) -> Option<Replayed> {
    // Without threads there is nothing to look at: the machine's trouble, not the input's.
    let replayed = run(inputs, rules.to_vec(), "", shards, emit).ok()?;
    let total = &replayed.account.total;
    assert!(replayed.account.holds() && total.held == 0, "CONS-1: {total:?}");
    Some(replayed)
}

/// Shows events to rules with one shard and with three.
///
/// # Panics
/// When the two print something else, or when CONS-1 doesn't hold.
pub fn replay_agrees(events: &[u8], rules: &[Rule]) {
    // What is printed is chosen by the input, so that a crash comes again.
    let emit = [Emit::Groups, Emit::Matches, Emit::Events][events.len() % 3];
    let inputs = || Inputs::text("fuzz", events);
    let (Some(one), Some(three)) =
        (replayed(inputs(), rules, 1, emit), replayed(inputs(), rules, 3, emit))
    else {
        return;
    };
    let text = |r: &Replayed| r.lines.iter().map(|l| format!("{l}\n")).collect::<String>();
    assert_eq!(text(&one), text(&three), "one shard and three differ, {emit:?}");
}
