//! Reload of the configuration (SIGHUP).

use super::log::Log;
use crate::runtime::{Config, SandboxState};
use crate::server::ServerHandle;

/// Applies the sections `log` and, where there is a server, `server`; logs how they differ from
/// those in force.
///
/// # Errors
/// An invalid value; nothing has changed then.
pub(super) fn reload(
    config: &Config,
    server: Option<&mut ServerHandle>,
    log: &mut Log,
    limits: Option<&SandboxState>,
) -> anyhow::Result<()> {
    for path in limits.map(|limits| limits.unreadable(config)).unwrap_or_default() {
        tracing::warn!(
            path = %path.display(),
            "configuration reloaded: the sandbox of this process allows no access to a path that \
             wasn't in the configuration at its start; restart tapio to use it"
        );
    }
    let level = log.set_level(&config.log)?;
    let changes = server.map(|server| server.reload(config.server())).transpose()?;
    let changes = changes.unwrap_or_default();
    let applied = changes.applied.iter().map(|change| format!("server.{change}"));
    let applied: Vec<String> = applied.chain(level).collect();
    let need_restart = changes.need_restart.iter().map(|key| format!("server.{key}"));
    let need_restart: Vec<String> = need_restart.chain(log.needs_restart(config)).collect();
    if applied.is_empty() {
        tracing::info!("configuration reloaded: no value changed that can be reloaded");
    } else {
        tracing::info!("configuration reloaded: {}", applied.join(", "));
    }
    if !need_restart.is_empty() {
        tracing::warn!(
            "configuration reloaded: changes of {} take effect at the next start",
            need_restart.join(", ")
        );
    }
    Ok(())
}
