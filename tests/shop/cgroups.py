"""A cgroup for each service: of version 2, and of version 1 where that has the controllers."""

import os
from pathlib import Path

V1 = Path("/sys/fs/cgroup")


def unified():
    hybrid = V1 / "unified"
    return hybrid if hybrid.is_dir() else V1


class Cgroup:
    """The cgroup of one service. `limits` of both versions have the same units: bytes, shares."""

    def __init__(self, path):
        self.path = path
        self.v2 = unified() / path
        controllers = (unified() / "cgroup.controllers").read_text().split()
        self.v1 = {
            name: V1 / name / path
            for name in ("cpu", "cpuacct", "memory", "blkio")
            if (V1 / name).is_dir() and name not in controllers
        }

    def folders(self):
        return [self.v2, *self.v1.values()]

    def create(self):
        for folder in self.folders():
            for part in reversed([folder, *folder.parents]):
                if not part.is_dir():
                    part.mkdir()
        if not self.v1:
            for part in (unified(), *(unified() / p for p in reversed(Path(self.path).parents))):
                (part / "cgroup.subtree_control").write_text("+cpu +memory +io")

    def join(self):
        """For the child between fork and exec."""
        for folder in self.folders():
            (folder / "cgroup.procs").write_text(str(os.getpid()))

    def pids(self):
        try:
            return [int(pid) for pid in (self.v2 / "cgroup.procs").read_text().split()]
        except FileNotFoundError:
            return []

    def remove(self):
        for folder in self.folders():
            if folder.is_dir():
                folder.rmdir()

    def weigh(self, shares):
        """Shares of the processors: 1024 is what every other cgroup has."""
        if "cpu" in self.v1:
            (self.v1["cpu"] / "cpu.shares").write_text(str(shares))
        elif not self.v1:
            (self.v2 / "cpu.weight").write_text(str(min(10000, shares * 100 // 1024)))

    def limit_cpu(self, share):
        """share: of one processor, at least a thousandth; None: no limit."""
        # The least quota is a millisecond.
        period = 100_000 if share is None or share >= 0.01 else 1_000_000
        if "cpu" in self.v1:
            quota = -1 if share is None else max(1000, int(share * period))
            (self.v1["cpu"] / "cpu.cfs_period_us").write_text(str(period))
            (self.v1["cpu"] / "cpu.cfs_quota_us").write_text(str(quota))
        else:
            quota = "max" if share is None else max(1000, int(share * period))
            (self.v2 / "cpu.max").write_text(f"{quota} {period}")

    def used_cpu(self):
        """Seconds of processor time since the cgroup was made."""
        if "cpuacct" in self.v1:
            return int((self.v1["cpuacct"] / "cpuacct.usage").read_text()) / 1e9
        return int((self.v2 / "cpu.stat").read_text().split()[1]) / 1e6

    def limit_memory(self, limit):
        """limit: bytes; None: no limit."""
        if "memory" in self.v1:
            value = -1 if limit is None else limit
            (self.v1["memory"] / "memory.limit_in_bytes").write_text(str(value))
        else:
            (self.v2 / "memory.max").write_text("max" if limit is None else str(limit))

    def limit_writes(self, device, iops):
        """device: MAJOR:MINOR of a disk; iops: writes a second; None: no limit."""
        if "blkio" in self.v1:
            value = f"{device} {iops or 0}"
            (self.v1["blkio"] / "blkio.throttle.write_iops_device").write_text(value)
        else:
            (self.v2 / "io.max").write_text(f"{device} wiops={iops or 'max'}")
