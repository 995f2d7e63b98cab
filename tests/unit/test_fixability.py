"""`fix` resolves every finding that `lint` reports as fixable: fixability is derived from the whole plan."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from dockerd_guard.agent.reconcile import assess, by_hand
from dockerd_guard.model.instant import Instant
from dockerd_guard.observe.configured import observe_configured
from dockerd_guard.observe.kernel import HostKernel
from dockerd_guard.observe.observation import Observation
from dockerd_guard.plan.assessment import annotate_fixability
from dockerd_guard.plan.memory import Memory
from dockerd_guard.policy.model import Policy
from dockerd_guard.policy.reader import parse_policy
from dockerd_guard.rootfs import Rootfs
from dockerd_guard.rules.judge import judge
from tests.support.hosts import STOCK

OVERRIDE = "/etc/systemd/system/docker.service.d/override.conf"
DAEMON_JSON = "/etc/docker/daemon.json"
FD = "sockets: [fd://]"
TLS = "sockets: [fd://, {address: tcp://127.0.0.1:2376, tls: mutual}]"


def command(arguments: str) -> dict[str, str]:
    return {OVERRIDE: f"[Service]\nExecStart=\nExecStart=/usr/bin/dockerd {arguments}\n"}


def policy(text: str) -> Policy:
    return parse_policy(f"version: 1\n{text}\n".encode(), "/policy.yaml")


def fixability(root: Path, files: dict[str, str], wanted: Policy) -> set[str]:
    """Return the code and `fix` of each finding. Asserts that the plan resolves all findings with a `fix`."""
    contents = {path: text.encode() for path, text in {**STOCK, **files}.items()}
    with Rootfs(str(root), contents) as rootfs:
        seen = Observation(rootfs, observe_configured(rootfs))
        assessment, _ = assess(seen, judge(seen, wanted), wanted, Memory(), Instant(datetime.now(UTC)), HostKernel(),
                               None, by_hand)
        plan = assessment.plan
        findings = annotate_fixability(assessment)
        resolved = {finding.fact for finding in findings}
        if plan.changes:
            with rootfs.changed({change.path: change.after for change in plan.changes}) as corrected:
                resolved -= {finding.fact for finding in judge(Observation(corrected, plan.after), wanted)}
            assert {finding.fact for finding in findings if finding.fix is not None} <= resolved
    return {f"{finding.code} {finding.fix}" for finding in findings}


@pytest.mark.parametrize(("files", "wanted", "expected"), [
    pytest.param(command("-H fd:// -H tcp://:2375"), FD,
                 {"DG101 safe", "DG103 safe", "DG203 safe"}, id="an open port"),
    pytest.param(command("-H fd:// --nothing"), FD, {"DG102 None", "DG205 None"}, id="a flag that stands in the way"),
    pytest.param({DAEMON_JSON: "{"}, FD, {"DG102 None", "DG205 None"}, id="a daemon.json that stands in the way"),
    pytest.param(command('-H fd:// --label "a'), FD, {"DG102 None", "DG302 None"}, id="no command to keep"),
    pytest.param({}, TLS, {"DG102 None"}, id="certificates that are not there"),
    pytest.param(command("-H fd:// -H unix:///run/docker.sock"), FD, {"DG208 safe"},
                 id="a socket of its own in place of that of fd://"),
    pytest.param(command("-H fd:// -H tcp://0.0.0.0:2375 --tlsverify=false --tlscert=/a --tlskey=/b"), FD,
                 {"DG101 safe", "DG103 safe", "DG105 safe", "DG206 safe"},
                 id="an ineffective TLS option that is removed with the port"),
    pytest.param(command("-H 2375"), FD, {"DG101 safe", "DG102 safe", "DG103 safe", "DG203 safe"},
                 id="a host that is read as something else"),
    pytest.param({DAEMON_JSON: '{"hosts": ["tcp://0.0.0.0:2375"]}'}, FD,
                 {"DG101 unsafe", "DG102 safe", "DG103 unsafe", "DG201 unsafe"}, id="hosts conflict"),
    pytest.param({DAEMON_JSON: '{"hosts": ["tcp://0.0.0.0:2375"]}'}, f"{FD}\ncorrect: {{foreign_files: false}}",
                 {"DG101 None", "DG102 None", "DG103 None", "DG201 None"}, id="hosts conflict, foreign_files: false"),
    pytest.param({DAEMON_JSON: '{"host": []}'}, FD, {"DG306 None"}, id="an ineffective key"),
])
def test_fixability(
    files: dict[str, str], wanted: str, expected: set[str], tmp_path: Path
) -> None:
    assert fixability(tmp_path, files, policy(wanted)) == expected
