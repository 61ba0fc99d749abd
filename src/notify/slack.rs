//! Slack, and what takes its messages. By the Web API, one message for each story is edited, and
//! updates are replies in its thread. An incoming webhook answers without the message's id: what it
//! was sent can neither be edited nor replied to, so it gets a message for the opening and one for
//! the end.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::config::SlackConfig;
use super::notification::{Content, Notification, Occasion};
use super::receiver::{Answer, Answering, Receiver, cut};
use tapio_core::event::{Severity, Story, rfc3339};
use tapio_wire::{HttpPoster, PostFailure};

/// Longest text of a part of a message, characters: Slack cuts at 3,000 to 4,000.
const MAX_TEXT_CHARS: usize = 2_500;
const MAX_TITLE_CHARS: usize = 250;

/// Errors that the same request won't get again later.
const FINAL_ERRORS: [&str; 6] = [
    "msg_too_long",
    "no_text",
    "invalid_blocks",
    "invalid_attachments",
    "too_many_attachments",
    "invalid_arguments",
];
/// Errors about a message that isn't there any more.
const GONE: [&str; 3] = ["message_not_found", "thread_not_found", "cant_update_message"];

/// Slack.
pub(super) struct Slack {
    poster: HttpPoster,
    /// The channel for the Web API; `None` for an incoming webhook.
    channel: Option<String>,
}

impl Slack {
    pub(super) fn new(config: &SlackConfig) -> Result<Self, String> {
        let channel = config.is_web_api().then(|| config.channel.clone());
        Ok(Self { poster: HttpPoster::new(&config.http())?, channel })
    }

    async fn deliver(&self, of: &Notification) -> Answer {
        let message = message(of);
        let Some(channel) = &self.channel else {
            return self.poster.post("", &[], body(&message)).await.map(|_| None);
        };
        let mut message = message;
        message["channel"] = channel.as_str().into();
        let Some(ts) = &of.reference else {
            let answer = self.call("chat.postMessage", &message).await?;
            return Ok(answer["ts"].as_str().map(str::to_owned));
        };
        message["ts"] = ts.as_str().into();
        match self.call("chat.update", &message).await {
            Err(Failed::Gone(_)) => {
                // Somebody deleted it.
                if let Some(fields) = message.as_object_mut() {
                    fields.remove("ts");
                }
                let answer = self.call("chat.postMessage", &message).await?;
                return Ok(answer["ts"].as_str().map(str::to_owned));
            }
            other => other?,
        };
        let reply = json!({"channel": channel, "thread_ts": ts, "text": reply_text(of)});
        match self.call("chat.postMessage", &reply).await {
            Err(Failed::Gone(_)) | Ok(_) => Ok(Some(ts.clone())),
            Err(failed) => Err(failed.into()),
        }
    }

    /// Calls a method of the Web API, whose errors are in answers of HTTP 200.
    async fn call(&self, method: &str, arguments: &Value) -> Result<Value, Failed> {
        let answer = self.poster.post(method, &[], body(arguments)).await.map_err(Failed::Post)?;
        let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
        if answer["ok"] == true {
            return Ok(answer);
        }
        let error = answer["error"].as_str().unwrap_or("an answer that isn't of Slack's Web API");
        let cause = format!("{method}: {}", cut(error, 100));
        Err(match error {
            gone if GONE.contains(&gone) => Failed::Gone(cause),
            last if FINAL_ERRORS.contains(&last) => Failed::Post(PostFailure::Refused(cause)),
            // Also `invalid_auth` and `channel_not_found`: they can be mended while it waits.
            _ => Failed::Post(PostFailure::Retry {
                cause,
                after: (error == "ratelimited").then_some(Duration::from_secs(1)),
            }),
        })
    }
}

/// Why a call failed.
enum Failed {
    Post(PostFailure),
    /// The message isn't there any more.
    Gone(String),
}

impl From<Failed> for PostFailure {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Post(failure) => failure,
            Failed::Gone(cause) => Self::Refused(cause),
        }
    }
}

impl Receiver for Slack {
    fn send(self: Arc<Self>, notification: Notification) -> Answering {
        Box::pin(async move { self.deliver(&notification).await })
    }

    fn takes_updates(&self) -> bool {
        self.channel.is_some()
    }
}

fn body(value: &Value) -> bytes::Bytes {
    value.to_string().into()
}

/// Escapes a text: no text of an event is a link, or mentions anybody.
fn escaped(text: &str, max_chars: usize) -> String {
    let text = cut(text, max_chars).replace('&', "&amp;");
    text.replace('<', "&lt;").replace('>', "&gt;")
}

/// The state of a story in a word, and its colour.
fn state(of: &Notification, story: &Story) -> (&'static str, &'static str) {
    match of.occasion {
        Occasion::Closed => ("closed", "#2eb67d"),
        Occasion::Retracted => ("retracted", "#9e9e9e"),
        _ if story.severity >= Severity::ERROR => ("open", "#e01e5a"),
        _ => ("open", "#ecb22e"),
    }
}

/// The message about a story or a flood.
fn message(of: &Notification) -> Value {
    let test = if of.is_test { "[test] " } else { "" };
    let Content::Story { story, annotations, .. } = &of.content else {
        return digest_message(of);
    };
    let (state, colour) = state(of, story);
    let severity = story.severity.as_str();
    let name = escaped(&story.name, MAX_TITLE_CHARS);
    let node = escaped(&of.node, MAX_TITLE_CHARS);
    let mut fields = Vec::new();
    let mut field = |title: &str, value: String, is_short: bool| {
        if !value.is_empty() {
            fields.push(json!({"title": title, "value": value, "short": is_short}));
        }
    };
    let cause = story.root_cause.first().map_or("", |candidate| &candidate.cause);
    field("Cause", escaped(cause, MAX_TEXT_CHARS), false);
    field("Node", node.clone(), true);
    field("Rule", escaped(&story.rule, MAX_TITLE_CHARS), true);
    field("Impact", format!("{:.2}", story.impact.business), true);
    field("Since", rfc3339(story.first_ns), true);
    let by = annotations.as_ref().and_then(|marks| marks["acknowledged"]["by"].as_str());
    field("Acknowledged by", escaped(by.unwrap_or_default(), MAX_TITLE_CHARS), true);
    field("Actions", escaped(&story.actions.join("\n"), MAX_TEXT_CHARS), false);
    let title = format!("{test}[{state}] {severity}: {name}");
    let mut attachment = json!({"color": colour, "fallback": title, "fields": fields});
    if !of.link.is_empty() {
        attachment["title"] = "Story".into();
        attachment["title_link"] = of.link.as_str().into();
    }
    json!({"text": title, "attachments": [attachment], "unfurl_links": false})
}

fn digest_message(of: &Notification) -> Value {
    let digest = &of.json()["digest"];
    let rules = digest["rules"].as_array().into_iter().flatten();
    let lines = rules.map(|rule| {
        let name = rule["rule"].as_str().filter(|rule| !rule.is_empty()).unwrap_or("other rules");
        let severity = rule["severity"].as_str().unwrap_or_default();
        format!("{} × {} ({severity})", rule["stories"], escaped(name, MAX_TITLE_CHARS))
    });
    let lines: Vec<String> = lines.collect();
    let title = format!(
        "{} new stories from {} to {}",
        digest["stories"],
        digest["from"].as_str().unwrap_or_default(),
        digest["until"].as_str().unwrap_or_default()
    );
    let text = cut(&lines.join("\n"), MAX_TEXT_CHARS);
    json!({
        "text": title,
        "attachments": [{"color": "#ecb22e", "fallback": title, "text": text}],
    })
}

/// The reply in the thread of a story's message.
fn reply_text(of: &Notification) -> String {
    let Some(story) = of.story() else { return of.occasion.as_str().to_owned() };
    let cause = story.root_cause.first().map_or("no cause is known", |candidate| &candidate.cause);
    format!(
        "{} at {}: {} ({}); {}",
        of.occasion.as_str(),
        rfc3339(story.last_ns),
        escaped(&story.name, MAX_TITLE_CHARS),
        story.severity.as_str(),
        escaped(cause, MAX_TEXT_CHARS)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_no_link_and_mentions_nobody() {
        let story = Story {
            name: "<!channel> & <https://evil.example|click>".into(),
            actions: vec!["x".repeat(10_000)],
            ..Story::default()
        };
        let of = Notification {
            id: "i".into(),
            occasion: Occasion::Opened,
            time_ns: 0,
            key: "k".into(),
            node: "<@U1>".into(),
            cluster: String::new(),
            content: Content::Story { story: Box::new(story), annotations: None, silence: None },
            link: String::new(),
            reference: None,
            is_shared: false,
            is_test: false,
        };
        let text = format!("{} {}", message(&of), reply_text(&of));
        assert!(!text.contains('<') && text.contains("&lt;!channel&gt; &amp;"), "{text}");
        assert!(text.len() < 8_000, "{}", text.len());
    }
}
