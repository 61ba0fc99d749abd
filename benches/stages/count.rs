//! Instructions of each stage, counted by callgrind.
//!
//! callgrind writes a file at each call of [`round_ends`], with the instructions inside
//! [`crate::meter`] since the file before. Each stage has three rounds: one that fills caches and
//! tables, one of N items and one of 2 N. The difference of the latter two is the cost of N items,
//! without what a round costs itself.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::exit;

use serde_json::{Map, Value, json};

use crate::Stage;
use crate::meter::Meter;

/// Rounds of a stage.
const ROUNDS: usize = 3;

/// Difference from the baseline that is no failure. Hash tables have random seeds, and a change
/// elsewhere can move what the compiler inlines.
const TOLERANCE_PERCENT: f64 = 10.0;

/// Runs the rounds of every stage, for callgrind.
pub(crate) fn run(stages: &[Stage]) {
    for stage in stages {
        let mut round = (stage.build)();
        let rounds: [u64; ROUNDS] = [stage.warm_items, stage.items, 2 * stage.items];
        for items in rounds {
            round(items, &mut Meter::default());
            round_ends(items);
        }
    }
}

/// callgrind writes its file before this.
#[inline(never)]
fn round_ends(items: u64) {
    black_box(items);
}

/// Prints a table and compares with the baseline, unless `STAGES_BASELINE` is set. Ends the process
/// with 1 where a stage costs more than the tolerance allows, or the baseline and the stages aren't
/// the same. With `STAGES_RENEW` set, the counts become the baseline instead.
pub(crate) fn report(stages: &[Stage]) {
    let has_baseline = std::env::var_os("STAGES_BASELINE").is_none();
    let counts: Vec<_> = (0..).zip(stages).map(|(n, stage)| (stage, per_item(stage, n))).collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("perf/instructions.json");
    if has_baseline && std::env::var_os("STAGES_RENEW").is_some() {
        let stages: Map<_, _> =
            counts.iter().map(|(stage, count)| (stage.name.clone(), json!(count))).collect();
        let text = serde_json::to_string_pretty(&json!({ "instructions_per_item": stages }));
        std::fs::write(&path, text.unwrap() + "\n").unwrap();
    }
    let baseline: Value = match has_baseline {
        true => serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap(),
        false => Value::Null,
    };
    let baseline = &baseline["instructions_per_item"];
    let width = counts.iter().map(|(stage, _)| stage.name.len()).max().unwrap_or(0);
    println!("{:width$} {:>12} {:>9} {:>8}", "instructions per item", "now", "baseline", "");
    let mut is_above = false;
    for (stage, count) in &counts {
        let before = baseline[&stage.name].as_u64();
        let (before_text, verdict) = match before {
            None => ("-".into(), String::new()),
            Some(before) => (before.to_string(), verdict(*count, before)),
        };
        println!("{:width$} {count:>12} {before_text:>9} {verdict}", stage.name);
        is_above |= verdict.contains("ABOVE") || (has_baseline && before.is_none());
    }
    let gone: Vec<_> = baseline.as_object().into_iter().flatten().map(|(name, _)| name).collect();
    let gone = gone.into_iter().filter(|name| !stages.iter().any(|stage| stage.name == **name));
    for name in gone {
        println!("{name}: in the baseline only");
        is_above = true;
    }
    if is_above {
        println!(
            "above the baseline by more than {TOLERANCE_PERCENT} %, or in one of the two only: make \
             it cheaper, or give the reason in the commit and renew the baseline \
             (perf/instructions.sh --renew)"
        );
        exit(1);
    }
}

/// The difference from the baseline, and whether it is a failure.
fn verdict(count: u64, before: u64) -> String {
    let percent = (count as f64 / before as f64 - 1.0) * 100.0;
    let note = match percent {
        p if p > TOLERANCE_PERCENT => "  ABOVE",
        p if p < -TOLERANCE_PERCENT => "  far below: renew the baseline (--renew)",
        _ => "",
    };
    format!("{percent:>+6.1} %{note}")
}

/// Instructions per item of the `n`-th stage.
fn per_item(stage: &Stage, n: usize) -> u64 {
    let [_, one, two] = [1, 2, 3].map(|round| instructions(n * ROUNDS + round));
    assert!(two > one && one > 0, "{}: {one} and {two} instructions were counted", stage.name);
    (two - one).div_ceil(stage.items)
}

/// The instructions in callgrind's `n`-th file, from 1.
fn instructions(n: usize) -> u64 {
    let dir = PathBuf::from(std::env::var_os("STAGES_DIR").unwrap());
    let path = dir.join(format!("callgrind.{n}"));
    let text = std::fs::read_to_string(&path);
    let text = text.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let counted = text.lines().find_map(|line| line.strip_prefix("summary: "));
    let counted = counted.unwrap_or_else(|| panic!("{}: no summary", path.display()));
    counted.trim().parse().unwrap()
}
