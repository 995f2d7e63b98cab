"""Finding dockerd's arguments through programs that execute another one."""

from __future__ import annotations

import shlex

import pytest

from dockerd_guard.dockerd.command import Program, program_of
from dockerd_guard.dockerd.daemon import resolve_daemon
from dockerd_guard.dockerd.version import Version

CLIENT = "this is the docker client without a subcommand: it starts no daemon"


def program(command: str, version: Version | None = None, **environ: str) -> Program:
    return program_of(tuple(shlex.split(command)), environ, version)


@pytest.mark.parametrize("word", ["~", "~/x", "--data-root=~/x", "a:~", "--label={a,b}=c", "{1..3}", "*", "$(x)"])
def test_unquoted_shell_constructs_are_uncertain(word: str) -> None:
    assert not program(f"sh -c 'exec dockerd {word}'").certain
    assert program(f"""sh -c 'exec dockerd "{word}"'""").certain is (word != "$(x)")


@pytest.mark.parametrize("word", ["a~", "a~b", "{}", "{a}", "{{.Name}}", "tcp://[::1]:1", "a=b!"])
def test_plain_shell_words_are_unchanged(word: str) -> None:
    found = program(f"sh -c 'exec dockerd {word}'")
    assert found.certain and [each.text for each in found.words] == [word]


@pytest.mark.parametrize(("command", "is_passed"), [
    ("nice env A=b dockerd", True),
    ("setsid dockerd", False),
    ("timeout 5 dockerd", False),
    ("sh -c 'exec dockerd'", True),
    ("sh -c 'dockerd'", False),
    ("bash -c 'A=1; dockerd'", True),
    ("bash -c 'dockerd; true'", False),
    ("sh -c 'dockerd; true'", False),
    ("sh -c 'exec dockerd; true'", True),
    ("sh -c 'dockerd || true'", False),
    ("sh -c 'exec dockerd | cat'", False),
    ("bash -c 'dockerd >/x'", False),
    ("bash -c 'exec dockerd >/x'", True),
    ("bash -c 'true; nice dockerd'", True),
    ("dash -c 'true; nice dockerd'", False),
])
def test_listen_fds_is_kept_without_fork(command: str, is_passed: bool) -> None:
    assert ("LISTEN_FDS" in program(command, LISTEN_FDS="").environ) is is_passed


def test_export_needs_a_value() -> None:
    found = program("sh -c 'export A B C=1; B=2; D=3; E=4 dockerd'", D="0")
    assert found.environ == {"B": "2", "C": "1", "D": "3", "E": "4"}


@pytest.mark.parametrize("command", [
    "dockerd -H fd://",
    "/usr/bin/dockerd -H fd://",
    "/usr/bin/dockerd-current -H fd://",
    "/usr/bin/dockerd-latest -H fd://",
    "/opt/docker/dockerd-ce -H fd://",
    "docker daemon -H fd://",
    "docker -H fd:// daemon",
    "/usr/bin/docker-current daemon -H fd://",
    "docker -d -H fd://",
    "docker -H fd:// -d",
    "docker --daemon -H fd://",
    "docker.io -d -H fd://",
    "env dockerd -H fd://",
    "env -i A=1 B=2 /usr/bin/dockerd -H fd://",
    "env -u A -- dockerd -H fd://",
    "nice -n 5 dockerd -H fd://",
    "nice --adjustment=5 dockerd -H fd://",
    "ionice -c2 -n 7 nice -5 dockerd -H fd://",
    "taskset 0x3 dockerd -H fd://",
    "nohup setsid dockerd -H fd://",
    "systemd-cat -t docker dockerd -H fd://",
    "timeout -k 5 1h dockerd -H fd://",
    "sh -c 'exec dockerd -H fd://'",
    "/bin/sh -c 'dockerd -H fd://'",
    "/bin/bash -ec 'exec /usr/bin/dockerd -H \"fd://\"'",
    "sh -c 'A=1 exec dockerd -H fd:// >/var/log/docker.log 2>&1'",
    "sh -c 'OPTS=\"-H fd://\"; exec dockerd $OPTS'",
    "sh -c 'export A=1\n# so\nset -e\nexec dockerd -H fd://'",
    "sh -c 'dockerd -H fd:// 2>&1 | forward-journald -tag docker'",
    "sh -c 'exec dockerd \"$@\"' sh -H fd://",
    "sh -c 'exec dockerd $0 -H $1' '' fd://",
    "sh -c 'exec dockerd -H ${HOST:-fd://}'",
    "sh -c 'dockerd -H f\"d:\"//'",
    "sh -c 'exec nice dockerd -H fd://'",
    "env A='-H fd://' sh -c 'exec dockerd $A'",
])
def test_wrappers_are_evaluated(command: str) -> None:
    found = program(command)
    assert (found.certain, found.reason) == (True, None)
    assert [word.text for word in found.words] == ["-H", "fd://"]


@pytest.mark.parametrize("command", [
    "/usr/local/bin/start-docker",
    "sh start.sh",
    "sh -c 'if true; then dockerd; fi'",
    "sh -c '. /etc/default/docker; exec dockerd $OPTS'",
    "sh -c 'exec dockerd -H $(hostname)'",
    "sh -c 'exec dockerd -H `hostname`'",
    "sh -c 'modprobe overlay && exec dockerd'",
    "sh -c 'dockerd || true'",
    "sh -c 'dockerd &'",
    "sh -c 'exec dockerd *'",
    "sh -c 'H=tcp://$HOSTNAME:2375; exec dockerd -H $H'",
    "sh -c 'H=tcp://$HOSTNAME:2375; export H; exec dockerd -H $H'",
    "sh -c 'exec dockerd \"'",
    "sh",
    "sh -c",
    "env -S 'dockerd -H fd://'",
    "nsenter -t 1 -n dockerd",
    "unshare -n dockerd",
    "env env env env env env env env env dockerd",
    "env",
])
def test_unsupported_wrappers_are_uncertain(command: str) -> None:
    assert not program(command).certain
    found = resolve_daemon(tuple(shlex.split(command)), {}, lambda _: b"", None)
    assert (found.starts, found.certain) == (True, False)


@pytest.mark.parametrize(("command", "reason"), [
    ("docker -H tcp://0.0.0.0:2375", CLIENT),
    ("docker", CLIENT),
    ("docker run -d nginx", "this is the docker client with a subcommand: it starts no daemon"),
    ("docker -H fd:// info", "this is the docker client with a subcommand: it starts no daemon"),
    ("dockerd-rootless.sh install", "Did you mean 'dockerd-rootless-setuptool.sh install' ?"),
])
def test_client_commands_start_no_daemon(command: str, reason: str) -> None:
    assert program(command, XDG_RUNTIME_DIR="/run/user/0").reason == reason


@pytest.mark.parametrize(("command", "version", "reason"), [
    ("docker daemon", Version(17, 11), None),
    ("docker daemon", Version(17, 12), "docker: 'daemon' is not a docker command."),
    ("docker -d", Version(1, 12), None),
    ("docker -d", Version(20, 10), "unknown shorthand flag: 'd' in -d"),
])
def test_docker_daemon_is_removed(command: str, version: Version, reason: str | None) -> None:
    assert program(command, version).reason == reason


def test_wrappers_change_the_environment() -> None:
    assert program("env -u A -u=B C=3 dockerd", A="1", B="2", D="4").environ == {"B": "2", "C": "3", "D": "4"}
    assert program("env -i DOCKER_TLS_VERIFY=1 dockerd", A="1").environ == {"DOCKER_TLS_VERIFY": "1"}
    assert program("sh -c 'A=1; export B=2; C=3 exec dockerd'", A="0").environ == {"A": "1", "B": "2", "C": "3"}


def test_offsets_in_a_script() -> None:
    found = program("sh -c 'exec dockerd  -H tcp://x \"-H\" fd://'")
    assert [(word.text, word.argument, word.offset) for word in found.words] == [
        ("-H", 2, 14), ("tcp://x", 2, 17), ("-H", 2, 0), ("fd://", 2, 30)]
    host, _ = resolve_daemon(("sh", "-c", "exec dockerd -DHtcp://x -H fd://"), {}, lambda _: b"", None).hosts[::-1]
    assert (host.address, host.argument, host.offset) == ("tcp://x:2375", 2, 16)


@pytest.mark.parametrize(("script", "words"), [
    (b'#!/bin/sh\nexec dockerd -H fd:// "$@"\n', ["-H", "fd://", "-D"]),
    (b"#!/usr/bin/env bash\nset -eu\nOPTS='-H fd://'\nexec /usr/bin/dockerd $OPTS $1\n", ["-H", "fd://", "-D"]),
    (b"#! /bin/bash\n# logs\ndockerd \\\n  -H fd:// \\\n  >>/var/log/docker 2>&1\n", ["-H", "fd://"]),
])
def test_script_files_are_evaluated(script: bytes, words: list[str]) -> None:
    found = program_of(("/opt/start", "-D"), {}, None, {"/opt/start": script}.__getitem__)
    assert (found.certain, [word.text for word in found.words]) == (True, words)
    assert {word.argument for word in found.words if word.text != "-D"} == {0}


@pytest.mark.parametrize("script", [
    b"", b"\x7fELF", b"#!/usr/bin/python3\nimport os", b"#!/bin/sh\nwhile :; do dockerd; done",
])
def test_other_programs_are_uncertain(script: bytes) -> None:
    found = program_of(("/opt/start",), {}, None, lambda _: script)
    assert (found.certain, found.words) == (False, ())
