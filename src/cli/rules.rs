//! `tapio rules`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use super::arguments::{load_rules, read_inputs, read_rules};
use super::doctor::missing_sources;
use super::live;
use super::output::{
    BAD_USAGE, Cell, Column, Outcome, Output, OutputArgs, Printer, Table, Usage, message, print,
    severity_code,
};
use super::refused::print_refused;
use super::run::config;
use crate::runtime::Config;
use tapio_dataflow::evidence::rule_documents;
use tapio_dataflow::replay::{Emit, run as run_rules};
use tapio_dataflow::rule_runner::run_rule_tests;
use tapio_dataflow::rules::{self, Emitted, Rule, RuleError};

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Check rule files; errors have file, line and column. Each rule can fire on this node, or the
    /// reason is given
    #[command(
        after_help = "Examples:\n  tapio rules check my-rules/\n  tapio rules check --config tapio.yaml my-rules/"
    )]
    Check(Check),
    /// Run the rules' own tests; prints the differences from the expected stories
    #[command(after_help = "Example:\n  tapio rules test my-rules/\n  tapio rules test")]
    Test(Paths),
    /// Print the JSON Schema of a rule document, for editors
    #[command(
        after_help = "Example:\n  tapio rules schema > tapio-rule.schema.json\n  # yaml-language-server: $schema=./tapio-rule.schema.json"
    )]
    Schema,
    /// Describe a rule in plain text: its shape, its state bound, its story
    #[command(after_help = "Example:\n  tapio rules explain oom-kill")]
    Explain(Explain),
    /// List rules: name, severity, shape, description
    #[command(after_help = "Examples:\n  tapio rules list\n  tapio rules list -o json")]
    List(List),
    /// Suggest rules from learned pairs: kinds that precede others more often than by chance
    #[command(
        after_help = "Examples:\n  tapio rules suggest > suggested.yaml\n  tapio rules suggest yesterday.jsonl"
    )]
    Suggest(Suggest),
}

#[derive(clap::Args)]
struct Suggest {
    /// Files with one event per line to learn from; by default a running agent
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The agent's admin address
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7603")]
    agent: String,
    /// Rule files or folders that determine the relevant kinds, instead of the built-in rules
    #[arg(long, value_name = "PATH", num_args = 1..)]
    rules: Vec<PathBuf>,
    /// Output format
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

#[derive(clap::Args)]
struct Paths {
    /// Rule files or folders; by default the built-in rules
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Output format
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

#[derive(clap::Args)]
struct List {
    /// Rule files or folders; by default the built-in rules
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(clap::Args)]
struct Check {
    #[command(flatten)]
    paths: Paths,
    /// Configuration file of the agent, which decides the events that rules get; by default the
    /// defaults
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(clap::Args)]
struct Explain {
    /// The rule's name
    rule: String,
    /// Rule files or folders; by default the built-in rules
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
}

pub(super) fn run(args: &Args) -> Outcome {
    match &args.verb {
        Verb::Check(args) => check(args),
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
        let rules = load_rules(&args.rules)?;
        let replayed = run_rules(read_inputs(&args.files)?, rules, "", 1, Emit::Stories)?;
        print_refused(&replayed.refused);
        rule_documents(&replayed.suggestions)
    };
    match args.output {
        Output::Text if text.is_empty() => {
            message("no rule suggested: no pair of kinds was seen often enough")
        }
        Output::Text => print(text.trim_end())?,
        Output::Json => {
            let documents = text.split("---\n").filter(|d| !d.is_empty());
            print(&json!({"documents": documents.collect::<Vec<_>>()}).to_string())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A rule, and the reason why it can't fire on this node.
struct Verdict<'a> {
    rule: &'a Rule,
    cause: Option<String>,
}

/// Whether each rule can fire on this node with this configuration.
fn verdicts<'a>(rules: &'a [Rule], config: &Config) -> Vec<Verdict<'a>> {
    let collectors = &config.collectors;
    let runs = |names: &[&str]| {
        collectors.rows().iter().any(|row| row.enabled && names.contains(&row.name))
    };
    let missing = missing_sources();
    let kind = |kind: &str| {
        collectors.emits(kind)?;
        match missing.iter().find(|(start, _)| kind.starts_with(start)) {
            Some((_, cause)) => Err(format!("`{kind}` is missing on this node: {cause}")),
            None => Ok(()),
        }
    };
    let emitted = Emitted {
        kind: &kind,
        applications: runs(&["otlp", "receiver", "jsonl"]),
        files: runs(&["jsonl"]),
    };
    let verdict = |rule| Verdict { rule, cause: rules::can_fire(rule, &emitted).err() };
    rules.iter().map(verdict).collect()
}

fn check(args: &Check) -> Outcome {
    let config = config(args.config.as_deref())?;
    let loaded = read_rules(&args.paths.paths);
    let verdicts = verdicts(&loaded.rules, &config);
    let can_fire = verdicts.iter().filter(|v| v.cause.is_none()).count();
    if args.paths.output == Output::Json {
        let list = |errors: &[RuleError]| -> serde_json::Value {
            let json = |e: &RuleError| {
                let position = e.diagnostic.position;
                json!({"file": e.file, "line": position.line, "column": position.column, "cause": e.diagnostic.message})
            };
            errors.iter().map(json).collect()
        };
        let of_rule = |v: &Verdict<'_>| json!({"rule": v.rule.name.text(), "origin": v.rule.origin, "can_fire": v.cause.is_none(), "cause": v.cause});
        let line = json!({
            "rules": loaded.rules.len(), "can_fire": can_fire, "errors": list(&loaded.errors),
            "warnings": list(&loaded.warnings),
            "verdicts": verdicts.iter().map(of_rule).collect::<Vec<_>>(),
        });
        print(&line.to_string())?;
    } else {
        loaded.errors.iter().for_each(|e| message(&e.to_string()));
        loaded.warnings.iter().for_each(|w| message(&format!("warning: {w}")));
        for Verdict { rule, cause } in &verdicts {
            let (name, origin) = (rule.name.text(), &rule.origin);
            print(&match cause {
                None => format!("can fire    {name}"),
                Some(cause) => format!("can't fire  {name}: {cause} ({origin})"),
            })?;
        }
        let (rules, errors) = (loaded.rules.len(), loaded.errors.len());
        let never = rules - can_fire;
        print(&format!(
            "valid rules: {rules}, errors: {errors}; can fire: {can_fire}, can't fire: {never}"
        ))?;
    }
    if loaded.errors.is_empty() && loaded.rules.is_empty() {
        message("no rule: filters alone emit nothing");
        return Ok(ExitCode::from(BAD_USAGE));
    }
    Ok(if loaded.errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(BAD_USAGE) })
}

/// The columns of the list of rules.
const COLUMNS: &[Column] = &[
    Column { title: "RULE", width: 28, rank: 0 },
    Column { title: "SEVERITY", width: 8, rank: 1 },
    Column { title: "SHAPE", width: 9, rank: 2 },
    Column { title: "DESCRIPTION", width: 0, rank: 0 },
];

fn list(args: &List) -> Outcome {
    let rules = load_rules(&args.paths)?;
    let (mut printer, mut table) = (Printer::list(&args.output), Table::new(COLUMNS));
    for rule in &rules {
        let (name, severity) = (rule.name.text(), rule.severity);
        let shape = rule.shape.type_name();
        if printer.format.is_data() {
            printer.item(&json!({
                "rule": name, "severity": severity.as_str(), "shape": shape,
                "pattern": rule.story.pattern.text(), "description": rule.description, "origin": rule.origin,
            }))?;
        } else {
            let severity = Cell::painted(severity.as_str(), severity_code(severity));
            table.row(vec![name.into(), severity, shape.into(), (&rule.description).into()]);
        }
    }
    printer.table(&mut table)?;
    printer.finish()?;
    Ok(ExitCode::SUCCESS)
}

fn test(args: &Paths) -> Outcome {
    let rules = load_rules(&args.paths)?;
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    let mut untested = Vec::new();
    for rule in &rules {
        let results = run_rule_tests(rule)?;
        if results.is_empty() {
            untested.push(rule.name.text());
        }
        for result in results {
            // The recordings of built-in rules are in tapio's source only.
            if args.paths.is_empty() && result.missing.is_some() {
                skipped += 1;
                continue;
            }
            let position = result.position;
            let is_passed = result.differences.is_empty();
            *(if is_passed { &mut passed } else { &mut failed }) += 1;
            if args.output == Output::Json {
                let line = json!({
                    "rule": result.rule, "file": result.file, "line": position.line, "column": position.column,
                    "passed": is_passed, "differences": result.differences,
                });
                print(&line.to_string())?;
            } else {
                for difference in &result.differences {
                    let (line, column) = (position.line, position.column);
                    message(&format!(
                        "{}:{line}:{column}: {}: {difference}",
                        result.file, result.rule
                    ));
                }
            }
        }
    }
    if args.output == Output::Text {
        print(&format!(
            "tests passed: {passed}, failed: {failed}; rules without tests: {}",
            untested.len()
        ))?;
        if skipped > 0 {
            print(&format!("skipped: {skipped}, whose recordings are in tapio's source only"))?;
        }
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn explain(args: &Explain) -> Outcome {
    let rules = load_rules(&args.paths)?;
    let Some(rule) = rules.iter().find(|r| r.name.text() == args.rule) else {
        let names: Vec<&str> = rules.iter().map(|r| r.name.text()).collect();
        return Err(Usage(rules::unknown("rule", &args.rule, &names)).into());
    };
    print(rules::explain(rule).trim_end())?;
    Ok(ExitCode::SUCCESS)
}
