#!/usr/bin/env python3
"""Makes the pictures of `tapio top` in docs/images from recorded stories.

A server and an agent run on free ports, the agent sends recordings of tests/stories, and tmux has
`tapio top` on a terminal of 100 columns. What the terminal shows, with its colours, is written as
SVG. Needs tmux. Usage: scripts/top-pictures.py [PROGRAM], by default target/release/tapio.
"""

import html
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time
import unicodedata

ROOT = pathlib.Path(__file__).resolve().parent.parent
RECORDINGS = ["error-rate", "fork-bomb", "kernel-log", "nginx-cascade", "pod-startup", "tcp-storms"]
COLUMNS, ROWS = 100, 28
CELL, LINE, SIZE, MARGIN = 8.4, 18, 14, 12
BACKGROUND, FOREGROUND = "#1c1f26", "#d8dce4"
COLOURS = ["#1c1f26", "#ff7a7a", "#8fd18f", "#f0c75e", "#7aa7ff", "#cf9bff", "#6fcfd6", "#d8dce4"]
# A space that viewers of SVG don't merge with others.
NO_BREAK = "\u00a0"
TIME_LIMIT = 120


def free_port(preferred=0):
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", preferred))
        except OSError:
            listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def eventually(what, attempt):
    """Waits until an attempt returns something."""
    end = time.monotonic() + TIME_LIMIT
    while time.monotonic() < end:
        found = attempt()
        if found:
            return found
        time.sleep(0.1)
    sys.exit(f"timed out: {what}")


class Cells:
    """The state of a terminal's characters: colours and weights."""

    def __init__(self):
        self.reset()

    def reset(self):
        self.colour, self.bold, self.dim, self.under, self.reverse = None, False, False, False, False

    def apply(self, codes):
        if codes[:2] == [38, 5] and len(codes) == 3:
            self.colour = COLOURS[codes[2] % 8]
            return
        for code in codes:
            if code == 0:
                self.reset()
            elif code in (1, 2, 4, 7):
                setattr(self, {1: "bold", 2: "dim", 4: "under", 7: "reverse"}[code], True)
            elif code == 22:
                self.bold = self.dim = False
            elif code == 24:
                self.under = False
            elif code == 27:
                self.reverse = False
            elif 30 <= code <= 37:
                self.colour = COLOURS[code - 30]
            elif code == 39:
                self.colour = None

    def attributes(self):
        colour = BACKGROUND if self.reverse else self.colour or FOREGROUND
        out = f'fill="{colour}"'
        out += ' font-weight="bold"' if self.bold else ""
        out += ' opacity="0.65"' if self.dim else ""
        out += ' text-decoration="underline"' if self.under else ""
        return out

    def background(self):
        return (self.colour or FOREGROUND) if self.reverse else None


def width(text):
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def svg(screen, title):
    """The screen of a terminal, with its colours as escapes, as SVG."""
    cells, body = Cells(), []
    for row, line in enumerate(screen.split("\n")[:ROWS]):
        column, top = 0, MARGIN + row * LINE
        # Other escapes than colours, such as the change to another character set, have no effect.
        line = re.sub(r"\x1b[()].|[\x0e\x0f]", "", line)
        for part in re.finditer(r"\x1b\[([0-9;]*)m|([^\x1b]+)", line):
            codes, text = part.groups()
            if text is None:
                cells.apply([int(code or 0) for code in codes.split(";")])
                continue
            x, length = MARGIN + column * CELL, width(text) * CELL
            column += width(text)
            if cells.background():
                body.append(
                    f'<rect x="{x:.1f}" y="{top}" width="{length:.1f}" height="{LINE}" '
                    f'fill="{cells.background()}"/>'
                )
            if text.strip():
                body.append(
                    f'<text x="{x:.1f}" y="{top + SIZE}" textLength="{length:.1f}" '
                    f"{cells.attributes()}>{html.escape(text).replace(' ', NO_BREAK)}</text>"
                )
    wide, high = 2 * MARGIN + COLUMNS * CELL, 2 * MARGIN + ROWS * LINE
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide:.0f}" height="{high}" '
        f'viewBox="0 0 {wide:.0f} {high}" font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" '
        f'font-size="{SIZE}" role="img">\n<title>{html.escape(title)}</title>\n'
        f'<rect width="100%" height="100%" rx="6" fill="{BACKGROUND}"/>\n'
    )
    return head + "\n".join(body) + "\n</svg>\n"


class Terminal:
    def __init__(self, folder, command):
        self.tmux = ["tmux", "-u", "-f", "/dev/null", "-S", str(folder / "tmux")]
        environment = ["env", "-u", "NO_COLOR", "TZ=UTC", "LANG=C.UTF-8", "TERM=xterm-256color"]
        size = ["-x", str(COLUMNS), "-y", str(ROWS)]
        self.run("new-session", "-d", *size, *environment, *command)

    def run(self, *arguments):
        return subprocess.run(
            [*self.tmux, *arguments], check=True, capture_output=True, text=True
        ).stdout

    def wait_for(self, text):
        return eventually(text, lambda: text in self.run("capture-pane", "-p"))

    def picture(self, name, title):
        path = ROOT / "docs/images" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(svg(self.run("capture-pane", "-e", "-p"), title))
        print(path.relative_to(ROOT))


def main():
    program = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "target/release/tapio")
    with tempfile.TemporaryDirectory() as name:
        folder, grpc = pathlib.Path(name), free_port(7600)
        config = folder / "tapio.yaml"
        settings = (
            f"state_dir: {folder}\nnode: worker-1\nadmin: {{ listen: 127.0.0.1:{free_port()} }}\n"
            f"bridge: {{ endpoint: 127.0.0.1:{grpc} }}\n"
            f"server: {{ grpc_listen: 127.0.0.1:{grpc}, http_listen: 127.0.0.1:{free_port()} }}\n"
        )
        config.write_text(settings)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        server = subprocess.Popen([program, "server", "--config", config], **quiet)
        terminal = None
        try:
            address = ("127.0.0.1", grpc)
            eventually("the server", lambda: socket.socket().connect_ex(address) == 0)
            arguments = [program, "run", "--until-finished", "--config", config]
            # One after the other: the stories don't depend on how recordings are mixed.
            for one in RECORDINGS:
                path = ROOT / f"tests/stories/{one}.jsonl"
                collectors = f"collectors: {{ only: [jsonl], jsonl: {{ paths: [{path}] }} }}\n"
                config.write_text(settings + collectors)
                subprocess.run(arguments, check=True, **quiet)
            command = [str(program), "top", "--utc", "--server", f"127.0.0.1:{grpc}"]
            terminal = Terminal(folder, command)
            terminal.wait_for("3 losses")
            terminal.run("send-keys", "s")
            terminal.run("send-keys", "j")
            terminal.wait_for("SEVERITY↓")
            time.sleep(0.5)
            terminal.picture("top-stories.svg", "tapio top: the stories of a server, the worst first")
            terminal.run("send-keys", "-l", "/pods and clients")
            terminal.run("send-keys", "Enter", "Enter")
            terminal.wait_for("Root cause")
            terminal.picture("top-story.svg", "tapio top: a story with cause, actions and impact")
            terminal.run("send-keys", "q")
        finally:
            if terminal:
                subprocess.run([*terminal.tmux, "kill-server"], **quiet)
            server.terminate()
            server.wait()


if __name__ == "__main__":
    os.environ.pop("TMUX", None)
    main()
