//! The types generated from `proto/tapio/v1/tapio.proto`.
//!
//! Ingest of events doesn't use them: the codec is written by hand.

#![expect(missing_docs, reason = "generated; the documentation is in the .proto file")]
#![allow(clippy::all, clippy::unwrap_used, clippy::panic)]

tonic::include_proto!("tapio.v1");

/// The description of the services and types, an encoded `FileDescriptorSet`.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("tapio.v1");
