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
    """Messages about what could not be undone: files, and units."""

    left_changed: tuple[str, ...]
    not_started: tuple[str, ...]

    @property
    def words(self) -> str:
        return "; ".join(self.left_changed + self.not_started)


def restart(manager: Manager, units: Sequence[str]) -> None:
    """Restart docker.service with these of its socket units; only the sockets if docker.service is not in `units`.

    Raises JobFailed and Refused.
    """
    manager.reset_failed(SERVICE)
    sockets = [name for name in units if name != SERVICE]
    if not sockets:
        manager.run_job("RestartUnit", SERVICE)
        return
    # A socket unit applies new addresses only when it starts, and does not start while its service
    # runs: "Socket service docker.service already active, refusing." The sockets are stopped first, or
    # a client would start the service again.
    for name in (*sockets, SERVICE):
        manager.run_job("StopUnit", name)
    for name in sockets:
        manager.reset_failed(name)
        manager.run_job("StartUnit", name)
    if SERVICE in units:
        manager.run_job("StartUnit", SERVICE)


def undo(intent: Intent, manager: Manager, *, was_restarted: bool) -> Undone:
    """Restore everything as it was before the intent. Raises Unavailable.

    A file that another program has changed since is left alone, and so are the saved copies.
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
            # An absent file is removed again because its directory may have been created for it.
            if now[change.path] is not None:
                left_changed.append(f"{change.path}: {error.strerror}")
    try:
        manager.reload()
        if intent.stops and (was_restarted or not all(_is_up(manager, name) for name in intent.stops)):
            restart(manager, intent.stops)
    except (JobFailed, Refused) as error:
        not_started.append(str(error))
        if SERVICE in intent.stops:
            # After a stop that timed out, docker.service must still be started.
            with contextlib.suppress(JobFailed, Refused):
                manager.run_job("StartUnit", SERVICE, timeout_s=0)
    return Undone(tuple(left_changed), tuple(not_started))


def _is_up(manager: Manager, unit: str) -> bool:
    return manager.unit(unit).text("ActiveState") in ("active", "activating", "reloading")


def recover(state: StateFiles, manager: Manager) -> str:
    """Finish or undo a correction that a crash interrupted. Returns a message. Raises OSError, Refused, Unavailable.

    Each file is completely old or new. If all are new they stay: stopped units are started, and the next pass
    restarts dockerd if needed, verifies, and undoes everything on failure. Else all are restored. A held
    correction is left as it is.
    """
    files.sweep(state.directory)
    intent = state.intent()
    if intent is None:
        return ""
    for directory in {change.path.rpartition("/")[0] for change in intent.changes}:
        files.sweep(directory)
    if intent.held:
        return ""
    began = f"a correction begun at {intent.begun:%Y-%m-%d %H:%M:%S} was interrupted"
    with Rootfs() as rootfs:
        is_written = all(content_at(rootfs, change.path) == change.after for change in intent.changes)
    if is_written:
        ours = [name for name in (SOCKET, SERVICE) if name in intent.stops]
        try:
            manager.reload()
            if not all(_is_up(manager, name) for name in ours):
                restart(manager, ours)
        except JobFailed as error:
            return _undone(intent, state, manager, f"{began} and cannot be finished ({error})", was_restarted=True)
        state.begin(intent._replace(held=True))
        return f"{began}: all its files are written and stay; the next pass checks the rest"
    # dockerd may have started, as at a boot, with only some of the new files.
    started = datetime.fromtimestamp(manager.unit(SERVICE).number("ExecMainStartTimestamp") / 1e6, UTC)
    return _undone(intent, state, manager, began, was_restarted=started > intent.begun)


def _undone(intent: Intent, state: StateFiles, manager: Manager, began: str, *, was_restarted: bool) -> str:
    """Undo an interrupted correction. Returns a message."""
    if SERVICE not in intent.stops and manager.unit(SERVICE).text("ActiveState") == "failed":
        intent = intent._replace(stops=(*intent.stops, SERVICE))
    undone = undo(intent, manager, was_restarted=was_restarted)
    if not undone.left_changed:
        state.finish()
    return began + (f"; errors while undoing it: {undone.words}" if undone.words else "; it was undone")
