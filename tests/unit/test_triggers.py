"""What wakes the agent: which changes of files do and which do not, and what is said where the kernel gives up."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dockerd_guard.agent.triggers import Files, wait

pytestmark = pytest.mark.libraries

CONF = "docker.service.d/override.conf"
MAX_QUEUED_EVENTS = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())


def replaced(root: Path) -> None:
    (root / "new").write_text("3")
    (root / "new").rename(root / CONF)


def recreated(root: Path) -> None:
    (root / CONF).unlink()
    (root / CONF).parent.rmdir()
    (root / CONF).parent.mkdir()


def masked(root: Path) -> None:
    (root / CONF).unlink()
    (root / CONF).symlink_to("/dev/null")


def renamed_to_and_fro(root: Path) -> None:
    (root / "absent").rename(root / "b")
    (root / "b").rename(root / "absent")


CHANGES: dict[str, tuple[bool, Callable[[Path], object]]] = {
    "content": (True, lambda root: (root / CONF).write_text("2")),
    "mode": (True, lambda root: (root / CONF).chmod(0o600)),
    "deleted": (True, lambda root: (root / CONF).unlink()),
    "renamed": (True, lambda root: (root / CONF).rename(root / "elsewhere")),
    "replaced by a rename": (True, replaced),
    "a link instead": (True, masked),
    "another file in a listed directory": (True, lambda root: (root / "docker.service.d/x.conf").touch()),
    "a directory made anew": (True, recreated),
    "a directory renamed": (True, lambda root: (root / "docker.service.d").rename(root / "away")),
    "a first file where no directory was": (True, lambda root: (root / "absent").mkdir()),
    "read": (False, lambda root: (root / CONF).read_text()),
    "a neighbour in a directory that was not listed": (False, lambda root: (root / "neighbour").touch()),
    "a scope in a listed directory": (False, lambda root: (root / "docker.service.d/a.scope").touch()),
}


def watching(root: Path) -> Files:
    (root / CONF).parent.mkdir()
    (root / CONF).write_text("1")
    files = Files()
    look(files, root)
    return files


def look(files: Files, root: Path) -> tuple[bool, tuple[str, ...]]:
    """What a pass makes of that tree."""
    directory = (root / CONF).parent
    return files.watch((str(directory), str(root / CONF), f"{root}/absent", f"{root}/absent/x.conf"),
                       (str(directory), f"{root}/absent"))


@pytest.mark.parametrize("name", CHANGES)
def test_what_asks_for_a_look(tmp_path: Path, name: str) -> None:
    asks, change = CHANGES[name]
    files = watching(tmp_path)
    assert files.changes() == (False, "")
    change(tmp_path)
    assert files.changes() == (asks, "")
    files.close()


def test_a_directory_that_is_new_asks_for_another_look(tmp_path: Path) -> None:
    files = Files()
    (tmp_path / CONF).parent.mkdir()
    assert look(files, tmp_path) == (True, ())
    assert look(files, tmp_path) == (False, ())
    (tmp_path / "absent").mkdir()
    assert look(files, tmp_path) == (True, ())
    files.changes()
    for change in (recreated, renamed_to_and_fro):
        (tmp_path / CONF).touch()
        change(tmp_path)
        assert files.changes() == (True, "")
        assert look(files, tmp_path) == (True, ()), "what happened in it before is not known"
        (tmp_path / "absent/x.conf").touch()
        assert files.changes() == (True, "")
        (tmp_path / "absent/x.conf").unlink()
        files.changes()
        assert look(files, tmp_path) == (False, ())


def test_a_directory_made_anew_is_no_mount_though_somebody_has_the_old_one_open_still(tmp_path: Path) -> None:
    files = watching(tmp_path)
    still_open = os.open((tmp_path / CONF).parent, os.O_RDONLY)
    recreated(tmp_path)
    assert files.changes() == (True, "")
    assert look(files, tmp_path) == (True, ())
    os.close(still_open)
    assert look(files, tmp_path) == (False, ())
    (tmp_path / CONF).touch()
    assert files.changes() == (True, "")
    files.close()


def test_a_queue_that_overflowed_is_said_once(tmp_path: Path) -> None:
    files = watching(tmp_path)
    for number in range(MAX_QUEUED_EVENTS // 2 + 10):
        # Each touch is two events that the kernel does not merge.
        os.close(os.open(tmp_path / f"neighbour{number % 2}", os.O_CREAT | os.O_WRONLY))
        os.utime(tmp_path / f"neighbour{number % 2}")
    relevant, missed = files.changes()
    assert relevant
    assert "queue overflowed" in missed
    (tmp_path / CONF).touch()
    assert files.changes() == (True, "")


LIMITED = """
import os, sys
from dockerd_guard.agent.triggers import Files
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
print(descriptors() - before <= (limit == "watches"))
limited_to(4)
print(look())
open(f"{root}/3/x", "w").close()
print(files.changes())
"""


@pytest.mark.parametrize("limit", ["watches", "instances"])
def test_a_limit_of_the_kernel_is_named_costs_nobody_a_descriptor_and_heals(tmp_path: Path, limit: str) -> None:
    """In a user namespace, whose limits are its own."""
    enter = ["unshare", "--user", "--map-root-user"]
    if subprocess.run([*enter, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no user namespaces here")
    told = subprocess.run([*enter, sys.executable, "-c", LIMITED, str(tmp_path), limit],
                          check=True, capture_output=True, text=True).stdout.splitlines()
    refused = (f"(False, ('{tmp_path}/0 cannot be watched: the limit fs.inotify.max_user_{limit} is reached "
               "(and others)',))")
    assert told == [refused] * 5 + ["True", "(True, ())", "(True, '')"]


def test_waiting_ends_at_what_is_readable() -> None:
    read, write = os.pipe()
    assert wait((read,), 0) == set()
    os.write(write, b"x")
    assert wait((read,), 10) == {read}
    os.close(read)
    os.close(write)
