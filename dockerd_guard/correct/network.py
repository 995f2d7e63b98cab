"""All that a correction does by the network: nftables' table, asking Docker over TCP, trying to bind an address.

`Here` does it in this process, as `fix` and the package's removal do. The agent's sandbox has no
network: it has `Here` work in a process of its own (correct/apart.py).
"""

from __future__ import annotations

import errno
import socket
from typing import Protocol

from dockerd_guard.bindings import Tls, split_host_port
from dockerd_guard.correct.table import Rejection, Table, Unsupported
from dockerd_guard.observe import engine
from dockerd_guard.observe.engine import Engine, Ping

SOCKET_UNIT = "dockerd-guard-network.socket"


class NoNetwork(Unsupported):
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

    def ask(self, address: str) -> Engine | None:
        """As engine.ask."""

    def ping(self, address: str, tls: Tls) -> Ping:
        """As engine.ping."""

    def unbindable(self, address: str) -> str:
        """Why nobody could listen at a TCP address now, in words; "" where one can, as far as may be tried."""


class Here:
    """Network, by this process itself."""

    def __init__(self) -> None:
        self._table = Table()

    def check(self) -> None:
        """There is nothing that could be missing."""

    def shown(self) -> str:
        return self._table.shown()

    def reject(self, wanted: tuple[Rejection, ...]) -> str:
        return self._table.put(wanted)

    def release(self) -> None:
        self._table.remove()

    def ask(self, address: str) -> Engine | None:
        return engine.ask(address)

    def ping(self, address: str, tls: Tls) -> Ping:
        return engine.ping(address, tls)

    def unbindable(self, address: str) -> str:
        host, port = split_host_port(address)
        try:
            family, kind, protocol, _, place = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind, protocol) as probe:
                # As Go does before it listens: a port in TIME_WAIT is free.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(place)
        except PermissionError:
            # Ports below 1024 are not for everybody to bind: whether they are free is left to dockerd.
            return ""
        except OSError as error:
            wrong = {errno.EADDRNOTAVAIL: f"{host} is not an address of this host",
                     errno.EADDRINUSE: f"{host}:{port} is in use by another program"}
            return wrong.get(error.errno or 0, f"{host}:{port}: {error.strerror or error}")
        return ""
