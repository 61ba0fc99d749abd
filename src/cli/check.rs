//! `tapio check`

use std::path::PathBuf;
use std::process::ExitCode;

use super::output::{BAD_USAGE, Outcome, message, print};
use super::run::config;
use crate::notify::check_receiver_files;
use crate::runtime::Config;
use tapio_core::clock;
use tapio_wire::ClientAccess;

#[derive(clap::Args)]
#[command(after_help = "Example:\n  tapio check --config tapio.yaml")]
pub(super) struct CheckArgs {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// The time as `YYYYMMDDHHMMSS` in UTC.
fn now() -> String {
    let now = jiff::Timestamp::from_nanosecond(i128::from(clock::wall_ns())).unwrap_or_default();
    let digits: String = now.to_string().chars().filter(char::is_ascii_digit).collect();
    digits.chars().take("YYYYMMDDHHMMSS".len()).collect()
}

/// Opens the files of certificates, keys and tokens. Returns warnings; the error is the key and
/// the cause.
fn check_files(config: &Config) -> Result<Vec<String>, String> {
    let now = now();
    let mut warnings = Vec::new();
    let collectors = &config.collectors;
    let otlp = collectors.otlp.enabled.then(|| collectors.otlp.access_config());
    let receiver = collectors.receiver.enabled.then(|| collectors.receiver.access());
    let listeners = [
        ("server", Some(config.server().access())),
        ("admin", Some(config.admin.access())),
        ("collectors.otlp", otlp),
        ("collectors.receiver", receiver),
    ];
    let mut add = |section: &str, found: Result<Vec<String>, String>| {
        let found = found.map_err(|e| format!("{section}.{e}"))?;
        warnings.extend(found.iter().map(|warning| format!("{section}.{warning}")));
        Ok::<(), String>(())
    };
    for (section, access) in listeners {
        add(section, access.map_or(Ok(Vec::new()), |access| access.check_files(&now)))?;
    }
    add("bridge", config.bridge.access().check_files(&now))?;
    for (at, sink) in config.export.otlp.iter().enumerate() {
        let access = ClientAccess { tls: sink.tls.clone(), token_file: None };
        add(&format!("export.otlp[{at}]"), access.check_files(&now))?;
    }
    if let Some(otlp) = &config.telemetry.otlp {
        let access = ClientAccess { tls: otlp.tls.clone(), token_file: None };
        add("telemetry.otlp", access.check_files(&now))?;
    }
    for (at, receiver) in config.server.notify.iter().enumerate() {
        let found = check_receiver_files(&receiver.value);
        found.map_err(|e| format!("server.notify[{at}].{e}"))?;
    }
    Ok(warnings)
}

pub(super) fn check(args: &CheckArgs) -> Outcome {
    let config = config(Some(&args.config))?;
    let loaded = tapio_dataflow::rules::load(&config.dataflow.rules);
    loaded.errors.iter().for_each(|e| message(&e.to_string()));
    if !loaded.errors.is_empty() {
        return Ok(ExitCode::from(BAD_USAGE));
    }
    let file = args.config.display();
    match check_files(&config) {
        Ok(warnings) => warnings.iter().for_each(|w| message(&format!("{file}: warning: {w}"))),
        Err(error) => {
            message(&format!("{file}: {error}"));
            return Ok(ExitCode::from(BAD_USAGE));
        }
    }
    let rows = config.collectors.rows();
    let enabled: Vec<&str> = rows.iter().filter(|r| r.enabled).map(|r| r.name).collect();
    print(&format!("{file}: valid; collectors: {}", enabled.join(", ")))?;
    if let Ok(layout) = config.thread_layout(&rows) {
        print(&format!("{file}: threads: {layout}"))?;
    }
    Ok(ExitCode::SUCCESS)
}
