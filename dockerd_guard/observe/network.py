"""What is asked over the network, and the errors of it."""

from __future__ import annotations

from typing import Protocol

from dockerd_guard.model.address import Tls
from dockerd_guard.model.rejection import Rejection
from dockerd_guard.observe.engine import Ping


class Unsupported(Exception):
    """This host has not got what a way takes."""

SOCKET_UNIT = "dockerd-guard-network.socket"


class HelperUnavailable(Unsupported):
    """Whoever uses the network for the agent is not to be had."""

    next_step = f"`systemctl restart {SOCKET_UNIT}`, after `systemctl unmask` where it is masked"

    def __init__(self, reason: str) -> None:
        super().__init__(f"{SOCKET_UNIT} does not answer ({reason})")


class Network(Protocol):
    """What is asked of the network. Each raises NoNetwork."""

    def check(self) -> None:
        """Make sure that it can be asked at all."""

    def shown(self) -> str:
        """Our table as nft(8) shows it, "" where there is none. Raises Unsupported, as the next two do."""

    def reject(self, wanted: tuple[Rejection, ...]) -> str:
        """Put the table in that rejects these, and nothing else; how it is shown then."""

    def release(self) -> None:
        """Take the table away."""

    def ping(self, address: str, tls: Tls) -> Ping:
        """As engine.ping."""

    def unbindable(self, address: str) -> str:
        """Why nobody could listen at a TCP address now, in words; "" where one can, as far as may be tried."""
