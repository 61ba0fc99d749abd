//! Somebody deletes, truncates and damages segments of the spool while no agent runs.

use std::path::Path;

use super::{STEPS, World, run_each};

const SEEDS: u64 = 500;

impl World {
    /// Kills the agent after its checkpoint, and changes a segment of its spool.
    fn tamper(&mut self) {
        if self.agent.is_none() {
            // It was killed without a checkpoint.
            return;
        }
        self.agent_disk.fail_syncs(0);
        self.agent_disk.set_read_only(false);
        self.agent_disk.set_capacity(None);
        self.maintain();
        self.kill_agent(false);
        let is_segment = |path: &Path| path.extension().is_some_and(|end| end == "tapio");
        let mut segments = self.agent_disk.paths();
        segments.retain(|path| path.starts_with("/spool") && is_segment(path));
        if segments.is_empty() {
            return;
        }
        let segment = &segments[self.rng.below(segments.len() as u64) as usize];
        let mut bytes = self.agent_disk.contents(segment);
        let at = self.rng.below(bytes.len() as u64 + 1) as usize;
        match self.rng.below(3) {
            0 => return self.agent_disk.delete(segment),
            1 => bytes.truncate(at),
            _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 0x10),
        }
        self.agent_disk.put(segment, &bytes);
    }
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        match world.rng.below(30) {
            0 => world.tamper(),
            _ => world.step(),
        }
    }
    world.heal();
    world.check();
}

#[test]
fn no_more_is_lost_than_is_counted_whatever_somebody_does_to_the_spool() {
    run_each(SEEDS, run);
}
