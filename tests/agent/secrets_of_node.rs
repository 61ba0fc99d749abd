//! Secrets that are planted in the sources of a node: the kernel's log, Kubernetes, processes.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::process::Command;

use serde_json::{Value as Json, json};
use tapio_collectors::ebpf::{Config as EbpfConfig, findings};

use super::support::api_server::serve_objects;
use super::support::planted::PlantedAgent;
use super::support::planter::{COMMANDS, Planter};
use super::support::skip::skipped;

/// Plants in records of the kernel, one for each packet of a fifo as the device gives them, and in
/// records that programs write into the device.
fn plant_in_kernel_log(redacts: bool) {
    let mut agent = PlantedAgent::new(redacts);
    let mut plant = Planter::default();
    let fifo = agent.fixture.file("rule.yaml", "").replace("rule.yaml", "kmsg");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
    // Opens both ends, so that it doesn't wait for the reader; each write is a packet (pipe(2)).
    let mut log = OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    let flags = rustix::fs::fcntl_getfl(&log).unwrap() | rustix::fs::OFlags::DIRECT;
    rustix::fs::fcntl_setfl(&log, flags).unwrap();
    let collector = format!("only: [kmsg], kmsg: {{ path: \"{fifo}\", from_the_beginning: true }}");
    agent.start(&collector, "kernel.log");
    let texts = plant.surrounded();
    for (number, text) in texts.iter().enumerate() {
        // The device's escapes (Documentation/ABI/testing/dev-kmsg).
        let text = text.replace('\\', r"\x5c").replace('\n', r"\x0a");
        let record = format!("3,{number},{},-;{text}\n", number + 1);
        log.write_all(record.as_bytes()).unwrap();
    }
    agent.finish(texts.len()).verify();
}

#[test]
fn secrets_of_the_kernel_log_do_not_leave_the_agent() {
    plant_in_kernel_log(true);
}

#[test]
fn search_finds_secrets_of_the_kernel_log_that_are_not_redacted() {
    plant_in_kernel_log(false);
}

/// Records that programs write into the kernel's log are no events, so that nothing of them leaves
/// the agent, redacted or not.
#[test]
fn secrets_that_programs_write_into_the_kernel_log_do_not_leave_the_agent() {
    if let Err(e) = OpenOptions::new().read(true).write(true).open("/dev/kmsg") {
        return skipped(&format!("/dev/kmsg: {e}"));
    }
    let mut agent = PlantedAgent::new(true);
    let mut plant = Planter::default();
    let jsonl = agent.fixture.file("events.jsonl", "");
    let paths = format!("only: [kmsg, jsonl], jsonl: {{ paths: [\"{jsonl}\"], follow: true }}");
    agent.start(&paths, "t.end");
    agent.wait_until_running("kmsg");
    let texts = plant.surrounded();
    for text in &texts {
        // Each open file has a rate limit of its own.
        fs::write("/dev/kmsg", format!("<3>{text}")).unwrap();
    }
    agent.fixture.wait(|s| {
        let skipped = s["collectors"]["kmsg"]["counters"]["user_records"].as_u64();
        // The log may be opened only after the collector has begun to run.
        skipped >= Some(120)
    });
    let end = json!({"time": "2026-01-15T10:00:00Z", "kind": "t.end", "message": "token=abcdef"});
    agent.fixture.file("events.jsonl", &format!("{end}\n"));
    agent.finish(1).verify();
}

/// Objects with secrets in each text: messages, and fields that the collector doesn't read.
fn objects(plant: &mut Planter) -> [(&'static str, Vec<Json>); 3] {
    let time = "2026-01-15T10:00:00Z";
    let mut version = 100;
    let mut metadata = |plant: &mut Planter, name: &str| {
        version += 1;
        json!({
            "name": name, "namespace": "shop", "uid": format!("uid-{name}"),
            "resourceVersion": version.to_string(), "creationTimestamp": time,
            "annotations": {"token": plant.secret(), "note": plant.text("app --password=S")},
            "labels": {"token": plant.secret()},
        })
    };
    let texts = plant.surrounded();
    let events = texts.iter().enumerate().map(|(n, text)| {
        json!({
            "metadata": metadata(plant, &format!("event-{n}")), "type": "Warning", "count": 1,
            "reason": "Failed", "message": text, "firstTimestamp": time, "lastTimestamp": time,
            "involvedObject": {"kind": "Node", "name": "test", "uid": "node"},
            "source": {"component": "kubelet", "host": "test"},
        })
    });
    let events = events.collect();
    let texts = plant.surrounded();
    let pods = texts.iter().enumerate().map(|(n, text)| {
        let env = json!([{"name": "PASSWORD", "value": plant.secret()}]);
        let command = json!(["app", "--password", plant.secret()]);
        let status = match n % 2 {
            0 => json!({"phase": "Failed", "reason": "Evicted", "message": text}),
            _ => json!({"phase": "Running", "containerStatuses": [{
                "name": "app", "restartCount": 3, "containerID": format!("containerd://{n:064}"),
                "state": {"waiting": {"reason": "CrashLoopBackOff", "message": text}},
                "lastState": {"terminated": {
                    "exitCode": 1, "reason": "Error", "message": plant.text("app --password=S"),
                    "finishedAt": time,
                }},
            }]}),
        };
        json!({
            "metadata": metadata(plant, &format!("web-{n}")), "status": status,
            "spec": {"nodeName": "test", "containers": [
                {"name": "app", "image": "app:1", "env": env, "command": command},
            ]},
        })
    });
    let pods = pods.collect();
    let condition = |kind: &str, text: String| {
        json!({"type": kind, "status": "True", "reason": "Bad", "message": text,
               "lastTransitionTime": time})
    };
    let conditions = [
        condition("DiskPressure", plant.text("disk of app --password=S is full")),
        condition("MemoryPressure", plant.text("GET https://joe:S@host/metrics: refused")),
    ];
    let node = json!({
        "metadata": {"name": "test", "uid": "node", "resourceVersion": "9"},
        "status": {"conditions": conditions},
    });
    [("events", events), ("pods", pods), ("nodes", vec![node])]
}

fn plant_in_kubernetes(redacts: bool) {
    let mut agent = PlantedAgent::new(redacts);
    let mut plant = Planter::default();
    let objects = objects(&mut plant);
    let planted = objects.iter().map(|(_, objects)| objects.len()).sum::<usize>();
    let port = serve_objects(objects.into());
    let kubeconfig = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
         clusters: [{{name: c, cluster: {{server: \"http://127.0.0.1:{port}\"}}}}]\n\
         users: [{{name: u, user: {{token: {}}}}}]\n",
        plant.secret(),
    );
    let kubeconfig = agent.fixture.file("kubeconfig", &kubeconfig);
    agent.start(&format!("only: [k8s], k8s: {{ kubeconfig: \"{kubeconfig}\" }}"), "'k8s.*'");
    // The node is a list of conditions, whose states before aren't known.
    agent.finish(planted - 1).verify();
}

#[test]
fn secrets_of_kubernetes_do_not_leave_the_agent() {
    plant_in_kubernetes(true);
}

#[test]
fn search_finds_secrets_of_kubernetes_that_are_not_redacted() {
    plant_in_kubernetes(false);
}

fn plant_in_processes(redacts: bool) {
    let missing = findings(&EbpfConfig::default()).into_iter().find(|finding| {
        !finding.ok && (finding.subject.starts_with("program ") || finding.subject == "eBPF object")
    });
    if let Some(missing) = missing {
        return skipped(&format!("{}: {}", missing.subject, missing.state));
    }
    let mut agent = PlantedAgent::new(redacts);
    let mut plant = Planter::default();
    let kind = "kernel.process.exec";
    let text = "{e.attributes.process.command_args}";
    agent.start_with_text(&format!("only: [ebpf], ebpf: {{ kinds: [{kind}] }}"), kind, text);
    agent.fixture.wait(|s| {
        // Its programs are attached some time after it has begun to run.
        Command::new("/bin/true").status().unwrap();
        s["cons1"]["collectors"]["ebpf"]["forwarded"].as_u64() > Some(0)
    });
    let texts = plant.surrounded();
    for text in &texts {
        assert!(Command::new("/bin/true").arg(text).status().unwrap().success());
    }
    // Commands, word by word.
    for text in &plant.texts()[..COMMANDS] {
        let script = format!("set -- {text}; exec /bin/true \"$@\"");
        assert!(Command::new("/bin/sh").args(["-c", &script]).status().unwrap().success());
    }
    agent.finish(texts.len() + COMMANDS).verify();
}

#[test]
fn secrets_of_processes_do_not_leave_the_agent() {
    plant_in_processes(true);
}

#[test]
fn search_finds_secrets_of_processes_that_are_not_redacted() {
    plant_in_processes(false);
}
