//! `tapio complete`: the values that begin with a prefix, for the scripts of `tapio completion`.
//! A shell waits for it with each TAB: it takes a second at most, and fails silently.

use std::process::ExitCode;
use std::time::Duration;

use clap::ValueEnum;

use super::super::agents::node_names;
use super::super::connection::ServerArgs;
use super::super::live;
use super::super::output::{Outcome, plain, print};
use tapio_core::event::attribute_schema;
use tapio_dataflow::rules;
use tapio_wire::{linked_from_proto, proto};

/// Time limit of a server's answer.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Most values.
const MAX_VALUES: usize = 200;
/// Longest description.
const MAX_DESCRIPTION_CHARS: usize = 60;

/// The type of the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Values {
    Stories,
    Rules,
    Nodes,
    Kinds,
}

impl Values {
    /// Its name as an argument.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Stories => "stories",
            Self::Rules => "rules",
            Self::Nodes => "nodes",
            Self::Kinds => "kinds",
        }
    }
}

#[derive(clap::Args)]
pub(crate) struct CompleteArgs {
    /// The type of the values
    #[arg(value_enum)]
    values: Values,
    /// Its beginning
    #[arg(default_value = "", allow_hyphen_values = true)]
    prefix: String,
    #[command(flatten)]
    at: ServerArgs,
}

/// A value with its description, which some shells show.
type Completion = (String, String);

pub(crate) fn complete(args: &CompleteArgs) -> Outcome {
    let mut values = match args.values {
        Values::Rules => rule_names(),
        Values::Kinds => {
            attribute_schema::kinds().map(|kind| (kind.into(), String::new())).collect()
        }
        Values::Stories | Values::Nodes => of_server(args),
    };
    values.retain(|(value, _)| value.starts_with(&args.prefix) && is_safe(value));
    values.dedup_by(|a, b| a.0 == b.0);
    for (value, description) in values.iter().take(MAX_VALUES) {
        let description: String = plain(description).chars().take(MAX_DESCRIPTION_CHARS).collect();
        print(format!("{value}\t{description}").trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether a shell takes a value as it is: it inserts the value into a command line, and nodes have
/// names that others have chosen.
fn is_safe(value: &str) -> bool {
    let is_safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '@');
    !value.starts_with('-') && !value.is_empty() && value.chars().all(is_safe)
}

fn rule_names() -> Vec<Completion> {
    let builtin = rules::builtin().rules;
    let mut names: Vec<_> = builtin
        .iter()
        .map(|rule| (rule.name.text().to_owned(), rule.description.clone()))
        .collect();
    names.sort();
    names
}

/// The values that the server has, if it answers in time.
fn of_server(args: &CompleteArgs) -> Vec<Completion> {
    let (Ok(access), Ok(runtime)) = (args.at.access(), live::runtime()) else { return Vec::new() };
    let server = &args.at.server;
    let find = async {
        if args.values == Values::Nodes {
            let names = node_names(server, &access).await?;
            return Ok(names.into_iter().map(|name| (name, String::new())).collect());
        }
        let mut client = live::connect(server, &access).await.map_err(anyhow::Error::msg)?;
        let id_prefix = args.prefix.to_ascii_lowercase();
        let limit = MAX_VALUES as u32;
        let request = proto::ListStoriesRequest { id_prefix, limit, ..Default::default() };
        let stories = client.list_stories(request).await?.into_inner().stories;
        let stories = stories.into_iter().filter_map(linked_from_proto);
        let stories = stories.map(|linked| (linked.story.id.to_string(), linked.story.name));
        Ok::<_, anyhow::Error>(stories.collect())
    };
    // The time limit needs the runtime.
    let found = runtime.block_on(async { tokio::time::timeout(TIMEOUT, find).await });
    // A name that is being resolved must not hold up the shell.
    runtime.shutdown_background();
    found.ok().and_then(Result::ok).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_a_shell_would_interpret_are_left_out() {
        for safe in ["worker-1.example", "a_b/c@d", "1b4f"] {
            assert!(is_safe(safe), "{safe}");
        }
        for unsafe_value in ["", "-rf", "a b", "$(reboot)", "a;b", "a`b`", "a\nb", "~x", "a*", "ü"]
        {
            assert!(!is_safe(unsafe_value), "{unsafe_value}");
        }
    }

    #[test]
    fn builtin_rules_have_names_and_descriptions() {
        let names = rule_names();
        assert!(names.iter().any(|(name, about)| name == "oom-kill" && !about.is_empty()));
        assert!(names.iter().all(|(name, _)| is_safe(name)));
    }
}
