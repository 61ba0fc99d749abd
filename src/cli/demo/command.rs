//! Causes the faults, one after the other, and waits for their stories.

use std::process::ExitCode;

use super::args::Args;
use super::cgroup::SmallCgroup;
use super::environment::{CausedFault, DemoEnvironment};
use super::recorded::print_recordings;
use super::report::{print_stories, print_summary};
use crate::cli::output::Outcome;
use tapio_collectors::ebpf;

const LIMIT_BYTES: u64 = 32 << 20;
const CRASHES: u32 = 4;
const ATTEMPTS: u32 = 25;

/// Causes the faults and prints their stories, or recordings where the kernel can't be observed.
pub(crate) fn run(args: &Args) -> Outcome {
    let findings = ebpf::findings(&ebpf::Config::default());
    let missing: Vec<&ebpf::Finding> = findings.iter().filter(|f| f.is_fatal()).collect();
    if !missing.is_empty() {
        return print_recordings(args, &missing);
    }
    let mut environment = DemoEnvironment::open(args.keep_data)?;
    args.progress(
        "tapio observes this machine's kernel. Three faults follow, all in child processes.\n",
    )?;
    let mut faults = vec![];
    faults.extend(memory_limit(args, &environment)?);
    faults.push(segmentation_faults(args, &environment)?);
    faults.push(refused_connections(args, &environment)?);
    let account = environment.drain();
    let stored = environment.query(&faults)?;
    print_stories(args, &faults, &stored)?;
    print_summary(args, &faults, &stored, &account, &environment)?;
    if !account.holds() || account.total.held > 0 {
        anyhow::bail!("CONS-1 violated: {:?}", account.total);
    }
    let missed: Vec<&str> =
        faults.iter().filter(|f| !stored.has_stories_of(f)).map(|f| f.name).collect();
    if !missed.is_empty() {
        anyhow::bail!("no story was emitted for these faults: {}", missed.join(", "));
    }
    Ok(ExitCode::SUCCESS)
}

/// Fault 1. `None` where the cgroup can't be created.
fn memory_limit(args: &Args, environment: &DemoEnvironment) -> anyhow::Result<Option<CausedFault>> {
    let name = format!("tapio-demo-{}", std::process::id());
    let cgroup = match SmallCgroup::create(&name, LIMIT_BYTES) {
        Ok(cgroup) => cgroup,
        Err(e) => {
            args.progress(&format!(
                "1. Skipped: can't create a cgroup with a memory limit ({e}); needs root."
            ))?;
            return Ok(None);
        }
    };
    args.progress(&format!(
        "1. A child allocates memory in a cgroup of its own with a limit of 32 MiB ({}).",
        cgroup.folder().display()
    ))?;
    let procs = cgroup.procs_file().display().to_string();
    let mut fault = CausedFault::new(
        "memory limit",
        &["oom-kill"],
        &["kernel.process.oom_kill", "kernel.process.exit"],
    );
    environment.run_child(&mut fault, "demo-hog", &["hog", &procs])?;
    environment.wait_for_stories(&fault)?;
    Ok(Some(fault))
}

/// Fault 2.
fn segmentation_faults(args: &Args, environment: &DemoEnvironment) -> anyhow::Result<CausedFault> {
    args.progress(&format!(
        "2. {CRASHES} children, one after the other, read through a null pointer."
    ))?;
    let mut fault = CausedFault::new(
        "segmentation faults",
        &["segfault"],
        &["kernel.process.signal", "kernel.process.exit"],
    );
    for _ in 0..CRASHES {
        environment.run_child(&mut fault, "demo-crasher", &["segfault"])?;
    }
    environment.wait_for_stories(&fault)?;
    Ok(fault)
}

/// Fault 3.
fn refused_connections(args: &Args, environment: &DemoEnvironment) -> anyhow::Result<CausedFault> {
    // Free an instant ago; the kernel doesn't assign it again soon.
    let port = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    args.progress(&format!(
        "3. A child connects {ATTEMPTS} times to 127.0.0.1:{port}, on which no process listens.\n"
    ))?;
    let mut fault =
        CausedFault::new("refused connections", &["connection-refused"], &["kernel.tcp.refused"]);
    let (port, times) = (port.to_string(), ATTEMPTS.to_string());
    environment.run_child(&mut fault, "demo-client", &["refused", &port, &times])?;
    environment.wait_for_stories(&fault)?;
    Ok(fault)
}
