//! `tapio silence`

use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use tonic::Code;

use super::annotate::ByArgs;
use crate::cli::arguments::duration;
use crate::cli::connection::ServerArgs;
use crate::cli::live;
use crate::cli::output::{
    Cell, Column, Outcome, OutputArgs, Printer, Style, Table, Usage, message, plain,
};
use tapio_wire::{ClientAccess, proto, silence_json};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Silence the stories of a rule for a time
    #[command(
        after_help = "Examples:\n  tapio silence add oom-kill --for 2h --reason 'load test'\n  tapio silence add oom-kill --for 1d --key host.name=n1"
    )]
    Add(Add),
    /// List the silences in force
    #[command(after_help = "Example:\n  tapio silence list")]
    List(List),
    /// End a silence
    #[command(after_help = "Example:\n  tapio silence remove 3fa4b2c1d0e9")]
    Remove(Remove),
}

#[derive(clap::Args)]
struct Add {
    /// The rule
    #[arg(value_name = "RULE", value_parser = rule_name)]
    rule: String,
    /// How long: `30m`, `2h`, `7d`; at most a year
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    lasts: Duration,
    /// Only stories whose join key has this value; repeated: all of them
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    key: Vec<(String, String)>,
    /// Why
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    by: ByArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    at: ServerArgs,
}

#[derive(clap::Args)]
struct List {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    at: ServerArgs,
}

#[derive(clap::Args)]
struct Remove {
    /// The silence's id
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    by: ByArgs,
    #[command(flatten)]
    at: ServerArgs,
}

const COLUMNS: &[Column] = &[
    Column { title: "ID", width: 12, rank: 0 },
    Column { title: "UNTIL", width: 20, rank: 0 },
    Column { title: "RULE", width: 16, rank: 0 },
    Column { title: "BY", width: 6, rank: 2 },
    Column { title: "KEY", width: 8, rank: 1 },
    Column { title: "REASON", width: 0, rank: 0 },
];

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => {
            Ok((name.into(), value.into()))
        }
        _ => Err("expected NAME=VALUE, neither of them empty, such as host.name=n1".into()),
    }
}

/// A name that a rule can have.
fn rule_name(text: &str) -> Result<String, String> {
    let is_name = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-');
    match !text.is_empty() && text.chars().all(is_name) {
        true => Ok(text.to_owned()),
        false => Err("no rule has this name: expected a-z, 0-9 and -, such as oom-kill".into()),
    }
}

pub(crate) fn run(args: &Args) -> Outcome {
    match &args.verb {
        Verb::Add(args) => add(args),
        Verb::List(args) => list(args),
        Verb::Remove(args) => remove(args),
    }
}

/// Parameters of the API, and the arguments that set them.
const OPTIONS: &[(&str, &str)] = &[
    ("rule", "RULE"),
    ("key", "--key"),
    ("for", "--for"),
    ("reason", "--reason"),
    ("by", "--by"),
    ("id", "ID"),
];

/// The error for a status of the server.
fn refused(at: &ServerArgs, status: &tonic::Status) -> anyhow::Error {
    live::refusal(&at.server, status, OPTIONS)
}

fn add(args: &Add) -> Outcome {
    let access = args.at.access()?;
    let key = args.key.iter().cloned().map(|(key, value)| proto::KeyValue { key, value });
    let request = proto::AddSilenceRequest {
        rule: args.rule.clone(),
        key: key.collect(),
        duration_nanos: u64::try_from(args.lasts.as_nanos()).unwrap_or(u64::MAX),
        reason: args.reason.clone(),
        by: args.by.name(),
    };
    let silence = live::runtime()?.block_on(async {
        check_rule(&args.rule, &rules(&args.at, &access).await?)?;
        let client = live::connect_operate(&args.at.server, &access).await;
        let mut client = client.map_err(anyhow::Error::msg)?;
        client.add_silence(request).await.map_err(|status| refused(&args.at, &status))
    })?;
    print(&args.output, &[silence.into_inner()], true)
}

/// The rules that a server has, or has stories of; none of one that doesn't list them, or that
/// doesn't let this caller read.
async fn rules(at: &ServerArgs, access: &ClientAccess) -> anyhow::Result<Vec<proto::Rule>> {
    let client = live::connect(&at.server, access).await;
    let mut client = client.map_err(anyhow::Error::msg)?;
    match client.list_rules(proto::ListRulesRequest {}).await {
        Ok(response) => Ok(response.into_inner().rules),
        Err(status) => match status.code() {
            Code::Unimplemented | Code::PermissionDenied => Ok(Vec::new()),
            _ => Err(refused(at, &status)),
        },
    }
}

/// Refuses a pattern in place of a rule, and warns of a rule that the server has no story of.
fn check_rule(rule: &str, known: &[proto::Rule]) -> Result<(), Usage> {
    if known.is_empty() || known.iter().any(|one| one.name == rule) {
        return Ok(());
    }
    let of_pattern = known.iter().filter(|one| one.pattern == rule);
    let names: Vec<String> = of_pattern.map(|one| plain(&one.name)).collect();
    if names.is_empty() {
        message(&format!("tapio: no rule {rule} is known to the server yet"));
        return Ok(());
    }
    let names = names.join(", ");
    Err(Usage(format!("{rule} is a pattern, and silences are by rule: {names}")))
}

fn list(args: &List) -> Outcome {
    let access = args.at.access()?;
    let response = live::runtime()?.block_on(async {
        let client = live::connect(&args.at.server, &access).await;
        let mut client = client.map_err(anyhow::Error::msg)?;
        let response = client.list_silences(proto::ListSilencesRequest {}).await;
        response.map_err(|status| refused(&args.at, &status))
    })?;
    print(&args.output, &response.into_inner().silences, false)
}

fn remove(args: &Remove) -> Outcome {
    let access = args.at.access()?;
    let request = proto::RemoveSilenceRequest { id: args.id.clone(), by: args.by.name() };
    live::runtime()?.block_on(async {
        let client = live::connect_operate(&args.at.server, &access).await;
        let mut client = client.map_err(anyhow::Error::msg)?;
        client.remove_silence(request).await.map_err(|status| refused(&args.at, &status))
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Prints silences; in a format for programs, a single one as an object.
fn print(output: &OutputArgs, silences: &[proto::Silence], is_single: bool) -> Outcome {
    let mut printer = Printer::list(output);
    if let ([silence], true) = (silences, is_single && printer.format.is_data()) {
        printer.single(&silence_json(silence))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(COLUMNS);
    for silence in silences {
        if printer.format.is_data() {
            printer.item(&silence_json(silence))?;
        } else {
            table.row(row(silence, &printer.style));
        }
    }
    printer.table(&mut table)?;
    printer.finish_table(&table, "no silence is in force")?;
    Ok(ExitCode::SUCCESS)
}

fn row(silence: &proto::Silence, style: &Style) -> Vec<Cell> {
    let key = silence.key.iter().map(|pair| format!("{}={}", pair.key, pair.value));
    vec![
        (&silence.id).into(),
        style.time_to_second(silence.until_unix_nano).into(),
        (&silence.rule).into(),
        (&silence.by).into(),
        key.collect::<Vec<_>>().join(" ").into(),
        (&silence.reason).into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pattern_is_refused_with_its_rules() {
        let rule = |name: &str, pattern: &str| proto::Rule {
            name: name.into(),
            pattern: pattern.into(),
            ..Default::default()
        };
        let known = [rule("a-1", "p"), rule("a-2", "p"), rule("b", "b")];
        for accepted in ["a-1", "b", "new"] {
            assert!(check_rule(accepted, &known).is_ok(), "{accepted}");
        }
        let error = check_rule("p", &known).unwrap_err().to_string();
        assert_eq!(error, "p is a pattern, and silences are by rule: a-1, a-2");
        assert!(check_rule("p", &[]).is_ok(), "of a server that lists none");
    }

    #[test]
    fn names_that_no_rule_has_are_refused() {
        assert_eq!(rule_name("oom-kill-2"), Ok("oom-kill-2".into()));
        for text in ["", "OOM", "a b", "a_b", "a.b", "ä", "a\n"] {
            assert!(rule_name(text).is_err(), "{text:?}");
        }
    }
}
