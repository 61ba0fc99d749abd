//! Queries for what operators noted.

use std::sync::Arc;

use super::annotations::{Action, AnnotationFilter, AnnotationPage};
use super::query::{DEFAULT_LIMIT, MAX_LIMIT};
use super::query_line::QueryError;
use super::shared::Shared;
use super::storage::InvalidParameter;
use tapio_core::clock;
use tapio_core::event::TraceId;

/// The page of annotations that a request asks for.
#[derive(Clone, Debug, Default)]
pub(super) struct AnnotationRequest {
    /// 0 for the default.
    pub(super) limit: u32,
    pub(super) page_token: String,
    /// The id of one of a story's parts; `None`: any story, and silences.
    pub(super) story: Option<TraceId>,
    /// Empty: any.
    pub(super) actions: Vec<String>,
    /// Nanoseconds since the Unix epoch.
    pub(super) since_ns: u64,
    /// 0: any.
    pub(super) until_ns: u64,
}

impl Shared {
    /// Lists annotations in force, oldest first. Returns the page and the token of the next one,
    /// which is empty for the last page.
    ///
    /// # Errors
    /// The invalid parameter, or why the story can't be looked up.
    pub(super) async fn list_annotations(
        self: &Arc<Self>,
        request: AnnotationRequest,
    ) -> Result<(AnnotationPage, String), QueryError> {
        let AnnotationRequest { limit, page_token, story, mut actions, since_ns, until_ns } =
            request;
        if let Some(unknown) = actions.iter().find(|a| !Action::LISTED.contains(&a.as_str())) {
            let cause = format!("no action {unknown:?}: {}", Action::LISTED.join(", "));
            return Err(InvalidParameter { name: "action", cause }.into());
        }
        actions.sort_unstable();
        actions.dedup();
        let stories = match story {
            Some(id) => self.ids_of_story(id).await?,
            None => Vec::new(),
        };
        let filter = AnnotationFilter { stories, actions, since_ns, until_ns };
        let after =
            match page_token.as_str() {
                "" => None,
                token => Some(filter.parse_token(token).map_err(|cause| InvalidParameter {
                    name: "page_token",
                    cause: cause.into(),
                })?),
            };
        let limit = match limit as usize {
            0 => DEFAULT_LIMIT,
            limit => limit.min(MAX_LIMIT),
        };
        let shared = Arc::clone(self);
        let list = move || {
            let page = shared.annotations().marks().page(&filter, after, limit, clock::wall_ns());
            let token = page.next.map(|after| filter.token(after)).unwrap_or_default();
            Ok((page, token))
        };
        // There may be a hundred thousand: not on the thread of ingest.
        self.enter_line().await?.run(list).await
    }

    /// The ids of the parts of a story, of which one has this id. Annotations outlast their story:
    /// of one that isn't stored any more it is this id alone.
    async fn ids_of_story(&self, id: TraceId) -> Result<Vec<TraceId>, QueryError> {
        let Some(found) = self.story(id).await? else { return Ok(vec![id]) };
        let mut ids: Vec<TraceId> = found.parts.iter().map(|part| part.id).collect();
        ids.extend([id, found.story.id]);
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }
}
