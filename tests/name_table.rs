//! A process whose name table is full: a batch with a new name costs the events that use it, not
//! the others. It has a process of its own, because the table is the process's.

use prost::Message as _;
use tapio_core::event::Name;
use tapio_wire::{Batch, Item, proto};

fn event(kind: u32) -> proto::Event {
    proto::Event { time_unix_nano: 1, id: vec![1; 16], kind, source: 0, ..proto::Event::default() }
}

#[test]
fn full_name_table_costs_the_events_with_a_new_name() {
    for n in 0_u32.. {
        if Name::intern(&format!("filler.{n}")).is_err() {
            break;
        }
    }
    let batch = proto::EventBatch {
        count: 3,
        node: "n".into(),
        names: vec!["filler.1".into(), "a.new.name".into()],
        events: vec![event(0), event(1), event(0)],
        ..proto::EventBatch::default()
    };
    let bytes = batch.encode_to_vec();
    let batch = Batch::parse(&bytes).map_err(|(_, error)| error).unwrap();
    let mut decoder = batch.decoder();
    let decoded: Vec<bool> = batch
        .items()
        .filter_map(|item| match item {
            Item::Event(raw) => Some(decoder.event(raw).is_ok()),
            Item::Story(_) => None,
        })
        .collect();
    assert_eq!(decoded, [true, false, true]);
}
