"""Corrections that another program has undone (plan/backoff.py decides what follows).

The kernel reports which process wrote a file only to fanotify with CAP_SYS_ADMIN or to an existing audit
rule. The agent has neither: it names the file and the audit commands.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime

from dockerd_guard.apply.state_files import StateFiles
from dockerd_guard.model.names import DROPIN_NAME
from dockerd_guard.plan.assessment import Assessment
from dockerd_guard.plan.backoff import Contested, Correction, at_peace, quiet_until, remembered, undone_rounds
from dockerd_guard.plan.plan import HEADER_BEGIN, complies, content_at, files_of
from dockerd_guard.rootfs import FileStatus, Rootfs


class UndoneCorrections:
    """The corrections of one host, and the files as they left them."""

    def __init__(self, state: StateFiles) -> None:
        self._state = state
        self._left: dict[str, FileStatus | None] = {}
        """The files of the last correction, as it left them."""
        self._disputed = ""
        """The file that another program changed during a correction."""

    def contested(self, assessment: Assessment) -> Contested | None:
        """The contest that blocks this correction; None if there is none."""
        now = datetime.now(UTC)
        rounds = undone_rounds(self._state.rounds(), now, is_update=is_update(assessment))
        if not rounds:
            return None
        file, is_there, written = self._last_written(assessment, rounds[0].at, now)
        until = quiet_until(rounds, max(written, rounds[-1].at))
        return Contested(rounds[0].at, len(rounds), file, is_there, until) if now < until else None

    def corrected(self, assessment: Assessment, interference: str, after: Rootfs) -> None:
        """Record a correction. `interference`: a file that changed meanwhile. `after`: the host after it."""
        self._disputed = interference or self._disputed
        now = datetime.now(UTC)
        self._keep(remembered((*self._state.rounds(), Correction(now, is_update(assessment))), now))
        planned = {change.path: change.after for change in assessment.plan.changes}
        # A file that differs from what we wrote has been changed by another program already. A file of an earlier
        # correction that is unchanged has not.
        about = {path for path in (*_blamed(assessment), *planned)
                 if path not in planned or content_at(after, path) == planned[path]}
        still = {path: entry for path, entry in self._left.items()
                 if path not in planned and after.stat(path, follow=False) == entry}
        self._left = still | {path: after.stat(path, follow=False) for path in about}

    def is_peace(self, rootfs: Rootfs) -> bool:
        """Whether another program changed the files of the last correction. Call it for a host that complies."""
        return any(rootfs.stat(path, follow=False) != entry for path, entry in self._left.items())

    def make_peace(self) -> None:
        """Forget the corrections undone so far."""
        self._left, self._disputed = {}, ""
        rounds = self._state.rounds()
        if rounds != (kept := at_peace(rounds)):
            self._keep(kept)

    def forget(self) -> None:
        """Forget everything: the policy has changed."""
        self._left, self._disputed = {}, ""
        if self._state.rounds():
            self._keep(())

    def _keep(self, rounds: tuple[Correction, ...]) -> None:
        # Without disk space a correction does not get this far.
        with contextlib.suppress(OSError):
            self._state.keep_rounds(rounds)

    def _last_written(self, assessment: Assessment, since: datetime, now: datetime) -> tuple[str, bool, datetime]:
        """The file that another program changed last since the contest began, whether it exists, and when.

        Compares ctimes, which cannot be set; a removed file is found by the ctime of its directory. Unchanged
        files of our own do not count: then their directory is returned, where a file appeared and vanished.
        """
        rootfs = assessment.seen.rootfs
        ours = {change.path for change in assessment.plan.changes
                if change.before is not None and change.before.startswith(HEADER_BEGIN)}
        newest = next((path.rpartition("/")[0] for path in sorted(ours)), "/etc/systemd/system")
        written_ns, is_there = 0, True
        paths = {self._disputed} if self._disputed else {
            *files_of(assessment.seen.configured), *(change.path for change in assessment.plan.changes)} - ours
        for path in sorted(paths):
            entry = rootfs.stat(path, follow=False)
            is_as_left = path in self._left and self._left[path] == entry
            # A planned file that does not exist yet, such as a further copy, has not been removed.
            is_to_be = entry is None and path not in self._left and not path.endswith(f"/{DROPIN_NAME}")
            if not self._disputed and (is_as_left or is_to_be):
                continue
            known = entry or rootfs.stat(path.rpartition("/")[0] or "/")
            if known is not None and known.ctime_ns > max(written_ns, since.timestamp() * 1e9):
                newest, written_ns, is_there = path, known.ctime_ns, entry is not None
        return newest, is_there, min(datetime.fromtimestamp(written_ns / 1e9, UTC), now)


def is_tidying(assessment: Assessment) -> bool:
    """Whether the only actions left remove our own files."""
    todo = assessment.actions
    return bool(todo.changes) and not todo.restarts and all(
        change.after is None and change.path.endswith(f"/{DROPIN_NAME}") for change in todo.changes)


def is_update(assessment: Assessment) -> bool:
    """Whether the files comply, and only our own files or what systemd has loaded are out of date."""
    return complies(assessment.seen.configured.layer, assessment.policy) and not assessment.actions.restarts


def _blamed(assessment: Assessment) -> Iterator[str]:
    for finding in assessment.findings:
        if finding.code.startswith("DG1") and finding.location is not None:
            yield finding.location.file
