"""`check`: the policy alone."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockerd_guard.model.location import Location
from dockerd_guard.policy.keys import KEYS, Type, keys_in
from dockerd_guard.policy.model import Policy
from dockerd_guard.policy.reader import parse_policy
from dockerd_guard.report.effective_policy import as_yaml, duration
from tests.support.command_line import Call, run
from tests.support.policy_cases import ADDRESSES, FD_SOCKETS, FULL, HEAD, LISTEN_STREAMS

pytest_plugins = ["tests.support.fixtures"]
pytestmark = pytest.mark.libraries

NOWHERE = Location("")

POLICIES = (
    HEAD, FULL,
    *(f"version: 1\n{sockets}\n" for sockets, _ in FD_SOCKETS),
    *(f"version: 1\nsockets: ['{address}']\n" for address, _ in ADDRESSES),
    *(f"{HEAD}socket_unit: {{listen: ['{value}']}}\n" for value, address in LISTEN_STREAMS if address),
    f"{HEAD}correct: {{restart: never, budget: 20/90min, foreign_files: no, contain: off}}\n",
    f"{HEAD}correct: {{splay: 1h 30min}}\n",
    f"{HEAD}correct: {{fleet: {{lock: etcd, endpoints: ['https://a:1/', 'http://[::1]:2379'], group: p.1, slots: 12, "
    "lease: 30s, timeout: 100ms, unreachable: proceed, tls: {ca: /ca, cert: /cert, key: /key}}}\n",
    f"{HEAD}correct: {{fleet: {{lock: fleetlock, endpoints: ['https://a/base/'], group: default}}}}\n",
    f"{HEAD}watch: {{settle: 1.5ms, resync: 23h 59min}}\n",
    f"{HEAD}correct: {{budget: 1/999999999d 999999999d}}\n",
    f"{HEAD}tls: {{ca: '/ä b/#c: d', cert: \"/'\\\"\\\\\", key: /~}}\n",
    f"{HEAD}waive: [{{rule: DG103, reason: 'no'}}, "
    "{rule: DG104, reason: \"# a: 'b'\\n  c \\x1b 😀\", until: 2027-01-01}]\n",
)

MEANINGS = (
    (HEAD, ["mode: observe: drift is reported in the journal, nothing is changed.",
            "  unix:///run/docker.sock (passed by docker.socket)",
            "Restarts of dockerd (by `dockerd-guard fix` only): only if its containers keep running, "
            "at most 3 in 1h."]),
    ("version: 1\nmode: enforce\nsockets: [tcp://10.0.0.5:2376]\n",
     ["mode: enforce: drift is reported in the journal and corrected.",
      "  tcp://10.0.0.5:2376, TLS, clients need a certificate"]),
    ("version: 1\nsockets: [{address: 'tcp://[::]:2375', tls: none}]\n",
     ["  tcp://[::]:2375, without TLS",
      "DANGER: tcp://[::]:2375 gives root to every client that reaches any address of this host."]),
    (f"{HEAD}mode: enforce\ncorrect: {{restart: never, contain: false, foreign_files: false}}\n",
     ["Restarts of dockerd: never.", "Foreign files: not changed.", "Containment: off."]),
    (f"{HEAD}mode: enforce\ncorrect: {{restart: always, window: 'Sat 02:00-05:00 UTC', budget: 1/1d}}\n",
     ["Restarts of dockerd: even if containers stop, during Sat 02:00-05:00 UTC, at most 1 in 1d."]),
    (f"{HEAD}mode: enforce\ncorrect: {{splay: 30min}}\n",
     ["Restarts of dockerd: only if its containers keep running, at most 3 in 1h, spread over 30min in a fleet."]),
    (f"{HEAD}mode: enforce\ncorrect: {{fleet: {{lock: etcd, endpoints: ['https://a:1'], group: prod, slots: 2}}}}\n",
     ["A restart needs one of 2 slots of the group prod (lock: etcd); none is restarted while https://a:1 cannot be "
      "reached."]),
    (f"{HEAD}mode: enforce\ncorrect: {{fleet: {{lock: fleetlock, endpoints: ['https://a:1'], group: prod, "
     "unreachable: proceed}}\n",
     ["A restart needs one of the slots of the group prod (lock: fleetlock); restarted all the same while https://a:1 "
      "cannot be reached."]),
    (f"{HEAD}waive: [{{rule: DG103, reason: \"CI\\u001b[31m\"}}]\n", ["Accepted: DG103: CI\ufffd[31m"]),
    (f"{HEAD}waive: [{{rule: DG103, address: 'tcp://:1', reason: CI, until: 2999-01-31}}]\n",
     ["Accepted: DG103, address tcp://localhost:1, until 2999-01-31: CI"]),
)
"""Policies, and lines of the output."""


def without_locations(policy: Policy) -> Policy:
    return policy._replace(
        sockets=tuple(socket._replace(location=NOWHERE) for socket in policy.sockets),
        socket_unit=policy.socket_unit._replace(
            listen=tuple(listen._replace(location=None) for listen in policy.socket_unit.listen)),
        tls=policy.tls._replace(location=None),
        waive=tuple(waiver._replace(location=NOWHERE) for waiver in policy.waive))


@pytest.mark.parametrize("text", POLICIES)
def test_the_printed_policy_is_the_same_policy(text: str) -> None:
    policy = parse_policy(text.encode())
    printed = as_yaml(policy)
    assert without_locations(parse_policy(printed.encode())) == without_locations(policy)
    assert as_yaml(parse_policy(printed.encode())) == printed
    assert printed.isascii() and "\x1b" not in printed


def test_every_key_is_printed() -> None:
    values = {Type.RULE: "DG103", Type.ADDRESS: "tcp://10.0.0.5:2375", Type.TEXT: "text", Type.DATE: "2027-01-31"}
    waiver = ", ".join(f"{word}: '{values[key.type]}'" for word, key in keys_in("waive[]").items())
    fleet = "  fleet: {lock: etcd, endpoints: ['https://a'], group: x, tls: {ca: /a, cert: /b, key: /c}}\n"
    printed = as_yaml(parse_policy(f"{FULL}  - {{{waiver}}}\n".replace("watch:\n", f"{fleet}watch:\n").encode()))
    assert [key.name for key in KEYS if f"{key.word}:" not in printed] == []


@pytest.mark.parametrize(("seconds", "text"), [
    (0.1, "100ms"), (300, "5min"), (5400, "1h 30min"), (0.0015, "1ms 500us"), (86400, "1d"), (59.999, "59s 999ms")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("text", "lines"), MEANINGS)
def test_the_meaning_of_a_policy(call: Call, tmp_path: Path, text: str, lines: list[str]) -> None:
    (tmp_path / "policy.yaml").write_text(text)
    said = call("check", tmp_path / "policy.yaml")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith(f"{tmp_path}/policy.yaml is valid.\n")
    assert [line for line in lines if line not in said.out.splitlines()] == []


def test_quiet_prints_only_warnings(call: Call, tmp_path: Path) -> None:
    """Such a waiver is valid: the rule may be one of another version, and time passes."""
    path = tmp_path / "policy.yaml"
    path.write_text(f"{HEAD}waive:\n- {{rule: DG103, reason: x, until: 2020-02-01}}\n- {{rule: DG999, reason: x}}\n")
    said = call("check", "--quiet", path)
    assert (said.code, said.out) == (0, "")
    assert said.err.splitlines() == [
        f"dockerd-guard: {path}:4:10: warning: the waiver for DG103 has expired: its last day was 2020-02-01",
        f"dockerd-guard: {path}:5:10: warning: the waiver for DG999 has no effect: there is no such rule"]


@pytest.mark.parametrize(("text", "said"), [
    ("version: 1\nsokets: [fd://]\n", "2:1: unknown key 'sokets' in the policy; did you mean 'sockets'?"),
    ("", "1:1: empty file"),
    ("a: [", "not YAML"),
    ("#" * (256 * 1024 + 1), "larger than 256 KiB"),
])
@pytest.mark.parametrize("options", [(), ("--print",), ("--quiet",)], ids=" ".join)
def test_an_invalid_policy_exits_with_2(
        call: Call, tmp_path: Path, text: str, said: str, options: tuple[str, ...]) -> None:
    (tmp_path / "policy.yaml").write_text(text)
    done = call("check", tmp_path / "policy.yaml", *options)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    piped = run("check", "-", *options, input=text.encode())
    assert (piped.returncode, piped.stdout) == (2, b"")
    assert said in piped.stderr.decode()


def test_no_file_to_check(call: Call, tmp_path: Path) -> None:
    for name, said in (("missing", "no such file"), (".", "is a directory, not a regular file")):
        done = call("check", tmp_path / name)
        assert (done.code, said in done.err) == (2, True), done.err
    # As by a variable that is not set.
    assert "is a directory, not a regular file" in call("check", "").err
    assert "chmod" not in call("check", os.devnull).err


def test_standard_input_and_a_relative_path() -> None:
    piped = run("check", "-", input=HEAD.encode())
    assert (piped.returncode, piped.stdout.splitlines()[0]) == (0, b"<stdin> is valid.")
    assert run("check", "--print", "-", input=run("check", "--print", "-", input=FULL.encode()).stdout).returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of several owners")
class TestOwnership:
    @pytest.fixture
    def directory(self) -> Iterator[Path]:
        """As Ansible makes one: private, in a directory that everyone can write."""
        where = Path(tempfile.mkdtemp(dir="/tmp"))
        (where / "config.yaml").write_text(HEAD)
        (where / "config.yaml").chmod(0o600)
        yield where
        shutil.rmtree(where)

    def test_a_file_to_be_installed(self, directory: Path, call: Call) -> None:
        assert call("check", directory / "config.yaml").code == 0
        directory.chmod(0o777)
        assert call("check", directory / "config.yaml").code == 0

    @pytest.mark.parametrize(("mode", "owner", "said"), [
        (0o664, 0, "writable by group 0 (mode 0664)"), (0o602, 0, "writable by everyone (mode 0602)"),
        (0o600, 65534, "owned by uid 65534, must be owned by root")])
    def test_a_file_that_the_agent_would_refuse(
            self, directory: Path, call: Call, mode: int, owner: int, said: str) -> None:
        (directory / "config.yaml").write_text(f"{HEAD}moed: enforce\n")
        (directory / "config.yaml").chmod(mode)
        os.chown(directory / "config.yaml", owner, 0)
        (directory / "link.yaml").symlink_to("config.yaml")
        for name in ("config.yaml", "link.yaml"):
            done = call("check", directory / name)
            assert (done.code, said in done.err) == (2, True), done.err
            assert "unknown key 'moed'" in done.err

    def test_another_account_checks_only_the_text(
            self, directory: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
        (directory / "config.yaml").chmod(0o666)
        monkeypatch.setattr(os, "geteuid", lambda: 65534)
        assert call("check", directory / "config.yaml").code == 0
