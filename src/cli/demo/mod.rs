//! `tapio demo`: causes faults and shows what tapio makes of them.
//!
//! | file | purpose |
//! | --- | --- |
//! | `fault.rs` | the faults: child processes that fail |
//! | `cgroup.rs` | the small memory cgroup one of them fails in |
//! | `scene.rs` | the agent, the children, what the server knows of them |
//! | `recorded.rs` | recorded stories, where the kernel can't be watched |

mod cgroup;
mod fault;
mod recorded;
mod scene;

use std::process::ExitCode;

use serde_json::json;

use self::cgroup::SmallCgroup;
use self::scene::{Caused, Scene, Seen};
use super::{Outcome, Output, print, story, tell};
use crate::runtime::snapshot_json;
use tapio_collectors::ebpf;
use tapio_core::event::Story;
use tapio_core::ring::Snapshot;

pub(super) use fault::{FaultArgs, fault};

const LIMIT_BYTES: u64 = 32 << 20;
const CRASHES: u32 = 4;
const ATTEMPTS: u32 = 25;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  sudo tapio demo\n  tapio demo --output json\n\nThe faults happen to child processes of the demo only: one takes more memory than its\nown cgroup may have, four read through a null pointer, one connects to a closed port."
)]
pub(super) struct Args {
    /// Keep the folder with the stored events and stories
    #[arg(long)]
    keep_data: bool,
    /// How to print: stories as text, or JSON lines (a fault with its stories and events each, then a summary)
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

impl Args {
    /// Says what is going on: on standard output for people, beside the data for programs.
    fn say(&self, text: &str) -> std::io::Result<()> {
        match self.output {
            Output::Text => print(text),
            Output::Json => {
                tell(text);
                Ok(())
            }
        }
    }
}

pub(super) fn run(args: &Args) -> Outcome {
    let watching = ebpf::findings(&ebpf::Config::default());
    let missing: Vec<&ebpf::Finding> = watching.iter().filter(|f| f.is_fatal()).collect();
    if !missing.is_empty() {
        return recorded::show(args, &missing);
    }
    let mut scene = Scene::open(args.keep_data)?;
    args.say("tapio watches this machine's kernel. Now three faults, all in child processes.\n")?;
    let mut caused = vec![];
    caused.extend(hog(args, &mut scene)?);
    caused.push(crashes(args, &mut scene)?);
    caused.push(refusals(args, &mut scene)?);
    let account = scene.drain();
    let seen = scene.look(&caused)?;
    show(args, &caused, &seen)?;
    summary(args, &caused, &seen, &account, &scene)?;
    if !account.holds() || account.total.held > 0 {
        anyhow::bail!("CONS-1 doesn't hold: {:?}", account.total);
    }
    let untold: Vec<&str> = caused.iter().filter(|c| !seen.tells(c)).map(|c| c.name).collect();
    if !untold.is_empty() {
        anyhow::bail!("caused, but not told as a story: {}", untold.join(", "));
    }
    Ok(ExitCode::SUCCESS)
}

/// Fault 1. `None` where no cgroup can be made for it.
fn hog(args: &Args, scene: &mut Scene) -> anyhow::Result<Option<Caused>> {
    let name = format!("tapio-demo-{}", std::process::id());
    let cgroup = match SmallCgroup::make(&name, LIMIT_BYTES) {
        Ok(cgroup) => cgroup,
        Err(e) => {
            args.say(&format!(
                "1. Skipped: no cgroup with a memory limit can be made ({e}); run as root for this one."
            ))?;
            return Ok(None);
        }
    };
    args.say(&format!(
        "1. A child takes memory in a cgroup of its own that may have 32 MiB ({}).",
        cgroup.folder().display()
    ))?;
    let entrance = cgroup.entrance().display().to_string();
    let mut caused = Caused::new(
        "memory limit",
        &["oom-kill"],
        &["kernel.process.oom_kill", "kernel.process.exit"],
    );
    scene.child(&mut caused, "demo-hog", &["hog", &entrance])?;
    scene.wait_for(&caused)?;
    Ok(Some(caused))
}

/// Fault 2.
fn crashes(args: &Args, scene: &mut Scene) -> anyhow::Result<Caused> {
    args.say(&format!("2. {CRASHES} children, one after the other, read through a null pointer."))?;
    let mut caused = Caused::new(
        "segmentation faults",
        &["segfault", "crash-loop"],
        &["kernel.process.signal", "kernel.process.exit"],
    );
    for _ in 0..CRASHES {
        scene.child(&mut caused, "demo-crasher", &["segfault"])?;
    }
    scene.wait_for(&caused)?;
    Ok(caused)
}

/// Fault 3.
fn refusals(args: &Args, scene: &mut Scene) -> anyhow::Result<Caused> {
    // A port that was free an instant ago, and that nobody else is given soon.
    let port = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    args.say(&format!(
        "3. A child connects {ATTEMPTS} times to 127.0.0.1:{port}, where nobody listens.\n"
    ))?;
    let mut caused =
        Caused::new("refused connections", &["connection-refused"], &["kernel.tcp.refused"]);
    let (port, times) = (port.to_string(), ATTEMPTS.to_string());
    scene.child(&mut caused, "demo-client", &["refused", &port, &times])?;
    scene.wait_for(&caused)?;
    Ok(caused)
}

/// Prints what came out. Stories like one that was printed are only counted for people.
fn show(args: &Args, caused: &[Caused], seen: &Seen) -> anyhow::Result<()> {
    let colour = story::colours();
    for one in caused {
        let stories = seen.stories(one);
        if args.output == Output::Json {
            let line = json!({
                "fault": one.name,
                "pids": one.pids,
                "stories": stories.iter().map(|g| g.json()).collect::<Vec<_>>(),
                "events": seen.events(one),
            });
            print(&line.to_string())?;
            continue;
        }
        for pattern in one.patterns {
            let alike: Vec<&&Story> = stories.iter().filter(|g| g.pattern == *pattern).collect();
            let Some((first, others)) = alike.split_first() else {
                continue;
            };
            print(&story::story_text(first, colour))?;
            if !others.is_empty() {
                print(&format!("  … and {} more like it", others.len()))?;
            }
            print("")?;
        }
    }
    Ok(())
}

fn summary(
    args: &Args,
    caused: &[Caused],
    seen: &Seen,
    account: &Snapshot,
    scene: &Scene,
) -> anyhow::Result<()> {
    let told = caused.iter().filter(|c| seen.tells(c)).count();
    let others = seen.others();
    if args.output == Output::Json {
        let summary = json!({
            "faults": caused.len(), "told": told, "other_stories": others, "cons1": snapshot_json(account),
        });
        print(&json!({"summary": summary}).to_string())?;
    } else {
        let total = &account.total;
        let dropped: u64 = total.dropped.iter().map(|d| d.2).sum();
        let verdict = if account.holds() { "holds" } else { "is broken" };
        print(&format!(
            "{told} of {} faults came out as stories; {others} stories of other processes aren't shown.\n\
             CONS-1 {verdict}: {} events received = {} forwarded + {dropped} dropped + {} held",
            caused.len(),
            total.received,
            total.forwarded,
            total.held
        ))?;
    }
    if args.keep_data {
        args.say(&format!("The data is in {}", scene.folder().display()))?;
    }
    Ok(())
}
