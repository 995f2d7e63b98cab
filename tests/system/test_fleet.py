"""The lock of a fleet with the real etcd: the helper with its sandbox and credentials, and a restart that waits."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.machines.machine import ADDRESS, Machine, wait_for
from tests.support.correction import DOCKERD, LIVE_RESTORE, OVERRIDE, POLICY, entries
from tests.support.weight import HIGHEST_KIB, PEAK_KIB, resident_kib, unused

GATEWAY = "http://127.0.0.1:2379"
KEYS = "/etc/dockerd-guard/fleet"
DROPIN = "/etc/systemd/system/dockerd-guard-fleet@.service.d/lock.conf"
OPEN = f"[Service]\nExecStart=\nExecStart={DOCKERD} -H fd:// -H tcp://0.0.0.0:2375 --tls=false\n"

TLS_ETCD = f"""
mkdir -p {KEYS} /srv/etcd; cd {KEYS}; umask 077
new() {{
    # Python 3.13 is strict: openssl makes a CA of everything, and a CA needs a key usage.
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \\
        -addext keyUsage=keyCertSign,digitalSignature "$@" 2>/dev/null
}}
new -subj /CN=ca -keyout /root/ca.key -out ca.pem
new -subj /CN=host -CA ca.pem -CAkey /root/ca.key -keyout key.pem -out cert.pem
new -subj /CN=etcd -CA ca.pem -CAkey /root/ca.key -addext subjectAltName=IP:{ADDRESS} -keyout /srv/key -out /srv/cert
systemd-run --quiet --unit=tls-etcd etcd --data-dir /srv/etcd --client-cert-auth --trusted-ca-file {KEYS}/ca.pem \\
    --cert-file /srv/cert --key-file /srv/key --listen-client-urls https://{ADDRESS}:3379 \\
    --advertise-client-urls https://{ADDRESS}:3379 --listen-peer-urls http://127.0.0.1:3380 \\
    --initial-advertise-peer-urls http://127.0.0.1:3380 --initial-cluster default=http://127.0.0.1:3380
"""
"""etcd with TLS on the address of the machine, where clients need a certificate."""


@pytest.fixture
def debian() -> tuple[str, ...]:
    return ("etcd-server",)


def fleet(more: str = "", endpoint: str = GATEWAY) -> str:
    return (f"version: 1\nmode: enforce\nsockets: [fd://]\ncorrect:\n  fleet: {{lock: etcd, endpoints: ['{endpoint}'], "
            f"group: prod, timeout: 2s{more}}}\n")


def etcd(machine: Machine, path: str, **data: Any) -> dict[str, Any]:
    """The answer of etcd's gateway, asked from the machine itself."""
    asked = machine.run(["curl", "--silent", "--max-time", "5", f"{GATEWAY}/v3/{path}", "--data", json.dumps(data)])
    found: dict[str, Any] = json.loads(asked.out)
    return found


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def keys(machine: Machine) -> list[str]:
    found = etcd(machine, "kv/range", key=encoded("dockerd-guard/"), range_end=encoded("dockerd-guard0"))
    return [base64.b64decode(pair["key"]).decode() for pair in found.get("kvs", [])]


def put(machine: Machine, key: str, value: dict[str, str]) -> None:
    etcd(machine, "kv/put", key=encoded(f"dockerd-guard/v1/prod/{key}"), value=encoded(json.dumps(value)))


def start(machine: Machine, policy: str) -> int:
    """Docker is exposed on a host of a fleet; its PID."""
    wait_for(lambda: machine.run(f"curl --silent {GATEWAY}/version", check=False).status == 0, "etcd")
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.write(OVERRIDE, OPEN)
    machine.run("systemctl daemon-reload; systemctl restart docker")
    dockerd = machine.main_pid()
    machine.write(POLICY, policy)
    return dockerd


def corrected(machine: Machine) -> Callable[[], bool]:
    return lambda: bool(entries(machine, "corrected"))


def held(machine: Machine, words: str) -> str:
    """The hold, as `status` shows it."""
    wait_for(lambda: words in machine.run("dockerd-guard status", check=False).out.replace("\n         ", " "),
             f"hold with {words!r}")
    return machine.run("dockerd-guard status", check=False).out.replace("\n         ", " ")


def test_a_restart_takes_a_slot_and_gives_it_back(machine: Machine) -> None:
    dockerd = start(machine, fleet())
    wait_for(corrected(machine), "correction")
    assert machine.main_pid() != dockerd
    assert keys(machine) == ["dockerd-guard/v1/prod/duration"]
    assert not entries(machine, "held")
    # The helper makes the requests: what TLS needs is not loaded here.
    assert resident_kib(machine) <= HIGHEST_KIB
    assert resident_kib(machine, "VmHWM") <= PEAK_KIB
    assert unused(machine) == []
    assert machine.run("systemctl list-units --state=failed --no-legend 'dockerd-guard*'").out == ""


def test_a_restart_waits_for_a_slot(machine: Machine) -> None:
    put(machine, "slot/0", {"id": "0" * 32, "host": "web3", "since": "2026-11-26T14:02:00+00:00", "boot": "x"})
    dockerd = start(machine, fleet())
    assert "Wait; web3 since 2026-11-26T14:02:00+00:00 restarts dockerd" in held(
        machine, "all 1 slots of the group prod are taken")
    # What is open is blocked, and the next start is right.
    assert not machine.api_answers()
    assert machine.main_pid() == dockerd
    assert any(key.startswith("dockerd-guard/v1/prod/waiting/") for key in keys(machine))
    assert machine.run("dockerd-guard fix", check=False).status == 1
    etcd(machine, "kv/deleterange", key=encoded("dockerd-guard/v1/prod/slot/0"))
    wait_for(corrected(machine), "correction", timeout=90)
    assert machine.main_pid() != dockerd
    assert keys(machine) == ["dockerd-guard/v1/prod/duration"]
    assert len(entries(machine, "held")) == 1


def test_a_stopped_group_waits_until_it_is_resumed(machine: Machine) -> None:
    put(machine, "stop", {"host": "web3", "reason": "dockerd does not start", "since": "2026-11-26T14:02:00+00:00"})
    dockerd = start(machine, fleet())
    held(machine, "the group prod was stopped by web3: dockerd does not start")
    assert machine.main_pid() == dockerd


def test_etcd_that_hangs_and_one_that_is_gone(machine: Machine) -> None:
    dockerd = start(machine, fleet().replace("mode: enforce", "mode: observe"))
    machine.run("pkill -STOP -x etcd")
    began = time.monotonic()
    machine.write(POLICY, fleet())
    assert "Check 127.0.0.1:2379: timed out" in held(machine, "correct.fleet.endpoints is not available")
    print(f"{machine.release}: held {time.monotonic() - began:.1f} s after etcd hung")
    machine.run("pkill -CONT -x etcd; systemctl stop etcd")
    assert "Connection refused" in held(machine, "Connection refused")
    assert machine.main_pid() == dockerd
    # Each reason once, however often it is asked. A third one where etcd answered as it stopped.
    reasons = [entry["MESSAGE"].partition("Next: ")[2] for entry in entries(machine, "held")]
    assert len(reasons) == len(set(reasons)) <= 3, reasons
    machine.run("systemctl start etcd")
    wait_for(corrected(machine), "correction", timeout=90)


def test_tls_by_credentials_and_the_address_filter(machine: Machine) -> None:
    """Only root can read the key; the helper reaches no address that the operator has not named."""
    machine.run(TLS_ETCD)
    tls = ", tls: {" + ", ".join(f"{name}: {KEYS}/{name}.pem" for name in ("ca", "cert", "key")) + "}"
    dockerd = start(machine, fleet(tls, f"https://{ADDRESS}:3379"))
    held(machine, "timed out; dockerd-guard-fleet@.service needs its address as IPAddressAllow= in a drop-in")
    assert machine.main_pid() == dockerd
    machine.write(DROPIN, f"[Service]\nIPAddressAllow={ADDRESS}\n")
    machine.run("systemctl daemon-reload; systemctl reload dockerd-guard")
    wait_for(corrected(machine), "correction", timeout=90)
    assert machine.main_pid() != dockerd


def test_fix_takes_a_slot_as_well(machine: Machine) -> None:
    start(machine, fleet().replace("mode: enforce", "mode: observe"))
    assert machine.run("dockerd-guard fix").out.endswith("Docker listens as declared.\n")
    assert keys(machine) == ["dockerd-guard/v1/prod/duration"]
    put(machine, "slot/0", {"id": "0" * 32, "host": "web3"})
    machine.remove("/etc/systemd/system/docker.service.d/zz-dockerd-guard.conf")
    machine.run("systemctl daemon-reload; systemctl restart docker")
    said = machine.run("dockerd-guard fix", check=False)
    assert (said.status, "Held: all 1 slots of the group prod are taken." in said.out) == (1, True)
