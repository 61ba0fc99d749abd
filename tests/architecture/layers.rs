//! The packages, the order of their top modules, and the imports that this order allows. The
//! compiler enforces the directions between packages, so they aren't repeated here.

use std::collections::BTreeSet;

use crate::modules::Graph;
use crate::text::Source;

/// A package: its folder, and its top modules from the bottom up. A module may import those of
/// earlier rows; modules of one row don't import each other.
pub(crate) struct Package {
    pub(crate) folder: &'static str,
    pub(crate) layers: &'static [&'static [&'static str]],
}

/// Every package of the workspace. A module that isn't listed fails the test.
pub(crate) const PACKAGES: &[Package] = &[
    Package {
        folder: "src/core/",
        layers: &[
            &[
                "backoff",
                "clock",
                "closed_list",
                "counters",
                "cpu",
                "durations",
                "glob",
                "grams",
                "sandbox",
                "shutdown",
                "sizes",
                "text_prefix",
            ],
            &["event"],
            &["identity", "memory", "redact"],
            &["log_line"],
            &["ring"],
        ],
    },
    Package {
        folder: "src/wire/",
        layers: &[
            &[
                "buffer",
                "codec",
                "first_answer",
                "proto",
                "reader",
                "sequence_tracker",
                "signature",
                "tls",
            ],
            &["access", "agent", "dialer", "proto_vec", "secret_file"],
            &["door", "http_client", "http_post"],
            &["otlp", "otlp_schema", "raw_event", "story"],
            &["otlp_raw", "raw_log_block"],
            &["decode", "otlp_json"],
            &["retry_info", "encode", "service", "otlp_out", "otlp_response"],
            &["log_block"],
            &["client", "incident", "json"],
            &["otlp_client"],
        ],
    },
    Package {
        folder: "src/dataflow/",
        layers: &[
            &["guard", "lru", "robust", "sampling", "shell_text", "timer_wheel"],
            &["key_table", "rules", "services"],
            &["evidence"],
            &["story"],
            &["matcher"],
            &["shard"],
            &["driver"],
        ],
    },
    Package {
        folder: "src/collector/",
        layers: &[&["runtime", "cni_report"], &["events"], COLLECTORS, &["table"]],
    },
    Package {
        folder: "src/",
        layers: &[
            &["timer", "store", "metrics"],
            &["bridge"],
            &["export", "load"],
            &["telemetry"],
            &["notify"],
            &["server"],
            &["runtime"],
            &["cli"],
        ],
    },
];

/// The collectors, which don't import each other.
const COLLECTORS: &[&str] = &[
    "cni",
    "container",
    "ebpf",
    "journal",
    "jsonl",
    "k8s",
    "kmsg",
    "node",
    "otlp",
    "receiver",
    "synthetic",
    "systemd",
];

/// The folders of the other packages and programs below `src/`.
pub(crate) const MEMBERS: &[&str] =
    &["src/core/", "src/wire/", "src/dataflow/", "src/collector/", "src/bin/"];

/// Libraries that a top module of the root package must not use although the package depends on
/// them: the runtime joins the parts, and the server is a process of its own.
const FORBIDDEN_LIBRARIES: &[(&str, &[&str])] = &[
    ("store", &["tapio_wire", "tapio_dataflow", "tapio_collectors"]),
    ("bridge", &["tapio_dataflow", "tapio_collectors"]),
    ("export", &["tapio_dataflow", "tapio_collectors"]),
    ("server", &["tapio_dataflow", "tapio_collectors"]),
    ("load", &["tapio_dataflow", "tapio_collectors"]),
];

impl Package {
    pub(crate) fn graph(&self, sources: &[Source]) -> Graph {
        let skip = if self.folder == "src/" { MEMBERS } else { &[] };
        Graph::new(sources, self.folder, skip)
    }

    /// Unknown modules, and imports that point to a later row or within one.
    pub(crate) fn violations(&self, graph: &Graph) -> Vec<String> {
        let layer = |name: &str| self.layers.iter().position(|layer| layer.contains(&name));
        let mut out = Vec::new();
        for (module, imports) in graph.top_modules() {
            // Build scripts aren't modules.
            if module == "build" {
                continue;
            }
            let Some(own) = layer(module) else {
                out.push(format!(
                    "{}{module}: unknown module: give it a row in layers.rs",
                    self.folder
                ));
                continue;
            };
            for used in imports {
                if layer(used).is_some_and(|theirs| theirs >= own) {
                    out.push(format!("{}{module} must not import {used}", self.folder));
                }
            }
        }
        let known: BTreeSet<&str> =
            self.layers.iter().flat_map(|layer| layer.iter().copied()).collect();
        let found: BTreeSet<&str> = graph.top_modules().into_keys().collect();
        out.extend(
            known.difference(&found).map(|gone| format!("{}{gone}: no such module", self.folder)),
        );
        out
    }
}

/// Uses of a library by a module that must not depend on it.
pub(crate) fn forbidden_libraries(source: &Source) -> Vec<String> {
    let Some((module, libraries)) = FORBIDDEN_LIBRARIES.iter().find(|(module, _)| {
        source.path.starts_with(&format!("src/{module}/"))
            || source.path == format!("src/{module}.rs")
    }) else {
        return vec![];
    };
    let mut out = Vec::new();
    for (i, line) in source.code.iter().enumerate() {
        for library in libraries.iter().filter(|library| line.contains(&format!("{library}::"))) {
            out.push(source.place(i, format!("{module} must not use {library}")));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: Package = Package { folder: "src/y/", layers: &[&["low", "beside"], &["high"]] };

    fn violations(files: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<Source> = files.iter().map(|(p, t)| Source::new(p, t)).collect();
        TWO.violations(&TWO.graph(&sources))
    }

    #[test]
    fn wrong_direction_and_unknown_modules_are_found() {
        let fine = [
            ("src/y/low.rs", ""),
            ("src/y/beside/mod.rs", ""),
            ("src/y/high.rs", "use crate::low::A;"),
        ];
        assert_eq!(violations(&fine), [""; 0]);
        let mut up = fine;
        up[0].1 = "use super::high::B;";
        assert_eq!(violations(&up), ["src/y/low must not import high"]);
        let mut sideways = fine;
        sideways[1].1 = "fn f(_: crate::low::A) {}";
        assert_eq!(violations(&sideways), ["src/y/beside must not import low"]);
        let unknown = [&fine[..], &[("src/y/extra.rs", "")]].concat();
        let found = violations(&unknown);
        assert_eq!(found, ["src/y/extra: unknown module: give it a row in layers.rs"]);
        assert_eq!(violations(&fine[1..]), ["src/y/low: no such module"]);
    }

    #[test]
    fn forbidden_libraries_are_found() {
        let found = |path, text| forbidden_libraries(&Source::new(path, text)).len();
        assert_eq!(found("src/bridge/mod.rs", "use tapio_dataflow::Shard;"), 1);
        assert_eq!(found("src/store/log.rs", "let x = tapio_wire::Batch::new();"), 1);
        assert_eq!(found("src/runtime/agent.rs", "use tapio_dataflow::Shard;"), 0);
        assert_eq!(found("src/server/mod.rs", "// tapio_dataflow::Shard is forbidden"), 0);
    }
}
