//! A kernel without type information: this kernel, from a mount namespace in which an empty file
//! system covers `/sys/kernel/btf`. The host's own mounts are not changed.

use serde_json::{Value as Json, json};

use super::support::agent::{TAPIO, TestAgent, story, terminate, utf8};
use super::support::skip::skipped;
use super::*;

const BTF: &str = "/sys/kernel/btf/vmlinux";

/// The agent in a mount namespace without the file.
fn without_btf(arguments: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    let hide = "mount -t tmpfs -o ro none /sys/kernel/btf && exec \"$0\" \"$@\"";
    command.args(["--mount", "sh", "-c", hide, TAPIO]).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Whether the file can be hidden. Prints the cause if it can't, or fails with
/// `TAPIO_REQUIRE_KERNEL=1`.
fn btf_can_be_hidden() -> bool {
    let cause = if rustix::process::geteuid().is_root() {
        match without_btf(&["--version"]).output() {
            Ok(output) if output.status.success() => return true,
            Ok(output) => utf8(&output.stderr),
            Err(e) => format!("unshare: {e}"),
        }
    } else {
        "only root can hide the kernel's type information".to_owned()
    };
    skipped(&cause);
    false
}

#[test]
fn doctor_reports_missing_type_information() {
    if !btf_can_be_hidden() {
        return;
    }
    let output = without_btf(&["doctor", "--output", "json"]).output().unwrap();
    assert!(output.status.success(), "the other checks pass: {}", utf8(&output.stderr));
    let report: Json = serde_json::from_slice(&output.stdout).unwrap();
    let of = |subject: &str| {
        let all = report["findings"].as_array().unwrap();
        all.iter().find(|f| f["subject"] == subject).unwrap().clone()
    };
    for (subject, state) in [
        ("type information (BTF)", format!("{BTF}: No such file")),
        ("eBPF object", format!("(BTF) missing: {BTF} doesn't exist")),
    ] {
        let found = of(subject);
        assert_eq!(found["ok"], false);
        assert!(found["state"].as_str().unwrap().contains(&state), "{found}");
        assert_eq!(found["cost"], "no kernel events at all");
        assert!(found["remedy"].as_str().unwrap().contains("CONFIG_DEBUG_INFO_BTF"), "{found}");
    }
}

#[test]
fn missing_type_information_does_not_affect_other_collectors() {
    if !btf_can_be_hidden() {
        return;
    }
    let fixture = TestAgent::new();
    let config = fixture.config("ebpf, jsonl", &story("nginx-cascade.jsonl"));
    let agent = without_btf(&["run", "--standalone", "--config", &config]).spawn().unwrap();
    let status = fixture.wait(|s| {
        s["cons1"]["total"]["forwarded"] == json!(6)
            && s["collectors"]["ebpf"]["health"] == json!("unavailable")
    });
    assert_eq!(status["cons1"]["holds"], json!(true));
    assert_eq!(status["collectors"]["jsonl"]["health"], json!("finished"));
    let ebpf = &status["collectors"]["ebpf"];
    let error = ebpf["last_error"].as_str().unwrap();
    for part in ["kernel events will be missing", "(BTF) missing", BTF, "CONFIG_DEBUG_INFO_BTF"] {
        assert!(error.contains(part), "{part} isn't in {error}");
    }
    assert_eq!(ebpf["restarts"], 0, "a retry can't help");
    let (head, body) = fixture.page("/readyz").unwrap();
    assert_eq!(head, "HTTP/1.0 200 OK", "the others are ready: {body}");
    let output = terminate(agent);
    let (out, err) = (utf8(&output.stdout), utf8(&output.stderr));
    assert!(output.status.success(), "{err}");
    assert!(out.contains("nginx configuration error"), "{out}");
    assert_eq!(err.matches("kernel events will be missing").count(), 1, "logged once: {err}");
    assert!(err.contains(r#""holds":true"#), "{err}");
    assert!(err.contains(r#""received":6,"forwarded":6"#), "{err}");
}
