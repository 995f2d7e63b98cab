"""DG107: a side door."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dockerd_guard.judge.finding import Finding
from dockerd_guard.observe.observation import CONFIGURED, RUNNING, Observation
from dockerd_guard.policy import Policy
from dockerd_guard.systemd.lookup import unit_files
from dockerd_guard.systemd.syntax import Setting
from dockerd_guard.systemd.units import load_service
from dockerd_guard.tree import Unreadable

TITLE = "a side door: another command or unit forwards to the socket"

_FORWARDER = re.compile(r"\b(socat|systemd-socket-proxyd|ncat|netcat|nc)\b")
_DAEMON = re.compile(
    r"[-@:+!|]*(?:\S*/)?(?:dockerd(?:-current|-latest)?|docker(?:-current)?\s+(?:daemon|-d))(?:\s|\Z)"
)


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """One finding for each command of any unit that hands the API on, and for each further dockerd."""
    ours = seen.configured.service
    for setting in ours.unit.settings:
        if _forwards(setting):
            yield _forwarding(setting, ours.unit.name)
    for name in _suspects(seen, {*ours.unit.names, ours.unit.name}):
        for setting in load_service(seen.tree, name, seen.configured.systemd_version).unit.settings:
            if _forwards(setting):
                yield _forwarding(setting, name)
            elif setting.key == "ExecStart" and _DAEMON.match(setting.value):
                tcp = "tcp://" in setting.value
                yield Finding(
                    "DG107",
                    "error" if tcp else "warning",
                    f"{name} runs a dockerd of its own{' that listens on TCP' if tcp else ''}: what "
                    "holds for docker.service does not hold for it",
                    CONFIGURED,
                    setting.location,
                )
    if seen.running is not None:
        for process, bindings in seen.running.others:
            places = ", ".join(binding.address for binding in bindings)
            by = f" of {process.unit}" if process.unit else ""
            yield Finding(
                "DG107",
                "error" if any(binding.is_tcp for binding in bindings) else "warning",
                f"another dockerd{by} runs (pid {process.pid}) and listens on {places or 'nothing'}",
                RUNNING,
                None,
                None,
                bindings[0].address if bindings else None,
            )


def _suspects(seen: Observation, ours: set[str]) -> Iterator[str]:
    """Service units whose file names the socket or a dockerd at all: only those are worth a parse."""
    files = unit_files(seen.tree, seen.configured.systemd_version)
    for name in files.with_suffix(".service"):
        if name in ours:
            continue
        path = files.fragment(name).path
        try:
            data = seen.tree.read(path) if path is not None else b""
        except (FileNotFoundError, Unreadable):
            continue
        if b"docker.sock" in data or b"dockerd" in data or b"docker daemon" in data:
            yield name


def _forwards(setting: Setting) -> bool:
    return (
        setting.key.startswith("Exec")
        and "docker.sock" in setting.value
        and _FORWARDER.search(setting.value) is not None
    )


def _forwarding(setting: Setting, unit: str) -> Finding:
    return Finding(
        "DG107",
        "error",
        f"{setting.key}= of {unit} forwards to Docker's socket: who reaches it there is root, whatever "
        "dockerd itself listens on",
        CONFIGURED,
        setting.location,
    )
