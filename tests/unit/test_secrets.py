"""I11: no output contains the value of an option, a variable or a key, valid or refused.

Exempt are addresses and paths, and lines of files that the caller can read: excerpts of `lint` (` 3 | ...`) and the
changes of `diff`, which are useless without them. `sockets --format json` has argv by contract, for the caller only.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dockerd_guard.agent import status_file, textfile
from dockerd_guard.agent.publisher import Publisher, Standing
from dockerd_guard.agent.states import AgentState
from dockerd_guard.apply.files import PUBLIC, write
from dockerd_guard.dockerd.daemon import resolve_daemon
from dockerd_guard.dockerd.options import Options, options_of
from dockerd_guard.dockerd.version import Version
from dockerd_guard.observe.configured import observe_configured
from dockerd_guard.plan.plan import make_plan
from dockerd_guard.rules.judge import judge
from tests.simulation.agent import SimulatedAgent
from tests.support.command_line import Call
from tests.support.hosts import OVERRIDE, Host
from tests.support.situations import policy, read_policy

pytest_plugins = ["tests.support.fixtures"]

MARK = "hunter2"
DAEMON_JSON = "/etc/docker/daemon.json"
ENVIRONMENT = "/etc/default/docker"
DROPIN = "/etc/systemd/system/docker.service.d/a.conf"
VERSIONS = ("20.10.24", "26.1.5", "28.5.2", "29.7.2")
NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
ADDRESSES = {"host", "hosts", "metrics-addr"}
PATHS = {"config-file", "containerd", "data-root", "exec-root", "graph", "pidfile", "tlscacert", "tlscert", "tlskey"}
VALUES = (MARK, f"{MARK}=1", f"a={MARK}", f"a={MARK}=b", f"nofile={MARK}", f"https://u:{MARK}@h", f"base=1,size={MARK}",
          f"native.cgroupdriver={MARK}", f"com.docker.{MARK}=1", f"-{MARK}", f"1{MARK}", f"mode={MARK}", "")
JSON_VALUES: tuple[object, ...] = (
    MARK, [MARK], [[MARK]], {"a": MARK}, {"a": {"b": MARK}}, {"a": [MARK]}, [f"a={MARK}"], [f"https://u:{MARK}@h"],
    [f"native.cgroupdriver={MARK}"], [{"base": MARK, "size": 1}], [{"base": "10.0.0.0/8", "size": MARK}],
    {"name": {"path": MARK, "runtimeArgs": MARK}}, {"http-proxy": f"http://u:{MARK}@h"}, {"splunk-token": MARK},
    {"mode": MARK},
)


def options(version: str) -> Options:
    return options_of(Version.parse(version))


def flags(version: str) -> Iterator[str]:
    """One command line for each option and value, and each error of the grammar."""
    for name in options(version).by_name:
        if name not in ADDRESSES | PATHS:
            # The name of a log option is shown, also an unknown one.
            yield from (f"'--{name}={value}'" for value in VALUES if not (name == "log-opt" and f"{MARK}=" in value))
    yield from (f"--label a={MARK} --label a=x{MARK}", f"--={MARK}", f"--nope={MARK}", f"-X{MARK}", f"-D={MARK}",
                f"{MARK}", f"--add-runtime {MARK}=a --add-runtime {MARK}=b", f"--log-opt splunk-token={MARK}",
                f"--log-level %Z{MARK}")


def documents(version: str) -> Iterator[str]:
    """One daemon.json for each key and value."""
    for name in options(version).fields:
        if name not in ADDRESSES | PATHS:
            yield from (json.dumps({name: value}) for value in JSON_VALUES)
            yield f'{{"{name}": "{MARK}'
    yield from (f'{{"mtu": {number}}}' for number in ("1e999", "-7", "1.5"))


def both(version: str) -> Iterator[tuple[str, str]]:
    """A flag and the key of the same name, which dockerd refuses."""
    for name, option in options(version).by_name.items():
        if name not in ADDRESSES | PATHS:
            for value in (MARK, [MARK], {"a": MARK}):
                yield f"'--{name}=a={MARK}'", json.dumps({option.key or name: value})


LINES = (
    f"Environment={MARK}", f"Environment=A=%Z{MARK}", f"EnvironmentFile=A={MARK}", f"PassEnvironment=1{MARK}",
    f"UnsetEnvironment=1{MARK}=1", f"User={MARK}:b", f"Type={MARK}", f"KillMode={MARK}", f"PIDFile=a/../{MARK}",
    f"BusName={MARK}", f"DynamicUser={MARK}", f"WorkingDirectory={MARK}", f"RootDirectory={MARK}",
    f"RootImagePolicy={MARK}", f"Sockets={MARK}", f"ExecStop=/bin/x '{MARK}", f"ExecStop=/bin/x %Z{MARK}",
    f"ExecStop=/bin/x a\\q{MARK}", f"ExecStop={MARK}/", f"ExecStop=@/bin/x\nExecStop=@- {MARK}", f"ExecStop=- {MARK}",
    f"[{MARK}", f"[\x01{MARK}]", f"Environment='A={MARK}", f"SELinuxContext=%Z{MARK}", f"X={MARK}", MARK,
    f"PAMName=%Z{MARK}", f"Restart={MARK}",
)
"""Lines of a drop-in that systemd ignores or refuses."""

SOCKET_LINES = (
    f"ListenStream={MARK}", f"ListenStream=%Z{MARK}", f"ListenFIFO={MARK}", f"ListenNetlink={MARK} 1",
    f"ListenSequentialPacket=1.2.3.4:{MARK}", f"Service={MARK}", f"Service={MARK}@.service", f"SocketUser={MARK}:",
    f"SocketMode={MARK}", f"BindIPv6Only={MARK}", f"Accept={MARK}",
)
ENVIRONMENT_FILES = (f"1A={MARK}", f"{MARK}", f"'A={MARK}", f"DOCKER_OPTS=--log-level={MARK}",
                     f"DOCKER_OPTS='--label {MARK}'", f"OTHER={MARK}")


START = "[Service]\nExecStart=\nExecStart=/usr/bin/dockerd -H fd:// "
TOKEN = f"--log-driver=splunk --log-opt splunk-token={MARK}"

CASES: dict[str, dict[str, str]] = {
    "log-opts twice": {OVERRIDE: f"{START}{TOKEN}\n",
                       DAEMON_JSON: json.dumps({"live-restore": True, "log-opts": {"splunk-token": MARK}})},
    "valid log-opts": {OVERRIDE: f"{START}{TOKEN}\n"},
    "an open port beside log-opts": {OVERRIDE: f"{START}-H tcp://0.0.0.0:2375 {TOKEN}\n"},
    "a mirror": {DAEMON_JSON: f'{{"registry-mirrors": ["https://u:{MARK}@h"]}}'},
    "a label": {OVERRIDE: f"{START}--label {MARK}\n"},
    "log-level": {DAEMON_JSON: f'{{"log-level": "{MARK}"}}'},
    "log-driver": {DAEMON_JSON: f'{{"log-driver": "{MARK}", "log-opts": {{"mode": "{MARK}"}}}}'},
    "a proxy": {OVERRIDE: f"[Service]\nEnvironment=HTTPS_PROXY=http://u:{MARK}@h\n"},
    "a host with a password": {OVERRIDE: f"{START}-H tcp://u:{MARK}@0.0.0.0:2375\n"},
    "a refused host with a password": {OVERRIDE: f"{START}-H tcp://u:{MARK}@0.0.0.0:99999999999999999999\n"},
    "a host with a query": {OVERRIDE: f"{START}-H tcp://0.0.0.0:2375?{MARK}\n"},
    "quotes": {OVERRIDE: f"{START}--label '{MARK}\n"},
    "a specifier": {OVERRIDE: f"{START}--label %Z{MARK}\n"},
    "syntax of daemon.json": {DAEMON_JSON: f'{{"log-level": "{MARK}'},
    "a variable": {DROPIN: f"[Service]\nEnvironmentFile={ENVIRONMENT}\nExecStart=\nExecStart=/usr/bin/dockerd "
                           "-H fd:// $DOCKER_OPTS\n",
                   ENVIRONMENT: f"DOCKER_OPTS='-H tcp://0.0.0.0:2375 --log-opt splunk-token={MARK}'\nOTHER={MARK}\n"},
    "a variable without use": {ENVIRONMENT: f"DOCKER_OPTS=--label={MARK}\n"},
    "a shell": {OVERRIDE: f"[Service]\nExecStart=\nExecStart=/bin/sh -c 'exec dockerd -H fd:// --label {MARK} $X'\n"},
    "the client": {OVERRIDE: f"[Service]\nExecStart=\nExecStart=/usr/bin/docker {MARK}\n"},
}


def outside_files(out: str) -> str:
    """The output without excerpts and lines of a diff."""
    return "\n".join(line for line in out.splitlines() if not re.match(r" *[0-9]+ \| |[-+ ]", line))


@pytest.mark.parametrize("version", VERSIONS)
def test_no_reason_of_dockerd_has_a_value(version: str) -> None:
    found: list[str] = []
    refused = 0
    cases = [*((line, "{}") for line in flags(version)), *(("", text) for text in documents(version)), *both(version)]
    for line, text in cases:
        words = tuple(shlex.split(line))
        files = {DAEMON_JSON: text.encode(), "/etc/group": b"root:x:0:\n", "/etc/nsswitch.conf": b""}
        daemon = resolve_daemon(("dockerd", "-H", "fd://", *words), {"HOME": "/root"}, files.__getitem__,
                                Version.parse(version))
        refused += not daemon.starts
        if MARK in f"{daemon.reason} {daemon.config_error}":
            found.append(f"{line} {text}: {daemon.reason}")
    assert found == []
    assert refused > len(cases) / 10


@pytest.mark.parametrize("files", [
    *({DROPIN: f"[Service]\n{line}\n"} for line in LINES),
    *({DROPIN: f"[Service]\nEnvironmentFile={ENVIRONMENT}\nExecStart=\nExecStart=/usr/bin/dockerd $DOCKER_OPTS\n",
       ENVIRONMENT: f"{text}\n"} for text in ENVIRONMENT_FILES),
    *({"/etc/systemd/system/docker.socket.d/a.conf": f"[Socket]\n{line}\n"} for line in SOCKET_LINES),
])
def test_no_problem_of_systemd_has_a_value(files: dict[str, str], stock_host: Host) -> None:
    for path, text in files.items():
        stock_host.put(path, text)
    seen = stock_host.see()
    units = [seen.configured.service.unit, *(socket.unit for socket in seen.configured.sockets)]
    problems = [*seen.configured.environment.problems, *(problem for unit in units for problem in unit.problems)]
    texts = [*(problem.text for problem in problems), seen.configured.layer.reason or "",
             *(unit.reason or "" for unit in units), *(finding.message for finding in judge(seen, None))]
    assert [text for text in texts if MARK in text] == []


@pytest.mark.parametrize("name", CASES)
def test_no_output_has_a_value(name: str, stock_host: Host, tmp_path: Path, call: Call) -> None:
    for path, text in CASES[name].items():
        stock_host.put(path, text, 0o600)
    rules = tmp_path / "config.yaml"
    rules.write_text("version: 1\nsockets: [fd://]\n")
    where = ("--root", stock_host.root, "--policy", rules)
    for words in (*(("lint", "--format", form) for form in ("text", "json", "sarif", "github")), ("diff",)):
        said = call(*words, *where)
        assert said.code in (0, 1), said.err
        assert MARK not in outside_files(said.out) + said.err, words
    said = call("diff", "--format", "json", *where)
    answer = json.loads(said.out)
    assert MARK not in re.sub(r'"diff": "([^"\\]|\\.)*"', "", said.out), answer


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("rules", [
    "sockets: [fd://]", "sockets: [fd://]\ncorrect: {restart: never, foreign_files: true}",
    "sockets: [{address: 'tcp://127.0.0.1:2375', tls: none}]",
], ids=["correct", "hold", "TCP"])
def test_the_agent_publishes_no_value(
    name: str, rules: str, agent: SimulatedAgent, in_memory: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The journal, the status file and the STATUS= line, while it corrects and while it is held."""
    host = agent.host
    monkeypatch.setattr(status_file, "PUBLIC_FILE", str(in_memory / "public.json"))
    monkeypatch.setattr(textfile.publish, "__defaults__", (str(in_memory),))
    agent.run_pass()
    policy(f"mode: enforce\n{rules}")(host)
    for path, content in CASES[name].items():
        host.put(path, content)
    publisher = Publisher(agent.journal, agent.controller._tracker, str(in_memory))
    lines: list[str] = []
    for act in (host.reload, lambda: host.restart("admin"), lambda: None):
        agent.run_pass()
        act()
        host.clock.sleep(120)
        agent.run_pass()
        standing = Standing(AgentState.WATCHING, agent.controller.policy, NOON, "", agent.controller.memory, False, 0,
                            1.0, 0.0)
        publisher.publish(standing)
        lines.append((in_memory / "public.json").read_text() + publisher.status_line(standing))
    texts = [*map(str, agent.journal.entries), *agent.journal.lines, *lines]
    assert [each for each in texts if MARK in each] == []


@pytest.mark.parametrize(("modes", "wanted"), [
    ({OVERRIDE: 0o644}, 0o644),
    ({OVERRIDE: 0o600}, 0o600),
    ({OVERRIDE: 0o640}, 0o640),
    ({"/etc/systemd/system/docker.service.d": 0o700}, 0o600),
    ({"/usr/lib/systemd/system/docker.service": 0o600}, 0o644),
    ({ENVIRONMENT: 0o600}, 0o600),
])
def test_the_drop_in_is_as_private_as_what_it_copies(modes: dict[str, int], wanted: int, stock_host: Host) -> None:
    stock_host.put(OVERRIDE, f"[Service]\nEnvironmentFile={ENVIRONMENT}\nExecStart=\n"
                   f"ExecStart=/usr/bin/dockerd -H fd:// {TOKEN} $DOCKER_OPTS\n")
    stock_host.put(ENVIRONMENT, f"DOCKER_OPTS='-H tcp://0.0.0.0:2375 --label a={MARK}'\n")
    for directory in (stock_host.root, *filter(Path.is_dir, stock_host.root.rglob("*"))):
        directory.chmod(0o755)
    for path, mode in modes.items():
        (stock_host.root / path[1:]).chmod(mode)
    seen = stock_host.see()
    [change] = make_plan(seen.configured, seen.rootfs, read_policy("sockets: [fd://]"), observe_configured).changes
    assert isinstance(change.after, bytes)
    assert MARK.encode() in change.after
    assert oct(change.access.mode) == oct(wanted)


def test_an_existing_file_is_never_more_open_than_the_plan(tmp_path: Path) -> None:
    file = tmp_path / "a"
    for before, plan, after in ((0o644, 0o600, 0o600), (0o600, 0o644, 0o600), (0o640, 0o644, 0o640)):
        file.write_text("")
        file.chmod(before)
        write(str(file), b"x", PUBLIC._replace(mode=plan))
        assert file.stat().st_mode & 0o777 == after
