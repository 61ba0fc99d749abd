//! Values of arguments that several commands take.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::output::{Progress, Usage};
use tapio_collectors::events::otlp::OtlpLines;
use tapio_collectors::jsonl;
use tapio_core::event::{JsonEvent, ParsedLine};
use tapio_dataflow::replay::{Inputs, ReplayError};
use tapio_dataflow::rules::{self, Loaded, Rule};

/// Parses a duration; a bare number is seconds.
pub(super) fn duration(text: &str) -> Result<Duration, tapio_core::durations::ParseDurationError> {
    match text.parse().map(Duration::try_from_secs_f64) {
        Ok(Ok(duration)) => Ok(duration),
        _ => tapio_core::durations::parse(text),
    }
}

/// Events per second; `None`: as many as the target accepts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate(pub(super) Option<u64>);

/// Parses a rate.
pub(super) fn rate(text: &str) -> Result<Rate, String> {
    match text {
        "max" => Ok(Rate(None)),
        n => match n.parse() {
            Ok(n) if n > 0 => Ok(Rate(Some(n))),
            _ => Err("expected events per second, at least 1, or max".into()),
        },
    }
}

/// Loads the rules of these files and folders, or the built-in rules if there are none.
pub(super) fn read_rules(paths: &[PathBuf]) -> Loaded {
    if paths.is_empty() { rules::builtin() } else { rules::load(paths) }
}

/// Loads rules that must be free of errors.
///
/// # Errors
/// All errors in the documents, as [`Usage`].
pub(super) fn load_rules(paths: &[PathBuf]) -> anyhow::Result<Vec<Rule>> {
    let loaded = read_rules(paths);
    if loaded.errors.is_empty() {
        return Ok(loaded.rules);
    }
    let errors: Vec<String> = loaded.errors.iter().map(ToString::to_string).collect();
    Err(Usage(errors.join("\n")).into())
}

/// Reads the events of files: lines of tapio's format, or of OTLP, compressed or not; `-` is
/// standard input.
///
/// # Errors
/// When a file can't be read.
pub(super) fn read_inputs(files: &[PathBuf]) -> Result<Inputs, ReplayError> {
    let mut inputs = Inputs::default();
    // Records that name no host aren't of this one.
    let mut otlp = OtlpLines::new("");
    let progress = Progress::of_bytes("reading", total_bytes(files));
    for path in files {
        let failed = |cause| ReplayError::File { path: path.clone(), cause };
        let opened = if path == Path::new("-") {
            jsonl::unpacked(progress.counted(std::io::stdin()))
        } else {
            let opened = std::fs::File::open(path);
            opened.and_then(|file| jsonl::unpacked(progress.counted(file)))
        };
        let reader = std::io::BufReader::new(opened.map_err(failed)?);
        let name = path.display().to_string();
        inputs
            .read(&name, reader, &mut |line, key| {
                otlp.events(line, key).or_else(|| Some(observed(line, key)))
            })
            .map_err(failed)?;
    }
    Ok(inputs)
}

/// The bytes of files; `None` if one of them isn't a regular file.
fn total_bytes(files: &[PathBuf]) -> Option<u64> {
    let bytes = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file);
        metadata.map(|metadata| metadata.len())
    };
    files.iter().map(bytes).sum()
}

/// The event of a line in tapio's format.
fn observed(line: &str, key: &str) -> ParsedLine {
    match JsonEvent::parse_observed(line, key) {
        Ok(event) => (vec![event], None),
        Err(e) => (Vec::new(), Some((e.column, e.cause))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_number_is_seconds() {
        for (text, expected) in [("60", 60.0), ("0.5", 0.5), ("10s", 10.0), ("1m", 60.0)] {
            assert_eq!(duration(text), Ok(Duration::from_secs_f64(expected)), "{text}");
        }
        for text in ["", "-1", "ten", "inf", "1y"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
