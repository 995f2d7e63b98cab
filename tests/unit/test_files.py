"""Writing so that a power cut leaves each file old or new: the order of the system calls, as recorded."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dockerd_guard.apply import files
from dockerd_guard.rootfs import Access

OWNER = (os.geteuid(), os.getegid())


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done to the disk from here on, names of temporary files as `temporary`."""
    done: list[str] = []

    def name_of(path: int | str, directory: int | None) -> str:
        full = os.readlink(f"/proc/self/fd/{path if isinstance(path, int) else directory}")
        name = full if isinstance(path, int) else f"{full}/{path}"
        last = os.path.basename(name)
        return "temporary" if last.startswith(files.TEMPORARY_PREFIX) else last

    def recorded(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(path: Any, *rest: Any, **named: Any) -> Any:
            directory = named.get("dir_fd", named.get("src_dir_fd"))
            if directory is None and not isinstance(path, int):
                return real(path, *rest, **named)
            if name != "open" or rest[0] & os.O_CREAT:
                target = f" {rest[0]}" if name == "replace" else ""
                done.append(f"{name} {name_of(path, directory)}{target}")
            return real(path, *rest, **named)
        return call

    for name in ("open", "mkdir", "fchmod", "fsync", "replace", "unlink", "rmdir"):
        monkeypatch.setattr(os, name, recorded(name))
    return done


def test_a_file_is_on_the_disk_before_its_name_and_its_name_before_anything_else(
        tmp_path: Path, calls: list[str]) -> None:
    files.write(f"{tmp_path}/new.d/file.conf", b"x", Access(*OWNER, 0o640))
    assert calls == [
        "mkdir new.d", f"fsync {tmp_path.name}", "fchmod new.d",
        "open temporary", "fchmod temporary", "fsync temporary", "replace temporary file.conf", "fsync new.d",
    ]
    assert stat.S_IMODE((tmp_path / "new.d/file.conf").stat().st_mode) == 0o640


def test_a_removal_is_on_the_disk_before_anything_else(tmp_path: Path, calls: list[str]) -> None:
    (tmp_path / "unit.d").mkdir()
    (tmp_path / "unit.d/file.conf").write_bytes(b"x")
    files.remove(f"{tmp_path}/unit.d/file.conf")
    assert calls == ["unlink file.conf", "fsync unit.d", "rmdir unit.d", f"fsync {tmp_path.name}"]
    calls.clear()
    files.remove(f"{tmp_path}/unit.d/file.conf")
    assert calls == ["rmdir unit.d"], "it may be a directory that was made for a file that never came"


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file.conf").write_bytes(b"old")

    def no_room(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(OSError, match="No space left"):
        files.write(f"{tmp_path}/file.conf", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file.conf"]
    assert (tmp_path / "file.conf").read_bytes() == b"old"
