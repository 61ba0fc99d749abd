//! Runs a tool.

use serde_json::{Map, Value};

use super::super::api::{explanation_json, page_request};
use super::super::storage::InvalidParameter;
use super::answer::{Answer, error_json};
use super::collect::list;
use super::listing::{Listing, rendered};
use super::parameter::{DEFAULT_LIMIT, InvalidArgument, arguments};
use super::source::{Source, SourceError};
use super::tool::{Tool, ToolKind};
use super::view::StoryView;
use tapio_core::clock;
use tapio_wire::{agent_json, proto};

/// Fewest digits of a story's id that are accepted as its beginning.
const MIN_DIGITS: usize = 4;

/// Why a tool has no answer.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error(transparent)]
    Argument(#[from] InvalidArgument),
    #[error(transparent)]
    Parameter(#[from] InvalidParameter),
    #[error(transparent)]
    Source(#[from] SourceError),
}

/// Names and values of arguments.
type Pairs = [(String, String)];

/// Runs a tool. Returns its result, which may be an error that names the argument.
pub(super) async fn call(source: &impl Source, tool: &Tool, given: &Map<String, Value>) -> Value {
    match answer(source, tool, given).await {
        Ok(answer) => answer.json(),
        Err(error) => error_json(&error.to_string()),
    }
}

async fn answer(
    source: &impl Source,
    tool: &Tool,
    given: &Map<String, Value>,
) -> Result<Answer, CallError> {
    let pairs = arguments(given, tool.parameters, tool.required)?;
    match tool.kind {
        ToolKind::ListStories | ToolKind::SearchEvents => {
            let request = page_request(&pairs, clock::wall_ns())?;
            let limit = if request.limit == 0 { DEFAULT_LIMIT as u32 } else { request.limit };
            let token = request.page_token.clone();
            let (noun, listing) = match tool.kind {
                ToolKind::ListStories => ("stories", Listing::stories(request)),
                _ => ("events", Listing::events(request)),
            };
            Ok(list(source, &listing, limit, token, (noun, tool.name)).await?)
        }
        ToolKind::GetStory => {
            let story = story(source, &pairs).await?;
            let trace_id = story.linked.story.trace_id;
            let rest = format!("search_events with trace_id \"{trace_id}\" has the events");
            let note = "One story. explain_story has the terms of its root causes.".to_owned();
            Ok(rendered(move || Answer::of(&story.document(), note, &rest)).await?)
        }
        ToolKind::ExplainStory => {
            let story = story(source, &pairs).await?;
            let note = "The candidates for the root cause of one story, most likely first. \
                        Terms are natural logarithms of odds."
                .to_owned();
            let rest = "get_story has the story without the terms";
            let render = move || Answer::of(&explanation_json(&story.linked), note, rest);
            Ok(rendered(render).await?)
        }
        ToolKind::AgentStatus => agents(source, tool, &pairs).await,
    }
}

fn value<'p>(pairs: &'p Pairs, name: &str) -> Option<&'p str> {
    pairs.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
}

fn invalid(name: &str, cause: String) -> CallError {
    InvalidArgument { name: name.to_owned(), cause }.into()
}

/// The only story whose id begins with the digits in the arguments.
async fn story(source: &impl Source, pairs: &Pairs) -> Result<StoryView, CallError> {
    let given = value(pairs, "id").unwrap_or_default();
    let id: String = given.chars().filter(|c| *c != '-').collect();
    let is_id = (MIN_DIGITS..=32).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_hexdigit());
    if !is_id {
        let cause = format!("{given:?} isn't {MIN_DIGITS} to 32 hexadecimal digits");
        return Err(invalid("id", cause));
    }
    let id_prefix = id.to_ascii_lowercase();
    let request = proto::ListStoriesRequest { limit: 2, id_prefix, ..Default::default() };
    let found = source.list_stories(request).await?.stories;
    let mut views = found.into_iter().filter_map(StoryView::from_proto);
    let Some(first) = views.next() else {
        return Err(invalid("id", format!("no story {id}")));
    };
    if let Some(other) = views.find(|other| other.linked.story.id != first.linked.story.id) {
        let (one, other) = (first.linked.story.id, other.linked.story.id);
        return Err(invalid("id", format!("several stories begin with {id}: {one}, {other} …")));
    }
    Ok(first)
}

async fn agents(source: &impl Source, tool: &Tool, pairs: &Pairs) -> Result<Answer, CallError> {
    let Some(node) = value(pairs, "node") else {
        let limit = value(pairs, "limit").and_then(|limit| limit.parse().ok());
        let token = value(pairs, "page_token").unwrap_or_default().to_owned();
        let listing = Listing::Agents(proto::ListAgentsRequest::default());
        let limit = limit.unwrap_or(DEFAULT_LIMIT as u32);
        return Ok(list(source, &listing, limit, token, ("agents", tool.name)).await?);
    };
    if let Some((name, _)) = pairs.iter().find(|(name, _)| name != "node") {
        return Err(invalid(name, "is for the list, without node".into()));
    }
    let request = proto::ListAgentsRequest { node: node.to_owned(), ..Default::default() };
    let found = source.list_agents(request).await?.agents;
    let Some(agent) = found.first() else {
        return Err(invalid("node", format!("no agent of node {node:?}")));
    };
    let note = "One agent, with its collectors.".to_owned();
    Ok(Answer::of(&agent_json(agent), note, "`tapio agents` on a command line has all of it"))
}
