"""The table of ours in nftables: it rejects what is open against the policy, and nothing else.

It takes CAP_NET_ADMIN in the host's network namespace, to follow its changes as well as to make them.
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
"""Before the ordinary filters. Another chain's `accept`, for what is established too, ends that chain alone."""

REMOVE_TABLE = f"add table {TABLE}\ndelete table {TABLE}\n"
"""Deletes it whether it is there or not; one transaction with what follows in the same command."""

# <linux/netlink.h>, <linux/netfilter/nfnetlink.h>.
NETLINK_NETFILTER, NFNLGRP_NFTABLES = 12, 7

READ_BYTES = 64 * 1024


def ruleset(wanted: Iterable[Rejection]) -> str:
    """The table that rejects these, as nft(8) reads it; it takes the place of the one before at once. Pure."""
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
        # A socket on [::] takes both families, one on 0.0.0.0 only its own.
        match = "meta nfproto ipv4 " if ip is not None and ip.version == 4 else ""
    yield f'{match}tcp dport {port} reject with tcp reset comment "{rejection.address}"'


def _to(ip: str) -> str:
    return f"{'ip6' if ':' in ip else 'ip'} daddr {ip}"


class NftablesTable:
    """The table in the kernel, by libnftables. Each raises Unsupported."""

    def __init__(self) -> None:
        self._nftables: Any = None

    def shown(self) -> str:
        """The table as nft(8) shows it, which differs by its version from what it was given; "" where there is none."""
        return self._nft(f"list table {TABLE}", missing="")

    def put(self, wanted: Iterable[Rejection]) -> str:
        """Put it in, in the place of the one before; how it is shown then."""
        self._nft(ruleset(wanted))
        return self.shown()

    def remove(self) -> None:
        """Take it away, if it is there."""
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
        """Run a command of nft(8). `missing` is the answer where the kernel has no such thing."""
        status, out, error = self._library().cmd(command)
        if status == 0:
            return str(out)
        if missing is not None and "No such file or directory" in error:
            return missing
        raise Unsupported(f"nftables refused: {' '.join(error.split())}")


class NftablesMonitor:
    """Tells of changes of the table, which whoever flushes the ruleset takes away. Raises OSError."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, NETLINK_NETFILTER)
        try:
            self._socket.bind((0, 1 << (NFNLGRP_NFTABLES - 1)))
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """What to wait on."""
        return self._socket.fileno()

    def take(self) -> bool:
        """Take in what came: whether the table may have been changed. Docker's own rules come by here too."""
        is_changed = False
        while True:
            try:
                is_changed |= TABLE_NAME.encode() + b"\0" in self._socket.recv(READ_BYTES)
            except BlockingIOError:
                return is_changed
            except OSError:
                # ENOBUFS: more came than the kernel keeps.
                is_changed = True
