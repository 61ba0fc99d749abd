"""Faults that a service has in its own code: read from a file, which the runner writes."""

import ctypes
import json
import os
import random
import threading
import time


class PriceError(Exception):
    """The exception of the fault `exception`: a defect that a release brought."""


class InnerFaults:
    """The defect that is in force. A restart of the process doesn't repair it."""

    def __init__(self, path):
        self.path = path
        self.changed = None
        self.fault = {}
        self.lock = threading.Lock()
        self.kept = []

    def apply(self):
        """Does the defect's harm to a request; returns an answer in place of the right one."""
        self.read()
        kind = self.fault.get("kind")
        if kind is None or random.random() >= self.fault.get("share", 1.0):
            return None
        return getattr(self, kind)()

    def read(self):
        try:
            changed = os.stat(self.path).st_mtime_ns
        except FileNotFoundError:
            changed = None
        if changed != self.changed:
            self.changed = changed
            try:
                self.fault = json.loads(self.path.read_text()) if changed else {}
            except (OSError, ValueError):
                # No descriptor left to open it with: the fault that leaks them is in force.
                return
            self.release()

    def release(self):
        if not self.fault:
            for kept in self.kept:
                if isinstance(kept, int):
                    os.close(kept)
            self.kept.clear()

    def exception(self):
        prices = {"net": 12}
        try:
            return {"price": prices["gross"]}
        except KeyError as error:
            raise PriceError(f"no price of kind {error}") from error

    def wrong_return(self):
        return self.fault["answer"]

    def crash(self):
        ctypes.string_at(0)

    def leak_memory(self):
        self.kept.append(bytearray(os.urandom(1 << 16) * 64))

    def leak_descriptor(self):
        for _ in range(self.fault["each"]):
            self.kept.append(os.open(self.path, os.O_RDONLY))

    def lock_up(self):
        with self.lock:
            time.sleep(self.fault["seconds"])
