"""The vectors of tests/data: inputs, and what the real programs of each Debian release answered.

A file is {"about": text, "programs": {release: version}, "vectors": [...]}. Each vector has a `name`, its input, and
`expected`: {release: answer}. A release that `expected` does not name answers as the one before it.
`python3 -m tests.data.renew` asks the real programs and writes the answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.unit_files import Content, Directory, Link

DATA = Path(__file__).parents[1] / "data"
RELEASES = ("bookworm", "trixie", "sid")
SYSTEMD = {"bookworm": 252, "trixie": 257, "sid": 262}

WIDTH = 118
RECORDER = "/root/recorder"
"""The program that machines record argv and environ with: tests/differential/recorder.c."""

Vector = dict[str, Any]
Facts = dict[str, Any]


class Document(NamedTuple):
    """A file of vectors."""

    path: Path
    value: dict[str, Any]

    @property
    def topic(self) -> str:
        return self.path.stem

    @property
    def vectors(self) -> list[Vector]:
        found: list[Vector] = self.value["vectors"]
        return found


def documents(directory: str) -> Iterator[Document]:
    """Return the files of vectors in a directory of tests/data."""
    for path in sorted((DATA / directory).glob("*.json")):
        yield Document(path, json.loads(path.read_text()))


def expected(vector: Mapping[str, Any], release: str) -> Any:
    """Return what the release's program answered."""
    answers = vector["expected"]
    return answers[next(name for name in reversed(RELEASES[:RELEASES.index(release) + 1]) if name in answers)]


def with_answer(vector: Vector, release: str, answer: object) -> Vector:
    """Return the vector with this release's answer in it; equal answers of later releases are left out."""
    known = vector.get("expected") or {RELEASES[0]: answer}
    answers = {name: expected({"expected": {RELEASES[0]: answer, **known}}, name) for name in RELEASES}
    answers[release] = answer
    shown: dict[str, Any] = {}
    for name in RELEASES:
        if not shown or expected({"expected": shown}, name) != answers[name]:
            shown[name] = answers[name]
    return {**vector, "expected": shown}


def dump(value: Mapping[str, Any]) -> str:
    """Return a file's text: a vector a line, or several lines where one is too long to read."""
    head = [f" {json.dumps(key)}: {json.dumps(item, ensure_ascii=False)},\n"
            for key, item in value.items() if key != "vectors"]
    return "{\n" + "".join(head) + ' "vectors": [\n' + ",\n".join(map(_lines, value["vectors"])) + "\n ]\n}\n"


def _lines(vector: Vector) -> str:
    line = f"  {json.dumps(vector, ensure_ascii=False)}"
    if len(line) <= WIDTH:
        return line
    parts = [f"   {json.dumps(key)}: {json.dumps(item, ensure_ascii=False)}" for key, item in vector.items()]
    folded = (_folded(part, item) for part, item in zip(parts, vector.values(), strict=True))
    return "  {\n" + ",\n".join(folded) + "\n  }"


def _folded(part: str, item: object) -> str:
    if len(part) <= WIDTH or not isinstance(item, dict):
        return part
    rows = [f"    {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in item.items()]
    return part.partition(": ")[0] + ": {\n" + ",\n".join(rows) + "\n   }"


# systemd: what each topic's input is part of, and which of a unit's facts is the answer.

LOW = "/usr/lib/systemd/system/"
ONESHOT = b"[Service]\nType=oneshot\nExecStart="

BEFORE = {
    "words": b"/bin/x ", "specifiers": b"/bin/x ", "exec": b"", "syntax": b"/bin/x\n", "environment": b"/bin/x\n",
    "expansion": f"{RECORDER} ".encode(), "environment_file": f"{RECORDER}\nEnvironmentFile=/srv/UNIT.env\n".encode(),
    "address": b"ListenStream=", "listen": b"",
}
"""What stands before a topic's input, after `ExecStart=` or `[Socket]`."""

FACTS: dict[str, Callable[[Facts], Any]] = {
    "words": lambda facts: facts["argv"][0][1:], "specifiers": lambda facts: facts["argv"][0][1:],
    "exec": itemgetter("commands"), "syntax": itemgetter("environment"), "environment": itemgetter("environment"),
    "expansion": itemgetter("recorded_argv"), "environment_file": itemgetter("recorded_environment"),
    "address": lambda facts: facts["listen"][0][1], "listen": itemgetter("listen"),
}

STARTED = ("expansion", "environment_file")
"""Topics whose units are started: the answer is what the recorder saw."""


def unit_of(topic: str, vector: Vector) -> str:
    """Return the unit that is asked about."""
    if "unit" in vector:
        return str(vector["unit"])
    return "UNIT.socket" if topic in ("address", "listen") else "UNIT.service"


def files_of(topic: str, vector: Vector) -> dict[str, Content]:
    """Return the files that make the unit."""
    if topic == "files":
        return {path: _content(item) for path, item in vector["files"].items()}
    files: dict[str, Content] = {}
    value = data(vector["input"])
    if topic == "environment_file":
        files["/srv/UNIT.env"], value = value, b""
    if topic in ("address", "listen"):
        files[LOW + "UNIT.socket"], value = b"[Socket]\n" + BEFORE[topic] + value + b"\n", b""
    prefix = vector.get("prefix", "").encode()
    after = "".join(f"{line}\n" for line in vector.get("environment", ())).encode()
    command = b"/bin/x" if files and topic != "environment_file" else BEFORE[topic]
    return {LOW + "UNIT.service": ONESHOT + prefix + command + value + b"\n" + after, **files}


def answer_of(topic: str, facts: Facts) -> Any:
    """Return the answer: the topic's fact, or the LoadState where the unit is not loaded."""
    if topic == "files":
        names = ("state", "fragment", "dropins", "names", "environment", "argv")
        return {name: facts[name] for name in (names if facts["state"] == "loaded" else names[:1])}
    return FACTS[topic](facts) if facts["state"] == "loaded" else facts["state"]


def data(value: object) -> bytes:
    """Return the bytes of a file: text, or {"hex": digits} for what is not text."""
    return bytes.fromhex(value["hex"]) if isinstance(value, dict) else str(value).encode()


def _content(item: object) -> Content:
    if isinstance(item, dict) and "link" in item:
        return Link(item["link"])
    if isinstance(item, dict) and "directory" in item:
        return Directory()
    return data(item)
