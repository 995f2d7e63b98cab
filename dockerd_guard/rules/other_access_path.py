"""DG107: another access path: a command, unit, process or second dockerd that forwards to or serves the API."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import pairwise

from dockerd_guard.model.address import Scope, Tls, scope_of
from dockerd_guard.model.finding import Finding
from dockerd_guard.observe.api_names import Names, names_of
from dockerd_guard.observe.configured import daemon_of, main_command
from dockerd_guard.observe.observation import CONFIGURED, Observation
from dockerd_guard.observe.podman import podman_endpoints
from dockerd_guard.policy.model import Policy
from dockerd_guard.rootfs import Rootfs, Unreadable
from dockerd_guard.rules._access_paths import code_of, dockerd_finding, finding_of, observed_paths
from dockerd_guard.systemd.environment import resolve_environment
from dockerd_guard.systemd.exec import expand
from dockerd_guard.systemd.lookup import unit_files
from dockerd_guard.systemd.syntax import Setting
from dockerd_guard.systemd.units import Service, load_service

CODE = "DG107"
TITLE = "another access path: a command, unit, process or second dockerd that forwards to or serves the API"

_NAMED = re.compile(rb"docker\.sock|dockerd|docker\S{0,64}\s{1,64}(?:daemon|-d)|podman"
                    rb"|\b(?:socat|systemd-socket-proxyd|ncat|netcat|nc)\b[^\n]{0,400}\$")
_FORWARDED = re.compile(r"(?:docker|podman)\.sock")
_FORWARDER = re.compile(r"\b(socat|systemd-socket-proxyd|ncat|netcat|nc)\b")
_LISTENS = re.compile(r"(?i)listen|-l:|systemd-socket-proxyd|\s-[a-z]{0,8}l")
"""What a forwarder to a TCP address has. Others only wait for dockerd: `until nc -z localhost 2375`."""

_CLIENTS = ("docker", "podman", "nerdctl")
_HOST = re.compile(r"(?:--host|-[A-Za-z]{0,8}?H)(?:\Z|=|(?<=H))(.{0,200})")
_ENDS = re.compile(r"[;|&]+")


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """Yield one finding for each command of a unit that forwards to the API, and one for each other dockerd and each
    process with another way to the API."""
    docker_service = seen.configured.service
    names = names_of(binding.address for binding in seen.configured.layer.bindings
                     if binding.is_tcp and binding.tls is not Tls.MUTUAL)
    for setting in docker_service.unit.settings:
        yield from _commands_beside(setting, docker_service.unit.name, names)
    for name in _candidates(seen, {*docker_service.unit.names, docker_service.unit.name}, names):
        service = load_service(seen.rootfs, name, seen.configured.systemd_version)
        expanded = set(_forwarding_commands(seen, service, names))
        for setting in service.unit.settings:
            if setting.key == "ExecStart" and setting.location[:2] in expanded:
                yield _forwarding(setting, name)
            else:
                yield from _commands_beside(setting, name, names)
        yield from _second_dockerd(seen, service)
        yield from _podman(seen, service)
    yield from map(dockerd_finding, seen.others)
    for path in observed_paths(seen, policy):
        if code_of(path) == CODE:
            yield finding_of(path)


def _commands_beside(setting: Setting, unit: str, names: Names) -> Iterator[Finding]:
    """Yield a finding for a command that forwards to the API, and for one beside the main command that starts a
    dockerd. `names`: those of the TCP addresses of docker.service that need no client certificate."""
    if setting.key.startswith("Exec") and _forwards(setting.value, names):
        yield _forwarding(setting, unit)
    elif setting.key.startswith("Exec") and setting.key != "ExecStart" and (
            _starts_dockerd(setting.value)):
        yield Finding(
            CODE, "error",
            f"{setting.key}= of {unit} starts a second dockerd that listens on TCP; the policy for docker.service does "
            "not cover it", CONFIGURED, setting.location)


def _starts_dockerd(commands: str) -> bool:
    """Whether a dockerd that is no argument of a client has a host that is none of systemd and no path."""
    for command in _ENDS.split(commands):
        words = re.sub("[\"']", " ", command).split()
        names = [word.lstrip("@-:+!").rpartition("/")[2] for word in words]
        if "dockerd" not in names or "--validate" in words:
            continue
        first = names.index("dockerd")
        if not any(name in _CLIENTS for name in names[:first]) and any(
                not value.startswith(("fd:", "unix:")) for value in _hosts(words[first + 1:])):
            return True
    return False


def _hosts(words: list[str]) -> Iterator[str]:
    """Yield the values of -H and --host."""
    for word, following in pairwise((*words, "fd:")):
        if (option := _HOST.match(word)) is not None:
            yield option[1] or following


def _second_dockerd(seen: Observation, service: Service) -> Iterator[Finding]:
    """Yield a finding if the main command of this service is a dockerd."""
    command = main_command(service)
    if command is None:
        return
    environment = resolve_environment(service, seen.rootfs, seen.configured.systemd_version)
    _, daemon = daemon_of(service, environment, seen.rootfs, seen.configured.known_dockerd)
    if daemon.program.reason is None:
        tcp = any(host.address.startswith("tcp://") for host in daemon.hosts)
        yield Finding(
            CODE,
            "error" if tcp else "warning",
            f"{service.unit.name} runs a second dockerd{' that listens on TCP' if tcp else ''}; the policy for "
            "docker.service does not cover it",
            CONFIGURED,
            command.location,
        )


def _podman(seen: Observation, service: Service) -> Iterator[Finding]:
    """Yield one finding for each TCP address on which a service serves Podman's API."""
    for endpoint in podman_endpoints(seen.rootfs, service, seen.configured.systemd_version):
        is_local = endpoint.is_verified or scope_of(endpoint.address) is Scope.LOOPBACK
        user = next((setting.value for setting in reversed(service.unit.settings) if setting.key == "User"), "root")
        rights = "root" if user in ("root", "0") else "the account of the service"
        yield Finding(
            CODE, "warning" if is_local else "error",
            f"{service.unit.name} serves the Docker-compatible API of Podman on {endpoint.address}"
            + (" to clients with a certificate" if endpoint.is_verified else
               f" without authentication: anyone who can reach it has the rights of {rights}"),
            CONFIGURED, endpoint.location, None, endpoint.address, service.unit.name)


def _candidates(seen: Observation, excluded: set[str], names: Names) -> Iterator[str]:
    """Yield the service units whose files name a socket of the API, dockerd or Podman. Only these are parsed."""
    files = unit_files(seen.rootfs, seen.configured.systemd_version)
    for name in files.with_suffix(".service"):
        if seen.rootfs.is_exhausted:
            return
        if name in excluded:
            continue
        fragment = files.fragment(name)
        if fragment.path is None or fragment.masked:
            continue
        contents = (_content(seen.rootfs, path)
                    for path in (fragment.path, *files.drop_ins(name, fragment.names, [])))
        if any(_NAMED.search(content) or names.find(content) for content in contents):
            yield name


def _content(rootfs: Rootfs, path: str) -> bytes:
    try:
        return rootfs.read(path)
    except (FileNotFoundError, Unreadable):
        return b""


def _forwards(command: str, names: Names) -> bool:
    if _FORWARDER.search(command) is None:
        return False
    return _FORWARDED.search(command) is not None or (
        _LISTENS.search(command) is not None and bool(names.find(os.fsencode(command))))


def _forwarding_commands(seen: Observation, service: Service, names: Names) -> Iterator[tuple[str, int]]:
    """Yield file and line of each ExecStart= whose forwarder gets the path or address of the socket from a variable."""
    environment = resolve_environment(service, seen.rootfs, seen.configured.systemd_version)
    for command in service.exec_start:
        words = " ".join(argument.text for argument in expand(command, environment))
        if _forwards(words, names):
            yield command.location[:2]


def _forwarding(setting: Setting, unit: str) -> Finding:
    return Finding(
        CODE,
        "error",
        f"{setting.key}= of {unit} forwards to the API socket: anyone who can reach it has root access, "
        "wherever dockerd listens",
        CONFIGURED,
        setting.location,
    )
