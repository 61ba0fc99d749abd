//! The wire: `tapio.v1` over gRPC, encoded and decoded by hand where it matters.
//!
//! | file | purpose |
//! | --- | --- |
//! | `proto.rs` | types generated from `proto/tapio/v1/tapio.proto`, for what is rare: queries, acks, stories |
//! | `encode.rs` | [`BatchEncoder`]: records from a ring → the bytes of an `EventBatch` |
//! | `buffer.rs` | the encoder's buffers, which come back when a batch is acknowledged |
//! | `reader.rs` | bounds-checked reading of protobuf fields |
//! | `decode.rs` | [`Batch`]: the bytes of an `EventBatch` → events, borrowed |
//! | `story.rs` | stories to and from their protobuf form |
//! | `json.rs` | what was decoded, as JSON |
//! | `settled.rs` | [`Settled`]: which items were seen, so that each is stored once |
//! | `codec.rs` | [`Undecoded`]: requests as the bytes they came in |
//! | `service.rs` | the `Ingest` service over ready-made bytes |
//! | `withhold.rs` | taking events out of a batch that were stored before |
//! | `otlp.rs` | OTLP's export requests → records, borrowed |
//! | `line.rs` | [`Line`]: a client's stream to an `Ingest` service |
//!
//! A batch's bytes are one protobuf message: head (`first_sequence`, `count`, `node`, `epoch`),
//! then the items in the order in which they came, then the names they refer to. The names stand
//! last because they are known last: so a batch is written front to back, once, into one buffer,
//! and leaves as one frame. A decoder hops over the items to the names first, a few nanoseconds
//! per event; any other order of the fields decodes just as well.

mod buffer;
mod codec;
mod decode;
mod encode;
mod json;
mod line;
mod otlp;
pub mod proto;
mod reader;
mod service;
mod settled;
mod story;
mod withhold;

pub use codec::Undecoded;
pub use decode::{
    Batch, BatchHead, Decoded, EventDecoder, Item, MAX_BATCH_BYTES, RawEvent, kernel_time,
};
pub use encode::{Appended, BatchEncoder, EncodedBatch};
pub use json::{batch_json, decoded_json};
pub use line::{Line, LineConfig, LineError, NotSent};
pub use otlp::{OtlpAttributes, OtlpNested, OtlpRecord, OtlpSignal, OtlpValue, otlp_records};
pub use reader::{WireCause, WireError};
pub use service::{AckStream, IngestHandler, IngestServer, Intake, bind, grpc_server};
pub use settled::{Settled, SettledTable, Verdict};
pub use story::{linked_from_proto, linked_to_proto, story_from_proto, story_to_proto};
pub use withhold::withhold;
