//! Runs another plugin with this process's environment. Its configuration is the member `delegate`,
//! completed with the list's name and version; its output and exit code are passed on unchanged.

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use tapio_collectors::cni_report::Report;
use tapio_core::clock;

use crate::{Config, outcome, print};

/// The specification's error code for an invalid network configuration.
pub(crate) const INVALID_CONFIG: u64 = 7;

/// Runs the plugin. Adds its duration, and its result or error, to the report.
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
    let start = clock::instant();
    let (status, output) = execute(&program, &Value::Object(inner).to_string())
        .map_err(|e| format!("{}: {e}", program.display()))?;
    report.duration_ns = start.elapsed().as_nanos() as u64;
    let text = output.trim_ascii_end();
    if !text.is_empty() {
        print(text);
    }
    if status.success() {
        outcome::read_result(text, report);
    } else {
        report.error = Some(outcome::error(text, &status.to_string()));
    }
    // A signal as exit code, in the shell's convention.
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    Ok(ExitCode::from(code as u8))
}

/// Finds the plugin in the folders of CNI_PATH, as the runtime does.
fn find(kind: &str) -> Result<PathBuf, String> {
    if kind.is_empty() || kind.contains('/') {
        return Err(format!("delegate: invalid plugin type {kind:?}"));
    }
    let path = std::env::var_os("CNI_PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(kind))
        .find(|file| file.is_file())
        .ok_or_else(|| format!("delegate: no plugin {kind} in CNI_PATH {}", path.display()))
}

/// Runs the program. Its standard error is this process's, which the runtime logs.
fn execute(program: &PathBuf, config: &str) -> std::io::Result<(ExitStatus, String)> {
    let mut child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A plugin that ends without reading its input reports the cause itself.
        let _ = stdin.write_all(config.as_bytes());
    }
    let output = child.wait_with_output()?;
    Ok((output.status, String::from_utf8_lossy(&output.stdout).into_owned()))
}
