"""The package's own test (DEP-8), run by autopkgtest on a booted machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.machines.machine import Machine

TESTS = Path(__file__).resolve().parents[2] / "packaging/debian/tests"
SOURCE = "/tmp/source"


@pytest.fixture
def debian() -> tuple[str, ...]:
    return ("autopkgtest", "dpkg-dev")


def test_package_test_passes(bare_machine: Machine, package: Path) -> None:
    machine = bare_machine
    machine.copy_in(package, f"/tmp/{package.name}")
    for name in ("control", "correction"):
        machine.write(f"{SOURCE}/debian/tests/{name}", (TESTS / name).read_text(), mode=0o755)
    # autopkgtest reads the name of the package from there.
    for name in ("control", "changelog"):
        machine.write(f"{SOURCE}/debian/{name}", (TESTS.parent / name).read_text())
    # The `null` runner does not provide isolation-machine, although this is a machine.
    done = machine.run(["autopkgtest", "--user=root", "--ignore-restrictions=isolation-machine",
                        f"/tmp/{package.name}", f"{SOURCE}/", "--", "null"], check=False, timeout=600)
    assert done.status == 0, done.out + done.err
    assert "correction           PASS" in done.out + done.err
