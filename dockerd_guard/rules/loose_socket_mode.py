"""DG106: a socket file open to more than root and its group."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator

from dockerd_guard.model.address import Via
from dockerd_guard.model.finding import Finding
from dockerd_guard.model.location import Location
from dockerd_guard.observe.observation import CONFIGURED, Observation
from dockerd_guard.policy.model import Policy
from dockerd_guard.rules._common import merged_bindings
from dockerd_guard.systemd.sockets import Socket

CODE = "DG106"
TITLE = "a socket file open to more than root and its group"

_CONSEQUENCE = "write access to it is equivalent to root on this host"
_QUOTES = str.maketrans("\"';", "   ")
_CLAUSE = re.compile(r"([augo]*)[+=]([rwxXst]*)")


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """Yield one finding for each socket unit, command or socket file that lets other users connect.

    connect(2) needs write permission on the socket file (unix(7)).
    """
    used = {binding.source for binding in seen.configured.layer.bindings if binding.via is Via.SOCKET_UNIT}
    for socket in seen.configured.sockets:
        if any(listen.location in used and listen.address.startswith("/") for listen in socket.listen):
            yield from _unit(socket)
    yield from _commands(seen)
    yield from _files(seen)


def _unit(socket: Socket) -> Iterator[Finding]:
    locations = {setting.key: setting.location for setting in socket.unit.settings if setting.section == "Socket"}
    mode = locations.get("SocketMode")
    if socket.socket_mode & stat.S_IWOTH:
        setting = f"SocketMode={socket.socket_mode:04o}" if mode else "no SocketMode= (the default is 0666)"
        yield Finding(
            CODE,
            "error",
            f"{socket.unit.name} has {setting}: every user can write to the Docker socket; {_CONSEQUENCE}",
            CONFIGURED,
            mode or socket.listen[0].location,
        )
    if socket.socket_user not in (None, "", "root", "0"):
        yield Finding(
            CODE,
            "error",
            f"{socket.unit.name} makes user {socket.socket_user} the owner of the Docker socket; {_CONSEQUENCE}",
            CONFIGURED,
            locations.get("SocketUser"),
        )


def _commands(seen: Observation) -> Iterator[Finding]:
    for setting in seen.configured.service.unit.settings:
        if setting.key.startswith("Exec") and "docker.sock" in setting.value and _opens(setting.value):
            yield Finding(
                CODE,
                "error",
                f"{setting.key}= makes the Docker socket writable by every user; {_CONSEQUENCE}",
                CONFIGURED,
                setting.location,
            )


def _opens(command: str) -> bool:
    """Whether a command line has a chmod(1) that gives write permission to others. Linear in its length (I12)."""
    words = iter(command.translate(_QUOTES).split())
    for word in words:
        if word.rpartition("/")[2] == "chmod":
            mode = next((word for word in words if not word.startswith("-")), "")
            if _is_writable(mode):
                return True
    return False


def _is_writable(mode: str) -> bool:
    """Whether a mode of chmod(1), octal or symbolic, gives write permission to others."""
    if mode.isdecimal():
        return mode[-1] in "2367"
    return any((match := _CLAUSE.match(clause)) is not None and "w" in match[2] and (
        not match[1] or "a" in match[1] or "o" in match[1]) for clause in mode.split(","))


def _files(seen: Observation) -> Iterator[Finding]:
    for merged in merged_bindings(seen):
        path = merged.binding.address.removeprefix("unix://")
        if not path.startswith("/"):
            continue
        entry = seen.rootfs.stat_if_possible(path)
        if entry is None or not stat.S_ISSOCK(entry.mode):
            continue
        if entry.mode & stat.S_IWOTH or entry.uid != 0:
            status = f"belongs to uid {entry.uid}" if entry.uid else f"has mode {stat.S_IMODE(entry.mode):04o}"
            yield Finding(
                CODE,
                "error",
                f"{path} {status}; {_CONSEQUENCE}",
                merged.layers[-1],
                Location(path),
                None,
                merged.binding.address,
            )
