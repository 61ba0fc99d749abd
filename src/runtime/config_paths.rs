//! The files and folders that a configuration file names. A confined process may open them and no
//! others, so they are found by form, not by key: a new key can't be forgotten.

use std::path::{Path, PathBuf};

use serde_json::Value as Json;

/// The existing files and folders among the texts of a YAML document: what has a slash, and the
/// files of `${file:PATH}`. Those of a kubeconfig in it are included.
pub(super) fn paths_in(text: &str) -> Vec<PathBuf> {
    let mut all = Vec::new();
    collect(text, &mut all);
    let is_kubeconfig = |path: &&PathBuf| {
        path.is_file()
            && std::fs::read_to_string(path).is_ok_and(|t| t.contains("current-context:"))
    };
    let kubeconfigs: Vec<PathBuf> = all.iter().filter(is_kubeconfig).cloned().collect();
    for kubeconfig in kubeconfigs {
        collect(&std::fs::read_to_string(kubeconfig).unwrap_or_default(), &mut all);
    }
    all
}

fn collect(text: &str, all: &mut Vec<PathBuf>) {
    for part in text.split("${file:").skip(1) {
        all.extend(part.split('}').next().map(PathBuf::from));
    }
    if let Ok(document) = serde_saphyr::from_str::<Json>(text) {
        walk(&document, all);
    }
}

fn walk(value: &Json, all: &mut Vec<PathBuf>) {
    match value {
        Json::String(text) if text.contains('/') && Path::new(text).exists() => {
            all.push(text.into());
        }
        Json::Array(values) => values.iter().for_each(|value| walk(value, all)),
        Json::Object(values) => values.values().for_each(|value| walk(value, all)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn existing_files_are_found_whatever_their_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let at = |name: &str| path(name).display().to_string();
        for name in ["ca.pem", "client.key", "rules"] {
            std::fs::write(path(name), "").unwrap();
        }
        let kubeconfig =
            format!("current-context: a\nusers:\n- user: {{client-key: '{}'}}\n", at("client.key"));
        std::fs::write(path("kubeconfig"), kubeconfig).unwrap();
        let text = format!(
            "a: {{ca: '{}', url: 'https://example.org/x', gone: '{}'}}\nb: ['{}', ca.pem]\n\
             c: {{k: '{}'}}\nd: '${{file:{}}}'\n",
            at("ca.pem"),
            at("gone"),
            at("rules"),
            at("kubeconfig"),
            at("token"),
        );
        let mut found = paths_in(&text);
        found.sort();
        assert_eq!(found, ["ca.pem", "client.key", "kubeconfig", "rules", "token"].map(path));
        assert!(paths_in("not: [yaml").is_empty());
    }
}
