//! `tapio quarantine`

use std::io::{BufRead as _, BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::Value as Json;

use super::event_line::event_line;
use super::output::{Outcome, OutputArgs, Printer, Style, message, plain};
use super::run::config;
use crate::bridge::QUARANTINE_FILE;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  tapio quarantine\n  tapio quarantine --config /etc/tapio/tapio.yaml --output json"
)]
pub(super) struct Args {
    /// The agent's configuration file, which has its state folder
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) fn run(args: &Args) -> Outcome {
    let config = config(args.config.as_deref())?;
    let path = config.state_dir().join(QUARANTINE_FILE);
    let older = path.with_extension("jsonl.1");
    let mut printer = Printer::list(&args.output);
    let printed = print_file(&older, &mut printer)? + print_file(&path, &mut printer)?;
    printer.finish()?;
    if printed == 0 {
        message(&format!("tapio: nothing is in quarantine ({})", path.display()));
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints a file's items. Returns how many it has; a missing file has none.
fn print_file(path: &Path, printer: &mut Printer) -> anyhow::Result<usize> {
    let file = match std::fs::File::open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(0),
        opened => opened.with_context(|| path.display().to_string())?,
    };
    let mut printed = 0;
    for line in BufReader::new(file).lines() {
        let line = line.with_context(|| path.display().to_string())?;
        // The agent may have been killed while it wrote the last line.
        let Ok(item) = serde_json::from_str::<Json>(&line) else { continue };
        if printer.format.is_data() {
            printer.item(&item)?;
        } else {
            let text = item_line(&item, &printer.style);
            printer.line(&text)?;
        }
        printed += 1;
    }
    Ok(printed)
}

/// An item on one line, with the server's cause.
fn item_line(item: &Json, style: &Style) -> String {
    let cause = plain(item.get("cause").and_then(Json::as_str).unwrap_or_default());
    let content = match (item.get("event"), item.get("story")) {
        (Some(event), _) => event_line(event, style),
        (None, Some(story)) => {
            let text = |key: &str| story.get(key).and_then(Json::as_str).unwrap_or_default();
            format!("story {} {}", plain(text("id")), plain(text("name")))
        }
        (None, None) => "an item that can't be decoded".to_owned(),
    };
    format!("{content} (refused: {cause})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn item_is_one_line_with_its_cause() {
        let event = serde_json::json!({"cause": "too\nlarge", "event": {
            "time": "2026-01-02T03:04:05.678901234Z", "kind": "app.log", "source": "otlp",
            "message": "hello"
        }});
        assert_eq!(
            item_line(&event, &Style::bare()),
            "2026-01-02 03:04:05.678Z otlp app.log hello (refused: too·large)"
        );
        let story = serde_json::json!({"cause": "no", "story": {"id": "ab", "name": "n"}});
        assert_eq!(item_line(&story, &Style::bare()), "story ab n (refused: no)");
    }
}
