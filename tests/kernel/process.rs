//! Processes: execs, OOM kills, crashes, secrets, cgroups.

use super::*;

#[test]
fn ten_thousand_execs_are_counted_exactly() {
    let _kernel = exclusive_kernel();
    if !is_ebpf_available() {
        return;
    }
    let running = start(&only(&[Kind::Exec, Kind::Fork, Kind::Exit]), is_of_child);
    let mut expected: HashMap<u32, usize> = HashMap::new();
    for _ in 0..10_000 {
        *expected.entry(run_true()).or_default() += 1;
    }
    let outcome = running.finish();
    outcome.assert_accounted();
    for kind in ["kernel.process.exec", "kernel.process.fork", "kernel.process.exit"] {
        let mut emitted: HashMap<u32, usize> = HashMap::new();
        for event in outcome.of_kind(kind) {
            *emitted.entry(event.pid()).or_default() += 1;
        }
        let counts = (emitted.len(), expected.len());
        assert!(emitted == expected, "{kind}: emitted and expected processes: {counts:?}");
    }
    let ids: HashSet<&str> = outcome.events.iter().map(|e| e.id.as_str()).collect();
    assert_eq!(ids.len(), outcome.events.len(), "every event has a unique id");
    let exec = outcome.of_kind("kernel.process.exec").next().unwrap();
    assert_eq!(exec.get("process.executable.path"), "/bin/true");
    assert_eq!(exec.get("process.command_args"), r#"["/bin/true"]"#);
    assert_eq!(exec.get("host.name"), "testnode");
    assert!(!exec.get("tapio.cgroup.path").is_empty(), "{exec:?}");
    let exit = outcome.of_kind("kernel.process.exit").next().unwrap();
    assert_eq!(exit.get("process.exit.code"), "0");
    assert_eq!(exit.get("process.executable.path"), "/bin/true");
    // All processes are in the tree of the test process.
    let trees: HashSet<&str> = outcome.events.iter().map(|e| e.get("tapio.process.tree")).collect();
    assert_eq!(trees.len(), 1, "{trees:?}");
    let now = tapio_core::clock::wall_ns();
    assert!(now.abs_diff(exit.time_ns) < 120_000_000_000, "the time is wall time");
}

#[test]
fn twenty_oom_kills_are_counted_exactly() {
    let _kernel = exclusive_kernel();
    if !is_ebpf_available() {
        return;
    }
    const LIMIT: u64 = 16 << 20;
    let Some(cgroup) = TestCgroup::limited("oom", LIMIT) else {
        return;
    };
    let path = cgroup.path.clone();
    let kinds = [Kind::OomKill, Kind::Exit, Kind::Exec, Kind::Fork, Kind::Signal];
    let running = start(&only(&kinds), move |e| {
        e.get("tapio.oom.cgroup") == path || e.get("tapio.cgroup.path") == path
    });
    let mut expected = Vec::new();
    for _ in 0..20 {
        let mut child = cgroup.shell("exec tail /dev/zero").spawn().unwrap();
        expected.push(child.id());
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }
    assert_eq!(cgroup.oom_kills(), 20, "the kernel's counter");
    let outcome = running.finish();
    outcome.assert_accounted();
    let emitted: Vec<u32> =
        outcome.of_kind("kernel.process.oom_kill").map(SeenEvent::pid).collect();
    assert_eq!(emitted, expected);
    for event in outcome.of_kind("kernel.process.oom_kill") {
        assert_eq!(event.get("tapio.oom.scope"), "cgroup");
        assert_eq!(event.number("tapio.oom.limit_bytes"), LIMIT);
        assert_eq!(event.get("tapio.oom.cgroup"), cgroup.path);
        assert!(event.number("tapio.oom.usage_bytes") <= LIMIT);
        let resident = event.number("tapio.oom.rss_bytes");
        assert!((LIMIT / 2..=LIMIT * 2).contains(&resident), "{resident}");
        assert_eq!(event.get("process.executable.name"), "tail");
        assert!(event.message.starts_with("tail (pid "), "{}", event.message);
        assert_eq!(event.severity, 17);
    }
    let killed: Vec<u32> = outcome
        .of_kind("kernel.process.exit")
        .filter(|e| e.get("tapio.signal.name") == "SIGKILL")
        .map(SeenEvent::pid)
        .collect();
    assert_eq!(killed, expected, "the exit of each victim is emitted as well");
}

#[test]
fn signal_and_exit_name_the_process_that_killed() {
    let _kernel = exclusive_kernel();
    if !is_ebpf_available() {
        return;
    }
    let running = start(&only(&[Kind::Signal, Kind::Exit, Kind::Exec, Kind::Fork]), is_of_child);
    let folder = tempfile::tempdir().unwrap();
    let killer = folder.path().join("killer");
    std::os::unix::fs::symlink("/bin/sh", &killer).unwrap();
    let mut killed = Vec::new();
    for (signal, number) in [("KILL", 9), ("TERM", 15)] {
        let mut victim = Command::new("sleep").arg("100").spawn().unwrap();
        let script = format!("kill -{signal} {}", victim.id());
        let mut by = Command::new(&killer).args(["-c", &script]).spawn().unwrap();
        let sender = by.id();
        assert!(by.wait().unwrap().success());
        assert_eq!(victim.wait().unwrap().signal(), Some(number));
        killed.push((victim.id(), sender, format!("SIG{signal}")));
    }
    // What a process does to itself, or exits with, names nobody.
    let mut own = Command::new("sh").args(["-c", "exit 3"]).spawn().unwrap();
    own.wait().unwrap();
    let outcome = running.finish();
    outcome.assert_accounted();
    for (pid, sender, signal) in killed {
        for kind in ["kernel.process.signal", "kernel.process.exit"] {
            let event = outcome.of_kind(kind).find(|e| e.pid() == pid).unwrap();
            assert_eq!(event.get("tapio.signal.name"), signal);
            assert_eq!(event.number("tapio.signal.sender.pid"), u64::from(sender), "{event:?}");
            assert_eq!(event.get("tapio.signal.sender.name"), "killer");
            let names = format!("killer (pid {sender})");
            assert!(event.message.contains(&names), "{}", event.message);
        }
    }
    let exit = outcome.of_kind("kernel.process.exit").find(|e| e.pid() == own.id()).unwrap();
    assert_eq!(exit.get("tapio.signal.sender.name"), "");
}

#[test]
fn crash_emits_signal_and_exit() {
    let _kernel = exclusive_kernel();
    if !is_ebpf_available() {
        return;
    }
    let running = start(&only(&[Kind::Signal, Kind::Exit, Kind::Exec, Kind::Fork]), is_of_child);
    let mut child = Command::new("sh").args(["-c", "ulimit -c 0; kill -SEGV $$"]).spawn().unwrap();
    let pid = child.id();
    assert_eq!(child.wait().unwrap().signal(), Some(11));
    let mut failing = Command::new("sh").args(["-c", "exit 7"]).spawn().unwrap();
    let failed = failing.id();
    failing.wait().unwrap();
    let outcome = running.finish();
    outcome.assert_accounted();
    let one = |kind, pid| {
        let mut all = outcome.of_kind(kind).filter(|e| e.pid() == pid);
        let first = all.next().unwrap();
        assert!(all.next().is_none(), "{kind} is emitted once");
        first
    };
    let signal = one("kernel.process.signal", pid);
    assert_eq!(signal.get("tapio.signal.name"), "SIGSEGV");
    assert_eq!(signal.number("tapio.signal.sender.pid"), u64::from(pid));
    assert_eq!(signal.get("tapio.signal.fatal"), "true");
    let exit = one("kernel.process.exit", pid);
    assert_eq!(exit.get("error.type"), "SIGSEGV");
    assert_eq!((exit.get("tapio.signal.number"), exit.severity), ("11", 17));
    assert!(exit.number("tapio.process.duration_ns") > 0);
    assert_eq!(exit.get("tapio.process.exec_id"), signal.get("tapio.process.exec_id"));
    let exit = one("kernel.process.exit", failed);
    assert_eq!((exit.get("process.exit.code"), exit.get("error.type")), ("7", "exit_code"));
    assert_eq!(exit.severity, 13);
}

#[test]
fn secrets_never_reach_an_event() {
    let _kernel = exclusive_kernel();
    if !is_ebpf_available() {
        return;
    }
    let running = start(&only(&[Kind::Exec]), is_of_child);
    let status = Command::new("/bin/true")
        .args([
            "--password",
            "hunter2-a",
            "--token=hunter2-b",
            "postgres://u:hunter2-c@h/d",
            "plain",
        ])
        .status();
    assert!(status.unwrap().success());
    let outcome = running.finish();
    outcome.assert_accounted();
    let exec = outcome.of_kind("kernel.process.exec").next().unwrap();
    assert_eq!(
        exec.get("process.command_args"),
        r#"["/bin/true","--password","[redacted]","--token=[redacted]","postgres://u:[redacted]@h/d","plain"]"#
    );
    assert!(!format!("{exec:?}").contains("hunter2"));
}

#[test]
fn exec_names_parent_user_and_folder() {
    let _kernel = exclusive_kernel();
    if !is_ebpf_available() {
        return;
    }
    let running = start(&only(&[Kind::Exec, Kind::Fork, Kind::Exit]), |e| {
        e.get("process.command_args").contains("tapio-parent-test")
    });
    // Each shell waits for its child, so that the child isn't the shell itself.
    let inner = "./bin/true 'a b' tapio-parent-test; true";
    let mut outer = Command::new("/bin/sh");
    outer.args(["-c", &format!("cd /; /bin/sh -c \"{inner}\"; true")]);
    assert!(outer.status().unwrap().success());
    let outcome = running.finish();
    let execs: Vec<&SeenEvent> = outcome.of_kind("kernel.process.exec").collect();
    let [first, second, third] = &execs[..] else { panic!("{execs:?}") };
    let own = std::env::current_exe().unwrap();
    assert_eq!(first.get("tapio.process.parent.executable.path"), own.to_string_lossy());
    assert_eq!(second.get("tapio.process.parent.executable.path"), "/bin/sh");
    assert_eq!(third.get("process.executable.path"), "/bin/true");
    assert_eq!(third.get("process.command_args"), r#"["./bin/true","a b","tapio-parent-test"]"#);
    assert_eq!(
        third.get("tapio.process.parent.command_args"),
        format!(r#"["/bin/sh","-c","{inner}"]"#)
    );
    assert_eq!(third.get("tapio.process.parent.command_args"), second.get("process.command_args"));
    // Tests that need eBPF run as root.
    assert_eq!((third.get("process.owner.uid"), third.get("process.owner")), ("0", "root"));
    let folder = std::env::current_dir().unwrap();
    assert_eq!(first.get("process.working_directory"), folder.to_string_lossy());
    assert_eq!(third.get("process.working_directory"), "/");
}

#[test]
fn created_files_have_paths_below_the_root_of_the_process() {
    let _kernel = exclusive_kernel();
    if !is_ebpf_available() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // A name of the longest length, and a path that is too long.
    let (long, deep) = ("n".repeat(255), "d".repeat(200));
    let inner = folder.path().join(&deep).join(&deep);
    std::fs::create_dir_all(&inner).unwrap();
    let own = folder.path().to_string_lossy().into_owned();
    let prefix = own.clone();
    let config = Config { file_create: true, ..only(&[Kind::Exec, Kind::Fork]) };
    let running = start(&config, move |e| {
        let path = e.get("file.path");
        path.starts_with(&prefix) || path.ends_with("/tapio-deep") || path.ends_with("nnn")
    });
    let script = format!("cd {own}; >a; >a; cd {deep}/{deep}; >../../b; >tapio-deep; >{long}");
    assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
    std::fs::File::open(folder.path().join("a")).unwrap();
    let outcome = running.finish();
    outcome.assert_accounted();
    let paths: Vec<&str> =
        outcome.of_kind("kernel.file.create").map(|e| e.get("file.path")).collect();
    let (a, b) = (format!("{own}/a"), format!("{own}/b"));
    assert_eq!(paths, [&a, &b, &format!("/{deep}/tapio-deep"), &format!("/{long}")]);
    let first = outcome.of_kind("kernel.file.create").next().unwrap();
    assert_eq!(first.get("process.executable.name"), "sh");
    assert_eq!(first.message, format!("sh (pid {}) created {a}", first.pid()));
}

#[test]
fn short_lived_cgroup_keeps_its_path() {
    let _kernel = exclusive_kernel();
    if !is_ebpf_available() {
        return;
    }
    let running = start(&only(&[Kind::Exec, Kind::Fork, Kind::Exit]), is_of_child);
    let id = "ab".repeat(32);
    let uid = "0af76519-16cd-43dd-8448-eb211c80319c";
    let mut expected = Vec::new();
    for round in 0..20 {
        let Some(pod) = TestCgroup::unified(&format!("brief{round}")) else {
            return;
        };
        let folder = pod.folder.join(format!("pod{uid}")).join(&id);
        std::fs::create_dir_all(&folder).unwrap();
        let script = format!("echo $$ >{}/cgroup.procs; exec /bin/true", folder.display());
        let mut child = Command::new("sh").args(["-c", &script]).spawn().unwrap();
        expected.push((child.id(), format!("{}/pod{uid}/{id}", pod.path)));
        child.wait().unwrap();
        std::fs::remove_dir(&folder).unwrap();
        std::fs::remove_dir(folder.parent().unwrap()).unwrap();
    }
    let outcome = running.finish();
    outcome.assert_accounted();
    for (pid, path) in expected {
        for kind in ["kernel.process.exec", "kernel.process.exit"] {
            let last = outcome.of_kind(kind).filter(|e| e.pid() == pid).last().unwrap();
            assert_eq!(last.get("tapio.cgroup.path"), path, "{kind}");
            assert_eq!(last.get("container.id"), id);
            assert_eq!(last.get("k8s.pod.uid"), uid);
        }
    }
}

#[test]
fn process_started_before_agent_has_a_name() {
    let _kernel = exclusive_kernel();
    if !is_ebpf_available() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let open = TcpStream::connect(address).unwrap();
    let accepted = listener.accept().unwrap();
    let running = start(&only(&[Kind::Accept, Kind::Close]), move |e| {
        e.number("network.local.port") == u64::from(address.port())
    });
    drop((open, accepted));
    let near = TcpStream::connect(address).unwrap();
    drop((listener.accept().unwrap(), near));
    std::thread::sleep(Duration::from_millis(200));
    let outcome = running.finish();
    outcome.assert_accounted();
    assert_eq!(outcome.of_kind("kernel.tcp.accept").count(), 1);
    assert_eq!(outcome.of_kind("kernel.tcp.close").count(), 2);
    for event in &outcome.events {
        assert_eq!(event.pid(), std::process::id(), "{event:?}");
        assert!(!event.get("process.executable.path").is_empty(), "{event:?}");
        assert!(!event.get("tapio.process.tree").is_empty(), "{event:?}");
    }
}
