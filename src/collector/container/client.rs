//! Requests to the runtime over its socket, each with a time limit.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

use super::api::containers::containers_client::ContainersClient;
use super::api::containers::{Container, GetContainerRequest, ListContainersRequest};
use super::api::content::InfoRequest;
use super::api::content::content_client::ContentClient;
use super::api::cri::runtime_service_client::RuntimeServiceClient;
use super::api::cri::{
    ContainerFilter, ContainerStatusRequest, ListPodSandboxRequest, VersionRequest,
};
use super::api::events::events_client::EventsClient;
use super::api::events::{Envelope, SubscribeRequest};
use super::api::images::images_client::ImagesClient;
use super::api::images::{GetImageRequest, Image, ListImagesRequest};
use super::api::namespaces::ListNamespacesRequest;
use super::api::namespaces::namespaces_client::NamespacesClient;
use super::api::tasks::tasks_client::TasksClient;
use super::api::tasks::{ListTasksRequest, Process};
use super::api::{content, cri};
use super::table::wall_ns;

/// Time limit of a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Events that wait to be processed; when there are more, the runtime waits.
const QUEUE_EVENTS: usize = 1024;
/// Maximum number of containers listed per namespace.
const MAX_CONTAINERS: usize = 16_384;

/// The topics of the subscription.
const TOPICS: [&str; 7] = [
    "/containers/create",
    "/containers/delete",
    "/tasks/start",
    "/tasks/exit",
    "/tasks/oom",
    "/images/create",
    "/images/update",
];

/// A connection to a runtime.
#[derive(Clone)]
pub(super) struct Client(Channel);

/// Waits for a response within the time limit.
async fn within<T>(
    response: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Status> {
    match tokio::time::timeout(REQUEST_TIMEOUT, response).await {
        Ok(response) => response.map(Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded("the runtime doesn't respond")),
    }
}

/// Maps "not found" to `None`.
fn found<T>(response: Result<T, Status>) -> Result<Option<T>, Status> {
    match response {
        Ok(response) => Ok(Some(response)),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(status),
    }
}

/// A request within a namespace.
fn in_namespace<T>(namespace: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    // A name that is invalid in a header isn't a namespace's.
    if let Ok(namespace) = namespace.parse() {
        request.metadata_mut().insert("containerd-namespace", namespace);
    }
    request
}

impl Client {
    /// Connects to the socket.
    pub(super) async fn connect(socket: &Path) -> Result<Self, String> {
        let uri = format!("unix://{}", socket.display());
        let endpoint = Endpoint::from_shared(uri).map_err(|e| e.to_string())?;
        let channel = tokio::time::timeout(REQUEST_TIMEOUT, endpoint.connect()).await;
        channel.map_err(|_| "no response".to_owned())?.map(Self).map_err(|e| with_causes(&e))
    }

    /// Subscribes, in a task of its own: the runtime responds only with the first event.
    pub(super) fn subscribe(&self) -> mpsc::Receiver<Result<Envelope, Status>> {
        let (to, events) = mpsc::channel(QUEUE_EVENTS);
        let mut client = EventsClient::new(self.0.clone());
        let filters = TOPICS.iter().map(|t| format!("topic==\"{t}\"")).collect();
        tokio::spawn(async move {
            let mut stream = match client.subscribe(SubscribeRequest { filters }).await {
                Ok(stream) => stream.into_inner(),
                Err(status) => return drop(to.send(Err(status)).await),
            };
            loop {
                let next = match stream.message().await {
                    Ok(Some(envelope)) => Ok(envelope),
                    Ok(None) => Err(Status::unavailable("the runtime ended the stream")),
                    Err(status) => Err(status),
                };
                let is_last = next.is_err();
                if to.send(next).await.is_err() || is_last {
                    return;
                }
            }
        });
        events
    }

    /// The namespaces; `None` if the runtime isn't containerd.
    pub(super) async fn namespaces(&self) -> Result<Option<Vec<String>>, Status> {
        let mut client = NamespacesClient::new(self.0.clone());
        match within(client.list(ListNamespacesRequest::default())).await {
            Ok(list) => Ok(Some(list.namespaces.into_iter().map(|n| n.name).collect())),
            Err(status) if status.code() == Code::Unimplemented => Ok(None),
            Err(status) => Err(status),
        }
    }

    /// The containers of a namespace, one message for each: their specifications, which are
    /// discarded, are large.
    pub(super) async fn containers(&self, namespace: &str) -> Result<Vec<Container>, Status> {
        let mut client = ContainersClient::new(self.0.clone());
        let request = in_namespace(namespace, ListContainersRequest::default());
        let listing = async {
            let mut stream = client.list_stream(request).await?.into_inner();
            let mut all = Vec::new();
            while let Some(message) = stream.message().await? {
                all.extend(message.container);
                if all.len() >= MAX_CONTAINERS {
                    break;
                }
            }
            Ok(Response::new(all))
        };
        within(listing).await
    }

    /// A container; `None` if it doesn't exist.
    pub(super) async fn container(
        &self,
        namespace: &str,
        id: &str,
    ) -> Result<Option<Container>, Status> {
        let mut client = ContainersClient::new(self.0.clone());
        let request = in_namespace(namespace, GetContainerRequest { id: id.to_owned() });
        Ok(found(within(client.get(request)).await)?.and_then(|response| response.container))
    }

    /// The first processes of a namespace's containers.
    pub(super) async fn tasks(&self, namespace: &str) -> Result<Vec<Process>, Status> {
        let mut client = TasksClient::new(self.0.clone());
        let request = in_namespace(namespace, ListTasksRequest::default());
        Ok(within(client.list(request)).await?.tasks)
    }

    /// The images of a namespace.
    pub(super) async fn images(&self, namespace: &str) -> Result<Vec<Image>, Status> {
        let mut client = ImagesClient::new(self.0.clone());
        let request = in_namespace(namespace, ListImagesRequest::default());
        Ok(within(client.list(request)).await?.images)
    }

    /// An image; `None` if it doesn't exist.
    pub(super) async fn image(&self, namespace: &str, name: &str) -> Result<Option<Image>, Status> {
        let mut client = ImagesClient::new(self.0.clone());
        let request = in_namespace(namespace, GetImageRequest { name: name.to_owned() });
        Ok(found(within(client.get(request)).await)?.and_then(|response| response.image))
    }

    /// A blob; `None` if it doesn't exist.
    pub(super) async fn blob(
        &self,
        namespace: &str,
        digest: &str,
    ) -> Result<Option<content::Info>, Status> {
        let mut client = ContentClient::new(self.0.clone());
        let request = in_namespace(namespace, InfoRequest { digest: digest.to_owned() });
        Ok(found(within(client.info(request)).await)?.and_then(|response| response.info))
    }

    /// The restart count of a container; `None` if the runtime has no CRI or not this container.
    pub(super) async fn restarts(&self, id: &str) -> Option<u32> {
        let filter = Some(ContainerFilter { id: id.to_owned() });
        let list = self.cri_containers(filter).await.ok()?;
        Some(list.into_iter().find(|c| c.id == id)?.metadata?.attempt)
    }

    /// The containers of the CRI.
    pub(super) async fn cri_containers(
        &self,
        filter: Option<ContainerFilter>,
    ) -> Result<Vec<cri::Container>, Status> {
        let mut client = RuntimeServiceClient::new(self.0.clone());
        let request = cri::ListContainersRequest { filter };
        Ok(within(client.list_containers(request)).await?.containers)
    }

    /// The pod sandboxes of the CRI.
    pub(super) async fn cri_sandboxes(&self) -> Result<Vec<cri::PodSandbox>, Status> {
        let mut client = RuntimeServiceClient::new(self.0.clone());
        Ok(within(client.list_pod_sandbox(ListPodSandboxRequest::default())).await?.items)
    }

    /// Start and end of a container of the CRI.
    pub(super) async fn cri_status(
        &self,
        id: &str,
    ) -> Result<Option<cri::ContainerStatus>, Status> {
        let mut client = RuntimeServiceClient::new(self.0.clone());
        let request = ContainerStatusRequest { container_id: id.to_owned() };
        Ok(found(within(client.container_status(request)).await)?
            .and_then(|response| response.status))
    }

    /// The runtime's name and version from the CRI.
    pub(super) async fn cri_version(&self) -> Result<String, Status> {
        let mut client = RuntimeServiceClient::new(self.0.clone());
        let version = within(client.version(VersionRequest::default())).await?;
        Ok(format!("{} {}", version.runtime_name, version.runtime_version))
    }
}

/// An error with its causes: the transport's own message is meaningless.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// When a blob arrived, and whether it came from a registry.
pub(super) fn arrival(blob: &content::Info) -> (u64, bool) {
    let pulled = blob.labels.keys().any(|k| k.starts_with("containerd.io/distribution.source."));
    (wall_ns(blob.created_at.as_ref()), pulled)
}
