"""When a correction that somebody else undoes is left alone, and when it is tried again (I8)."""

from __future__ import annotations

import itertools
import stat
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from dockerd_guard.model.instant import Instant
from dockerd_guard.plan.backoff import Contested, contested, corrected, dispute, interrupted, observed, restored
from dockerd_guard.plan.memory import CorrectedFile, digest
from dockerd_guard.plan.plan import Change
from dockerd_guard.rootfs import Content, FileStatus, Link, Rootfs

START = datetime(2026, 3, 1, tzinfo=UTC)
DAY_S = 86400.0
DIRECTORY = "/etc/systemd/system/docker.service.d"
OURS, THEIRS = f"{DIRECTORY}/zz-dockerd-guard.conf", f"{DIRECTORY}/z.conf"

GOOD = Change(OURS, None, b"good")
"""A correction that writes our drop-in."""
ASIDE = (Change(f"{THEIRS}.dockerd-guard-saved", None, b"bad"), Change(f"{DIRECTORY}/zy-z.conf", None, b"bad"),
         Change(THEIRS, b"bad", None))
"""A correction that sets a late drop-in aside: two copies, and the file is gone."""


def at(seconds: float) -> Instant:
    return Instant(START + timedelta(seconds=seconds), "boot", 1000.0 + seconds)


class Disk:
    """Files with the time (seconds since the start) at which the kernel last changed their inode."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[Content, float]] = {}
        self.directory_changed_s = 0.0

    def put(self, path: str, content: Content | None, now_s: float) -> None:
        if content is None:
            self.files.pop(path, None)
            self.directory_changed_s = now_s
        else:
            self.files[path] = content, now_s

    def make(self, changes: tuple[Change, ...], now_s: float) -> None:
        for change in changes:
            self.put(change.path, change.after, now_s)

    def rootfs(self) -> Rootfs:
        return cast(Rootfs, self)

    # What plan/backoff.py reads of a Rootfs.

    def stat(self, path: str, *, follow: bool = True) -> FileStatus | None:
        if path in self.files:
            content, changed_s = self.files[path]
            kind = stat.S_IFLNK if isinstance(content, Link) else stat.S_IFREG
            return FileStatus(path, kind | 0o644, 0, 0, 0, 0, _ns(changed_s))
        if path == DIRECTORY:
            return FileStatus(path, stat.S_IFDIR | 0o755, 0, 0, 0, 0, _ns(self.directory_changed_s))
        return None

    def read(self, path: str) -> bytes:
        content = self.files[path][0]
        assert isinstance(content, bytes)
        return content

    def readlink(self, path: str) -> str:
        content = self.files[path][0]
        assert isinstance(content, Link)
        return content.target


def _ns(seconds: float) -> int:
    return round((START.timestamp() + seconds) * 1e9)


class Agent:
    """What decide() and record() do with the functions of plan/backoff.py."""

    def __init__(self, changes: tuple[Change, ...] = (GOOD,)) -> None:
        self.disk = Disk()
        self.changes = changes
        self.known: Mapping[str, CorrectedFile] = {}
        self.corrections: list[float] = []

    def run_pass(self, now_s: float) -> Contested | None:
        """Correct what is not as it should be, unless that is contested."""
        self.known = observed(at(now_s), self.disk.rootfs(), self.known)
        left = tuple(change for change in self.changes if not self._is_made(change))
        if not left:
            return None
        found = contested(at(now_s), self.disk.rootfs(), left, self.known)
        if found is None:
            self.disk.make(left, now_s)
            self.corrections.append(now_s)
            self.known = corrected(at(now_s), left, self.known)
        return found

    def _is_made(self, change: Change) -> bool:
        content = self.disk.files.get(change.path)
        return (content[0] if content else None) == change.after


# --- wars -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("every_s", "lasting_s"), [(0.2, 300), (1.0, 1800), (60.0, 7200)])
def test_a_program_that_writes_all_the_time_costs_three_corrections(every_s: float, lasting_s: float) -> None:
    agent = Agent()
    for number in range(int(lasting_s / every_s)):
        agent.disk.put(OURS, b"bad", number * every_s)
        agent.run_pass(number * every_s + every_s / 2)
    assert len(agent.corrections) == 3


def test_it_is_corrected_once_the_program_was_quiet_as_long_as_the_dispute_lasted() -> None:
    agent = Agent()
    # Undone first at 1 s, last written at 3600 s.
    for second in range(3601):
        agent.disk.put(OURS, b"bad", second)
        agent.run_pass(second)
    assert agent.corrections == [0, 1, 2]
    assert agent.run_pass(3600 + 3598) is not None
    assert agent.run_pass(3600 + 3599) is None
    assert agent.corrections == [0, 1, 2, 7199]


def test_a_configuration_manager_costs_ever_fewer_corrections() -> None:
    """One that runs every hour and writes only what it does not find."""
    agent = Agent()
    for half_hour in range(2 * 24 * 7):
        now_s = half_hour * 1800.0
        if half_hour % 2 == 0 and agent.disk.files.get(OURS, (b"", 0))[0] != b"bad":
            agent.disk.put(OURS, b"bad", now_s)
        agent.run_pass(now_s)
    hours = [round(seconds / 3600, 1) for seconds in agent.corrections]
    assert hours[:3] == [0.0, 1.0, 2.0]
    assert len(hours) <= 12
    assert all(later - earlier <= 25 for earlier, later in itertools.pairwise(hours[3:]))


@pytest.mark.parametrize("changes", [(GOOD,), ASIDE], ids=["our drop-in", "a late drop-in set aside"])
def test_each_undoing_counts_once_however_often_it_is_observed(changes: tuple[Change, ...]) -> None:
    agent = Agent(changes)
    wrong = changes[-1].before or b"bad"
    for number in range(4):
        agent.disk.put(changes[-1].path, wrong, number)
        for moment in range(5):
            found = agent.run_pass(number + moment / 10)
    assert len(agent.corrections) == 3
    assert found is not None
    assert found.times == 3


def test_different_files_are_never_a_dispute() -> None:
    """Issue 12, "Edits taken for a war"."""
    agent = Agent()
    for number in range(50):
        path = f"{DIRECTORY}/zzz{number}.conf"
        agent.changes = (Change(path, b"bad", None),)
        agent.disk.put(path, b"bad", number)
        assert agent.run_pass(number) is None
    assert len(agent.corrections) == 50


def test_the_same_file_corrected_to_another_state_is_no_dispute() -> None:
    """An administrator edits daemon.json again and again: each correction keeps another text."""
    agent = Agent()
    for number in range(10):
        agent.changes = (Change(OURS, None, f"good {number}".encode()),)
        assert agent.run_pass(number) is None
    assert len(agent.corrections) == 10


def test_a_change_that_was_not_undone_takes_the_others_along() -> None:
    agent = Agent()
    for number in range(5):
        agent.disk.put(OURS, b"bad", number)
        agent.run_pass(number)
    assert len(agent.corrections) == 3
    agent.changes = (GOOD, Change(f"{DIRECTORY}/y.conf", b"bad", None))
    agent.disk.put(f"{DIRECTORY}/y.conf", b"bad", 6)
    assert agent.run_pass(6) is None
    assert len(agent.corrections) == 4


# --- the values -----------------------------------------------------------------------------------


def undone(*seconds: float, path: str = OURS, change: Change = GOOD, made_s: float = 0.0) -> dict[str, CorrectedFile]:
    """A corrected file that was undone at these seconds."""
    return {path: CorrectedFile(path, digest(change.after), at(made_s), tuple(map(at, seconds)), True)}


@pytest.mark.parametrize(("times", "is_contested"), [(0, False), (1, False), (2, False), (3, True), (4, True)])
def test_two_repeats_are_free(times: int, is_contested: bool) -> None:
    disk = Disk()
    disk.put(OURS, b"bad", times)
    found = contested(at(times), disk.rootfs(), (GOOD,), undone(*range(1, times + 1)))
    assert (found is not None) is is_contested


def test_what_is_contested_is_described() -> None:
    disk = Disk()
    disk.put(OURS, b"bad", 50.0)
    found = contested(at(60), disk.rootfs(), (GOOD,), undone(10, 20, 30))
    assert found == Contested(at(10).wall, 3, OURS, True, at(50).wall, at(50).wall + timedelta(minutes=10))
    assert found.verb == "writes"
    del disk.files[OURS]
    disk.directory_changed_s = 40.0
    found = contested(at(60), disk.rootfs(), (GOOD,), undone(10, 20, 30))
    assert found == Contested(at(10).wall, 3, OURS, False, at(40).wall, at(40).wall + timedelta(minutes=10))
    assert found.verb == "removes"


@pytest.mark.parametrize(("undone_s", "written_s", "until_s"), [
    ((10, 20, 30), 30.0, 630.0),                        # the shortest wait
    ((0, 20, 700), 700.0, 1400.0),                      # as long as the dispute
    ((0, 3600, 5 * DAY_S), 5 * DAY_S, 6 * DAY_S),       # a day at most
    ((0, 20, 30), 1000.0, 2000.0),                      # the dispute lasts until the last write
    ((10, 20, 30), 5.0, 630.0),                         # the kernel's time may be older: it was undone at 30 s
])
def test_the_wait(undone_s: tuple[float, ...], written_s: float, until_s: float) -> None:
    disk = Disk()
    disk.put(OURS, b"bad", written_s)
    found = contested(at(max(written_s, undone_s[-1])), disk.rootfs(), (GOOD,), undone(*undone_s))
    assert found is not None
    assert found.until == at(until_s).wall
    almost = contested(at(until_s - 0.5), disk.rootfs(), (GOOD,), undone(*undone_s))
    assert almost is not None
    assert almost.until == at(until_s).wall
    assert contested(at(until_s), disk.rootfs(), (GOOD,), undone(*undone_s)) is None


@pytest.mark.parametrize(("known", "now_s", "is_disputed"), [
    (undone(10, 20, 30), 49.9, True),
    (undone(10, 20, 30), 50.0, False),                  # it was written at 40 s
    (undone(20, 30), 45, False),                        # two are free
    ({OURS: undone(10, 20, 30)[OURS]._replace(is_undone=False)}, 45, False),
    ({OURS: undone(10, 20, 30)[OURS]._replace(because_of="/d/theirs.conf")}, 45, False),
    ({}, 45, False),
])
def test_a_dispute_lasts_until_its_file_is_left_alone(
    known: Mapping[str, CorrectedFile], now_s: float, is_disputed: bool
) -> None:
    disk = Disk()
    disk.put(OURS, b"", 40.0)
    assert (dispute(at(now_s), disk.rootfs(), known, quiet_s=10.0) is not None) is is_disputed


def test_a_file_time_in_the_future_counts_as_now() -> None:
    disk = Disk()
    disk.put(OURS, b"bad", 9 * DAY_S)
    found = contested(at(60), disk.rootfs(), (GOOD,), undone(10, 20, 30))
    assert found is not None
    assert found.until == at(60).wall + timedelta(minutes=10)


def test_without_a_directory_the_undoing_counts() -> None:
    found = contested(at(60), Rootfs("/proc/self/fd"), (Change("/nowhere/a/b.conf", None, b"x"),),
                      undone(10, 20, 30, path="/nowhere/a/b.conf", change=Change("", None, b"x")))
    assert found is not None
    assert (found.until, found.is_there) == (at(30).wall + timedelta(minutes=10), False)


def test_a_file_at_the_top_is_looked_up_in_the_root_directory() -> None:
    class Top(Disk):
        def stat(self, path: str, *, follow: bool = True) -> FileStatus | None:
            return FileStatus(path, stat.S_IFDIR, 0, 0, 0, 0, _ns(45)) if path == "/" else None

    found = contested(at(60), Top().rootfs(), (Change("/b.conf", None, b"x"),),
                      undone(10, 20, 30, path="/b.conf", change=Change("", None, b"x")))
    assert found is not None
    assert found.until == at(45).wall + timedelta(minutes=10)


def test_links_are_looked_at_as_links() -> None:
    class Linked(Disk):
        def stat(self, path: str, *, follow: bool = True) -> FileStatus | None:
            assert not follow or path == DIRECTORY
            return super().stat(path)

    disk = Linked()
    disk.put(OURS, Link("/a"), 50.0)
    found = contested(at(60), disk.rootfs(), (GOOD,), undone(10, 20, 30))
    assert found is not None
    assert found.is_there


def test_the_longest_wait_counts() -> None:
    disk = Disk()
    other = f"{DIRECTORY}/y.conf"
    disk.put(OURS, b"bad", 31)
    disk.put(other, b"bad", 50)
    both = (GOOD, Change(other, None, b"good"))
    known = {**undone(10, 20, 30), **undone(10, 20, 30, path=other)}
    for changes in (both, both[::-1]):
        found = contested(at(60), disk.rootfs(), changes, known)
        assert found is not None
        assert found.file == other


def test_what_one_side_left_alone_is_not_contested() -> None:
    """One file within its free repeats makes all of them be corrected at once."""
    disk = Disk()
    other = f"{DIRECTORY}/y.conf"
    both = (GOOD, Change(other, None, b"good"))
    assert contested(at(60), disk.rootfs(), both, {**undone(10, 20, 30), **undone(30, path=other)}) is None
    assert contested(at(60), disk.rootfs(), both, undone(10, 20, 30)) is None
    assert contested(at(60), disk.rootfs(), (), undone(10, 20, 30)) is None
    never = {OURS: undone(10, 20, 30)[OURS]._replace(undone=())}
    assert contested(at(60), disk.rootfs(), (GOOD,), never) is None


def test_a_change_to_another_state_than_the_one_that_was_undone_is_not_contested() -> None:
    disk = Disk()
    disk.put(OURS, b"bad", 30)
    assert contested(at(60), disk.rootfs(), (GOOD._replace(after=b"better"),), undone(10, 20, 30)) is None
    assert contested(at(60), disk.rootfs(), (GOOD._replace(after=None),), undone(10, 20, 30)) is None


def test_copies_that_go_with_a_change_do_not_count() -> None:
    """A saved original gets a new name each time."""
    disk = Disk()
    disk.put(THEIRS, b"bad", 30)
    known = undone(10, 20, 30, path=THEIRS, change=ASIDE[-1])
    assert contested(at(60), disk.rootfs(), ASIDE, known) is not None


def test_a_week_ends_a_dispute() -> None:
    disk = Disk()
    disk.put(OURS, b"bad", 30)
    week_s = 7 * DAY_S
    now = at(week_s)
    assert contested(now, disk.rootfs(), (GOOD,), undone(0, week_s - 2, week_s - 1)) is None
    assert contested(now, disk.rootfs(), (GOOD,), undone(0.5, week_s - 2, week_s - 1)) is not None
    known = undone(1, made_s=0)
    disk.put(OURS, GOOD.after, 30)
    assert observed(at(week_s - 1), disk.rootfs(), known).keys() == {OURS}
    assert not observed(now, disk.rootfs(), known)


def test_a_wall_clock_that_is_set_changes_nothing_within_a_boot() -> None:
    disk = Disk()
    disk.put(OURS, b"bad", 30)
    for days in (-400, 400):
        now = at(60)._replace(wall=at(60).wall + timedelta(days=days))
        assert contested(now, disk.rootfs(), (GOOD,), undone(10, 20, 30)) is not None


def test_what_others_did_to_a_corrected_file_is_observed() -> None:
    disk = Disk()
    known = corrected(at(0), (GOOD,), {})
    assert known == {OURS: CorrectedFile(OURS, digest(b"good"), at(0))}
    disk.make((GOOD,), 0)
    assert observed(at(1), disk.rootfs(), known) == known
    disk.put(OURS, b"bad", 2)
    known = observed(at(2), disk.rootfs(), known)
    assert known[OURS] == CorrectedFile(OURS, digest(b"good"), at(0), (at(2),), True)
    assert observed(at(3), disk.rootfs(), known) == known
    # Whoever makes it so again and changes it once more has undone one correction.
    disk.make((GOOD,), 4)
    assert observed(at(4), disk.rootfs(), known) == known
    disk.put(OURS, None, 5)
    assert observed(at(5), disk.rootfs(), known) == known
    known = corrected(at(6), (GOOD,), known)
    assert known[OURS] == CorrectedFile(OURS, digest(b"good"), at(6), (at(2),), False)
    assert observed(at(7), disk.rootfs(), known)[OURS].undone == (at(2), at(7))


def test_what_we_undid_ourselves_does_not_count() -> None:
    disk = Disk()
    known = corrected(at(0), (GOOD, *ASIDE), {})
    disk.make((GOOD, *ASIDE), 0)
    disk.put(OURS, None, 1)
    disk.put(THEIRS, b"bad", 1)
    known = observed(at(2), disk.rootfs(), restored({OURS}, known))
    assert (known[OURS].undone, known[OURS].is_undone) == ((), True)
    assert (known[THEIRS].undone, known[THEIRS].is_undone) == ((at(2),), True)
    # It is made again, and somebody else undoes it.
    known = corrected(at(3), (GOOD,), known)
    assert observed(at(4), disk.rootfs(), known)[OURS].undone == (at(4),)


def test_a_corrected_link_is_compared_by_its_target() -> None:
    disk = Disk()
    known = corrected(at(0), (Change(OURS, None, Link("/a")),), {})
    disk.put(OURS, Link("/a"), 0)
    assert not observed(at(1), disk.rootfs(), known)[OURS].is_undone
    disk.put(OURS, Link("/b"), 1)
    assert observed(at(2), disk.rootfs(), known)[OURS].is_undone


def test_a_repeated_correction_keeps_what_was_undone_and_another_one_does_not() -> None:
    known = undone(1, 2)
    again = corrected(at(3), (GOOD,), known)[OURS]
    assert again == CorrectedFile(OURS, digest(b"good"), at(3), (at(1), at(2)), False)
    other = corrected(at(3), (GOOD._replace(after=b"better"),), known)[OURS]
    assert other == CorrectedFile(OURS, digest(b"better"), at(3))


def test_what_was_rolled_back_because_of_another_file_waits_only_together_with_it() -> None:
    """I8. Nobody else has undone it."""
    disk = Disk()
    theirs = Change("/d/theirs.conf", b"open", None)
    known: Mapping[str, CorrectedFile] = {}
    for second in range(3):
        known = observed(at(second + 0.5), disk.rootfs(),
                         corrected(at(second), (GOOD, theirs), known, theirs.path))
        disk.put(theirs.path, b"open", second + 0.2)
        known = observed(at(second + 0.7), disk.rootfs(), known)
    assert len(known[OURS].undone) == len(known[theirs.path].undone) == 3
    assert (known[OURS].because_of, known[theirs.path].because_of) == (theirs.path, "")
    assert contested(at(4), disk.rootfs(), (GOOD, theirs), known) is not None
    assert contested(at(4), disk.rootfs(), (GOOD,), known) is None
    alone = corrected(at(5), (GOOD,), known)[OURS]
    assert alone == CorrectedFile(OURS, digest(b"good"), at(5))


def test_a_file_that_a_correction_left_out_is_undone_once_more() -> None:
    known = {**undone(1, 2), **undone(1, path="/d/other")}
    once = interrupted(at(3), OURS, known)
    assert once == {**known, OURS: CorrectedFile(OURS, digest(b"good"), at(0), (at(1), at(2), at(3)), True)}
    as_left = {OURS: known[OURS]._replace(is_undone=False)}
    assert interrupted(at(3), OURS, as_left)[OURS].is_undone
    assert interrupted(at(3), "/d/unknown", known) == known
    assert len(interrupted(at(200), OURS, undone(*range(100)))[OURS].undone) == 100


def test_the_latest_dispute_is_described() -> None:
    disk = Disk()
    disk.put(OURS, b"", 40.0)
    disk.put("/d/other", b"", 41.0)
    found = dispute(at(45), disk.rootfs(), {**undone(10, 20, 30, path="/d/other"), **undone(10, 20, 30)}, 10.0)
    assert found is not None
    assert found.file == "/d/other"


def test_of_two_disputes_the_foreign_file_is_named() -> None:
    disk = Disk()
    ours, theirs = (f"/d/{name}" for name in ("zz-dockerd-guard.conf", "not-zz-dockerd-guard.conf"))
    for path in (ours, theirs):
        disk.put(path, b"", 40.0)
    changes = tuple(Change(path, None, b"good") for path in (theirs, ours))
    for order in (changes, changes[::-1]):
        found = contested(at(45), disk.rootfs(), order,
                          {**undone(10, 20, 30, path=ours), **undone(10, 20, 30, path=theirs)})
        assert found is not None
        assert found.file == theirs


def test_the_memory_is_bounded() -> None:
    known: Mapping[str, CorrectedFile] = {}
    for number in range(150):
        known = corrected(at(number), (Change(f"/{number}", None, b"x"),), known)
    assert list(known) == [f"/{number}" for number in range(149, 49, -1)]
    disk = Disk()
    disk.put(OURS, b"bad", 0)
    many = {OURS: undone(*range(100))[OURS]._replace(is_undone=False)}
    assert observed(at(200), disk.rootfs(), many)[OURS].undone == (*map(at, range(1, 100)), at(200))
