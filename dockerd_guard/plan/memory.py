"""What outlives one pass: the only state that decisions depend on besides the observation. Values, no I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple

from dockerd_guard.fleet.lock import Fault, Slot
from dockerd_guard.model.instant import Instant
from dockerd_guard.observe.started import StartRecord
from dockerd_guard.plan.plan import Change
from dockerd_guard.policy.model import Fleet, LockKind
from dockerd_guard.rootfs import Content, Link

MAX_RESTARTS = 10_000
"""Restarts that are remembered: more than any budget allows in its period."""

ABSENT = "absent"


class Intent(NamedTuple):
    """A correction that was begun: its changes, when it began, and the active units that it stops on the way.

    `was_active`: docker.service ran then, with this `invocation` ID; else it is that of its last run. `is_applied`:
    everything was applied that could be. The previous content is kept until dockerd has been started with the new one
    and has run for a while since `proven_by`; it is restored if dockerd fails before. `is_unverified`: dockerd was
    started with it, and the result could not be verified yet.
    """

    changes: tuple[Change, ...]
    begun: Instant
    stops: tuple[str, ...]
    was_active: bool = False
    invocation: str = ""
    is_applied: bool = False
    proven_by: Instant | None = None
    is_unverified: bool = False
    starts: bool = False
    """Whether it starts a docker.service that had failed: ResetFailedUnit() makes that `inactive` first."""
    was_starting: bool = False
    """Whether docker.service was on its way up then, with what was there before, or systemd was about to restart it."""
    written: tuple[str, ...] = ()
    """Every file that it has written, or an earlier one that it includes."""
    foreign: str = ""
    """foreign_contents() of all others, at the decision."""

    def before(self, newer: tuple[Change, ...]) -> tuple[Change, ...]:
        """Return these changes with newer ones after them: what is restored is the first content, unless somebody
        else has changed the file in between."""
        first = {change.path: change for change in self.changes}
        later = {change.path: change._replace(before=ours.before)
                 if (ours := first.get(change.path)) is not None and ours.after == change.before else change
                 for change in newer}
        return tuple({**first, **later}.values())

    @property
    def applied(self) -> Intent:
        """This correction after it was applied. A file that has its first content again is nothing to undo."""
        return self._replace(is_applied=True, changes=tuple(
            change for change in self.changes if change.before != change.after))


class Attempt(NamedTuple):
    """A correction that failed. It is tried again when `inputs` change, or from `retry_at` on.

    `inputs` is None until the first observation after the failure, since the failure itself changes them. Until then
    `foreign` counts: those at the time of the decision that the correction does not change, all but `written`.
    """

    at: Instant
    error: str
    retry_s: float
    inputs: str | None = None
    was_rolled_back: bool = False
    foreign: str = ""
    written: tuple[str, ...] = ()


class CorrectedFile(NamedTuple):
    """A file as a correction left it (digest of its content), and when somebody else changed it back.

    `is_undone`: it has differed since from how the correction left it. `because_of`: the correction was rolled back,
    since another program changed this other file during it.
    """

    path: str
    digest: str
    at: Instant
    undone: tuple[Instant, ...] = ()
    is_undone: bool = False
    because_of: str = ""


class HeldCorrection(NamedTuple):
    """A correction that waits: why, since when, until when (None: until something changes), and the next step."""

    reason: str
    since: datetime
    until: datetime | None
    next_step: str = ""
    is_due: bool = False
    """Whether dockerd is restarted then, not only looked at again."""


class NeededRestart(NamedTuple):
    """A restart of a running dockerd that is needed `since`, as far as files and the policy allow it.

    `policy` is a digest of it. `live_restore` is that of the configuration to be loaded, true where it does not count.
    """

    since: Instant
    policy: str
    live_restore: bool


class Refusal(NamedTuple):
    """The lock service gave no slot (fleet/lock.py); it is asked again after `retry_s`. `tries`: how often before;
    `ahead`: how many hosts waited before this one."""

    at: Instant
    fault: Fault
    reason: str
    next_step: str
    tries: int
    retry_s: float
    ahead: int = 0


class OwedSlot(NamedTuple):
    """A slot of a FleetLock that the policy does not name any more, with the settings that it was asked for with; when
    the service was told last that it is given back, and how often it did not answer."""

    fleet: Fleet
    slot: Slot
    told_at: Instant | None = None
    tries: int = 0


class FleetMemory(NamedTuple):
    """What is remembered of the lock of the fleet: the slot that this host has, or why it has none.

    `is_kept`: the slot is kept on purpose, since this host was left without Docker (FleetLock). `to_stop`: why the
    group is to be stopped, which could not be told to the service yet. `unreachable`: how often it did not answer.
    `unsure`: a slot of FleetLock that this host may have, since an answer was lost: nobody else gives it back.
    `asked`: the settings with which a slot was asked for last. `owed`: what is to be given back to other services.
    """

    slot: Slot | None = None
    refusal: Refusal | None = None
    is_kept: bool = False
    to_stop: str = ""
    unreachable: int = 0
    unsure: Slot | None = None
    asked: Fleet | None = None
    owed: tuple[OwedSlot, ...] = ()

    @property
    def all_owed(self) -> tuple[OwedSlot, ...]:
        """What is owed once the policy does not name this lock any more: with the slot that this host has, or may have.
        What etcd has of it ends with its lease."""
        slot = self.slot or self.unsure
        if slot is None or self.asked is None or self.asked.lock is not LockKind.FLEETLOCK:
            return self.owed
        return (*self.owed, OwedSlot(self.asked, slot))


class Contained(NamedTuple):
    """What is blocked at the network: by which methods (containment/methods.py), and which addresses."""

    methods: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()


class ManualFix(NamedTuple):
    """What `fix` did since the agent's last pass: its outcome, its steps, and the drifts (`Finding.fact`) that it
    ended. The agent writes the journal entry."""

    outcome: str
    steps: tuple[str, ...]
    fixed: tuple[str, ...]
    message: str = ""


class Memory(NamedTuple):
    """Everything that is remembered. `changed_at`: when something on the host last changed, as far as triggers show."""

    restarts: tuple[Instant, ...] = ()
    """Restarts and starts of docker.service by us, oldest first, also those of a rollback."""
    attempt: Attempt | None = None
    corrected: Mapping[str, CorrectedFile] = MappingProxyType({})
    held: HeldCorrection | None = None
    obstacles: tuple[str, ...] = ()
    contained: Contained = Contained()
    start: StartRecord | None = None
    manual_fixes: tuple[ManualFix, ...] = ()
    intent: Intent | None = None
    changed_at: Instant | None = None
    unneeded_since: Instant | None = None
    """Since when each pass has found that own files are to be removed and nothing else; as `changed_at` not stored."""
    needed_restart: NeededRestart | None = None
    """Kept only where the policy spreads restarts (plan/splay.py)."""
    fleet: FleetMemory = FleetMemory()

    def with_restart(self, now: Instant) -> Memory:
        """With one more restart, which happens now."""
        return self._replace(restarts=(*self.restarts, now)[-MAX_RESTARTS:])


def digest(content: Content | None) -> str:
    """Return what identifies the content of a file, of a link, or that there is none."""
    if content is None:
        return ABSENT
    if isinstance(content, Link):
        return f"link {content.target}"
    return hashlib.sha256(content).hexdigest()
