"""The console output in README.md and docs/ is that of the program: each page is run on a machine of its own.

A page is Markdown. On a freshly booted Debian with the package installed, in the order of the page:

    ```console              the first line is a command (a \\ at its end continues it), the rest is its output
    ```yaml file=PATH       is written to that file

Other blocks are not run. Steps that a page needs and does not show are in docs_steps.yaml, by page and by the block
before which they are run. What differs from run to run (times, PIDs, IDs) is not compared. `make docs` writes the
current output into the pages; tests/system/test_docs.py fails if a page is out of date.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import NamedTuple

import yaml

from tests.demo import Story
from tests.machines import host, image
from tests.machines.machine import Machine, wait_for
from tests.picture import terminal

TOP = Path(__file__).resolve().parents[1]
RELEASE = "bookworm"
PATIENCE_SECONDS = 180
WIDTH = 100
"""Columns of the terminal for the commands of a page."""

SHOWN_OF_DEMO = ("Somebody follows the usual guide", "The policy is changed to mode")
"""Beginnings of the parts of the demo that are in the picture."""

PAGES = (TOP / "README.md", *sorted((TOP / "docs").glob("*.md")))

HIDDEN: dict[str, dict[str, list[dict[str, str]]]] = yaml.safe_load((TOP / "tests/docs_steps.yaml").read_text())
"""Page, block (a command or the path of a file), and the steps before it (`do` or `await`, and a command)."""

_BLOCK = re.compile(
    r"^```console\n(?P<shown># (?:.*\\\n)*.*\n)(?P<output>(?:.*\n)*?)```$"
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
    """One step of a page. `kind`: do, await, file or show. `span`: where its output is in the page, for show."""

    kind: str
    what: str
    text: str = ""
    span: tuple[int, int] = (0, 0)


def steps(path: Path) -> Iterator[Step]:
    """All steps of a page in order, with the hidden ones."""
    hidden = HIDDEN.get(str(path.relative_to(TOP)), {})
    for found in _BLOCK.finditer(path.read_text()):
        if found["file"]:
            step = Step("file", found["file"], found["text"])
        else:
            command = re.sub(r"\\\n *", "", found["shown"].removeprefix("# ")).rstrip("\n")
            step = Step("show", command, found["output"], found.span("output"))
        for before in hidden.get(step.what, ()):
            yield from (Step(kind, what) for kind, what in before.items())
        yield step


def play(machine: Machine, path: Path) -> str:
    """Run a page. Returns it with the output of this machine where that differs."""
    page = path.read_text()
    pieces, end = [], 0
    for step in steps(path):
        if step.kind == "file":
            machine.write(step.what, step.text)
        elif step.kind == "do":
            machine.run(step.what)
        elif step.kind == "await":
            wait_for(lambda command=step.what: machine.run(command, check=False).status == 0,  # type: ignore[misc]
                     step.what, timeout=PATIENCE_SECONDS)
        else:
            done = machine.run(f"export COLUMNS={WIDTH} MANWIDTH={WIDTH} SYSTEMD_PAGER=cat; {step.what}", check=False)
            output = "".join(f"{line.rstrip()}\n" for line in (done.out + done.err).splitlines())
            pieces += [page[end:step.span[0]], step.text if same(output, step.text) else output]
            end = step.span[1]
    return "".join([*pieces, page[end:]])


def same(one: str, other: str) -> bool:
    """Whether two outputs are equal apart from what differs from run to run."""
    return normal(one) == normal(other)


def normal(text: str) -> str:
    """An output without what differs from run to run."""
    for pattern, word in _VARYING:
        text = re.sub(pattern, word, text)
    return text.strip()


def demo(package: Path) -> str:
    """The output of `make demo`, from the guide to the correction, as SVG."""
    output = io.StringIO()
    with Machine.boot(RELEASE) as machine, redirect_stdout(output):
        Story(machine, package).run()
    parts = output.getvalue().split("\n━━ ")
    shown = "\n".join(f"━━ {part}" for part in parts if part.startswith(SHOWN_OF_DEMO))
    return terminal(shown.splitlines(), "make demo")


def main(package: Path) -> int:
    """Run all pages and the demo, and update them. Returns the exit code."""
    host.prepare_machines()
    image.base(RELEASE)
    for path in PAGES:
        before = path.read_text()
        if not any(step.kind == "show" for step in steps(path)):
            continue
        with Machine.boot(RELEASE, package=package) as machine:
            wait_for(lambda booted=machine: booted.is_active("dockerd-guard.service"), "agent")  # type: ignore[misc]
            after = play(machine, path)
        path.write_text(after)
        print(f"{path.relative_to(TOP)}: {'unchanged' if before == after else 'updated'}", flush=True)
    picture = TOP / "docs/demo.svg"
    if not same(shown := demo(package), picture.read_text()):
        picture.write_text(shown)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
