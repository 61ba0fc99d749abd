//! The requests to the server.

use std::collections::HashSet;

use prost::Message as _;
use serde_json::Value as Json;
use tonic::{Code, Status, Streaming};

use super::message::{Content, Request};
use super::recent::{Entry, MAX_STORIES};
use super::rows;
use crate::cli::connection::ServerArgs;
use crate::cli::output::Style;
use crate::cli::query::annotated::Annotated;
use crate::cli::{agents, live};
use crate::server::LIFECYCLE;
use tapio_wire::proto::query_client::QueryClient;
use tapio_wire::{AuthorizedChannel, batch_json, proto};

/// Stories of a page.
const PAGE_STORIES: u32 = 100;
/// Pages that are requested at most: lifecycles, which aren't shown, may fill many.
const MAX_PAGES: usize = 20;
/// Events of a story that are shown.
const MAX_EVENTS: usize = 1000;

/// A server's answers.
pub(super) struct Source {
    client: QueryClient<AuthorizedChannel>,
    style: Style,
}

/// The latest stories, and the position of the log at which they were listed.
pub(super) struct Listed {
    pub(super) entries: Vec<Entry>,
    pub(super) position: String,
}

impl Source {
    /// Connects to the server.
    ///
    /// # Errors
    /// When it can't be reached.
    pub(super) async fn connect(at: &ServerArgs, style: &Style) -> Result<Self, Status> {
        let access = at.access().map_err(|e| Status::invalid_argument(e.to_string()))?;
        let client = live::connect(&at.server, &access).await.map_err(Status::unavailable)?;
        Ok(Self { client, style: style.clone() })
    }

    /// Lists stories, last updated first: until all of `changed` are there, without any as many as
    /// are kept.
    ///
    /// # Errors
    /// Those of the server.
    pub(super) async fn stories(
        &mut self,
        changed: Option<HashSet<String>>,
    ) -> Result<Listed, Status> {
        let (mut left, is_all) = (changed.clone().unwrap_or_default(), changed.is_none());
        let mut listed = Listed { entries: Vec::new(), position: String::new() };
        let mut request = proto::ListStoriesRequest {
            limit: PAGE_STORIES,
            no_lifecycles: true,
            ..Default::default()
        };
        for page in 0..MAX_PAGES {
            let answer = self.client.list_stories(request.clone()).await?.into_inner();
            if page == 0 {
                listed.position = answer.position;
            }
            let stories = answer.stories.into_iter().filter(|one| !one.rule.ends_with(LIFECYCLE));
            for found in stories.filter_map(Annotated::from_proto) {
                let entry = entry(&found, &self.style);
                entry.ids.iter().for_each(|id| _ = left.remove(id));
                listed.entries.push(entry);
            }
            let is_enough =
                if is_all { listed.entries.len() >= MAX_STORIES } else { left.is_empty() };
            if answer.next_page_token.is_empty() || is_enough {
                break;
            }
            request.page_token = answer.next_page_token;
        }
        listed.entries.truncate(MAX_STORIES);
        Ok(listed)
    }

    /// The agents; none from a server that doesn't list them.
    ///
    /// # Errors
    /// Those of the server.
    pub(super) async fn agents(&mut self) -> Result<Vec<Json>, Status> {
        match agents::list(&mut self.client, "").await {
            Err(status) if status.code() == Code::Unimplemented => Ok(Vec::new()),
            answer => answer,
        }
    }

    /// Follows the stories that are stored after a position.
    ///
    /// # Errors
    /// Those of the server.
    pub(super) async fn tail(
        &mut self,
        position: String,
    ) -> Result<Streaming<proto::TailItem>, Status> {
        let request = proto::TailRequest {
            stories: true,
            no_events: true,
            after: position,
            ..Default::default()
        };
        Ok(self.client.tail(request).await?.into_inner())
    }

    /// Answers a request.
    ///
    /// # Errors
    /// Those of the server; when it has no such story or agent.
    pub(super) async fn answer(&mut self, request: &Request) -> Result<Content, Status> {
        match request {
            Request::Story(id) | Request::Explanation(id) => {
                Ok(Content::Story(Box::new(self.story(id).await?)))
            }
            Request::Events(id) => {
                let story = self.story(id).await?;
                self.events(story.linked.story.trace_id.0.to_vec()).await
            }
            Request::Agent(node) => {
                let agents = agents::list(&mut self.client, node).await?;
                let absent = || Status::not_found("the server doesn't list this agent any more");
                Ok(Content::Agent(agents.into_iter().next().ok_or_else(absent)?))
            }
        }
    }

    async fn story(&mut self, id: &str) -> Result<Annotated, Status> {
        let id_prefix = id.to_owned();
        let mut request = proto::ListStoriesRequest { limit: 1, id_prefix, ..Default::default() };
        for _ in 0..MAX_PAGES {
            let answer = self.client.list_stories(request.clone()).await?.into_inner();
            if let Some(found) = answer.stories.into_iter().find_map(Annotated::from_proto) {
                return Ok(found);
            }
            if answer.next_page_token.is_empty() {
                break;
            }
            request.page_token = answer.next_page_token;
        }
        Err(Status::not_found("the server doesn't keep this story any more"))
    }

    /// The last events of a trace, oldest first.
    async fn events(&mut self, trace_id: Vec<u8>) -> Result<Content, Status> {
        let limit = u32::try_from(MAX_EVENTS).unwrap_or(u32::MAX);
        let mut request = proto::ListEventsRequest { limit, trace_id, ..Default::default() };
        let (mut pages, mut count) = (Vec::new(), 0);
        let mut has_more = true;
        for _ in 0..MAX_PAGES {
            let answer = self.client.list_events(request.clone()).await?.into_inner();
            let mut page = Vec::new();
            for batch in answer.batches {
                let decoded = batch_json(&batch.encode_to_vec());
                let (items, _) = decoded.map_err(|e| Status::internal(e.to_string()))?;
                page.extend(
                    items.into_iter().filter(|(is_story, _)| !is_story).map(|(_, one)| one),
                );
            }
            count += page.len();
            pages.push(page);
            has_more = !answer.next_page_token.is_empty();
            if !has_more || count >= MAX_EVENTS {
                break;
            }
            request.page_token = answer.next_page_token;
        }
        let events = pages.into_iter().rev().flatten().collect();
        Ok(Content::Events { events, has_more })
    }
}

fn entry(found: &Annotated, style: &Style) -> Entry {
    let own = found.linked.story.id.to_string();
    let parts = found.linked.parts.iter().map(|part| part.id.to_string());
    Entry { row: rows::story(found, style), ids: [own].into_iter().chain(parts).collect() }
}
