//! Makes two sabotaged copies of the wake protocol, each without one of its fences, so that the
//! model can show that it would find a lost wake-up.

use std::path::Path;

const FENCE: &str = "fence(Ordering::SeqCst);";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let source = "../../src/ring/wake.rs";
    println!("cargo::rerun-if-changed={source}");
    // An included file can't begin with documentation of the module it is included into.
    let text: String = std::fs::read_to_string(source)?
        .lines()
        .filter(|line| !line.starts_with("//!"))
        .map(|line| format!("{line}\n"))
        .collect();
    let out = std::env::var("OUT_DIR")?;
    for (method, file) in [("fn doze", "no_doze_fence.rs"), ("fn ring", "no_ring_fence.rs")] {
        let method = text.find(method).ok_or("the method to sabotage is gone")?;
        let fence = method + text[method..].find(FENCE).ok_or("the fence to remove is gone")?;
        let mut sabotaged = text.clone();
        sabotaged.replace_range(fence..fence + FENCE.len(), "");
        std::fs::write(Path::new(&out).join(file), sabotaged)?;
    }
    Ok(())
}
