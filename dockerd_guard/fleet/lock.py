"""The lock of a fleet: at most so many of its hosts restart dockerd at once. Values, and the interface."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple, Protocol

from dockerd_guard.policy.model import Fleet

MAX_NAME_CHARACTERS = 64
MAX_REASON_CHARACTERS = 300


class Fault(StrEnum):
    """Why there is no slot."""

    FULL = "full"
    STOPPED = "stopped"
    """A host of the group was left without Docker: nobody restarts until an administrator resumes."""
    UNREACHABLE = "unreachable"
    TLS = "tls"
    INVALID = "invalid"
    """The policy or the service must be changed."""


class Host(NamedTuple):
    """This host: its app-specific machine ID, its name, and the ID of this boot."""

    id: str
    name: str
    boot: str


class Slot(NamedTuple):
    """A slot that was taken. `revision` (etcd) identifies this time that it was taken, `lease` keeps it."""

    group: str
    id: str
    number: int = 0
    lease: int = 0
    revision: int = 0
    since: str = ""


class Member(NamedTuple):
    """A host that has a slot, or waits for one, as the lock service shows it. `since` is by that host's clock."""

    host: str
    since: str
    id: str = ""
    number: int = 0


class Stop(NamedTuple):
    """What stopped a group."""

    host: str
    reason: str
    since: str


class GroupState(NamedTuple):
    """Who has a slot, who waits, and what stopped the group. `shows_members`: False for FleetLock, which has no
    request for it."""

    slots: tuple[Member, ...] = ()
    waiting: tuple[Member, ...] = ()
    stop: Stop | None = None
    shows_members: bool = True


LONGEST_WAIT_S = 900.0
"""A longer time until a slot is expected to be free is taken as this."""


class LockError(Exception):
    """There is no slot: the kind of the fault, why, and the next step of the administrator. `expected_s`: when the lock
    service expects a slot for this host to be free; 0: it does not know. `ahead`: hosts that wait before this one."""

    def __init__(
        self, fault: Fault, reason: str, next_step: str, expected_s: float = 0.0, ahead: int = 0
    ) -> None:
        super().__init__(f"{reason}: {next_step}")
        self.fault = fault
        self.reason = reason
        self.next_step = next_step
        self.expected_s = min(expected_s, LONGEST_WAIT_S)
        self.ahead = ahead


class Lock(Protocol):
    """Requests to the lock service of a policy. Each raises LockError, also where its helper cannot be reached."""

    def acquire(self, fleet: Fleet, host: Host) -> Slot:
        """Take a slot, or the one that this host has already."""

    def still(self, fleet: Fleet, slot: Slot) -> bool:
        """Whether the slot is this host's still; and keep it from now on, until it is released."""

    def release(self, fleet: Fleet, slot: Slot) -> bool:
        """Give the slot back. Returns whether it was this host's until now."""

    def stop(self, fleet: Fleet, host: Host, reason: str) -> None:
        """Let no host of the group restart dockerd any more. With FleetLock: nothing, the slot is kept instead."""

    def resume(self, fleet: Fleet, slot: Slot | None) -> None:
        """End a stop, and release the slot that this host has kept."""

    def state(self, fleet: Fleet) -> GroupState:
        """Who has a slot, who waits, and what stopped the group."""


def shown(text: str, characters: int = MAX_NAME_CHARACTERS) -> str:
    """What another host wrote, as it may be part of a message: printable ASCII, one line, no more than this."""
    return "".join(char if " " <= char <= "~" else "?" for char in text[:characters])
