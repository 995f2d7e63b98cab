"""Fixtures: a freshly booted machine of each Debian release for every test that requests one.

A boot takes about a second, so tests share no state. With --keep, the machine stays after the test, for inspection; the
next run of a test replaces it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.machines import host, image
from tests.machines.machine import Machine, wait_for

TOP = Path(__file__).resolve().parents[2]

AGENT = "dockerd-guard.service"

JOURNALS = {
    "the agent's journal": (f"--unit={AGENT}",),
    "docker's journal": ("--unit=docker.service", "--unit=docker.socket"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--keep", action="store_true", help="leave the machine of a system test running")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if any("release" in getattr(item, "fixturenames", ()) for item in items):
        try:
            host.prepare_machines()
        except host.Unfit as error:
            pytest.exit(f"The system tests cannot run here. {error}", returncode=1)


@pytest.fixture(params=image.RELEASES)
def release(request: pytest.FixtureRequest) -> str:
    """A Debian release. The test runs on each."""
    assert isinstance(request.param, str)
    return request.param


@pytest.fixture(scope="session")
def package() -> Path:
    """The .deb under test, built by `make deb`."""
    found = sorted((TOP / "dist").glob("dockerd-guard_*_all.deb"))
    if len(found) != 1:
        pytest.fail(f"dist/ contains {len(found)} packages instead of one: run `make deb`")
    return found[0]


@pytest.fixture
def debian() -> tuple[str, ...]:
    """Additional Debian packages on the machine. A module that needs some overrides this fixture."""
    return ()


@pytest.fixture
def machine(release: str, package: Path, debian: tuple[str, ...], request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A freshly booted machine with the .deb installed and the agent running (mode: observe)."""
    with _boot(release, package, debian, request) as machine:
        wait_for(lambda: _has_started_or_failed(machine), "agent that runs or fails")
        if not machine.is_active(AGENT):
            output = machine.run(["journalctl", f"--unit={AGENT}", "--lines=40"]).out
            pytest.fail(f"the agent does not start on {release}:\n{output}", pytrace=False)
        yield machine


@pytest.fixture
def bare_machine(release: str, debian: tuple[str, ...], request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A freshly booted machine without the package."""
    with _boot(release, None, debian, request) as machine:
        yield machine


def _has_started_or_failed(machine: Machine) -> bool:
    shown = machine.properties(AGENT, "ActiveState", "NRestarts")
    return shown["ActiveState"] in ("active", "failed") or int(shown["NRestarts"]) > 0


@contextlib.contextmanager
def _boot(release: str, package: Path | None, debian: tuple[str, ...], request: pytest.FixtureRequest
          ) -> Iterator[Machine]:
    keep = request.config.getoption("--keep")
    name = f"kept-{release}" if keep else None
    if name is not None:
        with contextlib.suppress(LookupError):
            Machine.attach(name).close()
    machine = Machine.boot(release, package=package, debian=debian, name=name, keep=keep)
    try:
        yield machine
    finally:
        if not keep:
            machine.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
        item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the journal of the machine to the report of a failure, and the command that opens a shell in it."""
    report = yield
    machines = [value for value in getattr(item, "funcargs", {}).values() if isinstance(value, Machine)]
    if report.failed and report.when in ("setup", "call"):
        for machine in machines:
            if machine.is_on:
                for title, arguments in JOURNALS.items():
                    shown = machine.run(["journalctl", "--boot", "--lines=30", *arguments], check=False)
                    report.sections.append((f"{title} on {machine.name}", shown.out))
            else:
                report.sections.append((f"console of {machine.name}", machine.console()[-3000:]))
            command = f"make machine NAME=kept-{machine.release}"
            if not item.config.getoption("--keep"):
                command = f"make system-test TEST='{item.nodeid}' KEEP=1; {command}"
            report.sections.append(("to open a shell in that machine", command))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print in full each failure of a test that passed when it ran again: a race in the product or in the test."""
    flaky = terminalreporter.getreports("rerun")
    if flaky:
        terminalreporter.section(f"FLAKY: {len(flaky)} failed once")
    for report in flaky:
        terminalreporter.write_sep("_", report.nodeid)
        terminalreporter.write_line(report.longreprtext)
        for title, content in report.sections:
            terminalreporter.write_sep("-", title)
            terminalreporter.write_line(content)
