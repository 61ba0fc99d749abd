//! Tests that one seed decides.

/// Runs the test with each seed up to `seeds`, or with the one in `TAPIO_SEED`.
pub(crate) fn run_each(seeds: u64, run: impl Fn(u64)) {
    match std::env::var("TAPIO_SEED") {
        Ok(seed) => run(seed.parse().unwrap()),
        Err(_) => (0..seeds).for_each(run),
    }
}
