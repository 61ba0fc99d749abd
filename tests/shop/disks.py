"""Where the services keep their data: in memory, so that others' use of the disk isn't a fault.

A service with a block device has an ext4 of its own on a loop device, whose file is on a tmpfs.
"""

import json
import os
from pathlib import Path

from layout import SERVICES
from network import run

BLOCK_BYTES = 64 << 20


def disk_of(path):
    """MAJOR:MINOR of the disk that holds a path: limits are the disk's, not a partition's."""
    device = os.stat(path).st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    parent = Path(f"/sys/dev/block/{name}/../dev")
    return parent.read_text().strip() if parent.is_file() else name


class Disks:
    """The file systems of an instance, tapio's state among them."""

    def __init__(self, instance):
        self.instance = instance
        self.mounted = []

    def folder(self, service):
        return self.instance.folder / "data" / service

    def mount(self, folder, *options):
        folder.mkdir(parents=True, exist_ok=True)
        run("mount", *options, str(folder))
        self.mounted.append(folder)

    def start(self):
        self.mount(self.instance.folder / "state", "-t", "tmpfs", "-o", "size=3g", "tapio-state")
        images = self.instance.folder / "images"
        self.mount(images, "-t", "tmpfs", "-o", "size=256m", "shop-images")
        for service in SERVICES.values():
            folder = self.folder(service.name)
            if service.disk == "small":
                self.mount(folder, "-t", "tmpfs", "-o", "size=4m", f"{service.name}-data")
            elif service.disk == "block":
                image = images / f"{service.name}.ext4"
                with open(image, "wb") as file:
                    file.truncate(BLOCK_BYTES)
                run("mkfs.ext4", "-q", "-F", str(image))
                self.mount(folder, "-o", "loop", str(image))
                self.note(service.name, folder)

    def note(self, service, folder):
        """Stories name devices: score.py reads here whose they are."""
        device = os.path.basename(os.path.realpath(f"/sys/dev/block/{disk_of(folder)}"))
        with open(self.instance.folder / "disks.jsonl", "a") as file:
            file.write(json.dumps({"service": service, "device": device}) + "\n")

    def stop(self):
        # Lazily: processes of another instance may have a copy of the mount in their namespaces.
        for folder in reversed(self.mounted):
            run("umount", "--lazy", str(folder), check=False)
        self.mounted.clear()
