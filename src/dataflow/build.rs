//! Embeds the built-in rules of `rules/`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// The folder of the built-in rules, as seen from this package.
const RULES: &str = "../../rules";

fn main() -> Outcome {
    let out: PathBuf = std::env::var_os("OUT_DIR").ok_or("no OUT_DIR")?.into();
    rules(&out)
}

/// Generates the list of rule files with their texts, so a new rule is one new file.
fn rules(out: &Path) -> Outcome {
    println!("cargo::rerun-if-changed={RULES}");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(RULES)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    files.retain(|f| f.extension().is_some_and(|e| e == "yaml"));
    files.sort();
    let mut code = String::from(
        "/// The built-in rules: file and text.\nconst BUILTIN: &[(&str, &str)] = &[\n",
    );
    for file in files {
        let full = file.canonicalize()?;
        writeln!(
            code,
            "    ({:?}, include_str!({:?})),",
            format!("rules/{}", file.file_name().ok_or("a rule without a file name")?.display()),
            full.display().to_string()
        )?;
    }
    code.push_str("];\n");
    std::fs::write(out.join("builtin_rules.rs"), code)?;
    Ok(())
}
