"""What fuzzing (tests/fuzz) and growing inputs (test_growth.py) found wrong once, each as small as it gets."""

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
from tests.unit.pem import make_pair

SERVICE = "/usr/lib/systemd/system/docker.service"
EXEC = b"ExecStart=/usr/bin/dockerd -H unix:// "


def test_a_lone_cr_ends_no_line_in_a_file_of_variables() -> None:
    """It ends an assignment, but editors and our own excerpts count lines by NL."""
    found = read_environment_file(b'A=1\rB="2\r3"\nC=4', "x", 257)
    places = [(each.name, each.variable.location.line, each.variable.location.column)
              for each in found.assignments if each.variable.location is not None]
    assert places == [("A", 1, 3), ("B", 1, 8), ("C", 2, 3)]


def test_values_of_any_depth_are_told_in_a_conflict() -> None:
    """Go's %v of them was written by recursion."""
    content = b'{"labels": ' + b"[" * 5000 + b"]" * 5000 + b"}"
    daemon = resolve_daemon(("dockerd", "--label", "a=b"), {}, lambda _: content)
    assert "labels: (from flag: [a=b], from file: [[[" in (daemon.reason or "")


@pytest.mark.parametrize(("lines", "starts"), [
    (EXEC + b"--label a=" + b"b" * (MAX_ARGUMENT_BYTES - 3), True),
    (EXEC + b"--label a=" + b"b" * (MAX_ARGUMENT_BYTES - 2), False),
    (b"Environment=A=" + b"b" * (MAX_ARGUMENT_BYTES - 3) + b"\n" + EXEC, True),
    (b"Environment=A=" + b"b" * (MAX_ARGUMENT_BYTES - 2) + b"\n" + EXEC, False),
    (b"Environment=A=" + b"b" * 10_000 + b"\n" + EXEC + b"${A}" * 10_000, False),
    (b"Environment='A=" + b"b " * 10_000 + b"'\n" + EXEC + b"$A " * 10_000, False),
])
def test_execve_takes_no_longer_arguments(lines: bytes, starts: bool, tmp_path: Path) -> None:
    """E2BIG (execve(2)): some kilobytes of variables can stand for gigabytes of arguments."""
    with Rootfs(str(tmp_path), {SERVICE: b"[Service]\n" + lines + b"\n"}) as rootfs:
        layer = observe_configured(rootfs).layer
    assert layer.starts is starts
    assert starts or layer.reason == "Failed to execute /usr/bin/dockerd: Argument list too long"


def test_the_kernel_says_so_too() -> None:
    with pytest.raises(OSError, match="Argument list too long"):
        os.posix_spawn("/bin/true", ["true", "a" * MAX_ARGUMENT_BYTES], {})
    os.waitpid(os.posix_spawn("/bin/true", ["true", "a" * (MAX_ARGUMENT_BYTES - 1)], {}), 0)


def test_a_script_that_puts_a_long_value_in_again_and_again() -> None:
    """It took quadratic time: 15 s for one of 320 kB. Nobody can tell what dockerd gets, and no kernel gives it."""
    script = "dockerd " + "$OPTIONS" * 40_000
    daemon = resolve_daemon(("/bin/sh", "-c", script), {"OPTIONS": "a" * 40_000}, lambda _: b"")
    assert not daemon.certain
    assert "cannot be told" in (daemon.reason or "")
    assert resolve_daemon(("/bin/sh", "-c", "dockerd -H $HOST"), {"HOST": "fd://"}, lambda _: b"").certain


def test_a_pattern_over_links_in_circles_ends(tmp_path: Path) -> None:
    """Each `/*` doubled the paths."""
    (tmp_path / "a").symlink_to(".")
    (tmp_path / "b").symlink_to("/")
    with Rootfs(str(tmp_path), {SERVICE: b"[Service]\nEnvironmentFile=" + b"/*" * 35 + b"\n" + EXEC + b"\n"}) as rootfs:
        failure = resolve_environment(load_service(rootfs), rootfs, 257).failure
    assert failure == f"Failed to load environment files: more than {MAX_MATCHES} paths match"


def test_a_file_of_variables_named_again_counts_where_it_is_named_last(tmp_path: Path) -> None:
    """Each is read once only."""
    named = b"".join(b"EnvironmentFile=/etc/%c\n" % letter for letter in b"aba")
    with Rootfs(str(tmp_path), {SERVICE: b"[Service]\n" + named + EXEC,
                             "/etc/a": b"X=a\n", "/etc/b": b"X=b\nY=b\n"}) as rootfs:
        variables = resolve_environment(load_service(rootfs), rootfs, 257).variables
    assert (variables["X"].value, variables["Y"].value) == ("a", "b")


def test_a_pem_block_ends_with_the_next_boundary() -> None:
    """As in Go's encoding/pem; looking for its own end, past all others, took quadratic time."""
    good = make_pair().certificate
    assert validity(b"-----BEGIN CERTIFICATE-----\n-----BEGIN X-----\n" + good) == validity(good)
    assert validity(b"-----BEGIN CERTIFICATE-----\n-----END X-----\n" + good) == validity(good)
