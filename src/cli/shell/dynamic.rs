//! Where an argument of the command line is a story, a rule, a node or a kind. The name of an
//! argument's value decides.

use clap::{Arg, Command};

use super::values::Values;

/// Arguments that are completed by `tapio complete`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct DynamicArguments {
    /// Commands, as `rules explain`, whose first argument is of this type.
    pub(super) positional: Vec<(String, Values)>,
    /// Options, as `--node`, with a value of this type, in every command that has them.
    pub(super) options: Vec<(String, Values)>,
}

impl DynamicArguments {
    /// Those of a command and its subcommands.
    pub(super) fn of(command: &Command) -> Self {
        let mut all = Self::default();
        all.collect(command, "");
        all
    }

    fn collect(&mut self, command: &Command, path: &str) {
        if let Some(values) = command.get_positionals().next().and_then(positional_values)
            && !path.is_empty()
        {
            self.positional.push((path.to_owned(), values));
        }
        for option in command.get_opts() {
            let Some((name, values)) = option.get_long().and_then(option_values) else { continue };
            if !self.options.iter().any(|(known, _)| *known == name) {
                self.options.push((name, values));
            }
        }
        for sub in command.get_subcommands() {
            self.collect(sub, format!("{path} {}", sub.get_name()).trim_start());
        }
    }
}

fn positional_values(argument: &Arg) -> Option<Values> {
    match argument.get_value_names()?.first()?.as_str() {
        "STORY" => Some(Values::Stories),
        "RULE" => Some(Values::Rules),
        "NODE" => Some(Values::Nodes),
        _ => None,
    }
}

fn option_values(long: &str) -> Option<(String, Values)> {
    let values = match long {
        "node" => Values::Nodes,
        "kind" => Values::Kinds,
        "rule" => Values::Rules,
        _ => return None,
    };
    Some((format!("--{long}"), values))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_names_decide() {
        let story = Command::new("explain").arg(Arg::new("s").value_name("STORY"));
        let files = Command::new("replay").arg(Arg::new("f").value_name("FILE"));
        let node = Arg::new("node").long("node").value_name("NAME");
        let rule = Command::new("explain").arg(Arg::new("r").value_name("RULE"));
        let command = Command::new("tapio").subcommands([
            story,
            files.arg(node),
            Command::new("rules").subcommand(rule),
        ]);
        let found = DynamicArguments::of(&command);
        let positional: Vec<_> = found.positional.iter().map(|(path, v)| (&**path, *v)).collect();
        assert_eq!(positional, [("explain", Values::Stories), ("rules explain", Values::Rules)]);
        assert_eq!(found.options, [("--node".to_owned(), Values::Nodes)]);
    }
}
