//! Skipping of tests where the host lacks what they need.

/// Prints why a test is skipped. Fails instead with `TAPIO_REQUIRE_KERNEL=1`.
pub(crate) fn skipped(why: &str) {
    let is_required = std::env::var_os("TAPIO_REQUIRE_KERNEL").is_some_and(|v| v == "1");
    assert!(!is_required, "TAPIO_REQUIRE_KERNEL=1, but {why}");
    println!("skipped: {why}");
}
