//! The graph compared with a plain list of facts.

use proptest::prelude::*;

use super::super::entity::EntityKind;
use super::*;

fn bounds(entities: usize) -> Bounds {
    Bounds { entities, ..Bounds::LIVE }
}

fn pod(name: &str) -> Entity {
    Entity::new(EntityKind::Pod, name)
}

fn edge(from: Entity, relation: Relation, to: Entity) -> Edge {
    Edge { from, relation, to }
}

fn node() -> Entity {
    Entity::new(EntityKind::Node, "n")
}

#[derive(Clone, Debug)]
enum Fact {
    Seen(usize, u32),
    Parted(usize, u32),
    Ended(usize, u32),
}

fn fact() -> impl Strategy<Value = Fact> {
    (0u8..4, 0usize..6, 0u32..600).prop_map(|(choice, which, second)| match choice {
        0 => Fact::Parted(which, second),
        1 => Fact::Ended(which % 3, second),
        _ => Fact::Seen(which, second),
    })
}

/// Six edges between three entities.
fn pool() -> (Vec<Entity>, Vec<Edge>) {
    let entities = vec![pod("a"), pod("b"), node()];
    let [a, b, n] = [entities[0].clone(), entities[1].clone(), entities[2].clone()];
    let edges = vec![
        edge(a.clone(), Relation::ScheduledOn, n.clone()),
        edge(b.clone(), Relation::ScheduledOn, n),
        edge(a.clone(), Relation::TalksTo, b.clone()),
        edge(b.clone(), Relation::TalksTo, a.clone()),
        edge(a.clone(), Relation::Mounts, b.clone()),
        edge(b, Relation::Provides, a),
    ];
    (entities, edges)
}

/// Evaluates the definition over a plain list of facts.
fn naive(facts: &[Fact], which: usize, second: u32) -> bool {
    let (entities, edges) = pool();
    let edge = &edges[which];
    let seen = facts.iter().filter_map(|f| match f {
        Fact::Seen(w, s) if *w == which && *s <= second => Some(*s),
        _ => None,
    });
    let Some(seen) = seen.max() else { return false };
    let ended = facts.iter().any(|f| match f {
        Fact::Parted(w, s) => *w == which && (seen..second).contains(s),
        Fact::Ended(e, s) => {
            [&edge.from, &edge.to].contains(&&entities[*e]) && (seen..second).contains(s)
        }
        Fact::Seen(..) => false,
    });
    second - seen <= edge.relation.max_age_s() && !ended
}

fn graph_of(facts: &[Fact]) -> Graph {
    let (entities, edges) = pool();
    let mut graph = Graph::new(bounds(64));
    for fact in facts {
        match fact {
            Fact::Seen(which, second) => graph.add_edge(&edges[*which], *second),
            Fact::Parted(which, second) => graph.end_edge(&edges[*which], *second),
            Fact::Ended(which, second) => graph.end_entity(&entities[*which], *second),
        }
    }
    graph
}

fn answer(graph: &Graph, edge: &Edge, second: u32) -> bool {
    graph.related(&edge.from, edge.relation, true, second).contains(&&edge.to)
}

proptest! {
    #[test]
    fn answers_equal_a_naive_list(facts in prop::collection::vec(fact(), 0..40), second in 0u32..700) {
        let graph = graph_of(&facts);
        for (which, edge) in pool().1.iter().enumerate() {
            prop_assert_eq!(answer(&graph, edge, second), naive(&facts, which, second));
        }
    }

    #[test]
    fn later_facts_change_no_earlier_answer(
        facts in prop::collection::vec(fact(), 1..40), second in 0u32..700, keep in 0usize..40,
    ) {
        let time = |f: &Fact| match f {
            Fact::Seen(_, s) | Fact::Parted(_, s) | Fact::Ended(_, s) => *s,
        };
        let mut reversed = facts.clone();
        reversed.reverse();
        let mut earlier = facts.clone();
        let mut index = 0;
        // Any part of the later facts may be missing.
        earlier.retain(|f| {
            index += 1;
            time(f) <= second || index > keep
        });
        for other in [&reversed, &earlier] {
            let (one, two) = (graph_of(&facts), graph_of(other));
            for edge in &pool().1 {
                prop_assert_eq!(answer(&one, edge, second), answer(&two, edge, second));
            }
        }
    }
}

#[test]
fn dependencies_are_reachable_up_and_down() {
    let mut graph = Graph::new(bounds(64));
    let [client, endpoint, server] =
        [pod("client"), Entity::new(EntityKind::Endpoint, "e"), pod("server")];
    graph.add_edge(&edge(client.clone(), Relation::TalksTo, endpoint.clone()), 10);
    graph.add_edge(&edge(server.clone(), Relation::Provides, endpoint.clone()), 10);
    graph.add_edge(&edge(server.clone(), Relation::ScheduledOn, node()), 10);
    let up: Vec<_> = graph.reachable(&client, true, 3, 20);
    assert_eq!(up, [(1, &endpoint), (2, &server), (3, &node())]);
    assert_eq!(graph.reachable(&client, true, 2, 20).len(), 2);
    let down: Vec<_> = graph.reachable(&node(), false, 3, 20);
    assert_eq!(down, [(1, &server), (2, &endpoint), (3, &client)]);
    assert!(graph.reachable(&client, true, 3, 9).is_empty(), "not seen yet");
    assert!(graph.reachable(&client, true, 3, 400).is_empty(), "seen too long ago");
}

#[test]
fn least_recently_used_entity_is_evicted_with_its_edges() {
    let mut graph = Graph::new(bounds(3));
    graph.add_edge(&edge(pod("a"), Relation::ScheduledOn, node()), 1);
    graph.add_edge(&edge(pod("b"), Relation::ScheduledOn, node()), 2);
    graph.add_edge(&edge(pod("c"), Relation::ScheduledOn, node()), 3);
    assert_eq!((graph.len(), graph.edge_count(), graph.evicted()), (3, 2, 1));
    let on_node: Vec<_> = graph.related(&node(), Relation::ScheduledOn, false, 5);
    assert_eq!(on_node, [&pod("b"), &pod("c")]);
}

#[test]
fn entities_are_described_by_enclosing_entity_and_label() {
    let mut graph = Graph::new(bounds(8));
    let process = Entity::new(EntityKind::Process, "h/4711:99887766");
    let container = Entity::new(EntityKind::Container, "c1");
    graph.add_edge(&edge(container.clone(), Relation::RunsIn, pod("a")), 5);
    assert_eq!(graph.enclosing(&process, 9), &process);
    graph.add_edge(&edge(process.clone(), Relation::RunsIn, container.clone()), 5);
    assert_eq!(graph.enclosing(&process, 9), &pod("a"));
    assert_eq!(graph.enclosing(&container, 9), &pod("a"));
    assert_eq!(graph.enclosing(&pod("a"), 9), &pod("a"));
    assert_eq!(graph.enclosing(&process, 4), &process, "as of second 4");
    assert_eq!(graph.describe(&process), "process 4711");
    graph.set_label(&process, "nginx", 5);
    assert_eq!(graph.describe(&process), "process nginx (pid 4711)");
    assert_eq!(graph.affected(&process).to_string(), "process nginx");
}

#[test]
fn states_hold_from_their_second() {
    let mut graph = Graph::new(bounds(8));
    graph.set_ready(&pod("a"), true, 10);
    graph.set_ready(&pod("a"), false, 20);
    graph.set_criticality(&pod("a"), Criticality::High, 15);
    graph.set_label(&pod("a"), "shop/web-1", 10);
    let at = |second| graph.is_ready(&pod("a"), second);
    assert_eq!([at(9), at(10), at(19), at(20)], [None, Some(true), Some(true), Some(false)]);
    assert_eq!(graph.criticality(&pod("a"), 14), None);
    assert_eq!(graph.criticality(&pod("a"), 99), Some(Criticality::High));
    assert_eq!(graph.describe(&pod("a")), "pod shop/web-1");
    assert_eq!(graph.describe(&pod("b")), "pod b");
}
