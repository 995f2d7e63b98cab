"""What wakes the agent: which changes of files do and which do not, and what is reported where events fail.

The tables are files (TARGETS) and what is done to them (CHANGES). Each change wakes the loop, and so does
the next one to the same file, whatever the first did to its directory.
"""

from __future__ import annotations

import mmap
import os
import select
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from watchdog.observers.api import BaseObserver, EventEmitter

from dockerd_guard.agent import triggers, watched
from dockerd_guard.agent.triggers import Files, wait
from dockerd_guard.rootfs import Rootfs

pytestmark = pytest.mark.libraries

WOKEN_S = 10.0
"""Much more than it takes on a loaded host."""

QUIET_S = 0.03
HELD_S = 0.7
"""watchdog holds an event for 0.5 s where a file has left the watched directories."""

TARGETS = {
    "in a stable directory": "etc/systemd/system/docker.service.d/override.conf",
    "in a directory of its own": "opt/env/docker.env",
    "behind a linked directory": "opt/link/docker.env",
    "not there": "etc/systemd/system/docker.service.d/absent.conf",
    "not there, nor its directory": "etc/systemd/system/docker.socket.d/absent.conf",
}


class Host:
    """Some files under a root, and what watches them as a pass of the agent would."""

    def __init__(self, root: Path, target: str = "in a stable directory") -> None:
        self.outside = root / "outside"
        for directory in ("outside", "etc/systemd/system/docker.service.d", "opt/env"):
            (root / directory).mkdir(parents=True)
        for existing in list(TARGETS.values())[:2]:
            (root / existing).write_text("1")
        (root / "opt/link").symlink_to("env")
        self.fence = root / "etc/systemd/system.conf"
        self.fence.touch()
        self.path = root / TARGETS[target]
        self.units = root / "etc/systemd/system"
        self.files = Files(stable=(f"{root}/etc/systemd",))
        self.settle()

    def look(self) -> tuple[bool, tuple[str, ...]]:
        with Rootfs() as rootfs:
            if self.path.is_relative_to(self.units):
                for directory in (self.units, self.path.parent):
                    rootfs.names(str(directory))
            rootfs.stat(str(self.path))
            rootfs.stat(str(self.fence))
            return self.files.watch(rootfs.consulted, rootfs.listed)

    def settle(self, quiet_s: float = QUIET_S) -> None:
        """Look until nothing asks for another look."""
        while self.look()[0] or wait((self.files.fileno(),), quiet_s):
            self.files.changes()

    def is_woken(self) -> bool:
        return bool(wait((self.files.fileno(),), WOKEN_S)) and self.files.changes()


def until(is_so: Callable[[], bool]) -> None:
    """Wait until this is so, at most WOKEN_S."""
    deadline = time.monotonic() + WOKEN_S
    while not is_so():
        assert time.monotonic() < deadline, "not so in time"
        time.sleep(0.01)


@pytest.fixture
def target() -> str:
    return "in a stable directory"


@pytest.fixture
def host(tmp_path: Path, target: str) -> Iterator[Host]:
    host = Host(tmp_path.resolve(), target)
    yield host
    host.files.close()


def replace(host: Host) -> None:
    (host.path.parent / "x.tmp").write_text("3")
    (host.path.parent / "x.tmp").rename(host.path)


def replace_from_outside(host: Host) -> None:
    (host.outside / "new").write_text("3")
    (host.outside / "new").rename(host.path)


def replace_by_link(host: Host) -> None:
    host.path.unlink()
    host.path.symlink_to("/dev/null")


def recreate_directory(host: Host) -> None:
    shutil.rmtree(host.path.parent.resolve())
    host.path.parent.resolve().mkdir()


def rename_directory_and_back(host: Host) -> None:
    directory = host.path.parent.resolve()
    directory.rename(directory.with_name("b"))
    directory.with_name("b").rename(directory)


def move_directory_out_and_back(host: Host) -> None:
    directory = host.path.parent.resolve()
    directory.rename(host.outside / "b")
    (host.outside / "b").rename(directory)


def exchange_directory(host: Host) -> None:
    directory = host.path.parent.resolve()
    (host.outside / "b").mkdir()
    (host.outside / "b" / host.path.name).write_text("3")
    directory.rename(host.outside / "a")
    (host.outside / "b").rename(directory)


def move_directory_in(host: Host) -> None:
    (host.outside / "b").mkdir()
    (host.outside / "b" / host.path.name).write_text("3")
    (host.outside / "b").rename(host.path.parent)


def make_both(host: Host) -> None:
    host.path.parent.mkdir()
    host.path.write_text("1")


def retarget(host: Host) -> None:
    (host.outside / host.path.name).write_text("3")
    link = host.path.parent
    link.unlink()
    link.symlink_to(host.outside)


Change = Callable[[Host], object]

OF_A_FILE: dict[str, Change] = {
    "content": lambda host: host.path.write_text("2"),
    "touch": lambda host: host.path.touch(),
    "chmod": lambda host: host.path.chmod(0o600),
    "delete": lambda host: host.path.unlink(),
    "rename": lambda host: host.path.rename(host.path.with_suffix(".off")),
    "move out": lambda host: host.path.rename(host.outside / "x"),
    "replace by rename": replace,
    "replace from outside": replace_from_outside,
    "replace by a link": replace_by_link,
    "delete and make the directory": recreate_directory,
    "rename the directory": lambda host: host.path.parent.resolve().rename(host.path.parent.resolve().with_name("b")),
    "rename the directory and back": rename_directory_and_back,
    "move the directory out": lambda host: host.path.parent.resolve().rename(host.outside / "b"),
    "move the directory out and back": move_directory_out_and_back,
    "exchange the directory": exchange_directory,
}

CHANGES: dict[str, dict[str, Change]] = {
    "in a stable directory": {
        **OF_A_FILE, "another file in a listed directory": lambda host: (host.path.parent / "x.conf").touch()},
    "in a directory of its own": OF_A_FILE,
    "behind a linked directory": {
        **OF_A_FILE,
        "retarget the link": retarget,
        "delete the link": lambda host: host.path.parent.unlink(),
        "rename the link": lambda host: host.path.parent.rename(host.path.parent.with_name("b")),
    },
    "not there": {
        "make": lambda host: host.path.write_text("1"),
        "link": lambda host: host.path.symlink_to("/dev/null"),
        "move in": replace_from_outside,
        "delete and make the directory": recreate_directory,
        "rename the directory and back": rename_directory_and_back,
    },
    "not there, nor its directory": {
        "make the directory": lambda host: host.path.parent.mkdir(),
        "make both": make_both,
        "move the directory in": move_directory_in,
        "link the directory": lambda host: host.path.parent.symlink_to(host.outside),
    },
}


@pytest.mark.parametrize(("target", "change"), [(target, name) for target, names in CHANGES.items() for name in names])
def test_each_change_wakes_and_so_does_the_next(host: Host, target: str, change: str) -> None:
    CHANGES[target][change](host)
    assert host.is_woken()
    host.settle(HELD_S if "move" in change or "exchange" in change else QUIET_S)
    if not host.path.parent.exists():
        host.path.parent.resolve().mkdir()
        assert host.is_woken(), "a directory made afterwards"
        host.settle()
    for content in ("first", "second"):
        host.path.unlink(missing_ok=True)
        host.path.write_text(content)
        assert host.is_woken(), f"the {content} file afterwards"
        host.settle()
        host.path.chmod(0o640)
        assert host.is_woken(), f"the {content} file's mode afterwards"
        host.settle()
    assert host.look() == (False, ())


@pytest.mark.parametrize("change", [
    lambda host: host.path.read_text(),
    lambda host: os.listdir(host.path.parent),
    lambda host: (host.units.parent / "neighbour").touch(),
    lambda host: (host.units / "docker-1.scope").write_text("[Scope]"),
    lambda host: (host.units / "docker-1.scope").mkdir(),
], ids=["read", "list", "a neighbour in a directory that is not listed", "a scope in a listed directory",
        "a directory that is no unit"])
def test_what_does_not_wake(host: Host, change: Change) -> None:
    change(host)
    # One event of the same watch, which watchdog delivers after those above.
    host.fence.chmod(0o600)
    until(lambda: str(host.fence) in host.files._handler.announced)
    # The event is noted before the loop is woken.
    assert select.select([host.files.fileno()], [], [], WOKEN_S)[0]
    assert os.read(host.files.fileno(), 100) == b"\0"


def test_a_directory_made_again_asks_for_another_look(host: Host) -> None:
    recreate_directory(host)
    # What happened in it before it was watched is unknown.
    until(lambda: host.look()[0])


def test_a_change_without_an_event_is_reported_once(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """inotify(7): a write through mmap(2) sends none."""
    with host.path.open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), 1)
    host.settle()
    monkeypatch.setattr(watched, "GRACE_S", 0.2)
    mapped[0] = ord("2")
    mapped.flush()
    assert host.look() == (False, ()), "its event may be on its way"
    assert host.files.confirm_s is not None
    until(lambda: host.files.confirm_s == 0)
    assert host.look() == (True, (f"missed change: {host.path} changed but no file event arrived",))
    assert host.look() == (False, ())
    assert host.files.confirm_s is None
    mapped.close()


def test_an_event_that_is_late_is_not_missed(host: Host) -> None:
    host.path.rename(host.outside / "x")
    assert host.look() == (False, ())
    assert host.files.confirm_s is not None
    assert host.is_woken(), "0.5 s later"
    while host.files.confirm_s is not None:
        assert host.look() == (False, ())


def fail_in_handler(host: Host) -> None:
    host.files._handler.on_any_event(object())  # type: ignore[arg-type]


def fail_in_observer(_: Host) -> None:
    for thread in threading.enumerate():
        if isinstance(thread, BaseObserver):
            thread.event_queue.put("no event")


@pytest.mark.parametrize("fail", [fail_in_handler, fail_in_observer])
def test_a_thread_that_failed_is_reported_and_replaced(host: Host, fail: Change) -> None:
    fail(host)
    assert host.is_woken()
    is_new, (trouble,) = host.look()
    assert is_new
    assert trouble.startswith("watching files failed (")
    assert host.look() == (False, ())
    host.path.write_text("2")
    assert host.is_woken()


def test_a_watch_that_ended_is_renewed(host: Host) -> None:
    for thread in threading.enumerate():
        if isinstance(thread, EventEmitter):
            thread.stop()
            thread.join()
    assert host.look() == (True, ())
    host.path.write_text("2")
    assert host.is_woken()


def test_renewed_watches_leave_no_thread_and_no_descriptor(host: Host) -> None:
    def used() -> tuple[int, int]:
        return threading.active_count(), len(os.listdir("/proc/self/fd"))

    before = used()
    for _ in range(10):
        recreate_directory(host)
        assert host.is_woken()
        host.settle()
    until(lambda: used() == before)


LIMITED = """
import os, sys
from dockerd_guard.agent.triggers import Files, wait
root, limit = sys.argv[1:]
def limited_to(number):
    with open(f"/proc/sys/user/max_inotify_{limit}", "w") as file:
        file.write(str(number))
descriptors = lambda: len(os.listdir("/proc/self/fd"))
files = Files()
for number in range(4):
    os.mkdir(f"{root}/{number}")
look = lambda: files.watch((), [f"{root}/{number}" for number in range(4)])
before = descriptors()
limited_to(0)
for _ in range(5):
    print(look())
print(descriptors() - before <= 3)
limited_to(4)
print(look())
open(f"{root}/3/x", "w").close()
print(wait((files.fileno(),), 10) != set())
"""


@pytest.mark.parametrize("limit", ["watches", "instances"])
def test_a_limit_of_the_kernel_is_named_costs_no_descriptor_and_heals(tmp_path: Path, limit: str) -> None:
    """In a user namespace, whose limits are its own."""
    enter = ["unshare", "--user", "--map-root-user"]
    if subprocess.run([*enter, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no user namespaces here")
    printed = subprocess.run([*enter, sys.executable, "-c", LIMITED, str(tmp_path), limit],
                             check=True, capture_output=True, text=True).stdout.splitlines()
    refused = (f"(False, ('{tmp_path}/0 cannot be watched: the limit fs.inotify.max_user_{limit} is reached "
               "(and others)',))")
    assert printed == [refused] * 5 + ["True", "(True, ())", "True"]


def test_waiting_ends_at_what_is_readable() -> None:
    read, write = os.pipe()
    assert wait((read,), 0) == set()
    os.write(write, b"x")
    assert wait((read,), 10) == {read}
    os.close(read)
    os.close(write)


def test_the_number_of_watches_is_limited_and_stable_directories_come_first(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triggers, "MAX_WATCHES", 2)
    paths = [tmp_path.resolve() / name / "file" for name in ("a", "b", "c", "stable")]
    for path in paths:
        path.parent.mkdir()
    files = Files(stable=(str(paths[-1].parent),))
    try:
        refused = (f"{paths[1].parent} cannot be watched: 2 other directories are (and others)",)
        assert files.watch(map(str, paths), ()) == (True, refused)
        assert files.watch(map(str, paths), ()) == (False, refused)
        paths[-1].touch()
        assert wait((files.fileno(),), WOKEN_S)
        assert files.watch([str(paths[1])], ()) == (True, ())
    finally:
        files.close()
