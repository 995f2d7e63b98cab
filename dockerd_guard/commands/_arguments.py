"""Files and directories as arguments of `lint`: what they contain, and its places on a host."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import NamedTuple

from dockerd_guard.commands import _yaml_texts
from dockerd_guard.commands._common import Unanswerable
from dockerd_guard.commands._origins import Placed, Source, inside, same, through_template
from dockerd_guard.commands._services import ServiceFile, Services, variables_beside
from dockerd_guard.model.limits import LIMITS
from dockerd_guard.observe import carriers, compose_commands, file_kinds, instances, quadlets, templates, unread_hosts
from dockerd_guard.observe.compose import Application, with_builds
from dockerd_guard.observe.file_kinds import Kind
from dockerd_guard.observe.socket_mounts import is_socket_mount, names_socket
from dockerd_guard.observe.yaml_nodes import UnreadableYaml
from dockerd_guard.rootfs import Rootfs, Unreadable
from dockerd_guard.systemd.environment import MAGIC, name_pattern

MAX_FILE_BYTES = 1024 * 1024
MAX_TOTAL_BYTES = 16 * 1024 * 1024
MAX_NAMES = 50_000
"""Names looked at in the directories of the command line."""

MAX_SCANNED_BYTES = 256 * 1024 * 1024
"""Bytes of the files in directories that are looked into."""

MAX_MATCHES = 50
"""Files that one pattern of EnvironmentFile= matches, and that are read."""

MAX_SHOWN = 20
"""Files listed that set a host in a form that is not evaluated."""

STDIN = "<stdin>"

_SKIPPED = frozenset((".git", ".hg", ".svn", "node_modules", "__pycache__", ".tox", ".terraform"))

_IS_DOCKERS_NAME = re.compile(
    r"docker|daemon\.json|override|user-?data|cloud-?(?:init|config)|compose|\.(?:ign|bu|fcc)\Z", re.IGNORECASE)
_MAY_LEAD_TO_DOCKER = re.compile(rf"(?:\A|/)(?:etc|systemd|system)\Z|{_IS_DOCKERS_NAME.pattern}", re.IGNORECASE)
_ENABLES = re.compile(r"\.(?:wants|requires|upholds)/[^/]+\Z")
"""A link that enables a unit, and configures nothing."""

_TASKS = re.compile(r"(?:\A|/)(?:tasks|handlers)/(?:[^/]+/){0,8}[^/]+\.ya?ml\Z")

_FLATCAR = r"(?m:^)(?:variant[ \t]{0,8}:[ \t]{0,8}[\"']?flatcar\b|coreos[ \t]{0,8}:)"
"""Butane for Flatcar, and cloud-config of CoreOS."""

_LINK_TO_SOCKET = "a link to the API socket, or to a directory with it; what mounts it is not evaluated"


class Carrier(NamedTuple):
    """The text of a file that carries others, and which of its lines are judged."""

    text: str
    judged: list[tuple[int, int]]


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
            skipped = _SKIPPED | file_kinds.PROGRAMS if "pyvenv.cfg" in kinds else _SKIPPED
            self._names += len(kinds)
            if self._names > MAX_NAMES:
                self.unanswered.append(f"{directory}: more than {MAX_NAMES} names; the rest is not read")
                return
            for name in sorted(kinds, reverse=True):
                path = os.path.join(directory, name)
                if kinds[name] == "d" and name not in skipped:
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
        is_candidate = file_kinds.is_looked_into(os.path.basename(directory), name)
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
        if lists := compose_commands.file_lists(text):
            self.services[f"{file} (commands)"] = ServiceFile(file, Application(lists=lists), same)
        judged = self._carriers[file].judged if file in self._carriers else ()
        way = unread_hosts.first_way(file, text, judged) if not file_kinds.is_policy(file, text) else None
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
        texts = (self._carriers[item.file].text for item in files if item.file in self._carriers)
        return "flatcar" if any(re.search(_FLATCAR, text) is not None for text in texts) else ""

    def without_socket(self) -> list[str]:
        """The files named as arguments whose services have no access to the API."""
        with_socket = Services(self.services).with_socket
        return [file for file in self.services if file in self._named and file not in with_socket]

    def unread(self, judged: Collection[str]) -> list[str]:
        """Where files set a TCP host of dockerd in a form that is not evaluated. Those in which services or units were
        found to expose the API are judged."""
        found = {file: way for file, way in self._unread_hosts.items() if file not in judged}
        for file, carrier in self._carriers.items():
            is_known = file in judged and file in self.services
            if not is_known and (way := unread_hosts.first_way(file, carrier.text, carrier.judged)) is not None:
                found[file] = way
        shown = [f"{file}:{line}: {what}, in a form that is not evaluated"
                 for file, (line, what) in islice(found.items(), MAX_SHOWN)]
        return shown + ([f"{len(found) - MAX_SHOWN} more files do such things"] if len(found) > MAX_SHOWN else [])

    def unused(self) -> list[str]:
        """Why arguments are not judged: they are of no kind, and no other file refers to them."""
        return [f"{file}: not recognized. Expected a unit, a drop-in, an environment file or daemon.json of Docker, or "
                "a file of cloud-init, Butane, Ignition or Compose"
                for file, source in self._others.items() if source.carried_as is None]

    def referenced(self, path: str, files: Iterable[Placed]) -> dict[str, Placed]:
        """The files that a unit of these files refers to by a path on the host, or by a pattern for names in one
        directory: arguments of that name, files within the same file, below the same root directory, or beside them."""
        directory, _, name = path.rpartition("/")
        is_pattern = MAGIC.search(name) is not None
        found = self._arguments_at(path, is_pattern=is_pattern)
        starts = dict.fromkeys(start for item in files if item.file != STDIN for start in self._directories_of(item))
        with Rootfs(self.root) as rootfs:
            for start in starts if is_pattern or not found else ():
                candidates = _matches(rootfs, start, path) if is_pattern else (path.lstrip("/"), name, f"{name}.j2")
                for candidate in candidates:
                    own = f"{directory}/{file_kinds.plain_name(os.path.basename(candidate))}" if is_pattern else path
                    if own in found:
                        continue
                    placed = self._beside(rootfs, start, candidate, path) if len(found) < MAX_MATCHES else None
                    if placed is not None:
                        found[own] = placed
                    elif is_pattern:
                        self.unanswered.append(f"{os.path.join(start, candidate)}: not read, and {path} matches it")
                        break
        return found

    def _arguments_at(self, path: str, *, is_pattern: bool) -> dict[str, Placed]:
        """The arguments, and files within them, that may be at this path on the host."""
        directory, _, name = path.rpartition("/")
        is_meant = name_pattern(name).fullmatch if is_pattern else name.__eq__
        found: dict[str, Placed] = {}
        for key, source in list(self._others.items()):
            where, _, own = (source.carried_as or file_kinds.plain_name(os.path.abspath(key))).rpartition("/")
            is_there = where == directory if source.carried_as is not None else (
                not is_pattern or os.path.basename(where) == os.path.basename(directory))
            if is_there and is_meant(own) and (is_pattern or not found):
                if source.carried_as is None:
                    del self._others[key]
                else:
                    self._carriers[source.file].judged.append(source.lines)
                found[f"{directory}/{own}"] = self._as(file_kinds.kind_at(path), source)[0]
        return found

    def _directories_of(self, item: Placed) -> Iterator[str]:
        """Yield the directories that a file's references are looked for in."""
        directory = os.path.dirname(item.file)
        yield from (item.kind.group, directory)
        above = os.path.dirname(directory)
        # Units are beside the directories of their drop-ins.
        if directory.endswith(".d") and (item.file in self._named or f"{os.path.abspath(above)}/".startswith(
                self._directories)):
            yield above

    def _beside(self, rootfs: Rootfs, directory: str, below: str, path: str) -> Placed | None:
        """Read a file below a directory of the arguments as the one with this path on the host."""
        candidate = os.path.join(directory, below)
        resolved = rootfs.resolve(os.path.abspath(candidate)) or ""
        entry = rootfs.stat(resolved) if resolved.startswith(_inside_of(rootfs, directory)) else None
        if entry is None or not entry.is_file or entry.size > MAX_FILE_BYTES:
            return None
        data = rootfs.read(resolved)
        if candidate not in self.contents and not resolved.startswith(self._directories):
            self._referenced.add(candidate)
        self.contents[candidate] = data
        self._unread_hosts.pop(os.path.normpath(candidate), None)
        source = Source(candidate, data.decode("utf-8", "surrogateescape"), False, same)
        return self._as(file_kinds.kind_at(path), source)[0]

    def _text_beside(self, file: str, other: str) -> str | None:
        """The text of a file that another one refers to; None if it is not below the directories of the arguments."""
        directory = os.path.dirname(file)
        path = other if other.startswith("/") and self.root != "/" else os.path.abspath(os.path.join(directory, other))
        with Rootfs(self.root) as rootfs, contextlib.suppress(Unreadable, FileNotFoundError):
            resolved = rootfs.resolve(path) or ""
            inside = (_inside_of(rootfs, directory), *self._directories) if self.root == "/" else ("/",)
            entry = rootfs.stat(resolved) if file != STDIN and resolved.startswith(inside) else None
            if entry is not None and entry.is_file and entry.size <= MAX_FILE_BYTES:
                return rootfs.read_table(resolved).decode("utf-8", "replace")
        return None

    def _place(self, source: Source) -> bool:
        path = source.carried_as or os.path.normpath(source.file)
        text = source.text
        kind = file_kinds.kind_of(path, text, is_named=source.is_named)
        if kind is None or (kind.syntax != "json" and source.carried_as is None and carriers.carries(path, text)):
            return False
        if source.carried_as is not None or (source.is_named and kind.group != path):
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
        rendered = instances.renderings(source.file, text, kind.place) if kind.syntax == "unit" else []
        if not rendered and not templates.is_template(source.file, text, kind.syntax):
            return [Placed(kind, _encoded(text), source.file, source.where)]
        return [Placed(kind, _encoded(result.text), source.file, through_template(result, text, source.where),
                       result.expressions, is_template=True)
                for result in rendered or templates.renderings(source.file, text, kind.syntax)]

    def _read_carrier(self, source: Source) -> bool:
        """Read cloud-init, Butane, Ignition and Compose files. False for any other file."""
        if not carriers.carries(os.path.basename(file_kinds.plain_name(source.file)), source.text):
            return False
        variables = variables_beside(self.root, source.file) if source.file != STDIN else {}
        yaml = _yaml_texts.read(os.path.basename(source.file), source.text, variables)
        if source.is_named or (carriers.is_carrier(source.text) and "docker" in source.text) or names_socket(
                source.text):
            self.unanswered += [f"{source.file}:{line}: {why}" for line, why in yaml.unknown]
        found = [self._add_read(source, each, variables, number) for number, each in enumerate(yaml.alternatives)]
        return any(found)

    def _add_read(self, source: Source, read: carriers.Read, variables: Mapping[str, str], number: int) -> bool:
        """Add what one alternative of a file carries and defines."""
        text, through = source.text, source.where
        files, application, merged, partly, judged = read
        application = with_builds(application, partial(self._text_beside, source.file))
        found = False
        carrier = self._carriers.setdefault(source.file, Carrier(text, []))
        carrier.judged.extend(judged)
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
            inner = Source(source.file, content, False, inside(carried, through), carried.path, lines)
            is_placed = self._place(inner)
            if not is_placed:
                self._others[f"{source.file} {carried.path}"] = inner
            if is_placed or self._add_services(inner):
                found = True
                carrier.judged.append(lines)
        if found:
            self.unanswered += [f"{source.file}:{through(key.line, 1)[0]}: another configuration that is merged with "
                                "this one is not read" for key in merged]
        self.unanswered += [f"{source.file}:{through(key.line, 1)[0]}: keys that are merged into this service are not "
                            "read" for key in partly]
        if not unread_hosts.may_set_a_host(file_kinds.plain_name(source.file)):
            del self._carriers[source.file]
        if application.services or application.is_relevant:
            # The others are applications of their own.
            key = os.path.join(source.file, str(number), os.path.basename(source.file)) if number else source.file
            self.services[key] = ServiceFile(source.file, application, through, variables)
        is_read = found or application.is_relevant or bool(application.services and source.is_named) or bool(partly)
        if not is_read and source.is_named:
            self._carriers.pop(source.file, None)
        return is_read

    def _add_services(self, inner: Source) -> bool:
        """Add what a file within another one defines, if it is of Compose or of Podman."""
        path = f"{inner.file} /{(inner.carried_as or '').lstrip('/')}"
        quadlet = quadlets.quadlet_of(path)
        if quadlet is not None:
            application = quadlets.with_pods(
                quadlets.application_of(quadlet[1], inner.file, inner.text), lambda _: None)
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
        application = quadlets.with_pods(quadlets.application_of(quadlet[1], source.file, source.text),
                                         partial(self._text_beside, source.file))
        if not application.services and not application.is_relevant:
            return False
        self.services[source.file] = ServiceFile(source.file, application, source.where)
        self._carriers[source.file] = Carrier(source.text, [])
        return True


def _inside_of(rootfs: Rootfs, directory: str) -> str:
    """What the resolved path of a file below a directory begins with."""
    return (rootfs.resolve(os.path.abspath(directory)) or "").rstrip("/") + "/"


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _matches(rootfs: Rootfs, start: str, path: str) -> Iterator[str]:
    """Yield the files below a directory, relative to it, that a pattern for names means (glob(3))."""
    directory, _, name = path.rpartition("/")
    pattern = name_pattern(name)
    for below in dict.fromkeys((directory.lstrip("/"), os.path.basename(directory))):
        for each in rootfs.names_if_possible(os.path.abspath(os.path.join(start, below))):
            if pattern.fullmatch(file_kinds.plain_name(each)) and (each[0] != "." or name[0] == "."):
                yield os.path.join(below, each)
