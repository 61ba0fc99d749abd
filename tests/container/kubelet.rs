//! The requests of a kubelet to run a pod, over the CRI: the required fields of the messages, with
//! the interface's field numbers (k8s.io/cri-api, runtime/v1).

use std::collections::HashMap;
use std::path::Path;

use prost::Message;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use crate::runtime::IMAGE;
use crate::support::eventually::eventually_ok;

#[derive(Clone, PartialEq, Message)]
struct PodMetadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    namespace: String,
    #[prost(uint32, tag = "4")]
    attempt: u32,
}

#[derive(Clone, PartialEq, Message)]
struct NamespaceOptions {
    /// 2: the node's network, which needs no CNI.
    #[prost(int32, tag = "1")]
    network: i32,
}

#[derive(Clone, PartialEq, Message)]
struct SandboxSecurity {
    #[prost(message, optional, tag = "1")]
    namespaces: Option<NamespaceOptions>,
}

#[derive(Clone, PartialEq, Message)]
struct LinuxSandbox {
    #[prost(message, optional, tag = "2")]
    security: Option<SandboxSecurity>,
}

#[derive(Clone, PartialEq, Message)]
struct SandboxConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<PodMetadata>,
    #[prost(map = "string, string", tag = "6")]
    labels: HashMap<String, String>,
    #[prost(message, optional, tag = "8")]
    linux: Option<LinuxSandbox>,
}

#[derive(Clone, PartialEq, Message)]
struct RunSandbox {
    #[prost(message, optional, tag = "1")]
    config: Option<SandboxConfig>,
}

/// An answer, or a question, that is one id.
#[derive(Clone, PartialEq, Message)]
struct Id {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerMetadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint32, tag = "2")]
    attempt: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Image {
    #[prost(string, tag = "1")]
    image: String,
}

#[derive(Clone, PartialEq, Message)]
struct Resources {
    #[prost(int64, tag = "4")]
    memory_limit_bytes: i64,
}

#[derive(Clone, PartialEq, Message)]
struct LinuxContainer {
    #[prost(message, optional, tag = "1")]
    resources: Option<Resources>,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ContainerMetadata>,
    #[prost(message, optional, tag = "2")]
    image: Option<Image>,
    #[prost(string, repeated, tag = "3")]
    command: Vec<String>,
    #[prost(map = "string, string", tag = "9")]
    labels: HashMap<String, String>,
    #[prost(message, optional, tag = "15")]
    linux: Option<LinuxContainer>,
}

#[derive(Clone, PartialEq, Message)]
struct CreateContainer {
    #[prost(string, tag = "1")]
    sandbox: String,
    #[prost(message, optional, tag = "2")]
    config: Option<ContainerConfig>,
    #[prost(message, optional, tag = "3")]
    sandbox_config: Option<SandboxConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct Empty {}

/// A client of the CRI that runs pods.
pub(crate) struct Kubelet {
    runtime: tokio::runtime::Runtime,
    grpc: Grpc<Channel>,
}

/// A pod with a running sandbox.
pub(crate) struct Pod {
    config: SandboxConfig,
    pub(crate) sandbox: String,
}

impl Kubelet {
    pub(crate) fn new(socket: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).unwrap();
        let grpc = Grpc::new(runtime.block_on(endpoint.connect()).unwrap());
        Self { runtime, grpc }
    }

    fn request<Q, R>(&mut self, method: &str, message: Q) -> R
    where
        Q: Message + Send + Sync + 'static,
        R: Message + Default + Send + Sync + 'static,
    {
        self.try_request(method, message).unwrap()
    }

    fn try_request<Q, R>(&mut self, method: &str, message: Q) -> Result<R, String>
    where
        Q: Message + Send + Sync + 'static,
        R: Message + Default + Send + Sync + 'static,
    {
        let path = format!("/runtime.v1.RuntimeService/{method}");
        let path = PathAndQuery::try_from(path).unwrap();
        let response = self.runtime.block_on(async {
            self.grpc.ready().await.unwrap();
            let codec: ProstCodec<Q, R> = ProstCodec::default();
            self.grpc.unary(tonic::Request::new(message), path, codec).await
        });
        response.map(tonic::Response::into_inner).map_err(|e| format!("{method}: {e}"))
    }

    /// RunPodSandbox, with the labels that a kubelet sets.
    pub(crate) fn pod(&mut self, name: &str, uid: &str) -> Pod {
        let labels = [("name", name), ("namespace", "shop"), ("uid", uid)];
        let network = SandboxSecurity { namespaces: Some(NamespaceOptions { network: 2 }) };
        let config = SandboxConfig {
            metadata: Some(PodMetadata {
                name: name.into(),
                uid: uid.into(),
                namespace: "shop".into(),
                attempt: 0,
            }),
            labels: labels.map(|(k, v)| (format!("io.kubernetes.pod.{k}"), v.into())).into(),
            linux: Some(LinuxSandbox { security: Some(network) }),
        };
        let message = RunSandbox { config: Some(config.clone()) };
        let sandbox: Id = self.request("RunPodSandbox", message);
        Pod { config, sandbox: sandbox.id }
    }

    /// CreateContainer and StartContainer.
    pub(crate) fn container(
        &mut self,
        pod: &Pod,
        attempt: u32,
        memory: i64,
        script: &str,
    ) -> String {
        let mut labels = pod.config.labels.clone();
        labels.insert("io.kubernetes.container.name".into(), "app".into());
        let resources = Some(Resources { memory_limit_bytes: memory });
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: "app".into(), attempt }),
            image: Some(Image { image: IMAGE.into() }),
            command: vec!["/bin/sh".into(), "-c".into(), script.into()],
            labels,
            linux: Some(LinuxContainer { resources }),
        };
        let message = CreateContainer {
            sandbox: pod.sandbox.clone(),
            config: Some(config),
            sandbox_config: Some(pod.config.clone()),
        };
        let container: Id = self.request("CreateContainer", message);
        let _: Empty = self.request("StartContainer", container.clone());
        container.id
    }

    pub(crate) fn remove_container(&mut self, id: &str) {
        let _: Empty = self.request("RemoveContainer", Id { id: id.into() });
    }

    pub(crate) fn remove(&mut self, pod: &Pod) {
        let id = Id { id: pod.sandbox.clone() };
        // Idempotent: a kubelet repeats it too, when a container's shim ends meanwhile.
        let _: Empty =
            eventually_ok("the pod stops", || self.try_request("StopPodSandbox", id.clone()));
        let _: Empty = self.request("RemovePodSandbox", id);
    }
}
