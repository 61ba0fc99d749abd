//! `tapio status`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use http::Method;
use serde_json::Value as Json;

use super::super::arguments::duration;
use super::super::connection::AccessArgs;
use super::super::live;
use super::super::output::{Outcome, OutputArgs, Printer, Usage, message, plain};
use super::super::run::config;
use super::sections::{CollectorRow, account, collectors, problems, text_line, title_line};
use super::text::{age, bytes, number, text};
use crate::runtime::Config;
use tapio_core::clock;
use tapio_wire::{ClientAccess, HttpClient, ListenAddress};

/// Time limit for an answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Interval of attempts while waiting.
const WAIT_INTERVAL: Duration = Duration::from_millis(200);
/// Largest page that is read.
const MAX_STATUS_PAGE_BYTES: usize = 16 * 1024 * 1024;
/// Longest answer of something else that is printed.
const MAX_ANSWER_CHARS: usize = 200;
/// Digits of the rule set's digest that are printed.
const DIGEST_DIGITS: usize = 8;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  tapio status\n  tapio status --config /etc/tapio/tapio.yaml\n  tapio status --wait-ready 30s\n\nExit code 0: the agent's state is ok; with --wait-ready: it is ready. Exit code 1: not so, or it\ncan't be reached."
)]
pub(crate) struct StatusArgs {
    /// The agent's admin address: HOST:PORT, http(s)://HOST:PORT or unix:/PATH
    #[arg(long, value_name = "ADDR", conflicts_with = "config")]
    agent: Option<String>,
    /// Configuration file of the agent, which has its admin address
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    access: AccessArgs,
    /// Wait until the agent is ready, at most this long
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    wait_ready: Option<Duration>,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) fn status(args: &StatusArgs) -> Outcome {
    let endpoint = endpoint(args)?;
    let access = args.access.access("--agent", &endpoint)?;
    let runtime = live::runtime()?;
    let began = clock::instant();
    let (document, is_fine) = loop {
        let fetched = runtime.block_on(fetch(&access, &endpoint));
        let is_ready = fetched.as_ref().is_ok_and(is_ready);
        match args.wait_ready {
            None => {
                let document = fetched?;
                let is_ok = document["state"] == "ok";
                break (document, is_ok);
            }
            Some(limit) if is_ready || began.elapsed() >= limit => break (fetched?, is_ready),
            Some(_) => std::thread::sleep(WAIT_INTERVAL),
        }
    };
    let mut printer = Printer::list(&args.output);
    if args.output.output.is_data() {
        printer.single(&document)?;
    } else {
        print_status(&mut printer, &document)?;
        printer.finish()?;
    }
    if let Some(limit) = args.wait_ready.filter(|_| !is_fine) {
        message(&format!("tapio: the agent isn't ready after {limit:?}"));
    }
    Ok(if is_fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The admin address, by the arguments.
fn endpoint(args: &StatusArgs) -> anyhow::Result<String> {
    if let Some(agent) = &args.agent {
        return Ok(agent.clone());
    }
    let config = match &args.config {
        Some(path) => config(Some(path))?,
        None => Config::default(),
    };
    let scheme = if config.admin.tls.is_some() { "https" } else { "http" };
    match &config.admin.listen {
        ListenAddress::Tcp(address) if address.port() == 0 => {
            Err(Usage("admin.listen has port 0: name the address with --agent".into()).into())
        }
        ListenAddress::Tcp(address) if address.ip().is_unspecified() => {
            Ok(format!("{scheme}://localhost:{}", address.port()))
        }
        ListenAddress::Tcp(address) => Ok(format!("{scheme}://{address}")),
        socket @ ListenAddress::Unix(_) => Ok(socket.to_string()),
    }
}

/// Requests `/status`. Returns the status code and the body.
async fn request(access: &ClientAccess, endpoint: &str) -> Result<(u16, Vec<u8>), String> {
    let client = HttpClient::new(endpoint, access)?;
    let answer = async {
        let response = client.request(Method::GET, "/status", &[], Vec::new()).await?;
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), MAX_STATUS_PAGE_BYTES).await;
        Ok((status, body.map_err(|e| e.to_string())?.to_vec()))
    };
    let late = || Err(format!("no answer within {TIMEOUT:?}"));
    tokio::time::timeout(TIMEOUT, answer).await.unwrap_or_else(|_| late())
}

async fn fetch(access: &ClientAccess, endpoint: &str) -> anyhow::Result<Json> {
    let page = request(access, endpoint).await;
    let (status, body) =
        page.map_err(|e| anyhow::anyhow!("can't reach an agent at {endpoint}: {e}"))?;
    let answer = String::from_utf8_lossy(&body);
    anyhow::ensure!(status == 200, "{endpoint}/status: HTTP status {status}: {}", cut(&answer));
    let document: Json = serde_json::from_str(&answer)
        .map_err(|_| anyhow::anyhow!("{endpoint}/status isn't an agent's: no JSON"))?;
    // A server has a page of this name as well.
    anyhow::ensure!(
        document["collectors"].is_object(),
        "{endpoint} isn't an agent's admin address; `tapio agents` shows a server's agents"
    );
    Ok(document)
}

/// The beginning of what something has answered, without control characters.
fn cut(answer: &str) -> String {
    plain(answer.trim()).chars().take(MAX_ANSWER_CHARS).collect()
}

/// Whether the agent does its work; losses don't count.
fn is_ready(document: &Json) -> bool {
    document["unready"].as_array().is_some_and(Vec::is_empty)
}

fn print_status(printer: &mut Printer, document: &Json) -> anyhow::Result<()> {
    let title = format!(
        "tapio {} on {}: {}, up {}",
        text(&document["version"]),
        text(&document["node"]),
        text(&document["state"]),
        age(number(&document["uptime_seconds"]))
    );
    title_line(printer, &title)?;
    problems(printer, &document["unready"])?;
    problems(printer, &document["degraded"])?;
    for (name, value) in [
        ("server", server(&document["bridge"])),
        ("spool", spool(&document["bridge"])),
        ("memory", memory(&document["memory"])),
        ("rules", rules(document)),
    ] {
        text_line(printer, &format!("{name:<11} {value}"))?;
    }
    for failure in document["rule_failures"].as_array().into_iter().flatten() {
        let disabled = if failure["disabled"].is_null() { "" } else { ", disabled" };
        let (rule, cause) = (text(&failure["rule"]), text(&failure["cause"]));
        text_line(printer, &format!("  rule {rule} failed{disabled}: {cause}"))?;
    }
    let cons1 = &document["cons1"];
    account(printer, &cons1["total"])?;
    text_line(printer, "")?;
    let accounts = cons1["collectors"].as_object().into_iter().flatten();
    let rows: Vec<CollectorRow<'_>> = accounts
        .map(|(name, account)| {
            let collector = &document["collectors"][name.as_str()];
            CollectorRow {
                name,
                health: text(&collector["health"]),
                restarts: number(&collector["restarts"]),
                last_error: text(&collector["last_error"]),
                account,
            }
        })
        .collect();
    collectors(printer, &rows)
}

/// The connection to the server.
fn server(bridge: &Json) -> String {
    let (endpoint, error) = (text(&bridge["endpoint"]), text(&bridge["last_error"]));
    let queue = bytes(number(&bridge["queue_bytes"]));
    match (bridge["connected"].as_bool(), endpoint, error) {
        (Some(true), endpoint, _) => format!("connected to {endpoint}, {queue} in the queue"),
        (_, "", "") => format!("not connected, {queue} in the queue"),
        (_, "", error) => format!("not connected, {queue} in the queue; last error: {error}"),
        (_, endpoint, error) => {
            format!("not connected, last to {endpoint}, {queue} in the queue; last error: {error}")
        }
    }
}

fn spool(bridge: &Json) -> String {
    let size = bytes(number(&bridge["spool_bytes"]));
    let failing = if bridge["disk_failing"] == true { "; the disk refuses writes" } else { "" };
    match number(&bridge["spool_oldest_seconds"]) {
        0 => format!("{size}{failing}"),
        seconds => format!("{size}, the oldest batch has waited for {}{failing}", age(seconds)),
    }
}

fn memory(memory: &Json) -> String {
    let used = bytes(number(&memory["used_bytes"]));
    let Some(limit) = memory["limit_bytes"].as_u64() else { return used };
    let paused = if number(&memory["paused"]) > 0 { "; sources are paused" } else { "" };
    format!("{used} of {}{paused}", bytes(limit))
}

fn rules(document: &Json) -> String {
    let digest = text(&document["rules_digest"]);
    let digest = digest.get(..DIGEST_DIGITS).unwrap_or(digest);
    let refused = match text(&document["reloads"]["last_error"]) {
        "" => String::new(),
        error => format!("; the last reload was refused: {error}"),
    };
    format!("{}, digest {digest}{refused}", number(&document["rules"]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bridge_and_memory_are_one_line_each() {
        let mut bridge = json!({"connected": true, "endpoint": "h:1", "queue_bytes": 2048});
        assert_eq!(server(&bridge), "connected to h:1, 2.0 KiB in the queue");
        bridge["connected"] = false.into();
        bridge["last_error"] = "refused".into();
        assert!(server(&bridge).ends_with("; last error: refused"));
        bridge["spool_oldest_seconds"] = 61.into();
        assert_eq!(spool(&bridge), "0 B, the oldest batch has waited for 1 min 1 s");
        assert_eq!(memory(&json!({"used_bytes": 5})), "5 B");
        assert_eq!(memory(&json!({"used_bytes": 5, "limit_bytes": 9})), "5 B of 9 B");
    }

    #[test]
    fn losses_do_not_make_an_agent_unready() {
        assert!(is_ready(&json!({"unready": [], "degraded": ["a loss"]})));
        assert!(!is_ready(&json!({"unready": ["an obstacle"]})));
        assert!(!is_ready(&Json::Null));
    }
}
