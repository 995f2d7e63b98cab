"""Files and directories as arguments of `lint`: read, placed on a host with stock units, and judged there."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from dockerd_guard.commands._common import Look, Unanswerable, observe_files
from dockerd_guard.commands._subjects import Judged, combined, incomplete, relocated
from dockerd_guard.model.finding import Finding
from dockerd_guard.model.location import Location
from dockerd_guard.model.names import SERVICE, SOCKET
from dockerd_guard.observe import carriers, file_kinds, stock_units, templates
from dockerd_guard.observe.file_kinds import Kind
from dockerd_guard.observe.observation import CONFIGURED
from dockerd_guard.rootfs import Rootfs, Unreadable
from dockerd_guard.rules.judge import judge
from dockerd_guard.rules.registry import TITLES

if TYPE_CHECKING:
    from argparse import Namespace

    from dockerd_guard.dockerd.version import Version
    from dockerd_guard.policy.model import Policy

MAX_FILE_BYTES = 1024 * 1024
MAX_TOTAL_BYTES = 16 * 1024 * 1024
MAX_HOSTS = 200
"""Files of different hosts, or alternatives for one place on a host, that are judged."""

MAX_NAMES = 50_000
"""Names looked at in the directories of the command line."""

STDIN = "<stdin>"

_SKIPPED = frozenset((".git", ".hg", ".svn", "node_modules", ".venv", "venv", "__pycache__", ".tox", ".terraform"))
_PLACEHOLDER = re.compile(r"unknown[0-9]{1,3}\b")
_ACCOUNT = f'[Service]\nEnvironment=USER=user XDG_RUNTIME_DIR=/run/user/1000 "HOME={file_kinds.HOME}"\n'.encode()
_NO_CERTIFICATES = "DG206"

Where = Callable[[int, int], tuple[int, int]]
"""Converts line and column of a placed text into those of the file on the command line."""


class Source(NamedTuple):
    """A text of the command line: a file, or a file within one. `carried_as` is the path it has there."""

    file: str
    text: str
    is_named: bool
    where: Where
    carried_as: str | None = None


class Placed(NamedTuple):
    """A text at its place on a host, rendered if it is a template."""

    kind: Kind
    content: bytes
    file: str
    where: Where
    expressions: tuple[templates.Expression, ...] = ()
    is_template: bool = False


class Arguments:
    """What the arguments of `lint` contain: `placed` texts, and `findings` about the arguments themselves."""

    def __init__(self, paths: Iterable[str], stdin_name: str | None) -> None:
        """Read all of them. Raises Unanswerable for an argument that cannot be read."""
        self.contents: dict[str, bytes] = {}
        self.placed: list[Placed] = []
        self.findings: list[Finding] = []
        self.unanswered: list[str] = []
        self._total = 0
        self._names = 0
        with Rootfs() as rootfs:
            for path in paths:
                if path == "-":
                    self._add(stdin_name or STDIN, sys.stdin.buffer.read(MAX_FILE_BYTES + 1), is_named=True)
                    continue
                entry = rootfs.stat(os.path.abspath(path))
                if entry is None:
                    raise Unanswerable(f"{path}: No such file or directory")
                if entry.is_directory:
                    before = len(self.placed) + len(self.findings)
                    self._walk(rootfs, path)
                    if len(self.placed) + len(self.findings) == before and not self.unanswered:
                        self.unanswered.append(f"{path}: contains no configuration of dockerd")
                else:
                    self._add(path, self._read(rootfs, path), is_named=True)

    def _walk(self, rootfs: Rootfs, directory: str) -> None:
        """Add the files below a directory that configure dockerd. Symbolic links are not followed."""
        todo = [directory]
        while todo:
            directory = todo.pop()
            kinds = rootfs.kinds(os.path.abspath(directory))
            self._names += len(kinds)
            if self._names > MAX_NAMES:
                self.unanswered.append(f"{directory}: more than {MAX_NAMES} names; the rest is not read")
                return
            for name in sorted(kinds, reverse=True):
                path = os.path.join(directory, name)
                if kinds[name] == "d" and name not in _SKIPPED:
                    todo.append(path)
            for name in sorted(kinds):
                path = os.path.normpath(os.path.join(directory, name))
                if kinds[name] == "f" and file_kinds.CANDIDATE.search(f"{os.path.basename(directory)}/{name}"):
                    try:
                        self._add(path, self._read(rootfs, path), is_named=False)
                    except Unreadable as error:
                        self.unanswered.append(f"{path}: {error.reason}")

    @staticmethod
    def _read(rootfs: Rootfs, path: str) -> bytes:
        return rootfs.read(os.path.abspath(path))

    def _add(self, file: str, data: bytes, *, is_named: bool) -> None:
        if len(data) > MAX_FILE_BYTES:
            if is_named or "docker" in file.lower():
                self.unanswered.append(f"{file}: larger than {MAX_FILE_BYTES >> 20} MiB; not read")
            return
        source = Source(file, data.decode("utf-8", "surrogateescape"), is_named, lambda line, column: (line, column))
        if self._place(source) or self._read_carrier(source):
            self.contents[file] = data
            self._total += len(data)
            if self._total > MAX_TOTAL_BYTES:
                raise Unanswerable(f"{file}: the files have more than {MAX_TOTAL_BYTES >> 20} MiB together")
        elif is_named:
            self.unanswered.append(
                f"{file}: not recognized. Expected a unit, a drop-in, an environment file or daemon.json of Docker, or "
                "a file of cloud-init, Butane, Ignition or Compose")

    def _place(self, source: Source) -> bool:
        path = source.carried_as or os.path.normpath(source.file)
        text = source.text
        kind = file_kinds.kind_of(path, text, is_named=source.is_named)
        if kind is None or (kind.syntax != "json" and source.carried_as is None and carriers.carries(path, text)):
            return False
        if source.carried_as is not None or source.is_named:
            # The files that are named on the command line belong together, as do those within one file.
            kind = kind._replace(group=source.file if source.carried_as is not None else "")
        if not templates.is_template(source.file, text, kind.syntax):
            self.placed.append(Placed(kind, _encoded(text), source.file, source.where))
            return True
        first = templates.render(source.file, text, kind.syntax)
        rendered = [first, *([templates.render(source.file, text, kind.syntax, 1)] if first.has_branches else [])]
        for result in rendered:
            self.placed.append(Placed(kind, _encoded(result.text), source.file,
                                      _through(result, text, source.where), result.expressions, is_template=True))
        return True

    def _read_carrier(self, source: Source) -> bool:
        """Read cloud-init, Butane, Ignition and Compose files. False for any other file."""
        if not carriers.carries(os.path.basename(file_kinds.plain_name(source.file)), source.text):
            return False
        text = source.text
        through = source.where
        try:
            files, published = _read_as_template(source)
        except carriers.UnreadableCarrier as error:
            if source.is_named or re.search("docker", text):
                self.unanswered.append(f"{source.file}:{error.line}: not read: {error}")
            return False
        found = False
        for carried in files:
            content = carried.content.decode("utf-8", "surrogateescape")
            inner = Source(source.file, content, False, _inside(carried, through), carried.path)
            found |= self._place(inner)
        for api in published:
            line, column = through(api.line, api.column)
            self.findings.append(_published(source.file, api, Location(
                source.file, line, column, column + api.end_column - api.column)))
        return found or bool(published)


def _read_as_template(source: Source) -> tuple[list[carriers.Carried], list[carriers.PublishedApi]]:
    """Read a file that carries others. If it is YAML only without its tags, as a template, they are blanked."""
    try:
        return carriers.read(source.text)
    except carriers.UnreadableCarrier:
        without_tags = re.sub(r"\{%[^\n%]{0,400}%\}|^[ \t]*\{\{-?[ \t]*(?:if|else|end|range|with)\b[^\n}]{0,400}\}\}",
                              lambda found: " " * len(found[0]), source.text, flags=re.MULTILINE)
        if without_tags == source.text:
            raise
        return carriers.read(without_tags)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _through(rendered: templates.Rendered, source: str, where: Where) -> Where:
    """Convert a place in a rendered template."""
    lines = _starts(rendered.text)
    source_lines = _starts(source)

    def convert(line: int, column: int) -> tuple[int, int]:
        from bisect import bisect_right

        offset = rendered.origin(lines[min(line, len(lines)) - 1] + column - 1)
        found = bisect_right(source_lines, offset)
        return where(found, offset - source_lines[found - 1] + 1)

    return convert


def _starts(text: str) -> list[int]:
    return [0, *(found.end() for found in re.finditer("\n", text))]


def _inside(carried: carriers.Carried, where: Where) -> Where:
    """Convert a place in a carried file."""
    if carried.indent is None:
        return lambda line, column: where(carried.first_line, carried.column)
    indent = carried.indent
    return lambda line, column: where(carried.first_line + line - 1, column + indent)


def _published(file: str, api: carriers.PublishedApi, location: Location) -> Finding:
    is_local = api.port.startswith(("127.", "[::1]", "localhost:"))
    return Finding(
        "DG108" if "DG108" in TITLES else "DG107", "warning" if is_local else "error",
        f"the container {api.service} mounts the Docker socket and publishes port {api.port}: who controls it through "
        "this port has root access to the host", CONFIGURED, location)


# -- judging --------------------------------------------------------------------------------------


def judge_arguments(arguments: Arguments, policy: Policy | None, options: Namespace) -> Judged:
    """Judge the files, those of one group together."""
    hosts = list(islice(_hosts(arguments.placed), MAX_HOSTS + 1))
    parts = [_judge_together(files, policy, options.docker_version) for files in hosts[:MAX_HOSTS]]
    if len(hosts) > MAX_HOSTS:
        arguments.unanswered.append(f"the files are of more than {MAX_HOSTS} hosts; the rest is not judged")
    whole = combined([*parts, Judged(tuple(arguments.findings), judged=bool(arguments.findings))])
    unanswered = (*arguments.unanswered, *whole.unanswered)
    if not whole.judged and not unanswered:
        unanswered = ("the files configure no dockerd: there is nothing to judge",)
    return whole._replace(unanswered=unanswered)


def _hosts(placed: list[Placed]) -> Iterator[list[Placed]]:
    """Divide the files into those of one host. Of several files for one place each is judged with the others."""
    groups: dict[tuple[str, bool], dict[str, list[Placed]]] = {}
    for item in placed:
        groups.setdefault((item.kind.group, item.kind.is_rootless), {}).setdefault(item.kind.place, []).append(item)
    for places in groups.values():
        for number in range(max(map(len, places.values()))):
            yield [items[min(number, len(items) - 1)] for items in places.values()]


def _judge_together(files: list[Placed], policy: Policy | None, dockerd: Version | None) -> Judged:
    by_place = {item.kind.place: item for item in files}
    is_rootless = files[0].kind.is_rootless
    assumed = _assumed(by_place, is_rootless=is_rootless)
    content = {place: item.content for place, item in by_place.items()}
    look = _look(Rootfs("", {**assumed, **content}), policy, dockerd)
    if look.seen.configured.service.unit.load_state == "not-found":
        assumed = {**assumed, stock_units.SERVICE_FILE: stock_units.stock_unit(by_place).service}
        look = _look(Rootfs("", {**assumed, **content}), policy, dockerd)
    missing = {file.path: b"" for file in look.seen.configured.service.environment_files
               if not file.optional and file.path not in content and not re.search(r"[*?\[]", file.path)}
    if missing:
        assumed = {**assumed, **missing}
        look = _look(Rootfs("", {**assumed, **content}), policy, dockerd)
    findings = tuple(finding for finding in judge(look.seen, policy) if not _is_artifact(finding))
    broken = [finding.location.file for finding in findings if finding.code == "DG205" and finding.location is not None
              and finding.location.file in by_place and by_place[finding.location.file].is_template]
    findings = tuple(finding for finding in findings if finding.code != "DG205" or finding.location is None
                     or finding.location.file not in broken)

    def place(location: Location) -> Location | None:
        item = by_place.get(location.file)
        if item is None:
            return None
        line, column = item.where(location.line, location.column)
        end_line, end = item.where(location.line, location.end_column)
        return Location(item.file, line, column, end if end_line == line else column)

    found = tuple(_in_words(finding, by_place) for finding in relocated(findings, place))
    unknown = [f"{item.file}:{item.where(expression.line, 1)[0]}: the value of {expression.text} is not known, and it "
               "decides where dockerd listens"
               for item in files for expression in item.expressions if expression.decides]
    unknown += [f"{by_place[file].file}: this template cannot be read without its values" for file in broken]
    unknown += [f"{path}: not among the files; what it sets is not known" for path in missing]
    unknown += [text for text in incomplete(look.seen, found)
                if not _PLACEHOLDER.search(text) and not broken]
    notes = []
    if units := sorted(path.rpartition("/")[2] for path in assumed if path.endswith((SERVICE, SOCKET))):
        package = stock_units.stock_unit(by_place).package
        kind = "the unit of a rootless dockerd" if is_rootless else f"the stock units of {package}"
        notes.append(f"{', '.join(dict.fromkeys(item.file for item in files))}: judged with {kind} "
                     f"({', '.join(units)})")
    others = [expression.text for item in files for expression in item.expressions if not expression.decides]
    if others:
        notes.append(f"{files[0].file}: values that are not known: {', '.join(dict.fromkeys(others))}")
    return Judged(found, tuple(dict.fromkeys(item.file for item in files)), tuple(notes), tuple(unknown),
                  judged=bool(found) or any(map(_is_of_dockerd, files)))


def _is_of_dockerd(item: Placed) -> bool:
    """Whether a file configures dockerd, and not only a service that has to do with Docker."""
    unit = re.search(r"/(docker\.(?:service|socket))(?:\.d/|\Z)", item.kind.place)
    return item.kind.syntax != "unit" or unit is not None or re.search(
        rb"dockerd|Service[ \t]{0,8}=[ \t]{0,8}docker\.service", item.content) is not None


def _look(rootfs: Rootfs, policy: Policy | None, dockerd: Version | None) -> Look:
    return Look("", observe_files(rootfs, dockerd), policy, policy_is_outside=True)


def _assumed(by_place: dict[str, Placed], *, is_rootless: bool) -> dict[str, bytes]:
    """The stock units that the files do not replace."""
    units = {place.rpartition("/")[2] for place in by_place if place.count("/") == 4 or not place.endswith(".conf")}
    if is_rootless:
        files = {f"{file_kinds.SYSTEM_UNITS}/docker.service.d/00-account.conf": _ACCOUNT}
        return files if "docker.service" in units else {**files, stock_units.SERVICE_FILE: stock_units.ROOTLESS}
    files = stock_units.stock_files(by_place)
    if "docker.service" in units:
        del files[stock_units.SERVICE_FILE]
    elif any(re.search(rb"dockerd|docker\s{1,8}daemon", item.content) and place.endswith(".service")
             for place, item in by_place.items()):
        # A unit of another name runs dockerd.
        del files[stock_units.SERVICE_FILE]
    if "docker.socket" in units:
        del files[stock_units.SOCKET_FILE]
    return files


def _is_artifact(finding: Finding) -> bool:
    """Whether a finding is about what is not among the files, or about a value that replaces an expression."""
    if finding.code == _NO_CERTIFICATES and "is missing" in finding.message:
        return True
    return _PLACEHOLDER.search(finding.message) is not None or (
        finding.socket is not None and _PLACEHOLDER.search(finding.socket) is not None)


def _in_words(finding: Finding, by_place: dict[str, Placed]) -> Finding:
    """The finding with files of the command line and expressions in its message."""
    message = finding.message
    for place, item in by_place.items():
        if place in message:
            message = re.sub(re.escape(place) + r":([0-9]{1,9}):([0-9]{1,9})", partial(_named, item), message)
            message = message.replace(place, item.file)
        for expression in item.expressions:
            if expression.value.startswith("192.0.2."):
                message = expression.text.join(re.split(re.escape(expression.value) + "(?![0-9])", message))
            elif re.fullmatch("49[0-9]{3}", expression.value):
                message = message.replace(f":{expression.value}", f":{expression.text}")
    return finding._replace(message=message, fix=None)


def _named(item: Placed, found: re.Match[str]) -> str:
    line, column = item.where(int(found[1]), int(found[2]))
    return f"{item.file}:{line}:{column}"
