"""What a rule says about a host."""

from __future__ import annotations

from typing import Literal, NamedTuple

from dockerd_guard.model.address import canonical
from dockerd_guard.model.location import Location

Severity = Literal["error", "warning", "info"]

Fix = Literal["safe", "disruptive", "unsafe"]
"""How `fix` would mend it. `safe`: by a drop-in of ours, containers keep running. `disruptive`: the
same, but containers stop, because dockerd restarts without live-restore. `unsafe`: only by changing a
file that is not ours (moved to NAME.dockerd-guard-saved, never deleted)."""


class Finding(NamedTuple):
    """One thing wrong, where it was written, and how `fix` would mend it (None: it would not).

    `message` is one sentence: what, where, what it means; nothing of a file's content but addresses,
    names of options and paths. `layer` is the first one that shows it. `socket` is the address it is
    about, for waivers.
    """

    code: str
    severity: Severity
    message: str
    layer: str
    location: Location | None = None
    fix: Fix | None = None
    socket: str | None = None

    @property
    def fact(self) -> str:
        """What makes two findings the same fact, from one look to the next, in one line: the rule and the
        place it is about (`DG101 tcp://*:2375`), or else the layer and the file."""
        if self.socket is not None:
            return f"{self.code} {canonical(self.socket)}"
        return f"{self.code} {self.layer} {self.location.file if self.location else ''}".rstrip()

    @property
    def order(self) -> tuple[str, int, int, str, str]:
        """Files by name, places from top to bottom; what stands in no file comes first."""
        if self.location is None:
            return "", 0, 0, self.code, self.message
        return self.location.file, self.location.line, self.location.column, self.code, self.message
