//! Records of a request by their resource and scope.

use std::collections::HashMap;

use bytes::Bytes;

use crate::buffer::Pool;
use crate::proto_vec::ProtoVec;

/// Lists of records that are kept to be used again. Most requests have few origins.
const MAX_SPARE: usize = 4;

/// The records of one resource and scope.
struct Group {
    /// The encoded `Resource`, in its field.
    resource: Vec<u8>,
    /// The encoded `InstrumentationScope`, in its field.
    scope: Vec<u8>,
    /// The encoded records, each in its field.
    records: ProtoVec,
}

/// The records of a request, which has a list of `ResourceLogs`, `ResourceSpans` or
/// `ResourceMetrics`: their fields have the same numbers.
#[derive(Default)]
pub(super) struct Groups {
    groups: Vec<Group>,
    /// Lists of records of earlier requests, to be used again.
    spare: Vec<ProtoVec>,
    /// The buffers of requests, which come back once they are sent.
    pool: Pool,
    by_origin: HashMap<Vec<u8>, usize, ahash::RandomState>,
    /// Resource and scope of the record being added.
    origin: ProtoVec,
    records: u32,
    len_bytes: usize,
}

impl Groups {
    /// Adds a record. `resource` and `scope` write its origin, `record` the record.
    pub(super) fn add(
        &mut self,
        resource: impl FnOnce(&mut ProtoVec),
        scope: impl FnOnce(&mut ProtoVec),
        record: impl FnOnce(&mut ProtoVec),
    ) {
        self.add_all(resource, scope, 1, |out| out.message(2, record));
    }

    /// Adds so many records of one origin. `records` writes them, each as field 2.
    pub(super) fn add_all(
        &mut self,
        resource: impl FnOnce(&mut ProtoVec),
        scope: impl FnOnce(&mut ProtoVec),
        number: u32,
        records: impl FnOnce(&mut ProtoVec),
    ) {
        self.origin.0.clear();
        self.origin.message(1, resource);
        let resource_bytes = self.origin.0.len();
        self.origin.message(1, scope);
        let origin = &self.origin.0[..];
        let at = match self.by_origin.get(origin) {
            Some(at) => *at,
            None => {
                let (resource, scope) = origin.split_at(resource_bytes);
                self.len_bytes += origin.len() + 16;
                self.groups.push(Group {
                    resource: resource.to_vec(),
                    scope: scope.to_vec(),
                    records: self.spare.pop().unwrap_or_default(),
                });
                self.by_origin.insert(origin.to_vec(), self.groups.len() - 1);
                self.groups.len() - 1
            }
        };
        let written = &mut self.groups[at].records;
        let before = written.0.len();
        records(written);
        self.len_bytes += written.0.len() - before;
        self.records += number;
    }

    pub(super) fn records(&self) -> u32 {
        self.records
    }

    /// About the size of the request.
    pub(super) fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// The request, and the number of its records; empty afterwards. `None` if there are no
    /// records.
    pub(super) fn finish(&mut self) -> Option<(Bytes, u32)> {
        if self.records == 0 {
            return None;
        }
        let mut request = ProtoVec(self.pool.empty(self.len_bytes + 64));
        for mut group in self.groups.drain(..) {
            request.message(1, |out| {
                out.0.extend_from_slice(&group.resource);
                out.message(2, |out| {
                    out.0.extend_from_slice(&group.scope);
                    out.0.extend_from_slice(&group.records.0);
                });
            });
            if self.spare.len() < MAX_SPARE {
                group.records.0.clear();
                self.spare.push(group.records);
            }
        }
        self.by_origin.clear();
        self.len_bytes = 0;
        Some((self.pool.bytes(request.0), std::mem::take(&mut self.records)))
    }
}
