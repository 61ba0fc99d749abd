//! The usual behaviour of services in bytes: it survives a restart.

use std::collections::BTreeMap;
use std::mem::take;

use rkyv::rancor::Failure;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

use super::connections::{PairKey, SavedConnections};
use super::duration::Durations;
use super::fact::{InstanceNames, Key, key_hasher};
use super::learner::Services;
use super::operation::Operation;
use super::step::AHEAD_STEPS;
use tapio_core::event::stable_hash;

/// Begins a saved state, with the version of its form.
const MAGIC: [u8; 8] = *b"tapio\0s\x04";
/// The magic, the check of the hash of keys, and the checksum of what follows.
const HEAD_BYTES: usize = 8 + 8 + 16;

/// The state. Disturbances that are open are saved as they change (`saved_disturbances.rs`); spans
/// that await their callees aren't.
#[derive(Archive, Serialize, Deserialize)]
struct Saved {
    instances: Vec<(Key, InstanceNames)>,
    texts: Vec<(Key, Box<str>)>,
    service_keys: Vec<(String, Key)>,
    operations: Vec<((Key, Key), Operation)>,
    calls: Vec<(Key, Vec<Key>)>,
    requests: Durations,
    owners: Vec<(Key, InstanceNames)>,
    endpoints: Vec<(PairKey, Key)>,
    connections: SavedConnections,
    next_step: u32,
}

/// A saved state can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RestoreError {
    /// Another version's.
    #[error("it is of another version")]
    Version,
    /// Its keys were hashed in another way: on another processor, or by another version.
    #[error("its keys are those of another processor or version")]
    Keys,
    /// Cut or changed.
    #[error("it is damaged")]
    Damaged,
}

/// A key for comparison: whether keys, which are hashes, are made as they were.
fn check() -> u64 {
    key_hasher().hash_one(("check", ""))
}

/// A payload with its head: `magic` names its form and version.
pub(super) fn framed(magic: [u8; 8], payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES + payload.len());
    bytes.extend_from_slice(&magic);
    bytes.extend_from_slice(&check().to_le_bytes());
    bytes.extend_from_slice(&stable_hash(&[payload]));
    bytes.extend_from_slice(payload);
    bytes
}

/// The payload of framed bytes, aligned for its archive.
///
/// # Errors
/// Why the bytes can't be used.
pub(super) fn payload(magic: [u8; 8], bytes: &[u8]) -> Result<AlignedVec, RestoreError> {
    let (head, payload) = bytes.split_at_checked(HEAD_BYTES).ok_or(RestoreError::Damaged)?;
    if head[..8] != magic {
        return Err(RestoreError::Version);
    }
    if head[8..16] != check().to_le_bytes() {
        return Err(RestoreError::Keys);
    }
    if head[16..] != stable_hash(&[payload]) {
        return Err(RestoreError::Damaged);
    }
    let mut aligned: AlignedVec = AlignedVec::with_capacity(payload.len());
    aligned.extend_from_slice(payload);
    Ok(aligned)
}

/// Entries in an order that isn't the map's: equal states are equal bytes.
fn in_order<T, K: Ord>(entries: impl IntoIterator<Item = T>, key: impl Fn(&T) -> K) -> Vec<T> {
    let mut entries: Vec<T> = entries.into_iter().collect();
    entries.sort_by_key(key);
    entries
}

impl Services {
    /// The state in bytes; `None` before anything was learned.
    pub(crate) fn save(&mut self) -> Option<Vec<u8>> {
        if self.operations.is_empty() {
            return None;
        }
        let saved = Saved {
            instances: in_order(take(&mut self.names.instances), |(key, _)| *key),
            texts: in_order(take(&mut self.names.texts), |(key, _)| *key),
            service_keys: in_order(take(&mut self.service_keys), |(_, key)| *key),
            operations: take(&mut self.operations).into_iter().collect(),
            calls: self
                .calls
                .iter()
                .map(|(of, all)| (*of, all.iter().copied().collect()))
                .collect(),
            requests: take(&mut self.requests),
            owners: in_order(take(&mut self.names.owners), |(key, _)| *key),
            endpoints: in_order(take(&mut self.names.endpoints), |(pair, _)| *pair),
            connections: self.connections.save(),
            next_step: self.next_step,
        };
        let payload = rkyv::to_bytes::<Failure>(&saved);
        self.names.instances = saved.instances.into_iter().collect();
        self.names.texts = saved.texts.into_iter().collect();
        self.service_keys = saved.service_keys.into_iter().collect();
        self.operations = saved.operations.into_iter().collect();
        self.requests = saved.requests;
        self.names.owners = saved.owners.into_iter().collect();
        self.names.endpoints = saved.endpoints.into_iter().collect();
        Some(framed(MAGIC, &payload.ok()?))
    }

    /// Restores a state, to be called before any fact is added. What was recent then is past now.
    ///
    /// # Errors
    /// Why the bytes aren't a state that can be used; nothing has changed then.
    pub(crate) fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let payload = payload(MAGIC, bytes)?;
        let saved: Saved =
            rkyv::from_bytes::<Saved, Failure>(&payload).map_err(|_| RestoreError::Damaged)?;
        let next = saved.next_step + AHEAD_STEPS;
        let mut operations: BTreeMap<_, _> = saved.operations.into_iter().collect();
        operations.values_mut().for_each(|operation| operation.learn_recent(next));
        self.names.instances = saved.instances.into_iter().collect();
        self.names.texts = saved.texts.into_iter().collect();
        self.service_keys = saved.service_keys.into_iter().collect();
        self.names.owners = saved.owners.into_iter().collect();
        self.names.endpoints = saved.endpoints.into_iter().collect();
        self.connections.restore(saved.connections);
        self.operations = operations;
        self.requests = saved.requests;
        self.requests.learn_recent(next);
        self.calls =
            saved.calls.into_iter().map(|(of, all)| (of, all.into_iter().collect())).collect();
        self.call_count = self.calls.values().map(std::collections::BTreeSet::len).sum();
        self.room = self.bounds.features.saturating_sub(self.features());
        Ok(())
    }
}
