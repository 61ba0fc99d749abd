//! The section `server.notify`: a list of receivers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::placed::{Place, Placed};
use super::secret_text::SecretText;
use tapio_dataflow::rules::StoryPredicateResult;
use tapio_wire::{HttpPostConfig, TlsClientConfig};

/// Most receivers: each reads the log.
const MAX_RECEIVERS: usize = 32;
/// Longest name of a receiver, characters: it is the value of a label.
const MAX_NAME_CHARS: usize = 64;
/// Longest window of a digest, and of a limit of requests.
const MAX_WINDOW: Duration = Duration::from_secs(24 * 3_600);
/// Where Slack's Web API is.
const SLACK_API: &str = "https://slack.com/api";

/// A receiver of notifications: one of `alertmanager`, `webhook` and `slack`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReceiverConfig {
    /// Its name in metrics and logs. A receiver of the same name goes on where the one of the last
    /// run ended.
    pub name: String,
    /// Alertmanager, by its API of version 2.
    #[serde(default)]
    pub alertmanager: Option<AlertmanagerConfig>,
    /// Any receiver of signed JSON.
    #[serde(default)]
    pub webhook: Option<WebhookConfig>,
    /// Slack, or what takes its messages.
    #[serde(default)]
    pub slack: Option<SlackConfig>,
    /// The stories to notify about, by their fields; by default all.
    #[serde(default)]
    #[schemars(with = "Option<BTreeMap<String, serde_json::Value>>")]
    pub when: Option<StoryPredicateResult>,
    /// Whether stories are notified about that belong to the incident of another one that was.
    #[serde(default)]
    pub related: bool,
    /// Requests within a time.
    #[serde(default)]
    pub rate_limit: RateLimit,
    /// New stories within a time, beyond which there is one notification about all of them.
    #[serde(default)]
    pub digest: DigestConfig,
    /// The least time between two updates about one story.
    #[serde(default = "update_interval", with = "tapio_core::durations")]
    #[schemars(with = "tapio_core::durations::DurationText")]
    pub update_interval: Duration,
    /// How long a notification is sent again and again, before it is a dead letter.
    #[serde(default = "retry_for", with = "tapio_core::durations")]
    #[schemars(with = "tapio_core::durations::DurationText")]
    pub retry_for: Duration,
    /// A link to the story for people, with `{id}` for its id and `{trace_id}` for its trace.
    #[serde(default)]
    pub link: String,
}

/// Alertmanager.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AlertmanagerConfig {
    /// Where it is: `http://host:9093`, without `/api/v2`.
    pub url: SecretText,
    /// The interval at which open stories are sent again.
    #[serde(default = "resend", with = "tapio_core::durations")]
    #[schemars(with = "tapio_core::durations::DurationText")]
    pub resend: Duration,
    /// TLS of a URL that is `https://`.
    #[serde(default)]
    pub tls: Option<TlsClientConfig>,
    /// The file of a token, sent as `Authorization: Bearer`.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// Headers of each request.
    #[serde(default)]
    pub headers: BTreeMap<String, SecretText>,
    /// Time limit of a request.
    #[serde(default = "timeout", with = "tapio_core::durations")]
    #[schemars(with = "tapio_core::durations::DurationText")]
    pub timeout: Duration,
    /// Whether a URL beyond this machine may be `http://`.
    #[serde(default)]
    pub insecure: bool,
}

/// A receiver of signed JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// Where it is.
    pub url: SecretText,
    /// The file of the key by which requests are signed.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
    /// TLS of a URL that is `https://`.
    #[serde(default)]
    pub tls: Option<TlsClientConfig>,
    /// The file of a token, sent as `Authorization: Bearer`.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// Headers of each request.
    #[serde(default)]
    pub headers: BTreeMap<String, SecretText>,
    /// Time limit of a request.
    #[serde(default = "timeout", with = "tapio_core::durations")]
    #[schemars(with = "tapio_core::durations::DurationText")]
    pub timeout: Duration,
    /// Whether a URL beyond this machine may be `http://`.
    #[serde(default)]
    pub insecure: bool,
}

/// Slack: an incoming webhook by `url`, or the Web API by `token_file` and `channel`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SlackConfig {
    /// The URL of an incoming webhook, a secret; with `token_file`, where the Web API is.
    #[serde(default)]
    pub url: Option<SecretText>,
    /// The file of the token for the Web API.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// The id of the channel, for the Web API.
    #[serde(default)]
    pub channel: String,
    /// TLS of a URL that is `https://`.
    #[serde(default)]
    pub tls: Option<TlsClientConfig>,
    /// Headers of each request.
    #[serde(default)]
    pub headers: BTreeMap<String, SecretText>,
    /// Time limit of a request.
    #[serde(default = "timeout", with = "tapio_core::durations")]
    #[schemars(with = "tapio_core::durations::DurationText")]
    pub timeout: Duration,
    /// Whether a URL beyond this machine may be `http://`.
    #[serde(default)]
    pub insecure: bool,
}

/// Requests within a time; further ones wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimit {
    /// Number of requests.
    pub requests: u32,
    /// The time.
    #[serde(with = "tapio_core::durations")]
    #[schemars(with = "tapio_core::durations::DurationText")]
    pub per: Duration,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self { requests: 60, per: Duration::from_secs(60) }
    }
}

/// New stories within a time, beyond which there is one notification about all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DigestConfig {
    /// Number of new stories; 0: there is no digest.
    pub stories: u32,
    /// The time.
    #[serde(with = "tapio_core::durations")]
    #[schemars(with = "tapio_core::durations::DurationText")]
    pub within: Duration,
}

impl Default for DigestConfig {
    fn default() -> Self {
        Self { stories: 20, within: Duration::from_secs(60) }
    }
}

fn update_interval() -> Duration {
    Duration::from_secs(30)
}

fn retry_for() -> Duration {
    Duration::from_secs(3_600)
}

fn resend() -> Duration {
    Duration::from_secs(60)
}

fn timeout() -> Duration {
    Duration::from_secs(10)
}

/// The client of a kind: all of them have these fields.
macro_rules! http_post {
    ($config:expr, $url:expr, $token_file:expr) => {
        HttpPostConfig {
            url: $url,
            tls: $config.tls.clone(),
            token_file: $token_file,
            headers: $config
                .headers
                .iter()
                .map(|(name, value)| (name.clone(), value.expose().to_owned()))
                .collect(),
            timeout: $config.timeout,
            insecure: $config.insecure,
        }
    };
}

impl AlertmanagerConfig {
    pub(super) fn http(&self) -> HttpPostConfig {
        http_post!(self, self.url.expose().to_owned(), self.token_file.clone())
    }
}

impl WebhookConfig {
    pub(super) fn http(&self) -> HttpPostConfig {
        http_post!(self, self.url.expose().to_owned(), self.token_file.clone())
    }
}

impl SlackConfig {
    /// Whether messages are sent by the Web API.
    pub(super) fn is_web_api(&self) -> bool {
        self.token_file.is_some()
    }

    pub(super) fn http(&self) -> HttpPostConfig {
        let url = self.url.as_ref().map_or(SLACK_API, SecretText::expose);
        http_post!(self, url.to_owned(), self.token_file.clone())
    }

    fn check(&self) -> Result<(), String> {
        match (self.is_web_api(), &self.url, self.channel.as_str()) {
            (false, None, _) => {
                Err("url: missing; or token_file and channel, for the Web API".into())
            }
            (true, _, "") => Err("channel: missing, with token_file".into()),
            (false, Some(_), channel) if !channel.is_empty() => {
                Err("channel: an incoming webhook has a channel of its own".into())
            }
            _ => Ok(()),
        }
    }
}

impl ReceiverConfig {
    /// The name of its kind, and its client.
    ///
    /// # Errors
    /// When there isn't exactly one kind.
    pub(super) fn kind(&self) -> Result<(&'static str, HttpPostConfig), String> {
        let kinds = [
            ("alertmanager", self.alertmanager.as_ref().map(AlertmanagerConfig::http)),
            ("webhook", self.webhook.as_ref().map(WebhookConfig::http)),
            ("slack", self.slack.as_ref().map(SlackConfig::http)),
        ];
        let mut configured = kinds.into_iter().filter_map(|(name, http)| Some((name, http?)));
        match (configured.next(), configured.next()) {
            (Some(kind), None) => Ok(kind),
            _ => Err("needs one of alertmanager, webhook, slack".into()),
        }
    }

    /// The texts of the configuration that may be secrets: addresses and headers.
    #[must_use]
    pub fn secrets(&self) -> Vec<&str> {
        let urls = [
            self.alertmanager.as_ref().map(|one| &one.url),
            self.webhook.as_ref().map(|one| &one.url),
            self.slack.as_ref().and_then(|one| one.url.as_ref()),
        ];
        let headers = [
            self.alertmanager.as_ref().map(|one| &one.headers),
            self.webhook.as_ref().map(|one| &one.headers),
            self.slack.as_ref().map(|one| &one.headers),
        ];
        let headers = headers.into_iter().flatten().flat_map(BTreeMap::values);
        urls.into_iter().flatten().chain(headers).map(SecretText::expose).collect()
    }

    /// Validates the values.
    ///
    /// # Errors
    /// The key of an invalid value within the receiver, and why it is invalid.
    fn check(&self) -> Result<(), String> {
        let chars = self.name.chars().count();
        if !(1..=MAX_NAME_CHARS).contains(&chars) || self.name.chars().any(char::is_control) {
            return Err(format!("name: must be 1 to {MAX_NAME_CHARS} characters"));
        }
        let (kind, http) = self.kind()?;
        if let Some(slack) = &self.slack {
            slack.check().map_err(|e| format!("slack.{e}"))?;
        }
        http.check().map_err(|e| format!("{kind}.{e}"))?;
        if let Some(alertmanager) = &self.alertmanager
            && !(Duration::from_millis(100)..=MAX_WINDOW).contains(&alertmanager.resend)
        {
            return Err("alertmanager.resend: must be from 100ms to 24h".into());
        }
        let window = |key: &str, window: Duration| match window {
            w if w.is_zero() || w > MAX_WINDOW => Err(format!("{key}: must be from 1ns to 24h")),
            _ => Ok(()),
        };
        window("rate_limit.per", self.rate_limit.per)?;
        window("digest.within", self.digest.within)?;
        if self.rate_limit.requests == 0 {
            return Err("rate_limit.requests: must be at least 1".into());
        }
        if !self.link.is_empty() && !self.link.starts_with("http") {
            return Err("link: must begin with http:// or https://".into());
        }
        Ok(())
    }
}

/// Validates receivers.
///
/// # Errors
/// The first mistake: its key, its cause, and the position of the receiver or of the mistake.
pub fn check_receivers(receivers: &[Placed<ReceiverConfig>]) -> Result<(), (Place, String)> {
    if receivers.len() > MAX_RECEIVERS {
        return Err((receivers[MAX_RECEIVERS].place, format!("at most {MAX_RECEIVERS} receivers")));
    }
    for (at, Placed { place, value }) in receivers.iter().enumerate() {
        let name = &value.name;
        if receivers[..at].iter().any(|other| other.value.name == *name) {
            return Err((*place, format!("two receivers are named {name:?}")));
        }
        if let Some(Err(mistake)) = value.when.as_ref().map(StoryPredicateResult::predicate) {
            let place = Place { line: mistake.position.line, column: mistake.position.column };
            return Err((place, format!("receiver {name:?}: when: {}", mistake.message)));
        }
        value.check().map_err(|cause| (*place, format!("receiver {name:?}: {cause}")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), (u64, u64, String)> {
        let receivers: Vec<Placed<ReceiverConfig>> = serde_saphyr::from_str(text).unwrap();
        check_receivers(&receivers).map_err(|(place, cause)| (place.line, place.column, cause))
    }

    #[test]
    fn kinds_and_their_values_are_checked_with_positions() {
        let valid = "- name: a\n  webhook: { url: 'http://localhost:1/x' }\n";
        assert_eq!(check(valid), Ok(()));
        let partly = "  digest: { stories: 5 }\n  rate_limit: { per: 5s }\n  when:\n";
        assert_eq!(check(&format!("{valid}{partly}")), Ok(()));
        for (more, line, column, expected) in [
            ("- { name: a, webhook: { url: 'http://localhost' } }\n", 3, 3, "two receivers"),
            ("- name: b\n", 3, 3, "\"b\": needs one of alertmanager, webhook, slack"),
            ("- name: b\n  when: { rul: a }\n", 4, 11, "when: unknown field `rul`"),
            ("- { name: b, slack: {} }\n", 3, 3, "slack.url: missing"),
            ("- { name: b, slack: { token_file: t } }\n", 3, 3, "slack.channel: missing"),
            ("- { name: b, webhook: { url: 'http://h/token' } }\n", 3, 3, "webhook.url: http://"),
            (
                "- { name: b, alertmanager: { url: 'http://localhost', resend: 0s } }\n",
                3,
                3,
                "alertmanager.resend: must be",
            ),
            (
                "- { name: b, webhook: { url: 'http://localhost' }, digest: { stories: 1, within: 0s } }\n",
                3,
                3,
                "digest.within: must be",
            ),
            (
                "- { name: b, webhook: { url: 'http://localhost' }, slack: { url: 'http://localhost' } }\n",
                3,
                3,
                "needs one of",
            ),
        ] {
            let error = check(&format!("{valid}{more}")).unwrap_err();
            assert_eq!((error.0, error.1), (line, column), "{more}: {error:?}");
            assert!(error.2.contains(expected) && !error.2.contains("token'"), "{error:?}");
        }
    }

    #[test]
    fn secrets_are_in_no_form_of_the_configuration() {
        let text = "- name: a\n  slack: { url: 'https://hooks.example/T0/SECRET', headers: { x: SECRET } }\n";
        let receivers: Vec<Placed<ReceiverConfig>> = serde_saphyr::from_str(text).unwrap();
        let shown = format!("{receivers:?} {}", serde_json::to_string(&receivers).unwrap());
        assert!(!shown.contains("SECRET") && shown.contains("<redacted>"), "{shown}");
        let slack = receivers[0].value.slack.as_ref().unwrap();
        assert!(slack.http().url.ends_with("SECRET"));
    }
}
