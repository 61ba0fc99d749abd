//! Commands that query a server where none is: an error in bounded time, with the address, what is
//! there and what to use instead.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::thread;

fn tapio(arguments: &str, server: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tapio"));
    command.args(arguments.split(' ')).env("TAPIO_SERVER", server);
    command.stdin(Stdio::null()).output().unwrap()
}

/// The exit code and standard error of a command against a server.
fn failed(arguments: &str, server: &str) -> (Option<i32>, String) {
    let output = tapio(arguments, server);
    assert!(output.stdout.is_empty(), "{arguments}");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A program that does something with each connection.
fn program(mut handle: impl FnMut(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || listener.incoming().map_while(Result::ok).for_each(&mut handle));
    address
}

#[test]
fn server_that_never_answers_ends_each_command() {
    let mut connections = Vec::new();
    let address = program(move |connection| connections.push(connection));
    let commands = [
        "stories",
        "stories -f",
        "events",
        "tail",
        "agents",
        "explain abcd",
        "annotations",
        "silence list",
        "silence add oom-kill --for 1h",
        "annotate abcd --ack",
        "top --once",
    ];
    let run = |command: &'static str| {
        let address = address.clone();
        (command, thread::spawn(move || failed(command, &address)))
    };
    for (command, thread) in commands.map(run) {
        let (code, error) = thread.join().unwrap();
        assert_eq!(code, Some(1), "{command}: {error}");
        let expected = format!("{address}: it accepts connections, but sends nothing for 10s");
        assert!(error.contains(&expected), "{command}: {error}");
    }
}

#[test]
fn error_of_another_program_has_address_and_remedy() {
    let ssh = program(|mut connection| {
        let _ = connection.write_all(b"SSH-2.0-OpenSSH_9.9\r\n");
        thread::sleep(std::time::Duration::from_millis(200));
    });
    let web = program(|mut connection| {
        let _ = connection.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        thread::sleep(std::time::Duration::from_millis(200));
    });
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    for (server, expected) in [
        (ssh, "another program answers"),
        (web, "is this an HTTP port? gRPC's is 7600"),
        (format!("unix:{}", dir.path().join("none").display()), "No such file or directory"),
        (format!("unix:{}", file.display()), "it is no socket"),
    ] {
        for command in ["stories", "agents"] {
            let (code, error) = failed(command, &server);
            assert_eq!(code, Some(1), "{command}: {error}");
            assert!(error.contains(&server) && error.contains(expected), "{command}: {error}");
        }
    }
}

#[test]
fn options_are_refused_with_their_names() {
    for (arguments, expected) in [
        ("stories -n -1", "expected a number, or all"),
        ("events -p -1", "a number from 0 to 24"),
        ("stories --entity x=", "neither of them empty"),
        ("stories --entity =y", "neither of them empty"),
        ("silence add oom-kill --for 1h --key x=", "neither of them empty"),
        ("silence add OOM --for 1h", "no rule has this name"),
        ("debug record --for 0s", "greater than zero, and at most 365d"),
        ("debug log-level info --for 999999d", "greater than zero, and at most 365d"),
    ] {
        let (code, error) = failed(arguments, "127.0.0.1:1");
        assert_eq!(code, Some(2), "{arguments}: {error}");
        assert!(error.contains(expected) && !error.contains("-- -1"), "{arguments}: {error}");
    }
}

#[test]
fn full_disk_is_reported_once() {
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    for arguments in ["--help", "rules list"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tapio"));
        let output = command.args(arguments.split(' ')).stdout(full()).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments}: {error}");
        assert_eq!(error.matches("No space left").count(), 1, "{arguments}: {error}");
    }
}

#[test]
fn plugin_of_kubectl_runs_nothing_on_this_machine() {
    let dir = tempfile::tempdir().unwrap();
    let plugin = dir.path().join("kubectl-tapio");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_tapio"), &plugin).unwrap();
    for arguments in ["run --standalone", "server", "demo", "bench --help", "man x"] {
        let output = Command::new(&plugin).args(arguments.split(' ')).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments}: {error}");
        assert!(error.contains("kubectl tapio only queries the server"), "{arguments}: {error}");
    }
}
