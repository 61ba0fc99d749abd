//! `tapio top` on a real terminal, that of tmux.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::query_commands::TestServer;
use super::support::agent::{TAPIO, run, utf8};
use super::support::eventually::{eventually, eventually_ok};
use super::support::skip::skipped;

/// A terminal with a shell in it, in a tmux of its own.
pub(super) struct Terminal {
    dir: tempfile::TempDir,
}

impl Terminal {
    /// Starts a terminal of this size. `None`: there is no tmux.
    pub(super) fn start(columns: u16, rows: u16) -> Option<Self> {
        if Command::new("tmux").arg("-V").output().is_err() {
            skipped("no tmux");
            return None;
        }
        let new = Self { dir: tempfile::tempdir().unwrap() };
        let (columns, rows) = (columns.to_string(), rows.to_string());
        // tmux takes what OSC 52 sends; a shell without files of its own.
        let settings = "set -s set-clipboard on\nset -g default-terminal tmux-256color\n";
        std::fs::write(new.path("tmux.conf"), settings).unwrap();
        new.tmux(&[
            "new-session",
            "-d",
            "-x",
            &columns,
            "-y",
            &rows,
            "env -u NO_COLOR PS1='$ ' sh",
        ]);
        Some(new)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let mut tmux = Command::new("tmux");
        tmux.args(["-u", "-f"]).arg(self.path("tmux.conf")).arg("-S").arg(self.path("socket"));
        tmux.args(arguments).env("TZ", "UTC").env("LANG", "C.UTF-8").env_remove("LC_ALL");
        let output = tmux.env_remove("TMUX").stdin(Stdio::null()).output().unwrap();
        utf8(&output.stdout)
    }

    /// Types a command line.
    pub(super) fn type_line(&self, line: &str) {
        self.tmux(&["send-keys", "-l", line]);
        self.press(&["Enter"]);
    }

    pub(super) fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    pub(super) fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Waits until the screen has a text; returns it.
    #[track_caller]
    pub(super) fn wait_for(&self, text: &str) -> String {
        self.wait(text, |screen| screen.contains(text))
    }

    #[track_caller]
    pub(super) fn wait(&self, what: &str, is_there: impl Fn(&str) -> bool) -> String {
        eventually_ok(what, || {
            let screen = self.screen();
            if is_there(&screen) { Ok(screen) } else { Err(screen) }
        })
    }

    /// Types the command, and waits for its screen. Behind it, the shell prints its exit code.
    #[track_caller]
    fn start_top(&self, server: &TestServer, options: &str) {
        let address = server.address();
        let pid = self.path("pid").display().to_string();
        self.type_line(&format!(
            "sh -c 'echo $$ > {pid}; exec {TAPIO} top --server {address} {options}'; echo code $?"
        ));
        self.wait_for("3 losses");
    }

    /// Waits for the end of the command, with the terminal as it was before.
    #[track_caller]
    fn wait_for_end(&self) {
        let screen = self.wait_for("code 0\n");
        assert!(!screen.contains("3 losses"), "the screen of the command is left:\n{screen}");
        self.type_line("clear; stty -a");
        let modes = self.wait("the modes of the terminal", |screen| screen.contains(" echoke"));
        let has = |mode: &str| modes.split_whitespace().any(|word| word == mode);
        assert!(has("icanon") && has("echo"), "{modes}");
        assert_eq!(self.tmux(&["display", "-p", "#{cursor_flag}#{alternate_on}"]).trim(), "10");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

/// The only story of a rule that the recording has.
fn story_id(server: &TestServer) -> String {
    let stories = server.items(&["stories", "--pattern", "cascade-failure"]);
    stories[0]["id"].as_str().unwrap().to_owned()
}

#[test]
fn keys_show_stories_agents_and_losses() {
    let Some(terminal) = Terminal::start(80, 24) else { return };
    let server = TestServer::with_recordings(&["nginx-cascade.jsonl"]);
    let id = story_id(&server);
    terminal.start_top(&server, "--utc");
    let screen = terminal.wait_for("> critical");
    assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
    terminal.press(&["/"]);
    terminal.tmux(&["send-keys", "-l", "pods and clients"]);
    terminal.press(&["Enter"]);
    terminal.wait_for("/pods and clients 1 of ");
    terminal.press(&["y"]);
    terminal.wait_for("clipboard: ");
    eventually("the clipboard", || terminal.tmux(&["show-buffer"]).trim() == id);
    terminal.press(&["o"]);
    terminal.wait_for(&format!("http://127.0.0.1:7601/stories/{id}"));
    terminal.press(&["Enter"]);
    let story = terminal.wait_for("Root cause");
    assert!(story.contains("Actions\n  1. "), "{story}");
    terminal.press(&["G"]);
    terminal.wait_for("More: tapio explain");
    terminal.press(&["x"]);
    terminal.wait_for("explanation of story");
    terminal.press(&["e"]);
    terminal.wait_for("exit-code");
    // A resize of an open document, and of the list.
    terminal.tmux(&["resize-window", "-x", "40", "-y", "12"]);
    terminal.wait("40 columns", |screen| {
        screen.contains("events of story") && screen.lines().count() <= 12
    });
    terminal.press(&["Escape"]);
    terminal.wait_for("explanation of story");
    terminal.press(&["2"]);
    terminal.wait_for("test");
    terminal.press(&["Enter"]);
    terminal.wait_for("agent of test");
    terminal.press(&["Tab"]);
    terminal.wait_for("no losses");
    terminal.press(&["?"]);
    terminal.wait_for("Tab, 1, 2, 3");
    terminal.press(&["C-l"]);
    terminal.press(&["Escape"]);
    terminal.wait_for("no losses");
    terminal.press(&["C-z"]);
    terminal.wait_for("Stopped");
    terminal.type_line("fg; echo code $?");
    terminal.wait_for("no losses");
    terminal.press(&["q"]);
    terminal.wait_for_end();
}

#[test]
fn server_may_go_away_and_come_back() {
    let Some(terminal) = Terminal::start(120, 30) else { return };
    let mut server = TestServer::with_recordings(&["nginx-cascade.jsonl"]);
    terminal.start_top(&server, "");
    terminal.wait_for("1 stories ");
    let before = terminal.wait_for("pods and clients");
    server.kill();
    terminal.wait_for("server away since 20");
    terminal.wait_for("pods and clients");
    terminal.press(&["Enter"]);
    terminal.wait_for("story ");
    server.start_again();
    let screen = terminal.wait("the story", |screen| {
        screen.contains("Root cause") && !screen.contains("server away")
    });
    assert!(screen.starts_with(&before[.."1 stories ".len()]), "{screen}");
    terminal.press(&["Escape"]);
    // Stories that are stored now are listed without a key.
    server.receive("pod-startup.jsonl");
    let count = server.items(&["stories"]).len();
    terminal.wait_for(&format!("1 stories {count} "));
    let pid = std::fs::read_to_string(terminal.path("pid")).unwrap();
    kill_process(Pid::from_raw(pid.trim().parse().unwrap()).unwrap(), Signal::TERM).unwrap();
    terminal.wait_for_end();
}

#[test]
fn terminal_without_a_screen_is_refused() {
    let output = run(&["top"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(utf8(&output.stderr).contains("isn't a terminal; `tapio top --once`"));
    let Some(terminal) = Terminal::start(80, 24) else { return };
    terminal.type_line(&format!("TERM=dumb {TAPIO} top; echo code $?"));
    let screen = terminal.wait_for("code 2\n");
    assert!(screen.contains("$TERM is dumb"), "{screen}");
    terminal.type_line(&format!("clear; {TAPIO} top --server 127.0.0.1:1; echo code $?"));
    let screen = terminal.wait_for("code 1\n");
    assert!(screen.contains("can't reach a server at 127.0.0.1:1"), "{screen}");
}

#[test]
fn once_prints_the_lists_as_text() {
    let server = TestServer::with_recordings(&["nginx-cascade.jsonl"]);
    let all = utf8(&server.run(&["top", "--once"]).stdout);
    for part in ["stories\nSEVERITY", "pods and clients", "agents\nNODE", "losses\nno losses"] {
        assert!(all.contains(part), "{part:?} isn't in\n{all}");
    }
    let stories = utf8(&server.run(&["top", "--once", "--view", "stories"]).stdout);
    assert!(stories.contains("pods and clients") && !stories.contains("no losses"));
    let script = format!("{TAPIO} top --once --server {} | head -n 1", server.address());
    let head = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert_eq!((utf8(&head.stderr), utf8(&head.stdout).lines().count()), (String::new(), 1));
    let absent = run(&["top", "--once", "--server", "127.0.0.1:1"]);
    assert_eq!(absent.status.code(), Some(1));
    assert!(utf8(&absent.stderr).contains("can't reach a server at 127.0.0.1:1"));
}
