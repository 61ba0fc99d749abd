//! A disk that is smaller than what the spool would keep.

use super::World;

/// A fifth of the spool's budget, all of which it would keep for the ids.
const CAPACITY_BYTES: u64 = 96 * 1024;
const EVENTS: u64 = 20_000;

#[test]
fn answered_batches_make_room_on_a_full_disk() {
    for seed in 0..4 {
        let mut world = World::new(seed);
        world.agent_disk.set_capacity(Some(CAPACITY_BYTES));
        let mut passes = 0;
        while world.next_event < EVENTS {
            passes += 1;
            assert!(passes < 4 * EVENTS, "seed {seed}: stopped at event {}", world.next_event);
            world.now_ns += 1_000_000;
            world.offer();
            world.pass();
        }
        world.heal();
        let agent = world.agent.as_ref().unwrap();
        assert_eq!(super::dropped(&agent.ledger), 0, "seed {seed}");
        world.check();
    }
}
