"""`history` and the journal entries: which entries count, who may read them, and hosts without a journal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from tests.incidents import ENFORCE, OPEN, OVERRIDE, POLICY
from tests.machines.machine import Machine, wait_for

FORGED = """
import sys
from pystemd import journal
for event in ("drift", "corrected", "policy"):
    journal.sendv(MESSAGE="forged", DOCKERD_GUARD_EVENT=event, DOCKERD_GUARD_RULE="DG101", UNIT="dockerd-guard.service",
                  DOCKERD_GUARD_EPISODE="DG101 forged", SYSLOG_IDENTIFIER="dockerd-guard", DOCKERD_GUARD_OUTCOME="kept",
                  OBJECT_SYSTEMD_UNIT="dockerd-guard.service")
"""

DOCUMENTED = {"MESSAGE_ID", "DOCKERD_GUARD_EVENT", "DOCKERD_GUARD_CAUSE", "DOCKERD_GUARD_RULE", "DOCKERD_GUARD_LAYER",
              "DOCKERD_GUARD_SOCKET", "DOCKERD_GUARD_OUTCOME", "DOCKERD_GUARD_EXPOSED", "DOCKERD_GUARD_EPISODE",
              "DOCKERD_GUARD_FILE", "DOCKERD_GUARD_LINE"}


@pytest.fixture
def corrected(machine: Machine) -> Iterator[Machine]:
    """A machine that was open to the network, reported that, and was corrected."""
    machine.write("/etc/docker/daemon.json", '{"live-restore": true}\n')
    machine.run("systemctl reload docker")
    machine.write(OVERRIDE, OPEN.replace("\\n", "\n"))
    machine.run("systemctl daemon-reload; systemctl restart docker")
    wait_for(lambda: entries(machine, "DOCKERD_GUARD_EXPOSED=yes"), "exposure in the journal")
    machine.run("systemctl restart dockerd-guard")
    machine.write(POLICY, ENFORCE.replace("\\n", "\n"))
    machine.run("systemctl reload dockerd-guard")
    wait_for(lambda: entries(machine, "DOCKERD_GUARD_OUTCOME=repaired"), "correction in the journal")
    yield machine


def entries(machine: Machine, *matches: str) -> list[dict[str, Any]]:
    return machine.journal("_SYSTEMD_UNIT=dockerd-guard.service", *matches)


def history_json(machine: Machine, *options: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(machine.run(["dockerd-guard", "history", "--format=json", *options]).out)
    return answer


def test_exposure_is_one_episode_across_agent_restarts(corrected: Machine) -> None:
    (episode,) = (each for each in history_json(corrected)["episodes"] if each["rule"] == "DG101")
    assert (episode["fact"], episode["outcome"], episode["cause"]) == ("DG101 tcp://*:2375", "repaired", "drift")
    assert (episode["file"], episode["line"]) == (OVERRIDE, 3)
    # It is blocked before it is corrected.
    assert episode["begun"] <= episode["exposed"][0]["begun"] < episode["exposed"][0]["ended"] <= episode["ended"]
    assert len(episode["exposed"]) == 1

    # Fields that any sender may set do not count; trusted fields (systemd.journal-fields(7)) do.
    corrected.run(["python3", "-c", FORGED])
    wait_for(lambda: corrected.journal("MESSAGE=forged"), "forged entries")
    assert not any("forged" in each["fact"] for each in history_json(corrected)["episodes"])

    (line,) = (line for line in corrected.run("dockerd-guard history").out.splitlines() if " DG101 " in line)
    assert f"{OVERRIDE}:3  drift  repaired after " in line
    assert history_json(corrected, "--since=tomorrow")["episodes"] == []
    assert ET.fromstring(corrected.run("dockerd-guard history --plot -").out).tag.endswith("svg")
    corrected.run("dockerd-guard history --plot /root/year.svg; test -s /root/year.svg")
    assert corrected.run("dockerd-guard history | head -0; echo ${PIPESTATUS[0]}".replace("${PIPESTATUS[0]}", "ok")) \
        .err == ""

    # Only documented fields; one message ID for each kind of entry; docker's log contains the entries, with the
    # catalog's text.
    fields = {name for entry in entries(corrected) for name in entry if name.startswith("DOCKERD_GUARD_")}
    assert fields <= DOCUMENTED
    drift = entries(corrected, "DOCKERD_GUARD_EVENT=drift", "DOCKERD_GUARD_EXPOSED=yes")[0]
    assert {name: drift[name] for name in sorted(DOCUMENTED & drift.keys())} == {
        "DOCKERD_GUARD_CAUSE": "drift", "DOCKERD_GUARD_EPISODE": "DG101 tcp://*:2375", "DOCKERD_GUARD_EVENT": "drift",
        "DOCKERD_GUARD_EXPOSED": "yes", "DOCKERD_GUARD_FILE": OVERRIDE, "DOCKERD_GUARD_LAYER": "configured",
        "DOCKERD_GUARD_LINE": "3", "DOCKERD_GUARD_RULE": "DG101", "DOCKERD_GUARD_SOCKET": "tcp://0.0.0.0:2375",
        "MESSAGE_ID": "dee6bd790a4c44a19870ff0ba7130499"}
    explained = corrected.run("journalctl --catalog --unit=docker --output=short --no-hostname").out
    assert "dockerd-guard[" in explained
    assert "Subject: The host differs from the policy" in explained
    assert "Next step: `dockerd-guard explain RULE`" in explained
    assert "it listens there now" in corrected.run("journalctl --unit=docker.service --output=cat").out


def test_drift_ended_by_fix_is_reported_once_as_repaired(machine: Machine) -> None:
    machine.write(OVERRIDE, OPEN.replace("\\n", "\n"))
    machine.run("systemctl daemon-reload; systemctl restart docker")
    wait_for(lambda: entries(machine, "DOCKERD_GUARD_EXPOSED=yes"), "exposure in the journal")
    machine.run("dockerd-guard fix")
    (entry,) = wait_for(lambda: entries(machine, "DOCKERD_GUARD_OUTCOME=repaired"), "correction in the journal")
    assert entry["MESSAGE"].startswith("Corrected by `dockerd-guard fix`: wrote /etc/systemd/")
    machine.run("systemctl restart dockerd-guard")
    (episode,) = (each for each in history_json(machine)["episodes"] if each["rule"] == "DG101")
    assert episode["outcome"] == "repaired"
    assert not [each for each in entries(machine, "DOCKERD_GUARD_OUTCOME=kept")
                if each.get("DOCKERD_GUARD_RULE") == "DG101"]
    assert json.loads(machine.read("/var/lib/dockerd-guard/memory.json"))["manual_fixes"] == []


def test_missing_permission_for_the_journal_is_reported(machine: Machine) -> None:
    machine.run("useradd joe; useradd --groups systemd-journal ann")

    def history(user: str) -> tuple[int, str]:
        done = machine.run(f"setpriv --reuid={user} --regid={user} --init-groups dockerd-guard history", check=False)
        return done.status, done.err

    status, output = history("joe")
    assert status == 2
    assert "insufficient permissions" in output
    assert "group systemd-journal" in output
    assert history("ann") == (0, "")

    assert machine.run("dockerd-guard history --since=yesteryear", check=False).status == 2
    assert machine.run("dockerd-guard history --plot /no/such/directory", check=False).status == 2

    # No journal.
    machine.run("systemctl stop systemd-journald.socket systemd-journald-dev-log.socket systemd-journald.service; "
                "rm -rf /var/log/journal /run/log/journal", check=False)
    nothing = machine.run("dockerd-guard history", check=False)
    assert (nothing.status, nothing.out) == (2, "")
    assert "there is no journal on this host" in nothing.err
