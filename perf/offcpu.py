#!/usr/bin/env python3
"""Reads `perf script` of sched_switch and sched_waking (perf/offcpu.sh) from standard input, prints
for each thread how long it waited and which threads woke it, and writes the stacks in which it
waited, with microseconds, into a file.

usage: offcpu.py FILE TID...
"""

import re
import sys
from collections import Counter, defaultdict

HEAD = re.compile(
    r"^(?P<comm>.*?)\s+(?P<tid>\d+)\s+(?P<time>\d+\.\d+):\s+(?P<event>[\w:]+):\s+(?P<rest>.*)$"
)
# perf writes names and numbers in one of two ways: `name:12 [120]` and `comm=name pid=12 prio=120`.
TASK = r"(?:{0}comm=(?P<{1}>.*?) {0}pid=(?P<{1}_tid>\d+) {0}prio=\d+|(?P<{1}_>.*?):(?P<{1}_tid_>\d+) \[\d+\])"
SWITCH = re.compile(
    TASK.format("prev_", "prev") + r" (?:prev_state=)?(?P<state>\S+) ==> " + TASK.format("next_", "next")
)
WAKING = re.compile(TASK.format("", "task"))
INTERRUPT = re.compile(r"irq|sysvec|hrtimer|net_rx")


def task(match, name):
    """The name and number of a task."""
    comm, tid = match[name] or match[name + "_"], match[name + "_tid"] or match[name + "_tid_"]
    return comm.strip(), int(tid)


def records(lines):
    """Yields each event with its stack, outermost frame first."""
    head, frames = None, []
    for line in lines:
        line = line.rstrip("\n")
        if not line.strip():
            continue
        match = HEAD.match(line) if not line.startswith("\t") else None
        if match:
            if head:
                yield head, frames[::-1]
            head, frames = match, []
        elif head:
            frame = line.split(None, 1)
            frames.append(re.sub(r"\+0x[0-9a-f]+$", "", frame[1] if len(frame) > 1 else frame[0]))
    if head:
        yield head, frames[::-1]


def short(frame):
    """A name without generic arguments, which would make the graph unreadable."""
    before = None
    while before != frame:
        before, frame = frame, re.sub(r"<[^<>]*>", "", frame)
    return frame.replace(";", ":") or "?"


def main():
    out, tids = sys.argv[1], set(map(int, sys.argv[2:]))
    names, left, waker = {}, {}, {}
    waited, waits, wakers, preempted = Counter(), Counter(), defaultdict(Counter), Counter()
    stacks, delay = Counter(), Counter()
    first = last = None
    for head, frames in records(sys.stdin):
        now = float(head["time"]) * 1e6
        first, last = first or now, now
        if head["event"].endswith("waking"):
            match = WAKING.match(head["rest"])
            # An interrupt runs on the stack of whichever thread it has interrupted.
            is_interrupt = any(INTERRUPT.search(frame) for frame in frames)
            by = "timer or interrupt" if is_interrupt else head["comm"].strip()
            if match:
                waker[task(match, "task")[1]] = (by, now)
            continue
        match = SWITCH.search(head["rest"])
        if not match:
            continue
        (out_name, out_tid), (_, in_tid) = task(match, "prev"), task(match, "next")
        if in_tid in left:
            since, stack, state = left.pop(in_tid)
            if state.startswith("R"):
                preempted[in_tid] += now - since
            else:
                waited[in_tid] += now - since
                waits[in_tid] += 1
                stacks[stack] += now - since
                if in_tid in waker:
                    by, at = waker.pop(in_tid)
                    wakers[in_tid][by] += 1
                    delay[in_tid] += now - at
        if out_tid in tids:
            names[out_tid] = out_name
            stack = [short(f) for f in frames if "[unknown]" not in f]
            left[out_tid] = (now, ";".join([out_name] + stack), match["state"])
    for tid, (since, stack, state) in left.items():
        if not state.startswith("R"):
            waited[tid] += last - since
            stacks[stack] += last - since
    with open(out, "w", encoding="utf-8") as file:
        for stack, us in stacks.items():
            if us >= 1:
                file.write(f"{stack} {int(us)}\n")
    seconds = (last - first) / 1e6 if first else 0
    print(f"{seconds:.1f} s. waits: off the CPU by itself; ready: woken or preempted, without a CPU")
    print(f"{'thread':16} {'waits':>7} {'waits/s':>8} {'ready':>7} {'wake-up':>9}  woken by")
    for tid in sorted(names, key=lambda t: -waited[t]):
        by = wakers[tid].most_common(4)
        total = sum(wakers[tid].values()) or 1
        text = ", ".join(f"{name} {n * 100 // total} %" for name, n in by)
        share, ready = waited[tid] / (last - first), (preempted[tid] + delay[tid]) / (last - first)
        mean = delay[tid] / total
        print(
            f"{names[tid]:16} {share:>6.1%} {waits[tid] / seconds:>9.0f} {ready:>7.1%} "
            f"{mean:>6.0f} us  {text}"
        )


if __name__ == "__main__":
    main()
