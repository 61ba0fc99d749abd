//! The commands and their dispatch.

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use super::kubectl::{self, KubectlArgs};
use super::output::{BAD_USAGE, Outcome, Usage, is_broken_pipe, message};
use super::{
    agents, bench, check, config, debug, demo, doctor, evidence, load, mcp, notifications,
    quarantine, query, replay, rules, run, server, shell, top,
};

#[derive(Parser)]
#[command(
    name = "tapio",
    version,
    about = "Correlates a node's events into stories: one trace, a ranked root cause, an impact, recommended actions."
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

/// The same commands as a plugin of kubectl.
#[derive(Parser)]
#[command(
    name = "kubectl tapio",
    bin_name = "kubectl tapio",
    version,
    about = "Queries the tapio server of a Kubernetes cluster.",
    after_help = "Examples:\n  kubectl tapio agents\n  kubectl tapio -n monitoring tail --stories"
)]
struct KubectlCli {
    #[command(flatten)]
    at: KubectlArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run the agent
    Run(run::RunArgs),
    /// Run the receiving server
    Server(server::Args),
    /// Validate a configuration file; errors have line and column
    Check(check::CheckArgs),
    /// Print the configuration: schema, defaults, values in force, differences
    Config(config::Args),
    /// Debug a running agent: log level, flight recorder, a bundle for a report
    Debug(debug::Args),
    /// Generate load at a fixed rate, without coordinated omission
    Load(load::Args),
    /// Measure tapio on this machine
    Bench(bench::Args),
    /// Process events from JSON lines with the production correlator; prints JSON lines
    Replay(replay::Args),
    /// Check, test, explain, list and suggest rules
    Rules(rules::Args),
    /// Cause real, harmless faults on this machine and print their stories
    Demo(demo::Args),
    /// Cause one of the demo's faults
    #[command(hide = true)]
    DemoFault(demo::FaultArgs),
    /// Check what kernel, privileges and node allow, and what each missing facility costs
    Doctor(doctor::Args),
    /// List stories, or print one
    Stories(query::stories::Args),
    /// List events
    Events(query::events::Args),
    /// Explain a story and its root cause: evidence, other candidates, every term, linked stories
    Explain(query::explain::Args),
    /// Note something about a story: acknowledged, a note, a wrong root cause
    Annotate(query::annotate::Args),
    /// List what operators noted about stories
    Annotations(query::annotations::Args),
    /// Calibrate the ranking of root causes
    Evidence(evidence::Args),
    /// Silence the stories of a rule for a time
    Silence(query::silence::Args),
    /// Print a server's events and stories as they arrive
    Tail(query::tail::Args),
    /// Test the receivers of notifications, and print what they were not sent
    Notify(notifications::Args),
    /// Show the agents of a server: state, losses, spool; of one node, also its collectors
    Agents(agents::Args),
    /// Show the state of the agent on this machine; exit code 1 if it isn't ok
    Status(agents::StatusArgs),
    /// Answer an assistant's queries over standard input and output (Model Context Protocol)
    Mcp(mcp::Args),
    /// Watch stories, agents and losses on a terminal, as they change
    Top(top::Args),
    /// Print the events and stories that the server has refused
    Quarantine(quarantine::Args),
    /// Print a completion script for a shell
    Completion(shell::CompletionArgs),
    /// Write a manual page for each command
    Man(shell::ManArgs),
    /// List the values that an argument can have, for completion
    #[command(hide = true)]
    Complete(shell::CompleteArgs),
}

/// Runs the command line.
#[must_use]
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let outcome = match arguments.first() {
        Some(program) if kubectl::is_plugin(program) => run_plugin(&arguments),
        _ => parsed(Cli::try_parse_from(&arguments)).and_then(|cli| run_verb(cli.verb)),
    };
    match outcome {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => match error.downcast_ref::<clap::Error>() {
            Some(e) => match e.print() {
                _ if e.use_stderr() => ExitCode::from(BAD_USAGE),
                Err(cause) if cause.kind() != io::ErrorKind::BrokenPipe => {
                    message(&format!("tapio: can't write to standard output: {cause}"));
                    ExitCode::FAILURE
                }
                _ => ExitCode::SUCCESS,
            },
            None => {
                message(&format!("tapio: {error:#}"));
                ExitCode::from(if error.is::<Usage>() { BAD_USAGE } else { 1 })
            }
        },
    }
}

/// Arguments that were parsed; an error is printed as clap does.
fn parsed<T>(arguments: clap::error::Result<T>) -> anyhow::Result<T> {
    Ok(arguments?)
}

/// Runs a command as a plugin of kubectl, with a tunnel to the server if it queries one.
fn run_plugin(arguments: &[OsString]) -> Outcome {
    let command = || kubectl::queries_only(KubectlCli::command());
    let matches = parsed(command().try_get_matches_from(arguments))?;
    kubectl::check_command(&matches)?;
    let cli = parsed(KubectlCli::from_arg_matches(&matches))?;
    if !kubectl::needs_tunnel(&matches) {
        return run_verb(cli.verb);
    }
    let tunnel = cli.at.open()?;
    let arguments = kubectl::with_server(arguments, &tunnel);
    let matches = parsed(command().try_get_matches_from(arguments))?;
    run_verb(parsed(KubectlCli::from_arg_matches(&matches))?.verb)
}

fn run_verb(verb: Verb) -> Outcome {
    match verb {
        Verb::Run(args) => run::run(&args),
        Verb::Server(args) => server::run(&args),
        Verb::Check(args) => check::check(&args),
        Verb::Config(args) => config::run(&args),
        Verb::Debug(args) => debug::run(&args),
        Verb::Load(args) => load::run(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Replay(args) => replay::run(&args),
        Verb::Rules(args) => rules::run(&args),
        Verb::Demo(args) => demo::run(&args),
        Verb::DemoFault(args) => demo::fault(&args),
        Verb::Doctor(args) => doctor::run(&args),
        Verb::Stories(args) => query::stories::run(&args),
        Verb::Events(args) => query::events::run(&args),
        Verb::Explain(args) => query::explain::run(&args),
        Verb::Annotate(args) => query::annotate::run(&args),
        Verb::Annotations(args) => query::annotations::run(&args),
        Verb::Evidence(args) => evidence::run(&args),
        Verb::Silence(args) => query::silence::run(&args),
        Verb::Tail(args) => query::tail::run(&args),
        Verb::Notify(args) => notifications::run(&args),
        Verb::Agents(args) => agents::run(&args),
        Verb::Status(args) => agents::status(&args),
        Verb::Mcp(args) => mcp::run(&args),
        Verb::Top(args) => top::run(&args),
        Verb::Completion(args) => shell::completion(&args, &Cli::command()),
        Verb::Man(args) => shell::man(&args, Cli::command()),
        Verb::Complete(args) => shell::complete(&args),
        Verb::Quarantine(args) => quarantine::run(&args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The commands without subcommands, with their full names.
    fn leaves(command: &clap::Command, path: &str) -> Vec<(String, clap::Command)> {
        let visible: Vec<_> = command.get_subcommands().filter(|c| !c.is_hide_set()).collect();
        if visible.is_empty() {
            return vec![(path.to_owned(), command.clone())];
        }
        let below = |c: &&clap::Command| leaves(c, &format!("{path} {}", c.get_name()));
        visible.iter().flat_map(below).collect()
    }

    #[test]
    fn arguments_do_not_collide() {
        Cli::command().debug_assert();
        KubectlCli::command().debug_assert();
    }

    #[test]
    fn plugin_opens_a_tunnel_for_queries_only() {
        let needs = |arguments: &[&str]| {
            let arguments = [&["kubectl-tapio"], arguments].concat();
            kubectl::needs_tunnel(&KubectlCli::command().try_get_matches_from(arguments).unwrap())
        };
        assert!(needs(&["agents"]) && needs(&["-n", "monitoring", "stories", "-n", "5"]));
        assert!(!needs(&["agents", "--server", "h:1"]) && !needs(&["rules", "list"]));
    }

    #[test]
    fn plugin_has_the_commands_that_query_a_server() {
        let command = || kubectl::queries_only(KubectlCli::command());
        command().debug_assert();
        let all = KubectlCli::command();
        let names = all.get_subcommands().map(clap::Command::get_name);
        assert_eq!(names.count(), kubectl::QUERIES.len() + kubectl::LOCAL.len());
        let help = command().render_help().to_string();
        for other in ["run", "server", "demo", "demo-fault", "bench", "man", "status", "rules"] {
            let arguments = ["kubectl-tapio", other, "--any", "thing", "--help"];
            let matches = command().try_get_matches_from(arguments).unwrap();
            let error = kubectl::check_command(&matches).unwrap_err().to_string();
            assert!(error.contains(&format!("tapio {other}")), "{error}");
            assert!(!help.contains(&format!("\n  {other} ")), "{help}");
        }
        for query in ["stories", "tail", "top", "silence", "evidence", "mcp", "completion"] {
            assert!(help.contains(&format!("\n  {query} ")), "{query}: {help}");
        }
        let matches = command().try_get_matches_from(["kubectl-tapio", "agents"]).unwrap();
        assert!(kubectl::check_command(&matches).is_ok());
    }

    #[test]
    fn every_command_has_an_example() {
        for (name, command) in leaves(&Cli::command(), "tapio") {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example") && help.contains(&name), "{name}: {help:?}");
        }
    }
}
