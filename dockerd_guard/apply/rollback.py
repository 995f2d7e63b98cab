"""Undo a correction, or finish one that a crash interrupted."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from dockerd_guard.apply import files
from dockerd_guard.apply.state_files import Intent, StateFiles
from dockerd_guard.model.names import SAVED_SUFFIX, SERVICE, SOCKET
from dockerd_guard.plan.plan import content_at
from dockerd_guard.rootfs import Rootfs
from dockerd_guard.systemd.manager import JobFailed, Manager, Refused


class Undone(NamedTuple):
    """What could not be undone: files, and units; in words."""

    left_changed: tuple[str, ...]
    not_started: tuple[str, ...]

    @property
    def words(self) -> str:
        return "; ".join(self.left_changed + self.not_started)


def restart(manager: Manager, units: Sequence[str]) -> None:
    """Restart docker.service with these of its socket units; the sockets alone where it is not among them.

    Raises JobFailed and Refused.
    """
    manager.reset_failed(SERVICE)
    sockets = [name for name in units if name != SERVICE]
    if not sockets:
        manager.run_job("RestartUnit", SERVICE)
        return
    # A socket unit takes new addresses only when it starts, and will not start while its service
    # runs: "Socket service docker.service already active, refusing." The sockets go first, else
    # a client that comes by starts the service again.
    for name in (*sockets, SERVICE):
        manager.run_job("StopUnit", name)
    for name in sockets:
        manager.reset_failed(name)
        manager.run_job("StartUnit", name)
    if SERVICE in units:
        manager.run_job("StartUnit", SERVICE)


def undo(intent: Intent, manager: Manager, *, was_restarted: bool) -> Undone:
    """Put everything back as it was before the intent. Raises Unavailable.

    A file that somebody else has changed since is his; then what was saved of it stays, too.
    """
    left_changed, not_started = [], []
    with Rootfs() as rootfs:
        now = {change.path: content_at(rootfs, change.path) for change in intent.changes}
    theirs = [change.path for change in intent.changes if now[change.path] not in (change.before, change.after)]
    for change in reversed(intent.changes):
        if now[change.path] == change.before is not None or change.path in theirs or (
                theirs and SAVED_SUFFIX in change.path):
            continue
        try:
            files.put(change.path, change.before, change.access)
        except OSError as error:
            # What is not there is taken away once more, for the directory that may have been made for it.
            if now[change.path] is not None:
                left_changed.append(f"{change.path}: {error.strerror}")
    try:
        manager.reload()
        if intent.stops and (was_restarted or not all(_is_up(manager, name) for name in intent.stops)):
            restart(manager, intent.stops)
    except (JobFailed, Refused) as error:
        not_started.append(str(error))
        if SERVICE in intent.stops:
            # A stop that takes longer than anybody waits for must not be the last thing that is done to it.
            with contextlib.suppress(JobFailed, Refused):
                manager.run_job("StartUnit", SERVICE, timeout_s=0)
    return Undone(tuple(left_changed), tuple(not_started))


def _is_up(manager: Manager, unit: str) -> bool:
    return manager.unit(unit).text("ActiveState") in ("active", "activating", "reloading")


def recover(state: StateFiles, manager: Manager) -> str:
    """Bring to an end what a crash cut short; what was done, in words. Raises OSError, Refused, Unavailable.

    Each file is whole, old or new. Where all are new they stay: what was stopped is started, and the
    next pass restarts dockerd where that is still to be done, verifies, and undoes everything if it does
    not hold. Else all are made old again. A correction that waits for leave is left as it is.
    """
    files.sweep(state.directory)
    intent = state.intent()
    if intent is None:
        return ""
    for directory in {change.path.rpartition("/")[0] for change in intent.changes}:
        files.sweep(directory)
    if intent.held:
        return ""
    began = f"a correction begun at {intent.begun:%Y-%m-%d %H:%M:%S} did not come to its end"
    with Rootfs() as rootfs:
        is_written = all(content_at(rootfs, change.path) == change.after for change in intent.changes)
    if is_written:
        ours = [name for name in (SOCKET, SERVICE) if name in intent.stops]
        try:
            manager.reload()
            if not all(_is_up(manager, name) for name in ours):
                restart(manager, ours)
        except JobFailed as error:
            return _undone(intent, state, manager, f"{began}, and cannot ({error})", was_restarted=True)
        state.begin(intent._replace(held=True))
        return f"{began}: all its files are written and stay; the rest is looked at anew"
    # Dockerd may have come up, at a boot perhaps, by some of the files and not by others.
    started = datetime.fromtimestamp(manager.unit(SERVICE).number("ExecMainStartTimestamp") / 1e6, UTC)
    return _undone(intent, state, manager, began, was_restarted=started > intent.begun)


def _undone(intent: Intent, state: StateFiles, manager: Manager, began: str, *, was_restarted: bool) -> str:
    """Undo what a crash cut short."""
    if SERVICE not in intent.stops and manager.unit(SERVICE).text("ActiveState") == "failed":
        intent = intent._replace(stops=(*intent.stops, SERVICE))
    undone = undo(intent, manager, was_restarted=was_restarted)
    if not undone.left_changed:
        state.finish()
    return began + (f"; in undoing it: {undone.words}" if undone.words else ": everything is as before it")
