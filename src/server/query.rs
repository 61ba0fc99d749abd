//! Queries, over whichever protocol they come.

use std::io;
use std::sync::Arc;

use tonic::Status;

use super::follow::{Follower, Render};
use super::query_line::{QueryError, budget};
use super::shared::Shared;
use super::storage::{
    Budget, Cursor, Filter, InvalidParameter, List, MatchingBatch, Page, StorySelection,
};
use crate::store::FramePosition;
use crate::telemetry::span;
use tapio_core::event::{IncidentView, LinkedStory, TraceId};

/// Items listed where the request gives no limit.
pub(super) const DEFAULT_LIMIT: usize = 100;
/// Items listed at most.
pub(super) const MAX_LIMIT: usize = 10_000;

/// The page that a request asks for.
#[derive(Default)]
pub(super) struct PageRequest {
    pub(super) filter: Filter,
    /// 0 for the default.
    pub(super) limit: u32,
    pub(super) page_token: String,
}

/// A page as it is answered.
pub(super) struct Answer<T> {
    pub(super) items: T,
    pub(super) next_page_token: String,
    pub(super) complete_since_ns: u64,
    /// The position of the log when the page was requested.
    pub(super) position: FramePosition,
}

impl PageRequest {
    /// The limit within bounds.
    fn limit(&self) -> usize {
        match self.limit as usize {
            0 => DEFAULT_LIMIT,
            n => n.min(MAX_LIMIT),
        }
    }

    fn cursor(&self, list: List) -> Result<Cursor, QueryError> {
        self.filter.check()?;
        Ok(Cursor::from_token(&self.page_token, list, &self.filter)?)
    }
}

fn answer<I, T>(
    page: Page<I>,
    list: List,
    filter: &Filter,
    position: FramePosition,
    render: impl FnOnce(&[I]) -> io::Result<T>,
) -> io::Result<Answer<T>> {
    let token = page.next.map(|cursor| cursor.token(list, filter));
    Ok(Answer {
        items: render(&page.items)?,
        next_page_token: token.unwrap_or_default(),
        complete_since_ns: page.complete_since_ns,
        position,
    })
}

impl Shared {
    /// Finds the newest events. Like the search, `render` runs on a thread of its own.
    pub(super) async fn events<T: Send + 'static>(
        &self,
        mut request: PageRequest,
        render: impl FnOnce(&[MatchingBatch]) -> io::Result<T> + Send + 'static,
    ) -> Result<Answer<T>, QueryError> {
        let cursor = request.cursor(List::Events)?;
        let of_stories = [
            ("id_prefix", !request.filter.id_prefix.is_empty()),
            ("state", request.filter.state.is_some()),
        ];
        if let Some((name, _)) = of_stories.into_iter().find(|(_, is_set)| *is_set) {
            return Err(InvalidParameter { name, cause: "is for stories only".into() }.into());
        }
        let query = async {
            let place = self.enter_line().await?;
            self.resolve_pattern(&mut request.filter);
            let (selection, end) = {
                let storage = self.storage();
                (storage.select_events(request.filter.clone(), cursor), storage.end())
            };
            let read = move || {
                let page = selection.read(&budget(request.limit()));
                answer(page, List::Events, &request.filter, end, render)
            };
            place.run(read).await
        };
        span("query.events", query).await
    }

    /// Finds the stories that were updated last.
    pub(super) async fn stories<T: Send + 'static>(
        &self,
        request: PageRequest,
        render: impl FnOnce(&[LinkedStory]) -> io::Result<T> + Send + 'static,
    ) -> Result<Answer<T>, QueryError> {
        let query = self.select(request, List::Stories, StorySelection::read, render);
        span("query.stories", query).await
    }

    /// Finds the incidents that were updated last.
    pub(super) async fn incidents<T: Send + 'static>(
        &self,
        request: PageRequest,
        render: impl FnOnce(&[IncidentView]) -> io::Result<T> + Send + 'static,
    ) -> Result<Answer<T>, QueryError> {
        let query = self.select(request, List::Incidents, StorySelection::read_incidents, render);
        span("query.incidents", query).await
    }

    /// Reads a page of what stories give, by `read`.
    async fn select<I: 'static, T: Send + 'static>(
        &self,
        request: PageRequest,
        list: List,
        read: fn(&StorySelection, &Budget) -> Page<I>,
        render: impl FnOnce(&[I]) -> io::Result<T> + Send + 'static,
    ) -> Result<Answer<T>, QueryError> {
        let cursor = request.cursor(list)?;
        let place = self.enter_line().await?;
        let (selection, end) = {
            let storage = self.storage();
            (storage.select_stories(request.filter.clone(), cursor), storage.end())
        };
        let read = move || {
            let page = read(&selection, &budget(request.limit()));
            answer(page, list, &request.filter, end, render)
        };
        place.run(read).await
    }

    /// Follows the log after a position, by default from its end.
    pub(super) fn follow<T: Send + 'static>(
        self: &Arc<Self>,
        after: Option<FramePosition>,
        stories_only: bool,
        render: Render<T>,
    ) -> Follower<T> {
        let follower = Follower::new(Arc::clone(self), after, stories_only, render);
        self.stats().counts.tail_gaps += u64::from(follower.has_gap());
        follower
    }

    /// Finds the incident of which one story has this id.
    pub(super) async fn incident(&self, id: TraceId) -> Result<Option<IncidentView>, QueryError> {
        let filter = Filter { id_prefix: id.to_string(), ..Filter::default() };
        let request = PageRequest { filter, limit: 1, page_token: String::new() };
        Ok(self.incidents(request, |found| Ok(found.first().cloned())).await?.items)
    }

    /// Finds the story of which one part has this id.
    pub(super) async fn story(&self, id: TraceId) -> Result<Option<LinkedStory>, QueryError> {
        let filter = Filter { id_prefix: id.to_string(), ..Filter::default() };
        let request = PageRequest { filter, limit: 1, page_token: String::new() };
        Ok(self.stories(request, |stories| Ok(stories.first().cloned())).await?.items)
    }
}

impl From<QueryError> for Status {
    fn from(error: QueryError) -> Self {
        let text = error.to_string();
        let code = match error {
            QueryError::Invalid(_) => tonic::Code::InvalidArgument,
            QueryError::Busy => tonic::Code::ResourceExhausted,
            QueryError::Failed(_) => tonic::Code::Internal,
        };
        Self::new(code, text)
    }
}
