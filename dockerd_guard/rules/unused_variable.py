"""DG305: an option variable that nothing reads."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dockerd_guard.model.finding import Finding
from dockerd_guard.model.names import DROPIN_NAME
from dockerd_guard.observe.observation import CONFIGURED, Observation
from dockerd_guard.policy.model import Policy
from dockerd_guard.systemd.assignments import Assigned
from dockerd_guard.systemd.environment_file import read_environment_file
from dockerd_guard.systemd.units import Service

CODE = "DG305"
TITLE = "an option variable that nothing reads (`DOCKER_OPTS` under a unit that does not use it)"

VARIABLES = ("DOCKER_OPTS", "DOCKER_OPTIONS", "OPTIONS", "other_args", "DOCKERD_OPTS", "DOCKER_EXTRA_OPTS")
"""Variables that guides and packages use for options of dockerd. dockerd itself reads none of them."""

FILES = ("/etc/default/docker", "/etc/sysconfig/docker", "/etc/default/dockerd", "/etc/sysconfig/dockerd",
         "/etc/conf.d/docker")
"""Files from which init scripts read these variables, and some units still do."""

_USE = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)")


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """Yield one finding for each variable that contains options and that no ExecStart= uses."""
    service = seen.configured.service
    if not service.exec_start:
        return
    used = {
        name for command in service.exec_start for word in command.argv for name in _USE.findall(word.raw)
    } | set(_USE.findall(_foreign_exec_start(service)))
    reported: set[str] = set()
    for name, variable in seen.configured.environment.variables.items():
        if _is_unused(name, variable.value, used) and variable.location is not None:
            reported.add(name)
            yield Finding(
                CODE,
                "warning",
                f"{name} is set, but ExecStart= of {service.unit.name} does not use it: its options have no effect",
                CONFIGURED,
                variable.location,
            )
    for path in FILES:
        for name, variable in _assignments(seen, path):
            if _is_unused(name, variable.value, used) and name not in reported:
                reported.add(name)
                yield Finding(
                    CODE,
                    "warning",
                    f"{name} is set here, but {service.unit.name} does not read it: its options have no effect",
                    CONFIGURED,
                    variable.location,
                )


def _foreign_exec_start(service: Service) -> str:
    """Return ExecStart= without the drop-in of dockerd-guard, which contains variables in expanded form."""
    values: list[str] = []
    for setting in service.unit.settings:
        if setting.key == "ExecStart" and not setting.location.file.endswith(f"/{DROPIN_NAME}"):
            if setting.value:
                values.append(setting.value)
            else:
                values.clear()
    return " ".join(values)


def _is_unused(name: str, value: str, used: set[str]) -> bool:
    return name in VARIABLES and name not in used and value.lstrip().startswith("-")


def _assignments(seen: Observation, path: str) -> tuple[Assigned, ...]:
    data = seen.rootfs.read_if_possible(path) or b""
    return read_environment_file(data, path, seen.configured.systemd_version).assignments
