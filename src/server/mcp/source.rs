//! The source of the tools' data.

use std::future::Future;

use tonic::{Request, Status};

use super::super::query_rpc::Queries;
use tapio_wire::proto;
use tapio_wire::proto::query_server::Query;

/// The queries that the tools need: of the server in this process, or of one over gRPC.
pub(crate) trait Source: Sync {
    /// Lists stories, last updated first.
    ///
    /// # Errors
    /// An invalid parameter, or why there is no answer.
    fn list_stories(
        &self,
        request: proto::ListStoriesRequest,
    ) -> impl Future<Output = Result<proto::ListStoriesResponse, SourceError>> + Send;

    /// Lists events, newest first.
    ///
    /// # Errors
    /// As [`Source::list_stories`].
    fn list_events(
        &self,
        request: proto::ListEventsRequest,
    ) -> impl Future<Output = Result<proto::ListEventsResponse, SourceError>> + Send;

    /// Lists agents, in the order of their nodes.
    ///
    /// # Errors
    /// As [`Source::list_stories`].
    fn list_agents(
        &self,
        request: proto::ListAgentsRequest,
    ) -> impl Future<Output = Result<proto::ListAgentsResponse, SourceError>> + Send;
}

/// Why a source has no answer; an invalid parameter is named at the beginning.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct SourceError(pub(crate) String);

impl From<Status> for SourceError {
    fn from(status: Status) -> Self {
        Self(status.message().to_owned())
    }
}

impl Source for Queries {
    async fn list_stories(
        &self,
        request: proto::ListStoriesRequest,
    ) -> Result<proto::ListStoriesResponse, SourceError> {
        let response = Query::list_stories(self, Request::new(request)).await;
        Ok(response?.into_inner())
    }

    async fn list_events(
        &self,
        request: proto::ListEventsRequest,
    ) -> Result<proto::ListEventsResponse, SourceError> {
        let response = Query::list_events(self, Request::new(request)).await;
        Ok(response?.into_inner())
    }

    async fn list_agents(
        &self,
        request: proto::ListAgentsRequest,
    ) -> Result<proto::ListAgentsResponse, SourceError> {
        let response = Query::list_agents(self, Request::new(request)).await;
        Ok(response?.into_inner())
    }
}
