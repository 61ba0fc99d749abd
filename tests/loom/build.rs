//! Makes sabotaged copies, so that the models can show that they would find a lost wake-up: of the wake protocol
//! without one of its fences, and of a signal that is raised after it has taken the wakers.

use std::path::Path;

const FENCE: &str = "fence(Ordering::SeqCst);";

const RAISE: &str = "self.raised.store(true, Ordering::Release);";
const WAKE: &str = "wakers.into_iter()";

/// A file's text. An included file can't begin with documentation of the module it is included into.
fn text(source: &str) -> std::io::Result<String> {
    println!("cargo::rerun-if-changed={source}");
    let text = std::fs::read_to_string(source)?;
    Ok(text
        .lines()
        .filter(|line| !line.starts_with("//!"))
        .map(|line| format!("{line}\n"))
        .collect())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let text_of_signal = text("../../src/ring/signal.rs")?;
    if [RAISE, WAKE].iter().any(|part| text_of_signal.matches(part).count() != 1) {
        return Err("what is to be sabotaged of the signal is gone".into());
    }
    let out = std::env::var("OUT_DIR")?;
    let raised_late = text_of_signal.replace(RAISE, "").replace(WAKE, &format!("{RAISE} {WAKE}"));
    std::fs::write(Path::new(&out).join("raised_late.rs"), raised_late)?;
    let text = text("../../src/ring/wake.rs")?;
    for (method, file) in [("fn doze", "no_doze_fence.rs"), ("fn ring", "no_ring_fence.rs")] {
        let method = text.find(method).ok_or("the method to sabotage is gone")?;
        let fence = method + text[method..].find(FENCE).ok_or("the fence to remove is gone")?;
        let mut sabotaged = text.clone();
        sabotaged.replace_range(fence..fence + FENCE.len(), "");
        std::fs::write(Path::new(&out).join(file), sabotaged)?;
    }
    Ok(())
}
