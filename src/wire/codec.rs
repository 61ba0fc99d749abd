//! gRPC codec for services that decode requests themselves: it passes the bytes of a request
//! through and encodes responses with prost.

use std::marker::PhantomData;

use bytes::{Buf as _, Bytes};
use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Codec with undecoded requests and responses of type `A`.
#[derive(Clone, Copy, Debug)]
pub struct RawCodec<A>(PhantomData<fn(A)>);

impl<A> Default for RawCodec<A> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<A: Message + 'static> Codec for RawCodec<A> {
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

impl<A: Message + 'static> Encoder for RawCodec<A> {
    type Item = A;
    type Error = Status;

    fn encode(&mut self, response: A, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        response.encode(to).map_err(|e| Status::internal(format!("can't encode the response: {e}")))
    }
}

impl<A> Decoder for RawCodec<A> {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        // Splits the stream's buffer; nothing is copied.
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
