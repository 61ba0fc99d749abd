//! The `tapio.v1` protocol over gRPC, and decoding of OTLP. Events are encoded and decoded by hand.
//!
//! | file | purpose |
//! | --- | --- |
//! | `proto.rs` | types generated from `proto/tapio/v1/tapio.proto`: queries, acks, stories |
//! | `encode.rs` | [`BatchEncoder`]: records from a ring → the bytes of an `EventBatch` |
//! | `buffer.rs` | the encoder's buffers, reused when a batch is acknowledged |
//! | `reader.rs` | bounds-checked protobuf reader |
//! | `raw_event.rs` | [`RawEvent`]: parts of an event without decoding it |
//! | `raw_log_block.rs` | [`RawLogBlock`]: the parts of a block of log records |
//! | `decode.rs` | [`Batch`]: the bytes of an `EventBatch` → borrowed events |
//! | `log_block/` | log records that pass as they came, and the events in them |
//! | `proto_vec.rs` | protobuf into a growing buffer, OTLP's attributes and their values |
//! | `story.rs` | stories to and from protobuf |
//! | `incident.rs` | incidents to protobuf |
//! | `json.rs` | decoded items as JSON |
//! | `agent.rs` | agents as JSON |
//! | `sequence_tracker.rs` | [`SequenceTracker`]: deduplication by sequence number |
//! | `codec.rs` | [`RawCodec`]: gRPC codec with undecoded requests |
//! | `service.rs` | server side of the `Ingest` service |
//! | `tls/` | [`TlsServerConfig`], [`TlsClientConfig`]: TLS, with certificates that are reloaded |
//! | `access/` | [`Access`]: who may use a listener, and for what |
//! | `door/` | [`DoorLayer`]: bounds on what the clients of a listener send |
//! | `dialer.rs` | [`Dialer`]: connections of gRPC clients |
//! | `first_answer.rs` | the first bytes of a server: in time, and of HTTP/2 |
//! | `http_client.rs` | [`HttpClient`]: requests to the admin pages |
//! | `client.rs` | [`IngestClient`]: client side of the `Ingest` service |
//! | `secret_file.rs` | [`SecretFile`]: a secret in a file, read again when it changes |
//! | `http_post.rs` | [`HttpPoster`]: JSON to web hooks |
//! | `signature.rs` | signatures of web hooks |
//! | `retry_info.rs` | statuses of gRPC with the delay that a server asks for |
//! | `otlp.rs`, `otlp/` | OTLP export requests → borrowed records |
//! | `otlp_raw.rs` | [`OtlpRawLog`]: log records of a request, undecoded |
//! | `otlp_json.rs`, `otlp_schema.rs` | OTLP in JSON → protobuf |
//! | `otlp_response.rs` | [`OtlpResponse`]: the response to an export request |
//! | `otlp_client/` | [`OtlpClient`]: client of an OTLP receiver |
//! | `otlp_out/` | [`OtlpEncoder`]: batches → OTLP export requests |
//!
//! A batch is one protobuf message: head (`first_sequence`, `count`, `node`, `epoch`), then the
//! items in order, then the names they refer to. The names come last because they are known last:
//! the encoder writes a batch front to back, once, into one buffer, and it leaves as one frame. A
//! decoder first skips the items to read the names, which takes a few nanoseconds per event. It
//! accepts the fields in any other order too.

mod access;
mod agent;
mod buffer;
mod client;
mod codec;
mod decode;
mod dialer;
mod door;
mod encode;
mod first_answer;
mod http_client;
mod http_post;
mod incident;
mod json;
mod log_block;
mod otlp;
mod otlp_client;
mod otlp_json;
mod otlp_out;
mod otlp_raw;
mod otlp_response;
mod otlp_schema;
pub mod proto;
mod proto_vec;
mod raw_event;
mod raw_log_block;
mod reader;
mod retry_info;
mod secret_file;
mod sequence_tracker;
mod service;
mod signature;
mod story;
mod tls;

pub use access::{
    Access, AccessConfig, AccessCounts, AccessLayer, Caller, Denied, HandshakeFailure, Identity,
    ListenAddress, Listening, PeerInfo, Refused, Right, Rights, WatchedBody, bind,
};
pub use agent::agent_json;
pub use client::{ConnectError, IngestClient, IngestClientConfig, SendError, StreamEnd};
pub use codec::RawCodec;
pub use decode::{Batch, BatchHead, Decoded, EventDecoder, Item, MAX_BATCH_BYTES, MAX_NODE_BYTES};
pub use dialer::{AuthorizedChannel, ClientAccess, DialError, Dialer};
pub use door::{BoundedBody, DoorLayer, DoorListener, DoorStream};
pub use encode::{
    Appended, BatchEncoder, EncodedBatch, GRPC_PREFIX_BYTES, grpc_framed, grpc_framed_zstd,
};
pub use http_client::HttpClient;
pub use http_post::{HttpPostConfig, HttpPoster, PostFailure};
pub use incident::incident_to_proto;
pub use json::{
    annotated_json, annotation_entry_json, annotations_json, batch_json, decoded_json, silence_json,
};
pub use log_block::{expanded, log_id, log_ids};
pub use otlp::{
    OtlpAttributes, OtlpMetricType, OtlpNested, OtlpPart, OtlpParts, OtlpPoint, OtlpRecord,
    OtlpScope, OtlpSignal, OtlpValue, otlp_logs, otlp_points, otlp_spans,
};
pub use otlp_client::{
    OtlpClient, OtlpClientConfig, OtlpCompression, OtlpExported, OtlpFailure, OtlpProtocol,
};
pub use otlp_json::otlp_from_json;
pub use otlp_out::{Encoded, OtlpEncoder, OtlpRequest, OtlpSelection, OtlpService};
pub use otlp_raw::{OtlpLogOutline, OtlpLogPart, OtlpRawLog, OtlpRawLogs, otlp_raw_logs};
pub use otlp_response::OtlpResponse;
pub use raw_event::{EventKeys, RawEvent, RoleInStory, kernel_time};
pub use raw_log_block::RawLogBlock;
pub use reader::{WireCause, WireError};
pub use retry_info::RpcStatus;
pub use secret_file::SecretFile;
pub use sequence_tracker::{Jump, SequenceCheck, SequenceSet, SequenceTracker, StreamItems};
pub use service::{
    AckStream, BatchHandler, GrpcServer, IngestHandler, IngestServer, MAX_STATUS_BYTES, grpc_server,
};
pub use signature::{webhook_key, webhook_signature};
pub use story::{linked_from_proto, linked_to_proto, story_from_proto, story_to_proto};
pub use tls::{ClientTls, ServerTls, TlsClientConfig, TlsError, TlsServerConfig};
