"""Our reading of a unit, as the facts that a machine's systemd is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dockerd_guard.model.limits import NO_LIMITS
from dockerd_guard.rootfs import Rootfs
from dockerd_guard.systemd.environment_file import read_environment_file
from dockerd_guard.systemd.exec import Command, expand
from dockerd_guard.systemd.sockets import load_socket
from dockerd_guard.systemd.units import load_service
from tests.support.vectors import Facts


def reading(root: Path, unit: str, version: int) -> Facts:
    """Return the facts of a unit below a root, as systemd of this version has them."""
    with Rootfs(str(root), limits=NO_LIMITS) as rootfs:
        if unit.endswith(".socket"):
            socket = load_socket(rootfs, unit, version)
            return _general(socket.unit) | {"listen": [[listen.kind, listen.address] for listen in socket.listen]}
        service = load_service(rootfs, unit, version)
        facts = _general(service.unit) | {
            "argv": [[word.text for word in command.argv] for command in service.exec_start],
            "commands": [_command(command) for command in service.exec_start],
            "environment": [f"{each.name}={each.value}" for each in service.environment],
            "type": service.type,
        }
        if facts["state"] == "loaded" and len(service.exec_start) == 1:
            variables = {each.name: each.variable for each in service.environment}
            facts["recorded_argv"] = [word.text for word in expand(service.exec_start[0], variables)[1:]]
        for file in service.environment_files:
            read = read_environment_file((root / file.path.lstrip("/")).read_bytes(), file.path, version)
            values = {each.name: each.value for each in read.assignments}
            assert all(each.variable.location is not None for each in read.assignments)
            facts["recorded_environment"] = "failed" if read.error else values
        return facts


def _general(unit: Any) -> Facts:
    return {"state": unit.load_state, "dropins": list(unit.dropins), "fragment": unit.fragment,
            "names": sorted(unit.names)}


def _command(command: Command) -> Facts:
    flags = {"ignore-failure": "-" in command.prefixes, "no-env-expand": command.no_env_expand}
    return {"path": command.path, "argv": [word.text for word in command.argv],
            "flags": [name for name, is_set in flags.items() if is_set]}
