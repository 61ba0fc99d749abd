//! `kubectl tapio`: tapio under the name `kubectl-tapio`. A command that queries a server gets one
//! through `kubectl port-forward`, which runs for as long as the command.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use clap::ArgMatches;
use clap::parser::ValueSource;
use signal_hook::consts::SIGINT;
use signal_hook::low_level::emulate_default_handler;

use super::output::{Usage, plain};
use super::signals::Signals;

/// The name of the program as a plugin, before an extension.
const PLUGIN: &str = "kubectl-tapio";
/// The server's port for queries over gRPC.
const SERVER_PORT: u16 = 7600;
/// Time for the tunnel to open.
const TIMEOUT: Duration = Duration::from_secs(20);
/// How `kubectl port-forward` reports the port that it has chosen.
const FORWARDING: &str = "Forwarding from 127.0.0.1:";
/// The id of the argument with the server's address.
const SERVER: &str = "server";
/// The longest wait for a signal at a time.
const SIGNAL_WAIT: Duration = Duration::from_secs(3600);
/// Longest text of kubectl's errors that is read.
const MAX_ERROR_BYTES: u64 = 64 * 1024;

/// Whether the program was called as a plugin of kubectl.
pub(super) fn is_plugin(program: &OsStr) -> bool {
    Path::new(program).file_stem().is_some_and(|name| name == PLUGIN)
}

/// Where the server is.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct KubectlArgs {
    /// Kubernetes: context of the kubeconfig
    #[arg(long, value_name = "NAME", global = true)]
    context: Option<String>,
    /// Kubernetes: kubeconfig file
    #[arg(long, value_name = "FILE", global = true)]
    kubeconfig: Option<String>,
    /// Kubernetes: namespace of the server; `-n` before the command, where it isn't the command's
    #[arg(long, value_name = "NAME", default_value = "tapio", global = true)]
    namespace: String,
    /// Kubernetes: namespace of the server
    #[arg(short = 'n', value_name = "NAME", hide = true)]
    short_namespace: Option<String>,
    /// Kubernetes: service of the server
    #[arg(long, value_name = "NAME", default_value = "tapio-server", global = true)]
    service: String,
}

impl KubectlArgs {
    fn namespace(&self) -> &str {
        self.short_namespace.as_ref().unwrap_or(&self.namespace)
    }

    fn command(&self) -> Command {
        let mut command = Command::new("kubectl");
        for (name, value) in [("--context", &self.context), ("--kubeconfig", &self.kubeconfig)] {
            if let Some(value) = value {
                command.arg(format!("{name}={value}"));
            }
        }
        command.arg(format!("--namespace={}", self.namespace()));
        command.args(["port-forward", "--address=127.0.0.1"]);
        // An option can't begin so.
        command.arg(format!("service/{}", self.service)).arg(format!(":{SERVER_PORT}"));
        command
    }

    /// Opens the tunnel.
    ///
    /// # Errors
    /// When kubectl is missing, or with its message when it ends or opens none in time.
    pub(super) fn open(&self) -> anyhow::Result<Tunnel> {
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Before there is a kubectl that a signal would leave behind.
        let signals = Signals::of_shutdown()?;
        let child = command.spawn().context("can't run kubectl, which must be in PATH")?;
        let mut tunnel = Tunnel { child: Arc::new(Mutex::new(child)), port: 0 };
        tunnel.end_with(signals)?;
        let (stdout, stderr) = {
            let mut child = tunnel.lock();
            (child.stdout.take(), child.stderr.take())
        };
        let errors = read_errors(stderr)?;
        let port = read_port(stdout)?.recv_timeout(TIMEOUT).unwrap_or_default();
        let Some(port) = port else {
            tunnel.end();
            let errors = errors.recv_timeout(TIMEOUT).unwrap_or_default();
            let cause = match cause_of(&errors) {
                "" => format!("no port within {TIMEOUT:?}"),
                cause => plain(cause),
            };
            anyhow::bail!(
                "kubectl port-forward to service/{} in namespace {}: {cause}; --service and \
                 --namespace name the server's",
                self.service,
                self.namespace()
            );
        };
        tunnel.port = port;
        Ok(tunnel)
    }
}

/// Reads the port on a thread, which goes on reading: kubectl must not wait for a full pipe.
/// `None`: kubectl has ended without one.
fn read_port(stdout: Option<ChildStdout>) -> std::io::Result<Receiver<Option<u16>>> {
    let (found, port) = sync_channel(1);
    let read = move || {
        let lines = stdout.into_iter().flat_map(|out| BufReader::new(out).lines());
        for line in lines.map_while(Result::ok) {
            if let Some(port) = port_of(&line) {
                let _ = found.send(Some(port));
            }
        }
        let _ = found.send(None);
    };
    std::thread::Builder::new().name("kubectl".into()).spawn(read)?;
    Ok(port)
}

/// The local port in a line of kubectl's.
fn port_of(line: &str) -> Option<u16> {
    line.strip_prefix(FORWARDING)?.split(' ').next()?.parse().ok().filter(|port| *port > 0)
}

/// The cause in kubectl's errors: their last line, before which it may log its attempts.
fn cause_of(errors: &str) -> &str {
    errors.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default()
}

/// Reads kubectl's errors on a thread, until it ends.
fn read_errors(stderr: Option<ChildStderr>) -> std::io::Result<Receiver<String>> {
    let (send, errors) = sync_channel(1);
    let read = move || {
        let mut text = Vec::new();
        if let Some(mut stderr) = stderr {
            let _ = stderr.by_ref().take(MAX_ERROR_BYTES).read_to_end(&mut text);
            let _ = std::io::copy(&mut stderr, &mut std::io::sink());
        }
        let _ = send.send(String::from_utf8_lossy(&text).into_owned());
    };
    std::thread::Builder::new().name("kubectl-errors".into()).spawn(read)?;
    Ok(errors)
}

/// An open tunnel. Dropping it ends kubectl.
pub(super) struct Tunnel {
    child: Arc<Mutex<Child>>,
    port: u16,
}

impl Tunnel {
    /// The address of the server, for gRPC.
    fn address(&self, has_tls: bool) -> String {
        let scheme = if has_tls { "https://localhost" } else { "127.0.0.1" };
        format!("{scheme}:{}", self.port)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a signal end kubectl, too, and then this process.
    fn end_with(&self, signals: Signals) -> std::io::Result<()> {
        let child = Arc::clone(&self.child);
        let wait = move || {
            while !signals.is_shutdown() {
                signals.wait(SIGNAL_WAIT);
            }
            end(&child);
            let _ = emulate_default_handler(SIGINT);
        };
        std::thread::Builder::new().name("signals".into()).spawn(wait).map(drop)
    }

    fn end(&self) {
        end(&self.child);
    }
}

/// Ends kubectl and waits for its end.
fn end(child: &Mutex<Child>) {
    let mut child = child.lock().unwrap_or_else(PoisonError::into_inner);
    // It has ended already if this fails.
    let _ = child.kill();
    let _ = child.wait();
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.end();
    }
}

/// The commands as a plugin: those that query a server, and their completion.
pub(super) const QUERIES: [&str; 13] = [
    "stories",
    "events",
    "explain",
    "annotate",
    "annotations",
    "evidence",
    "silence",
    "tail",
    "agents",
    "mcp",
    "top",
    "completion",
    "complete",
];

/// The commands that run on this machine.
pub(super) const LOCAL: [&str; 16] = [
    "run",
    "server",
    "check",
    "config",
    "debug",
    "load",
    "bench",
    "replay",
    "rules",
    "demo",
    "demo-fault",
    "doctor",
    "notify",
    "status",
    "quarantine",
    "man",
];

/// The command line without the commands that run on this machine. They are parsed, whatever their
/// arguments, for [`check_command`].
pub(super) fn queries_only(mut command: clap::Command) -> clap::Command {
    for name in LOCAL {
        command = command.mut_subcommand(name, |_| {
            let arguments = clap::Arg::new("arguments").num_args(..);
            let arguments = arguments.allow_hyphen_values(true).trailing_var_arg(true);
            let other = clap::Command::new(name).hide(true);
            other.disable_help_flag(true).arg(arguments)
        });
    }
    command
}

/// Refuses the commands that run on this machine.
///
/// # Errors
/// With the name under which the command is available.
pub(super) fn check_command(matches: &ArgMatches) -> Result<(), Usage> {
    match matches.subcommand_name() {
        Some(name) if !QUERIES.contains(&name) => Err(Usage(format!(
            "kubectl tapio only queries the server of a cluster: use `tapio {name}`, which runs on \
             this machine"
        ))),
        _ => Ok(()),
    }
}

/// Whether the command that was parsed queries a server that it doesn't name.
pub(super) fn needs_tunnel(matches: &ArgMatches) -> bool {
    let mut matches = matches;
    while let Some((_, sub)) = matches.subcommand() {
        matches = sub;
    }
    // The command may have no such argument.
    matches.try_contains_id(SERVER).is_ok()
        && matches.value_source(SERVER) == Some(ValueSource::DefaultValue)
}

/// The arguments with the server behind a tunnel. With options for TLS, the connection has TLS.
pub(super) fn with_server(arguments: &[OsString], tunnel: &Tunnel) -> Vec<OsString> {
    let end = arguments.iter().position(|argument| argument == "--");
    let end = end.unwrap_or(arguments.len());
    let (options, rest) = arguments.split_at(end);
    let is_tls = |option: &OsString| option.to_string_lossy().starts_with("--tls-");
    let address = tunnel.address(options.iter().any(is_tls));
    let server = OsString::from(format!("--{SERVER}={address}"));
    [options, &[server], rest].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> KubectlArgs {
        KubectlArgs {
            context: Some("c".into()),
            kubeconfig: None,
            namespace: "ns".into(),
            short_namespace: None,
            service: "tapio-server".into(),
        }
    }

    #[test]
    fn plugin_is_known_by_its_file_name() {
        for name in ["kubectl-tapio", "/usr/bin/kubectl-tapio", "kubectl-tapio.exe"] {
            assert!(is_plugin(OsStr::new(name)), "{name}");
        }
        for name in ["tapio", "/kubectl-tapio/tapio", "kubectl-tapio-x", ""] {
            assert!(!is_plugin(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn commands_are_of_the_server_or_of_this_machine() {
        assert!(LOCAL.iter().all(|name| !QUERIES.contains(name)));
    }

    #[test]
    fn port_is_read_from_the_line_of_ipv4() {
        assert_eq!(port_of("Forwarding from 127.0.0.1:40123 -> 7600"), Some(40_123));
        for other in ["Forwarding from [::1]:40123 -> 7600", "Handling connection for 40123", ""] {
            assert_eq!(port_of(other), None, "{other}");
        }
    }

    #[test]
    fn cause_is_the_last_line() {
        let errors = "E1130 memcache.go:265] \"Unhandled Error\"\nerror: no such service\n\n";
        assert_eq!(cause_of(errors), "error: no such service");
        assert_eq!(cause_of(" \n"), "");
    }

    #[test]
    fn kubectl_gets_the_cluster_and_chooses_the_port() {
        let command = args().command();
        let passed: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy()).collect();
        assert_eq!(
            passed,
            [
                "--context=c",
                "--namespace=ns",
                "port-forward",
                "--address=127.0.0.1",
                "service/tapio-server",
                ":7600"
            ]
        );
    }
}
