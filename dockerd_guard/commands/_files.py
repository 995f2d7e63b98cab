"""Files as arguments of `lint`, judged: each at its place on a host, with stock units for what is missing."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator
from datetime import date
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from dockerd_guard.commands._arguments import STDIN, Arguments
from dockerd_guard.commands._common import Look, observe_files
from dockerd_guard.commands._origins import Placed
from dockerd_guard.commands._services import Services
from dockerd_guard.commands._subjects import (
    Judged,
    combined,
    host_in_other_variables,
    incomplete,
    relocated,
    variables_of,
)
from dockerd_guard.dockerd.daemon import DEFAULT_CONFIG_FILE
from dockerd_guard.model.finding import Finding
from dockerd_guard.model.location import Location
from dockerd_guard.model.names import SERVICE, SOCKET
from dockerd_guard.observe import file_kinds, stock_units, unread_hosts
from dockerd_guard.rootfs import Rootfs
from dockerd_guard.rules.judge import judge, limited
from dockerd_guard.rules.unused_variable import FILES as ENVIRONMENT_FILES
from dockerd_guard.rules.unused_waiver import is_waived
from dockerd_guard.systemd.environment import MAGIC

if TYPE_CHECKING:
    from types import SimpleNamespace

    from dockerd_guard.dockerd.version import Version
    from dockerd_guard.policy.model import Policy

MAX_HOSTS = 200
"""Files of different hosts, or alternatives for one place on a host, that are judged."""

MAX_ALTERNATIVE_BYTES = 64 * 1024
"""Bytes of the hosts of one group that are judged after the first. Each alternative is judged with all other files."""

MAX_REFERENCES = 100
"""Files that the units of one host refer to, and that are looked for."""

MAX_ROUNDS = 5
"""How often the files that files refer to are looked for."""

_ASSUMED = {".json": b"{}", ".service": b"[Service]\nExecStart=/bin/true\n"}
"""Contents of files that are referred to and not there, by suffix. A socket unit needs its service."""

_PLACEHOLDER = re.compile(r"unknown[0-9]{1,3}\b")
_ACCOUNT = f'[Service]\nEnvironment=USER=user XDG_RUNTIME_DIR=/run/user/1000 "HOME={file_kinds.HOME}"\n'.encode()
_NO_CERTIFICATES = "DG206"
_NOT_READ = "DG301"
_OF_DOCKER = re.compile(r"/docker\.(?:service|socket)(?:\.d/|\Z)")

MAX_SHOWN_VALUES = 8
"""Expressions shown of a template that cannot be read."""


def judge_arguments(arguments: Arguments, policy: Policy | None, options: SimpleNamespace) -> Judged:
    """Judge the files that are named on the command line. Without a configuration there is no answer."""
    whole = judge_placed(arguments, policy, options)
    idle = tuple(f"no service of {file} mounts the API socket" for file in arguments.without_socket())
    if whole.judged or whole.unanswered or whole.empty:
        return whole._replace(notes=(*whole.notes, *idle))
    return whole._replace(empty=tuple(
        f"{why}: there is nothing to judge" for why in idle or ("the files configure no dockerd",)))


def judge_placed(
    arguments: Arguments, policy: Policy | None, options: SimpleNamespace, judged: Collection[str] = (),
    tree: Look | None = None
) -> Judged:
    """Judge the files, those of one group together. `judged` are other files about which findings are known. What a
    deployment adds is judged with the files of a `tree` that has a docker.service."""
    hosts = list(islice(_hosts(arguments.placed, arguments.unanswered), MAX_HOSTS + 1))
    parts: list[Judged] = []
    deployed: list[list[Placed]] = []
    for host in hosts[:MAX_HOSTS]:
        if tree is not None and not host[0].kind.is_rootless and file_kinds.is_deployed(host[0].file):
            deployed.append(host)
        else:
            parts.append(_judge_together(host, arguments, policy, options.docker_version))
    if tree is not None:
        parts += [_judge_in_tree(host, arguments, tree, policy, options.docker_version) for host in deployed or [[]]]
    if len(hosts) > MAX_HOSTS:
        arguments.unanswered.append(f"the files are of more than {MAX_HOSTS} hosts; the rest is not judged")
    whole = combined([*parts, _of_services(arguments, policy)])
    files = {*judged, *(finding.location.file for finding in whole.findings
                        if finding.location is not None and finding.code != _NOT_READ)}
    unanswered = (*arguments.unanswered, *whole.unanswered, *arguments.unread(files), *arguments.unused())
    return whole._replace(unanswered=unanswered, empty=tuple(arguments.empty))


def _of_services(arguments: Arguments, policy: Policy | None) -> Judged:
    services = Services(arguments.services)
    found = tuple(finding for finding in services.findings()
                  if policy is None or not is_waived(finding, policy, date.today()))
    notes = []
    for file, with_socket in services.with_socket.items():
        names = {name for name, service in with_socket.items() if not service.unknown}
        if inside := sorted(names - services.exposed):
            notes.append(f"{file}: {', '.join(inside)}: has the API socket, and neither publishes a port nor uses the "
                         "host's network")
    return Judged(tuple(limited("DG108", found)), (), tuple(notes),
                  tuple(services.not_known()), judged=bool(services.with_socket))


def _hosts(placed: list[Placed], unanswered: list[str]) -> Iterator[list[Placed]]:
    """Divide the files into those of one host. Of several files for one place each is judged with the others."""
    groups: dict[tuple[str, bool], dict[str, list[Placed]]] = {}
    for item in placed:
        groups.setdefault((item.kind.group, item.kind.is_rootless), {}).setdefault(item.kind.place, []).append(item)
    for places in groups.values():
        room = MAX_ALTERNATIVE_BYTES
        for number in range(max(map(len, places.values()))):
            files = [items[min(number, len(items) - 1)] for items in places.values()]
            room -= sum(len(item.content) for item in files) if number else 0
            if room < 0:
                unanswered.append(f"{files[0].file}: more alternatives for one place on a host than are judged")
                break
            yield files


def _judge_together(
    files: list[Placed], arguments: Arguments, policy: Policy | None, dockerd: Version | None
) -> Judged:
    by_place = {item.kind.place: item for item in files}
    systems = {item.kind.system for item in files}
    system = systems.pop() if len(systems) == 1 else ""
    sysconfig = by_place.get("/etc/sysconfig/docker")
    system = system or (stock_units.system_of_options(sysconfig.content) if sysconfig is not None else "")
    os_id = system or arguments.os_id(files)
    assumed = _assumed(by_place, os_id, is_rootless=files[0].kind.is_rootless)
    look = _look(by_place, assumed, policy, dockerd)
    if look.seen.configured.service.unit.load_state == "not-found":
        assumed[stock_units.SERVICE_FILE] = stock_units.stock_unit(by_place, os_id).service
        look = _look(by_place, assumed, policy, dockerd)
    missing: list[str] = []
    looked_for = set[str]()
    for _ in range(MAX_ROUNDS):
        # What is added may refer to other files, as a socket unit does to its service.
        before = {*by_place, *missing}
        missing += _add_referenced(look, by_place, files, arguments, looked_for)
        if before == {*by_place, *missing}:
            break
        # A pattern matches the name that has its `*` and `?`, and the first character of each bracket.
        assumed |= {re.sub(r"\[([^]!^])[^]]*\]", r"\1", path): _ASSUMED.get(os.path.splitext(path)[1], b"")
                    for path in missing if not path.endswith(".socket")}
        look = _look(by_place, assumed, policy, dockerd)
    return _result(look, by_place, assumed, tuple(missing), policy, os_id)


def _judge_in_tree(
    files: list[Placed], arguments: Arguments, tree: Look, policy: Policy | None, dockerd: Version | None
) -> Judged:
    """Judge what is deployed with a tree, and what is written where units of the tree refer to."""
    by_place = {item.kind.place: item for item in files}
    look = _look_in_tree(tree, by_place, dockerd) if files else tree
    found = [arguments.referenced(path, ()) for path in islice(_needed(look), MAX_REFERENCES) if path not in by_place]
    if any(found):
        for each in found:
            by_place |= each
        look = _look_in_tree(tree, by_place, dockerd)
    if not by_place:
        return Judged((), judged=False)
    judged = _result(look, by_place, {}, (), policy, "", is_in_tree=True)
    # A policy may have waived what the tree has without them.
    known = {(finding.code, finding.location) for finding in judge(tree.seen, None)}
    findings = tuple(finding for finding in judged.findings if (finding.code, finding.location) not in known)
    names = ", ".join(dict.fromkeys(item.file for item in by_place.values()))
    return judged._replace(findings=findings, notes=(
        *judged.notes, f"{names}: judged with docker.service of the tree"))


def _look_in_tree(tree: Look, by_place: dict[str, Placed], dockerd: Version | None) -> Look:
    rootfs = tree.seen.rootfs.changed({place: item.content for place, item in by_place.items()})
    return Look("", observe_files(rootfs, dockerd), None, policy_is_outside=True)


def _add_referenced(
    look: Look, by_place: dict[str, Placed], files: list[Placed], arguments: Arguments, looked_for: set[str]
) -> Iterator[str]:
    """Add the files that the units refer to. Yields the paths of those that are needed and not there."""
    config_file = look.seen.configured.daemon.config_file
    for number, (path, is_mandatory) in enumerate(_needed(look).items()):
        if path in by_place or path in looked_for or not path.startswith("/"):
            continue
        looked_for.add(path)
        found = arguments.referenced(path, files) if number < MAX_REFERENCES else {}
        if found:
            by_place |= {place: item for place, item in found.items() if place not in by_place}
        elif path == config_file and file_kinds.DAEMON_JSON in by_place:
            by_place[path] = by_place.pop(file_kinds.DAEMON_JSON)
        elif is_mandatory or number == MAX_REFERENCES:
            yield path


def _needed(look: Look) -> dict[str, bool]:
    """The paths that the units refer to, and whether the answer depends on the files."""
    configured = look.seen.configured
    service = configured.service
    # Patterns are for directories that others fill, so a variable that is not set may be set there.
    is_open = any(name not in configured.environment.expansion and name not in configured.environment.unknown_expansion
                  for name in variables_of(look.seen))
    needed = {file.path: not file.optional or (is_open and MAGIC.search(file.path) is not None)
              for file in service.environment_files}
    config_file = configured.daemon.config_file
    if config_file not in (DEFAULT_CONFIG_FILE, f"{file_kinds.HOME}/.config/docker/daemon.json", ""):
        needed[config_file] = True
    if service.exec_start and not configured.daemon.certain:
        needed.setdefault(service.exec_start[-1].path, False)
    # Socket units of any name pass their sockets to dockerd (systemd.service(5), Sockets=).
    sockets = {socket.unit.name: socket for socket in configured.sockets}
    for name in dict.fromkeys((*(word.text for word in service.sockets), *sockets)):
        file = _unit_file(name)
        if name not in sockets:
            needed[file] = True
        elif "docker" not in name:
            needed[f"{file}.d/*.conf"] = False
        own = sockets[name].service if name in sockets else None
        if own is not None and own not in (service.unit.name, *service.unit.names):
            needed[_unit_file(own)] = sockets[name].unit.load_state == "error"
    return needed


def _unit_file(name: str) -> str:
    """The file of a unit, which is a template's for an instance."""
    return f"{file_kinds.SYSTEM_UNITS}/{re.sub('@.*[.]', '@.', name)}"


def _result(  # noqa: PLR0913, PLR0917 -- what was judged, and with what
    look: Look, by_place: dict[str, Placed], assumed: dict[str, bytes], missing: tuple[str, ...], policy: Policy | None,
    os_id: str, *, is_in_tree: bool = False
) -> Judged:
    files = tuple(by_place.values())
    is_rootless = files[0].kind.is_rootless
    # Rules read more, to see what is misnamed.
    without_effect = {} if is_in_tree else _without_effect(look, by_place)
    judged = judge(look.seen, policy)
    artifacts = [finding for finding in judged if _is_artifact(finding, by_place)]
    findings = tuple(finding for finding in judged if finding not in artifacts)
    broken = [finding.location.file for finding in findings if finding.code == "DG205" and finding.location is not None
              and finding.location.file in by_place and by_place[finding.location.file].is_template]
    findings = tuple(finding for finding in findings if finding.code != "DG205" or finding.location is None
                     or finding.location.file not in broken)

    def place(location: Location) -> Location | None:
        item = by_place.get(location.file)
        if item is None:
            return location if is_in_tree or (policy is not None and location.file == policy.file) else None
        line, column = item.where(location.line, location.column)
        end_line, end = item.where(location.line, location.end_column)
        return Location(item.file, line, column, end if end_line == line else column)

    found = tuple(_in_words(finding, by_place) for finding in relocated(findings, place, assumed.keys() - set(missing)))
    unknown = [text for item in files for text in _unknown_values(item)]
    unknown += [f"{by_place[file].file}: this template cannot be read without its values{_values(by_place[file])}"
                for file in broken]
    unknown += [f"{path}: not among the files; what it sets is not known" for path in missing]
    unknown += [_with_files(text, by_place) for text in incomplete(look.seen, found)
                if not _PLACEHOLDER.search(text) and not broken
                and not any(text.endswith(artifact.message.partition(": ")[2]) for artifact in artifacts)]
    unknown += _hosts_without_effect(without_effect.values())
    unknown += _hosts_in_other_variables(
        look, {place: item for place, item in by_place.items() if place not in without_effect})
    has_dockerd = any(item.is_of_dockerd for place, item in by_place.items() if place not in without_effect)
    notes = [f"{by_place[file].file}: {_next_step(by_place[file])}" for file in dict.fromkeys(broken)]
    units = sorted(path.rpartition("/")[2] for path in assumed if path.endswith((SERVICE, SOCKET)))
    if units and has_dockerd:
        package = stock_units.stock_unit(by_place, os_id).package
        kind = "the unit of a rootless dockerd" if is_rootless else f"the stock units of {package}"
        notes.append(f"{', '.join(dict.fromkeys(item.file for item in files))}: judged with {kind} "
                     f"({', '.join(units)})")
    others: dict[str, dict[str, None]] = {}
    for item in files:
        others.setdefault(item.file, {}).update(
            (expression.text, None) for expression in item.expressions if not expression.decides)
    notes += [f"{file}: values that are not known: {', '.join(texts)}" for file, texts in others.items() if texts]
    return Judged(found, tuple(dict.fromkeys(item.file for item in files)), tuple(notes), tuple(unknown),
                  judged=bool(found) or has_dockerd)


def _without_effect(look: Look, by_place: dict[str, Placed]) -> dict[str, Placed]:
    """The files of docker.service and docker.socket, JSON and environment files that neither systemd nor dockerd has
    read at their places: `o.cnf`, `daemon-prod.json`. Not those that another file replaces."""
    # An empty file masks a unit or a drop-in, and is not read for that.
    read = {place for place, item in by_place.items() if place in look.seen.rootfs.files_read or not item.content}
    ends = {_end(place) for place in read}
    return {place: item for place, item in by_place.items()
            if place not in read and _end(place) not in ends and (
                _OF_DOCKER.search(place) is not None if item.kind.syntax == "unit" else item.is_of_dockerd)}


def _end(place: str) -> str:
    """The name of a file and its directory."""
    return "/".join(place.rsplit("/", 2)[1:])


def _hosts_without_effect(files: Iterable[Placed]) -> Iterator[str]:
    """Where files without effect name a TCP host. What a repository calls them need not be what a host does:
    `COPY deamon.json /etc/docker/daemon.json`."""
    for item in files:
        text = item.content.decode("utf-8", "surrogateescape")
        way = unread_hosts.first_way(item.kind.place, text)
        if way is not None:
            whose = "the unit does not read" if item.kind.syntax == "environment" else "nothing reads under its name"
            yield f"{item.file}:{item.where(way[0], 1)[0]}: {way[1]}, in a file that {whose}, so that it is not judged"


def _hosts_in_other_variables(look: Look, by_place: dict[str, Placed]) -> Iterator[str]:
    """Where environment files name a TCP host in variables that the unit does not use."""
    places = {*ENVIRONMENT_FILES, *(file.path for file in look.seen.configured.service.environment_files)}
    for item in by_place.values():
        if item.kind.place in places and (way := host_in_other_variables(
                look.seen, item.kind.place, item.content.decode("utf-8", "surrogateescape"))) is not None:
            yield f"{item.file}:{item.where(way[0], 1)[0]}: {way[1]}, in a variable that the unit does not use"


def _look(
    by_place: dict[str, Placed], assumed: dict[str, bytes], policy: Policy | None, dockerd: Version | None
) -> Look:
    rootfs = Rootfs("", {**assumed, **{place: item.content for place, item in by_place.items()}})
    return Look("", observe_files(rootfs, dockerd), policy, policy_is_outside=True)


def _assumed(by_place: dict[str, Placed], os_id: str, *, is_rootless: bool) -> dict[str, bytes]:
    """The stock units that the files do not replace."""
    units = {place.rpartition("/")[2] for place in by_place if place.count("/") == 4 or not place.endswith(".conf")}
    if is_rootless:
        files = {f"{file_kinds.SYSTEM_UNITS}/docker.service.d/00-account.conf": _ACCOUNT}
        return files if "docker.service" in units else {**files, stock_units.SERVICE_FILE: stock_units.ROOTLESS}
    files = stock_units.stock_files(by_place, os_id)
    if "docker.service" in units:
        del files[stock_units.SERVICE_FILE]
    elif any(re.search(rb"dockerd|docker\s{1,8}daemon", item.content) and place.endswith(".service")
             for place, item in by_place.items()):
        # A unit of another name runs dockerd.
        del files[stock_units.SERVICE_FILE]
    if "docker.socket" in units:
        files.pop(stock_units.SOCKET_FILE, None)
    return files


def _is_artifact(finding: Finding, by_place: dict[str, Placed]) -> bool:
    """Whether a finding is about what is not among the files, or about a value that replaces an expression."""
    if finding.code == _NO_CERTIFICATES and "is missing" in finding.message:
        return True
    if "has no ExecStart=" in finding.message and any(
            expression.decides and not expression.value for item in by_place.values() if item.kind.syntax == "unit"
            for expression in item.expressions):
        # An expression on a line of its own may be that setting.
        return True
    where = finding.location
    if "invalid argument for" in finding.message and where is not None and where.file in by_place:
        # The message names the option, and not its value (I11), which is the rest of the word or the next one.
        line = by_place[where.file].content.decode("utf-8", "surrogateescape").split("\n")[where.line - 1]
        if _PLACEHOLDER.search(" ".join(line[where.column - 1:].split(maxsplit=2)[:2])):
            return True
    return _PLACEHOLDER.search(finding.message) is not None or (
        finding.socket is not None and _PLACEHOLDER.search(finding.socket) is not None)


def _in_words(finding: Finding, by_place: dict[str, Placed]) -> Finding:
    """The finding with files of the command line and expressions in its message."""
    message = _with_files(finding.message, by_place)
    for item in by_place.values():
        for expression in item.expressions:
            if expression.value.startswith("192.0.2."):
                message = expression.text.join(re.split(re.escape(expression.value) + "(?![0-9])", message))
            elif re.fullmatch("49[0-9]{3}", expression.value):
                message = message.replace(f":{expression.value}", f":{expression.text}")
    return finding._replace(message=message, fix=None)


def _unknown_values(item: Placed) -> Iterator[str]:
    """The expressions of a template that decide where dockerd listens, the first one with what to do."""
    step = f"; {_next_step(item)}"
    for expression in item.expressions:
        if expression.decides:
            yield (f"{item.file}:{item.where(expression.line, 1)[0]}: the value of {expression.text} is not known, and "
                   f"it decides where dockerd listens{step}")
            step = ""


def _next_step(item: Placed) -> str:
    """How a template is judged that has its values elsewhere."""
    name = os.path.basename(item.kind.place if item.file == STDIN else file_kinds.plain_name(item.file))
    return f"render it for a host and judge the result: `dockerd-guard lint - --stdin-filename {name} < RESULT`"


def _values(item: Placed) -> str:
    """The first expressions of a template, for a message."""
    return "".join(f"{', ' if number else ': '}{expression.text}"
                   for number, expression in enumerate(item.expressions[:MAX_SHOWN_VALUES]))


def _with_files(message: str, by_place: dict[str, Placed]) -> str:
    for place, item in by_place.items():
        if place in message:
            message = re.sub(re.escape(place) + r"(?::([0-9]{1,9}):([0-9]{1,9}))?", partial(_named, item), message)
    return message


def _named(item: Placed, found: re.Match[str]) -> str:
    if found[1] is None:
        return item.file
    line, column = item.where(int(found[1]), int(found[2]))
    return f"{item.file}:{line}:{column}"
