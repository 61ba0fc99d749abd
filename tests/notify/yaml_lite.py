"""Reads the names and expressions of alerts without a parser of YAML, which Python doesn't have."""


def alerts(text):
    """Name and expression of each alert. An expression is on the line of its key, or indented below
    `expr: |`."""
    found, name, block = [], None, None
    for line in text.splitlines():
        indent, content = len(line) - len(line.lstrip()), line.strip()
        if block is not None and (not content or indent > block):
            found[-1][1].append(content)
            continue
        block = None
        if content.startswith("- alert: "):
            name = content.removeprefix("- alert: ")
        elif content.startswith("expr: "):
            value = content.removeprefix("expr: ")
            found.append((name, [] if value == "|" else [value]))
            block = indent if value == "|" else None
    return [(name, "\n".join(lines)) for name, lines in found]
