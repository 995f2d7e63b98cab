"""Which directories are watched, and which changes no file event announced: values only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dockerd_guard.agent.watched import (
    GRACE_S,
    STABLE,
    Unannounced,
    directories,
    identities,
    identity,
    listable,
    watchable,
)
from dockerd_guard.systemd.lookup import SEARCH_PATH

OLD, NEW = (1,), (2,)
DAEMON_JSON = "/etc/docker/daemon.json"


def compare(*, announced: str = "", moved: str = "", path: str = DAEMON_JSON, again: str = "",
            after_s: float = GRACE_S) -> tuple[str, ...]:
    """What counts as missed after a look that finds a change, and a second one that finds nothing new."""
    unannounced = Unannounced()
    first = unannounced.compare({path: OLD}, {path: NEW}, {announced}, {moved}, 100)
    second = unannounced.compare({path: NEW}, {path: NEW}, {again}, set(), 100 + after_s)
    assert first == ()
    assert unannounced.compare({path: NEW}, {path: NEW}, set(), set(), 100 + after_s) == (), "reported twice"
    return second


def test_a_change_that_no_event_names_is_missed() -> None:
    assert compare() == (DAEMON_JSON,)


def test_a_change_that_an_event_names_is_not_missed() -> None:
    assert compare(announced=DAEMON_JSON) == ()
    assert compare(again=DAEMON_JSON) == (), "the event came after the look"


def test_a_directory_that_moved_announces_what_is_in_it_and_a_changed_one_does_not() -> None:
    assert compare(moved="/etc/docker") == ()
    assert compare(announced="/etc/docker") == (DAEMON_JSON,)


def test_an_event_has_time_to_come() -> None:
    assert compare(after_s=GRACE_S - 0.1) == ()


def test_paths_that_one_look_does_not_consult_are_not_compared() -> None:
    unannounced = Unannounced()
    for before, now in (({}, {DAEMON_JSON: NEW}), ({DAEMON_JSON: OLD}, {})):
        unannounced.compare(before, now, set(), set(), 100)
        assert unannounced.due_at is None


@pytest.mark.parametrize(("is_listed", "is_replaced"), [
    ((False, True), False), ((True, False), False), ((False, False), False), ((True, True), False),
    ((False, True), True), ((True, False), True),
])
def test_a_directory_that_one_look_lists_and_another_does_not_has_not_changed_for_that(
    tmp_path: Path, is_listed: tuple[bool, bool], is_replaced: bool
) -> None:
    """As /usr/lib, while systemd cannot be asked for its version (`systemctl daemon-reexec`)."""
    path, looks = tmp_path / "lib", []
    missed: list[str] = []
    path.mkdir()
    for each in is_listed:
        looks.append(identities([str(path)], [str(path)] if each else []))
        if is_replaced and len(looks) == 1:
            path.rename(tmp_path / "before")
            path.mkdir()
    unannounced = Unannounced()
    for at, (before, now) in enumerate(((looks[0], looks[1]), (looks[1], looks[1]))):
        missed += unannounced.compare(before, now, set(), set(), at * GRACE_S)
    assert missed == [str(path)] * is_replaced


def test_the_oldest_doubt_is_due_first() -> None:
    unannounced = Unannounced()
    unannounced.compare({"/a": OLD, "/b": OLD}, {"/a": NEW, "/b": OLD}, set(), set(), 100)
    unannounced.compare({"/a": NEW, "/b": OLD}, {"/a": NEW, "/b": NEW}, set(), set(), 101)
    assert unannounced.due_at == 100 + GRACE_S
    unannounced.clear()
    assert unannounced.due_at is None


def test_what_makes_a_path_another_one(tmp_path: Path) -> None:
    file, directory = tmp_path / "d/file", tmp_path / "d"
    directory.mkdir()
    file.write_text("1")
    file.write_text("1")

    def changed_by(change: Callable[[], object], *listed: Path) -> set[str]:
        paths = (str(file), str(directory))
        before = identities(paths, [str(path) for path in listed])
        change()
        now = identities(paths, [str(path) for path in listed])
        return {Path(path).name for path in now if now[path] != before[path]}

    assert changed_by(lambda: file.write_text("22")) == {"file"}
    assert changed_by(lambda: file.chmod(0o600)) == {"file"}
    assert changed_by(lambda: (tmp_path / "link").hardlink_to(file)) == set(), "no directory of ours gets an event"
    assert changed_by((directory / "neighbour").touch) == set()
    assert changed_by((directory / "neighbour").unlink, directory) == {"d"}
    assert changed_by(lambda: file.rename(tmp_path / "away"), directory) == {"d", "file"}
    assert identity(str(file)) == ()


@pytest.mark.parametrize(("path", "expected"), [
    ("etc/systemd/system/docker.service.d/x.conf", "etc/systemd"),
    ("etc/systemd", "etc"),
    ("etc/docker/certs/ca.pem", "etc/docker"),
    ("etc/docker-other/daemon.json", "etc"),
    ("opt/env/docker.env", "opt/env"),
    ("opt/link/docker.env", "opt"),
    ("opt/absent/docker.env", "opt"),
])
def test_a_path_is_watched_through_a_stable_parent_or_the_nearest_directory(
        tmp_path: Path, path: str, expected: str) -> None:
    for directory in ("etc/systemd/system", "etc/docker", "opt/env"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "opt/link").symlink_to("env")
    stable = [f"{tmp_path}{directory}" for directory in STABLE]
    assert directories([f"{tmp_path}/{path}"], (), stable) == {f"{tmp_path}/{expected}"}


def test_a_listed_directory_is_watched_itself(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    assert directories((), (str(tmp_path / "d"), str(tmp_path / "absent"))) == {str(tmp_path / "d")}


def test_what_every_host_has_costs_no_watch() -> None:
    assert directories(("/", "/usr", "/usr/bin", "/usr/lib/systemd", "/var/lib/dpkg"), ()) == set()
    assert directories(("/usr/bin/dockerd",), ()) == {"/usr/bin"}


def test_kernel_file_systems_are_not_watched() -> None:
    assert watchable(("/dev", "/dev/null", "/proc/1/stat", "/sys/fs", "/device")) == {"/device"}


@pytest.mark.parametrize(("directory", "name"), [
    ("/run/systemd/generator", "docker.service.d"), ("/run/systemd/generator.late", "docker.service"),
    ("/var/lib/dpkg/info", "docker.io.md5sums")])
def test_a_directory_that_changes_with_another_path_is_watched_from_outside(directory: str, name: str) -> None:
    paths = (directory, f"{directory}/{name}", f"{directory}x")
    assert watchable(paths) == {directory, f"{directory}x"}
    assert listable(paths) == {f"{directory}x"}


def test_no_stable_directory_holds_more_than_units_and_settings() -> None:
    """A recursive watch costs one kernel watch for each directory below."""
    assert all(path.count("/") >= 2 for path in STABLE)
    assert not {"/etc", "/usr", "/usr/lib", "/run", "/run/systemd"} & {*STABLE}
    assert all(path in SEARCH_PATH or path.startswith("/etc/") or path.endswith("lib/systemd") for path in STABLE)
