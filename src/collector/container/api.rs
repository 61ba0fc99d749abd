//! The types and clients generated from `proto/containerd/` and `proto/cri.proto`.

#![allow(missing_docs, clippy::all, clippy::unwrap_used, clippy::panic, unreachable_pub, dead_code)]

pub(super) mod events {
    tonic::include_proto!("containerd.services.events.v1");
}
pub(super) mod payloads {
    tonic::include_proto!("containerd.events");
}
pub(super) mod containers {
    tonic::include_proto!("containerd.services.containers.v1");
}
pub(super) mod tasks {
    tonic::include_proto!("containerd.services.tasks.v1");
}
pub(super) mod namespaces {
    tonic::include_proto!("containerd.services.namespaces.v1");
}
pub(super) mod images {
    tonic::include_proto!("containerd.services.images.v1");
}
pub(super) mod content {
    tonic::include_proto!("containerd.services.content.v1");
}
pub(super) mod cri {
    tonic::include_proto!("runtime.v1");
}
