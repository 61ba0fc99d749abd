//! The modules of each package and what they import from each other.

use std::collections::{BTreeMap, BTreeSet};

use crate::text::Source;

/// A module's path below its package's root: `[]` is the root itself.
type Module = Vec<String>;

/// The import graph of one package.
#[derive(Default)]
pub(crate) struct Graph {
    files: BTreeMap<Module, String>,
    imports: BTreeMap<Module, BTreeSet<Module>>,
}

impl Graph {
    /// Builds the graph from the sources below `folder`, such as `src/core/`. `skip` names folders
    /// inside it that belong to other packages. Code behind `#[cfg(test)]` doesn't count.
    pub(crate) fn new(sources: &[Source], folder: &str, skip: &[&str]) -> Self {
        let mut graph = Self::default();
        let inside = |source: &&Source| {
            source.path.starts_with(folder) && !skip.iter().any(|s| source.path.starts_with(s))
        };
        let sources: Vec<&Source> = sources.iter().filter(inside).collect();
        for source in &sources {
            graph.files.insert(module_of(&source.path[folder.len()..]), source.path.clone());
        }
        for source in &sources {
            let module = module_of(&source.path[folder.len()..]);
            let paths = paths(&production_code(source));
            let used = paths.iter().filter_map(|path| graph.resolve(&module, path));
            let used = used.filter(|used| *used != module).collect();
            graph.imports.insert(module, used);
        }
        graph
    }

    /// Top modules, each with the top modules it imports.
    pub(crate) fn top_modules(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut tops: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (module, used) in &self.imports {
            let Some(top) = module.first() else { continue };
            let used = used.iter().filter_map(|u| u.first()).filter(|u| *u != top);
            tops.entry(top).or_default().extend(used.map(String::as_str));
        }
        tops
    }

    /// Each import cycle, by the files in it.
    pub(crate) fn cycles(&self) -> Vec<String> {
        let reachable: BTreeMap<&Module, BTreeSet<&Module>> =
            self.imports.keys().map(|m| (m, self.reachable(m))).collect();
        let mut cycles = BTreeSet::new();
        for (module, reached) in &reachable {
            if !reached.contains(module) {
                continue;
            }
            let files = reached.iter().filter(|m| reachable[**m].contains(module));
            let files: Vec<&str> = files.map(|m| self.files[*m].as_str()).collect();
            cycles.insert(format!("import cycle: {}", files.join(", ")));
        }
        cycles.into_iter().collect()
    }

    /// All modules that `from` imports, directly or not; `from` itself only when it is in a cycle.
    fn reachable(&self, from: &Module) -> BTreeSet<&Module> {
        let mut reached = BTreeSet::new();
        let mut left: Vec<&Module> = self.imports[from].iter().collect();
        while let Some(module) = left.pop() {
            if reached.insert(module) {
                left.extend(&self.imports[module]);
            }
        }
        reached
    }

    /// The module that a path leads to, seen from `module`; `None` outside of the package.
    fn resolve(&self, module: &Module, path: &[String]) -> Option<Module> {
        let mut base = match path.first()?.as_str() {
            "crate" => Vec::new(),
            "self" => module.clone(),
            "super" => {
                let ups = path.iter().take_while(|part| *part == "super").count();
                module[..module.len().checked_sub(ups)?].to_vec()
            }
            name => {
                let child = [module.as_slice(), &[name.to_owned()]].concat();
                self.files.contains_key(&child).then(|| module.clone())?
            }
        };
        let names = path.iter().filter(|part| !["crate", "self", "super"].contains(&part.as_str()));
        for name in names {
            base.push(name.clone());
            if !self.files.contains_key(&base) {
                base.pop();
                break;
            }
        }
        Some(base)
    }
}

/// `ring/wake.rs` is `[ring, wake]`, `ring/mod.rs` is `[ring]`, `lib.rs` is `[]`.
fn module_of(file: &str) -> Module {
    let mut parts: Module = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if parts.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        parts.pop();
    }
    parts
}

/// The code without comments, texts and what stands behind `#[cfg(test)]`, which ends a file.
fn production_code(source: &Source) -> String {
    let tests = source.lines.iter().zip(source.lines.iter().skip(1)).position(|(line, next)| {
        line.trim() == "#[cfg(test)]" && next.starts_with("mod ") && next.ends_with('{')
    });
    source.code[..tests.unwrap_or(source.code.len())].join("\n")
}

/// Every path in `use` declarations, and every path in code that begins with `crate`, `self` or
/// `super`.
fn paths(code: &str) -> Vec<Vec<String>> {
    let tokens = tokens(code);
    let mut out = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        if tokens[i] == "use" {
            let end = tokens[i..].iter().position(|t| *t == ";").map_or(tokens.len(), |n| i + n);
            use_tree(&tokens[i + 1..end], &mut Vec::new(), &mut out);
            i = end;
        } else if ["crate", "self", "super"].contains(&tokens[i])
            && tokens.get(i + 1) == Some(&"::")
        {
            let mut path = vec![tokens[i].to_owned()];
            while tokens.get(i + 1) == Some(&"::") && tokens.get(i + 2).is_some_and(|t| is_name(t))
            {
                path.push(tokens[i + 2].to_owned());
                i += 2;
            }
            out.push(path);
        }
        i += 1;
    }
    out
}

/// Expands `a::{b, c::d}` below `prefix`.
fn use_tree(tokens: &[&str], prefix: &mut Vec<String>, out: &mut Vec<Vec<String>>) {
    let depth = prefix.len();
    let mut i = 0;
    while i < tokens.len() {
        match tokens[i] {
            "{" => {
                let mut open = 0;
                let close = tokens[i..].iter().position(|t| {
                    open += i32::from(*t == "{") - i32::from(*t == "}");
                    open == 0
                });
                let close = close.map_or(tokens.len(), |n| i + n);
                use_tree(&tokens[i + 1..close], prefix, out);
                prefix.truncate(depth);
                i = close;
            }
            "," => {
                if prefix.len() > depth {
                    out.push(prefix.clone());
                }
                prefix.truncate(depth);
            }
            "as" => i += 1,
            name if is_name(name) => prefix.push(name.to_owned()),
            _ => {}
        }
        i += 1;
    }
    if prefix.len() > depth {
        out.push(prefix.clone());
    }
    prefix.truncate(depth);
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

fn tokens(code: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let len = if is_name(rest) {
            rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        if !first.is_whitespace() {
            out.push(&rest[..len]);
        }
        rest = &rest[len..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(files: &[(&str, &str)]) -> Graph {
        let sources: Vec<Source> = files.iter().map(|(p, t)| Source::new(p, t)).collect();
        Graph::new(&sources, "src/x/", &["src/x/other/"])
    }

    #[test]
    fn cycle_between_siblings_is_found() {
        let files = [
            ("src/x/lib.rs", "mod a; mod b;"),
            ("src/x/a.rs", "use crate::b::{self, B};"),
            ("src/x/b.rs", "fn f() -> super::a::A { todo!() }"),
        ];
        assert_eq!(graph(&files).cycles(), ["import cycle: src/x/a.rs, src/x/b.rs"]);
        let mut one_way = files;
        one_way[2].1 =
            "// use super::a::A;\n#[cfg(test)]\nmod tests {\n use super::super::a::A;\n}";
        assert_eq!(graph(&one_way).cycles(), [""; 0]);
    }

    #[test]
    fn cycle_between_a_folder_and_its_own_file_is_found() {
        let files = [
            ("src/x/lib.rs", "mod a;"),
            ("src/x/a/mod.rs", "mod c; pub use c::C; pub struct D;"),
            ("src/x/a/c.rs", "use super::D; pub struct C;"),
        ];
        assert_eq!(graph(&files).cycles(), ["import cycle: src/x/a/mod.rs, src/x/a/c.rs"]);
    }

    #[test]
    fn cycle_over_three_files_is_found_once() {
        let files = [
            ("src/x/a.rs", "use crate::{b::{c::C, D}, e};"),
            ("src/x/b/mod.rs", "pub struct D;"),
            ("src/x/b/c.rs", "use crate::e::E as F;"),
            ("src/x/e.rs", "use crate::a::A;"),
            ("src/x/other/f.rs", "use crate::f::A;"),
        ];
        let expected = ["import cycle: src/x/a.rs, src/x/b/c.rs, src/x/e.rs"];
        assert_eq!(graph(&files).cycles(), expected);
    }

    #[test]
    fn top_modules_import_top_modules() {
        let files = [
            ("src/x/a/mod.rs", "use tapio_core::ring; use std::fmt;"),
            ("src/x/a/deep.rs", "use crate::b::B; use super::other;"),
            ("src/x/b.rs", ""),
        ];
        let graph = graph(&files);
        let tops = graph.top_modules();
        assert_eq!(tops["a"], BTreeSet::from(["b"]));
        assert_eq!(tops["b"], BTreeSet::new());
    }
}
