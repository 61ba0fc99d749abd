//! Recorded stories, where the kernel can't be watched.

use std::process::ExitCode;

use super::scene::Folder;
use super::{Args, Output, print, story, tell};
use crate::cli::Outcome;
use tapio_collectors::ebpf::Finding;
use tapio_dataflow::replay::{Emit, replay};
use tapio_dataflow::rules;

const RECORDINGS: [(&str, &str); 2] = [
    ("nginx-cascade.jsonl", include_str!("../../../tests/stories/nginx-cascade.jsonl")),
    ("pod-startup.jsonl", include_str!("../../../tests/stories/pod-startup.jsonl")),
];

/// Says what is missing, then runs the recordings through the correlator.
pub(super) fn show(args: &Args, missing: &[&Finding]) -> Outcome {
    tell("tapio: the kernel can't be watched, so no fault is caused:");
    for one in missing {
        tell(&format!("  {}: {}", one.subject, one.state));
        tell(&format!("    what to do: {}", one.mend));
    }
    tell(
        "  the simplest ways: `sudo tapio demo`, or once `sudo setcap cap_bpf,cap_perfmon+ep` on the tapio program\n\
         tapio: what follows are RECORDINGS from other machines, run through this tapio's correlator",
    );
    let folder = Folder::make(args.keep_data)?;
    for (name, text) in RECORDINGS {
        let file = folder.path.join(name);
        std::fs::write(&file, text)?;
        let replayed = replay(&[file], rules::builtin().rules, "", 1, Emit::Stories)?;
        if !replayed.account.holds() || replayed.account.total.held > 0 {
            anyhow::bail!("CONS-1 doesn't hold: {:?}", replayed.account.total);
        }
        if args.output == Output::Text {
            print(&format!("Recording {name}:\n"))?;
        }
        for story in replayed.stories.iter().filter(|g| !g.is_lifecycle()) {
            if args.output == Output::Json {
                let line = serde_json::json!({"recording": name, "stories": [story.json()]});
                print(&line.to_string())?;
            } else {
                print(&story::story_text(story, story::colours()))?;
                print("")?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
