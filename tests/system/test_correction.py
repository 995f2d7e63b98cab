"""Exposures of the API and their correction, checked from another address."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

import pytest

from tests.machines.machine import ADDRESS, Machine, wait_for
from tests.support.correction import (
    DOCKERD,
    ENFORCE,
    EXPOSURES,
    LIVE_RESTORE,
    OUR_SERVICE_DROPIN,
    OUR_SOCKET_DROPIN,
    OVERRIDE,
    POLICY,
    SOCKET_OVERRIDE,
    UNIT,
    Exposure,
    enforce,
    entries,
    held_for,
    make_certificates,
    repaired,
    rests,
    settled,
)


@pytest.mark.parametrize("exposure", EXPOSURES, ids=lambda exposure: exposure.name)
def test_exposure_is_detected_and_closed_without_stopping_containers(machine: Machine, exposure: Exposure) -> None:
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.run("systemctl reload docker")
    container = machine.start_container()
    for path, text in exposure.files.items():
        machine.write(path, text)
    if exposure.line:
        machine.run(exposure.line)
    machine.run("systemctl daemon-reload; systemctl restart docker")
    wait_for(machine.api_answers, "open API")

    def reported() -> list[dict[str, str]]:
        # A look in the middle of the changes may find what systemd has loaded, and not yet its file.
        return [entry for entry in entries(machine, "drift")
                if entry["DOCKERD_GUARD_RULE"] == "DG101" and "DOCKERD_GUARD_FILE" in entry]

    def files() -> set[str]:
        # /lib is a link to /usr/lib, and systemd 255 and later search only the latter.
        return {entry["DOCKERD_GUARD_FILE"].removeprefix("/usr") for entry in reported()}

    # One entry follows the other.
    wait_for(lambda: exposure.blamed in files(), "drift entry")
    seen = reported()
    assert files() <= {exposure.blamed, OVERRIDE}
    assert all(int(entry["DOCKERD_GUARD_LINE"]) >= 1 for entry in seen)

    enforce(machine)
    wait_for(lambda: repaired(machine), "correction")
    assert not machine.api_answers()
    assert not machine.api_answers(port=4243)
    assert machine.socket_answers()
    assert machine.container_pid() == container
    last = repaired(machine)[-1]
    assert (last["DOCKERD_GUARD_OUTCOME"], last["DOCKERD_GUARD_CAUSE"]) == ("repaired", "policy-change")
    written = machine.run("find /etc/systemd/system -name zz-dockerd-guard.conf").out.split()
    assert sorted(written) == sorted(exposure.written)

    # A second pass changes nothing. When the drift is removed, our files are removed.
    before = machine.main_pid()
    assert machine.run("dockerd-guard fix").out == "Docker listens as declared.\n"
    machine.remove(*exposure.files)
    machine.run(f"sed -i 's| -H=tcp://0.0.0.0:2375 --tls=false||' {UNIT}")
    wait_for(lambda: not machine.run("find /etc/systemd/system -name zz-dockerd-guard.conf", check=False).out,
             "removal of our files")
    settled(machine)
    assert machine.main_pid() == before
    assert machine.container_pid() == container


def test_correction_keeps_other_arguments(machine: Machine) -> None:
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.write(OVERRIDE, "[Service]\nExecStart=\n"
                  f"ExecStart={DOCKERD} -H tcp://0.0.0.0:2375 --label 'host=%H' --tls=false $DOCKER_OPTS "
                  "--label \"quoted=$$a b\"\n")
    machine.write("/etc/default/docker", 'DOCKER_OPTS="--label from=file -H unix:///run/other.sock"\n')
    machine.run("systemctl daemon-reload; systemctl restart docker")
    enforce(machine)
    wait_for(lambda: repaired(machine), "correction")
    argv = machine.run(f"tr '\\0' '\\n' < /proc/{machine.main_pid()}/cmdline").out.split("\n")[1:-1]
    host = machine.run("hostname").out.strip()
    assert argv == ["-H", "fd://", "--label", f"host={host}", "--tls=false", "--label", "from=file",
                    "--label", "quoted=$a b"]
    assert "%H" in machine.read(OUR_SERVICE_DROPIN)


TCP = f"[Service]\nExecStart=\nExecStart={DOCKERD} -H fd:// -H tcp://{ADDRESS}:2376"
SERVER = {"tls": True, "tlsverify": False, "tlscert": "/etc/docker/server-cert.pem",
          "tlskey": "/etc/docker/server-key.pem"}
SERVER_FLAGS = " ".join(f"--{name}={value}".lower() for name, value in SERVER.items())

# The state of a socket before it is declared with mutual TLS: files, and the scheme that needs no certificate.
WEAKER: Mapping[str, tuple[Mapping[str, str], str]] = {
    "missing": ({}, ""),
    "without TLS": ({OVERRIDE: f"{TCP} --tls=false\n"}, "http"),
    "with TLS without client certificates": (
        {OVERRIDE: f"{TCP} {SERVER_FLAGS}\n"}, "https"),
    "the same by daemon.json": (
        {OVERRIDE: f"{TCP}\n", "/etc/docker/daemon.json": json.dumps(SERVER)}, "https"),
}


@pytest.mark.parametrize("before", WEAKER)
def test_mutual_tls_requires_a_client_certificate(machine: Machine, before: str) -> None:
    make_certificates(machine)
    files, scheme = WEAKER[before]
    anybody = f"curl --silent --insecure --max-time 5 {scheme}://{ADDRESS}:2376/_ping"
    for path, text in files.items():
        machine.write(path, text)
    if files:
        machine.run("systemctl daemon-reload; systemctl restart docker")
        wait_for(lambda: machine.outside(anybody, check=False).out == "OK", "open API")
    enforce(machine, "version: 1\nmode: enforce\nsockets:\n  - fd://\n"
                     f"  - address: tcp://{ADDRESS}:2376\n    tls: mutual\n")
    wait_for(lambda: repaired(machine), "correction")
    docker = f"docker --tlsverify --tlscacert /root/outside/ca.pem -H tcp://{ADDRESS}:2376"
    with_certificate = "--tlscert /root/outside/cert.pem --tlskey /root/outside/key.pem"
    machine.run("mkdir -p /root/outside; cp /etc/docker/ca.pem /etc/docker/client/*.pem /root/outside/")
    for name in ("ca.pem", "cert.pem", "key.pem"):
        machine.outside(["sh", "-c", f"mkdir -p /root/outside; cat > /root/outside/{name}"],
                        input=machine.read(f"/root/outside/{name}"))
    assert machine.outside(f"{docker} {with_certificate} version --format '{{{{.Server.Version}}}}'").out.strip()
    refused = machine.outside(f"{docker} version", check=False)
    assert refused.status != 0
    assert not machine.api_answers(port=2376)
    if files:
        assert machine.outside(anybody, check=False).out != "OK"
        assert "DG105" in {entry["DOCKERD_GUARD_RULE"] for entry in entries(machine, "drift")}
    assert machine.socket_answers()
    assert machine.run("dockerd-guard fix").out == "Docker listens as declared.\n"


def test_restart_is_held_while_containers_would_stop(machine: Machine) -> None:
    container = machine.start_container()
    machine.run("systemctl stop dockerd-guard")
    machine.write(OVERRIDE, f"[Service]\nExecStart=\nExecStart={DOCKERD} -H fd:// -H tcp://0.0.0.0:2375 --tls=false\n")
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    # `systemctl reload` only sends the signal.
    live_restore = "docker info --format '{{.LiveRestoreEnabled}}'"
    machine.run("systemctl reload docker")
    wait_for(lambda: machine.run(live_restore).out == "true\n", "live-restore on")
    machine.run("systemctl daemon-reload; systemctl restart docker")
    machine.write("/etc/docker/daemon.json", '{"live-restore": false}\n')
    machine.run("systemctl reload docker")
    wait_for(lambda: machine.run(live_restore).out == "false\n", "live-restore off")
    machine.write(POLICY, ENFORCE)
    machine.run("systemctl start dockerd-guard")
    held = wait_for(lambda: held_for(machine, "live-restore is off: 1 running container would be stopped"),
                    "held correction")
    assert held[-1]["DOCKERD_GUARD_OUTCOME"] == "held"
    assert machine.container_pid() == container
    # The files and systemd's units are correct already: the next restart, by anybody, closes the port.
    assert machine.exists(OUR_SERVICE_DROPIN)
    # dockerd has 3 s to list its containers.
    wait_for(lambda: "stops bystander" in machine.run("dockerd-guard diff", check=False).out, "name of the container")
    assert "live-restore is off" in machine.run("systemctl status dockerd-guard").out

    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.run("systemctl reload docker")
    wait_for(lambda: repaired(machine), "correction")
    assert not machine.api_answers()
    assert machine.container_pid() == container


class Foreign(NamedTuple):
    """A file that no drop-in of ours can override, and its text afterwards (None: it is moved away)."""

    name: str
    path: str
    text: str
    after: str | None


FOREIGN = (
    Foreign("hosts in daemon.json", "/etc/docker/daemon.json",
            '{\n  "live-restore": true,\n  "hosts": ["fd://", "tcp://0.0.0.0:2375"],   \n  "tls": false\n}\n',
            '{\n  "live-restore": true,\n  "tls": false\n}\n'),
    Foreign("a drop-in that sorts after ours", "/etc/systemd/system/docker.service.d/zzz.conf",
            f"[Service]\nExecStart=\nExecStart={DOCKERD} -H fd:// -H tcp://0.0.0.0:2375 --tls=false --live-restore\n",
            None),
)


@pytest.mark.parametrize("foreign", FOREIGN, ids=lambda foreign: foreign.name)
def test_foreign_file_that_overrides_our_dropin_is_saved_and_changed(machine: Machine, foreign: Foreign) -> None:
    machine.write(foreign.path, foreign.text, mode=0o640)
    if "daemon.json" in foreign.name:
        machine.write(OVERRIDE, f"[Service]\nExecStart=\nExecStart={DOCKERD}\n")
    machine.run("systemctl daemon-reload; systemctl restart docker")
    container = machine.start_container()
    wait_for(machine.api_answers, "open API")

    enforce(machine, f"{ENFORCE}correct: {{foreign_files: false}}\n")
    held = wait_for(lambda: entries(machine, "held"), "held correction")
    assert foreign.path in held[-1]["MESSAGE"]
    assert machine.read(foreign.path) == foreign.text

    enforce(machine)
    wait_for(lambda: repaired(machine), "correction")
    assert not machine.api_answers()
    assert machine.socket_answers()
    assert machine.container_pid() == container
    saved = f"{foreign.path}.dockerd-guard-saved"
    assert machine.read(saved) == foreign.text
    if foreign.after is None:
        assert not machine.exists(foreign.path)
        assert "--live-restore" in machine.read(OUR_SERVICE_DROPIN)
    else:
        assert machine.read(foreign.path) == foreign.after
        assert machine.run(["stat", "-c", "%a", foreign.path]).out == "640\n"
    assert machine.run("dockerd-guard fix").out == "Docker listens as declared.\n"


@pytest.mark.parametrize(("hosts", "after"), [
    ('["fd://"]', '{"hosts": ["fd://"], "live-restore": true}\n'),
    ('["fd://", "tcp://0.0.0.0:2375"]', '{"live-restore": true}\n'),
], ids=["declared hosts", "other hosts"])
def test_hosts_conflict_is_resolved(machine: Machine, hosts: str, after: str) -> None:
    machine.write("/etc/docker/daemon.json", f'{{"hosts": {hosts}, "live-restore": true}}\n')
    failed = machine.run("systemctl restart docker", check=False)
    assert failed.status != 0
    enforce(machine)
    # As soon as the files are right, Restart= may start it first.
    wait_for(lambda: entries(machine, "corrected"), "correction")
    wait_for(machine.socket_answers, "running dockerd")
    assert not machine.api_answers()
    assert machine.read("/etc/docker/daemon.json") == after
    assert machine.exists(OUR_SERVICE_DROPIN) == (after.count("hosts") == 1)
    assert machine.run("dockerd-guard fix").out == "Docker listens as declared.\n"


@pytest.mark.parametrize("theirs", ["-H fd:// -H tcp://0.0.0.0:99999", "-H fd:// --storage-driver=nonesuch"])
def test_a_correction_is_not_undone_for_what_others_have_changed_since(machine: Machine, theirs: str) -> None:
    """Its undo would open a port of docker.socket that was never open, and run a command that was never run."""
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.run("systemctl reload docker")
    enforce(machine)
    machine.write(SOCKET_OVERRIDE, "[Socket]\nListenStream=\nListenStream=2375\nExecStartPre=/bin/touch /root/ran\n")
    wait_for(lambda: repaired(machine), "correction")
    wait_for(lambda: rests(machine), "agent at rest")
    machine.run("systemctl stop dockerd-guard")
    machine.write(OVERRIDE, f"[Service]\nExecStart=\nExecStart={DOCKERD} {theirs}\n")
    machine.run("systemctl daemon-reload; systemctl restart docker", check=False)
    wait_for(lambda: state(machine) == "failed", "failed dockerd", timeout=60)
    machine.run("systemctl start dockerd-guard")
    wait_for(lambda: rests(machine), "agent at rest")
    assert not machine.exists("/root/ran")
    assert entries(machine, "failed") == entries(machine, "rolled-back") == []
    assert machine.exists(OUR_SOCKET_DROPIN)
    assert ":2375 " not in machine.run("ss -Hltn").out
    # Only a configuration that does not comply is corrected.
    machine.run(f"rm {SOCKET_OVERRIDE} {OVERRIDE}; systemctl daemon-reload", check=False)
    machine.run("systemctl reset-failed docker.service docker.socket; systemctl start docker")
    wait_for(lambda: machine.run("dockerd-guard diff", check=False).status == 0, "host that complies")
    assert state(machine) == "active"


def state(machine: Machine) -> str:
    """ActiveState of docker.service."""
    return machine.properties("docker.service", "ActiveState")["ActiveState"]
