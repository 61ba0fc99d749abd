//! `tapio bench idle`: an agent with all collectors that this machine lets run, without load: CPU
//! time, memory, and how long its start takes.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Serialize;
use serde_json::{Value as Json, json};

use super::super::arguments::duration;
use super::super::output::{Outcome, Output, Usage, message, print};
use super::child::free_port;
use super::group::pause;
use super::harness::Harness;
use super::machine;
use super::report::machine_line;
use super::session::Scratch;
use super::subject::{Running, start_agent};
use super::table::{Charset, Table, mib, short};
use tapio_core::clock;
use tapio_core::event::rfc3339;

/// Time limit for the first event.
const FIRST_EVENT_TIMEOUT: Duration = Duration::from_secs(30);
/// Interval at which the first event is looked for.
const FIRST_EVENT_INTERVAL: Duration = Duration::from_millis(2);
/// The kind of the event that is there before the agent.
const FIRST_KIND: &str = "bench.first";

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// Time after the start that isn't measured
    #[arg(long, default_value = "10s", value_parser = duration)]
    warm_up: Duration,
    /// The measured time
    #[arg(long, default_value = "30s", value_parser = duration)]
    duration: Duration,
    /// Output format
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

/// The result.
#[derive(Debug, Default, Serialize)]
struct Idle {
    /// From the start of the process to the first event that it has received.
    first_event_seconds: f64,
    /// Share of a core.
    core_share: f64,
    /// The same by thread.
    threads: BTreeMap<String, f64>,
    rss_bytes: u64,
    peak_rss_bytes: u64,
    /// Health by collector, of those that are enabled.
    collectors: BTreeMap<String, String>,
    /// Events received in the measured time: the machine isn't quite idle.
    events: u64,
    cons1_holds: bool,
}

pub(super) fn run(args: &Args) -> Outcome {
    if args.duration.is_zero() {
        return Err(Usage("--duration: must be greater than zero".into()).into());
    }
    let idle = measure(args)?;
    match args.output {
        Output::Json => print(&json!({"idle": idle, "machine": machine()}).to_string())?,
        Output::Text => print(&text(&idle, &machine(), Charset::of_environment()).join("\n"))?,
    }
    if !idle.cons1_holds {
        message("tapio: CONS-1 doesn't hold");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(args: &Args) -> anyhow::Result<Idle> {
    let scratch = Scratch::new()?;
    let harness = Harness::start()?;
    let dir = scratch.path();
    let first = dir.join("first.jsonl");
    let time = rfc3339(clock::wall_ns());
    std::fs::write(&first, json!({"kind": FIRST_KIND, "time": time}).to_string() + "\n")?;
    // Besides those that run by default, the ones that a machine needs nothing for.
    let sections = format!(
        "collectors: {{ jsonl: {{ paths: [\"{}\"] }}, otlp: {{ enabled: true, \
         grpc_listen: \"127.0.0.1:{}\", http_listen: \"127.0.0.1:{}\" }}, \
         receiver: {{ enabled: true, listen: \"127.0.0.1:{}\" }} }}\n",
        first.display(),
        free_port()?,
        free_port()?,
        free_port()?
    );
    let began = clock::instant();
    let running = start_agent(dir, harness.sink_port(), "all", &sections)?;
    let first_event_seconds = loop {
        let seconds = clock::instant().saturating_duration_since(began).as_secs_f64();
        let account = &status(&running)?["cons1"]["collectors"]["jsonl"];
        if account["received"].as_u64() > Some(0) {
            if account["dropped"] != json!({}) {
                bail!("the first event was dropped: {}", account["dropped"]);
            }
            break seconds;
        }
        if seconds > FIRST_EVENT_TIMEOUT.as_secs_f64() {
            bail!("no event was received within {FIRST_EVENT_TIMEOUT:?}");
        }
        pause(FIRST_EVENT_INTERVAL)?;
    };
    pause(args.warm_up)?;
    let group = running.group.as_ref().context("the agent has no process")?;
    let (before, events) = (group.cpu_time(), received(&status(&running)?));
    let from = clock::instant();
    pause(args.duration)?;
    let used = group.cpu_time().since(&before);
    let seconds = clock::instant().saturating_duration_since(from).as_secs_f64();
    let (rss_bytes, peak_rss_bytes) = (group.rss_bytes(), group.peak_rss_bytes());
    let status = status(&running)?;
    running.end()?;
    Ok(Idle {
        first_event_seconds,
        core_share: used.total / seconds,
        threads: used.threads.into_iter().map(|(name, cpu)| (name, cpu / seconds)).collect(),
        rss_bytes,
        peak_rss_bytes,
        collectors: health(&status),
        events: received(&status).saturating_sub(events),
        cons1_holds: status["cons1"]["holds"] == json!(true),
    })
}

fn status(running: &Running) -> anyhow::Result<Json> {
    running.status()?.context("the agent has no status")
}

/// Events received by all collectors.
fn received(status: &Json) -> u64 {
    status["cons1"]["total"]["received"].as_u64().unwrap_or(0)
}

fn health(status: &Json) -> BTreeMap<String, String> {
    let collectors = status["collectors"].as_object().into_iter().flatten();
    let of = |(name, state): (&String, &Json)| {
        let health = state["health"].as_str().unwrap_or("?");
        let cause = state["last_error"].as_str().filter(|cause| !cause.is_empty());
        let text = cause.map_or_else(|| health.to_owned(), |cause| format!("{health}: {cause}"));
        (name.clone(), text)
    };
    collectors.map(of).collect()
}

fn text(idle: &Idle, machine: &Json, charset: Charset) -> Vec<String> {
    let mut lines = vec![
        format!("start to first event: {} s", short(idle.first_event_seconds)),
        format!("CPU: {} % of a core, {} events", short(idle.core_share * 100.0), idle.events),
        format!(
            "memory: {} MiB, peak {} MiB",
            mib(idle.rss_bytes as f64),
            mib(idle.peak_rss_bytes as f64)
        ),
        String::new(),
    ];
    let mut table = Table::new(["thread", "% of a core", ""]);
    let mut threads: Vec<_> = idle.threads.iter().collect();
    threads.sort_by(|a, b| b.1.total_cmp(a.1));
    let top = threads.first().map_or(0.0, |(_, share)| **share);
    for (name, share) in threads.into_iter().filter(|(_, share)| **share >= 1e-5) {
        table.row([name.clone(), format!("{:.3}", share * 100.0), charset.bar(*share, top)]);
    }
    lines.extend(table.lines());
    lines.push(String::new());
    lines.extend(idle.collectors.iter().map(|(name, health)| format!("{name}: {health}")));
    lines.extend([String::new(), machine_line(machine)]);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_threads_by_share_and_the_health_of_collectors() {
        let status = json!({"collectors": {
            "ebpf": {"health": "running", "last_error": ""},
            "journal": {"health": "unavailable", "last_error": "no journal"},
        }});
        let threads = [("admin", 0.0), ("shard:0", 0.001), ("c:ebpf", 0.002)];
        let idle = Idle {
            core_share: 0.003,
            threads: threads.map(|(name, share)| (name.to_owned(), share)).into(),
            collectors: health(&status),
            ..Idle::default()
        };
        let lines = text(&idle, &json!({"cores": 2}), Charset::Ascii);
        let expected = [
            "thread   % of a core",
            "c:ebpf         0.200  ########################",
            "shard:0        0.100  ############",
            "",
            "ebpf: running",
            "journal: unavailable: no journal",
        ];
        assert_eq!(lines[4..10], expected);
        assert_eq!(lines[1], "CPU: 0.30 % of a core, 0 events");
    }
}
