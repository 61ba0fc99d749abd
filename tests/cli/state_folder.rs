//! Where state is kept if the configuration doesn't say it, and who may read it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server with the environment of a systemd unit; ended when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[test]
fn folder_of_the_unit_is_used_and_private() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("tapio.yaml");
    let listen = "server: { grpc_listen: \"127.0.0.1:0\", http_listen: \"127.0.0.1:0\" }\n";
    std::fs::write(&config, listen).unwrap();
    let state = folder.path().join("state");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tapio"));
    let command = command
        .args(["server", "--config"])
        .arg(&config)
        .env("STATE_DIRECTORY", format!("{}:/nowhere", state.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let server = Server(command.spawn().unwrap());
    let lock = state.join("store/lock");
    let until = Instant::now() + Duration::from_secs(60);
    while !lock.exists() {
        assert!(Instant::now() < until, "the store isn't in $STATE_DIRECTORY");
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(server);
    assert_eq!((mode(&state), mode(&state.join("store")), mode(&lock)), (0o700, 0o700, 0o600));
}
