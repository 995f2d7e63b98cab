"""Files and directories as arguments of `lint`: what they contain, and its places on a host."""

from __future__ import annotations

import os
import re
import sys
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import islice
from typing import NamedTuple

from dockerd_guard.commands._common import Unanswerable
from dockerd_guard.commands._services import ServiceFile, Services, variables_beside
from dockerd_guard.model.limits import LIMITS
from dockerd_guard.observe import carriers, file_kinds, quadlets, templates, unread_hosts
from dockerd_guard.observe.file_kinds import Kind
from dockerd_guard.observe.socket_mounts import is_socket_mount, names_socket
from dockerd_guard.observe.yaml_nodes import UnreadableYaml
from dockerd_guard.rootfs import Rootfs, Unreadable

MAX_FILE_BYTES = 1024 * 1024
MAX_TOTAL_BYTES = 16 * 1024 * 1024
MAX_NAMES = 50_000
"""Names looked at in the directories of the command line."""

MAX_SCANNED_BYTES = 256 * 1024 * 1024
"""Bytes of the files in directories that are looked into."""

MAX_SHOWN = 20
"""Files listed that set a host in a form that is not evaluated."""

STDIN = "<stdin>"

_SKIPPED = frozenset((".git", ".hg", ".svn", "node_modules", ".venv", "venv", "__pycache__", ".tox", ".terraform"))

_IS_DOCKERS_NAME = re.compile(
    r"docker|daemon\.json|override|user-?data|cloud-?(?:init|config)|compose|\.(?:ign|bu|fcc)\Z", re.IGNORECASE)
_MAY_LEAD_TO_DOCKER = re.compile(rf"(?:\A|/)(?:etc|systemd|system)\Z|{_IS_DOCKERS_NAME.pattern}", re.IGNORECASE)
_ENABLES = re.compile(r"\.(?:wants|requires|upholds)/[^/]+\Z")
"""A link that enables a unit, and configures nothing."""

_TASKS = re.compile(r"(?:\A|/)(?:tasks|handlers)/(?:[^/]+/){0,8}[^/]+\.ya?ml\Z")

_FLATCAR = r"(?m:^)(?:variant[ \t]{0,8}:[ \t]{0,8}[\"']?flatcar\b|coreos[ \t]{0,8}:)"
"""Butane for Flatcar, and cloud-config of CoreOS."""

_LINK_TO_SOCKET = "a link to the API socket, or to a directory with it; what mounts it is not evaluated"

Where = Callable[[int, int], tuple[int, int]]
"""Converts line and column of a placed text into those of the file on the command line."""


def same(line: int, column: int) -> tuple[int, int]:
    return line, column


class Source(NamedTuple):
    """A text of the command line: a file, or a file within one. `carried_as` is the path it has there, `lines` are
    the first and last line."""

    file: str
    text: str
    is_named: bool
    where: Where
    carried_as: str | None = None
    lines: tuple[int, int] = (0, 0)


class Carrier(NamedTuple):
    """The text of a file that carries others, and which of its lines are judged."""

    text: str
    judged: list[tuple[int, int]]


class Placed(NamedTuple):
    """A text at its place on a host, rendered if it is a template."""

    kind: Kind
    content: bytes
    file: str
    where: Where
    expressions: tuple[templates.Expression, ...] = ()
    is_template: bool = False

    @property
    def is_of_dockerd(self) -> bool:
        """Whether it configures dockerd, and not only a service that has to do with Docker."""
        unit = re.search(r"/(docker\.(?:service|socket))(?:\.d/|\Z)", self.kind.place)
        if self.kind.syntax != "unit":
            return not self.kind.place.startswith(file_kinds.CONTAINERD)
        # A drop-in of another unit is judged only together with that.
        return unit is not None or (".d/" not in self.kind.place and re.search(
            rb"dockerd|Service[ \t]{0,8}=[ \t]{0,8}docker\.service", self.content) is not None)


_OTHER_LINES = re.compile(r"^(?![ \t]{0,80}Exec(?:StartPre|Condition)[ \t]{0,8}=).+$", re.MULTILINE)


class Arguments:
    """What the arguments of `lint` contain: `placed` texts, and the `services` of files that run containers."""

    def __init__(self, paths: Iterable[str], stdin_name: str | None, root: str = "/") -> None:
        """Read all of them, which are below the root. Raises Unanswerable for an argument that cannot be read."""
        self.root = root
        self.contents: dict[str, bytes] = {}
        self.placed: list[Placed] = []
        self.services: dict[str, ServiceFile] = {}
        self.unanswered: list[str] = []
        self.empty: list[str] = []
        """Directories without any configuration of dockerd."""
        self._others: dict[str, Source] = {}
        """Files of no kind, by the name of the argument, or as `FILE PATH` for a file within one."""
        self._carriers: dict[str, Carrier] = {}
        self._unread_hosts: dict[str, tuple[int, str]] = {}
        """Lines of files of no kind that name a TCP host for dockerd, or another way to it."""
        self._named: set[str] = set()
        self._referenced: set[str] = set()
        """Files beside the arguments that units of them refer to."""
        self._directories: tuple[str, ...] = ()
        """What the resolved paths of files below the directories of the command line begin with."""
        self._total = 0
        self._scanned = 0
        self._is_exhausted = False
        self._names = 0
        with Rootfs(root) as rootfs:
            # A file that is named twice is one file.
            for path in {os.path.abspath(path) if path != "-" else path: path for path in paths}.values():
                if path == "-":
                    self.add(stdin_name or STDIN, sys.stdin.buffer.read(MAX_FILE_BYTES + 1), is_named=True)
                    continue
                entry = rootfs.stat(os.path.abspath(path))
                if entry is None:
                    raise Unanswerable(f"{path}: No such file or directory")
                if entry.is_directory:
                    before = self._found, len(self._unread_hosts)
                    self._walk(rootfs, path)
                    if (self._found, len(self._unread_hosts)) == before and not self.unanswered:
                        self.empty.append(f"{path}: contains no configuration of dockerd")
                else:
                    self.add(path, self._read(path), is_named=True)

    @property
    def _found(self) -> int:
        return len(self.placed) + sum(map(len, Services(self.services).with_socket.values()))

    def _walk(self, rootfs: Rootfs, directory: str) -> None:
        """Add the files below a directory that configure dockerd. Symbolic links to files below it are followed."""
        todo = [directory]
        inside = _inside_of(rootfs, directory)
        self._directories += (inside,)
        while todo:
            directory = todo.pop()
            kinds = rootfs.kinds(os.path.abspath(directory))
            if "pyvenv.cfg" in kinds:
                # A virtual environment, whatever its name.
                continue
            self._names += len(kinds)
            if self._names > MAX_NAMES:
                self.unanswered.append(f"{directory}: more than {MAX_NAMES} names; the rest is not read")
                return
            for name in sorted(kinds, reverse=True):
                path = os.path.join(directory, name)
                if kinds[name] == "d" and name not in _SKIPPED:
                    todo.append(path)
            with Rootfs(self.root) as files:
                # A Rootfs keeps what it has read, so each directory has its own.
                for name in sorted(kinds):
                    if kinds[name] != "d":
                        path = os.path.normpath(os.path.join(directory, name))
                        self._look_into(files, path, inside, is_link=kinds[name] == "l")

    def _look_into(self, rootfs: Rootfs, path: str, inside: str, *, is_link: bool) -> None:
        """Add a file of a directory if it configures dockerd, or note that it does so in a form that is not read."""
        directory, _, name = path.rpartition("/")
        is_candidate = file_kinds.CANDIDATE.search(
            f"{os.path.basename(directory)}/{file_kinds.plain_name(name)}") is not None
        if not is_candidate and not unread_hosts.may_set_a_host(path):
            return
        try:
            if is_link and not self._is_linked_inside(rootfs, path, inside):
                return
            entry = rootfs.stat(os.path.abspath(path))
            if entry is None or not entry.is_file:
                if file_kinds.kind_of(path, "", is_named=False) is not None:
                    self.unanswered.append(f"{path}: not a regular file; not read")
                return
            self._scanned += min(entry.size, MAX_FILE_BYTES)
            if self._scanned > MAX_SCANNED_BYTES:
                if not self._is_exhausted:
                    size = f"{MAX_SCANNED_BYTES >> 20} MiB"
                    self.unanswered.append(f"{path}: the files up to here have more than {size}; the rest is not read")
                self._is_exhausted = True
                return
            is_large = entry.size > MAX_FILE_BYTES
            data = b"" if is_large else rootfs.read_table(os.path.abspath(path))
            if is_candidate:
                if is_large and _IS_DOCKERS_NAME.search(path) is not None:
                    self.unanswered.append(f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB; not read")
                elif not is_large:
                    self.add(path, data, is_named=False)
            elif not is_large:
                self.scan(path, data)
        except Unreadable as error:
            if is_candidate:
                self.unanswered.append(f"{path}: {error.reason}")

    def scan(self, file: str, data: bytes) -> None:
        """Note that a file of no kind names a TCP host for dockerd."""
        if carriers.is_packed(os.path.basename(file), data):
            self.unanswered.append(f"{file}: compressed, or several files in MIME format; not evaluated")
            return
        if not unread_hosts.may_set_a_host(file_kinds.plain_name(file)):
            return
        text = unread_hosts.decoded(data)
        way = unread_hosts.first_way(file, text) if not _is_policy(file, text) else None
        if way is not None:
            self._unread_hosts[file] = way

    def _is_linked_inside(self, rootfs: Rootfs, path: str, inside: str) -> bool:
        """Whether a link leads to a file of the directory. The log of a CI system must not show other files."""
        resolved = rootfs.resolve(os.path.abspath(path))
        entry = rootfs.stat(resolved) if resolved is not None else None
        if resolved is not None and entry is not None and resolved.startswith(inside):
            return entry.is_file
        if _ENABLES.search(path) is not None:
            return False
        if is_socket_mount(f"{rootfs.readlink(os.path.abspath(path)) or ''}:"):
            self.unanswered.append(f"{path}: {_LINK_TO_SOCKET}")
            return False
        if resolved == os.devnull and file_kinds.kind_of(path, "", is_named=False) is not None:
            # To systemd, the unit is masked or the drop-in is empty, as with an empty file.
            self.add(path, b"", is_named=False)
        elif _MAY_LEAD_TO_DOCKER.search(path) is not None:
            self.unanswered.append(f"{path}: a link that leads out of the directory, or nowhere, is not read")
        return False

    def _read(self, path: str) -> bytes:
        # A Rootfs keeps what it has read. Most files of a repository configure no dockerd.
        with Rootfs(self.root) as rootfs:
            return rootfs.read(os.path.abspath(path))

    def add(self, file: str, data: bytes, *, is_named: bool = False) -> None:
        """Add a file, if it configures dockerd or runs containers. If not, note a TCP host in it."""
        if len(data) > MAX_FILE_BYTES:
            self.unanswered.append(f"{file}: larger than {MAX_FILE_BYTES >> 20} MiB; not read")
            return
        source = Source(file, data.decode("utf-8", "surrogateescape"), is_named, same)
        # Compose reads UTF-16 with a byte order mark (go-yaml, readerc.go); systemd and dockerd do not.
        if data[:2] in unread_hosts.UTF_16 and "compose" in os.path.basename(file):
            data = unread_hosts.decoded(data).encode()
            source = source._replace(text=data.decode())
        self._named |= {file} if is_named else set()
        if (excess := LIMITS.excess(data)) is not None:
            if is_named or file_kinds.kind_of(file, source.text, is_named=False) is not None or (
                    "docker" in source.text and carriers.carries(os.path.basename(file), source.text)):
                self.unanswered.append(f"{file}: {excess}; not read")
            else:
                self.scan(file, data)
            return
        if self._place(source) or self._read_quadlet(source) or self._read_carrier(source):
            self.contents[file] = data
            self._total += len(data)
            if self._total > MAX_TOTAL_BYTES:
                raise Unanswerable(f"{file}: the files have more than {MAX_TOTAL_BYTES >> 20} MiB together")
        elif is_named:
            self._others[file] = source
            self.contents[file] = data
        else:
            self.scan(file, data)

    def is_given(self, file: str) -> bool:
        """Whether a file is an argument or below a directory that is, so that --fix may edit it."""
        return file not in self._referenced

    def os_id(self, files: Iterable[Placed]) -> str:
        """The distribution that the files carrying these are written for, as os-release(5) has it."""
        carriers_of = (self._carriers.get(item.file) for item in files)
        is_flatcar = any(carrier is not None and re.search(_FLATCAR, carrier.text) is not None
                         for carrier in carriers_of)
        return "flatcar" if is_flatcar else ""

    def without_socket(self) -> list[str]:
        """The files named as arguments whose services have no access to the API."""
        with_socket = Services(self.services).with_socket
        return [file for file in self.services if file in self._named and file not in with_socket]

    def unread(self, judged: Collection[str]) -> list[str]:
        """Where files set a TCP host of dockerd in a form that is not evaluated. Those in which services or units were
        found to expose the API are judged."""
        found = {file: way for file, way in self._unread_hosts.items() if file not in judged}
        for file, carrier in self._carriers.items():
            if file in judged and file in self.services:
                continue
            way = unread_hosts.first_way(file, carrier.text, carrier.judged)
            if way is not None:
                found[file] = way
        shown = [f"{file}:{line}: {what}, in a form that is not evaluated"
                 for file, (line, what) in islice(found.items(), MAX_SHOWN)]
        return shown + ([f"{len(found) - MAX_SHOWN} more files do such things"] if len(found) > MAX_SHOWN else [])

    def unused(self) -> list[str]:
        """Why arguments are not judged: they are of no kind, and no other file refers to them."""
        return [f"{file}: not recognized. Expected a unit, a drop-in, an environment file or daemon.json of Docker, or "
                "a file of cloud-init, Butane, Ignition or Compose"
                for file, source in self._others.items() if source.carried_as is None]

    def referenced(self, path: str, files: Iterable[Placed]) -> Placed | None:
        """The file that a unit of these files refers to by its path on the host: an argument of that name, a file
        within the same file, below the same root directory, or beside them."""
        name = os.path.basename(path)
        kind = Kind(path, "json" if path.endswith(".json") else "environment", "")
        for key, source in self._others.items():
            if source.carried_as == path or (source.carried_as is None and os.path.basename(
                    file_kinds.plain_name(key)) == name):
                if source.carried_as is None:
                    del self._others[key]
                else:
                    self._carriers[source.file].judged.append(source.lines)
                return self._as(kind, source)[0]
        directories = dict.fromkeys(directory for item in files if item.file != STDIN
                                    for directory in (item.kind.group, os.path.dirname(item.file)))
        for directory, candidate in ((directory, os.path.join(directory, below)) for directory in directories
                                     for below in (path.lstrip("/"), name, f"{name}.j2")):
            with Rootfs(self.root) as rootfs:
                resolved = rootfs.resolve(os.path.abspath(candidate)) or ""
                entry = rootfs.stat(resolved) if resolved.startswith(_inside_of(rootfs, directory)) else None
                if entry is not None and entry.is_file and entry.size <= MAX_FILE_BYTES:
                    data = rootfs.read(resolved)
                    if candidate not in self.contents and not resolved.startswith(self._directories):
                        self._referenced.add(candidate)
                    self.contents[candidate] = data
                    self._unread_hosts.pop(os.path.normpath(candidate), None)
                    source = Source(candidate, data.decode("utf-8", "surrogateescape"), False, same)
                    return self._as(kind, source)[0]
        return None

    def _place(self, source: Source) -> bool:
        path = source.carried_as or os.path.normpath(source.file)
        text = source.text
        kind = file_kinds.kind_of(path, text, is_named=source.is_named)
        if kind is None or (kind.syntax != "json" and source.carried_as is None and carriers.carries(path, text)):
            return False
        if source.carried_as is not None or source.is_named:
            # The files that are named on the command line belong together, as do those within one file. What tasks of
            # Ansible write belongs to their role.
            is_apart = source.carried_as is not None and _TASKS.search(source.file) is None
            group = "" if source.file in self._named else file_kinds.group_of(os.path.normpath(source.file))
            kind = kind._replace(group=source.file if is_apart else group)
        placed = self._as(kind, source)
        self.placed += placed
        if source.carried_as is None and not any(item.is_of_dockerd for item in placed):
            # Such a unit is judged by a rule, which reports some of what it may do.
            self.scan(source.file, _encoded(source.text))
        elif source.carried_as is None and kind.syntax == "unit":
            # What commands do before dockerd starts is not evaluated: they may write its configuration.
            self.scan(source.file, _encoded(_OTHER_LINES.sub("", source.text)))
        return True

    @staticmethod
    def _as(kind: Kind, source: Source) -> list[Placed]:
        """The text as a file of this kind; the alternatives of a template."""
        text = source.text
        if not templates.is_template(source.file, text, kind.syntax):
            return [Placed(kind, _encoded(text), source.file, source.where)]
        return [Placed(kind, _encoded(result.text), source.file, _through(result, text, source.where),
                       result.expressions, is_template=True)
                for result in templates.renderings(source.file, text, kind.syntax)]

    def _read_carrier(self, source: Source) -> bool:
        """Read cloud-init, Butane, Ignition and Compose files. False for any other file."""
        if not carriers.carries(os.path.basename(file_kinds.plain_name(source.file)), source.text):
            return False
        text = source.text
        through = source.where
        variables = variables_beside(self.root, source.file) if source.file != STDIN else {}
        try:
            files, application, merged, partial = _read_as_template(source, variables)
        except UnreadableYaml as error:
            if source.is_named or (carriers.is_carrier(text) and "docker" in text) or names_socket(text):
                self.unanswered.append(f"{source.file}:{error.line}: not read: {error}")
            return False
        found = False
        carrier = self._carriers[source.file] = Carrier(text, [])
        for carried in files:
            where = f"{source.file}:{through(carried.first_line, 1)[0]}"
            excess = LIMITS.excess(carried.content or b"")
            if carried.content is None or excess is not None:
                if file_kinds.kind_of(carried.path, "", is_named=False) is not None:
                    found = True
                    self.unanswered.append(f"{where}: {carried.path} {excess}; not read" if excess is not None else
                                           f"{where}: what {carried.path} contains is not in this file, or not decoded")
                continue
            content = carried.content.decode("utf-8", "surrogateescape")
            lines = (carried.first_line, carried.last_line)
            inner = Source(source.file, content, False, _inside(carried, through), carried.path, lines)
            if self._place(inner):
                found = True
                carrier.judged.append(lines)
            else:
                self._others[f"{source.file} {carried.path}"] = inner
                found = self._add_services(inner) or found
        if found:
            self.unanswered += [f"{source.file}:{through(key.line, 1)[0]}: another configuration that is merged with "
                                "this one is not read" for key in merged]
        self.unanswered += [f"{source.file}:{through(key.line, 1)[0]}: keys that are merged into this service are not "
                            "read" for key in partial]
        if not unread_hosts.may_set_a_host(file_kinds.plain_name(source.file)):
            del self._carriers[source.file]
        if application.services or application.is_relevant:
            self.services[source.file] = ServiceFile(source.file, application, through, variables)
        is_read = found or application.is_relevant or bool(application.services and source.is_named) or bool(partial)
        if not is_read and source.is_named:
            self._carriers.pop(source.file, None)
        return is_read

    def _add_services(self, inner: Source) -> bool:
        """Add what a file within another one defines, if it is of Compose or of Podman."""
        path = f"{inner.file} /{(inner.carried_as or '').lstrip('/')}"
        quadlet = quadlets.quadlet_of(path)
        if quadlet is not None:
            application = quadlets.application_of(quadlet[1], inner.file, inner.text)
        elif carriers.carries(os.path.basename(path), inner.text):
            try:
                application = carriers.read(os.path.basename(path), inner.text).application
            except UnreadableYaml:
                return False
        else:
            return False
        if application.is_relevant:
            self.services[path] = ServiceFile(inner.file, application, inner.where)
        return application.is_relevant

    def _read_quadlet(self, source: Source) -> bool:
        """Read a file of Podman for a container, its volume or network. False for any other file."""
        quadlet = quadlets.quadlet_of(file_kinds.plain_name(os.path.normpath(source.file)))
        if quadlet is None:
            return False
        application = quadlets.application_of(quadlet[1], source.file, source.text)
        if not application.services and not application.is_relevant:
            return False
        self.services[source.file] = ServiceFile(source.file, application, source.where)
        self._carriers[source.file] = Carrier(source.text, [])
        return True


def _is_policy(file: str, text: str) -> bool:
    """Whether a file is a policy of dockerd-guard."""
    return file.endswith((".yaml", ".yml")) and None not in (
        re.search(rf"^{key}[ \t]{{0,80}}:", text, re.MULTILINE) for key in ("version", "sockets"))


def _inside_of(rootfs: Rootfs, directory: str) -> str:
    """What the resolved path of a file below a directory begins with."""
    return (rootfs.resolve(os.path.abspath(directory)) or "").rstrip("/") + "/"


def _read_as_template(source: Source, variables: Mapping[str, str]) -> carriers.Read:
    """Read a file that carries others. If it is YAML only without its tags, as a template, they are blanked."""
    name = os.path.basename(source.file)
    try:
        return carriers.read(name, source.text, variables)
    except UnreadableYaml:
        without_tags = re.sub(r"\{%[^\n%]{0,400}%\}|^[ \t]*\{\{-?[ \t]*(?:if|else|end|range|with)\b[^\n}]{0,400}\}\}",
                              lambda found: " " * len(found[0]), source.text, flags=re.MULTILINE)
        if without_tags == source.text:
            raise
        return carriers.read(name, without_tags, variables)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _through(rendered: templates.Rendered, source: str, where: Where) -> Where:
    """Convert a place in a rendered template."""
    lines = _starts(rendered.text)
    source_lines = _starts(source)

    def convert(line: int, column: int) -> tuple[int, int]:
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
