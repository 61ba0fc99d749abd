//! Stories and their events, as log records and spans.

use std::collections::{BTreeMap, BTreeSet};

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use serde_json::json;

use crate::receiver::Receiver;
use crate::support::agent::{TestAgent, start, story, terminate, utf8};

/// The texts among attributes.
fn texts(attributes: &[KeyValue]) -> BTreeMap<&str, &str> {
    let texts = attributes.iter().filter_map(|attribute| {
        match attribute.value.as_ref()?.value.as_ref()? {
            Value::StringValue(text) => Some((attribute.key.as_str(), text.as_str())),
            _ => None,
        }
    });
    texts.collect()
}

fn is_of_story(record: &LogRecord) -> bool {
    record.event_name.starts_with("tapio.story.")
}

#[test]
fn a_story_is_one_trace_with_its_events_as_logs() {
    let receiver = Receiver::start();
    let fixture = TestAgent::new();
    let config = fixture.config("jsonl", &story("nginx-cascade.jsonl"));
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.lines().filter(|line| !line.starts_with("bridge:")).collect::<Vec<_>>();
    let export = format!(
        "\nexport: {{ otlp: [{{ name: here, endpoint: \"http://{}\" }}] }}\ncluster: prod\n",
        receiver.grpc
    );
    let config = fixture.file("export.yaml", &(text.join("\n") + &export));
    let agent = start(&["run", "--config", &config]);
    fixture.wait(|s| {
        s["cons1"]["total"]["forwarded"] == json!(6) && s["export"]["here"]["events"] == json!(6)
    });
    let output = terminate(agent);
    assert!(output.status.success(), "{}", utf8(&output.stderr));

    let records = receiver.log_records();
    let (revisions, events): (Vec<_>, Vec<_>) = records.into_iter().partition(is_of_story);
    let spans = receiver.spans();
    let story =
        spans.iter().find(|span| span.name.starts_with("nginx.service failed; its pods")).unwrap();
    // The failed unit's own story begins with the same event: one trace, two spans.
    let stories = spans.iter().filter(|span| span.name.starts_with("nginx.service failed"));
    let stories: BTreeSet<_> = stories.map(|span| (&span.trace_id, &span.span_id)).collect();
    assert_eq!(stories.len(), 2, "{spans:?}");
    // Every log record is in the trace, and below the span of its story.
    for record in &events {
        let is_of_one = stories.contains(&(&record.trace_id, &record.span_id));
        assert!(is_of_one, "{record:?}");
        assert_eq!(record.trace_id, story.trace_id);
        assert!(record.severity_number > 0 && !record.severity_text.is_empty());
    }
    let revisions: Vec<_> =
        revisions.into_iter().filter(|record| record.span_id == story.span_id).collect();
    assert!(revisions.iter().all(|revision| revision.trace_id == story.trace_id));
    let kinds: BTreeSet<&str> = events.iter().map(|record| record.event_name.as_str()).collect();
    assert!(kinds.contains("systemd.unit.failed"), "{kinds:?}");
    let attributes = texts(&events[0].attributes);
    assert!(attributes["tapio.story.id"].len() == 32 && attributes["tapio.event.id"].len() == 32);
    assert_eq!(attributes["tapio.source"], "journal");
    // The story is opened before it ends.
    let states: Vec<&str> = revisions.iter().map(|record| record.event_name.as_str()).collect();
    assert_eq!(states.first(), Some(&"tapio.story.opened"), "{states:?}");
    assert_eq!(states.last(), Some(&"tapio.story.closed"), "{states:?}");
    // The span has what a reader looks for first: cause, impact, actions, and the events.
    let attributes = texts(&story.attributes);
    assert_eq!(attributes["tapio.story.state"], "closed");
    assert!(!attributes["tapio.story.root_cause"].is_empty());
    assert!(story.attributes.iter().any(|a| a.key == "tapio.story.actions"));
    assert!(story.attributes.iter().any(|a| a.key == "tapio.story.impact.affected"));
    // Others may be members of the failed unit's own story only.
    assert!((4..=events.len()).contains(&story.events.len()), "{} events", story.events.len());
    assert!(story.start_time_unix_nano < story.end_time_unix_nano);
    let times = story.events.iter().map(|event| event.time_unix_nano);
    assert_eq!(times.clone().min(), Some(story.start_time_unix_nano));
    assert_eq!(times.max(), Some(story.end_time_unix_nano));
    assert_eq!(story.status.as_ref().unwrap().code, 2);
    // Lifecycles of units and pods are traces of their own.
    let ids: BTreeSet<_> = spans.iter().map(|span| (&span.trace_id, &span.span_id)).collect();
    assert_eq!(ids.len(), spans.len());
    for resource in receiver.logs() {
        let resource = resource.resource.unwrap();
        let attributes = texts(&resource.attributes);
        assert_eq!(attributes.get("k8s.cluster.name"), Some(&"prod"), "{attributes:?}");
    }
}
