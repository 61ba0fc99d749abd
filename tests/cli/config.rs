//! `tapio config`: schema, defaults, values in force and differences; the documents' examples.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "fixtures fail and print as tests do"
)]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value as Json, json};

#[path = "../support/skip.rs"]
mod skip;
use skip::skipped;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn tapio(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tapio"));
    command.args(arguments).env("TAPIO_TEST_TOKEN", "correct-horse-battery").output().unwrap()
}

fn out(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn file(folder: &tempfile::TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn value(yaml: &str) -> Json {
    // The parser alone takes no long comments.
    let lines = yaml.lines().filter(|line| !line.trim_start().starts_with('#'));
    let yaml = lines.collect::<Vec<_>>().join("\n");
    let yaml = yaml.as_str();
    serde_saphyr::from_str(yaml).unwrap_or_else(|e| panic!("{e}\n{yaml}"))
}

/// The errors of the documents by the schema that the command prints; `None` without jsonschema.
fn schema_errors(documents: Vec<Json>) -> Option<Vec<Option<String>>> {
    let schema: Json = serde_json::from_str(&out(&tapio(&["config", "schema"]))).unwrap();
    let input = json!({"schema": schema, "documents": documents}).to_string();
    let own = Path::new(ROOT).join("target/testbed/opt/sdk/bin/python");
    for python in [own, PathBuf::from("python3")] {
        let mut command = Command::new(&python);
        command.arg(Path::new(ROOT).join("tests/cli/validate.py"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let Ok(mut child) = command.spawn() else { continue };
        let mut stdin = child.stdin.take().unwrap();
        // Without the package, the program ends before it reads.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        if output.status.success() {
            return Some(serde_json::from_slice(&output.stdout).unwrap());
        }
        assert!(err(&output).contains("No module named"), "{}", err(&output));
    }
    skipped("no Python with jsonschema (scripts/test-deps.sh)");
    None
}

/// The blocks of YAML of a page, with their lines.
fn blocks(page: &Path) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(page).unwrap();
    let mut blocks = Vec::new();
    for (at, start) in text.match_indices("```yaml\n") {
        let line = text[..at].lines().count() + 1;
        let block = text[at + start.len()..].split("```").next().unwrap();
        blocks.push((format!("{}:{line}", page.display()), block.to_owned()));
    }
    blocks
}

fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let folder = std::fs::read_dir(Path::new(ROOT).join(folder)).unwrap();
    let mut files: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.to_string_lossy().ends_with(ending));
    files.sort();
    files
}

/// Every configuration in README, docs and deploy, with its place.
fn examples() -> Vec<(String, String)> {
    let keys: Json = serde_json::from_str(&out(&tapio(&["config", "schema"]))).unwrap();
    let keys = keys["properties"].as_object().unwrap();
    let pages = files("docs", ".md").into_iter().chain([Path::new(ROOT).join("README.md")]);
    let mut examples: Vec<_> = pages.flat_map(|page| blocks(&page)).collect();
    // Rules and objects of Kubernetes have other keys.
    examples.retain(|(place, text)| {
        let document = serde_saphyr::from_str::<Json>(text);
        let document = document.unwrap_or_else(|e| panic!("{place}: {e}"));
        document.as_object().is_some_and(|map| map.keys().any(|key| keys.contains_key(key)))
            && document.get("rule").is_none()
            && document.get("apiVersion").is_none()
    });
    for path in files("deploy/package", ".yaml") {
        examples.push((path.display().to_string(), std::fs::read_to_string(path).unwrap()));
    }
    for path in files("deploy/kustomize/base", ".yaml") {
        let document = value(&std::fs::read_to_string(&path).unwrap());
        if let Some(text) = document.pointer("/data/tapio.yaml").and_then(Json::as_str) {
            examples.push((path.display().to_string(), text.to_owned()));
        }
    }
    assert!(examples.len() > 12, "{examples:?}");
    examples
}

#[test]
fn schema_allows_the_examples_of_the_documents_and_the_defaults() {
    let mut examples = examples();
    examples.push(("defaults".into(), out(&tapio(&["config", "defaults"]))));
    examples.push(("shown".into(), out(&tapio(&["config", "show"]))));
    let Some(errors) = schema_errors(examples.iter().map(|(_, text)| value(text)).collect()) else {
        return;
    };
    for ((place, _), error) in examples.iter().zip(errors) {
        assert_eq!(error, None, "{place}");
    }
}

/// The variables that a text names.
fn variables(text: &str) -> Vec<String> {
    let starts = text.split("${").skip(1).filter(|rest| !rest.starts_with("file:"));
    starts.map(|rest| rest.split(['}', ':']).next().unwrap().to_owned()).collect()
}

#[test]
fn check_accepts_the_examples_of_the_documents() {
    let folder = tempfile::tempdir().unwrap();
    // The only file that an example reads.
    file(&folder, "pager.url", "https://pager.example/x");
    let read_here = format!("${{file:{}/", folder.path().display());
    for (place, text) in examples() {
        let text = text.replace("${file:/etc/tapio/", &read_here);
        let path = file(&folder, "tapio.yaml", &text);
        let mut command = Command::new(env!("CARGO_BIN_EXE_tapio"));
        command.args(["check", "--config", &path, "--no-environment"]);
        command.envs(variables(&text).into_iter().map(|name| (name, "value")));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{place}: {}", err(&output));
    }
}

/// Mistakes that the schema finds, one each.
const MISTAKES: &[&str] = &[
    "nodee: a",
    "dataflow: { shard: 1 }",
    "dataflow: { shards: many }",
    "dataflow: { shards: 65 }",
    "dataflow: { shards: -1 }",
    "dataflow: { buffer_size: 5 }",
    "dataflow: { flush_interval: soon }",
    "dataflow: { flush_interval: 5 }",
    "dataflow: { rules: /etc/tapio/rules }",
    "dataflow: { service_sensitivity: 101 }",
    "dataflow: 5",
    "memory_limit: 5GB",
    "memory_limit: 1024",
    "collectors: { epbf: {} }",
    "collectors: { hung_after: -1s }",
    "collectors: { ebpf: { kinds: [kernel.nothing] } }",
    "collectors: { ebpf: { signals: [SEGV] } }",
    "collectors: { ebpf: { ring_buffer_bytes: 4MB } }",
    "collectors: { synthetic: { rate: 0 } }",
    "collectors: { journal: { units: { includes: [] } } }",
    "collectors: { jsonl: { follow: maybe } }",
    "collectors: { receiver: { listen: localhost } }",
    "bridge: { compression: gzip }",
    "bridge: { durability: none }",
    "bridge: { spool_bytes: -1 }",
    "bridge: { tls: { authority: /a } }",
    "export: { otlp: { endpoint: a } }",
    "export: { otlp: [{ signals: [log] }] }",
    "export: { otlp: [{ protocol: http/json }] }",
    "export: { otlp: [{ min_severity: loud! }] }",
    "export: { otlp: [{ timeout: never }] }",
    "server: { grpc_listen: 7600 }",
    "server: { http_listen: \"unix:run/a.sock\" }",
    "server: { tls: { cert: /a } }",
    "server: { stories_kept: 0 }",
    "threads: { pin: sometimes }",
    "threads: { cpus: a-b }",
    "threads: { numa_node: first }",
    "log: { format: xml }",
    "sandbox: { enabled: perhaps }",
    "redact: { names: password }",
    "telemetry: { otlp: { endpoint: [a] } }",
];

#[test]
fn schema_refuses_nothing_that_check_allows() {
    let folder = tempfile::tempdir().unwrap();
    for mistake in MISTAKES {
        let path = file(&folder, "tapio.yaml", &format!("{mistake}\n"));
        let output = tapio(&["check", "--config", &path]);
        let text = err(&output);
        assert_eq!(output.status.code(), Some(2), "{mistake}: {text}");
        assert!(text.contains("tapio.yaml:1:"), "{mistake}: {text}");
    }
    let Some(errors) = schema_errors(MISTAKES.iter().map(|text| value(text)).collect()) else {
        return;
    };
    for (mistake, error) in MISTAKES.iter().zip(errors) {
        assert!(error.is_some(), "the schema allows {mistake}");
    }
}

#[test]
fn variables_may_stand_for_any_value() {
    let text = "node: ${A}\ndataflow: { shards: \"${B}\", flush_interval: \"${C}\" }\n\
                sandbox: { enabled: \"${D}\" }\nlog: { format: \"${E}\" }\n\
                export: { otlp: [{ timeout: \"${F}\" }] }\nthreads: { cpus: \"${G}\" }\n\
                collectors: { ebpf: { kinds: [\"${H}\"] } }\nserver: { grpc_listen: \"${I}\" }";
    if let Some(errors) = schema_errors(vec![value(text)]) {
        assert_eq!(errors, [None]);
    }
}

#[test]
fn file_of_defaults_is_valid_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "tapio.yaml", &out(&tapio(&["config", "defaults"])));
    assert_eq!(out(&tapio(&["config", "diff", &path, "--exit-code"])), "");
    out(&tapio(&["check", "--config", &path, "--no-environment"]));
}

#[test]
fn every_key_has_a_description_and_the_page_lists_all() {
    let keys = out(&tapio(&["config", "keys", "--output", "json"]));
    let keys: Vec<Json> = serde_json::from_str(&keys).unwrap();
    assert!(keys.len() > 150, "{}", keys.len());
    for key in &keys {
        let about = key["description"].as_str().unwrap();
        assert!(about.ends_with('.') || about.ends_with('…'), "{key}");
    }
    let page = std::fs::read_to_string(Path::new(ROOT).join("docs/configuration.md")).unwrap();
    let tables = out(&tapio(&["config", "keys", "--output", "markdown"]));
    assert!(
        page.ends_with(&tables),
        "docs/configuration.md must end with the output of `tapio config keys --output markdown`"
    );
    let server = out(&tapio(&["config", "keys", "server."]));
    assert!(server.lines().all(|line| line.starts_with("server.")), "{server}");
}

#[test]
fn shown_values_are_in_force_and_without_secrets() {
    let folder = tempfile::tempdir().unwrap();
    file(&folder, "token", "wrong-pony-staple\n");
    let text = "node: n1\nbridge: { endpoint: \"http://${TAPIO_TEST_HOST:-h}:7600\" }\n\
        export:\n  otlp:\n  - endpoint: \"http://h:4317\"\n    headers: { authorization: \
        \"Bearer ${TAPIO_TEST_TOKEN}\", x-plain: cheval-pile }\n  - { name: \
        \"${file:token}\", endpoint: \"http://i:4317\" }\n";
    let path = file(&folder, "tapio.yaml", text);
    let secrets = ["correct-horse-battery", "wrong-pony-staple", "cheval-pile"];
    for arguments in [&["config", "show", "--redacted"][..], &["config", "show"]] {
        let shown = out(&tapio(&[arguments, &["--config", &path]].concat()));
        assert!(secrets.iter().all(|secret| !shown.contains(secret)), "{shown}");
        let values = value(&shown);
        assert_eq!(values["bridge"]["endpoint"], "http://h:7600");
        assert_eq!(values["export"]["otlp"][0]["headers"]["x-plain"], "[redacted]");
        assert_eq!(values["dataflow"]["flush_interval"], "1s", "a default");
        assert_ne!(values["state_dir"], Json::Null);
    }
    let arguments = ["config", "show", "--config", &path, "--reveal-secrets", "--output", "json"];
    let shown = out(&tapio(&arguments));
    assert!(secrets.iter().all(|secret| shown.contains(secret)), "{shown}");
    // What is shown is a configuration with the same values.
    let shown = out(&tapio(&["config", "show", "--config", &path, "--reveal-secrets"]));
    let again = file(&folder, "again.yaml", &shown);
    let second = tapio(&["config", "show", "--config", &again, "--reveal-secrets"]);
    assert_eq!(out(&second), shown);
}

#[test]
fn differences_name_what_a_reload_takes() {
    let folder = tempfile::tempdir().unwrap();
    let sink = |secret: &str| {
        format!(
            "export: {{ otlp: [{{ endpoint: \"http://h:4317\", headers: {{ k: {secret} }} }}] }}\n"
        )
    };
    let old = file(&folder, "a.yaml", &format!("cluster: a\n{}", sink("one-secret")));
    let new = "cluster: b\nlog: { level: debug }\nserver: { retention_age: 30d }\n";
    let new = file(&folder, "b.yaml", &format!("{new}{}", sink("other-secret")));
    let output = tapio(&["config", "diff", &old, &new]);
    assert_eq!(
        out(&output),
        "restart  cluster: a → b\n\
         restart  export.otlp[0].headers.k: \"[redacted]\" → \"[redacted]\"\n\
         reload   server.retention_age: 0s → 720h\n\
         reload   log.level: info → debug\n"
    );
    assert!(err(&output).contains("4 differ; a reload takes 2, 2 need a restart"));
    let same = tapio(&["config", "diff", &old, &old, "--exit-code"]);
    assert_eq!((out(&same).as_str(), same.status.code()), ("", Some(0)));
    let defaults = tapio(&["config", "diff", &new, "--exit-code", "--output", "json"]);
    assert_eq!(defaults.status.code(), Some(1));
    let rows: Json = serde_json::from_slice(&defaults.stdout).unwrap();
    assert_eq!(
        rows[0],
        json!({"key": "cluster", "old": "", "new": "b", "takes_effect": "restart"})
    );
    assert!(!rows.to_string().contains("other-secret"));
    let missing = tapio(&["config", "diff", "/nonexistent.yaml"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(err(&missing).contains("/nonexistent.yaml: can't be read"), "{}", err(&missing));
}
