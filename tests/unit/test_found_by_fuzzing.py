"""Regression tests for errors found by fuzzing (tests/fuzz) and by growing inputs (test_growth.py), minimised."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dockerd_guard.dockerd.daemon import resolve_daemon
from dockerd_guard.observe.certificates import validity
from dockerd_guard.observe.configured import observe_configured
from dockerd_guard.rootfs import Rootfs
from dockerd_guard.systemd.environment import MAX_MATCHES, resolve_environment
from dockerd_guard.systemd.environment_file import read_environment_file
from dockerd_guard.systemd.exec import MAX_ARGUMENT_BYTES
from dockerd_guard.systemd.units import load_service
from tests.support.pem import make_pair

SERVICE = "/usr/lib/systemd/system/docker.service"
EXEC = b"ExecStart=/usr/bin/dockerd -H unix:// "


def test_lone_cr_is_no_line_break_in_environment_files() -> None:
    """CR ends an assignment, but editors and our excerpts count lines by LF."""
    found = read_environment_file(b'A=1\rB="2\r3"\nC=4', "x", 257)
    places = [(each.name, each.variable.location.line, each.variable.location.column)
              for each in found.assignments if each.variable.location is not None]
    assert places == [("A", 1, 3), ("B", 1, 8), ("C", 2, 3)]


def test_conflict_message_with_deep_nesting() -> None:
    """Formatting as Go's %v was recursive. The message names the key only."""
    content = b'{"labels": ' + b"[" * 5000 + b"]" * 5000 + b"}"
    daemon = resolve_daemon(("dockerd", "--label", "a=b"), {}, lambda _: content)
    assert (daemon.reason or "").endswith("specified both as a flag and in the configuration file: labels")


@pytest.mark.parametrize(("lines", "starts"), [
    (EXEC + b"--label a=" + b"b" * (MAX_ARGUMENT_BYTES - 3), True),
    (EXEC + b"--label a=" + b"b" * (MAX_ARGUMENT_BYTES - 2), False),
    (b"Environment=A=" + b"b" * (MAX_ARGUMENT_BYTES - 3) + b"\n" + EXEC, True),
    (b"Environment=A=" + b"b" * (MAX_ARGUMENT_BYTES - 2) + b"\n" + EXEC, False),
    (b"Environment=A=" + b"b" * 10_000 + b"\n" + EXEC + b"${A}" * 10_000, False),
    (b"Environment='A=" + b"b " * 10_000 + b"'\n" + EXEC + b"$A " * 10_000, False),
])
def test_too_long_arguments_fail(lines: bytes, starts: bool, tmp_path: Path) -> None:
    """E2BIG (execve(2)): some kilobytes of variables can expand to gigabytes of arguments."""
    with Rootfs(str(tmp_path), {SERVICE: b"[Service]\n" + lines + b"\n"}) as rootfs:
        layer = observe_configured(rootfs).layer
    assert layer.starts is starts
    assert starts or layer.reason == "Failed to execute /usr/bin/dockerd: Argument list too long"


def test_kernel_limits_argument_length() -> None:
    with pytest.raises(OSError, match="Argument list too long"):
        os.posix_spawn("/bin/true", ["true", "a" * MAX_ARGUMENT_BYTES], {})
    os.waitpid(os.posix_spawn("/bin/true", ["true", "a" * (MAX_ARGUMENT_BYTES - 1)], {}), 0)


def test_repeated_expansion_in_a_script_is_limited() -> None:
    """Took quadratic time: 15 s for a script of 320 kB. The kernel would refuse the arguments."""
    script = "dockerd " + "$OPTIONS" * 40_000
    daemon = resolve_daemon(("/bin/sh", "-c", script), {"OPTIONS": "a" * 40_000}, lambda _: b"")
    assert not daemon.certain
    assert "cannot determine" in (daemon.reason or "")
    assert resolve_daemon(("/bin/sh", "-c", "dockerd -H $HOST"), {"HOST": "fd://"}, lambda _: b"").certain


def test_glob_over_circular_links_is_limited(tmp_path: Path) -> None:
    """Each `/*` doubled the paths."""
    (tmp_path / "a").symlink_to(".")
    (tmp_path / "b").symlink_to("/")
    with Rootfs(str(tmp_path), {SERVICE: b"[Service]\nEnvironmentFile=" + b"/*" * 35 + b"\n" + EXEC + b"\n"}) as rootfs:
        failure = resolve_environment(load_service(rootfs), rootfs, 257).failure
    assert failure == f"Failed to load environment files: more than {MAX_MATCHES} paths match"


def test_repeated_environment_file_applies_at_its_last_position(tmp_path: Path) -> None:
    """Each file is read once."""
    named = b"".join(b"EnvironmentFile=/etc/%c\n" % letter for letter in b"aba")
    with Rootfs(str(tmp_path), {SERVICE: b"[Service]\n" + named + EXEC,
                             "/etc/a": b"X=a\n", "/etc/b": b"X=b\nY=b\n"}) as rootfs:
        variables = resolve_environment(load_service(rootfs), rootfs, 257).variables
    assert (variables["X"].value, variables["Y"].value) == ("a", "b")


def test_pem_block_ends_at_next_boundary() -> None:
    """As in Go's encoding/pem. Searching for the matching END line took quadratic time."""
    good = make_pair().certificate
    assert validity(b"-----BEGIN CERTIFICATE-----\n-----BEGIN X-----\n" + good) == validity(good)
    assert validity(b"-----BEGIN CERTIFICATE-----\n-----END X-----\n" + good) == validity(good)
