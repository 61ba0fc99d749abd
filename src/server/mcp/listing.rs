//! The lists of a source, in pages.

use prost::Message as _;
use serde_json::Value;

use super::super::query::PageRequest;
use super::super::storage::StateFilter;
use super::source::{Source, SourceError};
use super::view::{StoryView, agent_summary};
use tapio_wire::{batch_json, proto};

/// Stories that are fetched at least where lifecycles are left out: there are as many of them as
/// pods and units.
const MIN_STORIES: u32 = 200;

/// A list, and what is selected of it.
pub(super) enum Listing {
    Stories { request: proto::ListStoriesRequest, has_lifecycles: bool },
    Events(proto::ListEventsRequest),
    Agents(proto::ListAgentsRequest),
}

/// A page of a list.
pub(super) struct ListPage {
    /// In the order of the list. `None`: an item that isn't shown.
    pub(super) items: Vec<Option<Value>>,
    /// Empty on the last page.
    pub(super) next_page_token: String,
    /// Nanoseconds since the Unix epoch; 0: everything that matches is in the list.
    pub(super) complete_since_ns: u64,
}

impl Listing {
    /// The stories that a request selects.
    pub(super) fn stories(request: PageRequest) -> Self {
        let filter = request.filter;
        // As on the command line.
        let has_lifecycles = !filter.pattern.is_empty() || !filter.trace_id.is_empty();
        let request = proto::ListStoriesRequest {
            limit: 0,
            pattern: filter.pattern,
            node: filter.node,
            id_prefix: filter.id_prefix,
            since: filter.since_ns,
            until: filter.until_ns,
            severity: u32::from(filter.severity.0),
            trace_id: filter.trace_id,
            kind: filter.kind,
            entities: filter.entities,
            text: filter.text,
            page_token: String::new(),
            state: filter.state.map_or("", StateFilter::as_str).to_owned(),
            no_lifecycles: !has_lifecycles,
        };
        Self::Stories { request, has_lifecycles }
    }

    /// The events that a request selects.
    pub(super) fn events(request: PageRequest) -> Self {
        let filter = request.filter;
        Self::Events(proto::ListEventsRequest {
            limit: 0,
            kind: filter.kind,
            trace_id: filter.trace_id,
            node: filter.node,
            entities: filter.entities,
            since: filter.since_ns,
            until: filter.until_ns,
            severity: u32::from(filter.severity.0),
            pattern: filter.pattern,
            text: filter.text,
            page_token: String::new(),
        })
    }

    /// Fetches a page for an answer of `limit` items. The page may have more.
    ///
    /// # Errors
    /// Those of the source.
    pub(super) async fn page(
        &self,
        source: &impl Source,
        limit: u32,
        page_token: String,
    ) -> Result<ListPage, SourceError> {
        let limit = match self {
            Self::Stories { has_lifecycles: false, .. } => limit.max(MIN_STORIES),
            _ => limit,
        };
        self.exact_page(source, limit, page_token).await
    }

    /// The token of the page behind the first `count` items of a page.
    ///
    /// # Errors
    /// Those of the source.
    pub(super) async fn token_behind(
        &self,
        source: &impl Source,
        count: u32,
        page_token: String,
    ) -> Result<String, SourceError> {
        if count == 0 {
            return Ok(page_token);
        }
        Ok(self.exact_page(source, count, page_token).await?.next_page_token)
    }

    async fn exact_page(
        &self,
        source: &impl Source,
        limit: u32,
        page_token: String,
    ) -> Result<ListPage, SourceError> {
        match self {
            Self::Stories { request, has_lifecycles } => {
                let request = proto::ListStoriesRequest { limit, page_token, ..request.clone() };
                let response = source.list_stories(request).await?;
                let has_lifecycles = *has_lifecycles;
                let items = rendered(move || {
                    response.stories.into_iter().map(|one| summary(one, has_lifecycles)).collect()
                });
                Ok(ListPage {
                    items: items.await?,
                    next_page_token: response.next_page_token,
                    complete_since_ns: response.complete_since,
                })
            }
            Self::Events(request) => {
                let request = proto::ListEventsRequest { limit, page_token, ..request.clone() };
                let response = source.list_events(request).await?;
                Ok(ListPage {
                    items: rendered(move || events(&response.batches)).await?,
                    next_page_token: response.next_page_token,
                    complete_since_ns: response.complete_since,
                })
            }
            Self::Agents(request) => {
                let request = proto::ListAgentsRequest { limit, page_token, ..request.clone() };
                let response = source.list_agents(request).await?;
                let items = response.agents.iter().map(|agent| Some(agent_summary(agent)));
                Ok(ListPage {
                    items: items.collect(),
                    next_page_token: response.next_page_token,
                    complete_since_ns: 0,
                })
            }
        }
    }
}

/// Renders items on a thread of its own: a page may have megabytes, and the server's thread has
/// batches to store.
///
/// # Errors
/// When the process ends.
pub(super) async fn rendered<T: Send + 'static>(
    render: impl FnOnce() -> T + Send + 'static,
) -> Result<T, SourceError> {
    tokio::task::spawn_blocking(render).await.map_err(|e| SourceError(e.to_string()))
}

fn summary(story: proto::Story, has_lifecycles: bool) -> Option<Value> {
    let view = StoryView::from_proto(story)?;
    (has_lifecycles || !view.linked.story.is_lifecycle()).then(|| view.summary())
}

/// The events of batches, newest first.
fn events(batches: &[proto::EventBatch]) -> Vec<Option<Value>> {
    let mut out = Vec::new();
    for batch in batches.iter().rev() {
        let Ok((mut items, invalid)) = batch_json(&batch.encode_to_vec()) else {
            out.extend(batch.events.iter().map(|_| None));
            continue;
        };
        items.reverse();
        out.extend(items.into_iter().map(|(_, event)| Some(event)));
        // Behind the others: an answer that ends here then repeats an event rather than to leave
        // one out.
        out.extend((0..invalid).map(|_| None));
    }
    out
}
