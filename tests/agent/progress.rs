//! The progress of long commands: on a terminal only, and gone when they end.

use std::process::{Command, Stdio};

use super::support::agent::{TAPIO, story, utf8};
use super::support::skip::skipped;
use super::top::Terminal;

/// A replay whose input takes two seconds to come.
fn slow_replay() -> String {
    format!("(cat {}; sleep 2) | {TAPIO} replay -", story("nginx-cascade.jsonl").display())
}

/// Runs a command line on a terminal of its own; returns all that the terminal got. `None`: there
/// is no `script`.
pub(super) fn on_terminal(line: &str, variables: &[(&str, &str)]) -> Option<String> {
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", line, "/dev/null"]);
    script.stdin(Stdio::null()).envs(variables.iter().copied());
    let Ok(output) = script.output() else {
        skipped("no script");
        return None;
    };
    assert!(output.status.success(), "{line}: {}", utf8(&output.stderr));
    Some(utf8(&output.stdout))
}

#[test]
fn progress_is_drawn_on_a_terminal_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.jsonl");
    let line = format!("{} > {}", slow_replay(), out.display());
    for variables in [&[("TERM", "xterm")][..], &[("TERM", "dumb"), ("NO_COLOR", "1")]] {
        let Some(drawn) = on_terminal(&line, variables) else { return };
        assert!(drawn.contains("\rreading  ") && drawn.contains("iB/s"), "{drawn:?}");
        assert!(!drawn.contains('\u{1b}'), "no escape codes: {drawn:?}");
        let last = drawn.trim_end_matches('\n').trim_end_matches('\r');
        let behind = last.rsplit('\r').next().unwrap_or_default();
        assert!(behind.trim().is_empty(), "the line is removed: {drawn:?}");
        assert!(drawn.ends_with('\r'), "{drawn:?}");
        let stories = std::fs::read_to_string(&out).unwrap();
        assert!(stories.lines().count() >= 2 && !stories.contains("reading  "));
    }
}

#[test]
fn nothing_is_drawn_where_standard_error_is_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let error = dir.path().join("err");
    let line = format!("{} 2> {}", slow_replay(), error.display());
    let Some(stories) = on_terminal(&line, &[]) else { return };
    assert!(stories.contains("cascade-failure") && !stories.contains("reading  "), "{stories}");
    assert_eq!(std::fs::read(&error).unwrap(), b"");
}

#[test]
fn interrupt_leaves_a_clean_line() {
    let Some(terminal) = Terminal::start(60, 12) else { return };
    terminal.type_line(&format!("clear; sleep 60 | {TAPIO} replay -; echo code $?"));
    terminal.wait_for("reading  0 B/s  0 B");
    terminal.press(&["C-c"]);
    // The shell ends the line with the command, and prompts.
    let screen = terminal.wait("the prompt", |screen| screen.trim_end().ends_with('$'));
    assert!(!screen.contains("reading"), "{screen}");
    assert_eq!(screen.trim(), "$", "{screen}");
}
