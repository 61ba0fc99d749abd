//! The rules of taste that a machine can hold: directions, sizes, unsafe code, clocks, and that the
//! documents name what exists. Every violation is listed at once, with its place.
//!
//! Each check has a test that shows it a violation, so that none of them is asleep.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "architecture/checks.rs"]
mod checks;
#[path = "architecture/documents.rs"]
mod documents;
#[path = "architecture/text.rs"]
mod text;

use std::path::{Path, PathBuf};

use checks::{clocks, directions, functions, sizes, unfinished, unsafe_code};
use text::Source;

/// Files of the repository below these folders with one of these endings, sorted.
fn files(folders: &[&str], endings: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut out = Vec::new();
    let mut left: Vec<PathBuf> = folders.iter().map(|f| root.join(f)).collect();
    while let Some(path) = left.pop() {
        if path.is_dir() {
            // Built by the packages of their own below tests/.
            if path.file_name().is_some_and(|n| n == "target") {
                continue;
            }
            left.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        } else if path.extension().is_some_and(|e| endings.iter().any(|x| e == *x)) {
            let name = path.strip_prefix(root).unwrap().display().to_string();
            out.push(Source::new(&name, &std::fs::read_to_string(&path).unwrap()));
        }
    }
    out.sort_by(|a, b| a.path.cmp(&b.path));
    out
}

fn assert_none(violations: Vec<String>) {
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

fn check(sources: &[Source], check: impl Fn(&Source) -> Vec<String>) {
    assert!(!sources.is_empty(), "nothing to look at");
    assert_none(sources.iter().flat_map(check).collect());
}

#[test]
fn dependencies_point_one_way() {
    check(&files(&["src"], &["rs"]), directions);
}

#[test]
fn files_and_functions_have_a_size_a_person_can_hold() {
    let rust = files(&["src", "tests", "benches", "build.rs"], &["rs"]);
    check(&rust, sizes);
    check(&rust, functions);
    let ebpf = files(&["ebpf"], &["c", "h"]);
    // vmlinux.h would be generated; what is written by hand is small.
    assert_none(ebpf.iter().flat_map(sizes).collect());
}

#[test]
fn unsafe_code_is_where_it_may_be_and_says_why() {
    check(&files(&["src"], &["rs"]), unsafe_code);
}

#[test]
fn clocks_are_read_in_one_place() {
    check(&files(&["src"], &["rs"]), clocks);
}

#[test]
fn nothing_is_left_unfinished() {
    check(
        &files(
            &[
                "src", "tests", "benches", "ebpf", "scripts", "rules", "proto", "build.rs",
                "Makefile",
            ],
            &["rs", "c", "h", "sh", "yaml", "proto"],
        ),
        unfinished,
    );
}

#[test]
fn every_collector_of_the_table_has_its_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rows = tapio_collectors::CollectorsConfig::default().rows();
    assert!(rows.len() >= 2);
    assert_none(
        rows.iter()
            .filter(|row| {
                let module = root.join("src/collector").join(row.name);
                !module.with_extension("rs").exists() && !module.join("mod.rs").exists()
            })
            .map(|row| format!("src/collector/table.rs: {} has no file", row.name))
            .collect(),
    );
}

#[test]
fn the_documents_name_what_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| std::fs::read_to_string(root.join(name)).ok();
    if let Some(readme) = read("README.md") {
        assert_none(documents::commands("README.md", &readme));
    }
    for name in ["SPEC.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"] {
        if let Some(text) = read(name) {
            assert_none(documents::references(name, &text, root));
        }
    }
}
