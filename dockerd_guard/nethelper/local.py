"""Network operations of a correction: the nftables table, queries of Docker over TCP, trial binds.

`fix` and `uninstall` use `LocalNetwork` directly. The sandboxed agent uses it through the network helper
(nethelper/client.py).
"""

from __future__ import annotations

import errno
import socket

from dockerd_guard.containment.nftables import NftablesTable
from dockerd_guard.model.address import Tls, split_host_port
from dockerd_guard.model.rejection import Rejection
from dockerd_guard.observe import engine
from dockerd_guard.observe.engine import Ping, Probe


class LocalNetwork:
    """Network operations in this process."""

    def __init__(self) -> None:
        self._table = NftablesTable()

    def check(self) -> None:
        """Does nothing: no helper is needed."""

    def shown(self) -> str:
        return self._table.shown()

    def reject(self, wanted: tuple[Rejection, ...]) -> str:
        return self._table.put(wanted)

    def release(self) -> None:
        self._table.remove()

    def changed_at(self) -> float | None:
        """Not known: changes are not followed."""
        return None

    def ping(self, address: str, tls: Tls) -> Ping:
        return engine.ping(address, tls)

    def probe(self, address: str) -> Probe | None:
        return engine.probe(address)

    def unbindable(self, address: str) -> str:
        host, port = split_host_port(address)
        try:
            family, kind, protocol, _, place = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind, protocol) as probe:
                # Go sets this before it listens: a port in TIME_WAIT is free.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(place)
        except PermissionError:
            # Without CAP_NET_BIND_SERVICE ports below 1024 cannot be checked.
            return ""
        except OSError as error:
            wrong = {errno.EADDRNOTAVAIL: f"{host} is not an address of this host",
                     errno.EADDRINUSE: f"{host}:{port} is in use by another program"}
            return wrong.get(error.errno or 0, f"{host}:{port}: {error.strerror or error}")
        return ""
