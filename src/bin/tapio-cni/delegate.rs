//! Runs another plugin: its environment is this one's, its configuration is the member `delegate` with the list's name
//! and version, its output and its exit code are passed on as they are.

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use tapio_collectors::cni::report::Report;
use tapio_core::clock;

use crate::{Config, outcome, print};

/// The specification's code for a configuration that can't be right.
pub(crate) const CANT_RUN: u64 = 7;

/// Runs the plugin and writes down how it went.
pub(crate) fn run(
    config: &Config<'_>,
    plugin: &RawValue,
    report: &mut Report,
) -> Result<ExitCode, String> {
    let mut inner: Map<String, Value> =
        serde_json::from_str(plugin.get()).map_err(|e| format!("delegate: {e}"))?;
    let kind = inner.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    report.plugin.clone_from(&kind);
    let program = find(&kind)?;
    inner.insert("cniVersion".into(), config.cni_version.clone().into());
    inner.insert("name".into(), config.name.clone().into());
    for (key, raw) in [("prevResult", config.prev_result), ("runtimeConfig", config.runtime_config)]
    {
        if let Some(value) = raw.and_then(|r| serde_json::from_str(r.get()).ok()) {
            inner.insert(key.into(), value);
        }
    }
    let begin = clock::instant();
    let (status, output) = execute(&program, &Value::Object(inner).to_string())
        .map_err(|e| format!("{}: {e}", program.display()))?;
    report.duration_ns = begin.elapsed().as_nanos() as u64;
    let text = output.trim_ascii_end();
    if !text.is_empty() {
        print(text);
    }
    if status.success() {
        outcome::take_result(text, report);
    } else {
        report.error = Some(outcome::error(text, &status.to_string()));
    }
    // A shell's way of telling a signal.
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    Ok(ExitCode::from(code as u8))
}

/// Looks the plugin up where the runtime looks for plugins.
fn find(kind: &str) -> Result<PathBuf, String> {
    if kind.is_empty() || kind.contains('/') {
        return Err(format!("delegate: {kind:?} is no plugin's type"));
    }
    let path = std::env::var_os("CNI_PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(kind))
        .find(|file| file.is_file())
        .ok_or_else(|| format!("delegate: no plugin {kind} in CNI_PATH {}", show(&path)))
}

fn show(text: &OsStr) -> String {
    text.to_string_lossy().into_owned()
}

/// Its standard error stays this process's: the runtime logs it.
fn execute(program: &PathBuf, config: &str) -> std::io::Result<(ExitStatus, String)> {
    let mut child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A plugin that ends without reading says why by itself.
        let _ = stdin.write_all(config.as_bytes());
    }
    let output = child.wait_with_output()?;
    Ok((output.status, String::from_utf8_lossy(&output.stdout).into_owned()))
}
