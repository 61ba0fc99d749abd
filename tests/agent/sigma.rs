//! Sigma rules in an agent with the eBPF collector: a real process fires each of them.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use tapio_collectors::ebpf::{Config as EbpfConfig, findings};

use super::support::agent::{TestAgent, run, start, terminate, utf8};
use super::support::eventually::eventually_ok;
use super::support::net::get_json;
use super::support::skip::skipped;

/// Rules of the shape of those for Linux that people share. `FOLDER` and `PORT` are the test's.
const RULES: &str = r"title: lists jobs
logsource: { product: linux, category: process_creation }
detection:
  selection: { Image|endswith: /lister, CommandLine|contains: ' -u root -l' }
  condition: selection
---
title: form in a regular expression
logsource: { product: linux, category: process_creation }
detection:
  selection: { Image|endswith: /sender, CommandLine|re: '\s-[FTd]\s' }
  filter_local: { CommandLine|contains: '://localhost' }
  condition: selection and not 1 of filter_*
---
title: child of a web server
logsource: { product: linux, category: process_creation }
detection:
  selection_parent: { ParentImage|endswith: [/webserver, /httpd] }
  selection_child: { Image|endswith: /lister }
  condition: all of selection_*
---
title: parent by its command line
logsource: { product: linux, category: process_creation }
detection:
  selection: { ParentCommandLine|contains|all: [webserver, '-c ', lister], Image|endswith: /lister }
  condition: selection
---
title: root in a folder
logsource: { product: linux, category: process_creation }
detection:
  selection: { User: root, LogonId: 0, CurrentDirectory: FOLDER/started, Image|endswith: /worker }
  condition: selection
---
title: program below its folder
logsource: { product: linux, category: process_creation }
detection:
  selection: { Image|fieldref|startswith: CurrentDirectory, Image|endswith: /local }
  condition: selection
---
title: any dash
logsource: { product: linux, category: process_creation }
detection:
  selection: { Image|endswith: /shellish, CommandLine|windash|contains: 'run -nop -enc ' }
  condition: selection
---
title: one of two tools
logsource: { product: Linux, category: Process_Creation }
detection:
  selection_a: { Image|endswith: /tool-a, CommandLine|endswith: ' --' }
  selection_b: [{ Image: FOLDER/bin/tool-b }, { Image: FOLDER/bin/tool-c }]
  condition: 1 of selection_*
---
title: three of a user
correlation:
  type: event_count
  rules: [a repeated tool]
  group-by: [User]
  timespan: 1m
  condition: { gte: 3 }
---
title: a repeated tool
logsource: { product: linux, category: process_creation }
detection: { selection: { Image|endswith: /repeated }, condition: selection }
---
title: opened connection
logsource: { product: linux, category: network_connection }
detection:
  selection: { Initiated: 'true', DestinationPort: PORT, DestinationIp|cidr: 127.0.0.0/8 }
  condition: selection
---
title: accepted connection
logsource: { product: linux, category: network_connection }
detection:
  selection: { Initiated: 'false', DestinationPort: PORT, Image|contains: /agent- }
  condition: selection
---
title: job file
logsource: { product: linux, category: file_event }
detection:
  selection: { TargetFilename|startswith: FOLDER/started/jobs/, Image|endswith: /sh, User: root }
  condition: selection
---
title: known tool
logsource: { product: linux, category: process_creation }
detection: { selection: { Image|endswith: /known }, condition: selection }
---
title: our known tools
logsource: { product: linux }
filter:
  rules: [known tool]
  selection: { CommandLine|contains: --ours }
  condition: not selection
";

/// Runs a copy of a harmless program under a name.
fn harmless(folder: &Path, name: &str, words: &[&str]) {
    let path = folder.join("bin").join(name);
    if !path.exists() {
        fs::copy("/bin/true", &path).unwrap();
    }
    // Some programs look at their name; what they then say doesn't matter.
    Command::new(path).args(words).current_dir(folder.join("started")).output().unwrap();
}

fn act(folder: &Path, listener: &TcpListener) {
    harmless(folder, "known", &["--ours"]);
    harmless(folder, "lister", &["-u", "root", "-l"]);
    harmless(folder, "sender", &["-T", "x", "http://192.0.2.1"]);
    harmless(folder, "worker", &[]);
    harmless(folder, "shellish", &["run", "/nop", "-enc", "x"]);
    harmless(folder, "tool-c", &[]);
    for _ in 0..3 {
        harmless(folder, "repeated", &[]);
    }
    let web = folder.join("bin/webserver");
    fs::copy("/bin/sh", &web).unwrap();
    let lister = folder.join("bin/lister").display().to_string();
    Command::new(&web).args(["-c", &format!("{lister}; true")]).output().unwrap();
    let local = folder.join("started/local");
    fs::copy("/bin/true", &local).unwrap();
    Command::new(&local).current_dir(folder.join("started")).output().unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let _server = listener.accept().unwrap();
    let script = "mkdir jobs; cd jobs; >one";
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", script]).current_dir(folder.join("started")).output().unwrap();
}

#[test]
fn real_processes_fire_sigma_rules() {
    let missing = findings(&EbpfConfig::default()).into_iter().find(|finding| {
        !finding.ok && (finding.subject.starts_with("program ") || finding.subject == "eBPF object")
    });
    if let Some(missing) = missing {
        return skipped(&format!("{}: {}", missing.subject, missing.state));
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    // As the kernel names it.
    let folder = fs::canonicalize(folder.path()).unwrap().join("t");
    fs::create_dir_all(folder.join("bin")).unwrap();
    fs::create_dir(folder.join("started")).unwrap();
    let fixture = TestAgent::new();
    let port = listener.local_addr().unwrap().port().to_string();
    let rules = RULES.replace("FOLDER", &folder.to_string_lossy()).replace("PORT", &port);
    let rules = fixture.file("sigma.yml", &rules);
    let state = Path::new(&rules).parent().unwrap().display();
    let config = fixture.file(
        "tapio.yaml",
        &format!(
            "state_dir: {state}\nnode: test\nadmin: {{ listen: \"127.0.0.1:{}\" }}\n\
             dataflow: {{ builtin_rules: false, rules: [\"{rules}\"] }}\n\
             collectors: {{ only: [ebpf], ebpf: {{ file_create: true }} }}\n\
             bridge: {{ endpoint: \"127.0.0.1:{}\", drain_timeout: 300ms }}\n\
             server: {{ grpc_listen: \"127.0.0.1:{}\", http_listen: \"127.0.0.1:{}\" }}\n",
            fixture.admin, fixture.grpc, fixture.grpc, fixture.http,
        ),
    );
    let checked = utf8(&run(&["rules", "check", "--config", &config, &rules]).stdout);
    assert!(
        checked.ends_with("valid rules: 13, errors: 0; can fire: 13, can't fire: 0\n"),
        "{checked}"
    );
    let agent = start(&["run", "--standalone", "--config", &config]);
    fixture.wait(|s| {
        // Its programs are attached some time after it has begun to run.
        Command::new("/bin/true").status().unwrap();
        s["cons1"]["collectors"]["ebpf"]["forwarded"].as_u64() > Some(0)
    });
    act(&folder, &listener);
    let titles: Vec<&str> = RULES.lines().filter_map(|line| line.strip_prefix("title: ")).collect();
    let silent = ["a repeated tool", "known tool", "our known tools"];
    eventually_ok("a story of each rule", || {
        let page = get_json(fixture.http, "/api/v1/stories?limit=500").unwrap_or_default();
        let page = page.to_string();
        let missing: Vec<&&str> = titles
            .iter()
            .filter(|t| !silent.contains(*t) && !page.contains(&format!("\"rule\":\"{t}\"")))
            .collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} in {page}")) }
    });
    let output = utf8(&terminate(agent).stdout);
    assert!(!output.contains("known tool"), "a filter excludes it: {output}");
    assert!(!output.contains("a repeated tool"), "only its correlation fires: {output}");
}
