//! `tapio doctor`

use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::fs::{Access, AtFlags, CWD, accessat};
use serde_json::{Value as Json, json};

use super::output::{Outcome, Output, Style, plain, print};
use super::run::config;
use crate::runtime::Config;
use tapio_collectors::ebpf::{Finding, Kind, findings};
use tapio_core::sandbox::Ruleset;
use tapio_wire::ListenAddress;

#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  tapio doctor --output json\n\nExit code 0: tapio can run on this node, with what is marked `ok`."
)]
pub(super) struct Args {
    /// Configuration file to check; without one, the defaults
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Output format
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

pub(super) fn run(args: &Args) -> Outcome {
    let config = config(args.config.as_deref())?;
    let (can_run, all) = examine(&config);
    if args.output == Output::Json {
        print(&json(can_run, &all).to_string())?;
    } else {
        table(&all)?;
        let missing = all.iter().filter(|f| !f.ok).count();
        print(&match (can_run, missing) {
            (false, _) => "\ntapio can't run on this node: see state_dir".to_owned(),
            (true, 0) => "\ntapio can run on this node; nothing is missing".to_owned(),
            (true, n) => {
                format!("\ntapio can run on this node; {n} missing, at the cost listed above")
            }
        })?;
    }
    Ok(ExitCode::from(u8::from(!can_run)))
}

/// The findings as a document.
pub(super) fn document(config: &Config) -> Json {
    let (can_run, all) = examine(config);
    json(can_run, &all)
}

fn json(can_run: bool, all: &[Finding]) -> Json {
    let rows: Vec<_> = all
        .iter()
        .map(|f| json!({"subject": f.subject, "ok": f.ok, "state": f.state, "cost": f.cost, "remedy": f.remedy}))
        .collect();
    json!({"can_run": can_run, "findings": rows})
}

/// Whether tapio can run, and what was found.
fn examine(config: &Config) -> (bool, Vec<Finding>) {
    let state = folder("state_dir", &config.state_dir(), "tapio can't run");
    let can_run = state.ok;
    let mut all = vec![state];
    all.push(folder(
        "server.data_dir",
        &config.server().data_dir,
        "`tapio server` and `tapio run --standalone` can't store events and stories",
    ));
    all.extend([
        port("admin.listen", &config.admin.listen),
        port("server.grpc_listen", &config.server.grpc_listen),
        port("server.http_listen", &config.server.http_listen),
        cores(),
        pressure(),
        cgroup_layout(),
        memory_cgroup(),
        journal(),
        system_bus(),
        sandbox(config.sandbox.enabled),
    ]);
    all.extend(findings(&config.collectors.ebpf));
    (can_run, all)
}

fn table(all: &[Finding]) -> anyhow::Result<()> {
    let style = Style::from_environment();
    let width = all.iter().map(|f| f.subject.chars().count()).max().unwrap_or(0);
    for finding in all {
        let (word, code) = if finding.ok { ("ok     ", "32") } else { ("missing", "1;33") };
        let word = style.paint(word, code);
        style.print(&format!("{word}  {:width$}  {}", finding.subject, plain(&finding.state)))?;
        if !finding.ok {
            print(&format!("{:9}{:width$}    cost:   {}", "", "", finding.cost))?;
            print(&format!("{:9}{:width$}    remedy: {}", "", "", finding.remedy))?;
        }
    }
    Ok(())
}

/// A finding; `missing` is cost and remedy where the facility is missing.
fn finding(subject: &str, state: String, missing: Option<(&str, &str)>) -> Finding {
    let (cost, remedy) = missing.unwrap_or_default();
    Finding {
        subject: subject.to_owned(),
        ok: missing.is_none(),
        state,
        cost: cost.to_owned(),
        remedy: remedy.to_owned(),
    }
}

/// Whether a folder can be written to, or created. Creates nothing.
fn folder(key: &str, path: &Path, cost: &str) -> Finding {
    let existing = path.ancestors().find(|p| p.exists()).unwrap_or(path);
    let access = accessat(CWD, existing, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS);
    let (name, existing_name) = (path.display(), existing.display());
    let mend = format!("set {key} to a folder that this user can write to");
    match access {
        Ok(()) if !existing.is_dir() => {
            finding(key, format!("{existing_name} isn't a folder"), Some((cost, &mend)))
        }
        Ok(()) if existing == path => finding(key, format!("{name} is writable"), None),
        Ok(()) => finding(key, format!("{name} can be created in {existing_name}"), None),
        Err(e) => finding(key, format!("{existing_name}: {e}"), Some((cost, &mend))),
    }
}

fn port(key: &str, address: &ListenAddress) -> Finding {
    let ListenAddress::Tcp(address) = address else {
        // Binding it would take it from a tapio that runs.
        return finding(key, format!("{address}: a unix socket"), None);
    };
    match TcpListener::bind(address) {
        Ok(_) => finding(key, format!("{address} is free"), None),
        Err(e) => finding(
            key,
            format!("{address}: {e}"),
            Some((
                "its listener can't start; no cost if a running tapio holds the port",
                &format!(
                    "find the process that listens: ss -ltnp 'sport = :{}'; or set another {key}",
                    address.port()
                ),
            )),
        ),
    }
}

fn cores() -> Finding {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).map(str::trim);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let list = field("Cpus_allowed_list:").unwrap_or("?");
    let missing = (
        "collectors, shards and the bridge share one core: bursts take longer",
        "give tapio a second core (cpuset, AllowedCPUs=, CPU limit)",
    );
    finding("cores", format!("{cores} usable (cpuset {list})"), (cores < 2).then_some(missing))
}

fn pressure() -> Finding {
    let path = "/proc/pressure/memory";
    match std::fs::read_to_string(path) {
        Ok(text) => {
            finding("pressure (PSI)", text.lines().next().unwrap_or_default().to_owned(), None)
        }
        Err(e) => finding(
            "pressure (PSI)",
            format!("{path}: {e}"),
            Some((
                "no pressure events: how long processes wait for memory, disks and CPUs",
                "boot with psi=1, on a kernel built with CONFIG_PSI=y",
            )),
        ),
    }
}

/// Kinds, by the start of their names, whose source this node lacks, with the cause.
pub(super) fn missing_sources() -> Vec<(&'static str, String)> {
    let btf = Path::new("/sys/kernel/btf/vmlinux");
    let mut missing = Vec::new();
    if !btf.exists() {
        let cause = format!("{} doesn't exist", btf.display());
        missing.extend(Kind::ALL.iter().map(|kind| (kind.name().text(), cause.clone())));
    }
    for (start, found) in [("journal.", journal()), ("systemd.", system_bus())] {
        if !found.ok {
            missing.push((start, found.state));
        }
    }
    missing
}

const CGROUPS: &str = "/sys/fs/cgroup";

fn cgroup_layout() -> Finding {
    let exists = |file: &str| Path::new(CGROUPS).join(file).exists();
    let state = if exists("cgroup.controllers") {
        "version 2"
    } else if exists("unified/cgroup.controllers") {
        "hybrid: version 1 controllers and a version 2 hierarchy"
    } else if exists("memory") || exists("systemd") {
        "version 1"
    } else {
        let missing = (
            "events without cgroup paths, and thus without names of pod, container and unit",
            "mount the node's /sys/fs/cgroup",
        );
        return finding("cgroup layout", format!("no cgroups in {CGROUPS}"), Some(missing));
    };
    finding("cgroup layout", state.to_owned(), None)
}

fn memory_cgroup() -> Finding {
    let v1 = Path::new(CGROUPS).join("memory/memory.limit_in_bytes");
    let lists = |file: &str| {
        std::fs::read_to_string(Path::new(CGROUPS).join(file))
            .is_ok_and(|t| t.split_whitespace().any(|c| c == "memory"))
    };
    let state = if v1.exists() {
        "version 1"
    } else if lists("cgroup.controllers") || lists("unified/cgroup.controllers") {
        "version 2"
    } else {
        let missing = (
            "no memory limits: every OOM kill is the node's, and `tapio demo` skips that fault",
            "boot with cgroup_enable=memory; in a container, mount the node's /sys/fs/cgroup",
        );
        return finding("memory cgroup", "no memory controller".into(), Some(missing));
    };
    finding("memory cgroup", state.to_owned(), None)
}

/// Finds a readable journal file, in a folder named by the machine id, on disk or in memory.
fn journal() -> Finding {
    let mut denied = None;
    for base in ["/var/log/journal", "/run/log/journal"] {
        for machine in std::fs::read_dir(base).into_iter().flatten().flatten() {
            let file = machine.path().join("system.journal");
            match std::fs::File::open(&file) {
                Ok(_) => {
                    return finding("journal", format!("{} is readable", file.display()), None);
                }
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => denied = Some(format!("{}: {e}", file.display())),
            }
        }
    }
    let cost = "no service log messages as evidence for root causes";
    match denied {
        Some(state) => {
            finding("journal", state, Some((cost, "add this user to the group systemd-journal")))
        }
        None => finding(
            "journal",
            "no system.journal in /var/log/journal or /run/log/journal".into(),
            Some((
                cost,
                "run on a host with systemd-journald; in a container, mount the node's /var/log/journal",
            )),
        ),
    }
}

fn system_bus() -> Finding {
    let path = "/run/dbus/system_bus_socket";
    match UnixStream::connect(path) {
        Ok(_) => finding("systemd bus", format!("{path} accepts connections"), None),
        Err(e) => finding(
            "systemd bus",
            format!("{path}: {e}"),
            Some((
                "no events about starts, stops and failures of units",
                "run on a systemd host with dbus; in a container, mount the node's /run/dbus",
            )),
        ),
    }
}

/// Whether `tapio run` and `tapio server` can limit the files that they open.
fn sandbox(is_enabled: bool) -> Finding {
    let name = "sandbox";
    if !is_enabled {
        let missing = (
            "all threads keep all capabilities and may open every file that this user may",
            "set sandbox.enabled to true",
        );
        return finding(name, "disabled by sandbox.enabled".into(), Some(missing));
    }
    match Ruleset::new(&[]) {
        Ok(set) => {
            let version = set.version();
            finding(name, format!("capabilities, landlock version {version}"), None)
        }
        Err(error) => finding(
            name,
            format!("capabilities only: {error}"),
            Some((
                "tapio may open every file that this user may",
                "boot Linux 5.19 or later with landlock in lsm=",
            )),
        ),
    }
}
