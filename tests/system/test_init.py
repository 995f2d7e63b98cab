"""`init` on hosts with various configurations: the agent accepts the policy, and only the differences that `init`
reported are drift."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

import pytest

from tests.demo import CERTIFICATES
from tests.machines.machine import Machine, wait_for
from tests.support.correction import DOCKERD, OVERRIDE, POLICY, SOCKET_OVERRIDE, UNIT

AGENT = "dockerd-guard.service"
MADE = ("/usr/share/man/man8/dockerd-guard.8.gz", "/usr/share/man/man5/dockerd-guard.yaml.5.gz",
        "/usr/share/bash-completion/completions/dockerd-guard", "/usr/share/zsh/vendor-completions/_dockerd-guard",
        "/usr/share/fish/vendor_completions.d/dockerd-guard.fish", "/usr/share/dockerd-guard/policy.schema.json")

TLS = "--tlsverify --tlscacert=/etc/docker/ca.pem --tlscert=/etc/docker/server-cert.pem " \
      "--tlskey=/etc/docker/server-key.pem"
BY_SOCKETS = ("systemctl daemon-reload; systemctl stop docker.socket docker.service; "
              "systemctl start docker.socket docker-tcp.socket docker.service")
TCP_SOCKET = "[Socket]\nListenStream=2375\nService=docker.service\n[Install]\nWantedBy=sockets.target\n"


class History(NamedTuple):
    """Changes of a host, the sockets that `init` then declares, the codes that lint reports, and whether the host
    differs."""

    name: str
    files: Mapping[str, str]
    line: str
    declared: tuple[str, ...]
    codes: tuple[str, ...] = ()
    differs: bool = False


# --tls=false avoids the 15 s that dockerd waits before it opens TCP without TLS.
HISTORIES = (
    History("nothing", {}, "", ("- fd://",)),
    History("the guide", {}, f"sed -i 's|^ExecStart=.*|& -H=tcp://0.0.0.0:2375 --tls=false|' {UNIT}",
            ("- fd://", "- address: tcp://0.0.0.0:2375", "tls: none"), ("DG103", "DG304")),
    History("hosts in daemon.json", {
        OVERRIDE: f"[Service]\nExecStart=\nExecStart={DOCKERD}\n",
        "/etc/docker/daemon.json": '{"hosts": ["fd://", "tcp://127.0.0.1:2375"], "tls": false}\n'},
            "", ("- fd://", "- address: tcp://127.0.0.1:2375", "tls: none"), ("DG103",)),
    History("hosts twice", {"/etc/docker/daemon.json": '{"hosts": ["tcp://127.0.0.1:2375"]}\n'},
            "", ("- fd://", "- address: tcp://127.0.0.1:2375", "tls: none"), ("DG102", "DG103", "DG201"), differs=True),
    History("TLS", {OVERRIDE: f"[Service]\nExecStart=\nExecStart={DOCKERD} -H fd:// -H tcp://10.77.0.2:2376 {TLS}\n"},
            CERTIFICATES, ("- fd://", "- address: tcp://10.77.0.2:2376", "tls: mutual"), ("DG206",)),
    History("a second socket unit", {"/etc/systemd/system/docker-tcp.socket": TCP_SOCKET},
            f"systemctl enable docker-tcp.socket; {BY_SOCKETS}",
            ("- address: fd://", "tls: none", "- /run/docker.sock", "- '[::]:2375'"), ("DG103",)),
    History("all of these", {
        OVERRIDE: f"[Service]\nExecStart=\nExecStart={DOCKERD} -H fd:// -H tcp://127.0.0.1:4243 --tls=false "
                  "$DOCKER_OPTS\nEnvironmentFile=-/etc/default/docker\n",
        "/etc/default/docker": "DOCKER_OPTS='-H unix:///run/docker-ci.sock'\n",
        SOCKET_OVERRIDE: "[Socket]\nSocketMode=0666\n",
        "/etc/systemd/system/docker-tcp.socket": TCP_SOCKET},
            f"systemctl enable docker-tcp.socket; {BY_SOCKETS}",
            ("- address: fd://", "- address: tcp://127.0.0.1:4243", "- unix:///run/docker-ci.sock", "- '[::]:2375'"),
            ("DG103", "DG106")),
)


@pytest.mark.parametrize("history", HISTORIES, ids=lambda history: history.name)
def test_init_adopts_the_current_state(machine: Machine, history: History) -> None:
    for path, text in history.files.items():
        machine.write(path, text)
    machine.run(["sh", "-c", history.line])
    machine.run("systemctl daemon-reload; systemctl restart docker", check=False)
    state = "failed" if history.differs else "active"
    wait_for(lambda: machine.properties("docker.service", "ActiveState")["ActiveState"] == state, f"{state} dockerd")

    refused = machine.run("dockerd-guard init", check=False)
    assert (refused.status, f"{POLICY} exists" in refused.err) == (2, True)
    installed = machine.read(POLICY)
    output = machine.run("dockerd-guard init --force").out
    text = machine.read(POLICY)
    assert machine.read(f"{POLICY}.dockerd-guard-saved") == installed
    assert machine.run(["stat", "-c", "%U:%G %a", POLICY]).out == "root:root 644\n"
    for words in history.declared:
        assert f"  {words}" in text

    found = json.loads(machine.run("dockerd-guard lint --format json", check=False).out)["findings"]
    codes = {finding["code"] for finding in found}
    assert set(history.codes) <= codes, found
    assert codes <= set(history.codes) | {"DG402"}, found
    assert all(code in text and code in output for code in codes)
    diff = json.loads(machine.run("dockerd-guard diff --format json", check=False).out)
    assert bool(diff["changes"]) == history.differs, diff
    assert diff["steps"] == [] or history.differs, diff
    assert all(change["path"] in text for change in diff["changes"])

    machine.run("systemctl reload dockerd-guard")
    wait_for(lambda: machine.journal(f"--unit={AGENT}", "DOCKERD_GUARD_EVENT=policy")[1:], "entry about the new policy")
    wait_for(lambda: machine.is_active(AGENT), "running agent")


def test_generated_files_are_installed(machine: Machine) -> None:
    assert [path for path in MADE if not machine.exists(path)] == []
    assert machine.run(f"bash -c '. {MADE[2]}; complete -p dockerd-guard'").out
