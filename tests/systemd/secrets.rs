//! Secrets that are planted in the journal and in units don't leave the agent.

use std::os::unix::net::UnixDatagram;

use crate::machine::Machine;
use crate::support::planted::PlantedAgent;
use crate::support::planter::{COMMANDS, Planter};

/// A field in journald's native protocol, which allows newlines in the value.
fn field(name: &str, value: &str) -> Vec<u8> {
    let length = (value.len() as u64).to_le_bytes();
    [name.as_bytes(), b"\n", &length, value.as_bytes(), b"\n"].concat()
}

/// Plants in messages and fields of records, as programs send them to journald.
fn plant_in_records(machine: &Machine, plant: &mut Planter) -> usize {
    let journald = UnixDatagram::unbound().unwrap();
    journald.connect(machine.path("run/systemd/journal/socket")).unwrap();
    let texts = plant.surrounded();
    for text in &texts {
        let own = field("APP_PASSWORD", &plant.secret());
        let fields = [field("MESSAGE", text), field("SYSLOG_IDENTIFIER", "app"), own];
        journald.send(&fields.concat()).unwrap();
    }
    texts.len()
}

/// Plants in command lines, descriptions, environments and names of units. systemd logs the
/// descriptions and the names.
fn plant_in_units(machine: &Machine, plant: &mut Planter) -> usize {
    let mut planted = 0;
    for text in plant.surrounded().iter().filter(|text| !text.contains('\n')) {
        let run = [
            "systemd-run",
            "--quiet",
            "--wait",
            &format!("--description={text}"),
            &format!("--setenv=PASSWORD={}", plant.secret()),
            &format!("--unit=clone-{}", plant.text("ghp_SabcdefghijABCDEFGHIJ0123456789abcd")),
            "/bin/sh",
            "-c",
            "exit 3",
            text,
        ];
        machine.run(&run);
        planted += 1;
    }
    for text in &plant.texts()[..COMMANDS] {
        // Without a description, it is the command line.
        machine.run(&["systemd-run", "--quiet", "--wait", "/bin/sh", "-c", "exit 3", text]);
        planted += 1;
    }
    planted
}

fn plant_and_search(redacts: bool) {
    let Some(machine) = Machine::boot("unified") else { return };
    let mut agent = PlantedAgent::new(redacts);
    let mut plant = Planter::default();
    let collectors = format!(
        "only: [journal, systemd], systemd: {{ address: \"{}\" }}, \
         journal: {{ directories: [\"{}\", \"{}\"], rate_per_unit: 0 }}",
        machine.bus(),
        machine.path("var/log/journal").display(),
        machine.path("run/log/journal").display(),
    );
    agent.start(&collectors, "'systemd.*', 'journal.*'");
    agent.fixture.wait(|s| {
        // The first record that it reads shows that it has found the journal.
        machine.run(&["sh", "-c", "echo begin | systemd-cat -t begin"]);
        s["cons1"]["collectors"]["journal"]["forwarded"].as_u64() > Some(0)
    });
    agent.wait_until_running("systemd");
    let planted = plant_in_records(&machine, &mut plant) + plant_in_units(&machine, &mut plant);
    agent.finish(planted).verify();
}

#[test]
fn secrets_of_journal_and_units_do_not_leave_the_agent() {
    plant_and_search(true);
}

#[test]
fn search_finds_secrets_of_journal_and_units_that_are_not_redacted() {
    plant_and_search(false);
}
