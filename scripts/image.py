#!/usr/bin/env python3
"""Builds an image of the agent as an OCI layout, without a daemon, a base image or a registry.

usage: image.py OUT VERSION PROGRAM

Writes the layout to OUT and as an archive to OUT.tar, which `ctr images import` and
`docker load` read. The image has one layer: the program, which is static, stripped, and licences. The
same input gives the same bytes; times are SOURCE_DATE_EPOCH.
"""

import datetime
import gzip
import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
EPOCH = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))


def say(text):
    print(f"image: {text}", file=sys.stderr)


def stripped(program):
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "program")
        subprocess.run(["objcopy", "--strip-all", program, out], check=True)
        return out.read_bytes()


def content(program, version):
    """The layer's files by path: (mode, data). Folders have no data."""
    files = {
        "tmp": (0o1777, None),
        "run/tapio": (0o700, None),
        "var/lib/tapio": (0o700, None),
        "usr/bin/tapio": (0o755, stripped(program)),
        "usr/share/doc/tapio/copyright":
            (0o644, b"".join((ROOT / f).read_bytes() for f in ("deploy/package/copyright", "LICENSE"))),
    }
    licences = subprocess.run(
        [ROOT / "scripts/dependencies.py", "licences", f"{platform.machine()}-unknown-linux-musl"],
        check=True, stdout=subprocess.PIPE)
    files["usr/share/doc/tapio/THIRD-PARTY-LICENSES"] = (0o644, licences.stdout)
    return files


def tar(entries):
    """An archive of (path, mode, data), in which nothing depends on this machine or the time."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path, mode, data in entries:
            info = tarfile.TarInfo(path)
            info.mode, info.mtime = mode, EPOCH
            if data is None:
                info.type = tarfile.DIRTYPE
                archive.addfile(info)
            else:
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def with_folders(files):
    """The files after the folders above them."""
    folders = {str(p) for path in files for p in Path(path).parents if str(p) != "."}
    both = {f: (0o755, None) for f in folders} | files
    return [(path, *both[path]) for path in sorted(both)]


class Layout:
    """An OCI image layout: blobs by their digest."""

    def __init__(self):
        self.files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}

    def blob(self, media_type, data):
        digest = hashlib.sha256(data).hexdigest()
        self.files[f"blobs/sha256/{digest}"] = data
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    def json(self, media_type, value):
        return self.blob(media_type, json.dumps(value, sort_keys=True).encode())


def image(program, version):
    created = datetime.datetime.fromtimestamp(EPOCH, datetime.timezone.utc)
    created = created.strftime("%Y-%m-%dT%H:%M:%SZ")
    labels = {
        "org.opencontainers.image.created": created,
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.title": "tapio",
        "org.opencontainers.image.version": version,
    }
    layer = tar(with_folders(content(program, version)))
    oci = "application/vnd.oci.image"
    layout = Layout()
    packed = layout.blob(f"{oci}.layer.v1.tar+gzip", gzip.compress(layer, 9, mtime=0))
    config = layout.json(f"{oci}.config.v1+json", {
        "architecture": ARCHITECTURES[platform.machine()],
        "os": "linux",
        "created": created,
        "config": {
            "Entrypoint": ["/usr/bin/tapio"],
            "Cmd": ["run"],
            "Env": ["PATH=/usr/bin"],
            "WorkingDir": "/",
            "Labels": labels,
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        "history": [{"created": created, "created_by": "scripts/image.py"}],
    })
    manifest = layout.json(f"{oci}.manifest.v1+json", {
        "schemaVersion": 2,
        "mediaType": f"{oci}.manifest.v1+json",
        "config": config,
        "layers": [packed],
        "annotations": labels,
    })
    manifest["annotations"] = {
        "org.opencontainers.image.ref.name": version,
        # The name that containerd gives it.
        "io.containerd.image.name": f"localhost/tapio:{version}",
    }
    manifest["platform"] = {"architecture": ARCHITECTURES[platform.machine()], "os": "linux"}
    index = {"schemaVersion": 2, "mediaType": f"{oci}.index.v1+json", "manifests": [manifest]}
    layout.files["index.json"] = json.dumps(index, sort_keys=True).encode()
    return layout.files


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    out, version, program = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    files = image(program, version)
    shutil.rmtree(out, ignore_errors=True)
    for name, data in files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(data)
    archive = Path(f"{out}.tar")
    archive.write_bytes(tar(with_folders({n: (0o644, d) for n, d in files.items()})))
    say(f"{archive}: {archive.stat().st_size} bytes, localhost/tapio:{version}")


if __name__ == "__main__":
    main()
