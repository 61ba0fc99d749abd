//! Refusals and reports of the query commands, against a server with a story.

use super::progress::on_terminal;
use super::query_commands::TestServer;
use super::support::agent::{TAPIO, utf8};

#[test]
fn rule_is_shown_and_silenced_by_its_name() {
    let server = TestServer::with_recordings(&["nginx-cascade.jsonl"]);
    let stories = server.items(&["stories"]);
    let story = stories.iter().find(|one| one["rule"] != one["pattern"]).unwrap();
    let part = |key: &str| story[key].as_str().unwrap().to_owned();
    let (id, rule, pattern) = (part("id"), part("rule"), part("pattern"));
    for command in [["stories", &*id], ["explain", &*id]] {
        let text = utf8(&server.run(&command).stdout);
        let has_rule = text.lines().any(|l| l.split_whitespace().eq(["rule", &*rule]));
        assert!(has_rule, "{command:?}: {text}");
    }
    let add = |rule: &str| server.run(&["silence", "add", rule, "--for", "1h", "--by", "me"]);
    let refused = add(&pattern);
    let error = utf8(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{error}");
    assert!(error.contains("is a pattern") && error.contains(&*rule), "{error}");
    let known = add(&rule);
    assert!(known.status.success() && known.stderr.is_empty(), "{}", utf8(&known.stderr));
    let unknown = add("no-such-rule");
    assert!(unknown.status.success(), "{}", utf8(&unknown.stderr));
    assert_eq!(utf8(&unknown.stderr), "tapio: no rule no-such-rule is known to the server yet\n");
    assert_eq!(server.items(&["silence", "list"]).len(), 2);
}

#[test]
fn explanation_in_markdown_has_headings_and_a_table_of_terms() {
    let server = TestServer::with_recordings(&["nginx-cascade.jsonl"]);
    let stories = server.items(&["stories"]);
    let id = stories[0]["id"].as_str().unwrap();
    let output = server.run(&["explain", id, "-o", "markdown"]);
    let text = utf8(&output.stdout);
    assert!(text.starts_with("## "), "{text}");
    for expected in ["### Events", "### Candidates", "| rank | candidate | score |", "| 1 | "] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn server_refuses_with_the_name_of_the_option() {
    let server = TestServer::with_recordings(&["nginx-cascade.jsonl"]);
    let stories = server.items(&["stories"]);
    let id = stories[0]["id"].as_str().unwrap();
    let long = "x".repeat(300);
    for (arguments, expected) in [
        (vec!["stories", "--grep", &long], "tapio: --grep: 300 characters"),
        (vec!["events", "--kind", &long], "tapio: --kind: 300 characters"),
        (vec!["annotate", id, "--note", ""], "tapio: --note: is empty"),
        (vec!["silence", "add", "oom-kill", "--for", "0s"], "tapio: --for: must be"),
    ] {
        let output = server.run(&arguments);
        let error = utf8(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.starts_with(expected), "{error}");
    }
    // The HTTP port, which speaks HTTP/2 too.
    let output = server.run(&["stories", "--server", &format!("127.0.0.1:{}", server.http_port())]);
    let error = utf8(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("HTTP port? gRPC's is 7600"), "{error}");
}

#[test]
fn empty_list_is_reported_on_a_terminal_only() {
    let server = TestServer::start();
    let address = server.address();
    for (command, expected) in [
        ("stories --pattern none", "tapio: no stories match"),
        ("events --kind none", "tapio: no events match"),
        ("annotations", "tapio: no annotations match"),
        ("silence list", "tapio: no silence is in force"),
        ("agents", "tapio: no agent has connected"),
    ] {
        let line = format!("{TAPIO} {command} --server {address}");
        let Some(text) = on_terminal(&line, &[]) else { return };
        assert!(text.contains(expected), "{command}: {text}");
        let data = on_terminal(&format!("{line} -o jsonl"), &[]).unwrap_or_default();
        assert_eq!(data, "", "{command}");
        let output = server.run(&command.split(' ').collect::<Vec<_>>());
        assert!(output.stderr.is_empty() && output.stdout.is_empty(), "{command}");
    }
}
