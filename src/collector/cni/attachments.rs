//! Which container is attached to which network through which link, from the plugin's reports. The
//! table is bounded.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use crate::cni_report::Report;

/// Capacity of the table, ended attachments included.
const MAX_ATTACHMENTS: usize = 8192;

/// Identifies an attachment: a container's interface in a network, set up by one plugin.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    network: String,
    container_id: String,
    ifname: String,
    plugin: String,
}

/// Addresses and namespace of an attachment.
#[derive(Clone, Default)]
pub(super) struct Attachment {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) netns_inode: u64,
    host_interface: String,
    ended: bool,
}

/// The attachments; the oldest is evicted first.
#[derive(Default)]
pub(super) struct Attachments {
    table: HashMap<Key, Attachment>,
    order: VecDeque<Key>,
    /// Container and pod by the host end of the link.
    links: HashMap<String, (String, String)>,
}

impl Attachments {
    fn key(report: &Report) -> Key {
        Key {
            network: report.network.clone(),
            container_id: report.container_id.clone(),
            ifname: report.ifname.clone(),
            plugin: report.plugin.clone(),
        }
    }

    fn insert(&mut self, key: Key, attachment: Attachment) {
        if self.table.insert(key.clone(), attachment).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > MAX_ATTACHMENTS {
            if let Some(old) = self.order.pop_front().and_then(|key| self.table.remove(&key)) {
                self.links.remove(&old.host_interface);
            }
        }
    }

    /// Adds an attachment.
    pub(super) fn begin(&mut self, report: &Report) {
        if !report.host_interface.is_empty() {
            let owner = (report.container_id.clone(), report.pod.uid.clone());
            self.links.insert(report.host_interface.clone(), owner);
        }
        let attachment = Attachment {
            addresses: report.addresses.iter().filter_map(|a| a.parse().ok()).collect(),
            netns_inode: report.netns_inode,
            host_interface: report.host_interface.clone(),
            ended: false,
        };
        self.insert(Self::key(report), attachment);
    }

    /// Whether the attachment has ended already: runtimes repeat their calls.
    pub(super) fn has_ended(&self, report: &Report) -> bool {
        self.table.get(&Self::key(report)).is_some_and(|attachment| attachment.ended)
    }

    /// Ends an attachment. Returns its addresses and namespace.
    pub(super) fn end(&mut self, report: &Report) -> Attachment {
        let key = Self::key(report);
        let mut attachment = self.table.get(&key).cloned().unwrap_or_else(|| Attachment {
            addresses: report.addresses.iter().filter_map(|a| a.parse().ok()).collect(),
            netns_inode: report.netns_inode,
            ..Attachment::default()
        });
        attachment.ended = true;
        self.insert(key, attachment.clone());
        attachment
    }

    /// The container and pod of a link.
    pub(super) fn of_link(&self, host_interface: &str) -> Option<(&str, &str)> {
        self.links.get(host_interface).map(|(container, pod)| (&**container, &**pod))
    }

    /// Removes a link; its name may be reused for another pod.
    pub(super) fn forget_link(&mut self, host_interface: &str) {
        self.links.remove(host_interface);
    }

    /// Number of attachments that haven't ended.
    pub(super) fn len(&self) -> usize {
        self.table.values().filter(|a| !a.ended).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(container: &str) -> Report {
        Report {
            network: "podnet".into(),
            container_id: container.into(),
            host_interface: format!("veth{container}"),
            addresses: vec!["10.0.0.7".into(), "nonsense".into()],
            ..Report::default()
        }
    }

    #[test]
    fn attachment_ends_once_and_returns_its_addresses() {
        let mut all = Attachments::default();
        all.begin(&report("a"));
        assert_eq!(all.of_link("vetha"), Some(("a", "")));
        let bare = Report { addresses: vec![], ..report("a") };
        assert!(!all.has_ended(&bare));
        assert_eq!(all.end(&bare).addresses, [IpAddr::from([10, 0, 0, 7])]);
        assert!(all.has_ended(&bare));
        all.begin(&report("a"));
        assert!(!all.has_ended(&bare), "attached again");
        let unknown = report("unknown");
        assert!(!all.has_ended(&unknown), "its start was missed");
        assert_eq!(all.end(&unknown).addresses.len(), 1);
    }

    #[test]
    fn table_is_bounded() {
        let mut all = Attachments::default();
        for n in 0..MAX_ATTACHMENTS + 100 {
            all.begin(&report(&n.to_string()));
        }
        assert_eq!(
            (all.table.len(), all.order.len(), all.links.len()),
            (MAX_ATTACHMENTS, MAX_ATTACHMENTS, MAX_ATTACHMENTS)
        );
        assert_eq!(all.of_link("veth0"), None);
    }
}
