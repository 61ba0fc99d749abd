//! The files of certificates, keys and tokens.

use super::report::Report;
use crate::notify::check_receiver_files;
use crate::runtime::Config;
use tapio_core::clock;
use tapio_wire::ClientAccess;

/// The time as `YYYYMMDDHHMMSS` in UTC.
fn now() -> String {
    let now = jiff::Timestamp::from_nanosecond(i128::from(clock::wall_ns())).unwrap_or_default();
    let digits: String = now.to_string().chars().filter(char::is_ascii_digit).collect();
    digits.chars().take("YYYYMMDDHHMMSS".len()).collect()
}

/// Opens the files of certificates, keys and tokens.
pub(super) fn check(config: &Config, report: &mut Report) {
    let now = now();
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
        let split = |text: &str| {
            let (key, cause) = text.split_once(": ").unwrap_or(("", text));
            (format!("{section}.{key}").trim_end_matches('.').to_owned(), cause.to_owned())
        };
        match found {
            Ok(warnings) => {
                for (key, cause) in warnings.iter().map(|warning| split(warning)) {
                    report.warning(&key, cause);
                }
            }
            Err(error) => {
                let (key, cause) = split(&error);
                report.error(&key, cause);
            }
        }
    };
    for (section, access) in listeners {
        add(section, access.map_or(Ok(Vec::new()), |access| access.check_files(&now)));
    }
    add("bridge", config.bridge.access().check_files(&now));
    for (at, sink) in config.export.otlp.iter().enumerate() {
        let access = ClientAccess { tls: sink.tls.clone(), token_file: None };
        add(&format!("export.otlp[{at}]"), access.check_files(&now));
    }
    if let Some(otlp) = &config.telemetry.otlp {
        let access = ClientAccess { tls: otlp.tls.clone(), token_file: None };
        add("telemetry.otlp", access.check_files(&now));
    }
    for (at, receiver) in config.server.notify.iter().enumerate() {
        let found = check_receiver_files(&receiver.value).map(|()| Vec::new());
        add(&format!("server.notify[{at}]"), found);
    }
}
