//! Changes the configuration of a running server.

use std::fmt::Debug;

use super::config::ServerConfig;
use crate::notify::{Placed, ReceiverConfig};

/// How a new configuration differs from the one in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigChanges {
    /// The values that take effect at once, as `key: old → new`.
    pub applied: Vec<String>,
    /// The keys whose values take effect at the next start.
    pub need_restart: Vec<&'static str>,
}

impl ConfigChanges {
    /// Compares two configurations. `old` gets the values that take effect at once.
    pub(super) fn apply(old: &mut ServerConfig, new: ServerConfig) -> Self {
        let ServerConfig {
            grpc_listen,
            http_listen,
            tls,
            token_file,
            readers,
            operators,
            hosts,
            allow_uids,
            insecure,
            data_dir,
            segment_bytes,
            retention_bytes,
            retention_age,
            durability,
            sync_interval,
            stories_kept,
            notify,
            cluster,
        } = new;
        let mut changes = Self::default();
        changes.applied("retention_bytes", &mut old.retention_bytes, retention_bytes);
        changes.applied("retention_age", &mut old.retention_age, retention_age);
        changes.applied("sync_interval", &mut old.sync_interval, sync_interval);
        changes.applied("stories_kept", &mut old.stories_kept, stories_kept);
        if old.notify != notify {
            // Without its values, some of which are secrets.
            let names = |receivers: &[Placed<ReceiverConfig>]| {
                receivers.iter().map(|one| one.value.name.clone()).collect::<Vec<_>>().join(", ")
            };
            changes.applied.push(format!(
                "notify: [{}] → [{}]",
                names(&old.notify),
                names(&notify)
            ));
            old.notify = notify;
        }
        changes.needs_restart("cluster", old.cluster != cluster);
        changes.needs_restart("grpc_listen", old.grpc_listen != grpc_listen);
        changes.needs_restart("http_listen", old.http_listen != http_listen);
        changes.needs_restart("tls", old.tls != tls);
        changes.needs_restart("token_file", old.token_file != token_file);
        changes.needs_restart("readers", old.readers != readers);
        changes.needs_restart("operators", old.operators != operators);
        changes.needs_restart("hosts", old.hosts != hosts);
        changes.needs_restart("allow_uids", old.allow_uids != allow_uids);
        changes.needs_restart("insecure", old.insecure != insecure);
        changes.needs_restart("data_dir", old.data_dir != data_dir);
        changes.needs_restart("segment_bytes", old.segment_bytes != segment_bytes);
        changes.needs_restart("durability", old.durability != durability);
        changes
    }

    fn applied<T: PartialEq + Debug>(&mut self, key: &str, old: &mut T, new: T) {
        if *old != new {
            self.applied.push(format!("{key}: {old:?} → {new:?}"));
            *old = new;
        }
    }

    fn needs_restart(&mut self, key: &'static str, is_changed: bool) {
        if is_changed {
            self.need_restart.push(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn changes_are_applied_or_need_a_restart() {
        let old = ServerConfig::default();
        let mut new = ServerConfig {
            retention_age: Duration::from_secs(5),
            stories_kept: 5,
            data_dir: "/elsewhere".into(),
            ..old.clone()
        };
        new.grpc_listen.set_port(1);
        let mut in_force = old.clone();
        let changes = ConfigChanges::apply(&mut in_force, new);
        assert_eq!(changes.applied, ["retention_age: 0ns → 5s", "stories_kept: 10000 → 5"]);
        assert_eq!(changes.need_restart, ["grpc_listen", "data_dir"]);
        let expected =
            ServerConfig { retention_age: Duration::from_secs(5), stories_kept: 5, ..old };
        assert_eq!(in_force, expected);
    }
}
