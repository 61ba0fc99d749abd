//! `tapio rules`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use super::{BAD_USAGE, Outcome, Output, Usage, live, print, tell};
use tapio_dataflow::evidence::rule_documents;
use tapio_dataflow::replay::{Emit, replay};
use tapio_dataflow::rule_runner::run_rule_tests;
use tapio_dataflow::rules::{self, Loaded, Rule, RuleError};

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
    /// Run the rules' own tests; says what differs from what their authors expect
    #[command(after_help = "Example:\n  tapio rules test my-rules/\n  tapio rules test")]
    Test(Paths),
    /// Print the JSON Schema of a rule document, for editors
    #[command(
        after_help = "Example:\n  tapio rules schema > tapio-rule.schema.json\n  # yaml-language-server: $schema=./tapio-rule.schema.json"
    )]
    Schema,
    /// Say in words what a rule looks for, what it costs and what it tells
    #[command(after_help = "Example:\n  tapio rules explain oom-kill")]
    Explain(Explain),
    /// List rules: name, severity, what they look for
    #[command(after_help = "Example:\n  tapio rules list --output json")]
    List(Paths),
    /// Rules that suggest themselves: kinds that come before others more often than by chance
    #[command(
        after_help = "Examples:\n  tapio rules suggest > suggested.yaml\n  tapio rules suggest yesterday.jsonl"
    )]
    Suggest(Suggest),
}

#[derive(clap::Args)]
struct Suggest {
    /// Files with one event a line to learn from; a running agent where none is given
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The agent's admin address
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7603")]
    agent: String,
    /// Rule files or folders that say which kinds matter, in the place of the built-in rules
    #[arg(long, value_name = "PATH", num_args = 1..)]
    rules: Vec<PathBuf>,
    /// How to print
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
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

#[derive(clap::Args)]
struct Explain {
    /// The rule's name
    rule: String,
    /// Rule files or folders; the built-in rules where none is given
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
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
        Verb::Test(paths) => test(paths),
        Verb::Schema => {
            print(&serde_json::to_string_pretty(&rules::schema())?)?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Explain(args) => explain(args),
        Verb::Suggest(args) => suggest(args),
    }
}

fn suggest(args: &Suggest) -> Outcome {
    let text = if args.files.is_empty() {
        live::http_text(&args.agent, "/suggested-rules")?
    } else {
        let rules = load(&args.rules)?;
        let replayed = replay(&args.files, rules, "", 1, Emit::Stories)?;
        super::replay::tell_refused(&replayed.refused);
        rule_documents(&replayed.suggestions)
    };
    match args.output {
        Output::Text if text.is_empty() => tell("nothing was seen often enough to suggest a rule"),
        Output::Text => print(text.trim_end())?,
        Output::Json => {
            let documents = text.split("---\n").filter(|d| !d.is_empty());
            print(&json!({"documents": documents.collect::<Vec<_>>()}).to_string())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn check(args: &Paths) -> Outcome {
    let loaded = read(&args.paths);
    if args.output == Output::Json {
        let list = |complaints: &[RuleError]| -> serde_json::Value {
            let json = |e: &RuleError| {
                let place = e.diagnostic.position;
                json!({"file": e.file, "line": place.line, "column": place.column, "cause": e.diagnostic.message})
            };
            complaints.iter().map(json).collect()
        };
        let (errors, warnings) = (list(&loaded.errors), list(&loaded.warnings));
        let rules = loaded.rules.len();
        print(&json!({"rules": rules, "errors": errors, "warnings": warnings}).to_string())?;
    } else {
        loaded.errors.iter().for_each(|e| tell(&e.to_string()));
        loaded.warnings.iter().for_each(|w| tell(&format!("warning: {w}")));
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
        let shape = rule.shape.type_name();
        if args.output == Output::Json {
            let line = json!({
                "rule": rule.name.text(), "severity": rule.severity.word(), "shape": shape,
                "pattern": rule.story.pattern.text(), "description": rule.description, "origin": rule.origin,
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

fn test(args: &Paths) -> Outcome {
    let rules = load(&args.paths)?;
    let (mut passed, mut failed) = (0, 0);
    let mut untested = Vec::new();
    for rule in &rules {
        let tried = run_rule_tests(rule)?;
        if tried.is_empty() {
            untested.push(rule.name.text());
        }
        for one in tried {
            let place = one.position;
            let fine = one.differences.is_empty();
            *(if fine { &mut passed } else { &mut failed }) += 1;
            if args.output == Output::Json {
                let line = json!({
                    "rule": one.rule, "file": one.file, "line": place.line, "column": place.column,
                    "passed": fine, "differences": one.differences,
                });
                print(&line.to_string())?;
            } else {
                for difference in &one.differences {
                    let (line, column) = (place.line, place.column);
                    tell(&format!("{}:{line}:{column}: {}: {difference}", one.file, one.rule));
                }
            }
        }
    }
    if args.output == Output::Text {
        print(&format!(
            "{passed} tests passed, {failed} failed, {} rules have none",
            untested.len()
        ))?;
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn explain(args: &Explain) -> Outcome {
    let rules = load(&args.paths)?;
    let Some(rule) = rules.iter().find(|r| r.name.text() == args.rule) else {
        let names: Vec<&str> = rules.iter().map(|r| r.name.text()).collect();
        return Err(Usage(rules::unknown("rule", &args.rule, &names)).into());
    };
    print(rules::explain(rule).trim_end())?;
    Ok(ExitCode::SUCCESS)
}
