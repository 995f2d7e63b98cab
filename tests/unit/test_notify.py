"""Notifications to the service manager: what pystemd is called with, and the interval of the watchdog."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from dockerd_guard.agent.notify import Notify


class PystemdDaemonError(Exception):
    pass


def manager(monkeypatch: pytest.MonkeyPatch, watchdog_usec: int | None) -> list[tuple[str, ...]]:
    """A stand-in for pystemd, which builds only beside libsystemd; returns what it sends."""
    sent: list[tuple[str, ...]] = []

    def watchdog_enabled(unset_environment: bool) -> int:
        if watchdog_usec is None:
            raise PystemdDaemonError("Fail to get watchdog information")
        return watchdog_usec

    def notify(unset_environment: bool, *states: str) -> None:
        assert not unset_environment
        "".join(states).encode()
        sent.append(states)

    monkeypatch.setitem(sys.modules, "pystemd", SimpleNamespace(daemon=SimpleNamespace(
        notify=notify, watchdog_enabled=watchdog_enabled, PystemdDaemonError=PystemdDaemonError)))
    return sent


@pytest.mark.parametrize(("usec", "seconds"), [(60_000_000, 30.0), (0, None), (None, None)])
def test_the_watchdog_is_fed_twice_in_its_time(
        usec: int | None, seconds: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = manager(monkeypatch, usec)
    notify = Notify()
    assert notify.watchdog_s == seconds
    watchdog = () if seconds is None else ("WATCHDOG=1",)
    notify.alive()
    assert sent.pop() == (*watchdog, "EXTEND_TIMEOUT_USEC=60000000"), "the first pass has not ended"
    notify.ready("a")
    sent.clear()
    notify.alive()
    assert sent == [watchdog] * (seconds is not None)


@pytest.mark.parametrize(("calls", "sent"), [
    (lambda notify: notify.ready("a"), [("READY=1", "STATUS=a")]),
    (lambda notify: (notify.ready("a"), notify.status("a")), [("READY=1", "STATUS=a")]),
    (lambda notify: (notify.status("a"), notify.status("a"), notify.status("b")), [("STATUS=a",), ("STATUS=b",)]),
    (lambda notify: notify.status("\udcff\n"), [("STATUS=\ufffd ",)]),
    (lambda notify: notify.stopping(), [("STOPPING=1",)]),
])
def test_states(calls: Callable[[Notify], object], sent: list[tuple[str, ...]],
                monkeypatch: pytest.MonkeyPatch) -> None:
    found = manager(monkeypatch, 0)
    calls(Notify())
    assert found == sent


def test_a_reload_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = manager(monkeypatch, 0)
    Notify().reloading()
    (reloading, since), = sent
    assert reloading == "RELOADING=1"
    assert since.removeprefix("MONOTONIC_USEC=").isdecimal()
