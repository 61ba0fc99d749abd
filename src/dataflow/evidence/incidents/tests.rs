//! Which stories are one incident.

use super::*;
use crate::evidence::bounds::Bounds;
use crate::evidence::relation::{Edge, Relation};
use tapio_core::event::{Member, Severity};

const SECOND_NS: u64 = 1_000_000_000;

fn story(number: u8, rule: &str, at_s: u64, key: &[(&str, &str)]) -> Story {
    let key = key.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let (first_ns, last_ns) = (at_s * SECOND_NS, (at_s + 5) * SECOND_NS);
    let id = TraceId([number; 16]);
    Story { id, rule: rule.into(), key, first_ns, last_ns, ..Story::default() }
}

fn with_member(mut story: Story, number: u8) -> Story {
    story.members.push(Member {
        id: EventId([number; 16]),
        label: String::new(),
        time_ns: story.first_ns,
        kind: "k".into(),
        source: "s".into(),
        severity: Severity::ERROR,
        role: String::new(),
        pattern: String::new(),
        summary: String::new(),
    });
    story
}

fn pod(uid: &str) -> Entity {
    Entity::new(EntityKind::Pod, uid)
}

/// The incidents of stories, assessed in this order: each parent's number, and the role.
fn of(graph: &Graph, stories: &[(Story, Vec<Entity>)]) -> Vec<Option<(u8, IncidentRole)>> {
    let mut incidents = Incidents::default();
    let assessed = stories.iter().map(|(story, observed)| {
        let incident = incidents.of(graph, story, observed)?;
        assert!(!incident.because.is_empty());
        Some((incident.id.0[0], incident.role))
    });
    assessed.collect()
}

fn empty() -> Graph {
    Graph::new(Bounds::LIVE)
}

#[test]
fn stories_of_one_entity_are_one_incident_unless_far_apart() {
    let key = [("host.name", "a"), ("systemd.unit", "kubelet.service")];
    let other = [("host.name", "b"), ("systemd.unit", "kubelet.service")];
    let stories = [
        (story(1, "x", 1_000, &key), vec![]),
        (story(2, "y", 1_010, &key), vec![]),
        (story(3, "z", 1_020, &other), vec![]),
        (story(4, "x", 1_400, &key), vec![]),
    ];
    let same = Some((1, IncidentRole::Same));
    assert_eq!(of(&empty(), &stories), [None, same, None, None]);
}

/// A disturbance of connections has the address in its key, as the rules about connections have.
#[test]
fn stories_about_connections_to_one_address_are_one_incident() {
    let key = |address, port: &'static str| {
        let mut key = vec![("host.name", "a"), ("attributes.network.peer.address", address)];
        key.extend((!port.is_empty()).then_some(("attributes.network.peer.port", port)));
        key
    };
    let about = |number, rule, address, port| {
        (story(number, rule, 1_000 + u64::from(number), &key(address, port)), vec![])
    };
    let mut disturbed = about(3, "service-disturbance", "10.0.0.7", "5432");
    disturbed.0.key[0] = ("service.name".into(), "payments".into());
    let mut graph = empty();
    graph.add_edge(
        &Edge {
            from: Entity::new(EntityKind::Endpoint, "10.0.0.7:5432"),
            relation: Relation::RunsIn,
            to: Entity::new(EntityKind::Address, "10.0.0.7"),
        },
        1_000,
    );
    let stories = [
        about(1, "connection-refused-storm", "10.0.0.7", "5432"),
        about(2, "connection-refused-storm", "10.0.0.7", "80"),
        disturbed,
        about(4, "retransmit-storm", "10.0.0.7", ""),
        about(5, "connect-timeouts", "127.0.0.1", "5432"),
    ];
    let same = Some((1, IncidentRole::Same));
    assert_eq!(of(&graph, &stories), [None, None, same, same, None]);
}

#[test]
fn child_of_a_child_names_the_parent() {
    let stories = [
        (with_member(story(1, "x", 1_000, &[]), 9), vec![]),
        (with_member(story(2, "y", 1_001, &[]), 9), vec![pod("u")]),
        (story(3, "z", 1_002, &[]), vec![pod("u")]),
    ];
    let same = Some((1, IncidentRole::Same));
    assert_eq!(of(&empty(), &stories), [None, same, same]);
}

#[test]
fn dependency_explains_and_dependent_is_explained() {
    let mut graph = empty();
    let endpoint = Entity::new(EntityKind::Endpoint, "10.0.0.7:5432");
    for (from, relation, to) in [
        (pod("web"), Relation::TalksTo, endpoint.clone()),
        (pod("db"), Relation::Provides, endpoint),
    ] {
        graph.add_edge(&Edge { from, relation, to }, 1_000);
    }
    let web = (story(1, "web", 1_005, &[]), vec![pod("web")]);
    let db = (story(2, "db", 1_004, &[]), vec![pod("db")]);
    let both = [web.clone(), db.clone()];
    assert_eq!(of(&graph, &both), [None, Some((1, IncidentRole::Cause))]);
    assert_eq!(of(&graph, &[db, web]), [None, Some((2, IncidentRole::Effect))]);
    assert_eq!(of(&empty(), &both), [None, None]);
}

/// An application names its process by number, the kernel by its execution.
#[test]
fn application_outside_of_kubernetes_depends_on_its_process() {
    let mut graph = empty();
    let process = |id: &str| Entity::new(EntityKind::Process, &format!("a/{id}"));
    let (service, unit) = (Entity::new(EntityKind::Service, "cart"), "a/cart.service");
    for (from, relation, to) in [
        (service.clone(), Relation::Selects, process("812")),
        (process("812"), Relation::RunsIn, process("exec-7")),
        (process("exec-7"), Relation::RunsIn, Entity::new(EntityKind::Unit, unit)),
    ] {
        graph.add_edge(&Edge { from, relation, to }, 990);
    }
    let slow = (story(1, "service-disturbance", 1_000, &[("service.name", "cart")]), vec![]);
    let host = ("host.name", "a");
    let killed = |number, id| {
        (story(number, "oom-kill", 1_003, &[host, ("process.pid", "x")]), vec![process(id)])
    };
    let failed =
        (story(4, "unit-failure", 1_004, &[host, ("systemd.unit", "cart.service")]), vec![]);
    let stories = [slow.clone(), killed(2, "exec-7"), killed(3, "exec-8"), failed];
    let cause = Some((1, IncidentRole::Cause));
    // The unit's failure is about the killed process's unit.
    let same = Some((1, IncidentRole::Same));
    assert_eq!(of(&graph, &stories), [None, cause, None, same]);
    let stories = [killed(2, "812"), slow];
    assert_eq!(of(&graph, &stories), [None, Some((2, IncidentRole::Effect))]);
}

/// Each kill of a loop has a story of its own process.
#[test]
fn processes_of_one_program_are_one_incident_outside_of_units() {
    let mut graph = empty();
    let process = |pid: &str| Entity::new(EntityKind::Process, &format!("a/{pid}"));
    for (pid, program) in [("1", "importer"), ("2", "importer"), ("3", "other")] {
        graph.set_label(&process(pid), program, 990);
    }
    for (pid, unit) in [("4", "a/x.service"), ("5", "a/y.service")] {
        let (relation, to) = (Relation::RunsIn, Entity::new(EntityKind::Unit, unit));
        graph.add_edge(&Edge { from: process(pid), relation, to }, 990);
        graph.set_label(&process(pid), "java", 990);
    }
    let killed = |number, pid| {
        let key = [("host.name", "a"), ("process.pid", pid)];
        (story(number, "oom-kill", 1_000 + u64::from(number), &key), vec![process(pid)])
    };
    let stories = [killed(1, "1"), killed(2, "2"), killed(3, "3"), killed(4, "4"), killed(5, "5")];
    let same = Some((1, IncidentRole::Same));
    assert_eq!(of(&graph, &stories), [None, same, None, None, None]);
}

#[test]
fn rules_that_explain_each_other_are_related_on_one_node() {
    let on = |number, rule, host| (story(number, rule, 1_000, &[("host.name", host)]), vec![]);
    let (full, evicted) = ("disk-full", "pod-eviction");
    let stories = [on(1, full, "a"), on(2, evicted, "b"), on(3, evicted, "a")];
    assert_eq!(of(&empty(), &stories), [None, None, Some((1, IncidentRole::Effect))]);
    let stories = [on(1, evicted, "a"), on(2, full, "a"), on(3, "segfault", "a")];
    assert_eq!(of(&empty(), &stories), [None, Some((1, IncidentRole::Cause)), None]);
}

#[test]
fn story_that_replaces_another_keeps_its_place() {
    let key = [("host.name", "a"), ("systemd.unit", "a.service")];
    let mut last = story(3, "y", 1_001, &key);
    last.provisional = Some(TraceId([2; 16]));
    let stories =
        [story(1, "x", 1_000, &key), story(2, "y", 1_002, &key), last].map(|s| (s, vec![]));
    let same = Some((1, IncidentRole::Same));
    assert_eq!(of(&empty(), &stories), [None, same, same]);
    // A later revision has the incident of the first one.
    let again = [stories[0].clone(), stories[1].clone(), stories[0].clone()];
    assert_eq!(of(&empty(), &again), [None, same, None]);
}

#[test]
fn a_flood_of_stories_is_bounded() {
    let mut incidents = Incidents::default();
    for number in 0..3 * MAX_STORIES {
        let mut story = story(0, "disk-full", 1_000, &[("host.name", "a")]);
        story.id.0[..8].copy_from_slice(&number.to_be_bytes());
        let of = [pod("busy"), pod(&number.to_string())];
        incidents.of(&empty(), &with_member(story, (number % 200) as u8), &of);
    }
    assert!(incidents.stories.len() <= MAX_STORIES);
    assert!(incidents.by_subject.len() <= MAX_STORIES + 1);
    assert!(incidents.by_member.len() <= 200);
    let alike = incidents.by_subject.values().chain(incidents.by_rule.values());
    assert!(alike.map(Vec::len).max().unwrap() <= MAX_ALIKE);
}

#[test]
fn partitions_are_of_their_disk() {
    for (device, expected) in [
        ("nvme0n1p2", "nvme0"),
        ("nvme10n1", "nvme10"),
        ("nvme0", "nvme0"),
        ("sda1", "sda"),
        ("sdab", "sdab"),
        ("vda15", "vda"),
        ("xvda1", "xvda"),
        ("mmcblk0p1", "mmcblk0"),
        ("dm-3", "dm-3"),
        ("md127", "md127"),
        ("loop0p1", "loop0"),
    ] {
        assert_eq!(disk(device), expected);
    }
}
