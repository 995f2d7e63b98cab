"""Regressions that the differential test (tests/differential) has found, each reduced to a minimal case.

A case has a name, the files added to a plain docker.service and docker.socket, the result of the real systemd and
dockerd, and the releases it applies to. The comment above it names the source of the behaviour.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from dockerd_guard.observe.configured import observe_configured
from dockerd_guard.observe.observation import Layer
from dockerd_guard.rootfs import Rootfs
from dockerd_guard.systemd.sockets import parse_address
from tests.differential.compare import Facts, skeleton
from tests.support.regression_cases import ALL, CASES, DROP_IN, TRIXIE, UNKNOWN, Case, layout


def configured(files: dict[str, bytes | str | None], release: tuple[int, str], root: Path) -> Layer:
    """Return the configured layer of the plain files and these files."""
    skeleton(root, Facts(release[0], release[1], {}))
    layout(files).write(root)
    with Rootfs(str(root)) as rootfs:
        return observe_configured(rootfs).layer


@pytest.mark.parametrize("release", ALL, ids=["bookworm", "trixie", "sid"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case: Case, release: tuple[int, str], tmp_path: Path) -> None:
    if release not in case.releases:
        return
    layer = configured(case.files, release, tmp_path)
    if layer.refused_by is None:
        assert tuple(sorted(binding.address for binding in layer.bindings)) == case.expected
    else:
        by, reason = case.expected[0], case.expected[-1]
        assert layer.refused_by == by and reason in (layer.reason or ""), layer


@pytest.mark.parametrize(("files", "reason"), [row[1:] for row in UNKNOWN], ids=[row[0] for row in UNKNOWN])
def test_unknown_from_files(files: dict[str, bytes | str | None], reason: str, tmp_path: Path) -> None:
    """Such a layer starts, and `reason` describes what is unknown."""
    layer = configured(files, TRIXIE, tmp_path)
    assert layer.starts and reason in (layer.reason or ""), layer


@pytest.mark.parametrize("name", ["HOME", "SHELL"])
def test_empty_home_and_nologin_shell_are_not_set(name: str, tmp_path: Path) -> None:
    """empty_or_root() in src/basic/path-util.h, is_nologin_shell() in src/basic/user-util.c."""
    layer = configured({
        "/etc/passwd": b"x:x:7:7::/:/usr/sbin/nologin\n",
        DROP_IN: f"[Service]\nUser=x\nExecStart=\nExecStart=/usr/bin/dockerd -H unix:///x.sock ${name}\n".encode(),
    }, TRIXIE, tmp_path)
    assert layer.starts and layer.argv[1:] == ("-H", "unix:///x.sock")


VSOCK = (
    # vsock_parse_cid() in src/basic/socket-util.c; checked on each release with `systemctl show -p Listen`.
    ("vsock:host:1", None, "vsock:2:1", "vsock:2:1"),
    ("vsock:local:2", None, "vsock:1:2", "vsock:1:2"),
    ("vsock:any:3", None, None, "vsock::3"),
    ("vsock:-1:4", None, None, "vsock::4"),
)


@pytest.mark.parametrize(("text", "bookworm", "trixie", "sid"), VSOCK)
def test_vsock_names(text: str, bookworm: str | None, trixie: str | None, sid: str | None) -> None:
    assert tuple(parse_address(text, version) for version, _ in ALL) == (bookworm, trixie, sid)
