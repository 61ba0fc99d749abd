//! The demo's output.

use serde_json::json;

use super::args::Args;
use super::environment::{CausedFault, DemoEnvironment, StoredResults};
use crate::cli::output::{Output, Style, print};
use crate::cli::story;
use crate::runtime::snapshot_json;
use tapio_core::event::Story;
use tapio_core::ring::Snapshot;

/// Prints the stories of each fault. As text, further stories of the same pattern are counted only.
pub(super) fn print_stories(
    args: &Args,
    faults: &[CausedFault],
    stored: &StoredResults,
) -> anyhow::Result<()> {
    let style = Style::from_environment();
    for fault in faults {
        let stories = stored.stories(fault);
        if args.output == Output::Json {
            let line = json!({
                "fault": fault.name,
                "pids": fault.pids,
                "stories": stories.iter().map(|story| story.json()).collect::<Vec<_>>(),
                "events": stored.events(fault),
            });
            print(&line.to_string())?;
            continue;
        }
        for pattern in fault.patterns {
            let of_pattern: Vec<&&Story> =
                stories.iter().filter(|story| story.pattern == *pattern).collect();
            let Some((first, others)) = of_pattern.split_first() else {
                continue;
            };
            style.print(&story::story_text(first, &style))?;
            if !others.is_empty() {
                style.print(&format!("  … and {} more of this pattern", others.len()))?;
            }
            print("")?;
        }
    }
    Ok(())
}

/// Prints how many faults have their stories, and CONS-1.
pub(super) fn print_summary(
    args: &Args,
    faults: &[CausedFault],
    stored: &StoredResults,
    account: &Snapshot,
    environment: &DemoEnvironment,
) -> anyhow::Result<()> {
    let found = faults.iter().filter(|fault| stored.has_stories_of(fault)).count();
    let others = stored.other_stories();
    if args.output == Output::Json {
        let summary = json!({
            "faults": faults.len(), "found": found, "other_stories": others,
            "cons1": snapshot_json(account),
        });
        print(&json!({"summary": summary}).to_string())?;
    } else {
        let total = &account.total;
        let dropped: u64 = total.dropped.iter().map(|d| d.2).sum();
        let verdict = if account.holds() { "holds" } else { "is violated" };
        print(&format!(
            "{found} of {} faults were found and emitted as stories; {others} stories of other processes are omitted.\n\
             CONS-1 {verdict}: {} events received = {} forwarded + {dropped} dropped + {} held",
            faults.len(),
            total.received,
            total.forwarded,
            total.held
        ))?;
    }
    if args.keep_data {
        args.progress(&format!("The data is in {}", environment.folder().display()))?;
    }
    Ok(())
}
