"""The result of a run as text, and its thresholds."""

from collections import Counter

COLUMNS = ("runs", "AC@1", "AC@3", "AC@5", "any", "story", "≤ 30 s", "median", "stories")
# Smallest shares and largest counts that `--check` accepts.
AC1, WITHIN_30_S, STORIES, FALSE_PER_HOUR = 0.85, 0.95, 1.5, 1.0


def row(name, total):
    if total["runs"] == 0:
        return f"| {name} | 0 |" + " |" * (len(COLUMNS) - 1)
    shares = ("ac1", "ac3", "ac5", "any", "with_story", "within_30_s")
    cells = [str(total["runs"]), *(f"{total[share]:.2f}" for share in shares)]
    median = total["median_s"]
    cells.append("–" if median is None else f"{median:.0f} s")
    cells.append(f"{total['stories']:.1f}")
    return f"| {name} | " + " | ".join(cells) + " |"


def milliseconds(value):
    return "–" if value is None else f"{value:.0f}"


def incident_row(verdict):
    before, during = verdict["harm"]["before"], verdict["harm"]["during"]
    failed = "–" if during["failed"] is None else f"{during['failed']:.0%}"
    times = f"{milliseconds(before['p95_ms'])} → {milliseconds(during['p95_ms'])} ms"
    found = "; ".join(
        f"{story['after_s']:.0f} s {story['rule']}: "
        + ", ".join(service or "?" for service in story["ranking"][:3])
        for story in verdict["stories"]
    )
    merged = "; ".join(
        f"({story['rule']}: " + ", ".join(service or "?" for service in story["ranking"][:3]) + ")"
        for story in verdict["updated"]
    )
    right = "yes" if verdict["ac1"] else "no"
    cells = (verdict["kind"], verdict["service"], right, failed, times, found or "–", merged)
    return "| " + " | ".join(cells) + " |"


def table(result):
    """By kind, by incident, and the stories without a fault; Markdown."""
    text = ["| kind | " + " | ".join(COLUMNS) + " |", "| --- |" + " --- |" * len(COLUMNS)]
    text += [row(kind, total) for kind, total in result["kinds"].items()]
    text += [row("all", result["total"]), ""]
    head = "| kind | service | right | failed | p95 | its stories | stories of before, updated |"
    text += [head, "| --- |" + " --- |" * 6]
    text += [incident_row(verdict) for verdict in result["incidents"]]
    for phase, quiet in result["quiet"].items():
        text += ["", f"{phase}: {len(quiet['stories'])} stories in {quiet['hours']:.2f} h"]
        text += [f"* {story['after_s']:.0f} s {story['name']}" for story in quiet["stories"]]
    if result["others"]:
        text += ["", "Stories about others on this machine:"]
        names = Counter(f"{story['rule']}: {story['name']}" for story in result["others"])
        text += [f"* {count} × {name}" for name, count in names.most_common()]
    return "\n".join(text)


def failures(result):
    """The thresholds that a result misses, one sentence each."""
    total, quiet = result["total"], result["quiet"].get("quiet")
    found = []
    if total["runs"]:
        if total["ac1"] < AC1:
            found.append(f"AC@1 {total['ac1']:.2f} is below {AC1}")
        if total["within_30_s"] < WITHIN_30_S:
            found.append(f"{total['within_30_s']:.2f} within 30 s is below {WITHIN_30_S}")
        # Two faults of a smoke run say nothing about a mean.
        if total["stories"] > STORIES and not result["run"].get("smoke"):
            found.append(f"{total['stories']:.1f} stories an incident are above {STORIES}")
    if quiet and quiet["per_hour"] > FALSE_PER_HOUR:
        found.append(f"{quiet['per_hour']:.1f} false stories an hour are above {FALSE_PER_HOUR}")
    return found
