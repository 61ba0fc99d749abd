//! `tapio completion`: a script for a shell. clap writes the static part; values that only a server
//! or the rules have are added in front of it.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::{Command, ValueEnum};
use clap_complete::{Shell as ClapShell, generate};

use super::super::output::{Outcome, print};
use super::dynamic::DynamicArguments;

/// The line of clap's script for zsh behind the definition of the function.
const ZSH_REGISTRATION: &str = "if [ \"$funcstack[1]\" = \"_tapio\" ]";

const PROGRAM: &str = "tapio";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  tapio completion bash > tapio.bash\n  tapio completion zsh > _tapio\n  tapio completion fish > tapio.fish"
)]
pub(crate) struct CompletionArgs {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

pub(crate) fn completion(args: &CompletionArgs, command: &Command) -> Outcome {
    print(script(args.shell, command).trim_end())?;
    Ok(ExitCode::SUCCESS)
}

fn script(shell: Shell, command: &Command) -> String {
    // The generators include hidden commands.
    let visible = command.get_subcommands().filter(|sub| !sub.is_hide_set()).cloned();
    let arguments = command.get_arguments().cloned();
    let mut command = Command::new(PROGRAM).version(VERSION).args(arguments).subcommands(visible);
    let dynamic = DynamicArguments::of(&command);
    let clap_shell = match shell {
        Shell::Bash => ClapShell::Bash,
        Shell::Zsh => ClapShell::Zsh,
        Shell::Fish => ClapShell::Fish,
    };
    let mut bytes = Vec::new();
    generate(clap_shell, &mut command, PROGRAM, &mut bytes);
    let script = String::from_utf8_lossy(&bytes).into_owned();
    match shell {
        Shell::Bash => script + &bash(&dynamic),
        // A function that is loaded on demand is called by the last lines already.
        Shell::Zsh => match script.split_once(ZSH_REGISTRATION) {
            Some((definition, end)) => {
                format!("{definition}{}\n{ZSH_REGISTRATION}{end}", zsh(&dynamic))
            }
            None => script,
        },
        Shell::Fish => script + &fish(&dynamic),
    }
}

/// Branches of a `case` on the option before the word, and on the commands before it.
fn branches(dynamic: &DynamicArguments) -> (String, String) {
    let (mut options, mut commands) = (String::new(), String::new());
    for (option, values) in &dynamic.options {
        let _ = writeln!(options, "        {option}) what={} ;;", values.as_str());
    }
    for (path, values) in &dynamic.positional {
        let _ = writeln!(commands, "            \"{path}\") what={} ;;", values.as_str());
    }
    (options, commands)
}

/// In bash, the words of the list aren't expanded: `compgen -W` would do that.
fn bash(dynamic: &DynamicArguments) -> String {
    let (options, commands) = branches(dynamic);
    format!(
        r#"
_tapio_values() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" path="" word what=""
    case "$before" in
{options}        -*) return 1 ;;
    esac
    if [ -z "$what" ]; then
        case "$current" in -*) return 1 ;; esac
        for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
            case "$word" in -*) ;; *) path="${{path:+$path }}$word" ;; esac
        done
        case "$path" in
{commands}        esac
    fi
    [ -n "$what" ] || return 1
    COMPREPLY=()
    while IFS=$'\t' read -r word _; do
        COMPREPLY+=("$word")
    done < <("${{COMP_WORDS[0]}}" complete "$what" -- "$current" 2>/dev/null)
}}

_tapio_all() {{
    _tapio_values || _tapio "$@"
}}

complete -F _tapio_all -o bashdefault -o default tapio
"#
    )
}

fn zsh(dynamic: &DynamicArguments) -> String {
    let (options, commands) = branches(dynamic);
    format!(
        r#"functions[_tapio_static]=$functions[_tapio]

_tapio_values() {{
    local previous="${{words[CURRENT-1]}}" typed="" word="" what=""
    local -a found values
    case "$previous" in
{options}        -*) return 1 ;;
    esac
    if [[ -z $what ]]; then
        [[ $PREFIX == -* ]] && return 1
        for word in "${{(@)words[2,CURRENT-1]}}"; do
            [[ $word == -* ]] || typed="${{typed:+$typed }}$word"
        done
        case "$typed" in
{commands}        esac
    fi
    [[ -n $what ]] || return 1
    found=("${{(@f)$("${{words[1]}}" complete "$what" -- "$PREFIX" 2>/dev/null)}}")
    values=("${{(@)found%%$'\t'*}}")
    found=("${{(@)found/$'\t'/  }}")
    [[ -n ${{values[1]}} ]] && compadd -l -d found -a values
    return 0
}}

_tapio() {{
    _tapio_values || _tapio_static "$@"
}}
"#
    )
}

fn fish(dynamic: &DynamicArguments) -> String {
    let mut out = String::from(
        "\nfunction __tapio_values\n    tapio complete $argv[1] -- (commandline -ct) 2>/dev/null\nend\n\n",
    );
    for (option, values) in &dynamic.options {
        let (long, values) = (option.trim_start_matches('-'), values.as_str());
        let _ = writeln!(
            out,
            "complete -c tapio -n \"test (commandline -opc)[-1] = {option}\" -f -l {long} -r -a \"(__tapio_values {values})\""
        );
    }
    for (path, values) in &dynamic.positional {
        let values = values.as_str();
        let seen: Vec<String> =
            path.split(' ').map(|word| format!("__fish_seen_subcommand_from {word}")).collect();
        // A command of the same name below another one has its own line.
        let not_below = match path.split_once(' ') {
            None => "; and not __fish_seen_subcommand_from rules",
            Some(_) => "",
        };
        let _ = writeln!(
            out,
            "complete -c tapio -n \"{}{not_below}\" -f -a \"(__tapio_values {values})\"",
            seen.join("; and ")
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use clap::Arg;

    use super::*;

    fn command() -> Command {
        let explain = Command::new("explain").arg(Arg::new("story").value_name("STORY"));
        let hidden = Command::new("secret-command").hide(true);
        let node = Arg::new("node").long("node").value_name("NAME");
        Command::new("tapio").subcommands([explain, hidden, Command::new("tail").arg(node)])
    }

    #[test]
    fn scripts_have_commands_and_dynamic_values_but_nothing_hidden() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = script(shell, &command());
            assert!(script.contains("explain") && script.contains("tail"), "{script}");
            assert!(script.contains("stories") && script.contains("nodes"), "{script}");
            assert!(!script.contains("secret-command"), "{script}");
        }
    }

    #[test]
    fn zsh_has_the_values_before_its_function_is_called() {
        let script = script(Shell::Zsh, &command());
        let (values, called) = (script.find("_tapio_values()"), script.find(ZSH_REGISTRATION));
        assert!(values.is_some() && values < called, "{script}");
    }
}
