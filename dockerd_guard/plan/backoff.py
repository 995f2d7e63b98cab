"""When a correction that somebody else undoes is not repeated at once. Pure.

A correction counts as undone only if a file that it left in one state is in another one now, and the plan would
bring it back to the same state (I8). Until FREE_REPEATS it is repeated at once. Then the other side must leave the
file alone for as long as the dispute has lasted, so a script that writes five times a second is waited for until it
has stopped, and a configuration manager that runs every hour costs a few corrections, then ever fewer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from dockerd_guard.model.instant import Instant
from dockerd_guard.model.names import DROPIN_NAME
from dockerd_guard.plan.memory import CorrectedFile, digest
from dockerd_guard.plan.plan import Change, content_at
from dockerd_guard.rootfs import Rootfs

FREE_REPEATS = 2
"""So many times a correction is repeated at once after it was undone."""

MIN_QUIET = timedelta(minutes=10)
MAX_QUIET = timedelta(days=1)

MEMORY_S = 7 * 86400.0
"""A change that was undone longer ago does not count."""

MAX_FILES = 100


class Contested(NamedTuple):
    """What another program keeps undoing: since when, how often, which file it changes, whether that is there now,
    when it was written last, and until when it must be left alone."""

    since: datetime
    times: int
    file: str
    is_there: bool
    written: datetime
    until: datetime

    @property
    def verb(self) -> str:
        """What the other program does to the file."""
        return "writes" if self.is_there else "removes"


def observed(now: Instant, rootfs: Rootfs, corrected: Mapping[str, CorrectedFile]) -> Mapping[str, CorrectedFile]:
    """Return the corrected files with what others have done to them since."""
    return {path: _observed(now, rootfs, file) for path, file in corrected.items()
            if now.seconds_since(file.at) < MEMORY_S}


def _observed(now: Instant, rootfs: Rootfs, file: CorrectedFile) -> CorrectedFile:
    # Once for each correction, also where somebody brings the file back and changes it again.
    if file.is_undone or digest(content_at(rootfs, file.path)) == file.digest:
        return file
    return file._replace(is_undone=True, undone=(*file.undone, now)[-MAX_FILES:])


def corrected(now: Instant, changes: tuple[Change, ...], known: Mapping[str, CorrectedFile], interference: str = ""
              ) -> Mapping[str, CorrectedFile]:
    """Return the corrected files after these changes were made.

    `interference`: the one that another program changed meanwhile, so that all were rolled back. That counts against
    the others only where they are changed together with it (I8).
    """
    found = dict(known)
    for change in changes:
        after, before = digest(change.after), known.get(change.path)
        because_of = interference if interference != change.path else ""
        made = CorrectedFile(change.path, after, now, because_of=because_of)
        if before is not None and (before.digest, before.because_of) == (after, because_of):
            made = made._replace(undone=before.undone)
        found[change.path] = made
    newest = sorted(found.values(), key=lambda file: now.seconds_since(file.at))[:MAX_FILES]
    return {file.path: file for file in newest}


def interrupted(now: Instant, path: str, known: Mapping[str, CorrectedFile]) -> Mapping[str, CorrectedFile]:
    """Return the corrected files after another program changed this one during a correction that had left it out."""
    file = known.get(path)
    return known if file is None else {
        **known, path: file._replace(is_undone=True, undone=(*file.undone, now)[-MAX_FILES:])}


def restored(paths: Collection[str], known: Mapping[str, CorrectedFile]) -> Mapping[str, CorrectedFile]:
    """Return the corrected files after we undid corrections of these paths ourselves, which does not count."""
    return {path: file._replace(is_undone=True) if path in paths else file for path, file in known.items()}


def contested(now: Instant, rootfs: Rootfs, changes: tuple[Change, ...], known: Mapping[str, CorrectedFile]
              ) -> Contested | None:
    """Return what speaks against making these changes now: all of them were undone again and again.

    A change that was not undone is never delayed by one that was.
    """
    found = [_contest(now, rootfs, file) for file in _redone(changes, known)]
    if len(found) < len(_essential(changes)):
        return None
    # Where all were undone at once, the foreign file shows more.
    last = max((each for each in found if each is not None), default=None,
               key=lambda each: (each.until, not each.file.endswith(f"/{DROPIN_NAME}")))
    return last if last is not None and None not in found and last.until > now.wall else None


def dispute(now: Instant, rootfs: Rootfs, known: Mapping[str, CorrectedFile], quiet_s: float) -> Contested | None:
    """Return the latest dispute over a file that was written within `quiet_s`, not by a correction.

    Its files may comply for a moment: a shell truncates a file before it writes to it.
    """
    found = (_contest(now, rootfs, file) for file in known.values() if file.is_undone and not file.because_of)
    return max((each for each in found if each is not None and now.wall - each.written < timedelta(seconds=quiet_s)),
               default=None, key=lambda each: each.written)


def _redone(changes: tuple[Change, ...], known: Mapping[str, CorrectedFile]) -> Iterator[CorrectedFile]:
    paths = {"", *(change.path for change in changes)}
    for change in _essential(changes):
        file = known.get(change.path)
        if file is not None and file.digest == digest(change.after) and file.because_of in paths:
            yield file


def _essential(changes: tuple[Change, ...]) -> tuple[Change, ...]:
    """The changes without the copies under new names that go with them."""
    return tuple(change for change in changes if not change.is_copy)


def _contest(now: Instant, rootfs: Rootfs, file: CorrectedFile) -> Contested | None:
    """The dispute over one file, None while it is within FREE_REPEATS."""
    recent = [moment for moment in file.undone if now.seconds_since(moment) < MEMORY_S]
    if len(recent) <= FREE_REPEATS:
        return None
    entry = rootfs.stat(file.path, follow=False)
    # Only the kernel sets ctime. A file that was removed has changed its directory.
    known = entry or rootfs.stat(file.path.rpartition("/")[0] or "/")
    written_s = now.seconds_since(recent[-1])
    if known is not None:
        written_s = min(written_s, max(now.wall.timestamp() - known.ctime_ns / 1e9, 0.0))
    lasted = timedelta(seconds=now.seconds_since(recent[0]) - written_s)
    quiet = min(max(lasted, MIN_QUIET), MAX_QUIET)
    written = now.wall - timedelta(seconds=written_s)
    return Contested(now.wall - timedelta(seconds=now.seconds_since(recent[0])), len(recent), file.path,
                     entry is not None, written, written + quiet)
