//! Compiles the eBPF object from `ebpf/` with clang, generates the clients of containerd and the
//! CRI from `proto/` (parsed by protox, without protoc), and reads the names of system calls and
//! errors from the kernel's headers.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// The folder of the eBPF programs, relative to this package.
const EBPF: &str = "../../ebpf";
/// The folder of the protocol definitions, relative to this package.
const PROTO: &str = "../../proto";

fn main() -> Outcome {
    let out: PathBuf = std::env::var_os("OUT_DIR").ok_or("no OUT_DIR")?.into();
    println!("cargo::rerun-if-env-changed=CLANG");
    generate_clients()?;
    compile_ebpf(&out)?;
    write_names(&out)
}

/// Generates clients only: other programs serve these protocols.
fn generate_clients() -> Outcome {
    let mut files = vec![PathBuf::from(PROTO).join("cri.proto")];
    for file in std::fs::read_dir(Path::new(PROTO).join("containerd"))? {
        files.push(file?.path());
    }
    files.sort();
    for file in &files {
        println!("cargo::rerun-if-changed={}", file.display());
    }
    let descriptors = protox::compile(files, [PROTO])?;
    tonic_prost_build::configure().build_server(false).compile_fds(descriptors)?;
    Ok(())
}

fn clang() -> Command {
    Command::new(std::env::var_os("CLANG").unwrap_or_else(|| "clang".into()))
}

/// Runs clang on `source` and returns its output. Its diagnostics are the error.
fn run(command: &mut Command, source: &str) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let output = command.stdin(Stdio::null()).output().map_err(|e| {
        format!(
            "{source}: can't run clang ({e}). `make deps` installs it; CLANG selects another one."
        )
    })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let diagnostics = String::from_utf8_lossy(&output.stderr);
    let hint = if diagnostics.contains("bpf/bpf_") {
        "\nlibbpf's headers are missing: `make deps` installs libbpf-dev."
    } else if diagnostics.contains("file not found") {
        "\nthe kernel's headers are missing: `make deps` installs linux-libc-dev."
    } else {
        ""
    };
    Err(format!("{source}: clang failed:\n{diagnostics}{hint}").into())
}

/// The host's directory of kernel headers, which clang doesn't search for `-target bpf`.
fn header_directory(arch: &str) -> String {
    format!("/usr/include/{arch}-linux-gnu")
}

fn compile_ebpf(out: &Path) -> Outcome {
    println!("cargo::rerun-if-changed={EBPF}");
    for file in std::fs::read_dir(EBPF)? {
        println!("cargo::rerun-if-changed={}", file?.path().display());
    }
    let arch = std::env::var("CARGO_CFG_TARGET_ARCH")?;
    let kernel_arch = match arch.as_str() {
        "x86_64" => "x86",
        "aarch64" => "arm64",
        other => return Err(format!("tapio's eBPF programs don't support {other} yet").into()),
    };
    // v3: atomics that return the old value (Linux 5.12), which the wake-up protocol needs.
    run(
        clang()
            .args(["-target", "bpf", "-mcpu=v3", "-O2", "-g"])
            .args(["-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter"])
            .arg(format!("-D__TARGET_ARCH_{kernel_arch}"))
            .args(["-idirafter", &header_directory(&arch)])
            .args(["-c", &format!("{EBPF}/tapio.bpf.c"), "-o"])
            .arg(out.join("tapio.bpf.o")),
        "ebpf/tapio.bpf.c",
    )?;
    Ok(())
}

/// Returns a Rust constant with the number and name of every `#define` in `header` that `name_of`
/// accepts.
fn table(
    constant: &str,
    header: &str,
    arch: &str,
    name_of: impl Fn(&str) -> Option<String>,
) -> Result<String, Box<dyn std::error::Error>> {
    let macros = run(
        clang()
            .args(["-E", "-dM", "-x", "c", "-include", header, "/dev/null"])
            .args(["-idirafter", &header_directory(arch)]),
        header,
    )?;
    let mut rows: Vec<(u32, String)> = String::from_utf8(macros)?
        .lines()
        .filter_map(|line| {
            let mut words = line.strip_prefix("#define ")?.split_whitespace();
            let name = name_of(words.next()?)?;
            Some((words.next()?.parse().ok()?, name))
        })
        .collect();
    rows.sort();
    rows.dedup_by_key(|row| row.0);
    let mut text = format!("pub(super) const {constant}: &[(u32, &str)] = &[\n");
    for (number, name) in rows {
        writeln!(text, "    ({number}, {name:?}),")?;
    }
    text.push_str("];\n");
    Ok(text)
}

fn write_names(out: &Path) -> Outcome {
    let arch = std::env::var("CARGO_CFG_TARGET_ARCH")?;
    let mut text = table("SYSCALLS", "asm/unistd.h", &arch, |name| {
        name.strip_prefix("__NR_").map(str::to_owned)
    })?;
    text += &table("ERRORS", "asm/errno.h", &arch, |name| {
        name.starts_with('E').then(|| name.to_owned())
    })?;
    std::fs::write(out.join("kernel_names.rs"), text)?;
    Ok(())
}
