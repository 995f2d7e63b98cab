"""The journals of a fleet in one place: two hosts upload theirs to a third, as docs/fleet.md shows it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from tests.machines.machine import Machine, wait_for
from tests.machines.network import Network, machines_of_a_fleet
from tests.support.correction import ENFORCE, LIVE_RESTORE, OPEN, OVERRIDE, POLICY

REMOTE = "/var/log/journal/remote"
PAGE = Path(__file__).resolve().parents[2] / "docs/fleet.md"

FORGED = r"""printf '%s\n' MESSAGE=forged DOCKERD_GUARD_EVENT=drift DOCKERD_GUARD_RULE=DG101 \
    'DOCKERD_GUARD_EPISODE=DG101 forged' SYSLOG_IDENTIFIER=dockerd-guard \
    OBJECT_SYSTEMD_UNIT=dockerd-guard.service | logger --journald
"""
"""What any program may log, but not as the agent."""

RECEIVE = """[Service]
ExecStart=
ExecStart=/lib/systemd/systemd-journal-remote --listen-http=-3 --output=/var/log/journal/remote/
"""


HOSTS = 1_000
DRIFTS = 5
"""Of each host."""

MAX_SECONDS = 20
MAX_MIB = 128

# A journal as systemd-journal-remote(8) makes it of the export format. Every tenth host has a hostile name.
WRITE = f"""
import os, subprocess, time
os.makedirs("/srv/journals")
begin = int(time.time() - 86400) * 1_000_000
entries = []
for number in range(2 * {DRIFTS} * {HOSTS}):
    host, ends = number % {HOSTS}, number // {HOSTS} % 2
    name = f"web{{host}}" if host % 10 else f"web{{host}}\\x1b[2J<b>##[group]"
    entries.append("\\n".join((
        f"__REALTIME_TIMESTAMP={{begin + number * 1000}}", f"__MONOTONIC_TIMESTAMP={{number + 1}}",
        f"_BOOT_ID={{host + 1:032x}}", f"_MACHINE_ID={{host + 1:032x}}", f"_HOSTNAME={{name}}", "_UID=0",
        "_SYSTEMD_UNIT=dockerd-guard.service", f"_SYSTEMD_INVOCATION_ID={{host + 1:032x}}",
        f"DOCKERD_GUARD_EVENT={{('drift', 'corrected')[ends]}}", "DOCKERD_GUARD_RULE=DG101",
        "DOCKERD_GUARD_SOCKET=tcp://0.0.0.0:2375", "DOCKERD_GUARD_EXPOSED=yes",
        "DOCKERD_GUARD_EPISODE=DG101 tcp://*:2375", f"MESSAGE=open on {{name}}",
        *(["DOCKERD_GUARD_OUTCOME=repaired"] if ends else []))))
subprocess.run(["/lib/systemd/systemd-journal-remote", "--split-mode=none", "--output=/srv/journals/all.journal", "-"],
               input="\\n\\n".join(entries).encode() + b"\\n\\n", check=True)
"""

# Prints the seconds of CPU time and the peak memory.
MEASURE = """
import resource, subprocess, sys
with open("/tmp/output", "wb") as output:
    subprocess.run(["dockerd-guard", "history", "--journal", "/srv/journals", *sys.argv[1:]], check=True, stdout=output)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
"""


@pytest.fixture
def debian() -> tuple[str, ...]:
    return ("systemd-journal-remote",)


@pytest.fixture
def fleet(release: str, package: Path, debian: tuple[str, ...]) -> Iterator[tuple[Network, tuple[Machine, ...]]]:
    """Three hosts. The third one collects the journals of the others."""
    with machines_of_a_fleet((release,) * 3, package=package, debian=debian) as (network, hosts):
        for host in hosts:
            wait_for(lambda host=host: host.is_active("dockerd-guard.service"), "agent")  # type: ignore[misc]
        *web, log = hosts
        # Its first entry was before it had its name.
        log.run("systemctl restart dockerd-guard")
        log.write("/etc/systemd/system/systemd-journal-remote.service.d/http.conf", RECEIVE)
        log.run("systemctl daemon-reload; systemctl enable --now systemd-journal-remote.socket")
        for host in web:
            host.write("/etc/systemd/journal-upload.conf", f"[Upload]\nURL=http://{network.host(log).name}:19532\n")
            host.run("systemctl enable systemd-journal-upload; systemctl restart systemd-journal-upload")
        yield network, hosts


def history(machine: Machine, *options: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(machine.run(["dockerd-guard", "history", "--format=json", *options]).out)
    return answer


def machine_ids(found: dict[str, Any]) -> dict[str, str]:
    return {host["host"]: host["machine_id"] for host in found["hosts"]}


def open_up(machine: Machine) -> None:
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.write(OVERRIDE, OPEN)
    machine.run("systemctl daemon-reload; systemctl restart docker")


def exposures(machine: Machine, *options: str) -> dict[str, str | None]:
    """The outcome of each drift that opened the API, by host."""
    return {episode["host"]: episode["outcome"] for episode in history(machine, *options)["episodes"]
            if episode["rule"] == "DG101" and episode["exposed"]}


def test_drift_of_two_hosts_is_read_on_a_third(fleet: tuple[Network, tuple[Machine, ...]]) -> None:
    _, (web1, web2, log) = fleet
    wait_for(lambda: log.run(f"ls {REMOTE}/*.journal | wc -l").out == "2\n", "journals of both hosts")
    for machine in (web1, web2):
        open_up(machine)
        machine.run(FORGED)
    reading = ("--journal", REMOTE)
    wait_for(lambda: exposures(log, *reading).keys() == {"web1", "web2"}, "drift of both hosts")
    web1.write(POLICY, ENFORCE)
    wait_for(lambda: exposures(log, *reading) == {"web1": "repaired", "web2": None}, "correction of one")
    wait_for(lambda: log.run(f"journalctl -D {REMOTE} MESSAGE=forged | grep -c forged", check=False).out == "2\n",
             "forged entries of both hosts")

    ids = {name: machine.read("/etc/machine-id").strip() for name, machine in
           (("web1", web1), ("web2", web2), ("web3", log))}
    found = history(log, *reading)
    assert machine_ids(found) == {name: ids[name] for name in ("web1", "web2")}
    assert not any("forged" in episode["fact"] for episode in found["episodes"])
    assert 0 < found["exposed_s"] == sum(host["exposed_s"] for host in found["hosts"])
    assert machine_ids(history(log, "--merge")) == ids
    # Without these options it is the history of this host alone.
    assert history(log).keys().isdisjoint({"hosts"})
    assert history(log)["episodes"] == []

    rows = log.run(["dockerd-guard", "history", *reading]).out.splitlines()
    assert any(re.search(r"  web1  DG101 tcp://0.0.0.0:2375  /etc/.*override.conf:3 +drift +repaired after ", row)
               for row in rows), rows
    assert any(re.search(r"  web2  DG101 tcp://0.0.0.0:2375  /etc/.*  ongoing for .*open to the network", row)
               for row in rows), rows
    assert rows[-1].split(": ")[0].endswith(", 2 hosts")
    picture = ET.fromstring(log.run(["dockerd-guard", "history", "--merge", "--plot", "-"]).out)
    texts = [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[0] == "The Docker API of 3 hosts"
    assert sorted(text for text in texts if text in ids) == ["web1", "web2", "web3"]

    # The queries of the page.
    queries = re.findall(r"^    # (journalctl .*)$", PAGE.read_text(), re.MULTILINE)
    assert len(queries) >= 3
    for query in queries:
        assert "dockerd-guard[" in log.run(query).out, query

    # The same name, other machines.
    web2.run("hostname web1")
    web2.write(POLICY, ENFORCE)
    labels = {f"web1 ({ids[name][:8]})" for name in ("web1", "web2")}
    wait_for(lambda: all(label in log.run(["dockerd-guard", "history", *reading]).out for label in labels),
             f"{labels} in the table")

    log.run("useradd joe; useradd --groups systemd-journal-remote ann; mkdir /srv/empty /srv/broken")
    log.run(f"head -c 100000 {REMOTE}/remote-*.1.journal > /srv/broken/a.journal; cp {REMOTE}/*.2.journal /srv/broken")

    def refused(directory: str, user: str = "root") -> str:
        done = log.run(["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "dockerd-guard", "history",
                        "--journal", directory], check=False)
        assert done.status == 2, done
        return done.err

    assert "/srv/none: No such file or directory" in refused("/srv/none")
    assert "/srv/empty contains no journal file (*.journal)" in refused("/srv/empty")
    assert "/etc/hostname: Not a directory" in refused("/etc/hostname")
    assert "root may read it" in refused(REMOTE, "joe")
    assert "/srv/broken/a.journal is truncated, ignoring file" in refused("/srv/broken")
    assert log.run(f"setpriv --reuid=ann --regid=ann --init-groups dockerd-guard history --journal {REMOTE}").err == ""


def test_the_journals_of_a_thousand_hosts(machine: Machine) -> None:
    machine.run(["python3", "-c", WRITE])
    for options in ([], ["--format=json"], ["--plot=-"]):
        seconds, mib = map(float, machine.run(["python3", "-c", MEASURE, *options]).out.split())
        output = machine.read("/tmp/output")
        print(f"{machine.release}: {' '.join(options) or 'table'}: {seconds:.1f} s of CPU time, {mib:.0f} MiB")
        assert seconds < MAX_SECONDS
        assert mib < MAX_MIB
        assert "\x1b" not in output
        assert "##[" not in output
        if options == ["--format=json"]:
            found = json.loads(output)
            assert (len(found["hosts"]), len(found["episodes"])) == (HOSTS, HOSTS * DRIFTS)
            assert "web10\x1b[2J<b>##[group]" in {host["host"] for host in found["hosts"]}
