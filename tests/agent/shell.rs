//! Completion, manual pages and the plugin of kubectl, as a shell uses them.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::support::agent::{TAPIO, TestAgent, run, start, story, terminate, utf8};
use super::support::eventually::{eventually, eventually_ok};
use super::support::skip::skipped;

/// Completes a command line in bash; the last word is the one to complete.
fn completed(words: &[&str]) -> String {
    let script = format!(
        "eval \"$({TAPIO} completion bash)\"\nCOMP_WORDS=({TAPIO} {})\nCOMP_CWORD={}\n\
         _tapio_all {TAPIO} '{}' ''\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
        words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "),
        words.len(),
        words.last().unwrap(),
    );
    let output = Command::new("bash").args(["--norc", "-c", &script]).output().unwrap();
    assert!(output.status.success(), "{}", utf8(&output.stderr));
    utf8(&output.stdout)
}

#[test]
fn bash_completes_commands_and_values() {
    assert_eq!(completed(&["rules", "explain", "oom-kill-lo"]).trim(), "oom-kill-logged");
    assert!(completed(&["tail", "--kind", "kernel.tcp.re"]).contains("kernel.tcp.refused\n"));
    let commands = completed(&["age"]);
    assert_eq!(commands.trim(), "agents");
    assert!(!completed(&[""]).contains("demo-fault"), "it is hidden");
}

#[test]
fn values_of_a_server_that_is_away_are_none() {
    for values in ["nodes", "stories"] {
        let output = run(&["complete", values, "a", "--server", "127.0.0.1:1"]);
        assert_eq!((output.status.code(), utf8(&output.stdout).as_str()), (Some(0), ""));
        assert_eq!(utf8(&output.stderr), "");
    }
}

#[test]
fn each_command_has_a_manual_page() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(&["man", dir.path().join("new").to_str().unwrap()]);
    assert!(output.status.success(), "{}", utf8(&output.stderr));
    for page in ["tapio.1", "tapio-run.1", "tapio-rules-check.1", "tapio-agents.1"] {
        let text = std::fs::read_to_string(dir.path().join("new").join(page)).unwrap();
        assert!(text.contains(".SH NAME"), "{page}");
    }
    let blocked = run(&["man", "/dev/null"]);
    assert_eq!(blocked.status.code(), Some(1));
    assert!(utf8(&blocked.stderr).contains("/dev/null"), "{}", utf8(&blocked.stderr));
}

/// A folder with `kubectl-tapio`, and a `kubectl` that does what a script does.
struct Plugin(tempfile::TempDir);

impl Plugin {
    fn new(kubectl: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        symlink(TAPIO, dir.path().join("kubectl-tapio")).unwrap();
        if let Some(script) = kubectl {
            let path = dir.path().join("kubectl");
            let head = format!("#!/bin/sh\ncd {}\necho \"$@\" > arguments\n", dir.path().display());
            std::fs::write(&path, format!("{head}{script}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self(dir)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.file("kubectl-tapio"));
        // There is no other kubectl.
        command.env("PATH", self.0.path());
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }
}

/// A kubectl that forwards to a port, and notes its process id.
fn forwards(port: u16) -> String {
    format!(
        "echo $$ > pid\necho 'Forwarding from 127.0.0.1:{port} -> 7600'\n\
         echo 'Forwarding from [::1]:{port} -> 7600'\nexec /bin/sleep 1000"
    )
}

fn wait_for_end_of(pid_file: &Path) {
    let pid = std::fs::read_to_string(pid_file).unwrap().trim().parse().unwrap();
    let pid = Pid::from_raw(pid).unwrap();
    eventually("kubectl has ended", || test_kill_process(pid).is_err());
}

/// An agent with a server.
fn standalone(fixture: &TestAgent) -> Child {
    let config = fixture.config("jsonl", &story("nginx-cascade.jsonl"));
    let agent = start(&["run", "--standalone", "--config", &config]);
    fixture.wait(|s| s["bridge"]["connected"] == true);
    agent
}

#[test]
fn plugin_queries_through_a_tunnel_and_ends_it() {
    let fixture = TestAgent::new();
    let agent = standalone(&fixture);
    let plugin = Plugin::new(Some(&forwards(fixture.grpc)));
    let arguments = ["--context", "c", "-n", "monitoring", "agents", "--service=s", "-o", "json"];
    eventually_ok("the agent is listed", || {
        let output = plugin.run(&arguments);
        let found = utf8(&output.stdout).contains("\"node\":\"test\"");
        if found { Ok(()) } else { Err(format!("{output:?}")) }
    });
    let passed = std::fs::read_to_string(plugin.file("arguments")).unwrap();
    assert_eq!(
        passed.trim(),
        "--context=c --namespace=monitoring port-forward --address=127.0.0.1 service/s :7600"
    );
    wait_for_end_of(&plugin.file("pid"));

    // A command that ends with a signal only.
    std::fs::remove_file(plugin.file("pid")).unwrap();
    let mut tail = plugin.command(&["tail"]).spawn().unwrap();
    eventually("kubectl runs", || {
        std::fs::read_to_string(plugin.file("pid")).is_ok_and(|pid| !pid.is_empty())
    });
    kill_process(Pid::from_raw(tail.id() as i32).unwrap(), Signal::INT).unwrap();
    assert!(!tail.wait().unwrap().success());
    wait_for_end_of(&plugin.file("pid"));
    terminate(agent);
}

#[test]
fn plugin_reports_why_there_is_no_tunnel() {
    let missing = Plugin::new(None).run(&["agents"]);
    let error = utf8(&missing.stderr);
    assert_eq!(missing.status.code(), Some(1));
    assert!(error.contains("can't run kubectl, which must be in PATH"), "{error}");

    let message = "Error from server (NotFound): services \"tapio-server\" not found";
    let refused = Plugin::new(Some(&format!("echo '{message}' >&2\nexit 1")));
    let output = refused.run(&["agents"]);
    let error = utf8(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains(message) && error.contains("--service"), "{error}");
    let passed = std::fs::read_to_string(refused.file("arguments")).unwrap();
    assert!(passed.starts_with("--namespace=tapio port-forward"), "{passed}");

    // A tunnel to nothing.
    let closed = Plugin::new(Some(&forwards(1)));
    let output = closed.run(&["agents"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(utf8(&output.stderr).contains("127.0.0.1:1"), "{}", utf8(&output.stderr));
    wait_for_end_of(&closed.file("pid"));
}

#[test]
fn real_kubectl_takes_the_arguments() {
    let found =
        ["/usr/bin/kubectl", "/usr/local/bin/kubectl"].iter().find(|path| Path::new(path).exists());
    let Some(kubectl) = found else { return skipped("kubectl is missing") };
    let plugin = Plugin::new(Some(&format!("exec {kubectl} \"$@\"")));
    let kubeconfig = plugin.file("kubeconfig");
    let text = "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
                clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]\n\
                contexts: [{name: c, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {}}]\n";
    std::fs::write(&kubeconfig, text).unwrap();
    let output = plugin.run(&["agents", "--kubeconfig", kubeconfig.to_str().unwrap()]);
    let error = utf8(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("127.0.0.1:1 was refused"), "{error}");
}

#[test]
fn plugin_needs_no_tunnel_for_commands_without_a_server() {
    let plugin = Plugin::new(Some("exit 1"));
    assert!(plugin.run(&["completion", "bash"]).status.success());
    assert_eq!(plugin.run(&["rules", "list"]).status.code(), Some(2));
    assert!(!plugin.file("arguments").exists());
    let help = utf8(&plugin.run(&["--help"]).stdout);
    assert!(help.contains("kubectl tapio") && help.contains("--namespace"), "{help}");
    assert_eq!(plugin.run(&["no-such-command"]).status.code(), Some(2));
}
