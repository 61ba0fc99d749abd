//! An export request, encoded.

use bytes::Bytes;

use crate::otlp::OtlpSignal;
use crate::proto_vec::ProtoVec;
use crate::reader::{LEN, Reader, WireError};

/// An export request.
#[derive(Clone, Debug)]
pub struct OtlpRequest {
    /// Its signal.
    pub signal: OtlpSignal,
    /// The encoded `Export…ServiceRequest`.
    pub bytes: Bytes,
    /// Log records, spans or data points in it.
    pub records: u32,
}

impl OtlpRequest {
    /// The request as two with half of the records each, for a receiver to which it is too large;
    /// `None` for a single record.
    #[must_use]
    pub fn halves(&self) -> Option<[Self; 2]> {
        let first = self.records / 2;
        if first == 0 {
            return None;
        }
        let part = |records: std::ops::Range<u32>| {
            let bytes = part(&self.bytes, &records).ok()?;
            Some(Self { signal: self.signal, bytes: bytes.into(), records: records.len() as u32 })
        };
        Some([part(0..first)?, part(first..self.records)?])
    }
}

/// The request with these records only. The three requests have the same shape: a list of resources
/// (1) with lists of scopes (2) with lists of records (2).
fn part(request: &[u8], records: &std::ops::Range<u32>) -> Result<Vec<u8>, WireError> {
    let mut out = ProtoVec(Vec::with_capacity(request.len() / 2));
    let mut at = 0;
    each_field(Reader::new(request), |number, resource| {
        let (mut copy, mut has_records) = (ProtoVec::default(), false);
        each_field(Reader::new(resource), |number, scope| {
            if number != 2 {
                copy.delimited(number, scope);
                return Ok(());
            }
            let (mut scope_copy, mut taken) = (ProtoVec::default(), false);
            each_field(Reader::new(scope), |number, field| {
                let is_record = number == 2;
                let is_taken = !is_record || records.contains(&at);
                at += u32::from(is_record);
                taken |= is_record && is_taken;
                if is_taken {
                    scope_copy.delimited(number, field);
                }
                Ok(())
            })?;
            if taken {
                has_records = true;
                copy.delimited(2, &scope_copy.0);
            }
            Ok(())
        })?;
        if has_records {
            out.delimited(number, &copy.0);
        }
        Ok(())
    })?;
    Ok(out.0)
}

/// Visits the fields of a message that has only messages and texts.
fn each_field<'a>(
    mut message: Reader<'a>,
    mut visit: impl FnMut(u32, &'a [u8]) -> Result<(), WireError>,
) -> Result<(), WireError> {
    while !message.is_empty() {
        match message.tag()? {
            (number, LEN) => visit(number, message.delimited()?)?,
            (_, wire_type) => message.skip(wire_type)?,
        }
    }
    Ok(())
}
