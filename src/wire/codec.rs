//! The gRPC codec of services that read their requests themselves: a request's bytes come out as they came, an answer goes
//! in as prost writes it.

use std::marker::PhantomData;

use bytes::{Buf as _, Bytes};
use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Requests undecoded, answers of this type.
#[derive(Clone, Copy, Debug)]
pub struct Undecoded<A>(PhantomData<fn(A)>);

impl<A> Default for Undecoded<A> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<A: Message + 'static> Codec for Undecoded<A> {
    type Encode = A;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self::default()
    }

    fn decoder(&mut self) -> Self {
        Self::default()
    }
}

impl<A: Message + 'static> Encoder for Undecoded<A> {
    type Item = A;
    type Error = Status;

    fn encode(&mut self, answer: A, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        answer.encode(to).map_err(|e| Status::internal(format!("the answer: {e}")))
    }
}

impl<A> Decoder for Undecoded<A> {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        // Splits the stream's buffer; nothing is copied.
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
