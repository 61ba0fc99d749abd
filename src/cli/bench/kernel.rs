//! `tapio bench kernel`: floods of real kernel events through the eBPF collector, the correlator
//! and the export. System calls end at the correlator: no receiver takes millions a second.
//! `perf/kernel.sh` sends them to a server.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Serialize;
use serde_json::{Value as Json, json};

use super::super::arguments::duration;
use super::super::output::{Outcome, Output, Usage, message, print};
use super::flood::Flood;
use super::flood_cgroup::FloodCgroup;
use super::group::pause;
use super::harness::Harness;
use super::machine;
use super::report::machine_line;
use super::session::{DRAIN_INTERVAL, DRAIN_TIMEOUT, Scratch};
use super::subject::{Running, is_drained, start_agent};
use super::table::{Charset, Table, grouped, short};
use tapio_collectors::ebpf::{Config, findings};
use tapio_core::clock;

/// Time limit for the attachment of the programs.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(60);
/// The collector reads the kernel's counters of losses once a second.
const COUNTERS_INTERVAL: Duration = Duration::from_millis(1_500);
/// Interval at which the account is looked at: seldom, as each look costs the agent CPU time.
const SETTLE_INTERVAL: Duration = Duration::from_millis(250);

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// How long each flood lasts
    #[arg(long, default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// Output format
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

/// The result of a flood.
#[derive(Debug, Default, Serialize)]
struct Flooded {
    flood: String,
    /// Processes, connections, or reads and writes.
    operations: u64,
    operations_per_second: f64,
    /// Events that the kernel has emitted, also of other processes, until tapio held none.
    events: u64,
    events_per_second: f64,
    /// Operations without an event, by kind.
    missing: BTreeMap<String, u64>,
    /// Events dropped, by stage and reason.
    dropped: BTreeMap<String, u64>,
    /// Events that tapio exported, as the sink counts them.
    arrived: u64,
    agent_cpu_seconds_per_million: f64,
    threads: BTreeMap<String, f64>,
    cons1_holds: bool,
}

impl Flooded {
    fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.dropped.is_empty() && self.cons1_holds
    }
}

pub(super) fn run(args: &Args) -> Outcome {
    if args.duration.is_zero() {
        return Err(Usage("--duration: must be greater than zero".into()).into());
    }
    if let Some(cause) = unavailable() {
        bail!("kernel events can't be measured here: {cause}");
    }
    let floods: Vec<Flooded> =
        Flood::ALL.into_iter().map(|flood| measure(flood, args)).collect::<Result<_, _>>()?;
    match args.output {
        Output::Json => print(&json!({"kernel": floods, "machine": machine()}).to_string())?,
        Output::Text => print(&text(&floods, &machine(), Charset::of_environment()).join("\n"))?,
    }
    let is_complete = floods.iter().all(Flooded::is_complete);
    if !is_complete {
        message("tapio: events were lost, or CONS-1 doesn't hold");
    }
    Ok(if is_complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Why eBPF programs can't be loaded; `None`: they can.
fn unavailable() -> Option<String> {
    let is_needed =
        |subject: &str| subject.starts_with("program process_exec") || subject == "eBPF object";
    let missing = findings(&Config::default()).into_iter();
    let missing = missing.filter(|finding| !finding.ok && is_needed(&finding.subject));
    let causes: Vec<String> =
        missing.map(|finding| format!("{}: {}", finding.subject, finding.state)).collect();
    (!causes.is_empty()).then(|| causes.join("; "))
}

/// The counters of the account and of the kernel.
struct Reading {
    account: Json,
    emitted: BTreeMap<String, u64>,
}

impl Reading {
    fn of(status: &Json) -> Self {
        let collector = &status["collectors"]["ebpf"];
        let counters = collector["counters"].as_object().into_iter().flatten();
        let emitted = counters.filter_map(|(name, count)| {
            let kind = name.strip_prefix("records_emitted.")?;
            Some((kind.to_owned(), count.as_u64()?))
        });
        Self { account: status["cons1"].clone(), emitted: emitted.collect() }
    }

    /// Events of a kind that were emitted since an earlier reading.
    fn since(&self, earlier: &Self, kind: &str) -> u64 {
        let of = |reading: &Self| reading.emitted.get(kind).copied().unwrap_or(0);
        of(self).saturating_sub(of(earlier))
    }
}

/// The events exported in a flood, and the collector's configuration: without a limit on what one
/// cgroup causes, since the flood is the benchmark's own.
fn settings(flood: Flood, cgroup: &FloodCgroup) -> (&'static str, String) {
    let (forward, more) = match flood {
        Flood::Execs | Flood::Connections => ("all", String::new()),
        Flood::Syscalls => {
            let kinds = "kernel.process.exec, kernel.process.exit, kernel.syscall.enter";
            let cgroup = cgroup.path();
            ("stories", format!(", kinds: [{kinds}], syscall_enter_cgroup: \"{cgroup}\""))
        }
    };
    (forward, format!("collectors: {{ only: [ebpf], ebpf: {{ rate_per_cgroup: 0{more} }} }}\n"))
}

fn measure(flood: Flood, args: &Args) -> anyhow::Result<Flooded> {
    let (scratch, cgroup) = (Scratch::new()?, FloodCgroup::create()?);
    let mut harness = Harness::start()?;
    let (forward, sections) = settings(flood, &cgroup);
    let mut running = start_agent(scratch.path(), harness.sink_port(), forward, &sections)?;
    wait_for_programs(&mut running, &cgroup)?;
    let group = running.group.as_ref().context("the agent has no process")?;
    let before = Reading::of(&settled(&running)?);
    let (cpu, foreign) = (group.cpu_time(), harness.counts()?.foreign);
    let from = clock::instant();
    let operations = flood.cause(from + args.duration, &cgroup)?;
    let seconds = clock::instant().saturating_duration_since(from).as_secs_f64();
    let status = settled(&running)?;
    let used = group.cpu_time().since(&cpu);
    let arrived = harness.counts()?.foreign - foreign;
    running.end()?;
    let after = Reading::of(&status);
    let events: u64 = after.emitted.keys().map(|kind| after.since(&before, kind)).sum();
    let missing = flood.kinds().iter().filter_map(|kind| {
        let missing = operations.saturating_sub(after.since(&before, kind));
        (missing > 0).then(|| ((*kind).to_owned(), missing))
    });
    let millions = (events as f64 / 1e6).max(1e-9);
    Ok(Flooded {
        flood: flood.name().to_owned(),
        operations,
        operations_per_second: operations as f64 / seconds,
        events,
        events_per_second: events as f64 / seconds,
        missing: missing.collect(),
        dropped: dropped(&before.account, &after.account),
        arrived,
        agent_cpu_seconds_per_million: used.total / millions,
        threads: used.threads.into_iter().map(|(name, cpu)| (name, cpu / millions)).collect(),
        cons1_holds: after.account["holds"] == json!(true),
    })
}

/// Waits until the collector runs and has emitted an event.
fn wait_for_programs(running: &mut Running, cgroup: &FloodCgroup) -> anyhow::Result<()> {
    let until = clock::instant() + ATTACH_TIMEOUT;
    loop {
        let status = running.status()?.context("the agent has no status")?;
        let collector = &status["collectors"]["ebpf"];
        // A process of which the collector has an event shows that the programs are attached.
        Flood::Execs.cause(clock::instant() + DRAIN_INTERVAL, cgroup)?;
        let emitted = Reading::of(&status).emitted;
        if emitted.get("kernel.process.exec").is_some_and(|count| *count > 0) {
            return Ok(());
        }
        if clock::instant() > until {
            let (health, error) = (&collector["health"], &collector["last_error"]);
            bail!("the eBPF collector isn't running: {health}, {error}");
        }
        pause(DRAIN_INTERVAL)?;
    }
}

/// The status once tapio has read the kernel's counters and holds no event.
fn settled(running: &Running) -> anyhow::Result<Json> {
    let until = clock::instant() + DRAIN_TIMEOUT;
    pause(COUNTERS_INTERVAL)?;
    loop {
        let status = running.status()?.context("the agent has no status")?;
        if is_drained(&status) || clock::instant() > until {
            return Ok(status);
        }
        pause(SETTLE_INTERVAL)?;
    }
}

/// The events dropped in between, by stage and reason.
fn dropped(before: &Json, after: &Json) -> BTreeMap<String, u64> {
    let rows = after["total"]["dropped"].as_object().into_iter().flatten();
    let since = |(reason, count): (&String, &Json)| {
        let earlier = before["total"]["dropped"][reason].as_u64().unwrap_or(0);
        let count = count.as_u64()?.saturating_sub(earlier);
        (count > 0).then(|| (reason.clone(), count))
    };
    rows.filter_map(since).collect()
}

fn text(floods: &[Flooded], machine: &Json, charset: Charset) -> Vec<String> {
    let titles =
        ["flood", "operations/s", "events/s", "", "missing", "dropped", "CPU s/M", "CONS-1"];
    let mut table = Table::new(titles);
    let top = floods.iter().map(|flood| flood.events_per_second).fold(0.0, f64::max);
    for flood in floods {
        table.row([
            flood.flood.clone(),
            grouped(flood.operations_per_second as u64),
            grouped(flood.events_per_second as u64),
            charset.bar(flood.events_per_second, top),
            grouped(flood.missing.values().sum()),
            grouped(flood.dropped.values().sum()),
            short(flood.agent_cpu_seconds_per_million),
            if flood.cons1_holds { "holds" } else { "VIOLATED" }.into(),
        ]);
        let mut threads: Vec<_> = flood.threads.iter().collect();
        threads.sort_by(|a, b| b.1.total_cmp(a.1));
        for (name, cpu) in threads.into_iter().filter(|(_, cpu)| **cpu >= 0.01) {
            let mut row: [String; 8] = std::array::from_fn(|_| String::new());
            (row[0], row[6]) = (format!("  {name}"), short(*cpu));
            table.row(row);
        }
    }
    let mut lines = table.lines();
    for flood in floods {
        let losses = flood.missing.iter().chain(&flood.dropped);
        lines.extend(losses.map(|(cause, n)| format!("{}: {cause}: {}", flood.flood, grouped(*n))));
    }
    lines.extend([String::new(), machine_line(machine)]);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(exec: u64, dropped: u64) -> Json {
        json!({
            "collectors": {"ebpf": {"counters": {
                "records_emitted.kernel.process.exec": exec, "records_drained": 7,
            }}},
            "cons1": {"holds": true, "total": {"dropped": {"kernel/kernel_ring_full": dropped}}},
        })
    }

    #[test]
    fn losses_are_those_of_the_flood() {
        let (before, after) = (Reading::of(&status(10, 3)), Reading::of(&status(110, 5)));
        assert_eq!(after.since(&before, "kernel.process.exec"), 100);
        assert_eq!(after.since(&before, "kernel.tcp.connect"), 0);
        let lost = dropped(&before.account, &after.account);
        assert_eq!(lost, BTreeMap::from([("kernel/kernel_ring_full".to_owned(), 2)]));
        assert!(dropped(&after.account, &after.account).is_empty());
    }

    #[test]
    fn text_names_what_was_lost() {
        let missing = BTreeMap::from([("kernel.process.exec".to_owned(), 5)]);
        let flood = Flooded { flood: "execs".into(), missing, ..Flooded::default() };
        assert!(!flood.is_complete());
        let lines = text(&[flood], &json!({"cores": 2}), Charset::Ascii);
        assert!(lines.contains(&"execs: kernel.process.exec: 5".to_owned()), "{lines:#?}");
    }
}
