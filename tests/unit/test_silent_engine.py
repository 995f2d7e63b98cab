"""An engine that does not answer is asked again, and not all the time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from dockerd_guard.observe import engine
from dockerd_guard.observe.access_paths import AccessObserver
from dockerd_guard.observe.listeners import ListenerTable
from tests.support.hosts import Host


def test_silent_engine_is_asked_again_without_a_new_listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a container opened while it was silent is found, and nobody is asked for it all the time."""
    observer, seen = AccessObserver(), Host(tmp_path / "host").see()
    # A program that begins to listen is a reason of its own.
    monkeypatch.setattr(ListenerTable, "look", lambda _: ())
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    is_silent, asked = [True], []

    def answer(*_: object) -> object:
        asked.append(now[0])
        if is_silent[0]:
            raise OSError("timed out")
        return []

    monkeypatch.setattr(engine, "answer", answer)

    def pass_until(end: float, sockets: dict[str, tuple[int, ...]]) -> list[float]:
        """When a look is due, checked each second."""
        due = []
        while now[0] < end:
            now[0] += 1
            if observer.is_due():
                due.append(now[0])
                observer.look(seen, lambda _: False, sockets)
        return due

    docker: dict[str, tuple[int, ...]] = {"unix:///run/docker.sock": (1,)}
    assert pass_until(5, docker) == []
    observer.look(seen, lambda _: False, docker)
    assert pass_until(200, docker) == [15, 35, 75, 135, 195]
    is_silent[0] = False
    assert pass_until(400, docker) == [255]
    is_silent[0] = True
    observer.look(seen, lambda _: False, docker)
    # It is stopped.
    assert pass_until(600, {}) == [410]
