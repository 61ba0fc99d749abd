//! `tapio config`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Subcommand, ValueEnum};
use serde_json::json;

use super::output::{Outcome, Output, message, print};
use super::run::config;
use crate::runtime::{Change, Config, Key, yaml_text};

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Print the JSON Schema of the configuration, for editors
    #[command(
        after_help = "Example:\n  tapio config schema > tapio.schema.json\n  # yaml-language-server: $schema=./tapio.schema.json"
    )]
    Schema,
    /// Print every key with its default, as a commented file
    #[command(after_help = "Example:\n  tapio config defaults > tapio.yaml")]
    Defaults,
    /// List the keys: type, default, and whether a reload takes them
    #[command(
        after_help = "Examples:\n  tapio config keys\n  tapio config keys server --output json"
    )]
    Keys(KeysArgs),
    /// Print the values in force, after variables are replaced, without secrets
    #[command(after_help = "Example:\n  tapio config show --config /etc/tapio/tapio.yaml")]
    Show(ShowArgs),
    /// Compare a file with the defaults or with another one
    #[command(
        after_help = "Examples:\n  tapio config diff /etc/tapio/tapio.yaml\n  tapio config diff old.yaml new.yaml\n\nExit code 1 with --exit-code: they differ."
    )]
    Diff(DiffArgs),
}

#[derive(clap::Args)]
struct KeysArgs {
    /// Print the keys that begin with this text
    #[arg(value_name = "PREFIX", default_value = "")]
    prefix: String,
    /// Output format
    #[arg(long, value_enum, default_value = "text")]
    output: KeysFormat,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum KeysFormat {
    /// A line per key
    Text,
    /// Tables, as in docs/configuration.md
    Markdown,
    /// JSON for a program
    Json,
}

#[derive(clap::Args)]
struct ShowArgs {
    /// Configuration file; without one, the defaults apply
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Replace secrets, which is the default
    #[arg(long, conflicts_with = "reveal_secrets")]
    redacted: bool,
    /// Print secrets too
    #[arg(long)]
    reveal_secrets: bool,
    /// Output format
    #[arg(long, value_enum, default_value = "yaml")]
    output: ShowFormat,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ShowFormat {
    /// YAML, which is valid as a configuration
    Yaml,
    /// JSON for a program
    Json,
}

#[derive(clap::Args)]
struct DiffArgs {
    /// Configuration file
    #[arg(value_name = "FILE")]
    old: PathBuf,
    /// The configuration that would replace it; without one, FILE is compared with the defaults
    #[arg(value_name = "NEW")]
    new: Option<PathBuf>,
    /// Exit with code 1 if there are differences
    #[arg(long)]
    exit_code: bool,
    /// Output format
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

pub(super) fn run(args: &Args) -> Outcome {
    match &args.verb {
        Verb::Schema => print(&serde_json::to_string_pretty(&Config::schema())?)?,
        Verb::Defaults => print(Config::defaults_text().trim_end())?,
        Verb::Keys(args) => print(&keys(args))?,
        Verb::Show(args) => show(args)?,
        Verb::Diff(args) => return diff(args),
    }
    Ok(ExitCode::SUCCESS)
}

fn keys(args: &KeysArgs) -> String {
    let keys: Vec<Key> = Config::keys();
    let keys: Vec<Key> = keys.into_iter().filter(|k| k.path.starts_with(&args.prefix)).collect();
    match args.output {
        KeysFormat::Text => lines(&keys),
        KeysFormat::Markdown => tables(&keys),
        KeysFormat::Json => {
            let key = |k: &Key| {
                json!({
                    "key": k.path, "type": k.form, "default": k.default, "reload": k.is_reloaded,
                    "description": k.about,
                })
            };
            serde_json::Value::from(keys.iter().map(key).collect::<Vec<_>>()).to_string()
        }
    }
}

fn takes(is_reloaded: bool) -> &'static str {
    if is_reloaded { "reload" } else { "restart" }
}

/// A default that isn't too long for a table.
fn default_text(key: &Key) -> String {
    match &key.default {
        serde_json::Value::Null => String::new(),
        value => {
            let text = yaml_text(value);
            let text = text.trim_end();
            match text.chars().count() {
                ..=60 if !text.contains('\n') => text.to_owned(),
                _ => "see `tapio config defaults`".to_owned(),
            }
        }
    }
}

fn lines(keys: &[Key]) -> String {
    let width = keys.iter().map(|k| k.path.chars().count()).max().unwrap_or(0);
    let line = |k: &Key| {
        let default = match default_text(k).replace('`', "") {
            text if text.is_empty() => "none".to_owned(),
            text => text,
        };
        let (path, takes) = (&k.path, takes(k.is_reloaded));
        format!("{path:width$}  {takes:7}  {} (default: {default})", k.form)
    };
    keys.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A table for each section.
fn tables(keys: &[Key]) -> String {
    let section = |key: &Key| {
        let parts: Vec<&str> = key.path.split('.').collect();
        match parts[..] {
            [] | [_] => String::new(),
            ["collectors", _] => "collectors".to_owned(),
            ["collectors", collector, ..] => format!("collectors.{collector}"),
            [first, ..] => first.to_owned(),
        }
    };
    let (mut out, mut current) = (String::new(), None);
    for key in keys {
        let of = section(key);
        if current.as_ref() != Some(&of) {
            let heading = match of.as_str() {
                "" => "## Keys without a section".to_owned(),
                name => format!("## `{name}`"),
            };
            out.push_str(&format!("\n{heading}\n\n"));
            out.push_str("| key | values | default | new value takes effect | description |\n");
            out.push_str("| --- | --- | --- | --- | --- |\n");
            current = Some(of);
        }
        let default = default_text(key);
        let default = match default.starts_with("see ") || default.is_empty() {
            true => default,
            false => format!("`{default}`"),
        };
        let cell = |text: &str| text.replace('|', "\\|");
        out.push_str(&format!(
            "| `{}` | {} | {} | {} | {} |\n",
            key.path,
            cell(&key.form),
            cell(&default),
            takes(key.is_reloaded),
            cell(&key.about)
        ));
    }
    out.trim().to_owned()
}

fn show(args: &ShowArgs) -> anyhow::Result<()> {
    let values = config(args.config.as_deref())?.shown(args.reveal_secrets && !args.redacted);
    match args.output {
        ShowFormat::Yaml => print(yaml_text(&values).trim_end())?,
        ShowFormat::Json => print(&serde_json::to_string_pretty(&values)?)?,
    }
    Ok(())
}

fn diff(args: &DiffArgs) -> Outcome {
    let read = |path: &Path| config(Some(path));
    let (old, new) = match &args.new {
        Some(new) => (read(&args.old)?, read(new)?),
        None => (Config::default(), read(&args.old)?),
    };
    let changes = old.changes(&new);
    if args.output == Output::Json {
        let row = |c: &Change| {
            json!({
                "key": c.path, "old": c.old, "new": c.new,
                "takes_effect": takes(c.is_reloaded),
            })
        };
        print(&serde_json::Value::from(changes.iter().map(row).collect::<Vec<_>>()).to_string())?;
    } else {
        for change in &changes {
            print(&format!("{:7}  {change}", takes(change.is_reloaded)))?;
        }
        report(&changes);
    }
    Ok(ExitCode::from(u8::from(args.exit_code && !changes.is_empty())))
}

fn report(changes: &[Change]) {
    let reloaded = changes.iter().filter(|c| c.is_reloaded).count();
    message(&match (reloaded, changes.len() - reloaded) {
        (0, 0) => "tapio: no differences".to_owned(),
        (reloaded, 0) => format!("tapio: {reloaded} differ; a reload takes all of them"),
        (0, restart) => format!("tapio: {restart} differ; all of them need a restart"),
        (reloaded, restart) => format!(
            "tapio: {} differ; a reload takes {reloaded}, {restart} need a restart",
            reloaded + restart
        ),
    });
}
