//! JSON-RPC 2.0 messages as the Model Context Protocol uses them, and their dispatch. A message is
//! answered by itself: there is no state between two of them.

use serde_json::{Map, Value, json};

use super::call::call;
use super::source::Source;
use super::tool::{INSTRUCTIONS, TOOLS, Tool};

/// Bytes of a message at most.
pub(crate) const MAX_MESSAGE_BYTES: usize = 256 * 1024;
/// The revisions of the protocol, the preferred one first. 2025-03-26 isn't among them: it has
/// batches of messages.
const REVISIONS: [&str; 2] = ["2025-06-18", "2024-11-05"];

const PARSE_ERROR: i32 = -32700;
const INVALID_REQUEST: i32 = -32600;
const METHOD_NOT_FOUND: i32 = -32601;
const INVALID_PARAMS: i32 = -32602;

/// An error of the protocol; those of tools are results.
struct RpcError {
    code: i32,
    message: String,
}

/// Answers a message. `None`: it is a notification or a response, which have no answer.
pub(crate) async fn reply<S: Source>(source: &S, message: &[u8]) -> Option<String> {
    let value: Value = match serde_json::from_slice(message) {
        Ok(value) => value,
        // The error has a line and a column, and no part of the message.
        Err(e) => return Some(error(&Value::Null, PARSE_ERROR, &format!("invalid JSON: {e}"))),
    };
    let invalid = |cause: &str| Some(error(&Value::Null, INVALID_REQUEST, cause));
    let Value::Object(message) = value else {
        return invalid("a message is one object; this revision of the protocol has no batches");
    };
    if message.get("jsonrpc") != Some(&json!("2.0")) {
        return invalid("jsonrpc: isn't \"2.0\"");
    }
    let Some(method) = message.get("method") else {
        let is_response = message.contains_key("result") || message.contains_key("error");
        return if is_response { None } else { invalid("method: is missing") };
    };
    let Some(method) = method.as_str() else { return invalid("method: isn't a string") };
    let id = match message.get("id") {
        None => return None,
        Some(id @ (Value::String(_) | Value::Number(_))) => id,
        Some(_) => return invalid("id: isn't a string or a number"),
    };
    let none = Map::new();
    let params = match message.get("params") {
        None => &none,
        Some(Value::Object(params)) => params,
        Some(_) => return Some(error(id, INVALID_PARAMS, "params: isn't an object")),
    };
    Some(match result(source, method, params).await {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string(),
        Err(RpcError { code, message }) => error(id, code, &message),
    })
}

/// The answer to a message of more than [`MAX_MESSAGE_BYTES`].
pub(crate) fn too_long() -> String {
    let cause = format!("a message has at most {MAX_MESSAGE_BYTES} bytes");
    error(&Value::Null, INVALID_REQUEST, &cause)
}

/// Whether this is a revision of the protocol that is spoken here.
pub(super) fn is_revision(name: &[u8]) -> bool {
    REVISIONS.iter().any(|revision| revision.as_bytes() == name)
}

fn error(id: &Value, code: i32, message: &str) -> String {
    json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}).to_string()
}

async fn result<S: Source>(
    source: &S,
    method: &str,
    params: &Map<String, Value>,
) -> Result<Value, RpcError> {
    let invalid = |message: String| RpcError { code: INVALID_PARAMS, message };
    match method {
        "initialize" => initialize(params),
        "ping" => Ok(json!({})),
        "tools/list" if params.get("cursor").is_none_or(Value::is_null) => {
            Ok(json!({"tools": TOOLS.iter().map(Tool::json).collect::<Vec<_>>()}))
        }
        "tools/list" => Err(invalid("cursor: the list has one page".into())),
        "tools/call" => {
            let name = params.get("name").and_then(Value::as_str);
            let name = name.ok_or_else(|| invalid("name: isn't a string".into()))?;
            let tool = Tool::find(name).ok_or_else(|| invalid(unknown_tool(name)))?;
            let none = Map::new();
            let arguments = match params.get("arguments") {
                None | Some(Value::Null) => &none,
                Some(Value::Object(arguments)) => arguments,
                Some(_) => return Err(invalid("arguments: isn't an object".into())),
            };
            Ok(call(source, tool, arguments).await)
        }
        _ => {
            let message = "no such method; there are initialize, ping, tools/list, tools/call";
            Err(RpcError { code: METHOD_NOT_FOUND, message: message.into() })
        }
    }
}

fn unknown_tool(name: &str) -> String {
    let short: String = name.chars().take(64).collect();
    let known: Vec<&str> = TOOLS.iter().map(|tool| tool.name).collect();
    format!("name: no tool {short:?}; there are {}", known.join(", "))
}

/// Agrees on a revision: the client's, or where that isn't spoken here, the preferred one.
fn initialize(params: &Map<String, Value>) -> Result<Value, RpcError> {
    let requested = params.get("protocolVersion").and_then(Value::as_str);
    let requested = requested.ok_or_else(|| RpcError {
        code: INVALID_PARAMS,
        message: "protocolVersion: isn't a string".into(),
    })?;
    let revision = REVISIONS.into_iter().find(|known| *known == requested);
    Ok(json!({
        "protocolVersion": revision.unwrap_or(REVISIONS[0]),
        "capabilities": {"tools": {}},
        "serverInfo": {
            "name": "tapio",
            "title": "tapio",
            "version": env!("CARGO_PKG_VERSION"),
        },
        "instructions": INSTRUCTIONS,
    }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::super::config::ServerConfig;
    use super::super::super::ingest::Ingest;
    use super::super::super::query_rpc::{Queries, queries};
    use super::*;
    use crate::store::OsFiles;

    /// A server without anything stored.
    struct Fixture {
        runtime: tokio::runtime::Runtime,
        queries: Queries,
        _ingest: Ingest,
        _dir: tempfile::TempDir,
    }

    impl Fixture {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let config = ServerConfig { data_dir: dir.path().into(), ..ServerConfig::default() };
            let ingest = Ingest::open(&config, Arc::new(OsFiles)).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let queries = queries(Arc::clone(ingest.shared()));
            Self { runtime, queries, _ingest: ingest, _dir: dir }
        }

        fn reply(&self, message: &[u8]) -> Option<Value> {
            let answer = self.runtime.block_on(reply(&self.queries, message))?;
            assert!(!answer.contains('\n'), "one line: {answer}");
            Some(serde_json::from_str(&answer).unwrap())
        }

        fn call(&self, tool: &str, arguments: &Value) -> Value {
            let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
                "params": {"name": tool, "arguments": arguments}});
            self.reply(message.to_string().as_bytes()).unwrap()["result"].take()
        }
    }

    #[test]
    fn client_and_server_agree_on_a_revision() {
        for (requested, agreed) in [
            ("2025-06-18", "2025-06-18"),
            ("2024-11-05", "2024-11-05"),
            ("2099-01-01", "2025-06-18"),
        ] {
            let params = json!({"protocolVersion": requested}).as_object().unwrap().clone();
            let result = initialize(&params).ok().unwrap();
            assert_eq!(result["protocolVersion"], agreed);
            assert!(is_revision(agreed.as_bytes()));
        }
        assert!(initialize(&Map::new()).is_err());
    }

    #[test]
    fn invalid_messages_are_answered_with_their_cause() {
        let fixture = Fixture::new();
        let deep = format!("{{\"a\": {}", "[".repeat(100_000));
        for (message, code, cause) in [
            ("", PARSE_ERROR, "invalid JSON"),
            ("{", PARSE_ERROR, "invalid JSON"),
            (&*deep, PARSE_ERROR, "invalid JSON: recursion limit"),
            ("[]", INVALID_REQUEST, "a message is one object"),
            ("7", INVALID_REQUEST, "a message is one object"),
            ("{}", INVALID_REQUEST, "jsonrpc: "),
            (r#"{"jsonrpc": "2.0"}"#, INVALID_REQUEST, "method: is missing"),
            (r#"{"jsonrpc": "2.0", "id": 1, "method": 7}"#, INVALID_REQUEST, "method: "),
            (r#"{"jsonrpc": "2.0", "id": null, "method": "ping"}"#, INVALID_REQUEST, "id: "),
            (r#"{"jsonrpc": "2.0", "id": 1, "method": "x"}"#, METHOD_NOT_FOUND, "no such method"),
            (
                r#"{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": []}"#,
                INVALID_PARAMS,
                "params: ",
            ),
            (
                r#"{"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"cursor": "x"}}"#,
                INVALID_PARAMS,
                "cursor: ",
            ),
            (
                r#"{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "rm"}}"#,
                INVALID_PARAMS,
                "name: no tool \"rm\"; there are list_stories, ",
            ),
        ] {
            let answer = fixture.reply(message.as_bytes()).unwrap();
            assert_eq!(answer["error"]["code"], code, "{answer}");
            let text = answer["error"]["message"].as_str().unwrap();
            assert!(text.starts_with(cause), "{text}");
        }
        for message in [
            r#"{"jsonrpc": "2.0", "method": "notifications/initialized"}"#,
            r#"{"jsonrpc": "2.0", "method": "tools/call", "params": 1}"#,
            r#"{"jsonrpc": "2.0", "id": 1, "result": {}}"#,
        ] {
            assert_eq!(fixture.reply(message.as_bytes()), None, "{message}");
        }
        let pong = fixture.reply(br#"{"jsonrpc": "2.0", "id": "a", "method": "ping"}"#);
        assert_eq!(pong, Some(json!({"jsonrpc": "2.0", "id": "a", "result": {}})));
    }

    #[test]
    fn tools_are_listed_and_each_answers_without_stories() {
        let fixture = Fixture::new();
        let list = fixture.reply(br#"{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}"#);
        let list = list.unwrap();
        let tools = list["result"]["tools"].as_array().unwrap();
        let names: Vec<&str> = tools.iter().filter_map(|tool| tool["name"].as_str()).collect();
        let expected =
            ["list_stories", "get_story", "explain_story", "search_events", "agent_status"];
        assert_eq!(names, expected);
        assert!(tools.iter().all(|tool| tool["annotations"]["readOnlyHint"] == true));
        for (tool, arguments, is_error, text) in [
            ("list_stories", json!({}), false, "stories: none"),
            ("search_events", json!({"since": "1h"}), false, "events: none"),
            ("agent_status", json!({}), false, "agents: none"),
            ("agent_status", json!({"node": "a"}), true, "node: no agent of node \"a\""),
            ("agent_status", json!({"node": "a", "limit": 1}), true, "limit: is for the list"),
            ("get_story", json!({"id": "1b4f"}), true, "id: no story 1b4f"),
            ("explain_story", json!({"id": "xyz"}), true, "id: \"xyz\" isn't 4 to 32"),
            ("get_story", json!({}), true, "id: is missing"),
            ("list_stories", json!({"since": "soon"}), true, "since: \"soon\" isn't an RFC 3339"),
            ("list_stories", json!({"page_token": "00"}), true, "page_token: "),
            ("search_events", json!({"entity": ["x"]}), true, "entity: \"x\" isn't key=value"),
            ("search_events", json!({"state": "open"}), true, "state: unknown argument"),
        ] {
            let result = fixture.call(tool, &arguments);
            assert_eq!(result["isError"].as_bool(), Some(is_error), "{result}");
            let first = result["content"][0]["text"].as_str().unwrap();
            assert!(first.starts_with(text), "{tool}: {first}");
        }
    }

    /// Any JSON, often with members that messages have.
    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,40}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((member(), inner), 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    fn member() -> impl Strategy<Value = String> {
        let names = vec!["id", "since", "until", "severity", "limit", "page_token", "entity"];
        prop_oneof![prop::sample::select(names).prop_map(str::to_owned), ".{0,8}"]
    }

    #[test]
    fn any_message_is_answered_without_a_panic() {
        let fixture = Fixture::new();
        proptest!(|(bytes: Vec<u8>)| {
            fixture.reply(&bytes);
        });
        proptest!(|(message in any_json())| {
            fixture.reply(message.to_string().as_bytes());
        });
        let methods = vec!["initialize", "ping", "tools/list", "tools/call"];
        proptest!(|(method in prop::sample::select(methods), params in any_json())| {
            let message = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
            prop_assert!(fixture.reply(message.to_string().as_bytes()).is_some());
        });
        let tools: Vec<&str> = TOOLS.iter().map(|tool| tool.name).collect();
        proptest!(|(tool in prop::sample::select(tools), arguments in any_json())| {
            let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
                "params": {"name": tool, "arguments": arguments}});
            prop_assert!(fixture.reply(message.to_string().as_bytes()).is_some());
        });
    }
}
