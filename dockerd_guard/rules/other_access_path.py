"""DG107: a side door."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dockerd_guard.model.finding import Finding
from dockerd_guard.observe.configured import daemon_of, main_command
from dockerd_guard.observe.observation import CONFIGURED, RUNNING, Observation
from dockerd_guard.policy.model import Policy
from dockerd_guard.rootfs import Rootfs, Unreadable
from dockerd_guard.systemd.environment import resolve_environment
from dockerd_guard.systemd.lookup import unit_files
from dockerd_guard.systemd.syntax import Setting
from dockerd_guard.systemd.units import Service, load_service

CODE = "DG107"
TITLE = "a side door: another command or unit forwards to the socket"

_NAMED = re.compile(rb"docker\.sock|dockerd|docker\S*\s+(?:daemon|-d)")
_FORWARDER = re.compile(r"\b(socat|systemd-socket-proxyd|ncat|netcat|nc)\b")


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """One finding for each command of any unit that hands the API on, and for each further dockerd."""
    ours = seen.configured.service
    for setting in ours.unit.settings:
        if _forwards(setting):
            yield _forwarding(setting, ours.unit.name)
    for name in _suspects(seen, {*ours.unit.names, ours.unit.name}):
        service = load_service(seen.rootfs, name, seen.configured.systemd_version)
        for setting in service.unit.settings:
            if _forwards(setting):
                yield _forwarding(setting, name)
        yield from _second(seen, service)
    for process, bindings in seen.others:
        places = ", ".join(binding.address for binding in bindings)
        by = f" of {process.unit}" if process.unit else ""
        inside = ", in a container with this host's network" if process.in_container else ""
        yield Finding(
            CODE,
            "error" if any(binding.is_tcp for binding in bindings) else "warning",
            f"another dockerd{by} runs (pid {process.pid}{inside}) and listens on {places or 'nothing'}",
            RUNNING,
            None,
            None,
            bindings[0].address if bindings else None,
        )


def _second(seen: Observation, service: Service) -> Iterator[Finding]:
    """Whether this service runs a dockerd as well, by all that is known of command lines."""
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
            f"{service.unit.name} runs a dockerd of its own{' that listens on TCP' if tcp else ''}: what "
            "holds for docker.service does not hold for it",
            CONFIGURED,
            command.location,
        )


def _suspects(seen: Observation, ours: set[str]) -> Iterator[str]:
    """Service units whose files name the socket or a dockerd at all: only those are worth a parse."""
    files = unit_files(seen.rootfs, seen.configured.systemd_version)
    for name in files.with_suffix(".service"):
        if name in ours:
            continue
        fragment = files.fragment(name)
        if fragment.path is not None and not fragment.masked and any(
                _NAMED.search(_content(seen.rootfs, path))
                for path in (fragment.path, *files.drop_ins(name, fragment.names, []))):
            yield name


def _content(rootfs: Rootfs, path: str) -> bytes:
    try:
        return rootfs.read(path)
    except (FileNotFoundError, Unreadable):
        return b""


def _forwards(setting: Setting) -> bool:
    return (
        setting.key.startswith("Exec")
        and "docker.sock" in setting.value
        and _FORWARDER.search(setting.value) is not None
    )


def _forwarding(setting: Setting, unit: str) -> Finding:
    return Finding(
        CODE,
        "error",
        f"{setting.key}= of {unit} forwards to Docker's socket: who reaches it there is root, whatever "
        "dockerd itself listens on",
        CONFIGURED,
        setting.location,
    )
