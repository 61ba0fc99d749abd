//! Reload of the configuration (SIGHUP).

use super::log::Log;
use crate::runtime::{Agent, Change, Config, SandboxState};
use crate::server::ServerHandle;

/// The parts of the process that take new values.
pub(super) struct Reloading<'a> {
    /// The configuration as its file has it now.
    pub(super) new: anyhow::Result<Config>,
    /// The values in force.
    pub(super) in_force: &'a mut Config,
    pub(super) log: &'a Log,
    pub(super) limits: Option<&'a SandboxState>,
}

/// Applies the values of a configuration that a reload takes; logs how it differs from the one in
/// force.
pub(super) fn reload_agent(reloading: Reloading<'_>, agent: &mut Agent) {
    let in_force = reloading.in_force.clone();
    reload(reloading, |config| {
        if let Some(server) = agent.server_mut() {
            server.reload(config.server())?;
        }
        Ok(agent.reload(&in_force, config))
    });
}

/// As [`reload_agent`], in a server.
pub(super) fn reload_server(reloading: Reloading<'_>, server: &mut ServerHandle) {
    reload(reloading, |config| {
        server.reload(config.server())?;
        Ok(Vec::new())
    });
}

/// `apply` returns the keys of values that it can't take.
fn reload(
    reloading: Reloading<'_>,
    apply: impl FnOnce(&mut Config) -> anyhow::Result<Vec<&'static str>>,
) {
    let Reloading { new, in_force, log, limits } = reloading;
    let reloaded = new.and_then(|new| {
        let changes = in_force.changes(&new);
        log.reload(&new.log)?;
        let mut applied = in_force.clone();
        applied.take_reloaded(&new);
        let refused = apply(&mut applied)?;
        warn_of_paths(&new, limits);
        *in_force = applied;
        Ok((changes, refused))
    });
    match reloaded {
        Ok((changes, refused)) => report(&changes, &refused),
        Err(e) => {
            tracing::error!("configuration reload refused, keeping the one in force: {e:#}");
        }
    }
}

fn warn_of_paths(config: &Config, limits: Option<&SandboxState>) {
    for path in limits.map(|limits| limits.unreadable(config)).unwrap_or_default() {
        tracing::warn!(
            path = %path.display(),
            "configuration reloaded: the sandbox of this process allows no access to a path that \
             wasn't in the configuration at its start; restart tapio to use it"
        );
    }
}

fn report(changes: &[Change], refused: &[&str]) {
    let is_applied = |c: &&Change| c.is_reloaded && !refused.contains(&c.path.as_str());
    let applied: Vec<String> = changes.iter().filter(is_applied).map(Change::to_string).collect();
    let left: Vec<&str> =
        changes.iter().filter(|c| !is_applied(c)).map(|c| c.path.as_str()).collect();
    if applied.is_empty() {
        tracing::info!("configuration reloaded: no value changed that can be reloaded");
    } else {
        tracing::info!("configuration reloaded: {}", applied.join(", "));
    }
    if !left.is_empty() {
        tracing::warn!(
            "configuration reloaded: changes of {} take effect at the next start",
            left.join(", ")
        );
    }
}
