//! The commands, files and tests that documents name have to exist.

use std::path::Path;

/// The two commands that a newcomer needs.
pub(crate) fn commands(name: &str, text: &str) -> Vec<String> {
    ["make run", "make test"]
        .iter()
        .filter(|command| !text.contains(**command))
        .map(|command| format!("{name}: doesn't show `{command}`"))
        .collect()
}

/// Each `path` and `path::test_name` in backticks must exist. Everything else is ignored: it has no
/// folder of this repository.
pub(crate) fn references(name: &str, text: &str, root: &Path) -> Vec<String> {
    let mut out = Vec::new();
    // A quoted piece may continue on the next line, but not past the paragraph.
    let (mut fenced, mut open) = (false, false);
    for (i, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced || line.trim().is_empty() || line.trim_start().starts_with("```") {
            open = false;
            continue;
        }
        for (n, piece) in line.split('`').enumerate() {
            if n > 0 {
                open = !open;
            }
            if let Some(problem) = open.then(|| missing(piece, root)).flatten() {
                out.push(format!("{name}:{}: `{piece}`: {problem}", i + 1));
            }
        }
    }
    out
}

fn missing(quoted: &str, root: &Path) -> Option<String> {
    let (path, item) = quoted.split_once("::").unwrap_or((quoted, ""));
    let top = path.split('/').next()?;
    let ours = ["src", "tests", "benches", "ebpf", "scripts", "proto", "rules", "perf", ".ci"];
    let is_path = ours.contains(&top) && path.contains('/');
    // Patterns and names to be filled in (`tests/*.rs`, `rules/{a,b}.yaml`, `src/X`) are prose.
    if !is_path || path.contains(['*', '{', ' ', '…', '<', '$']) {
        return None;
    }
    let file = root.join(path.trim_end_matches('/'));
    if !file.exists() {
        return Some("no such file".into());
    }
    let test = item.rsplit("::").next().filter(|t| !t.is_empty())?;
    let found = if file.is_dir() {
        let mut inside = std::fs::read_dir(&file).ok()?.flatten();
        inside.any(|e| defines(&e.path(), test))
    } else {
        // The modules of an integration test are in the folder of its name.
        let folder = file.with_extension("");
        let inside = std::fs::read_dir(folder).into_iter().flatten().flatten();
        defines(&file, test) || inside.map(|e| e.path()).any(|p| defines(&p, test))
    };
    (!found).then(|| format!("no `fn {test}` there"))
}

fn defines(file: &Path, test: &str) -> bool {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    ["(", "<"].iter().any(|end| text.contains(&format!("fn {test}{end}")))
}

#[test]
fn missing_commands_files_and_tests_are_found() {
    assert_eq!(commands("README.md", "make run, make demo").len(), 1);
    assert_eq!(commands("README.md", "`make run` and `make test`").len(), 0);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = |text: &str| references("SPEC.md", text, root).len();
    assert_eq!(found("`tests/nowhere.rs`"), 1);
    assert_eq!(found("`tests/architecture.rs::no_such_test`, `src/nowhere/`"), 2);
    assert_eq!(found("`tests/architecture.rs::packages_have_no_import_cycles`"), 0);
    assert_eq!(found("`tests/core/threads.rs::two_threads_lose_nothing_and_sleep_when_idle`"), 0);
    assert_eq!(found("`tests/architecture.rs`, `k8s.pod`, `tests/*.rs`, `a::b`"), 0);
    assert_eq!(found("`a torn\nquote`, `src/nowhere.rs`"), 1);
    assert_eq!(found("not closed: `\n\n`tests/nowhere.rs`"), 1);
    assert_eq!(found("```\n`tests/nowhere.rs`\n```"), 0);
    let place = references("SPEC.md", "\n`src/nowhere.rs`", root);
    assert_eq!(place, ["SPEC.md:2: `src/nowhere.rs`: no such file"]);
}
