//! `tapio-cni`: a chained CNI plugin that reports each call to the agent and changes nothing.
//!
//! | file | purpose |
//! | --- | --- |
//! | `main.rs` | the commands of the CNI specification, versions 0.3.0 to 1.1.0 |
//! | `outcome.rs` | decodes the result or the error of a plugin |
//! | `delegate.rs` | runs another plugin, so that its errors and its duration are reported |
//! | `send.rs` | sends the report to the agent, within a time limit |
//!
//! A pod must never fail or wait because of a report. So the result is printed first, nothing is
//! read from the agent, and the time for the report is bounded. The binary is static. Of the
//! collectors' library it uses the definition of the report, of the core library the clocks; the
//! linker drops the rest. A run costs about a millisecond.
//!
//! In a network's list the plugin comes last: `{"type": "tapio-cni"}`. In place of another plugin,
//! `{"type": "tapio-cni", "delegate": {"type": "bridge", …}}` runs that one, passes on its output
//! and exit code, and reports its duration and its error. A plugin further down the list never gets
//! these.

mod delegate;
mod outcome;
mod send;

use std::env;
use std::io::{Read as _, Write as _};
use std::process::ExitCode;

use serde::Deserialize;
use serde_json::value::RawValue;
use tapio_collectors::cni_report::{DEFAULT_SOCKET, PodNames, Report};
use tapio_core::clock;

/// Bytes read of a configuration.
const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// Versions of the specification, oldest first.
const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The plugin's name in configurations.
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
            let message = format!("unknown command {other:?} in CNI_COMMAND");
            return fail("", BAD_ENVIRONMENT, &message);
        }
    }
    let config = match (read, serde_json::from_str::<Config<'_>>(&text)) {
        (Ok(_), Ok(config)) => config,
        // DEL and the other commands must not fail because of the configuration.
        _ if command != "ADD" => Config::default(),
        (Err(e), _) => return fail("", BAD_CONTENT, &format!("reading the configuration: {e}")),
        (_, Err(e)) => return fail("", BAD_CONTENT, &format!("invalid configuration: {e}")),
    };
    call(&command, &config)
}

/// Executes `ADD`, `DEL`, `CHECK`, `GC` and `STATUS`.
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
    // Before the call: after DEL the namespace may not exist any more.
    report.netns_inode = send::inode_of(&report.netns);
    let exit = match config.delegate {
        Some(plugin) => match delegate::run(config, plugin, &mut report) {
            Ok(exit) => exit,
            Err(message) => fail(&config.cni_version, delegate::INVALID_CONFIG, &message),
        },
        None => {
            if command == "ADD" {
                print_previous(config);
            }
            if let Some(result) = config.prev_result {
                outcome::read_result(result.get(), &mut report);
            }
            ExitCode::SUCCESS
        }
    };
    // GC and STATUS don't refer to a container, and STATUS is called every few seconds.
    if matches!(command, "ADD" | "DEL" | "CHECK") {
        send::send_report(&report, config.socket.as_deref().unwrap_or(DEFAULT_SOCKET));
    }
    exit
}

/// Prints the result of the previous plugin, byte for byte; without one, an empty result.
fn print_previous(config: &Config<'_>) {
    match config.prev_result {
        Some(result) => print(result.get()),
        None => {
            let version = if config.cni_version.is_empty() { "1.0.0" } else { &config.cni_version };
            print(&serde_json::json!({ "cniVersion": version }).to_string());
        }
    }
}

/// Executes `VERSION`.
fn version(text: &str) -> ExitCode {
    let requested = serde_json::from_str::<Config<'_>>(text).unwrap_or_default().cni_version;
    let newest = VERSIONS[VERSIONS.len() - 1];
    let version = if VERSIONS.contains(&requested.as_str()) { &requested } else { newest };
    print(&serde_json::json!({ "cniVersion": version, "supportedVersions": VERSIONS }).to_string());
    ExitCode::SUCCESS
}

/// Prints an error in the specification's format.
fn fail(version: &str, code: u64, message: &str) -> ExitCode {
    let version = if version.is_empty() { "1.0.0" } else { version };
    print(&serde_json::json!({ "cniVersion": version, "code": code, "msg": message }).to_string());
    ExitCode::FAILURE
}

fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    // A runtime that has closed its end doesn't need the result.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and(out.flush());
}

/// An environment variable; empty if it isn't set.
fn variable(name: &str) -> String {
    env::var_os(name).map_or_else(String::new, |v| v.to_string_lossy().into_owned())
}
