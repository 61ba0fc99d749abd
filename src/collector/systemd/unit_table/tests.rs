//! Replies of the bus, in the order in which a connection gets them.

use super::super::unit::{Exit, Stamp, TransitionKind};
use super::*;

fn listed(names: &[&str]) -> Reply {
    let unit = |name: &&str| ListedUnit { name: (*name).to_owned(), is_inactive: false };
    Reply::List(names.iter().map(unit).collect())
}

fn read(unit: &str, active: State, mono_us: u64) -> Reply {
    let snapshot = Snapshot {
        active,
        result: "exit-code".into(),
        exit: Exit { code: 1, status: 3, at_mono_us: mono_us },
        changed: Stamp { mono_us, wall_us: 1_700_000_000_000_000 },
        ..Snapshot::default()
    };
    let properties = Some(UnitProperties { snapshot, control_group: String::new() });
    Reply::Read { unit: unit.into(), signals: 0, properties }
}

fn failures(table: &mut UnitTable) -> Vec<(String, Option<u64>)> {
    let failure = |change| match change {
        Change::Unit { unit, transition } if transition.kind == TransitionKind::Failed => {
            Some((unit.to_string(), transition.failed_before))
        }
        _ => None,
    };
    table.changes.drain(..).filter_map(failure).collect()
}

#[test]
fn unit_that_had_failed_before_the_first_start_is_found_once() {
    let directory = Directory::default();
    let all = Filter { include: Vec::new(), exclude: Vec::new() };
    let mut table = UnitTable::new(all.clone(), 1_000, false);
    let connect = |table: &mut UnitTable| {
        table.begin_connection();
        table.handle_reply(listed(&["old.service", "ok.service"]), &directory, 1);
        table.handle_reply(read("old.service", State::Failed, 500), &directory, 1);
        table.handle_reply(read("ok.service", State::Active, 500), &directory, 1);
    };
    connect(&mut table);
    let found = vec![("old.service".to_owned(), Some(1_700_000_000_000_000))];
    assert_eq!(failures(&mut table), found);
    connect(&mut table);
    assert_eq!(failures(&mut table), [], "not again on the next connection");
    // A start that continues at a cursor.
    let mut table = UnitTable::new(all, 1_000, true);
    connect(&mut table);
    assert_eq!(failures(&mut table), []);
}
