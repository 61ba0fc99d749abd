#!/usr/bin/env python3
"""Makes a docker-archive image from a directory, without a registry or other tools.

usage: mkimage.py OUT.tar NAME:TAG ROOTFS CMD...
"""
import hashlib
import io
import json
import os
import sys
import tarfile

out, name, root, cmd = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]
layer = io.BytesIO()
with tarfile.open(fileobj=layer, mode="w") as tar:
    for entry in sorted(os.listdir(root)):
        tar.add(os.path.join(root, entry), arcname=entry)
layer = layer.getvalue()
digest = hashlib.sha256(layer).hexdigest()
config = json.dumps({
    "architecture": "amd64", "os": "linux", "created": "2026-01-01T00:00:00Z",
    "config": {"Env": ["PATH=/bin"], "Cmd": cmd, "WorkingDir": "/"},
    "rootfs": {"type": "layers", "diff_ids": ["sha256:" + digest]},
    "history": [{"created": "2026-01-01T00:00:00Z"}],
}).encode()
config_name = hashlib.sha256(config).hexdigest() + ".json"
manifest = json.dumps([{"Config": config_name, "RepoTags": [name], "Layers": [digest + "/layer.tar"]}]).encode()
with tarfile.open(out, "w") as tar:
    for entry, data in ((config_name, config), (digest + "/layer.tar", layer), ("manifest.json", manifest)):
        info = tarfile.TarInfo(entry)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
