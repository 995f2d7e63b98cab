"""Nothing outside of `--root` is read, whatever symbolic links it contains and even while they change.

The path of every opened descriptor is checked (/proc/self/fd), and names must be looked up relative to a directory
descriptor. An audit hook detects opens by absolute path, as libraries do.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dockerd_guard import cli
from dockerd_guard.rootfs import MAX_OPEN_DIRECTORIES, Rootfs, Unreadable

SECRET = "tcp://6.6.6.6:6666"
CONTENT = (f"[Service]\nExecStart=/usr/bin/dockerd -H {SECRET}\n[Socket]\nListenStream={SECRET}\n"
           f"OPTIONS='-H {SECRET}'\nPackage: docker.io\nVersion: 6.6.6 {SECRET}\n")
"""Valid as any of FILES. Reading it would change the output."""

UNITS = "/usr/lib/systemd/system"
FILES = {
    f"{UNITS}/docker.service":
        "[Unit]\nRequires=docker.socket\n[Service]\nUser=me\nEnvironment=A=%m%H%o\nEnvironmentFile=-/etc/default/docker\n"
        "EnvironmentFile=-/etc/sysconfig/*\n"
        "ExecStart=/usr/bin/dockerd -H fd:// -H tcp://127.0.0.1:2376 --tlsverify --group x "
        "--tlscert /etc/docker/cert.pem --tlskey /etc/docker/key.pem --tlscacert /etc/docker/ca.pem $OPTIONS\n",
    f"{UNITS}/docker.socket": "[Socket]\nListenStream=/run/docker.sock\n",
    "/etc/systemd/system/docker.service.d/a.conf": "[Service]\nEnvironment=B=1\n",
    "/etc/systemd/system/docker.socket.d/a.conf": "[Socket]\nSocketMode=0666\n",
    "/etc/docker/daemon.json": '{"live-restore": true}', "/etc/docker/cert.pem": "x", "/etc/docker/key.pem": "x",
    "/etc/docker/ca.pem": "x", "/etc/default/docker": "OPTIONS=-D\n", "/etc/sysconfig/docker": "X=1\n",
    "/etc/group": "docker:x:1:\n", "/etc/passwd": "me:x:1:1::/:/bin/sh\n", "/etc/nsswitch.conf": "hosts: files\n",
    "/etc/machine-id": "1\n", "/etc/hostname": "h\n", "/etc/os-release": "ID=debian\n",
    "/etc/systemd/system.conf": "[Manager]\n",
    "/var/lib/dpkg/status": "Package: docker.io\nStatus: install ok installed\nVersion: 26.1.5\n\n",
    "/etc/dockerd-guard/config.yaml": "version: 1\nsockets: [fd://]\n",
}
PLACES = sorted({*FILES, *(parent for path in FILES for parent in map(str, list(Path(path).parents)[:-1]))})
"""Every file that is read, and its parent directories."""

KINDS = ("absolute", "climbing", "chain", "self", "loop", "cwd")

_absolute_opens: list[str] | None = None


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _absolute_opens is not None and isinstance(arguments[0], str) and arguments[0][:1] == "/":
        _absolute_opens.append(arguments[0])


sys.addaudithook(_audit)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root directory with all files that are read. Beside it is `outside` with the same names and CONTENT in each."""
    for base in (tmp_path / "root", tmp_path / "outside"):
        for path, content in FILES.items():
            place = base / path[1:]
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(content if base.name == "root" else CONTENT)
    return tmp_path / "root"


@contextlib.contextmanager
def watched(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Collect accesses outside of the root directory. The working directory is outside of it."""
    global _absolute_opens  # noqa: PLW0603
    strayed: list[str] = []
    real_open, real_stat, real_readlink = os.open, os.stat, os.readlink

    def inside(fd: int) -> None:
        where = real_readlink(f"/proc/self/fd/{fd}")
        # A file that was moved or deleted was inside when it was opened.
        if where != str(root) and not where.startswith((f"{root}/", f"{root}-")):
            strayed.append(where)

    def checked(name: Any, dir_fd: int | None) -> None:
        if dir_fd is None or "/" in name or name == "..":
            strayed.append(f"{name} by {dir_fd}")
        else:
            inside(dir_fd)

    def open_(name: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if name != str(root):
            checked(name, dir_fd)
        fd = real_open(name, flags, mode, dir_fd=dir_fd)
        inside(fd)
        return fd

    def stat(name: Any, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> os.stat_result:
        if isinstance(name, str) and not name.startswith(_PYTHON):
            checked(name, dir_fd)
            if follow_symlinks:
                strayed.append(f"stat({name}) through links")
        return real_stat(name, dir_fd=dir_fd, follow_symlinks=follow_symlinks)

    def readlink(name: Any, *, dir_fd: int | None = None) -> str:
        checked(name, dir_fd)
        return str(real_readlink(name, dir_fd=dir_fd))

    monkeypatch.chdir(root.parent / "outside/etc/docker")
    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(os, "stat", stat)
    monkeypatch.setattr(os, "readlink", readlink)
    _absolute_opens = []
    try:
        yield strayed
    finally:
        strayed += [path for path in _absolute_opens if path != str(root) and not path.startswith(_PYTHON)]
        _absolute_opens = None
        monkeypatch.undo()


_PYTHON = (sys.prefix, sys.base_prefix, str(Path(__file__).parents[2]))
"""Python modules may be imported at any time."""


def run_commands(root: Path) -> str:
    """Return the output of several commands for a root directory."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        for verb, format_ in (("sockets", "json"), ("lint", "text"), ("lint", "sarif"), ("diff", "text")):
            cli.main([verb, "--root", str(root), "--format", format_])
    return out.getvalue()


def replace_by_link(place: Path, kind: str, root: Path) -> None:
    """Replace a file or directory by a link that leads to its counterpart outside if it is followed naively."""
    twin = root.parent / "outside" / place.relative_to(root)
    place.rename(f"{place}.was")
    if kind == "chain":
        (root / "first").symlink_to(str(twin))
        (root / "second").symlink_to("/first")
        place.symlink_to("/second")
    elif kind == "loop":
        place.symlink_to(f"{place.name}.again")
        Path(f"{place}.again").symlink_to(place.name)
    else:
        place.symlink_to({"absolute": str(twin), "climbing": "../" * 40 + str(twin)[1:],
                          "self": f"/proc/self/root{twin}", "cwd": f"/proc/self/cwd/{twin.name}"}[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_links_do_not_lead_outside(kind: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file and each directory is replaced in turn."""
    for place in PLACES:
        replace_by_link(root / place[1:], kind, root)
        with watched(root, monkeypatch) as strayed:
            output = run_commands(root)
        assert (strayed, SECRET in output) == ([], False), place
        (root / place[1:]).unlink()
        Path(f"{root / place[1:]}.was").rename(root / place[1:])
        for extra in ("first", "second"):
            (root / extra).unlink(missing_ok=True)


def test_only_the_root_is_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with watched(root, monkeypatch) as strayed:
        output = run_commands(root)
    assert strayed == []
    assert "tcp://127.0.0.1:2376" in output


@pytest.mark.parametrize("swapped", [
    "etc", "etc/docker", "etc/docker/daemon.json", "etc/systemd/system/docker.service.d",
])
def test_links_swapped_in_do_not_lead_outside(
    swapped: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = root / swapped
    away, link = Path(f"{place}.was"), Path(f"{place}.link")
    link.symlink_to("../" * 40 + str(root.parent / "outside" / swapped)[1:])
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            place.rename(away)
            link.rename(place)
            place.rename(link)
            away.rename(place)

    thread = threading.Thread(target=swap)
    with watched(root, monkeypatch) as strayed:
        thread.start()
        try:
            outputs = [run_commands(root) for _ in range(30)]
        finally:
            stop.set()
            thread.join()
    assert strayed == []
    assert not any(SECRET in each for each in outputs)


def test_vanished_directory_is_not_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """os.open(NAME, dir_fd=None) would open NAME there."""
    (tmp_path / "root/etc").mkdir(parents=True)
    (tmp_path / "root/etc/x").write_text("inside")
    (tmp_path / "x").write_text("outside")
    monkeypatch.chdir(tmp_path)
    with Rootfs(str(tmp_path / "root")) as rootfs:
        assert rootfs.stat("/etc/x") is not None
        rootfs._directories.pop("/etc")
        (tmp_path / "root/etc").rename(tmp_path / "gone")
        with pytest.raises(Unreadable, match="No such file"):
            rootfs.read("/etc/x")


def test_open_directories_are_limited(tmp_path: Path) -> None:
    """A process may have 1024 files open by default."""
    for number in range(3 * MAX_OPEN_DIRECTORIES):
        (tmp_path / f"{number}/a").mkdir(parents=True)
        (tmp_path / f"{number}/a/b").write_text(str(number))
    with Rootfs(str(tmp_path)) as rootfs:
        before = len(os.listdir("/proc/self/fd"))
        for number in range(3 * MAX_OPEN_DIRECTORIES):
            assert rootfs.names(f"/{number}/a") == ("b",)
        assert len(os.listdir("/proc/self/fd")) <= before + MAX_OPEN_DIRECTORIES
        assert rootfs.read("/0/a/b") == b"0"


def test_path_of_maximum_depth(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(2000):
        os.mkdir("a", dir_fd=fd)
        below = os.open("a", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    with open("b", "wb", opener=lambda name, flags: os.open(name, flags, dir_fd=fd)) as file:
        file.write(b"deep")
    os.close(fd)
    with Rootfs(str(tmp_path)) as rootfs:
        deep = "/a" * 2000 + "/b"
        assert rootfs.read(deep) == b"deep"
        rootfs._directories = {"": rootfs._directories[""]}
        rootfs._contents.clear()
        assert rootfs.read(deep) == b"deep"
        assert rootfs.stat("/a" * 3000) is None
    subprocess.run(["rm", "-r", str(tmp_path / "a")], check=True)  # too deep for shutil.rmtree


def test_closed_rootfs_raises(tmp_path: Path) -> None:
    """The descriptors are closed."""
    with Rootfs(str(tmp_path)) as rootfs:
        pass
    with pytest.raises(KeyError):
        rootfs.stat("/etc/docker/daemon.json")
