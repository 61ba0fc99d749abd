#!/usr/bin/env python3
"""The packages that the released programs are built from, by `cargo metadata` and Cargo.lock.

usage: dependencies.py sbom|licences TARGET

sbom: CycloneDX 1.5 as JSON. licences: each licence text of the packages linked into the programs,
once, with the packages that it belongs to. A package without a text fails the run, so that none is
distributed without. Both are reproducible: the time is SOURCE_DATE_EPOCH, the serial number is
derived from the content.
"""

import datetime
import hashlib
import json
import os
import re
import subprocess
import sys
import tomllib
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE")
# The licence that its package offers instead of the one that applies here.
NOT_CHOSEN = {"zstd-sys": {"zstd/COPYING"}}
# Licences that an SBOM can name by an SPDX identifier; anything else is an expression.
OPERATORS = (" OR ", " AND ", " WITH ", "/")


def metadata(target):
    out = subprocess.run(
        ["cargo", "metadata", "--locked", "--offline", "--format-version", "1"]
        + ["--filter-platform", target],
        cwd=ROOT, check=True, stdout=subprocess.PIPE,
    )
    return json.loads(out.stdout)


def reachable(nodes, start, kinds):
    """The ids that edges of these kinds lead to, without dependencies for tests."""
    seen, left = {start}, [start]
    while left:
        for edge in nodes[left.pop()]["deps"]:
            if edge["pkg"] not in seen and any(k["kind"] in kinds for k in edge["dep_kinds"]):
                seen.add(edge["pkg"])
                left.append(edge["pkg"])
    return seen


def read(target):
    """The root package, all packages by id, the ids linked into it, and those of its build."""
    data = metadata(target)
    packages = {p["id"]: p for p in data["packages"]}
    nodes = {n["id"]: n for n in data["resolve"]["nodes"]}
    root = data["resolve"]["root"]
    linked = reachable(nodes, root, {None})
    built = reachable(nodes, root, {None, "build"})
    return root, packages, nodes, linked, built


def checksums():
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    return {(p["name"], p["version"]): p.get("checksum") for p in lock["package"]}


def purl(package):
    return f"pkg:cargo/{package['name']}@{package['version'].replace('+', '%2B')}"


def licence(package):
    text = package["license"]
    if not text:
        return [{"license": {"name": f"see {package['license_file']}"}}]
    # `/` is the separator of old manifests.
    text = " OR ".join(part.strip() for part in text.split("/"))
    if any(o in text for o in OPERATORS):
        return [{"expression": text}]
    return [{"license": {"id": text}}]


def component(package, scope, checksum):
    out = {"type": "library", "bom-ref": purl(package)}
    out |= {"name": package["name"], "version": package["version"], "scope": scope}
    if checksum:
        out["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    out |= {"licenses": licence(package), "purl": purl(package)}
    if package.get("repository"):
        out["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return out


def c_library(target):
    """The C library in a static program: musl, as the toolchain has it. None for other targets."""
    if not target.endswith("-musl"):
        return None
    run = subprocess.run(["rustc", "--print", "target-libdir", "--target", target], cwd=ROOT,
                         check=True, stdout=subprocess.PIPE, text=True)
    archive = Path(run.stdout.strip(), "self-contained/libc.a").read_bytes()
    # The archive's member that has nothing but the version.
    version = re.search(rb"version\.lo?/ .{,2000}?\0(\d+\.\d+\.\d+)\0", archive, re.DOTALL)
    if not version:
        sys.exit(f"dependencies: musl's version isn't in the toolchain's libc.a for {target}")
    url = f"pkg:generic/musl@{version[1].decode()}"
    return {"type": "library", "bom-ref": url, "name": "musl", "version": version[1].decode(),
            "scope": "required", "licenses": [{"license": {"id": "MIT"}}], "purl": url}


def sbom(target):
    root, packages, nodes, linked, built = read(target)
    sums = checksums()
    ordered = sorted(built - {root}, key=lambda i: (packages[i]["name"], packages[i]["version"]))
    program = component(packages[root], "required", None) | {"type": "application"}
    out = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": program},
        # `excluded`: compiles or generates code, but isn't part of the programs.
        "components": [
            component(p, "required" if i in linked else "excluded", sums[p["name"], p["version"]])
            for i in ordered for p in [packages[i]]
        ],
        "dependencies": [
            {"ref": purl(packages[i]),
             "dependsOn": sorted({purl(packages[d["pkg"]]) for d in nodes[i]["deps"]
                                  if d["pkg"] in built
                                  and any(k["kind"] != "dev" for k in d["dep_kinds"])})}
            for i in [root, *ordered]
        ],
    }
    if library := c_library(target):
        out["components"].append(library)
        out["dependencies"][0]["dependsOn"].append(library["bom-ref"])
        out["dependencies"].append({"ref": library["bom-ref"], "dependsOn": []})
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    at = datetime.datetime.fromtimestamp(epoch, datetime.timezone.utc)
    out["metadata"]["timestamp"] = at.strftime("%Y-%m-%dT%H:%M:%SZ")
    content = hashlib.sha256(json.dumps(out, sort_keys=True).encode()).hexdigest()
    out["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, content)}"
    json.dump(out, sys.stdout, indent=1)
    print()


def texts(package):
    """The licence texts in a package's source folder, as (path, text)."""
    folder = Path(package["manifest_path"]).parent
    skipped = NOT_CHOSEN.get(package["name"], set())
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.name.upper().startswith(NAMES) and path.is_file() and name not in skipped \
                and path.suffix not in {".rs", ".html", ".yml", ".toml"}:
            found.append((name, path.read_text(errors="replace").strip()))
    return found


def licences(target):
    root, packages, _, linked, _ = read(target)
    foreign = [packages[i] for i in linked if packages[i]["source"]]
    foreign.sort(key=lambda p: (p["name"], p["version"]))
    own = {p["id"]: texts(p) for p in foreign}
    by_text, without = {}, []
    for p in foreign:
        found = own[p["id"]]
        if not found:
            # Packages of one repository have one licence; some publish it with one of them only.
            same = [q for q in foreign if q["repository"] and q["repository"] == p["repository"]]
            found = next((own[q["id"]] for q in same if own[q["id"]]), [])
        if not found and "Apache-2.0" in (p["license"] or ""):
            found = [("LICENSE", (ROOT / "LICENSE").read_text().strip())]
        if not found:
            without.append(f"{p['name']} {p['version']} ({p['license']})")
        for _, text in found:
            by_text.setdefault(text, []).append(f"{p['name']} {p['version']} ({p['license']})")
    if without:
        sys.exit("dependencies: no licence text for: " + ", ".join(without))
    print(f"The programs contain {len(foreign)} packages of others. Their licence texts follow, "
          "each once,\nafter the packages that it belongs to.")
    for text, users in sorted(by_text.items(), key=lambda item: (-len(item[1]), item[1])):
        print("\n" + "=" * 80)
        print("\n".join(dict.fromkeys(users)))
        print("-" * 80 + "\n" + text)


if __name__ == "__main__":
    verbs = {"sbom": sbom, "licences": licences}
    if len(sys.argv) != 3 or sys.argv[1] not in verbs:
        sys.exit(__doc__)
    verbs[sys.argv[1]](sys.argv[2])
