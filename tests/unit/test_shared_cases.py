"""`sockets` and `lint` on published configurations (../shared/cases), with the expected answers of each.

The cases whose answer is about another program than dockerd and its units are in OTHER.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dockerd_guard.model.address import Scope
from dockerd_guard.observe.configured import observe_configured
from dockerd_guard.observe.observation import Observation
from dockerd_guard.rootfs import Rootfs
from dockerd_guard.rules.judge import judge
from tests.support import shared

CASES = {path.parent.name: path.parent for path in sorted((shared.SHARED / "cases").glob("*/case.json"))}

OTHER = {"case-05": "a dockerd of an account", "case-11": "expects no hosts for a unit that is now read",
         "case-16": "wsl.conf", "case-18": "nginx", "case-19": "the environment of the manager at run time"}

FINDINGS = {
    "case-01": ["DG103 /etc/docker/daemon.json:2"],
    "case-02": ["DG103 /etc/default/docker:1", "DG207 /etc/default/docker:1", "DG208 /etc/default/docker:1"],
    "case-03": ["DG103 /etc/sysconfig/docker:1", "DG203 /etc/sysconfig/docker:1",
                "DG208 /etc/sysconfig/docker:1"],
    "case-04": ["DG103 /usr/lib/systemd/system/docker.service:15", "DG205 /usr/lib/systemd/system/docker.service:15"],
    "case-07": ["DG206 /etc/default/docker:8", "DG208 /etc/default/docker:8", "DG302 /etc/default/docker:5"],
    "case-08": ["DG103 /etc/systemd/system/docker.service:11", "DG208 /etc/systemd/system/docker.service:11"],
    "case-12": ["DG106 /etc/systemd/system/docker.service.d/socket-perms.conf:3"],
    "case-13": ["DG103 /etc/sysconfig/docker-network:1"],
    "case-15": ["DG205 /etc/docker/daemon.json:3"],
    "case-21": ["DG205 /etc/docker/daemon.json:9"],
    "case-23": ["DG202 /etc/docker/daemon.json:2"],
    "case-25": ["DG301 /etc/systemd/system/docker.service.d/override.conf:4"],
    "case-29": ["DG103 /etc/systemd/system/docker.socket.d/override.conf:2",
                "DG104 /etc/systemd/system/docker.socket.d/override.conf:2",
                "DG209 /etc/systemd/system/docker.service.d/override.conf:3"],
}
"""What `say` of each case asks for: rules and lines."""


@pytest.mark.parametrize("name", sorted(CASES.keys() - OTHER.keys()))
def test_published_configuration(name: str) -> None:
    expected: dict[str, Any] = json.loads((CASES[name] / "case.json").read_text())["expected"]
    seen, findings = looked_at(CASES[name])
    layer = seen.configured.layer
    places = sorted({f"{finding.code} {finding.location.file}:{finding.location.line}"
                     for finding in findings if finding.location})
    assert places == FINDINGS[name]
    if layer.starts or name != "case-04":  # dockerd refuses case-04, whose host is then shown as written
        assert sorted(layer.hosts) == sorted(expected["hosts"])
    if isinstance(expected["starts"], bool):
        assert layer.starts is expected["starts"]
    if isinstance(expected["unauth"], bool):
        exposed = any(binding.is_tcp and binding.scope is not Scope.LOOPBACK and binding.tls != "mutual"
                      for binding in layer.bindings)
        assert exposed is expected["unauth"]


def test_every_case_has_an_expected_answer() -> None:
    assert CASES.keys() == FINDINGS.keys() | OTHER.keys()


def looked_at(root: Path) -> tuple[Observation, tuple[Any, ...]]:
    with Rootfs(str(root)) as rootfs:
        seen = Observation(rootfs, observe_configured(rootfs))
        return seen, judge(seen, None)
