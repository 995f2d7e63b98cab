"""Undo a correction, or finish one that a crash interrupted."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from typing import NamedTuple

from dockerd_guard.apply.context import Context, Units
from dockerd_guard.model.instant import Instant
from dockerd_guard.model.names import SERVICE, SOCKET
from dockerd_guard.observe.configured import observe_configured
from dockerd_guard.observe.live import dependents
from dockerd_guard.observe.loaded_files import has_loaded_these
from dockerd_guard.observe.observation import Configured, Observation
from dockerd_guard.plan.actions import Actions
from dockerd_guard.plan.memory import Intent
from dockerd_guard.plan.plan import Change, content_at, original_of, refusals_of
from dockerd_guard.plan.unrun_commands import socket_commands
from dockerd_guard.rootfs import Rootfs
from dockerd_guard.systemd.manager import JOB_TIMEOUT_S, JobFailed, Refused

AFTER_TIMEOUT_S = 60.0
"""How long each job of an undo may take after a job of the correction took too long: systemd still works on that."""

STILL_UP = ("active", "activating", "reloading")


class Undone(NamedTuple):
    """What could not be undone, as messages: files and units. `starts`: starts of docker.service on the way."""

    left_changed: tuple[str, ...]
    not_started: tuple[str, ...]
    starts: tuple[Instant, ...] = ()
    copies: tuple[str, ...] = ()
    """Copies of files that somebody else has changed since."""

    @property
    def message(self) -> str:
        copies = (f"{path} stays, since another program has changed {original_of(path)}" for path in self.copies)
        return "; ".join((*self.left_changed, *copies, *self.not_started))


def restart(
    manager: Units, units: Sequence[str], *, reset_failed: bool, timeout_s: float = JOB_TIMEOUT_S
) -> bool:
    """Restart docker.service together with these of its socket units; the sockets alone where it is not among them.

    A docker.service that somebody starts just then stops with its socket, and is started again. `reset_failed` clears
    the start limit of docker.service once (systemd.unit(5), StartLimitIntervalSec=). `timeout_s` is that of each job.
    Returns whether that was done: sockets alone are left where docker.service is active by now. Raises JobFailed and
    Refused.
    """
    before = manager.unit(SERVICE)
    if SERVICE not in units and before.text("ActiveState") in STILL_UP:
        # Somebody has started it since: a stop of its socket would stop it too (systemd.unit(5), Requires=).
        return False
    states = (before if unit == SERVICE else manager.unit(unit) for unit in units)
    stopped = tuple(dict.fromkeys(name for state in states for name in dependents(manager, state)))
    if reset_failed:
        manager.reset_failed(SERVICE)
    _restart(manager, units, before.hexadecimal("InvocationID"), timeout_s)
    # Under `restart: always`. A restart of docker.service alone starts most of it again.
    for name in stopped:
        with contextlib.suppress(JobFailed, Refused):
            if not is_up(manager, name):
                manager.run_job("StartUnit", name, timeout_s=0)
    return True


def _restart(manager: Units, units: Sequence[str], invocation: str, timeout_s: float) -> None:
    sockets = [name for name in units if name != SERVICE]
    if not sockets:
        manager.run_job("RestartUnit", SERVICE, timeout_s)
        return
    # A socket unit takes new addresses only when it starts, and refuses to start while its service runs: "Socket
    # service docker.service already active, refusing." Sockets stop first, or a client starts the service again.
    for name in (*sockets, *(SERVICE,) * (SERVICE in units)):
        manager.run_job("StopUnit", name, timeout_s)
    was_started = manager.unit(SERVICE).hexadecimal("InvocationID") != invocation
    for name in sockets:
        manager.reset_failed(name)
        manager.run_job("StartUnit", name, timeout_s)
    if SERVICE in units or was_started:
        manager.run_job("StartUnit", SERVICE, timeout_s)


def undo(  # noqa: PLR0913 -- how far, and how long
    intent: Intent, context: Context, *, restarts: bool, reset_failed: bool, may_start: bool = True,
    after: JobFailed | None = None,
) -> Undone:
    """Restore everything as it was before the intent. Raises Unavailable.

    `restarts`: docker.service was started with the new files, or failed with them, and is started again. A file that
    somebody else has changed since stays; then what was saved of it stays too. Without `may_start` units are left as
    they are. `after`: the job that failed before, where it was one.
    """
    left_changed, not_started = [], []
    starts: tuple[Instant, ...] = ()
    with Rootfs(context.files.root) as rootfs:
        now = {change.path: content_at(rootfs, change.path) for change in intent.changes}
    theirs = [change.path for change in intent.changes if now[change.path] not in (change.before, change.after)]
    kept = list(theirs)
    # Copies come before their originals: what cannot be restored keeps its copies (I5).
    copies = []
    for change in reversed(intent.changes):
        if now[change.path] == change.before is not None or change.path in theirs:
            continue
        if _keeps(change, context, kept):
            copies.append(change.path)
            continue
        try:
            context.files.put(change.path, change.before, change.access)
        except OSError as error:
            # An absent file is removed once more, together with the directory that may have been made for it.
            if now[change.path] != change.before:
                left_changed.append(f"{change.path}: {error.strerror}")
                kept.append(change.path)
    manager = context.manager
    try:
        manager.reload()
        stops = intent.stops if SERVICE in intent.stops or not restarts else (*intent.stops, SERVICE)
        if may_start and stops and (restarts or not all(is_up(manager, name) for name in stops)):
            seen = context.observe()
            if not has_loaded_these(seen):
                # A file may have been there only while systemd loaded its units.
                manager.reload()
            # docker.socket may have failed meanwhile, and be started with docker.service.
            commands = socket_commands(seen, seen.configured, Actions(start=True, restart_socket=SOCKET in stops))
            if commands:
                not_started.append(f"a start of {SERVICE} would run what systemd has not run before: "
                                   f"{', '.join(commands)}")
            else:
                starts = (context.clock.now(),) if SERVICE in stops else ()
                restart(manager, stops, reset_failed=reset_failed,
                        timeout_s=AFTER_TIMEOUT_S if after is not None and after.result == "timeout" else JOB_TIMEOUT_S)
    except (JobFailed, Refused) as error:
        not_started.append(str(error))
        if SERVICE in intent.stops and isinstance(error, JobFailed) and error.verb.startswith("Stop"):
            # A stop that takes too long must not be the last thing that is done to it.
            with contextlib.suppress(JobFailed, Refused):
                manager.run_job("StartUnit", SERVICE, timeout_s=0)
    return Undone(tuple(left_changed), tuple(not_started), starts, tuple(copies))


def _keeps(change: Change, context: Context, kept: Collection[str]) -> bool:
    """Whether a copy stays, since its content is not that of the original now: another program may have written there
    after it was restored."""
    original = original_of(change.path)
    if original == change.path or change.before is not None:
        return False
    with Rootfs(context.files.root) as rootfs:
        return original in kept or content_at(rootfs, original) != change.after


def is_up(manager: Units, unit: str) -> bool:
    """Whether a unit is active or on its way there."""
    return manager.unit(unit).text("ActiveState") in STILL_UP


class Recovery(NamedTuple):
    """What became of an interrupted correction: what was done, the intent that remains, starts of docker.service."""

    message: str
    intent: Intent | None
    starts: tuple[Instant, ...] = ()


def recover(intent: Intent, context: Context, *, may_start: bool, is_repaired: bool) -> Recovery:
    """Finish what a crash interrupted. Raises OSError, Refused, Unavailable.

    Each file is whole, old or new. If all are new they stay, unless docker.service failed with them: what was stopped
    is started, and the next pass decides about the rest. Otherwise all are made old again; but all stay where dockerd
    was started since and complies (`is_repaired`), if its sockets are up too.
    """
    for directory in {change.path.rpartition("/")[0] for change in intent.changes}:
        context.files.sweep(directory)
    began = f"a correction begun at {intent.begun.wall:%Y-%m-%d %H:%M:%S} was interrupted"
    manager = context.manager
    with Rootfs(context.files.root) as rootfs:
        is_written = all(content_at(rootfs, change.path) == change.after for change in intent.changes)
    # An undo that an error of the disk kept from its end: docker.service has failed with these files.
    has_failed = intent.was_active and not intent.starts and SERVICE not in intent.stops and (
        manager_state(manager) == "failed") and not would_be_refused(intent, context)
    if is_written and not has_failed:
        ours = [name for name in (SOCKET, SERVICE) if name in intent.stops]
        if intent.starts and manager_state(manager) == "inactive":
            ours.append(SERVICE)
        starts: tuple[Instant, ...] = ()
        try:
            manager.reload()
            if may_start and not all(is_up(manager, name) for name in ours):
                starts = (context.clock.now(),) if SERVICE in ours else ()
                restart(manager, ours, reset_failed=False)
        except JobFailed as error:
            recovery = _undone(intent, context, f"{began} and cannot be finished ({error})",
                               restarts=intent.was_active,
                               may_start=may_start, after=error)
            return recovery._replace(starts=starts + recovery.starts)
        return Recovery(f"{began}: all its files are written and stay; the next pass checks the rest",
                        intent.applied, starts)
    if is_repaired and all(is_up(manager, name) for name in intent.stops):
        return Recovery(f"{began}: dockerd was started since and complies; the next pass checks the rest", None)
    if all(is_up(manager, name) for name in {*intent.stops, SERVICE}) and would_be_refused(intent, context):
        return Recovery(f"{began}: its files stay, since dockerd would refuse what was there before", None)
    # A dockerd that is up stays up, also one that was started since with some of the files and not with others: what
    # is restored may never have been in force, and whether a restart may be is decided in the next pass (I1, I3).
    return _undone(intent, context, began, restarts=False, may_start=may_start)


def would_be_refused(intent: Intent, context: Context) -> bool:
    """Whether dockerd would refuse what was there before, and not what is there now (I3)."""
    now = context.observe().configured
    with Rootfs(context.files.root) as rootfs:
        before = rootfs.changed({change.path: change.before for change in intent.changes})
        refused = _is_refused(before, observe_configured(
            before, dockerd=now.known_dockerd, systemd=now.systemd_version,
            manager_environment=now.manager_environment))
        return refused and not _is_refused(rootfs, now)


def _is_refused(rootfs: Rootfs, configured: Configured) -> bool:
    return not configured.layer.starts or bool(refusals_of(Observation(rootfs, configured)))


def _undone(  # noqa: PLR0913 -- as undo()
    intent: Intent, context: Context, began: str, *, restarts: bool, may_start: bool, after: JobFailed | None = None
) -> Recovery:
    if intent.was_active and manager_state(context.manager) == "failed":
        restarts = True
    undone = undo(intent, context, restarts=restarts, reset_failed=True, may_start=may_start, after=after)
    message = began + (f"; errors while undoing it: {undone.message}" if undone.message else "; it was undone")
    return Recovery(message, intent if undone.left_changed else None, undone.starts)


def manager_state(manager: Units) -> str:
    """ActiveState of docker.service."""
    return manager.unit(SERVICE).text("ActiveState")
