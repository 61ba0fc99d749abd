//! `tapio bench`: load generator, agent and server, each in a process of its own.
//!
//! | file | purpose |
//! | --- | --- |
//! | `mod.rs` | the modes, and the pipeline with a server |
//! | `spool.rs` | what the spool costs |
//! | `otlp.rs` | OTLP in, OTLP out, beside peers |
//! | `ramp.rs`, `climb.rs` | the knee |
//! | `outage.rs`, `overload.rs` | a receiver that is away, too much load |
//! | `idle.rs` | no load |
//! | `kernel.rs`, `flood.rs`, `flood_cgroup.rs` | floods of real kernel events |
//! | `session.rs` | one measured run of a pipeline for OTLP |
//! | `subject.rs` | the pipelines: none, tapio, a peer |
//! | `harness.rs` | generator and sink of OTLP in a process of their own |
//! | `child.rs`, `group.rs` | processes and what they use |
//! | `stats.rs` | medians |
//! | `report.rs`, `table.rs`, `plot.rs` | readable reports, plots |

mod child;
mod climb;
mod flood;
mod flood_cgroup;
mod group;
mod harness;
mod idle;
mod kernel;
mod otlp;
mod outage;
mod overload;
mod plot;
mod ramp;
mod report;
mod session;
mod spool;
mod stats;
mod subject;
mod table;

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Subcommand;
use serde_json::{Value as Json, json};

use self::child::{Child, free_port, http_json};
use self::group::is_interrupted;
use super::arguments::{Rate, duration, rate};
use super::output::{Outcome, Output, Progress, message, print};

/// Time limit for the start of a process.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// Time limit for the last events after the end of the load.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Kinds of the generated rules: each is relevant to two of the default rules.
const KINDS: usize = 100;

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Measure the whole pipeline: load → receiver → correlator → bridge → server
    #[command(
        after_help = "Example:\n  tapio bench pipeline --rate 165000 --duration 10s --output json"
    )]
    Pipeline(Pipeline),
    /// Measure the cost of the spool: the pipeline with it and without, in turn
    #[command(after_help = "Example:\n  tapio bench spool --rate 165000 --runs 5")]
    Spool(spool::Args),
    /// Measure OTLP in → OTLP out: generator → agent → sink, beside peers and the direct way
    #[command(after_help = "Example:\n  tapio bench otlp --runs 5 --peer 'exec ./otelcol.sh'\n  \
                            tapio bench otlp --rate 165000 --output json")]
    Otlp(otlp::Args),
    /// Raise the rate of OTLP until the pipeline doesn't keep up: the knee
    #[command(after_help = "Example:\n  tapio bench ramp --duration 3s --plot plots")]
    Ramp(ramp::Args),
    /// Take the receiver away for a while: losses, the backlog's drain, the spool
    #[command(after_help = "Example:\n  tapio bench outage --rate 50000 --outage 10s")]
    Outage(outage::Args),
    /// Send twice the knee's rate: refusals, the memory's bound, recovery
    #[command(after_help = "Example:\n  tapio bench overload --knee 200000 --duration 10s")]
    Overload(overload::Args),
    /// Measure an agent with all collectors without load: CPU time, memory, start
    #[command(after_help = "Example:\n  tapio bench idle --duration 30s")]
    Idle(idle::Args),
    /// Flood the real kernel with processes, connections and system calls
    #[command(after_help = "Example:\n  tapio bench kernel --duration 10s")]
    Kernel(kernel::Args),
    /// Generate and count OTLP, as ordered on standard input
    #[command(hide = true)]
    Harness(harness::Args),
}

#[derive(Clone, clap::Args)]
struct Pipeline {
    /// Events per second, or `max`
    #[arg(long, default_value = "max", value_parser = rate)]
    rate: Rate,
    /// Duration: `10s`, `5m`, or a number of seconds
    #[arg(long, default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// Rules in addition to the built-in ones
    #[arg(long, default_value_t = KINDS)]
    rules: usize,
    /// Distinct pods
    #[arg(long, default_value_t = 1_000)]
    keys: u64,
    /// Share of events that are relevant to a rule, 0 to 1
    #[arg(long, default_value_t = 0.01)]
    match_share: f64,
    /// Events per batch; reference measurements use 500
    #[arg(long, default_value_t = 500)]
    batch_events: u64,
    /// Number of shards; 0: the agent's default
    #[arg(long, default_value_t = 0)]
    shards: usize,
    /// The agent's section `threads`, such as `{ pin: always }`
    #[arg(long, default_value = "{}", value_name = "YAML")]
    threads: String,
    /// Seconds for which the agent's CPU time without load is measured; 0: not measured
    #[arg(long, default_value_t = 0)]
    idle_seconds: u64,
    /// Output format
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

pub(super) fn run(args: &Args) -> Outcome {
    // The processes that a signal has ended aren't the cause.
    run_mode(args).map_err(|e| if is_interrupted() { e.context("interrupted") } else { e })
}

fn run_mode(args: &Args) -> Outcome {
    match &args.verb {
        Verb::Pipeline(pipeline) => run_pipeline(pipeline),
        Verb::Spool(args) => spool::run(args),
        Verb::Otlp(args) => otlp::run(args),
        Verb::Ramp(args) => ramp::run(args),
        Verb::Outage(args) => outage::run(args),
        Verb::Overload(args) => overload::run(args),
        Verb::Idle(args) => idle::run(args),
        Verb::Kernel(args) => kernel::run(args),
        Verb::Harness(args) => harness::run(args),
    }
}

/// Rules for sequences of two steps over the generated kinds, by pod.
fn generated_rules(count: usize) -> String {
    let mut text = String::new();
    for i in 0..count {
        let (a, b) = (i % KINDS, (i + 1) % KINDS);
        // Writing to a string can't fail.
        let _ = writeln!(
            text,
            "---\nrule: bench-{i}\nevents: {{ a: {{ kind: bench.k{a} }}, \
             b: {{ kind: bench.k{b}, severity: {{ gte: {} }} }} }}\n\
             sequence: {{ by: [k8s.pod.uid], within: 10s, steps: [{{ event: a }}, {{ event: b }}] }}\n\
             story: {{ pattern: bench }}",
            i % 9
        );
    }
    text
}

struct Ports {
    grpc: u16,
    http: u16,
    receiver: u16,
    admin: u16,
}

/// Whether the agent has a spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spooling {
    On,
    Off,
}

fn write_configuration(
    dir: &Path,
    args: &Pipeline,
    ports: &Ports,
    spooling: Spooling,
) -> anyhow::Result<()> {
    let dir_text = dir.display();
    // A file without a rule is an error.
    let mut rules = String::new();
    if args.rules > 0 {
        std::fs::write(dir.join("rules.yaml"), generated_rules(args.rules))?;
        rules = format!(", rules: [{dir_text}/rules.yaml]");
    }
    let Ports { grpc, http, receiver, admin } = ports;
    let spool = if spooling == Spooling::Off { ", spool_bytes: 0" } else { "" };
    let config = format!(
        "state_dir: {dir_text}/agent\nnode: bench\n\
         dataflow: {{ shards: {}{rules} }}\n\
         collectors: {{ only: [receiver], receiver: {{ enabled: true, listen: \"127.0.0.1:{receiver}\" }} }}\n\
         bridge: {{ endpoint: \"127.0.0.1:{grpc}\"{spool} }}\n\
         server: {{ grpc_listen: \"127.0.0.1:{grpc}\", http_listen: \"127.0.0.1:{http}\", data_dir: {dir_text}/store }}\n\
         admin: {{ listen: \"127.0.0.1:{admin}\" }}\nlog: {{ level: warn }}\nthreads: {}\n",
        args.shards, args.threads
    );
    std::fs::write(dir.join("bench.yaml"), config)?;
    Ok(())
}

fn run_pipeline(args: &Pipeline) -> Outcome {
    let report = measure(args, Spooling::On)?;
    print_report(&report, args.output)?;
    Ok(if is_complete(&report) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print_report(report: &Json, output: Output) -> anyhow::Result<()> {
    match output {
        Output::Json => print(&report.to_string())?,
        Output::Text => print(&serde_json::to_string_pretty(report)?)?,
    }
    Ok(())
}

/// Whether every event was forwarded; says so otherwise.
fn is_complete(report: &Json) -> bool {
    let is_complete =
        report["offered"] == report["forwarded"] && report["cons1_holds"] == json!(true);
    if !is_complete {
        message("tapio: not all offered events were forwarded");
    }
    is_complete
}

/// Runs the pipeline once, in a folder of its own.
fn measure(args: &Pipeline, spooling: Spooling) -> anyhow::Result<Json> {
    let dir = std::env::temp_dir().join(format!("tapio-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let outcome = measure_in(&dir, args, spooling);
    std::fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
    outcome
}

fn load_arguments(args: &Pipeline, receiver: u16) -> Vec<String> {
    let kinds: Vec<String> = (0..KINDS).map(|k| format!("bench.k{k}")).collect();
    let rate = args.rate.0.map_or_else(|| "max".into(), |n| n.to_string());
    [
        "load",
        "--output",
        "json",
        "--rate",
        &rate,
        "--kinds",
        &kinds.join(","),
        "--duration",
        &format!("{}ms", args.duration.as_millis()),
        "--match-share",
        &args.match_share.to_string(),
        "--keys",
        &args.keys.to_string(),
        "--batch-events",
        &args.batch_events.to_string(),
        "--target",
        &format!("127.0.0.1:{receiver}"),
    ]
    .map(str::to_owned)
    .to_vec()
}

fn measure_in(dir: &Path, args: &Pipeline, spooling: Spooling) -> anyhow::Result<Json> {
    let ports = Ports {
        grpc: free_port()?,
        http: free_port()?,
        receiver: free_port()?,
        admin: free_port()?,
    };
    write_configuration(dir, args, &ports, spooling)?;
    let config = dir.join("bench.yaml").display().to_string();
    let mut server = Child::start(&["server", "--config", &config])?;
    server.wait_for(START_TIMEOUT, || http_json(ports.http, "/api/v1/stats").is_ok())?;
    let mut agent = Child::start(&["run", "--config", &config])?;
    let connected =
        || http_json(ports.admin, "/status").is_ok_and(|s| s["bridge"]["connected"] == json!(true));
    agent.wait_for(START_TIMEOUT, connected)?;
    let idle = idle_share(&agent, args.idle_seconds)?;
    let before = (agent.cpu_seconds()?, server.cpu_seconds()?);
    let load = Child::start_with_output(&load_arguments(args, ports.receiver))?.finish()?;
    let sent: Json =
        serde_json::from_slice(&load.stdout).context("report of the load generator")?;
    let offered = sent["offered"].as_u64().unwrap_or(0);
    let drained =
        || http_json(ports.admin, "/status").is_ok_and(|s| s["cons1"]["total"]["held"] == json!(0));
    agent.wait_for(DRAIN_TIMEOUT, drained)?;
    let status = http_json(ports.admin, "/status")?;
    let stats = http_json(ports.http, "/api/v1/stats")?;
    let after = (agent.cpu_seconds()?, server.cpu_seconds()?);
    let rss = (agent.peak_rss_bytes()?, server.peak_rss_bytes()?);
    agent.end()?;
    server.end()?;
    if offered == 0 {
        bail!("the load generator sent no events");
    }
    let (agent_cpu, server_cpu) = (after.0 - before.0, after.1 - before.1);
    let total = &status["cons1"]["total"];
    let seconds = sent["seconds"].as_f64().unwrap_or(0.0);
    Ok(json!({
        "offered": offered,
        "received": total["received"], "forwarded": total["forwarded"], "dropped": total["dropped"],
        "held": total["held"], "cons1_holds": status["cons1"]["holds"],
        "stored": stats["ingest"]["events"],
        "seconds": seconds,
        "events_per_second": (offered as f64 / seconds.max(1e-9)).round(),
        "latency_ns": {
            "p50": stats["latency"]["p50_ns"], "p90": stats["latency"]["p90_ns"], "p99": stats["latency"]["p99_ns"],
            "p999": stats["latency"]["p999_ns"], "max": stats["latency"]["max_ns"],
        },
        "cpu_seconds": {"load": sent["cpu_seconds"], "agent": agent_cpu, "server": server_cpu},
        "agent_cpu_seconds_per_million": agent_cpu / (offered as f64 / 1e6),
        "peak_rss_bytes": {"load": load.peak_rss_bytes, "agent": rss.0, "server": rss.1},
        "agent_idle_share_of_a_core": idle,
        "rules": args.rules + tapio_dataflow::rules::builtin().rules.len(),
        "keys": args.keys, "match_share": args.match_share, "batch_events": args.batch_events,
        "shards": status["shards"],
        "machine": machine(),
    }))
}

fn idle_share(agent: &Child, seconds: u64) -> anyhow::Result<Option<f64>> {
    if seconds == 0 {
        return Ok(None);
    }
    let before = agent.cpu_seconds()?;
    let progress = Progress::of_time("bench: idle", Duration::from_secs(seconds));
    std::thread::sleep(Duration::from_secs(seconds));
    drop(progress);
    Ok(Some((agent.cpu_seconds()? - before) / seconds as f64))
}

fn machine() -> Json {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|l| l.strip_prefix("model name")).unwrap_or("");
    let uname = rustix::system::uname();
    json!({
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "cpu": model.trim_start_matches(['\t', ' ', ':']),
        "kernel": uname.release().to_string_lossy(),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Bench {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Result<Verb, clap::Error> {
        let words = std::iter::once("bench").chain(line.split_whitespace());
        Bench::try_parse_from(words).map(|bench| bench.args.verb)
    }

    #[test]
    fn arguments_of_each_mode_are_parsed() {
        let load = "--warm-up 1s --rules 7 --match-share 0.5 --keys 9 --batch-records 100 \
                    --connections 2 --output json";
        let accepted = [
            format!("otlp --rate 165000 --duration 5m --runs 3 --peer a --peer b --plot f {load}"),
            "otlp --rate max".into(),
            format!("ramp --start 5000 --duration 2s --bisections 4 --peer a --plot f {load}"),
            format!("outage --rate 1000 --outage 3s --after 5s {load}"),
            format!("overload --knee 1000 --memory-limit-mib 64 --duration 3s {load}"),
            "idle --warm-up 1s --duration 5s --output json".into(),
            "kernel --duration 2s --output text".into(),
            "pipeline --rate 1000".into(),
            "spool --runs 2".into(),
            "harness".into(),
        ];
        for line in &accepted {
            if let Err(error) = parse(line) {
                panic!("{line}: {error}");
            }
        }
        for line in [
            "otlp --rate 0",
            "otlp --duration soon",
            "otlp --knee 5",
            "ramp --start 1",
            "outage --rate 0",
            "overload --rate 5",
            "idle --rate 5",
            "kernel --rules 5",
            "ramp --output svg",
            "burn",
            "",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn defaults_are_those_of_the_reference_measurements() {
        let Ok(Verb::Otlp(args)) = parse("otlp") else { panic!("otlp") };
        let load = args.load.load(None, Duration::from_secs(1));
        assert_eq!((load.rate, load.batch_records, args.load.rules), (None, 500, 100));
        assert_eq!((load.match_share, load.warm_up), (0.01, Duration::from_secs(2)));
        assert!(load.retries && args.load.check().is_ok());
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for (argument, value) in [
            ("--match-share", "1.5"),
            ("--batch-records", "0"),
            ("--connections", "65"),
            ("--keys", "0"),
        ] {
            let Ok(Verb::Otlp(args)) = parse(&format!("otlp {argument} {value}")) else {
                panic!("{argument}")
            };
            let error = args.load.check().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{argument}: must be")), "{error}");
        }
    }
}
