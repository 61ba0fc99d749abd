//! `tapio agents`

use std::process::ExitCode;

use serde_json::Value as Json;
use tonic::{Code, Status};

use super::super::connection::ServerArgs;
use super::super::live;
use super::super::output::{
    Cell, Column, Format, Outcome, OutputArgs, Printer, Style, Table, YELLOW,
};
use super::sections::{CollectorRow, account, collectors, problems, text_line, title_line};
use super::text::{age, bytes, delay, lost, number, text};
use tapio_core::clock;
use tapio_core::event::parse_rfc3339;
use tapio_wire::proto::ListAgentsRequest;
use tapio_wire::proto::query_client::QueryClient;
use tapio_wire::{AuthorizedChannel, ClientAccess, agent_json};

const COLUMNS: &[Column] = &[
    Column { title: "NODE", width: 0, rank: 0 },
    Column { title: "STATE", width: 0, rank: 0 },
    Column { title: "VERSION", width: 0, rank: 4 },
    Column { title: "EVENTS", width: 0, rank: 2 },
    Column { title: "STORIES", width: 0, rank: 3 },
    Column { title: "LOST", width: 0, rank: 0 },
    Column { title: "HEARD", width: 0, rank: 1 },
    Column { title: "PROBLEM", width: 0, rank: 0 },
];
const WIDE_COLUMNS: &[Column] = &[
    Column { title: "NODE", width: 0, rank: 0 },
    Column { title: "STATE", width: 0, rank: 0 },
    Column { title: "VERSION", width: 0, rank: 0 },
    Column { title: "STARTED", width: 0, rank: 0 },
    Column { title: "EVENTS", width: 0, rank: 0 },
    Column { title: "STORIES", width: 0, rank: 0 },
    Column { title: "REFUSED", width: 0, rank: 0 },
    Column { title: "LOST", width: 0, rank: 0 },
    Column { title: "RESIDUAL", width: 0, rank: 0 },
    Column { title: "SPOOL", width: 0, rank: 0 },
    Column { title: "OLDEST", width: 0, rank: 0 },
    Column { title: "MEMORY", width: 0, rank: 0 },
    Column { title: "DELAY P99", width: 0, rank: 0 },
    Column { title: "RULES", width: 0, rank: 0 },
    Column { title: "HEARD", width: 0, rank: 0 },
    Column { title: "PROBLEM", width: 0, rank: 0 },
];
/// Digits of a rule set's digest that are printed.
const DIGEST_DIGITS: usize = 8;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  tapio agents\n  tapio agents -o wide\n  tapio agents worker-1\n\nExit code 1: no agent of that node."
)]
pub(crate) struct Args {
    /// Node whose agent to show, with its collectors
    #[arg(value_name = "NODE")]
    node: Option<String>,
    #[command(flatten)]
    at: ServerArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let access = args.at.access()?;
    let node = args.node.as_deref().unwrap_or_default();
    let agents = live::runtime()?.block_on(fetch(&args.at.server, &access, node))?;
    match &args.node {
        None => print_list(args, &agents)?,
        Some(node) => {
            let server = &args.at.server;
            let agent = agents.first();
            let agent =
                agent.ok_or_else(|| anyhow::anyhow!("no agent of node {node} at {server}"))?;
            let mut printer = Printer::list(&args.output);
            if args.output.output.is_data() {
                printer.single(agent)?;
            } else {
                print_agent(&mut printer, agent)?;
                printer.finish()?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The agents of a server, or that of one node.
async fn fetch(server: &str, access: &ClientAccess, node: &str) -> anyhow::Result<Vec<Json>> {
    let mut client = live::connect(server, access).await.map_err(anyhow::Error::msg)?;
    list(&mut client, node).await.map_err(|status| match status.code() {
        Code::Unimplemented => {
            anyhow::anyhow!("the server at {server} is too old to list agents")
        }
        _ => live::failure(server, &status),
    })
}

/// The agents of a server, or that of one node.
///
/// # Errors
/// Those of the server.
pub(crate) async fn list(
    client: &mut QueryClient<AuthorizedChannel>,
    node: &str,
) -> Result<Vec<Json>, Status> {
    let mut request = ListAgentsRequest { node: node.to_owned(), ..Default::default() };
    let mut agents: Vec<Json> = Vec::new();
    loop {
        let page = client.list_agents(request.clone()).await?.into_inner();
        agents.extend(page.agents.iter().map(agent_json));
        if page.next_page_token.is_empty() {
            return Ok(agents);
        }
        request.page_token = page.next_page_token;
    }
}

/// The names of the nodes that a server lists.
///
/// # Errors
/// As [`fetch`].
pub(crate) async fn node_names(server: &str, access: &ClientAccess) -> anyhow::Result<Vec<String>> {
    let agents = fetch(server, access, "").await?;
    Ok(agents.iter().map(|agent| text(&agent["node"]).to_owned()).collect())
}

fn print_list(args: &Args, agents: &[Json]) -> anyhow::Result<()> {
    let mut printer = Printer::list(&args.output);
    let is_wide = args.output.output == Format::Wide;
    let mut table = Table::new(if is_wide { WIDE_COLUMNS } else { COLUMNS });
    if args.output.output.is_data() {
        for agent in agents {
            printer.item(agent)?;
        }
    } else {
        let now_ns = clock::wall_ns();
        for agent in agents {
            table.row(match is_wide {
                true => wide_row(agent, now_ns, &printer.style),
                false => row(agent, now_ns),
            });
        }
        printer.table(&mut table)?;
    }
    Ok(printer.finish_table(&table, "no agent has connected to this server")?)
}

/// The state of an agent, as the server sees it.
pub(crate) fn state(agent: &Json) -> &str {
    match (agent["connected"].as_bool(), agent["status"]["state"].as_str()) {
        (Some(true), Some(state)) => state,
        (Some(true), None) => "connected",
        _ => "disconnected",
    }
}

fn state_cell(agent: &Json) -> Cell {
    match state(agent) {
        state @ ("ok" | "connected") => state.into(),
        state => Cell::painted(state, YELLOW),
    }
}

/// How long ago the server has heard of it: `12 s`.
pub(crate) fn heard(agent: &Json, now_ns: u64) -> String {
    let times = ["first_seen", "last_batch", "last_status"];
    let times = times.into_iter().filter_map(|name| parse_rfc3339(agent[name].as_str()?));
    times.max().map_or_else(String::new, |ns| age(now_ns.saturating_sub(ns) / 1_000_000_000))
}

fn count(json: &Json) -> Cell {
    number(json).to_string().into()
}

/// The first problem; with others, their number.
pub(crate) fn problem(agent: &Json) -> String {
    let problems = agent["status"]["problems"].as_array();
    match problems.map(Vec::as_slice) {
        Some([one]) => text(one).to_owned(),
        Some([first, others @ ..]) => format!("{} (+{})", text(first), others.len()),
        _ => String::new(),
    }
}

fn row(agent: &Json, now_ns: u64) -> Vec<Cell> {
    let status = &agent["status"];
    vec![
        text(&agent["node"]).into(),
        state_cell(agent),
        text(&status["version"]).into(),
        count(&agent["events"]),
        count(&agent["stories"]),
        lost(&status["cons1"]).to_string().into(),
        heard(agent, now_ns).into(),
        problem(agent).into(),
    ]
}

/// When the agent's process began.
fn started(agent: &Json, style: &Style) -> String {
    let time_ns = agent["started"].as_str().and_then(parse_rfc3339);
    time_ns.map_or_else(String::new, |time_ns| style.time(time_ns))
}

fn wide_row(agent: &Json, now_ns: u64, style: &Style) -> Vec<Cell> {
    let status = &agent["status"];
    let size = |name: &str| status[name].as_u64().map_or_else(String::new, bytes);
    let oldest = status["spool_oldest_seconds"].as_u64().map_or_else(String::new, age);
    let p99 = agent["delay"]["p99_ns"].as_u64().map_or_else(String::new, delay);
    vec![
        text(&agent["node"]).into(),
        state_cell(agent),
        text(&status["version"]).into(),
        started(agent, style).into(),
        count(&agent["events"]),
        count(&agent["stories"]),
        count(&agent["batches_refused"]),
        lost(&status["cons1"]).to_string().into(),
        status["cons1"]["residual"].as_i64().unwrap_or_default().to_string().into(),
        size("spool_bytes").into(),
        oldest.into(),
        size("memory_bytes").into(),
        p99.into(),
        rules(status).into(),
        heard(agent, now_ns).into(),
        problem(agent).into(),
    ]
}

/// The rule set: the number of rules and the beginning of their digest.
fn rules(status: &Json) -> String {
    let digest = text(&status["rules"]["digest"]);
    let digest = digest.get(..DIGEST_DIGITS).unwrap_or(digest);
    if digest.is_empty() {
        return String::new();
    }
    format!("{} {digest}", number(&status["rules"]["count"]))
}

pub(crate) fn print_agent(printer: &mut Printer, agent: &Json) -> anyhow::Result<()> {
    let (status, now_ns) = (&agent["status"], clock::wall_ns());
    let (node, version) = (text(&agent["node"]), text(&status["version"]));
    let version = if version.is_empty() { String::new() } else { format!(", tapio {version}") };
    title_line(printer, &format!("{node}: {}{version}", state(agent)))?;
    problems(printer, &status["problems"])?;
    let spool = format!(
        "{}, oldest {}",
        bytes(number(&status["spool_bytes"])),
        age(number(&status["spool_oldest_seconds"]))
    );
    let memory = match status["memory_limit_bytes"].as_u64() {
        Some(limit) => format!("{} of {}", bytes(number(&status["memory_bytes"])), bytes(limit)),
        None => bytes(number(&status["memory_bytes"])),
    };
    let server = format!(
        "{} events and {} stories in {} batches; {} batches refused, {} items dropped before they \
         were sent",
        number(&agent["events"]),
        number(&agent["stories"]),
        number(&agent["batches"]),
        number(&agent["batches_refused"]),
        number(&agent["items_dropped"])
    );
    let mut rows = vec![
        ("started", started(agent, &printer.style)),
        ("heard", format!("{} ago", heard(agent, now_ns))),
        ("received", server),
    ];
    if let Some(p50) = agent["delay"]["p50_ns"].as_u64() {
        let p99 = delay(number(&agent["delay"]["p99_ns"]));
        rows.push(("delay", format!("median {}, 99 % below {p99}", delay(p50))));
    }
    if !status.is_null() {
        rows.extend([("spool", spool), ("memory", memory), ("rules", rules(status))]);
    }
    for (name, value) in rows {
        text_line(printer, &format!("{name:<11} {value}"))?;
    }
    if status.is_null() {
        text_line(printer, "the agent has reported no status of its own")?;
        return Ok(());
    }
    account(printer, &status["cons1"])?;
    text_line(printer, "")?;
    let all = status["collectors"].as_array().into_iter().flatten();
    let all: Vec<CollectorRow<'_>> = all
        .map(|collector| CollectorRow {
            name: text(&collector["name"]),
            health: text(&collector["health"]),
            restarts: number(&collector["restarts"]),
            last_error: text(&collector["last_error"]),
            account: &collector["cons1"],
        })
        .collect();
    collectors(printer, &all)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn state_is_the_agents_own_while_it_is_connected() {
        let agent = |connected: bool, state: Json| json!({"connected": connected, "status": state});
        assert_eq!(state(&agent(true, json!({"state": "degraded"}))), "degraded");
        assert_eq!(state(&agent(true, Json::Null)), "connected");
        assert_eq!(state(&agent(false, json!({"state": "ok"}))), "disconnected");
    }

    #[test]
    fn rows_have_a_cell_for_each_column_and_no_control_characters() {
        let agent = json!({
            "node": "n\u{1b}[2J", "connected": true, "last_batch": "1970-01-01T00:00:10Z",
            "status": {"problems": ["first", "second", "third"], "rules": {"digest": "a"}},
        });
        let now_ns = 12_000_000_000;
        assert_eq!(row(&agent, now_ns).len(), COLUMNS.len());
        assert_eq!(wide_row(&agent, now_ns, &Style::bare()).len(), WIDE_COLUMNS.len());
        assert_eq!(heard(&agent, now_ns), "2 s");
        assert_eq!(problem(&agent), "first (+2)");
        assert!(!format!("{:?}", row(&agent, now_ns)).contains("\\u{1b}"));
        assert_eq!(row(&Json::Null, 0).len(), COLUMNS.len());
    }
}
