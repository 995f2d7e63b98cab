"""Rules take no longer than their input grows: 400 kB of one text in a drop-in once kept the agent from starting."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from dockerd_guard.model.limits import NO_LIMITS
from dockerd_guard.observe.configured import observe_configured
from dockerd_guard.observe.observation import Observation
from dockerd_guard.rootfs import Rootfs
from dockerd_guard.rules.judge import judge
from dockerd_guard.rules.loose_socket_mode import _opens
from tests.support.hosts import STOCK

SIZE = 400_000
LIMIT_S = 8.0
"""The worst of these takes a second on an idle host; the quadratic patterns took minutes."""


@pytest.mark.parametrize("text", [
    "chmod aaaa", "chmod -x ", "chmod chmod ", "chmod a+", "dockerx", "docker ", "socat docker.sock ", "ao+w ",
])
def test_a_long_command_is_judged_in_linear_time(text: str, tmp_path: Path) -> None:
    command = f"ExecStartPost=/bin/sh -c 'docker.sock {text[:6]}{text * (SIZE // len(text))}'\n"
    files = {
        **{path: content.encode() for path, content in STOCK.items()},
        "/etc/systemd/system/docker.service.d/long.conf": f"[Service]\n{command}".encode(),
        "/etc/systemd/system/other.service": f"[Service]\n{command}".encode(),
    }
    began = time.monotonic()
    with Rootfs(str(tmp_path), files, NO_LIMITS) as rootfs:
        judge(Observation(rootfs, observe_configured(rootfs)), None)
    assert time.monotonic() - began < LIMIT_S


@pytest.mark.parametrize(("command", "expected"), [
    ("chmod 666 /run/docker.sock", True), ("chmod 0660 /run/docker.sock", False), ("/bin/chmod -v a+rw x", True),
    ("chmod o=w x", True), ("chmod +w x", True), ("chmod u+w x", False), ("chmod g+rw,o+r x", False),
    ("chmod g+rw,o+rw x", True), ("sh -c 'chmod 777 x'", True), ("sh -c 'true;chmod 722 x'", True), ("chmod", False),
])
def test_chmod_that_opens_a_socket(command: str, expected: bool) -> None:
    assert _opens(command) is expected
