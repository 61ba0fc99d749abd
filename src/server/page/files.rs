//! The files of the page.

use std::io::Write as _;
use std::sync::OnceLock;

use flate2::Compression;
use flate2::write::GzEncoder;

use tapio_core::event::stable_hash;

/// A file that is part of the program.
pub(super) struct File {
    /// Its path below `assets`.
    pub(super) name: &'static str,
    pub(super) media_type: &'static str,
    pub(super) bytes: &'static [u8],
    packed: OnceLock<Packed>,
}

/// A file compressed, with its version, both made at its first use.
pub(super) struct Packed {
    pub(super) etag: String,
    pub(super) gzip: Vec<u8>,
}

impl File {
    pub(super) fn packed(&self) -> &Packed {
        self.packed.get_or_init(|| {
            let hash = stable_hash(&[self.bytes]);
            let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
            // Writing to a list can't fail; an empty one is never smaller than a file with content.
            let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
            let gzip = encoder.write_all(self.bytes).and_then(|()| encoder.finish());
            Packed { etag: format!("\"{hash}\""), gzip: gzip.unwrap_or_else(|_| self.bytes.into()) }
        })
    }
}

macro_rules! files {
    ($($name:literal $media_type:ident,)*) => {
        [$(File {
            name: $name,
            media_type: $media_type,
            bytes: include_bytes!(concat!("assets/", $name)),
            packed: OnceLock::new(),
        },)*]
    };
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";
const TEXT: &str = "text/plain; charset=utf-8";

/// Every file, in the order of names.
static FILES: [File; 30] = files! {
    "agents.js" JS,
    "api.js" JS,
    "app.js" JS,
    "core.js" JS,
    "entity.js" JS,
    "events.js" JS,
    "evidence.js" JS,
    "export.js" JS,
    "filters.js" JS,
    "graph.js" JS,
    "icon.svg" SVG,
    "index.html" HTML,
    "lanes.js" JS,
    "marks.js" JS,
    "route.js" JS,
    "rules.js" JS,
    "sparkline.js" JS,
    "stories.js" JS,
    "story.js" JS,
    "style.css" CSS,
    "text.js" JS,
    "time_scale.js" JS,
    "vendor/hooks.js" JS,
    "vendor/htm.LICENSE" TEXT,
    "vendor/htm.js" JS,
    "vendor/preact.LICENSE" TEXT,
    "vendor/preact.js" JS,
    "virtual_list.js" JS,
    "whole_story.js" JS,
    "widgets.js" JS,
};

/// The file with this name.
pub(super) fn find(name: &str) -> Option<&'static File> {
    FILES.iter().find(|file| file.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::Read as _;
    use std::path::Path;

    use super::*;

    fn below(dir: &Path, prefix: &str, out: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                below(&entry.path(), &format!("{name}/"), out);
            } else {
                out.insert(name);
            }
        }
    }

    fn assets() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src/server/page/assets")
    }

    #[test]
    fn every_asset_is_in_the_program() {
        let mut expected = BTreeSet::new();
        below(&assets(), "", &mut expected);
        let listed: BTreeSet<String> = FILES.iter().map(|file| file.name.to_owned()).collect();
        assert_eq!(listed, expected);
    }

    #[test]
    fn files_are_packed_once_and_unpack_to_themselves() {
        for file in &FILES {
            let mut text = Vec::new();
            flate2::read::GzDecoder::new(&*file.packed().gzip).read_to_end(&mut text).unwrap();
            assert_eq!(text, file.bytes, "{}", file.name);
            assert_eq!(file.packed().etag.len(), 34);
        }
    }

    /// Text of events is only ever the text of a node: it comes from anybody.
    #[test]
    fn no_module_makes_html_or_code_of_text() {
        let own = FILES.iter().filter(|file| !file.name.starts_with("vendor/"));
        for file in own.filter(|file| file.name.ends_with(".js") || file.name.ends_with(".html")) {
            let text = std::str::from_utf8(file.bytes).unwrap();
            for forbidden in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "dangerouslySet",
                "document.write",
                "eval(",
                "new Function",
                "srcdoc",
                "<style",
                "onclick=",
                "http://",
            ] {
                assert!(!text.contains(forbidden), "{}: {forbidden}", file.name);
            }
        }
    }
}
