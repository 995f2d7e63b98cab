"""Verification of a correction."""

from __future__ import annotations

from collections.abc import Iterable

from dockerd_guard.model.address import Tls
from dockerd_guard.observe.network import HelperUnavailable, Network
from dockerd_guard.observe.observation import Configured
from dockerd_guard.plan.gate import Hold
from dockerd_guard.plan.plan import Change, complies, content_at, files_of
from dockerd_guard.policy.model import Policy, declared_bindings
from dockerd_guard.rootfs import Rootfs


def _changed_meanwhile(changes: Iterable[Change], now: Configured, policy: Policy) -> str:
    """A file that differs from what was written; else the last changed file if the configuration does not comply any
    more; else ""."""
    with Rootfs() as rootfs:
        for change in changes:
            if content_at(rootfs, change.path) != change.after:
                return change.path
        if complies(now.layer, policy):
            return ""
        found = {path: entry.ctime_ns for path in files_of(now) if (entry := rootfs.stat(path)) is not None}
        return max(found, key=lambda path: found[path], default="")


def _unproven(error: HelperUnavailable) -> Hold:
    return Hold(f"{error}; cannot verify that Docker answers over TCP", next_step=HelperUnavailable.next_step)


def answers(policy: Policy, network: Network) -> Iterable[str]:
    """Ping every declared socket. Yields a message for each failure. Raises HelperUnavailable."""
    for socket in declared_bindings(policy):
        answer = network.ping(socket.address, socket.tls)
        if not answer.answers:
            yield f"{socket.address} does not answer: {answer.reason}"
        elif socket.tls is Tls.MUTUAL and answer.tls is not Tls.MUTUAL:
            yield f"{socket.address} accepts clients without a certificate"
