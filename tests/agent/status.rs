//! `tapio status` and `tapio agents` with an agent that runs, and without one.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Output;

use serde_json::Value as Json;

use super::support::agent::{TestAgent, run, start, story, terminate, utf8};
use super::support::eventually::{eventually, eventually_ok};
use super::support::net::free_port;

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

#[test]
fn agent_is_shown_by_itself_and_by_its_server() {
    let fixture = TestAgent::new();
    let config = fixture.config("jsonl", &story("nginx-cascade.jsonl"));
    let agent = start(&["run", "--standalone", "--config", &config]);
    let waited = run(&["status", "--config", &config, "--wait-ready", "120s"]);
    assert_eq!(code(&waited), Some(0), "{}", utf8(&waited.stderr));
    fixture.wait(|s| s["cons1"]["total"]["forwarded"] == 6);
    let admin = format!("http://127.0.0.1:{}", fixture.admin);
    let text = run(&["status", "--agent", &admin]);
    assert_eq!(code(&text), Some(0), "{}", utf8(&text.stderr));
    let text = utf8(&text.stdout);
    for part in
        [" on test: ok, up ", "6 received, 6 stored, 0 lost", "(CONS-1)", "jsonl ", "digest"]
    {
        assert!(text.contains(part), "{part:?} isn't in\n{text}");
    }
    let json = run(&["status", "--agent", &admin, "-o", "json"]);
    let document: Json = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&document["node"], &document["state"]), (&"test".into(), &"ok".into()));

    let server = format!("127.0.0.1:{}", fixture.grpc);
    let list = eventually_ok("the agent's report is listed", || {
        let list = run(&["agents", "--server", &server, "-o", "json"]);
        let agents: Json = serde_json::from_slice(&list.stdout).unwrap_or_default();
        match &agents[0]["status"]["cons1"]["forwarded"] {
            n if *n == 6 => Ok(agents),
            _ => Err(format!("{agents}, {}", utf8(&list.stderr))),
        }
    });
    assert_eq!(list[0]["status"]["rules"]["digest"], document["rules_digest"]);
    assert_eq!(list[0]["events"], 6);
    let table = utf8(&run(&["agents", "--server", &server]).stdout);
    assert!(table.starts_with("NODE ") && table.contains("test  ok "), "{table}");
    let one = utf8(&run(&["agents", "test", "--server", &server]).stdout);
    assert!(one.starts_with("test: ok, tapio ") && one.contains("jsonl "), "{one}");
    let absent = run(&["agents", "nobody", "--server", &server]);
    assert_eq!(code(&absent), Some(1));
    assert!(utf8(&absent.stderr).contains("no agent of node nobody"), "{}", utf8(&absent.stderr));
    let names = utf8(&run(&["complete", "nodes", "te", "--server", &server]).stdout);
    assert_eq!(names.trim(), "test");

    // The HTTP port of the server has a page /status as well, which isn't an agent's.
    let other = run(&["status", "--agent", &format!("127.0.0.1:{}", fixture.http)]);
    assert_eq!(code(&other), Some(1));
    assert!(utf8(&other.stderr).contains("isn't an agent's admin address"));
    terminate(agent);
}

#[test]
fn loss_makes_the_exit_code_one_but_the_agent_is_ready() {
    let fixture = TestAgent::new();
    let file = fixture.file("events.jsonl", "not JSON\n");
    let config = fixture.config("jsonl", file.as_ref());
    let agent = start(&["run", "--standalone", "--config", &config]);
    fixture.wait(|s| s["degraded"][0].is_string() && s["unready"] == serde_json::json!([]));
    let output = run(&["status", "--config", &config]);
    assert_eq!(code(&output), Some(1));
    let text = utf8(&output.stdout);
    assert!(text.contains(": degraded,"), "{text}");
    assert!(text.contains("lost at collect/bad_input: 1"), "{text}");
    let ready = run(&["status", "--config", &config, "--wait-ready", "60s"]);
    assert_eq!(code(&ready), Some(0));
    terminate(agent);
}

#[test]
fn status_without_an_agent_is_an_error_with_the_address() {
    let address = format!("127.0.0.1:{}", free_port());
    for arguments in [&["--agent", &address][..], &["--agent", &address, "--wait-ready", "0.3s"]] {
        let output = run(&[&["status"], arguments].concat());
        let error = utf8(&output.stderr);
        assert_eq!(code(&output), Some(1), "{error}");
        assert!(error.contains(&address) && error.contains("Connection refused"), "{error}");
    }
    for wrong in ["ftp://h:1", "unix:relative", ""] {
        let output = run(&["status", "--agent", wrong]);
        assert_eq!(code(&output), Some(2), "{wrong:?}: {}", utf8(&output.stderr));
    }
}

#[test]
fn answer_of_something_else_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let answers =
        ["HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n<html>\n", "no HTTP \x1b[2J\r\n\r\n"];
    let serving = std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]);
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    for part in ["isn't an agent's: no JSON", "can't reach an agent"] {
        let output = run(&["status", "--agent", &address]);
        let error = utf8(&output.stderr);
        assert_eq!(code(&output), Some(1));
        assert!(error.contains(part) && !error.contains('\u{1b}'), "{error}");
    }
    serving.join().unwrap();
}

#[test]
fn agents_of_a_server_without_any_are_an_empty_list() {
    let fixture = TestAgent::new();
    let dir = fixture.file("unused", "");
    let dir = dir.trim_end_matches("/unused");
    let text = format!(
        "state_dir: {dir}\nserver: {{ grpc_listen: \"127.0.0.1:{}\", http_listen: \"127.0.0.1:{}\" }}\n",
        fixture.grpc, fixture.http
    );
    let config = fixture.file("server.yaml", &text);
    let server = start(&["server", "--config", &config]);
    let address = format!("127.0.0.1:{}", fixture.grpc);
    eventually("the server answers", || code(&run(&["agents", "--server", &address])) == Some(0));
    assert_eq!(utf8(&run(&["agents", "--server", &address]).stdout), "");
    assert_eq!(utf8(&run(&["agents", "--server", &address, "-o", "json"]).stdout), "[]\n");
    terminate(server);
}
