#!/usr/bin/env bash
# Replaces the libraries of the page (src/server/page/assets/vendor) by those of these versions, as npm
# has them. The only changes: hooks.js imports preact from the file beside it, as a browser needs
# it, and no file names a source map.
set -euo pipefail
cd "$(dirname "$0")/../src/server/page/assets/vendor"
preact=10.29.8 htm=3.1.1

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for package in "preact@$preact" "htm@$htm"; do
    file=$(cd "$work" && npm pack --silent "$package")
    mkdir "$work/${package%@*}"
    tar xzf "$work/$file" -C "$work/${package%@*}" --strip-components=1
done
vendor() { sed '/sourceMappingURL/d; s/from"preact"/from".\/preact.js"/' "$work/$1" >"$2"; }
vendor preact/dist/preact.module.js preact.js
vendor preact/hooks/dist/hooks.module.js hooks.js
vendor htm/dist/htm.module.js htm.js
cp "$work/preact/LICENSE" preact.LICENSE
cp "$work/htm/LICENSE" htm.LICENSE
