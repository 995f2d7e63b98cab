"""Whom the agent blames when what it corrects is undone again and again: never itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dockerd_guard.agent.undone_corrections import UndoneCorrections
from dockerd_guard.apply.state_files import StateFiles
from dockerd_guard.nethelper.local import LocalNetwork
from dockerd_guard.plan.assessment import assess
from dockerd_guard.plan.backoff import UPDATES, Contested, Correction
from dockerd_guard.policy.reader import parse_policy
from tests.support.hosts import Host

DIRECTORY = "/etc/systemd/system/docker.service.d"
OURS, OPEN = f"{DIRECTORY}/zz-dockerd-guard.conf", f"{DIRECTORY}/open.conf"
WRITTEN_BY_US = "# Written by dockerd-guard to the last policy.\n[Service]\nExecStart=\nExecStart=/usr/bin/dockerd -H fd://\n"
POLICY = parse_policy(b"version: 1\nmode: enforce\nsockets: [fd://]\n")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "host")


def blamed(host: Host, state: StateFiles) -> Contested | None:
    seen = host.see()
    with seen.rootfs:
        return UndoneCorrections(state).contested(assess(seen, POLICY, state.records(), LocalNetwork().ask))


def exposure(host: Host) -> None:
    host.put(OPEN, "[Service]\nExecStart=\nExecStart=/usr/sbin/dockerd -H fd:// -H tcp://0.0.0.0:2375\n")


def nothing(host: Host) -> None:
    pass


@pytest.mark.parametrize(("then", "file", "is_there"), [
    (exposure, OPEN, True),
    (nothing, DIRECTORY, True),
], ids=["by what opens the API", "by what came and went, with our own file left over"])
def test_it_names_another_programs_file(
        host: Host, tmp_path: Path, then: Callable[[Host], None], file: str, is_there: bool) -> None:
    host.put(OURS, WRITTEN_BY_US)
    began = datetime.now(UTC) + timedelta(milliseconds=20)
    while datetime.now(UTC) < began:
        """File times go by the kernel's tick, and may be as much behind."""
    then(host)
    state = StateFiles(str(tmp_path / "state"))
    os.mkdir(state.directory)
    state.keep_rounds(tuple(Correction(began + timedelta(microseconds=number), is_update)
                            for number in range(UPDATES) for is_update in (True, False)))
    contested = blamed(host, state)
    assert contested is not None
    assert (contested.file, contested.is_there) == (file, is_there)


def test_what_was_written_again_before_we_looked_is_not_taken_for_ours(host: Host, tmp_path: Path) -> None:
    """A copy that an earlier correction left is older, and nobody has touched it."""
    state = StateFiles(str(tmp_path / "state"))
    os.mkdir(state.directory)
    later = f"{DIRECTORY}/zzz-theirs.conf"
    theirs = "[Service]\nExecStart=\nExecStart=/usr/sbin/dockerd -H fd:// -H tcp://0.0.0.0:2375\n"
    undone_corrections = UndoneCorrections(state)
    host.put(OURS, WRITTEN_BY_US)
    for number in range(3):
        host.put(later, theirs)
        if number == 1:
            host.put(f"{DIRECTORY}/zy-zzz-theirs.conf", theirs)
        seen = host.see()
        with seen.rootfs:
            found = assess(seen, POLICY, state.records(), LocalNetwork().ask)
            assert later in {change.path for change in found.plan.changes}
            # It is there as before: the other program was quicker than our second look.
            after = host.see()
            with after.rootfs:
                undone_corrections.corrected(found, "", after.rootfs)
    seen = host.see()
    with seen.rootfs:
        contested = undone_corrections.contested(assess(seen, POLICY, state.records(), LocalNetwork().ask))
    assert contested is not None
    assert contested.file == later


def test_another_policy_begins_anew(tmp_path: Path) -> None:
    state = StateFiles(str(tmp_path / "state"))
    os.mkdir(state.directory)
    state.keep_rounds(tuple(Correction(datetime.now(UTC), is_update) for is_update in (True, False)))
    UndoneCorrections(state).forget()
    assert state.rounds() == ()
