//! The rules of the house that a machine can hold: layers and import cycles, sizes, unsafe code,
//! clocks, words, and documents that name only what exists. Each test lists every violation, with
//! its place.
//!
//! Each check has a test of its own that plants a violation.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "architecture/checks.rs"]
mod checks;
#[path = "architecture/documents.rs"]
mod documents;
#[path = "architecture/layers.rs"]
mod layers;
#[path = "architecture/modules.rs"]
mod modules;
#[path = "architecture/text.rs"]
mod text;
#[path = "architecture/words.rs"]
mod words;

use std::path::{Path, PathBuf};

use checks::{clocks, functions, sizes, unfinished, unsafe_code};
use text::Source;

/// Files of the repository below these folders with one of these endings, sorted.
fn files(folders: &[&str], endings: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut out = Vec::new();
    let mut left: Vec<PathBuf> = folders.iter().map(|f| root.join(f)).collect();
    while let Some(path) = left.pop() {
        if path.is_dir() {
            // Build output of the packages below tests/.
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
    assert!(!sources.is_empty(), "no sources found");
    assert_none(sources.iter().flat_map(check).collect());
}

#[test]
fn packages_have_no_import_cycles() {
    let sources = files(&["src"], &["rs"]);
    let cycles = layers::PACKAGES.iter().flat_map(|p| p.graph(&sources).cycles());
    assert_none(cycles.collect());
}

#[test]
fn modules_import_lower_layers_only() {
    let sources = files(&["src"], &["rs"]);
    let violations = layers::PACKAGES.iter().flat_map(|p| p.violations(&p.graph(&sources)));
    assert_none(violations.collect());
    check(&sources, layers::forbidden_libraries);
}

#[test]
fn files_and_functions_have_bounded_sizes() {
    let rust = files(&["src", "tests", "benches"], &["rs"]);
    check(&rust, sizes);
    check(&rust, functions);
    check(&files(&["ebpf"], &["c", "h"]), sizes);
}

#[test]
fn unsafe_code_is_listed_and_explained() {
    check(&files(&["src"], &["rs"]), unsafe_code);
}

#[test]
fn clocks_are_read_in_one_place() {
    check(&files(&["src"], &["rs"]), clocks);
}

#[test]
fn comments_names_and_messages_are_plain() {
    let rust = files(&["src", "tests", "benches"], &["rs"]);
    check(&rust, words::comments);
    check(&rust, words::names);
}

#[test]
fn nothing_is_left_unfinished() {
    let folders = ["src", "tests", "benches", "ebpf", "scripts", "rules", "proto", "Makefile"];
    check(&files(&folders, &["rs", "c", "h", "sh", "yaml", "proto"]), unfinished);
}

#[test]
fn every_collector_has_its_file() {
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
fn documents_name_only_what_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    assert_none(documents::commands("README.md", &readme));
    for document in files(&["docs"], &["md"]).iter().map(|d| d.path.clone()).chain(
        ["README.md", "SPEC.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"]
            .map(str::to_owned),
    ) {
        let text = std::fs::read_to_string(root.join(&document)).unwrap();
        assert_none(documents::references(&document, &text, root));
    }
}
