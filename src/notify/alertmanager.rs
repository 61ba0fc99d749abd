//! Alertmanager, by its API of version 2 (`POST /api/v2/alerts`). An alert is identified by its
//! labels: they are few and the same in each revision. The rest is in annotations.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::config::AlertmanagerConfig;
use super::notification::{Content, Notification, Occasion};
use super::receiver::{Answer, Answering, Receiver, cut};
use tapio_core::clock;
use tapio_core::event::{Severity, Story, rfc3339};
use tapio_wire::HttpPoster;

/// Most values of the join key that are labels.
const MAX_KEY_LABELS: usize = 8;
/// Longest value of a label and of an annotation, characters.
const MAX_LABEL_CHARS: usize = 256;
const MAX_ANNOTATION_CHARS: usize = 4_000;
/// An alert that isn't sent again ends after so many intervals.
const LOST_INTERVALS: u32 = 4;
/// Most alerts of a request.
const MAX_ALERTS: usize = 64;
/// The name of the alert about a flood.
const FLOOD: &str = "TapioStoryFlood";

type Labels = BTreeMap<String, String>;

/// Alertmanager.
pub(super) struct Alertmanager {
    poster: HttpPoster,
    resend: Duration,
}

impl Alertmanager {
    pub(super) fn new(config: &AlertmanagerConfig) -> Result<Self, String> {
        Ok(Self { poster: HttpPoster::new(&config.http())?, resend: config.resend })
    }

    async fn post(&self, alerts: &[Value]) -> Answer {
        for alerts in alerts.chunks(MAX_ALERTS) {
            let body = serde_json::to_vec(alerts).unwrap_or_default();
            self.poster.post("api/v2/alerts", &[], body.into()).await?;
        }
        Ok(None)
    }

    /// When an alert ends that isn't sent again.
    fn lost_ns(&self, now_ns: u64) -> u64 {
        now_ns.saturating_add((self.resend * LOST_INTERVALS).as_nanos() as u64)
    }

    /// The alerts of a notification, and their labels as the reference to them.
    fn alerts(&self, of: &Notification, now_ns: u64) -> (Vec<Value>, Option<String>) {
        let (story, is_silenced) = match &of.content {
            Content::Story { story, silence, .. } => (story, silence.is_some()),
            Content::Digest(digest) => {
                let ends_ns = self.lost_ns(now_ns).max(
                    digest.until_ns.saturating_add(digest.until_ns.saturating_sub(digest.from_ns)),
                );
                return (vec![flood(of, digest.from_ns, ends_ns)], None);
            }
        };
        let labels = labels(story, of);
        let reference = serde_json::to_string(&labels).unwrap_or_default();
        let mut alerts = Vec::new();
        // With another severity it is another alert: the one before ends.
        if let Some(before) = of.reference.as_ref().filter(|before| **before != reference)
            && let Ok(before) = serde_json::from_str::<Labels>(before)
            && !of.is_shared
        {
            alerts.push(alert(&before, of, story, now_ns));
        }
        let is_over = of.occasion.is_end() || is_silenced;
        if !(is_over && of.is_shared) {
            let ends_ns = if is_over { now_ns } else { self.lost_ns(now_ns) };
            alerts.push(alert(&labels, of, story, ends_ns));
        }
        (alerts, Some(reference))
    }
}

impl Receiver for Alertmanager {
    fn send(self: Arc<Self>, notification: Notification) -> Answering {
        Box::pin(async move {
            let (alerts, reference) = self.alerts(&notification, clock::wall_ns());
            self.post(&alerts).await.map(|_| reference)
        })
    }

    fn refresh_interval(&self) -> Option<Duration> {
        Some(self.resend)
    }

    fn refresh(self: Arc<Self>, open: Vec<Notification>) -> Answering {
        Box::pin(async move {
            let now_ns = clock::wall_ns();
            let alerts = open.iter().flat_map(|open| self.alerts(open, now_ns).0);
            self.post(&alerts.collect::<Vec<_>>()).await
        })
    }
}

/// A name as Prometheus' data model allows it.
fn label_name(name: &str) -> String {
    let valid = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let name: String =
        name.strip_prefix("attributes.").unwrap_or(name).chars().map(valid).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name }
}

/// `warning`, `critical` and so on are the words of common routing trees.
fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity(17..) if severity >= Severity(21) => "critical",
        Severity(17..) => "error",
        Severity(13..) => "warning",
        _ => "info",
    }
}

/// The labels, which identify the alert: rule, pattern, severity, where, and the join key, so that
/// two pods have two alerts.
fn labels(story: &Story, of: &Notification) -> Labels {
    let mut labels = Labels::new();
    for (name, value) in story.key.iter().take(MAX_KEY_LABELS) {
        labels.insert(label_name(name), cut(value, MAX_LABEL_CHARS));
    }
    // The node's own name needn't be there twice.
    labels.retain(|name, value| !(name == "host_name" && *value == of.node));
    for (name, value) in [
        ("alertname", story.rule.as_str()),
        ("pattern", &story.pattern),
        ("severity", severity(story.severity)),
        ("node", &of.node),
        ("cluster", &of.cluster),
    ] {
        labels.insert(name.into(), cut(value, MAX_LABEL_CHARS));
    }
    if of.is_test {
        labels.insert("test".into(), "true".into());
    }
    // An empty label is the same as none.
    labels.retain(|_, value| !value.is_empty());
    labels
}

fn annotations(story: &Story, of: &Notification) -> Labels {
    let impact = &story.impact;
    let flags = [("customer-facing", impact.customer_facing), ("SLO", impact.slo_impact)];
    let flags: String =
        flags.iter().filter(|(_, is)| *is).map(|(name, _)| format!(", {name}")).collect();
    let affected = match impact.affected.len() {
        0 => String::new(),
        _ => format!("; affected: {}", impact.affected.join(", ")),
    };
    let acknowledged = match &of.content {
        Content::Story { annotations: Some(marks), .. } => marks["acknowledged"]["by"].as_str(),
        _ => None,
    };
    let cause = story.root_cause.first().map_or("", |candidate| &candidate.cause);
    let texts = [
        ("summary", story.name.clone()),
        ("description", story.intent.clone()),
        ("cause", cause.to_owned()),
        ("impact", format!("{:.2}{flags}{affected}", impact.business)),
        ("actions", story.actions.join("\n")),
        ("confidence", format!("{:.2}", story.confidence)),
        ("story", story.id.to_string()),
        ("trace_id", story.trace_id.to_string()),
        ("link", of.link.clone()),
        ("acknowledged", acknowledged.unwrap_or_default().to_owned()),
        ("retracted", if of.occasion == Occasion::Retracted { "true" } else { "" }.to_owned()),
    ];
    let texts = texts.into_iter().filter(|(_, text)| !text.is_empty());
    texts.map(|(name, text)| (name.to_owned(), cut(&text, MAX_ANNOTATION_CHARS))).collect()
}

fn alert(labels: &Labels, of: &Notification, story: &Story, ends_ns: u64) -> Value {
    // It must not end before it starts, also where a node's clock is ahead.
    let starts_ns = story.first_ns.min(ends_ns.saturating_sub(1));
    let mut alert = json!({
        "labels": labels,
        "annotations": annotations(story, of),
        "startsAt": rfc3339(starts_ns),
        "endsAt": rfc3339(ends_ns),
    });
    if !of.link.is_empty() {
        alert["generatorURL"] = of.link.as_str().into();
    }
    alert
}

/// The alert about a flood of new stories.
fn flood(of: &Notification, from_ns: u64, ends_ns: u64) -> Value {
    let digest = &of.json()["digest"];
    let rules = digest["rules"].as_array().into_iter().flatten();
    let lines = rules.map(|rule| {
        let text = |name: &str| rule[name].as_str().unwrap_or_default().to_owned();
        let name = Some(text("rule")).filter(|rule| !rule.is_empty());
        format!("{} × {}", rule["stories"], name.unwrap_or_else(|| "other rules".into()))
    });
    let lines: Vec<String> = lines.collect();
    let mut labels = json!({"alertname": FLOOD, "severity": "warning"});
    if !of.cluster.is_empty() {
        labels["cluster"] = of.cluster.as_str().into();
    }
    json!({
        "labels": labels,
        "annotations": {
            "summary": format!("{} new stories without an alert of their own", digest["stories"]),
            "description": cut(&lines.join("\n"), MAX_ANNOTATION_CHARS),
        },
        "startsAt": rfc3339(from_ns),
        "endsAt": rfc3339(ends_ns),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapio_core::event::TraceId;

    fn notification(severity: u8, occasion: Occasion) -> Notification {
        let key =
            [("host.name", "n1"), ("k8s.pod.uid", "u-1"), ("attributes.a b/c", "x"), ("9", "")];
        let story = Story {
            id: TraceId([7; 16]),
            rule: "oom-kill".into(),
            pattern: "memory".into(),
            severity: Severity(severity),
            key: key.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            first_ns: 1_700_000_000_000_000_000,
            actions: vec!["a".into(), "b".into()],
            ..Story::default()
        };
        Notification {
            id: "i".into(),
            occasion,
            time_ns: 0,
            key: "k".into(),
            node: "n1".into(),
            cluster: String::new(),
            content: Content::Story { story: Box::new(story), annotations: None, silence: None },
            link: String::new(),
            reference: None,
            is_shared: false,
            is_test: false,
        }
    }

    fn receiver() -> Alertmanager {
        Alertmanager::new(&AlertmanagerConfig {
            url: "http://localhost:9093".into(),
            resend: Duration::from_secs(60),
            tls: None,
            token_file: None,
            headers: BTreeMap::new(),
            timeout: Duration::from_secs(1),
            insecure: false,
        })
        .unwrap()
    }

    const NOW_NS: u64 = 1_700_000_100_000_000_000;

    #[tokio::test]
    async fn labels_are_few_and_valid_and_the_rest_is_in_annotations() {
        let (alerts, reference) = receiver().alerts(&notification(17, Occasion::Opened), NOW_NS);
        let expected = json!({
            "a_b_c": "x", "alertname": "oom-kill", "k8s_pod_uid": "u-1", "node": "n1",
            "pattern": "memory", "severity": "error",
        });
        assert_eq!(alerts[0]["labels"], expected);
        assert_eq!(reference.unwrap(), expected.to_string());
        assert_eq!(alerts[0]["annotations"]["actions"], "a\nb");
        assert_eq!(alerts[0]["endsAt"], rfc3339(NOW_NS + 240_000_000_000));
    }

    #[tokio::test]
    async fn another_severity_ends_the_alert_before() {
        let am = receiver();
        let (_, reference) = am.alerts(&notification(13, Occasion::Opened), NOW_NS);
        let update = Notification { reference, ..notification(21, Occasion::Updated) };
        let (alerts, _) = am.alerts(&update, NOW_NS);
        let ends: Vec<_> =
            alerts.iter().map(|a| (a["labels"]["severity"].clone(), a["endsAt"].clone())).collect();
        let lost = rfc3339(NOW_NS + 240_000_000_000);
        let expected =
            [("warning".into(), rfc3339(NOW_NS).into()), ("critical".into(), lost.into())];
        assert_eq!(ends, expected);
    }

    #[tokio::test]
    async fn end_is_sent_unless_another_story_has_the_alert() {
        let am = receiver();
        let end = notification(17, Occasion::Retracted);
        let (alerts, _) = am.alerts(&end, NOW_NS);
        assert_eq!(alerts[0]["endsAt"], rfc3339(NOW_NS));
        assert_eq!(alerts[0]["annotations"]["retracted"], "true");
        let shared = Notification { is_shared: true, ..end };
        assert!(am.alerts(&shared, NOW_NS).0.is_empty());
    }
}
