//! Secrets that are planted in containers don't leave the agent.

use crate::runtime::{Containerd, is_runtime_available};
use crate::support::planted::PlantedAgent;
use crate::support::planter::Planter;

/// Labels whose values the collector reads as names.
const NAMES: [&str; 3] =
    ["io.kubernetes.container.name", "io.kubernetes.pod.name", "io.kubernetes.pod.namespace"];

/// Plants in labels, annotations, environment, command line and output of a container. Returns the
/// number of texts that events have.
fn plant(containerd: &Containerd, plant: &mut Planter, texts: &[String], number: usize) -> usize {
    let mut options = vec!["--rm".to_owned()];
    let mut add = |option: &str, value: String| options.extend([option.to_owned(), value]);
    for (name, text) in NAMES.iter().zip(texts) {
        add("--label", format!("{name}={text}"));
    }
    add("--label", "io.kubernetes.pod.uid=0af76519-16cd-43dd-8448-eb211c80319c".into());
    for (name, value) in plant.attributes() {
        add("--label", format!("{name}={value}"));
    }
    for name in ["PASSWORD", "API_TOKEN", "DATABASE_URL"] {
        add("--env", format!("{name}={}", plant.secret()));
        add("--annotation", format!("{name}={}", plant.secret()));
    }
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let script = format!(": --password={}; echo {}", plant.secret(), plant.text("token=S"));
    containerd.run("default", &options, &format!("planted-{number}"), &script);
    NAMES.len().min(texts.len())
}

fn plant_and_search(redacts: bool) {
    if !is_runtime_available() {
        return;
    }
    let mut containerd = Containerd::new(&["default"]);
    containerd.start();
    let mut agent = PlantedAgent::new(redacts);
    let socket = containerd.socket();
    let collectors = format!("only: [container], container: {{ sockets: [{socket:?}] }}");
    agent.start(&collectors, "'container.*'");
    agent
        .fixture
        .wait(|s| s["collectors"]["container"]["counters"]["connections"].as_u64() > Some(0));
    let mut planter = Planter::default();
    let texts = planter.texts();
    // containerd refuses a label with a line feed, or one longer than 4,096 bytes.
    let texts: Vec<_> = texts.into_iter().filter(|text| !text.contains('\n')).collect();
    let each = texts.chunks(NAMES.len()).enumerate();
    let planted = each.map(|(n, texts)| plant(&containerd, &mut planter, texts, n)).sum();
    assert!(planter.count() >= 120, "{} secrets", planter.count());
    agent.finish(planted).verify();
}

#[test]
fn secrets_of_containers_do_not_leave_the_agent() {
    plant_and_search(true);
}

#[test]
fn search_finds_secrets_of_containers_that_are_not_redacted() {
    plant_and_search(false);
}
