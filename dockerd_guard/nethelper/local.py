"""All that a correction does by the network: nftables' table, asking Docker over TCP, trying to bind an address.

`LocalNetwork` does it in this process, as `fix` and the package's removal do. The agent's sandbox has no
network: it has `LocalNetwork` work in a process of its own (correct/apart.py).
"""

from __future__ import annotations

import errno
import socket

from dockerd_guard.containment.nftables import NftablesTable
from dockerd_guard.model.address import Tls, split_host_port
from dockerd_guard.model.rejection import Rejection
from dockerd_guard.observe import engine
from dockerd_guard.observe.engine import Engine, Ping


class LocalNetwork:
    """Network, by this process itself."""

    def __init__(self) -> None:
        self._table = NftablesTable()

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
