//! A source whose senders have used up its names: it costs them alone. The test has a process of
//! its own, because the table is the process's.

use prost::Message as _;
use tapio_core::event::{JsonEvent, Name, NameSource, event_json};
use tapio_wire::{Batch, Item, decoded_json, proto};

fn event(kind: u32, attribute: u32) -> proto::Event {
    let value = Some(proto::field::Value::StringValue("x".into()));
    proto::Event {
        time_unix_nano: 1,
        id: vec![1; 16],
        kind,
        source: 0,
        attributes: vec![proto::Field { key: attribute, value }],
        ..proto::Event::default()
    }
}

fn use_up(source: NameSource) -> usize {
    (0..1_000_000)
        .take_while(|n| Name::intern_from(&format!("{source:?}.{n}"), source).is_ok())
        .count()
}

#[test]
fn a_source_without_names_left_costs_nobody_else() {
    let added = use_up(NameSource::Batches) + use_up(NameSource::JsonLines);
    assert!(added > 10_000, "{added}");
    // Rules and other sources have names of their own.
    assert!(Name::intern("a.rule").is_ok());
    assert!(Name::intern_from("an.attribute", NameSource::Otlp).is_ok());

    let batch = proto::EventBatch {
        count: 3,
        node: "n".into(),
        names: vec!["Batches.1".into(), "a.new.name".into()],
        events: vec![event(0, 0), event(1, 0), event(0, 1)],
        ..proto::EventBatch::default()
    };
    let bytes = batch.encode_to_vec();
    let batch = Batch::parse(&bytes).map_err(|(_, error)| error).unwrap();
    let mut decoder = batch.decoder();
    let (mut attributes, mut shown) = (Vec::new(), Vec::new());
    for item in batch.items() {
        let Item::Event(raw) = item else { continue };
        attributes.push(decoder.event(raw).ok().map(|decoded| decoded.event.fields.len()));
        let mut decoder = batch.display_decoder();
        shown.push(decoder.event(raw).map(|decoded| decoded_json(&batch, &decoded)).unwrap());
    }
    // The kind has to be known; an attribute is left out.
    assert_eq!(attributes, [Some(1), None, Some(0)]);
    // To show events, nothing is added, and nothing is missing.
    assert_eq!(shown[1]["kind"], "a.new.name");
    assert_eq!(shown[2]["attributes"]["a.new.name"], "x");
    assert!(Name::find("a.new.name").is_none());

    // A line keeps attributes without a name as text.
    let line = r#"{"time": 1, "kind": "t", "attributes": {"new.one": 3, "service.name": "s"}}"#;
    let line = line.replace("\"t\"", "\"JsonLines.1\"");
    let parsed = JsonEvent::parse(&line, "line 1").unwrap();
    let mut fields = Vec::new();
    let json = event_json(&parsed.event(2, &mut fields));
    assert_eq!(json["attributes"]["tapio.unnamed"], serde_json::json!({"new.one": 3}));
    assert_eq!(json["attributes"]["service.name"], "s");
}
