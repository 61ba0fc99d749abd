//! `tapio rules`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use super::{BAD_USAGE, Outcome, Output, Usage, print, tell};
use crate::dataflow::rules::{self, Loaded, Rule};

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Check rule files; says what is wrong with file, line and column
    #[command(after_help = "Example:\n  tapio rules check my-rules/")]
    Check(Paths),
    /// List rules: name, severity, what they look for
    #[command(after_help = "Example:\n  tapio rules list --output json")]
    List(Paths),
}

#[derive(clap::Args)]
struct Paths {
    /// Rule files or folders; the built-in rules where none is given
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// How to print
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

fn read(paths: &[PathBuf]) -> Loaded {
    if paths.is_empty() { rules::builtin() } else { rules::load(paths) }
}

/// The rules of these files and folders, or the built-in ones.
///
/// # Errors
/// When a document is wrong; all complaints are told.
pub(super) fn load(paths: &[PathBuf]) -> anyhow::Result<Vec<Rule>> {
    let loaded = read(paths);
    if loaded.errors.is_empty() {
        return Ok(loaded.rules);
    }
    let complaints: Vec<String> = loaded.errors.iter().map(ToString::to_string).collect();
    Err(Usage(complaints.join("\n")).into())
}

pub(super) fn run(args: &Args) -> Outcome {
    match &args.verb {
        Verb::Check(paths) => check(paths),
        Verb::List(paths) => list(paths),
    }
}

fn check(args: &Paths) -> Outcome {
    let loaded = read(&args.paths);
    if args.output == Output::Json {
        let errors: Vec<_> = loaded
            .errors
            .iter()
            .map(|e| {
                let place = e.complaint.place;
                json!({"file": e.file, "line": place.line, "column": place.column, "cause": e.complaint.cause})
            })
            .collect();
        print(&json!({"rules": loaded.rules.len(), "errors": errors}).to_string())?;
    } else {
        loaded.errors.iter().for_each(|e| tell(&e.to_string()));
        print(&format!(
            "{} rules are fine, {} documents are not",
            loaded.rules.len(),
            loaded.errors.len()
        ))?;
    }
    Ok(if loaded.errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(BAD_USAGE) })
}

fn list(args: &Paths) -> Outcome {
    for rule in load(&args.paths)? {
        let shape = rule.shape_word();
        if args.output == Output::Json {
            let line = json!({
                "rule": rule.name.text(), "severity": rule.severity.word(), "shape": shape,
                "pattern": rule.telling.pattern.text(), "description": rule.description, "origin": rule.origin,
            });
            print(&line.to_string())?;
        } else {
            print(&format!(
                "{:<28} {:<9} {:<9} {}",
                rule.name.text(),
                rule.severity.word(),
                shape,
                rule.description
            ))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
