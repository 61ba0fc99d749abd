"""Scores the stories of a run against its labels.

Reads a run's folder: faults.jsonl, phases.jsonl, stories.jsonl, load.jsonl, pids.jsonl,
disks.jsonl.
"""

import calendar
import json
import re
import time

from layout import SERVICES

# Bytes that the kernel keeps of a process' name.
COMM = 15
RANKS = (1, 3, 5)
# Seconds that a story's first event may be before the label.
CLOCK_SLACK = 1.0
# Seconds before a fault whose load is the usual one.
BEFORE = 30


def lines(path):
    """A file's lines as JSON; nothing if there is no file."""
    if not path.exists():
        return []
    with open(path) as file:
        return [json.loads(line) for line in file]


def causes(story):
    """The candidates; stories of before they had entities have another key."""
    return story["root_causes"] if "root_causes" in story else story["root_cause"]


class Names:
    """Finds services in a story's texts: by name, address, process, cgroup and disk."""

    def __init__(self, number, pids, devices):
        self.pids = pids
        texts = dict(devices)
        for service in SERVICES.values():
            program = f"shop{number}-{service.name}"
            for text in (
                service.name,
                f"{service.name}.shop",
                f"10.{70 + number}.0.{service.number}",
                program,
                program[:COMM],
                f"shop{number}/{service.name}",
                f"//{service.name}.shop",
            ):
                texts[text] = service.name
        self.texts = texts
        longest = sorted(map(re.escape, texts), key=len, reverse=True)
        self.pattern = re.compile(rf"(?<![\w./-])(?:/?({'|'.join(longest)})(?![\w-])|pid (\d+))")

    def first(self, text):
        """The service that a text mentions first: the subject of the sentence."""
        for match in self.pattern.finditer(text):
            service = self.texts.get(match[1]) or self.pids.get(match[2])
            if service:
                return service
        return None

    def subject(self, candidate):
        """The service of a candidate: by its text, else by its entity."""
        entity = candidate.get("entity", {})
        about = f"{entity.get('name', '')} {entity.get('id', '')}"
        return self.first(candidate["cause"]) or self.first(about)

    def ranking(self, story):
        """The services of the story's candidates, each once, None for something else."""
        ranking = []
        for candidate in causes(story):
            service = self.subject(candidate)
            if service is None or service not in ranking:
                ranking.append(service)
        return ranking

    def concerns(self, story):
        """Whether the story is about the shop. Others use the machine meanwhile."""
        texts = [story["name"], *(str(value) for value in story["key"].values())]
        if any(self.first(text) for text in texts):
            return True
        return any(self.subject(candidate) for candidate in causes(story)[:1])


def seconds(stamp):
    """A time of RFC 3339 in UTC as seconds since the epoch."""
    whole, _, part = stamp.removesuffix("Z").partition(".")
    return calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) + float(f"0.{part or 0}")


class Story:
    """All revisions of a story."""

    def __init__(self, revisions, names):
        self.revisions = revisions
        self.read = revisions[0]["read"]
        self.first = seconds(revisions[0]["story"]["first"])
        self.id = revisions[0]["story"]["id"]
        self.rule = revisions[0]["story"]["rule"]
        self.name = revisions[0]["story"]["name"]
        last = revisions[-1]["story"]
        self.incident = last.get("incident") or {}
        self.replaces = last.get("provisional")
        self.is_ours = any(names.concerns(revision["story"]) for revision in revisions)
        self.names = names

    def ranking(self, until):
        """As of the last revision before `until` that isn't of an earlier time than the first."""
        known = [r for r in self.revisions if r["read"] < until] or self.revisions[:1]
        return self.names.ranking(known[-1]["story"])

    def grew(self, since, until):
        """Whether a revision that was read within these times has an event of them."""
        read = (r["story"] for r in self.revisions if since <= r["read"] < until)
        return any(seconds(story["last"]) >= since for story in read)

    def summary(self, origin, until=float("inf")):
        return {
            "id": self.id,
            "rule": self.rule,
            "role": self.incident.get("role", "parent"),
            "name": self.name,
            "after_s": round(self.read - origin, 1),
            "ranking": self.ranking(until),
        }


def stories(folder, names):
    by_id = {}
    for line in lines(folder / "stories.jsonl"):
        by_id.setdefault(line["story"]["id"], []).append(line)
    found = [Story(revisions, names) for revisions in by_id.values()]
    # A story that another one replaces is the same one, first read under the earlier id.
    by_replaced = {story.replaces: story for story in found if story.replaces}
    for story in found:
        if story.id in by_replaced:
            by_replaced[story.id].read = min(by_replaced[story.id].read, story.read)
    return [story for story in found if story.id not in by_replaced]


def names_of(folder, number):
    pids = {str(line["pid"]): line["service"] for line in lines(folder / "pids.jsonl")}
    devices = {line["device"]: line["service"] for line in lines(folder / "disks.jsonl")}
    return Names(number, pids, devices)


def quantile(values, part):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else None


def harm(load, fault):
    """Failures and times of the load's requests, before and during a fault."""

    def measure(since, until):
        part = [line for line in load if since <= line["time"] < until]
        failed = sum(1 for line in part if line["status"] == 0 or line["status"] >= 500)
        return {
            "requests": len(part),
            "failed": round(failed / len(part), 4) if part else None,
            "p50_ms": quantile([line["ms"] for line in part], 0.5),
            "p95_ms": quantile([line["ms"] for line in part], 0.95),
        }

    start = fault["start"]
    return {"before": measure(start - BEFORE, start), "during": measure(start, fault["end"])}


def begins(story, fault):
    """Whether a story's first event is of this incident."""
    return fault["start"] - CLOCK_SLACK <= story.first < fault["until"] - CLOCK_SLACK


def explaining(own):
    """The story with the root cause: of the first one's incident, the first that explains it."""
    first = own[0]
    parent = first.incident.get("id", first.id)
    related = [s for s in own if s.incident.get("id") == parent]
    explains = (s for s in related if s.incident["role"] == "cause")
    return min(explains, key=lambda story: story.first, default=first)


def incident(fault, found, load):
    """The verdict about one fault: the incident of its first story counts."""
    own = sorted(
        (s for s in found if s.is_ours and begins(s, fault)),
        key=lambda story: story.read,
    )
    verdict = {**fault, "harm": harm(load, fault), "all_stories": len(own)}
    verdict["story_count"] = sum(1 for story in own if not story.incident)
    ranking = explaining(own).ranking(fault["until"]) if own else []
    for rank in RANKS:
        verdict[f"ac{rank}"] = fault["service"] in ranking[:rank]
    verdict["any"] = any(fault["service"] in s.ranking(fault["until"])[:1] for s in own)
    verdict["first_after_s"] = round(own[0].read - fault["start"], 1) if own else None
    verdict["stories"] = [story.summary(fault["start"], fault["until"]) for story in own]
    # A story of the fault before may still be open and take this one in.
    verdict["updated"] = [
        story.summary(fault["start"], fault["until"])
        for story in found
        if story.is_ours
        and not begins(story, fault)
        and story.grew(fault["start"], fault["until"])
    ]
    return verdict


def totals(verdicts):
    count = len(verdicts)
    if count == 0:
        return {"runs": 0}
    part = {f"ac{rank}": sum(v[f"ac{rank}"] for v in verdicts) / count for rank in RANKS}
    times = [v["first_after_s"] for v in verdicts if v["first_after_s"] is not None]
    return {
        "runs": count,
        **part,
        "any": sum(v["any"] for v in verdicts) / count,
        "with_story": len(times) / count,
        "within_30_s": sum(time <= 30 for time in times) / count,
        "median_s": quantile(times, 0.5),
        "stories": sum(v["story_count"] for v in verdicts) / count,
    }


def quiet(folder, found):
    """The stories without a fault, of the phase of learning and of the quiet one."""
    result = {}
    for phase in lines(folder / "phases.jsonl"):
        end = phase["start"] + phase["seconds"]
        within = [s for s in found if s.is_ours and phase["start"] <= s.read < end]
        result[phase["phase"]] = {
            "hours": round(phase["seconds"] / 3600, 3),
            "stories": [story.summary(phase["start"]) for story in within],
            "per_hour": round(len(within) / (phase["seconds"] / 3600), 2),
        }
    return result


def score(folder):
    run = json.loads((folder / "run.json").read_text())
    found = stories(folder, names_of(folder, run["instance"]))
    load = lines(folder / "load.jsonl")
    verdicts = [incident(fault, found, load) for fault in lines(folder / "faults.jsonl")]
    kinds = sorted({verdict["kind"] for verdict in verdicts})
    return {
        "run": run,
        "total": totals(verdicts),
        "kinds": {kind: totals([v for v in verdicts if v["kind"] == kind]) for kind in kinds},
        "quiet": quiet(folder, found),
        "others": [s.summary(s.read) for s in found if not s.is_ours],
        "incidents": verdicts,
    }
