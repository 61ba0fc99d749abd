//! The types generated from `proto/tapio/v1/tapio.proto`.
//!
//! Events never pass through these on their way from a collector to the store.

#![expect(missing_docs, reason = "generated; the documentation stands in the .proto file")]
#![allow(clippy::all, clippy::unwrap_used, clippy::panic)]

tonic::include_proto!("tapio.v1");
