//! Questions to containerd over its socket, each with a bound on the time its answer may take.

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
use super::observed::wall_ns;

const PATIENCE: Duration = Duration::from_secs(10);
/// Events that wait to be taken in; then the runtime waits.
const QUEUE: usize = 1024;
/// The most containers of a namespace that are listed.
const MAX_CONTAINERS: usize = 16_384;

/// What is listened to.
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

/// Waits for an answer within the bound.
async fn within<T>(answer: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Status> {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(answer) => answer.map(Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded("the runtime doesn't answer")),
    }
}

/// `None` where there is no such thing.
fn found<T>(answer: Result<T, Status>) -> Result<Option<T>, Status> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(status),
    }
}

/// A question about a namespace.
fn of<T>(namespace: &str, question: T) -> Request<T> {
    let mut request = Request::new(question);
    // A name that can't stand in a header can't be a namespace's.
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
        let channel = tokio::time::timeout(PATIENCE, endpoint.connect()).await;
        channel.map_err(|_| "no answer".to_owned())?.map(Self).map_err(|e| with_causes(&e))
    }

    /// Subscribes, in a task of its own: the runtime answers only with the first event.
    pub(super) fn subscribe(&self) -> mpsc::Receiver<Result<Envelope, Status>> {
        let (to, events) = mpsc::channel(QUEUE);
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
                let over = next.is_err();
                if to.send(next).await.is_err() || over {
                    return;
                }
            }
        });
        events
    }

    /// The namespaces there are; `None` where the runtime isn't containerd.
    pub(super) async fn namespaces(&self) -> Result<Option<Vec<String>>, Status> {
        let mut client = NamespacesClient::new(self.0.clone());
        match within(client.list(ListNamespacesRequest::default())).await {
            Ok(list) => Ok(Some(list.namespaces.into_iter().map(|n| n.name).collect())),
            Err(status) if status.code() == Code::Unimplemented => Ok(None),
            Err(status) => Err(status),
        }
    }

    /// The containers of a namespace, one message for each: their specifications, which aren't kept, are large.
    pub(super) async fn containers(&self, namespace: &str) -> Result<Vec<Container>, Status> {
        let mut client = ContainersClient::new(self.0.clone());
        let request = of(namespace, ListContainersRequest::default());
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

    /// A container.
    pub(super) async fn container(
        &self,
        namespace: &str,
        id: &str,
    ) -> Result<Option<Container>, Status> {
        let mut client = ContainersClient::new(self.0.clone());
        let request = of(namespace, GetContainerRequest { id: id.to_owned() });
        Ok(found(within(client.get(request)).await)?.and_then(|answer| answer.container))
    }

    /// The first processes of a namespace's containers.
    pub(super) async fn tasks(&self, namespace: &str) -> Result<Vec<Process>, Status> {
        let mut client = TasksClient::new(self.0.clone());
        let request = of(namespace, ListTasksRequest::default());
        Ok(within(client.list(request)).await?.tasks)
    }

    /// The images of a namespace.
    pub(super) async fn images(&self, namespace: &str) -> Result<Vec<Image>, Status> {
        let mut client = ImagesClient::new(self.0.clone());
        let request = of(namespace, ListImagesRequest::default());
        Ok(within(client.list(request)).await?.images)
    }

    /// An image.
    pub(super) async fn image(&self, namespace: &str, name: &str) -> Result<Option<Image>, Status> {
        let mut client = ImagesClient::new(self.0.clone());
        let request = of(namespace, GetImageRequest { name: name.to_owned() });
        Ok(found(within(client.get(request)).await)?.and_then(|answer| answer.image))
    }

    /// A blob.
    pub(super) async fn blob(
        &self,
        namespace: &str,
        digest: &str,
    ) -> Result<Option<content::Info>, Status> {
        let mut client = ContentClient::new(self.0.clone());
        let request = of(namespace, InfoRequest { digest: digest.to_owned() });
        Ok(found(within(client.info(request)).await)?.and_then(|answer| answer.info))
    }

    /// How often the kubelet has restarted a container, where the runtime has a CRI and knows it.
    pub(super) async fn restarts(&self, id: &str) -> Option<u32> {
        let filter = Some(ContainerFilter { id: id.to_owned() });
        let list = self.cri_containers(filter).await.ok()?;
        Some(list.into_iter().find(|c| c.id == id)?.metadata?.attempt)
    }

    /// Containers, as the CRI tells of them.
    pub(super) async fn cri_containers(
        &self,
        filter: Option<ContainerFilter>,
    ) -> Result<Vec<cri::Container>, Status> {
        let mut client = RuntimeServiceClient::new(self.0.clone());
        let request = cri::ListContainersRequest { filter };
        Ok(within(client.list_containers(request)).await?.containers)
    }

    /// Pods' sandboxes, as the CRI tells of them.
    pub(super) async fn cri_sandboxes(&self) -> Result<Vec<cri::PodSandbox>, Status> {
        let mut client = RuntimeServiceClient::new(self.0.clone());
        Ok(within(client.list_pod_sandbox(ListPodSandboxRequest::default())).await?.items)
    }

    /// How a container began and ended, as the CRI tells of it.
    pub(super) async fn cri_status(
        &self,
        id: &str,
    ) -> Result<Option<cri::ContainerStatus>, Status> {
        let mut client = RuntimeServiceClient::new(self.0.clone());
        let request = ContainerStatusRequest { container_id: id.to_owned() };
        Ok(found(within(client.container_status(request)).await)?.and_then(|answer| answer.status))
    }

    /// The runtime's name and version, as the CRI tells them.
    pub(super) async fn cri_version(&self) -> Result<String, Status> {
        let mut client = RuntimeServiceClient::new(self.0.clone());
        let version = within(client.version(VersionRequest::default())).await?;
        Ok(format!("{} {}", version.runtime_name, version.runtime_version))
    }
}

/// An error with what caused it: the transport's own words say nothing.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// When a blob came, and whether it came from a registry.
pub(super) fn arrival(blob: &content::Info) -> (u64, bool) {
    let pulled = blob.labels.keys().any(|k| k.starts_with("containerd.io/distribution.source."));
    (wall_ns(blob.created_at.as_ref()), pulled)
}
