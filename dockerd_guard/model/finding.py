"""Findings: what a rule reports about a host."""

from __future__ import annotations

from typing import Literal, NamedTuple

from dockerd_guard.model.address import canonical
from dockerd_guard.model.location import Location

Severity = Literal["error", "warning", "info"]

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
"""Worst first."""

Fix = Literal["safe", "disruptive", "unsafe"]
"""How `fix` corrects a finding. `safe`: by our own drop-in, containers keep running. `disruptive`: the same,
but containers stop, since dockerd restarts without live-restore. `unsafe`: by changing a file that is not
ours (moved to NAME.dockerd-guard-saved, never deleted)."""


class Finding(NamedTuple):
    """One problem, its location, and how `fix` corrects it (None: it does not).

    `message` is one sentence. Of a file's content it contains only addresses, option names and paths.
    `layer` is the first layer that has the problem. For waivers: `socket` is the affected address, `unit` the unit of
    the process that listens there, `container` its name and `image` its image, "" where there is none. `namespace`: the
    network namespace of `socket` where another dockerd than that of docker.service has it, "" for the host's own.
    """

    code: str
    severity: Severity
    message: str
    layer: str
    location: Location | None = None
    fix: Fix | None = None
    socket: str | None = None
    unit: str = ""
    container: str = ""
    image: str = ""
    namespace: str = ""

    @property
    def fact(self) -> str:
        """Identity of a finding across observations: the rule, the address and its network namespace
        (`DG101 tcp://*:2375`, `DG107 tcp://*:2375 in net:[4026532300]`), or the rule, the layer and the file if there
        is no address."""
        if self.socket is not None:
            return f"{self.code} {canonical(self.socket)}" + f" in {self.namespace}" * bool(self.namespace)
        return f"{self.code} {self.layer} {self.location.file if self.location else ''}".rstrip()

    @property
    def order(self) -> tuple[str, int, int, str, str]:
        """Sort key: by file, line and column; findings without a location first."""
        if self.location is None:
            return "", 0, 0, self.code, self.message
        return self.location.file, self.location.line, self.location.column, self.code, self.message
