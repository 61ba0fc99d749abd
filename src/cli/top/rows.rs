//! Stories, agents and losses as rows of lists.

use std::collections::HashMap;

use serde_json::Value as Json;

use super::list::{Cell, Row};
use crate::cli::agents::{bytes, heard, losses, lost, number, problem, state, text};
use crate::cli::output::{Column, DIM, RED, Style, YELLOW, severity_code};
use crate::cli::query::annotated::Annotated;
use crate::cli::query::state::state_text;
use tapio_core::event::StoryState;

/// The columns of stories.
pub(super) const STORIES: &[Column] = &[
    Column { title: "SEVERITY", width: 8, rank: 1 },
    Column { title: "STATE", width: 6, rank: 2 },
    Column { title: "SINCE", width: 20, rank: 4 },
    Column { title: "EVENTS", width: 6, rank: 3 },
    Column { title: "NODE", width: 4, rank: 5 },
    Column { title: "NAME", width: 0, rank: 0 },
];
/// The columns of agents.
pub(super) const AGENTS: &[Column] = &[
    Column { title: "NODE", width: 4, rank: 0 },
    Column { title: "STATE", width: 5, rank: 1 },
    Column { title: "EVENTS", width: 6, rank: 4 },
    Column { title: "STORIES", width: 7, rank: 6 },
    Column { title: "LOST", width: 4, rank: 2 },
    Column { title: "SPOOL", width: 5, rank: 5 },
    Column { title: "HEARD", width: 5, rank: 3 },
    Column { title: "VERSION", width: 7, rank: 7 },
    Column { title: "PROBLEM", width: 0, rank: 0 },
];
/// The columns of losses.
pub(super) const LOSSES: &[Column] = &[
    Column { title: "NODE", width: 4, rank: 0 },
    Column { title: "COLLECTOR", width: 9, rank: 2 },
    Column { title: "LOST", width: 4, rank: 0 },
    Column { title: "NEW", width: 3, rank: 1 },
    Column { title: "STAGE/REASON", width: 0, rank: 0 },
];

/// A story as a row.
pub(super) fn story(found: &Annotated, style: &Style) -> Row {
    let story = &found.linked.story;
    let nodes: Vec<&str> = found.linked.parts.iter().map(|part| &*part.node).collect();
    let is_acknowledged = found.annotations.as_ref().is_some_and(|of| of.acknowledged.is_some());
    let mark = match (is_acknowledged, &found.silence) {
        (true, _) => ", ack",
        (false, Some(_)) => ", silenced",
        (false, None) => "",
    };
    let is_open = matches!(story.state, StoryState::Opened | StoryState::Updated);
    let state = Cell::text(format!("{}{mark}", state_text(story.state)));
    let severity = Cell::sorted(story.severity.as_str(), i128::from(story.severity.0));
    Row {
        key: story.id.to_string(),
        cells: vec![
            severity.painted(Some(severity_code(story.severity))),
            state.painted((!is_open).then_some(DIM)),
            Cell::sorted(style.time_to_second(story.first_ns), story.first_ns.into()),
            Cell::number(story.members_total),
            Cell::text(nodes.join(",")),
            Cell::text(&story.name),
        ],
    }
}

/// An agent as a row.
pub(super) fn agent(agent: &Json, now_ns: u64) -> Row {
    let status = &agent["status"];
    let node = text(&agent["node"]);
    let state = state(agent);
    let is_well = matches!(state, "ok" | "connected");
    let lost = lost(&status["cons1"]);
    let spool = status["spool_bytes"].as_u64();
    let heard_ns = ["last_batch", "last_status", "first_seen"]
        .into_iter()
        .filter_map(|name| tapio_core::event::parse_rfc3339(agent[name].as_str()?))
        .max();
    let silent_ns = now_ns.saturating_sub(heard_ns.unwrap_or(0));
    Row {
        key: node.to_owned(),
        cells: vec![
            Cell::text(node),
            Cell::text(state).painted((!is_well).then_some(YELLOW)),
            Cell::number(number(&agent["events"])),
            Cell::number(number(&agent["stories"])),
            Cell::number(lost).painted((lost > 0).then_some(YELLOW)),
            Cell::sorted(spool.map_or_else(String::new, bytes), spool.unwrap_or(0).into()),
            Cell::sorted(heard(agent, now_ns), silent_ns.into()),
            Cell::text(text(&status["version"])),
            Cell::text(problem(agent)),
        ],
    }
}

/// Losses as rows, with how many of each are new since the first call.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// The counts of the first call, by the key of the row.
    first: Option<HashMap<String, u64>>,
}

impl Losses {
    /// The losses of all agents, most new ones first. A residual of CONS-1 is one, too.
    pub(super) fn rows(&mut self, agents: &[Json]) -> Vec<Row> {
        let mut found: Vec<(String, &str, &str, String, u64)> = Vec::new();
        for agent in agents {
            let node = text(&agent["node"]);
            let status = &agent["status"];
            for collector in status["collectors"].as_array().into_iter().flatten() {
                let (name, account) = (text(&collector["name"]), &collector["cons1"]);
                let lost = losses(account).into_iter().map(|(at, n)| (at.to_owned(), n));
                let residual = account["residual"].as_i64().unwrap_or_default().unsigned_abs();
                let residual = ("residual: a defect of tapio (CONS-1)".to_owned(), residual);
                let all = lost.chain([residual]).filter(|(_, n)| *n > 0);
                found.extend(
                    all.map(|(at, n)| (format!("{node}\0{name}\0{at}"), node, name, at, n)),
                );
            }
        }
        let is_first = self.first.is_none();
        let first = self.first.get_or_insert_default();
        if is_first {
            first.extend(found.iter().map(|(key, .., n)| (key.clone(), *n)));
        }
        let mut rows: Vec<(u64, u64, Row)> = Vec::with_capacity(found.len());
        for (key, node, collector, at, count) in found {
            // Counts of an agent that was started again begin at zero.
            let before = first.get(&key).copied().filter(|before| *before <= count).unwrap_or(0);
            let new = count - before;
            let cells = vec![
                Cell::text(node),
                Cell::text(collector),
                Cell::number(count),
                Cell::number(new).painted((new > 0).then_some(RED)),
                Cell::text(at),
            ];
            rows.push((new, count, Row { key, cells }));
        }
        rows.sort_by(|a, b| (b.0, b.1).cmp(&(a.0, a.1)).then_with(|| a.2.key.cmp(&b.2.key)));
        rows.into_iter().map(|(.., row)| row).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn texts(row: &Row) -> Vec<&str> {
        row.cells.iter().map(|cell| &*cell.text).collect()
    }

    fn agents(count: u64, residual: i64) -> Vec<Json> {
        let account = json!({
            "dropped": {"bridge/spool_full": count, "collect/read_again": 5}, "residual": residual,
        });
        vec![json!({
            "node": "n\u{1b}", "connected": true, "last_batch": "1970-01-01T00:00:10Z",
            "status": {"state": "ok", "collectors": [{"name": "jsonl", "cons1": account}]},
        })]
    }

    #[test]
    fn losses_are_counted_since_the_first_ones() {
        let mut losses = Losses::default();
        assert_eq!(texts(&losses.rows(&agents(3, 0))[0])[2..], ["3", "0", "bridge/spool_full"]);
        let rows = losses.rows(&agents(5, -1));
        assert_eq!(texts(&rows[0]), ["n·", "jsonl", "5", "2", "bridge/spool_full"]);
        assert_eq!(texts(&rows[1])[2..4], ["1", "1"]);
        assert!(texts(&rows[1])[4].contains("CONS-1"));
        let restarted = losses.rows(&agents(2, 0));
        assert_eq!((restarted.len(), texts(&restarted[0])[3]), (1, "2"));
        assert_eq!(Losses::default().rows(&[Json::Null]), []);
    }

    #[test]
    fn agents_have_a_cell_for_each_column() {
        let row = agent(&agents(0, 0)[0], 12_000_000_000);
        assert_eq!(texts(&row), ["n·", "ok", "0", "0", "0", "", "2 s", "", ""]);
        assert_eq!(row.cells.len(), AGENTS.len());
        assert_eq!(texts(&agent(&Json::Null, 0))[1], "disconnected");
    }
}
