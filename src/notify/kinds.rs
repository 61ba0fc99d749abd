//! The kinds of receivers: a row for each.

use std::sync::Arc;

use super::alertmanager::Alertmanager;
use super::config::ReceiverConfig;
use super::receiver::Receiver;
use super::slack::Slack;
use super::webhook::Webhook;

/// Makes a receiver of the kind that a configuration has; `None` for another kind.
type Make = fn(&ReceiverConfig) -> Option<Result<Arc<dyn Receiver>, String>>;

/// Every kind.
const KINDS: &[Make] = &[
    |config| Some(Alertmanager::new(config.alertmanager.as_ref()?).map(|r| Arc::new(r) as _)),
    |config| Some(Webhook::new(config.webhook.as_ref()?).map(|r| Arc::new(r) as _)),
    |config| Some(Slack::new(config.slack.as_ref()?).map(|r| Arc::new(r) as _)),
];

/// Makes a receiver. To be called inside a runtime of tokio.
///
/// # Errors
/// The key of an invalid value or of a file that can't be used, and the cause.
pub(super) fn receiver(config: &ReceiverConfig) -> Result<Arc<dyn Receiver>, String> {
    let (kind, _) = config.kind()?;
    let made = KINDS.iter().find_map(|make| make(config));
    made.unwrap_or_else(|| Err("no such kind".into())).map_err(|cause| format!("{kind}.{cause}"))
}
