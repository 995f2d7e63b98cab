"""What README.md and docs/ print is what the program prints: each page is played on a machine of its own.

A page is Markdown. On a freshly booted Debian with the package installed, in the order of the page:

    ```console              the first line is a command (a \\ at its end goes on in the next), the rest its output
    ```yaml file=PATH       is written to that file
    <!-- do: COMMAND -->    is run, and not shown
    <!-- await: COMMAND --> is run again and again until it succeeds

Other blocks are for reading only. What differs from run to run (times, PIDs, IDs) is not compared.
`make docs` writes the outputs into the pages anew; tests/system/test_docs.py says where they are not so any more.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import NamedTuple

from tests.demo import Story
from tests.machines import host, image
from tests.machines.machine import Machine, wait_for
from tests.picture import terminal

TOP = Path(__file__).resolve().parents[1]
RELEASE = "bookworm"
PATIENCE_SECONDS = 180
WIDTH = 100
"""Columns of the terminal that a page shows."""

SHOWN_OF_DEMO = ("Somebody follows the usual guide", "The policy now says")
"""How the parts of the demo begin that make the picture."""

PAGES = (TOP / "README.md", *sorted((TOP / "docs").glob("*.md")))

_STEP = re.compile(
    r"^<!-- (?P<hidden>do|await): (?P<command>.*?) -->$"
    r"|^```console\n(?P<shown># (?:.*\\\n)*.*\n)(?P<output>(?:.*\n)*?)```$"
    r"|^```yaml file=(?P<file>\S+)\n(?P<text>(?:.*\n)*?)```$",
    re.MULTILINE)

_VARYING = (
    (r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\.\d+)?([+-]\d\d:?\d\d|Z| [A-Z]{3,4})?", "TIME"),
    (r"\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun|Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) +\d+ \d\d:\d\d:\d\d", "TIME"),
    (r"\b\d{4}-\d\d-\d\d\b", "DAY"),
    (r"\broot +\d+ +\d+ +\d+ \d\d:\d\d", "root PID PPID C STIME"),
    (r"\[\d+\]:", "[PID]:"),
    (r"\b([Pp][Ii][Dd]:?) \d+", r"\1 N"),
    (r"\b[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}\b|\b[0-9a-f]{12}\b|\b[0-9a-f]{64}\b", "ID"),
    (r"\b\d+(\.\d+)? ?(us|ms|s|min|h|d)\b( \d+(\.\d+)? ?(ms|s|min|h)\b)*", "DURATION"),
    (r"\b(dockerd|systemd|Docker) \d+(\.\d+)*(\+\w+)?", r"\1 VERSION"),
    (r"dockerd-guard_\d[\d.]*_all", "dockerd-guard_VERSION_all"),
    (r"[ \t]+", " "),
    (r"─+|━+", "─"),
)


class Step(NamedTuple):
    """One thing to do of a page; `span` is where its output stands, for those that show one."""

    kind: str
    what: str
    text: str = ""
    span: tuple[int, int] = (0, 0)


def steps(page: str) -> Iterator[Step]:
    """All that a page does, in order."""
    for found in _STEP.finditer(page):
        if found["hidden"]:
            yield Step(found["hidden"], found["command"].replace("--\\>", "-->"))
        elif found["file"]:
            yield Step("file", found["file"], found["text"])
        else:
            command = re.sub(r"\\\n *", "", found["shown"].removeprefix("# ")).rstrip("\n")
            yield Step("show", command, found["output"], found.span("output"))


def play(machine: Machine, page: str) -> str:
    """The page as it should be: with what its commands print on this machine, where that is not the same."""
    pieces, end = [], 0
    for step in steps(page):
        if step.kind == "file":
            machine.write(step.what, step.text)
        elif step.kind == "do":
            machine.run(step.what)
        elif step.kind == "await":
            wait_for(lambda command=step.what: machine.run(command, check=False).status == 0,  # type: ignore[misc]
                     step.what, timeout=PATIENCE_SECONDS)
        else:
            said = machine.run(f"export COLUMNS={WIDTH} MANWIDTH={WIDTH} SYSTEMD_PAGER=cat; {step.what}", check=False)
            output = "".join(f"{line.rstrip()}\n" for line in (said.out + said.err).splitlines())
            pieces += [page[end:step.span[0]], step.text if same(output, step.text) else output]
            end = step.span[1]
    return "".join([*pieces, page[end:]])


def same(one: str, other: str) -> bool:
    """Whether two outputs differ in nothing but what differs from run to run."""
    return normal(one) == normal(other)


def normal(text: str) -> str:
    """An output without what differs from run to run."""
    for pattern, word in _VARYING:
        text = re.sub(pattern, word, text)
    return text.strip()


def demo(package: Path) -> str:
    """What `make demo` prints, from the guide to the correction, as a picture."""
    said = io.StringIO()
    with Machine.boot(RELEASE) as machine, redirect_stdout(said):
        Story(machine, package).tell()
    parts = said.getvalue().split("\n━━ ")
    shown = "\n".join(f"━━ {part}" for part in parts if part.startswith(SHOWN_OF_DEMO))
    return terminal(shown.splitlines(), "make demo")


def main(package: Path) -> int:
    """Play all pages and the demo, and write them anew; the exit code says whether that could be done."""
    host.prepare_machines()
    image.base(RELEASE)
    for path in PAGES:
        before = path.read_text()
        if not any(step.kind == "show" for step in steps(before)):
            continue
        with Machine.boot(RELEASE, package=package) as machine:
            wait_for(lambda booted=machine: booted.is_active("dockerd-guard.service"), "agent")  # type: ignore[misc]
            after = play(machine, before)
        path.write_text(after)
        print(f"{path.relative_to(TOP)}: {'as it was' if before == after else 'written anew'}", flush=True)
    picture = TOP / "docs/demo.svg"
    if not same(shown := demo(package), picture.read_text()):
        picture.write_text(shown)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
