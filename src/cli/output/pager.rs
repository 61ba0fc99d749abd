//! The pager behind standard output.

use std::io::{self, IsTerminal as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::args::OutputArgs;

/// The pager where the environment names none: it ends at once if everything fits on the screen
/// (F), passes colours (R), and leaves the text on the screen (X).
const DEFAULT_PAGER: &str = "less -FRX";

/// The pager's command for the shell; `None`: there is none. The first variable that is set counts,
/// and an empty one is none.
fn command(variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    let set = ["TAPIO_PAGER", "PAGER"].into_iter().find_map(variable);
    let command = set.unwrap_or_else(|| DEFAULT_PAGER.to_owned());
    let name = command.trim();
    (!name.is_empty() && name != "cat").then(|| name.to_owned())
}

/// Starts the pager, if standard output is a terminal and one is wanted. Without one that can be
/// started, text is printed as it is.
pub(super) fn start(args: &OutputArgs) -> Option<Child> {
    if args.no_pager || !io::stdout().is_terminal() {
        return None;
    }
    let command = command(|name| std::env::var(name).ok())?;
    let is_found = Command::new("sh")
        .args(["-c", "command -v -- \"$1\"", "sh"])
        .arg(command.split_whitespace().next()?)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !is_found {
        return None;
    }
    let pager = Command::new("sh").args(["-c", &command]).stdin(Stdio::piped()).spawn().ok()?;
    // The keyboard's interrupt is the pager's: it ends this command by closing the pipe.
    let _ =
        signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::new(AtomicBool::new(false)));
    Some(pager)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_variable_that_is_set_names_the_pager() {
        let with = |set: &[(&str, &str)]| {
            command(|name| set.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
        };
        assert_eq!(with(&[]).as_deref(), Some("less -FRX"));
        assert_eq!(with(&[("PAGER", "more")]).as_deref(), Some("more"));
        assert_eq!(
            with(&[("PAGER", "more"), ("TAPIO_PAGER", "most -s")]).as_deref(),
            Some("most -s")
        );
        assert_eq!(with(&[("PAGER", "more"), ("TAPIO_PAGER", "")]), None);
        assert_eq!(with(&[("PAGER", "cat")]), None);
    }
}
