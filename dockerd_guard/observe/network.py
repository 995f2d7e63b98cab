"""Interface for network access, and its exceptions."""

from __future__ import annotations

from typing import Protocol

from dockerd_guard.model.address import Tls
from dockerd_guard.model.rejection import Rejection
from dockerd_guard.observe.engine import Ping, Probe


class Unsupported(Exception):
    """This host lacks a feature that the operation needs."""


SOCKET_UNIT = "dockerd-guard-network.socket"
HELPER_UNITS = ("dockerd-guard-network@", "dockerd-guard-fleet@")
"""How the names of the units begin that such sockets start, one for each connection."""


class HelperUnavailable(Unsupported):
    """The helper service with network access cannot be reached."""

    next_step = f"run `systemctl restart {SOCKET_UNIT}` (if it is masked, `systemctl unmask` it first)"

    def __init__(self, reason: str) -> None:
        super().__init__(f"{SOCKET_UNIT} does not answer ({reason})")


class Network(Protocol):
    """Operations that need network access. Each raises HelperUnavailable if the helper cannot be reached."""

    def check(self) -> None:
        """Check that the helper can be reached."""

    def shown(self) -> str:
        """Return our table as printed by nft(8), "" if there is none. Raises Unsupported, as do the next two."""

    def reject(self, wanted: tuple[Rejection, ...]) -> str:
        """Install our table with exactly these rejections. Returns it as printed by nft(8)."""

    def release(self) -> None:
        """Remove our table."""

    def changed_at(self) -> float | None:
        """When our table changed last, if that was after the last call (time.monotonic()); None where it is not
        known."""

    def ping(self, address: str, tls: Tls) -> Ping:
        """As engine.ping()."""

    def probe(self, address: str) -> Probe | None:
        """As engine.probe()."""

    def unbindable(self, address: str) -> str:
        """Return why a TCP address cannot be bound now; "" if it can, or if that cannot be tested."""
