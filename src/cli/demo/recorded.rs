//! Recorded stories, where the kernel can't be observed.

use std::process::ExitCode;

use super::args::Args;
use super::environment::Folder;
use crate::cli::output::{Outcome, Output, Style, message, print};
use crate::cli::story;
use tapio_collectors::ebpf::Finding;
use tapio_dataflow::replay::{Emit, replay};
use tapio_dataflow::rules;

const RECORDINGS: [(&str, &str); 2] = [
    ("nginx-cascade.jsonl", include_str!("../../../tests/stories/nginx-cascade.jsonl")),
    ("pod-startup.jsonl", include_str!("../../../tests/stories/pod-startup.jsonl")),
];

/// Prints what is missing, then replays the recordings.
pub(super) fn print_recordings(args: &Args, missing: &[&Finding]) -> Outcome {
    message("tapio: the kernel can't be observed, so no fault is caused:");
    for finding in missing {
        message(&format!("  {}: {}", finding.subject, finding.state));
        message(&format!("    remedy: {}", finding.remedy));
    }
    message(
        "  simplest remedy: `sudo tapio demo`, or once `sudo setcap cap_bpf,cap_perfmon+ep` on the tapio binary\n\
         tapio: RECORDINGS from other machines follow, replayed by this tapio's correlator",
    );
    let style = Style::from_environment();
    let folder = Folder::create(args.keep_data)?;
    for (name, text) in RECORDINGS {
        let file = folder.path.join(name);
        std::fs::write(&file, text)?;
        let replayed = replay(&[file], rules::builtin().rules, "", 1, Emit::Stories)?;
        if !replayed.account.holds() || replayed.account.total.held > 0 {
            anyhow::bail!("CONS-1 violated: {:?}", replayed.account.total);
        }
        if args.output == Output::Text {
            print(&format!("Recording {name}:\n"))?;
        }
        for story in replayed.stories.iter().filter(|story| !story.is_lifecycle()) {
            if args.output == Output::Json {
                let line = serde_json::json!({"recording": name, "stories": [story.json()]});
                print(&line.to_string())?;
            } else {
                style.print(&story::story_text(story, &style))?;
                print("")?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
