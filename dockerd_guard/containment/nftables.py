"""The nftables table that rejects connections to exposures.

Changing and monitoring it needs CAP_NET_ADMIN in the host's network namespace.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from typing import Any

from dockerd_guard.model.address import ip_of, split_host_port
from dockerd_guard.model.rejection import Rejection
from dockerd_guard.observe.network import Unsupported

TABLE_NAME = "dockerd_guard"
TABLE = f"inet {TABLE_NAME}"
PRIORITY = -10
"""Before the standard filter priority. An `accept` in another chain ends only that chain."""

PREROUTING_PRIORITY = -150
"""`mangle`: after connection tracking, before dstnat."""

REMOVE_TABLE = f"add table {TABLE}\ndelete table {TABLE}\n"
"""Deletes the table if it exists, in one transaction with the rest of the command."""

# <linux/netlink.h>, <linux/netfilter/nfnetlink.h>.
NETLINK_NETFILTER, NFNLGRP_NFTABLES = 12, 7
NLM_F_REQUEST, NLM_F_ACK, NLMSG_ERROR = 0x1, 0x4, 0x2
NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END, NFNL_SUBSYS_NFTABLES = 0x10, 0x11, 10
NFT_MSG_DELTABLE, NFTA_TABLE_NAME, NFPROTO_INET = 2, 1, 1
NETLINK_TIMEOUT_S = 5.0

READ_BYTES = 64 * 1024


def ruleset(wanted: Iterable[Rejection]) -> str:
    """nft(8) commands that replace the table atomically by one that rejects these. Pure.

    Published ports of containers are rejected before Docker changes their destination (dstnat, priority -100): later
    hooks see the container's address, and only some of the traffic.
    """
    rejections = tuple(wanted)
    chains = ((f"input priority {PRIORITY}", [each for each in rejections if not each.is_published], ""),
              (f"prerouting priority {PREROUTING_PRIORITY}", [each for each in rejections if each.is_published],
               "fib daddr type local "))
    return f"{REMOVE_TABLE}table {TABLE} {{\n" + "".join(
        _chain(hook, chosen, match) for hook, chosen, match in chains if chosen or hook.startswith("input")) + "}\n"


def _chain(hook: str, rejections: Iterable[Rejection], match: str) -> str:
    rules = "".join(f"    {match}{rule}\n" for rejection in rejections for rule in _rules(rejection))
    return (f"  chain {hook.partition(' ')[0]} {{\n    type filter hook {hook}; policy accept;\n"
            f'    iifname "lo" accept\n{rules}  }}\n')


def missing(wanted: Iterable[Rejection], shown: str) -> tuple[str, ...]:
    """Return the addresses that a table, as listed by nft(8), does not reject. Pure.

    Each rule carries its address as a comment. A table with the flag `dormant` is not evaluated (nft(8)).
    """
    lines = [line.strip() for line in shown.splitlines()]
    rejected: set[tuple[str, str]] = set()
    hook = ""
    if not any(line.startswith("flags") and "dormant" in line for line in lines):
        for line in lines:
            if line.startswith("chain "):
                hook = ""
            elif line.startswith("type filter hook "):
                hook = line.split()[3]
            elif " reject " in line:
                rejected.add((hook, line.partition('comment "')[2].rstrip('"')))
    return tuple(rejection.address for rejection in wanted
                 if (_hook_of(rejection), rejection.address) not in rejected)


def _hook_of(rejection: Rejection) -> str:
    return "prerouting" if rejection.is_published else "input"


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


def delete_table() -> None:
    """Delete the table through nfnetlink alone. Raises Unsupported where the kernel refuses.

    One batch with one message (Documentation/netlink/specs/nftables.yaml; <linux/netfilter/nf_tables.h>).
    """
    def message(
        kind: int, sequence: int, family: int, subsystem: int, attributes: bytes = b""
    ) -> bytes:
        flags = NLM_F_REQUEST | (NLM_F_ACK if attributes else 0)
        body = struct.pack("=BBH", family, 0, socket.htons(subsystem)) + attributes
        return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body

    name = TABLE_NAME.encode() + b"\0"
    attribute = struct.pack("=HH", 4 + len(name), NFTA_TABLE_NAME) + name.ljust(-len(name) % 4 + len(name), b"\0")
    batch = (message(NFNL_MSG_BATCH_BEGIN, 1, socket.AF_UNSPEC, NFNL_SUBSYS_NFTABLES)
             + message(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_DELTABLE, 2, NFPROTO_INET, 0, attribute)
             + message(NFNL_MSG_BATCH_END, 3, socket.AF_UNSPEC, NFNL_SUBSYS_NFTABLES))
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER) as kernel:
            kernel.settimeout(NETLINK_TIMEOUT_S)
            kernel.bind((0, 0))
            kernel.send(batch)
            answer = kernel.recv(READ_BYTES)
    except OSError as error:
        raise Unsupported(f"cannot delete the nftables table: {error.strerror or error}") from None
    _, kind, *_ = struct.unpack_from("=IHHII", answer)
    code = struct.unpack_from("=i", answer, 16)[0] if kind == NLMSG_ERROR else 0
    if code not in (0, -errno.ENOENT):
        raise Unsupported(f"cannot delete the nftables table: {os.strerror(-code)}")


class NftablesTable:
    """The table in the kernel, through libnftables. Each method raises Unsupported."""

    def __init__(self) -> None:
        self._nftables: Any = None

    def shown(self) -> str:
        """The table as listed by nft(8), whose version decides the format; "" if there is none."""
        return self._nft(f"list table {TABLE}", missing="")

    def put(self, wanted: Iterable[Rejection]) -> str:
        """Replace the table, and verify that the kernel has it. Returns it as listed by nft(8)."""
        wanted = tuple(wanted)
        self._nft(ruleset(wanted))
        shown = self.shown()
        if not_blocked := missing(wanted, shown):
            raise Unsupported(f"nftables accepted the table, and it does not block {', '.join(not_blocked)}")
        return shown

    def remove(self) -> None:
        """Remove the table if it exists, also where libnftables is gone (I13)."""
        try:
            self._nft(REMOVE_TABLE)
        except Unsupported:
            delete_table()

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
