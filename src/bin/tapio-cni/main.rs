//! `tapio-cni`: a chained CNI plugin that tells the agent of each call and changes nothing.
//!
//! | file | purpose |
//! | --- | --- |
//! | `main.rs` | the commands of the CNI specification, versions 0.3.0 to 1.1.0 |
//! | `outcome.rs` | what a result or an error of a plugin says |
//! | `delegate.rs` | runs another plugin in its own name, so that its errors and its time are known |
//! | `tell.rs` | a report to the agent, within a bound |
//!
//! A pod must never fail or wait for the sake of a report. So the result is printed first, nothing is ever read from the
//! agent, and the time for the report is bounded. The binary is static and doesn't hold tapio's library: a spawn costs
//! about a millisecond.
//!
//! In a network's list it stands last: `{"type": "tapio-cni"}`. In place of another plugin,
//! `{"type": "tapio-cni", "delegate": {"type": "bridge", …}}` runs that one, prints what it prints, ends as it ends, and
//! tells how long it took and what it complained of, which a plugin behind it in the list never learns.

mod delegate;
mod outcome;
mod tell;

use std::env;
use std::io::{Read as _, Write as _};
use std::process::ExitCode;

use serde::Deserialize;
use serde_json::value::RawValue;
use tapio_collectors::cni::report::{DEFAULT_SOCKET, PodNames, Report};
use tapio_core::clock;

/// The most that is read of a configuration.
const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// Versions of the specification, oldest first.
const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The name that stands in configurations.
const NAME: &str = "tapio-cni";

/// Error codes of the specification.
const BAD_ENVIRONMENT: u64 = 4;
const BAD_CONTENT: u64 = 6;

/// The configuration on standard input.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Config<'a> {
    #[serde(rename = "cniVersion")]
    cni_version: String,
    name: String,
    socket: Option<String>,
    #[serde(rename = "prevResult", borrow)]
    prev_result: Option<&'a RawValue>,
    #[serde(rename = "runtimeConfig", borrow)]
    runtime_config: Option<&'a RawValue>,
    #[serde(borrow)]
    delegate: Option<&'a RawValue>,
}

fn main() -> ExitCode {
    let command = variable("CNI_COMMAND");
    let mut text = String::new();
    let read = std::io::stdin().lock().take(MAX_CONFIG_BYTES).read_to_string(&mut text);
    match command.as_str() {
        "VERSION" => return version(&text),
        "ADD" | "DEL" | "CHECK" | "GC" | "STATUS" => {}
        other => {
            let what = format!("{other:?} in CNI_COMMAND is no command");
            return fail("", BAD_ENVIRONMENT, &what);
        }
    }
    let config = match (read, serde_json::from_str::<Config<'_>>(&text)) {
        (Ok(_), Ok(config)) => config,
        // What is to be undone doesn't depend on the configuration.
        _ if command != "ADD" => Config::default(),
        (Err(e), _) => return fail("", BAD_CONTENT, &format!("reading the configuration: {e}")),
        (_, Err(e)) => return fail("", BAD_CONTENT, &format!("the configuration: {e}")),
    };
    call(&command, &config)
}

/// Answers `ADD`, `DEL`, `CHECK`, `GC` and `STATUS`.
fn call(command: &str, config: &Config<'_>) -> ExitCode {
    let mut report = Report {
        command: command.into(),
        network: config.name.clone(),
        plugin: NAME.into(),
        container_id: variable("CNI_CONTAINERID"),
        ifname: variable("CNI_IFNAME"),
        netns: variable("CNI_NETNS"),
        pod: PodNames::from_args(&variable("CNI_ARGS")),
        time_ns: clock::wall_ns(),
        ..Report::default()
    };
    // Before the call: after DEL the namespace may be gone.
    report.netns_inode = tell::inode_of(&report.netns);
    let exit = match config.delegate {
        Some(plugin) => match delegate::run(config, plugin, &mut report) {
            Ok(exit) => exit,
            Err(what) => fail(&config.cni_version, delegate::CANT_RUN, &what),
        },
        None => {
            if command == "ADD" {
                print_previous(config);
            }
            if let Some(result) = config.prev_result {
                outcome::take_result(result.get(), &mut report);
            }
            ExitCode::SUCCESS
        }
    };
    // GC and STATUS are about no container, and STATUS comes every few seconds.
    if matches!(command, "ADD" | "DEL" | "CHECK") {
        tell::tell(&report, config.socket.as_deref().unwrap_or(DEFAULT_SOCKET));
    }
    exit
}

/// Prints the result of the plugin before, byte for byte; without one an empty result.
fn print_previous(config: &Config<'_>) {
    match config.prev_result {
        Some(result) => print(result.get()),
        None => {
            let version = if config.cni_version.is_empty() { "1.0.0" } else { &config.cni_version };
            print(&serde_json::json!({ "cniVersion": version }).to_string());
        }
    }
}

fn version(text: &str) -> ExitCode {
    let asked = serde_json::from_str::<Config<'_>>(text).unwrap_or_default().cni_version;
    let newest = VERSIONS[VERSIONS.len() - 1];
    let version = if VERSIONS.contains(&asked.as_str()) { &asked } else { newest };
    print(&serde_json::json!({ "cniVersion": version, "supportedVersions": VERSIONS }).to_string());
    ExitCode::SUCCESS
}

/// Prints an error as the specification wants it.
fn fail(version: &str, code: u64, what: &str) -> ExitCode {
    let version = if version.is_empty() { "1.0.0" } else { version };
    print(&serde_json::json!({ "cniVersion": version, "code": code, "msg": what }).to_string());
    ExitCode::FAILURE
}

fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    // A runtime that has closed its end doesn't want the result.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and(out.flush());
}

/// An environment variable's text; empty where there is none.
fn variable(name: &str) -> String {
    env::var_os(name).map_or_else(String::new, |v| v.to_string_lossy().into_owned())
}
