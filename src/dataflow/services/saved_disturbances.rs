//! Open disturbances in bytes: after a restart they go on, or end, as the stories that they were.

use std::collections::BTreeSet;

use rkyv::rancor::Failure;
use rkyv::{Archive, Deserialize, Serialize};

use super::connections::PairKey;
use super::deviation::Feature;
use super::disturbance::Disturbance;
use super::evidence::Evidence;
use super::fact::{InstanceNames, Key};
use super::learner::Services;
use super::saved::{RestoreError, framed, payload};

/// Begins saved disturbances, with the version of their form.
const MAGIC: [u8; 8] = *b"tapio\0d\x01";

/// Disturbances with the names in their stories.
#[derive(Archive, Serialize, Deserialize)]
struct Saved {
    disturbances: Vec<Disturbance>,
    instances: Vec<(Key, InstanceNames)>,
    owners: Vec<(Key, InstanceNames)>,
    endpoints: Vec<(PairKey, Key)>,
    texts: Vec<(Key, Box<str>)>,
}

/// The keys of instances and texts that evidence mentions.
fn mentioned(all: &[Evidence]) -> (BTreeSet<Key>, BTreeSet<Key>) {
    let (mut instances, mut texts) = (BTreeSet::new(), BTreeSet::new());
    for Evidence { instance, operation, deviation, .. } in all {
        instances.insert(*instance);
        texts.insert(*operation);
        match deviation.feature {
            Feature::Logs(template) => _ = texts.insert(template),
            Feature::Calls(service, operation) => {
                instances.insert(service);
                texts.insert(operation);
            }
            feature => instances.extend(feature.callee()),
        }
    }
    (instances, texts)
}

impl Services {
    /// The open disturbances in bytes, also where there is none.
    pub(crate) fn save_disturbances(&self) -> Option<Vec<u8>> {
        let evidence = self.disturbances.iter().flat_map(Disturbance::all_evidence);
        let (mut instances, texts) = mentioned(&evidence.collect::<Vec<_>>());
        let names = &self.names;
        let pairs = names.endpoints.iter();
        let endpoints: Vec<(PairKey, Key)> = pairs
            .filter(|((caller, callee), _)| {
                instances.contains(caller) || instances.contains(callee)
            })
            .map(|(pair, at)| (*pair, *at))
            .collect();
        instances.extend(endpoints.iter().map(|(_, at)| *at));
        let saved = Saved {
            disturbances: self.disturbances.clone(),
            instances: named(&names.instances, &instances),
            owners: named(&names.owners, &instances),
            endpoints,
            texts: named(&names.texts, &texts),
        };
        Some(framed(MAGIC, &rkyv::to_bytes::<Failure>(&saved).ok()?))
    }

    /// Restores open disturbances, after what is usual; returns their number.
    ///
    /// # Errors
    /// Why the bytes can't be used; nothing has changed then.
    pub(crate) fn restore_disturbances(&mut self, bytes: &[u8]) -> Result<usize, RestoreError> {
        let payload = payload(MAGIC, bytes)?;
        let saved: Saved =
            rkyv::from_bytes::<Saved, Failure>(&payload).map_err(|_| RestoreError::Damaged)?;
        self.names.instances.extend(saved.instances);
        self.names.owners.extend(saved.owners);
        self.names.endpoints.extend(saved.endpoints);
        self.names.texts.extend(saved.texts);
        self.disturbances = saved.disturbances;
        Ok(self.disturbances.len())
    }
}

/// The entries with these keys.
fn named<T: Clone>(all: &std::collections::HashMap<Key, T>, keys: &BTreeSet<Key>) -> Vec<(Key, T)> {
    keys.iter().filter_map(|key| Some((*key, all.get(key)?.clone()))).collect()
}
