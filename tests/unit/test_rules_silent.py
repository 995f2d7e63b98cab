"""Configurations that systemd or dockerd skips or refuses without a message that is easy to see, one table per rule."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from dockerd_guard.model.finding import Finding
from dockerd_guard.observe.observation import Observation
from dockerd_guard.rules.judge import judge
from tests.support.hosts import OVERRIDE, Host

SOCKET_OVERRIDE = "/etc/systemd/system/docker.socket.d/override.conf"
DAEMON_JSON = "/etc/docker/daemon.json"

Files = dict[str, str]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    before = os.umask(0o022)
    yield Host(tmp_path)
    os.umask(before)


def command(arguments: str) -> Files:
    return {OVERRIDE: f"[Service]\nExecStart=\nExecStart=/usr/bin/dockerd {arguments}\n"}


def listen(*addresses: str) -> Files:
    return {SOCKET_OVERRIDE: "[Socket]\n" + "".join(f"ListenStream={address}\n" for address in addresses)}


def summaries(host: Host, files: Files, code: str) -> list[str]:
    """Return location, severity and fix of each finding of a rule."""
    for path, text in files.items():
        host.put(path, text)
    return [f"{finding.location} {finding.severity} {finding.fix}" for finding in found(host.see(), code)]


def found(seen: Observation, code: str) -> list[Finding]:
    return [finding for finding in judge(seen, None, date(2026, 11, 26)) if finding.code == code]


@pytest.mark.parametrize(("files", "expected"), [
    (command("-H fd:// -H tcp://0.0.0.0:2375 -H tcp://127.0.0.1:2375"), [f"{OVERRIDE}:3:62 error None"]),
    (command("-H fd:// -H tcp://127.0.0.1:2375 -H tcp://127.0.0.1:2376"), []),
    (command("-H fd:// -H tcp://127.0.0.1:2375 -H tcp://127.0.0.2:2375"), []),
    (command("-H fd:// -H tcp://[::1]:2375 -H tcp://127.0.0.1:2375"), []),
    (command("-H fd:// -H tcp://[::]:2375 -H tcp://127.0.0.1:2375"), [f"{OVERRIDE}:3:40 error None"]),
    ({**command("-H fd:// -H tcp://0.0.0.0:2375"), **listen("2375")}, [f"{OVERRIDE}:3:40 error None"]),
    ({**command("-H fd:// -H tcp://10.0.0.5:2375"), **listen("10.0.0.6:2375")}, []),
    # Within docker.socket: systemd cannot open the second one.
    (listen("0.0.0.0:2375", "2375"), [f"{SOCKET_OVERRIDE}:3:1 error None"]),
    (listen("0.0.0.0:2375", "[::1]:2375"), []),
    ({DAEMON_JSON: '{"hosts": ["fd://", "tcp://:2375", "tcp://127.0.0.1:2375"]}', **command("")},
     [f"{DAEMON_JSON}:1:22 error None"]),
])
def test_port_claimed_twice(host: Host, files: Files, expected: list[str]) -> None:
    assert summaries(host, files, "DG209") == expected


@pytest.mark.parametrize(("files", "expected"), [
    (command("-H fd:// -H tcp://0.0.0.0.2375"), [f"{OVERRIDE}:3:40 error None"]),
    (command("-H fd:// -H 192.168.1.300:2375"), [f"{OVERRIDE}:3:40 error None"]),
    (command("-H fd:// -H tcp://1.2.3.4.5:2375"), [f"{OVERRIDE}:3:40 error None"]),
    (command("-H fd:// -H tcp://docker.invalid:2375"), [f"{OVERRIDE}:3:40 error None"]),
    # inet_aton(3) reads these, and a label may contain digits.
    (command("-H fd:// -H tcp://127.1:2375"), []),
    (command("-H fd:// -H tcp://host4:2375"), []),
    (command("-H fd:// -H tcp://docker.example.org:2375"), []),
    ({**command("-H fd:// -H tcp://docker.test:2375"), "/etc/hosts": "10.0.0.5 a docker.test # b\n"}, []),
    ({**command("-H fd:// -H tcp://docker.test:2375"), "/etc/hosts": "10.0.0.5 a # docker.test\n"},
     [f"{OVERRIDE}:3:40 error None"]),
    ({**command(""), DAEMON_JSON: '{"hosts": ["fd://",\n"tcp://0.0.0.0.2375"]}'}, [f"{DAEMON_JSON}:2:2 error None"]),
])
def test_host_that_does_not_resolve(host: Host, files: Files, expected: list[str]) -> None:
    assert summaries(host, files, "DG203") == expected


@pytest.mark.parametrize(("files", "expected"), [
    (command("-H fd:// -H unix:///var/run/docker.sock"), [f"{OVERRIDE}:3:40 warning None"]),
    (command("-H unix:///var/run/docker.sock"), [f"{OVERRIDE}:3:31 info None"]),
    (command("-H unix:///run/other.sock"), []),
    (command(""), []),
])
def test_path_of_docker_socket(host: Host, files: Files, expected: list[str]) -> None:
    assert summaries(host, files, "DG208") == expected
