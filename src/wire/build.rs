//! Generates the types and services of `proto/tapio/v1/tapio.proto`. protox parses it: no protoc
//! needed.

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// The folder of the protocol definitions, relative to this package.
const PROTO: &str = "../../proto";

fn main() -> Outcome {
    let proto = format!("{PROTO}/tapio/v1/tapio.proto");
    println!("cargo::rerun-if-changed={proto}");
    let mut compiler = protox::Compiler::new([PROTO])?;
    compiler.include_imports(true).include_source_info(true).open_file(proto)?;
    // For server reflection, with the comments: clients show them.
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("tapio.v1.bin"), compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure().compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
