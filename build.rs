//! Generates the gRPC types from `proto/` (protox parses them: no protoc needed) and embeds the rules
//! of `rules/`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    protocol()?;
    rules()
}

/// Lists the rule files with their texts: one file for a rule, nothing else to edit.
fn rules() -> Outcome {
    println!("cargo::rerun-if-changed=rules");
    let mut files: Vec<PathBuf> = std::fs::read_dir("rules")?
        .map(|e| e.map(|e| e.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|f| f.extension().is_some_and(|e| e == "yaml"));
    files.sort();
    let mut code = String::from(
        "/// The rules that come with tapio: file and text.\nconst BUILTIN: &[(&str, &str)] = &[\n",
    );
    for file in files {
        let full = file.canonicalize()?;
        writeln!(
            code,
            "    ({:?}, include_str!({:?})),",
            file.display().to_string(),
            full.display().to_string()
        )?;
    }
    code.push_str("];\n");
    let out = std::env::var_os("OUT_DIR").ok_or("OUT_DIR isn't set")?;
    std::fs::write(Path::new(&out).join("builtin_rules.rs"), code)?;
    Ok(())
}

fn protocol() -> Outcome {
    let proto = Path::new("proto/tapio/v1/tapio.proto");
    println!("cargo::rerun-if-changed={}", proto.display());
    let descriptors = protox::compile([proto], ["proto"])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
