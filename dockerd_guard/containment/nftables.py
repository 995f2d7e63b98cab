"""The nftables table that rejects connections to exposures.

Changing and monitoring it needs CAP_NET_ADMIN in the host's network namespace.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from typing import Any

from dockerd_guard.model.address import ip_of, split_host_port
from dockerd_guard.model.rejection import Rejection
from dockerd_guard.observe.network import Unsupported

TABLE_NAME = "dockerd_guard"
TABLE = f"inet {TABLE_NAME}"
PRIORITY = -10
"""Before the standard filter priority. An `accept` in another chain ends only that chain."""

REMOVE_TABLE = f"add table {TABLE}\ndelete table {TABLE}\n"
"""Deletes the table if it exists, in one transaction with the rest of the command."""

# <linux/netlink.h>, <linux/netfilter/nfnetlink.h>.
NETLINK_NETFILTER, NFNLGRP_NFTABLES = 12, 7

READ_BYTES = 64 * 1024


def ruleset(wanted: Iterable[Rejection]) -> str:
    """nft(8) commands that replace the table atomically by one that rejects these. Pure."""
    rules = "".join(f"    {rule}\n" for rejection in wanted for rule in _rules(rejection))
    return (f"{REMOVE_TABLE}table {TABLE} {{\n  chain input {{\n"
            f"    type filter hook input priority {PRIORITY}; policy accept;\n"
            f'    iifname "lo" accept\n{rules}  }}\n}}\n')


def _rules(rejection: Rejection) -> Iterator[str]:
    host, port = split_host_port(rejection.address)
    ip = ip_of(host)
    for spared in rejection.spared:
        yield f"{_to(spared)} tcp dport {port} accept"
    if ip is not None and not ip.is_unspecified:
        match = f"{_to(str(ip))} "
    else:
        # A socket on [::] accepts both families, one on 0.0.0.0 only IPv4.
        match = "meta nfproto ipv4 " if ip is not None and ip.version == 4 else ""
    yield f'{match}tcp dport {port} reject with tcp reset comment "{rejection.address}"'


def _to(ip: str) -> str:
    return f"{'ip6' if ':' in ip else 'ip'} daddr {ip}"


class NftablesTable:
    """The table in the kernel, through libnftables. Each method raises Unsupported."""

    def __init__(self) -> None:
        self._nftables: Any = None

    def shown(self) -> str:
        """The table as listed by nft(8), whose version decides the format; "" if there is none."""
        return self._nft(f"list table {TABLE}", missing="")

    def put(self, wanted: Iterable[Rejection]) -> str:
        """Replace the table. Returns it as listed by nft(8)."""
        self._nft(ruleset(wanted))
        return self.shown()

    def remove(self) -> None:
        """Remove the table if it exists."""
        self._nft(REMOVE_TABLE)

    def _library(self) -> Any:
        if self._nftables is None:
            try:
                from nftables import Nftables  # type: ignore[import-not-found]

                self._nftables = Nftables()
            except (ImportError, OSError) as error:
                raise Unsupported(f"python3-nftables is not installed ({error})") from None
            self._nftables.set_stateless_output(True)
        return self._nftables

    def _nft(self, command: str, *, missing: str | None = None) -> str:
        """Run an nft(8) command. `missing`: the result if the object does not exist."""
        status, out, error = self._library().cmd(command)
        if status == 0:
            return str(out)
        if missing is not None and "No such file or directory" in error:
            return missing
        raise Unsupported(f"nftables failed: {' '.join(error.split())}")


class NftablesMonitor:
    """Monitors changes of the table, such as a flush of the ruleset. Raises OSError."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, NETLINK_NETFILTER)
        try:
            self._socket.bind((0, 1 << (NFNLGRP_NFTABLES - 1)))
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """The netlink socket."""
        return self._socket.fileno()

    def take(self) -> bool:
        """Read pending events, also those of other tables. Returns whether the table may have changed."""
        is_changed = False
        while True:
            try:
                is_changed |= TABLE_NAME.encode() + b"\0" in self._socket.recv(READ_BYTES)
            except BlockingIOError:
                return is_changed
            except OSError:
                # ENOBUFS: events were lost.
                is_changed = True
