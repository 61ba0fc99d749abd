//! Lists in progress: the uids that each contained so far.

use std::collections::{HashMap, HashSet};

use super::messages::Resource;
use super::objects::Text;

#[derive(Default)]
pub(super) struct Lists(HashMap<Resource, HashSet<Text>>);

impl Lists {
    pub(super) fn begin(&mut self, resource: Resource) {
        self.0.insert(resource, HashSet::new());
    }

    pub(super) fn is_in_progress(&self, resource: Resource) -> bool {
        self.0.contains_key(&resource)
    }

    /// Records an object, if a list is in progress.
    pub(super) fn add(&mut self, resource: Resource, uid: &Text) {
        if let Some(listed) = self.0.get_mut(&resource) {
            listed.insert(uid.clone());
        }
    }

    /// Ends a list. Returns the uids that it contained.
    pub(super) fn end(&mut self, resource: Resource) -> HashSet<Text> {
        self.0.remove(&resource).unwrap_or_default()
    }
}
