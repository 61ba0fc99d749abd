//! `tapio rules check`: which rules can fire on a node, and messages about configuration files.

use std::path::Path;
use std::process::Command;

use serde_json::Value as Json;

fn tapio(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tapio"));
    let output = command.current_dir(folder).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

const RULES: &str = "title: Parent
logsource: { product: linux, category: process_creation }
detection: { s: { ParentImage|endswith: /bash }, condition: s }
---
title: Renamed
logsource: { product: linux, category: process_creation }
detection: { s: { OriginalFileName: x }, condition: s }
---
title: Audit
logsource: { product: linux, service: auditd }
detection: { s: { type: EXECVE }, condition: s }
";

#[test]
fn each_rule_can_fire_or_has_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    std::fs::write(folder.path().join("sub/rules.yml"), RULES).unwrap();
    let (code, out, err) = tapio(folder.path(), &["rules", "check", "."]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let on = Path::new("/sys/kernel/btf/vmlinux").exists();
    if on {
        assert!(out.contains("can fire    Parent\n"), "{out}");
    }
    for expected in [
        "can't fire  Renamed: no event of this node has `OriginalFileName` (./sub/rules.yml:5)\n",
        "can't fire  Audit: no collector reads the logsource product linux, service auditd; \
         no event of this node has `type` (./sub/rules.yml:9)\n",
        "valid rules: 3, errors: 0; can fire: ",
    ] {
        assert!(out.contains(expected), "{out}");
    }
    let config = "collectors: { only: [journal, jsonl], jsonl: { paths: [a] } }\n";
    std::fs::write(folder.path().join("tapio.yaml"), config).unwrap();
    let arguments = ["rules", "check", "--config", "tapio.yaml", "--output", "json", "sub"];
    let (code, out, err) = tapio(folder.path(), &arguments);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    let checked: Json = serde_json::from_str(&out).unwrap();
    let cause = |number: usize| checked["verdicts"][number]["cause"].as_str();
    assert_eq!(cause(0), Some("`kernel.process.exec` needs the collector ebpf, which is off"));
    assert_eq!((cause(2), &checked["verdicts"][2]["can_fire"]), (None, &Json::Bool(true)));
}

#[test]
fn path_that_gives_no_rule_fails() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    let filter = "title: F\nlogsource: { product: linux }\n\
                  filter: { rules: [T], s: { user: alice }, condition: not s }\n";
    std::fs::write(folder.path().join("filter.yml"), filter).unwrap();
    for (path, expected) in [
        ("empty", "empty: no rule: no .yml or .yaml file in this folder or below it has one\n"),
        ("filter.yml", "no rule: filters alone emit nothing\n"),
        ("gone.yml", "gone.yml: can't be read: "),
    ] {
        let (code, _, err) = tapio(folder.path(), &["rules", "check", path]);
        assert_eq!(code, Some(2), "{path}");
        assert!(err.contains(expected), "{err}");
    }
}

#[test]
fn messages_about_yaml_name_keys() {
    let folder = tempfile::tempdir().unwrap();
    for (text, expected) in [
        ("node: a\nnode: b\n", "x.yaml:2:1: duplicate key `node`: a mapping has each key once"),
        ("node: a\n---\nnode: b\n", "x.yaml:3:1: a second document begins here"),
        ("collectors: [ebpf]\n", "x.yaml:1:13: `collectors`: expected a mapping"),
        ("dataflow: { shards: two }\n", "x.yaml:1:21: `shards`: expected a whole number"),
    ] {
        std::fs::write(folder.path().join("x.yaml"), text).unwrap();
        let (code, _, err) = tapio(folder.path(), &["check", "--config", "x.yaml"]);
        assert_eq!(code, Some(2), "{text}");
        assert!(err.contains(expected), "{err}");
    }
}
