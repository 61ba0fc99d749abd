//! `tapio bench outage`: the receiver is away for a while, at a fixed rate. Nothing may be lost;
//! the time that the backlog takes and the size of the spool are measured.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use serde::Serialize;
use serde_json::{Value as Json, json};

use super::super::arguments::duration;
use super::super::output::{Outcome, Output, Usage, message, print};
use super::group::pause;
use super::harness::Harness;
use super::machine;
use super::otlp::LoadArgs;
use super::report::machine_line;
use super::session::{DRAIN_INTERVAL, Scratch, drain, pause_until};
use super::subject::{Running, is_drained};
use super::table::{Table, grouped, mib, ms, short};
use crate::load::otlp::{Latency, OtlpLoad, Progress, RunTimes};
use tapio_core::clock;

/// Time before the outage, and after it.
const BEFORE: Duration = Duration::from_secs(2);
/// How long the backlog may take.
const BACKLOG_TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// Records per second
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,
    /// How long the receiver is away
    #[arg(long, default_value = "10s", value_parser = duration)]
    outage: Duration,
    /// How long the load goes on after the receiver's return
    #[arg(long, default_value = "10s", value_parser = duration)]
    after: Duration,
    #[command(flatten)]
    load: LoadArgs,
    /// Output format
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

/// The result.
#[derive(Debug, Default, Serialize)]
struct Outage {
    rate: u64,
    outage_seconds: f64,
    offered: u64,
    accepted: u64,
    lost: u64,
    duplicates: u64,
    refused: u64,
    /// From the receiver's return until the first record arrived: tapio pauses between attempts.
    resume_seconds: f64,
    /// From the receiver's return until tapio held no more events than before the outage.
    drain_seconds: f64,
    /// Distinct records that arrived per second from the first one on until then.
    drain_records_per_second: f64,
    /// The events that tapio held at the receiver's return.
    held_at_return: u64,
    peak_spool_bytes: u64,
    peak_rss_bytes: u64,
    /// Delays of all records, those of the outage included.
    latency_ns: Latency,
    cons1_holds: bool,
}

/// The state of tapio while the load goes on.
#[derive(Default)]
struct Observed {
    peak_spool_bytes: u64,
    held: u64,
}

impl Observed {
    fn poll(&mut self, running: &Running) -> anyhow::Result<()> {
        let Some(status) = running.status()? else { bail!("tapio has no status") };
        let spool_bytes = status["bridge"]["spool_bytes"].as_u64().unwrap_or(0);
        self.peak_spool_bytes = self.peak_spool_bytes.max(spool_bytes);
        self.held = status["cons1"]["total"]["held"].as_u64().unwrap_or(0);
        Ok(())
    }

    fn until(&mut self, running: &Running, wall_ns: u64) -> anyhow::Result<()> {
        while clock::wall_ns() < wall_ns {
            self.poll(running)?;
            pause(DRAIN_INTERVAL)?;
        }
        Ok(())
    }
}

pub(super) fn run(args: &Args) -> Outcome {
    args.load.check()?;
    if args.outage.is_zero() {
        return Err(Usage("--outage: must be greater than zero".into()).into());
    }
    let outage = measure(args)?;
    match args.output {
        Output::Json => {
            let report = json!({"outage": outage, "load": args.load.json(), "machine": machine()});
            print(&report.to_string())?;
        }
        Output::Text => print(&text(&outage, &machine()).join("\n"))?,
    }
    let is_complete = outage.lost == 0 && outage.refused == 0 && outage.cons1_holds;
    if !is_complete {
        message("tapio: records were lost or refused, or CONS-1 doesn't hold");
    }
    Ok(if is_complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn measure(args: &Args) -> anyhow::Result<Outage> {
    let scratch = Scratch::new()?;
    let mut harness = Harness::start()?;
    let mut running = args.load.tapio().start(scratch.path(), harness.sink_port())?;
    let whole = BEFORE + args.outage + args.after;
    let load = OtlpLoad { port: running.port, ..args.load.load(Some(args.rate), whole) };
    let times = harness.load(&load)?;
    let mut observed = Observed::default();
    let mut outage = away(args, times, &mut harness, &running, &mut observed)?;
    let sent = harness.finish()?;
    let (counts, status) = drain(&mut harness, &mut running, &sent)?;
    outage.offered = sent.offered;
    outage.accepted = sent.accepted;
    outage.refused = sent.refused;
    outage.lost = counts.missing.saturating_sub(sent.rejected);
    outage.duplicates = counts.arrived - counts.unique;
    outage.latency_ns = counts.latency;
    outage.peak_spool_bytes = observed.peak_spool_bytes;
    outage.peak_rss_bytes = running.group.as_ref().map_or(0, |group| group.peak_rss_bytes());
    outage.cons1_holds =
        status.is_some_and(|status| is_drained(&status) && status["cons1"]["holds"] == json!(true));
    running.end()?;
    Ok(outage)
}

/// Takes the receiver away and brings it back; waits until the backlog is gone.
fn away(
    args: &Args,
    times: RunTimes,
    harness: &mut Harness,
    running: &Running,
    observed: &mut Observed,
) -> anyhow::Result<Outage> {
    let ns = |duration: Duration| duration.as_nanos() as u64;
    pause_until(times.from_ns)?;
    observed.until(running, times.from_ns + ns(BEFORE))?;
    // What is on its way at any time.
    let usual = observed.held + args.rate / 10;
    harness.set_sink_up(false)?;
    observed.until(running, times.from_ns + ns(BEFORE + args.outage))?;
    harness.set_sink_up(true)?;
    let (back, held_at_return) = (harness.progress()?, observed.held);
    let mut resumed = None;
    loop {
        let progress = harness.progress()?;
        if progress.unique > back.unique {
            resumed.get_or_insert(progress);
        }
        let is_late = progress.at_ns > back.at_ns + ns(BACKLOG_TIMEOUT);
        if is_late || (resumed.is_some() && observed.held <= usual) {
            break;
        }
        pause(DRAIN_INTERVAL)?;
        observed.poll(running)?;
    }
    let (drained, resumed) = (harness.progress()?, resumed.unwrap_or(back));
    let seconds = |from: Progress, to: Progress| to.at_ns.saturating_sub(from.at_ns) as f64 / 1e9;
    let arrived = (drained.unique - resumed.unique) as f64;
    Ok(Outage {
        rate: args.rate,
        outage_seconds: args.outage.as_secs_f64(),
        resume_seconds: seconds(back, resumed),
        drain_seconds: seconds(back, drained),
        drain_records_per_second: arrived / seconds(resumed, drained).max(1e-9),
        held_at_return,
        ..Outage::default()
    })
}

fn text(outage: &Outage, machine: &Json) -> Vec<String> {
    let mut table = Table::new(["outage", ""]);
    let mut row = |name: &str, value: String| table.row([name.into(), value]);
    row("rate, records/s", grouped(outage.rate));
    row("receiver away, s", short(outage.outage_seconds));
    row("records offered", grouped(outage.offered));
    row("lost", grouped(outage.lost));
    row("duplicate", grouped(outage.duplicates));
    row("refused", grouped(outage.refused));
    row("held at the return", grouped(outage.held_at_return));
    row("first record after, s", short(outage.resume_seconds));
    row("drained after, s", short(outage.drain_seconds));
    row("then arrived, records/s", grouped(outage.drain_records_per_second as u64));
    row("longest delay, ms", ms(outage.latency_ns.max as f64));
    row("peak spool, MiB", mib(outage.peak_spool_bytes as f64));
    row("peak memory, MiB", mib(outage.peak_rss_bytes as f64));
    row("CONS-1", if outage.cons1_holds { "holds" } else { "VIOLATED" }.into());
    let mut lines = table.lines();
    lines.extend([String::new(), machine_line(machine)]);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_losses_and_drain() {
        let outage = Outage { offered: 1_000_000, drain_seconds: 3.25, ..Outage::default() };
        let lines = text(&outage, &json!({"cores": 2}));
        let has = |text: &str| lines.iter().any(|line| line.starts_with(text));
        assert!(has("records offered          1,000,000"), "{lines:#?}");
        assert!(has("drained after, s         3.25"), "{lines:#?}");
        assert!(has("CONS-1                   VIOLATED"), "{lines:#?}");
    }
}
