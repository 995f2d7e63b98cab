"""Programs that revert the agent's corrections, and counts of the agent's actions."""

from __future__ import annotations

import time
from typing import NamedTuple

from tests.machines.machine import Machine, wait_for
from tests.support.correction import DOCKERD, LIVE_RESTORE, OUR_SERVICE_DROPIN, OVERRIDE, enforce, entries, repaired

ENFORCE = "version: 1\nmode: enforce\nsockets: [fd://]\ncorrect: {budget: 100/1h}\n"
OPEN = f"[Service]\\nExecStart=\\nExecStart={DOCKERD} -H fd:// -H tcp://0.0.0.0:2375 --tls=false"
LATER = "/etc/systemd/system/docker.service.d/zzz-theirs.conf"
BACKOFF = "/usr/lib/python3/dist-packages/dockerd_guard/plan/backoff.py"
STARTED = "MESSAGE_ID=39f53479d3a045ac8e11786248231fbf"


ENTRIES = 5
"""At most, of one correction: DG101, DG303, DG307, and DG308 where the other program wrote again before our reload,
each logged once, and the correction."""


class Writer(NamedTuple):
    """A program that writes five times a second: the shell line, the file that the agent reports (None: no conflict),
    and the maximum number of corrections."""

    name: str
    line: str
    named: str | None
    corrections: int


WRITERS = (
    Writer("writes the same drop-in, which ours overrides", f"printf '{OPEN}\\n' > {OVERRIDE}", None, 1),
    Writer("writes a different drop-in each time, which ours overrides",
           # Nobody undoes a correction: each edit asks for another one.
           f"n=$((n+1)); printf '{OPEN} --label n='$n'\\n' > {OVERRIDE}", None, 100),
    Writer("removes our drop-in", f"rm -f {OUR_SERVICE_DROPIN}", OUR_SERVICE_DROPIN, 3),
    Writer("replaces our drop-in", f"printf '{OPEN}\\n' > {OUR_SERVICE_DROPIN}", OUR_SERVICE_DROPIN, 3),
    Writer("writes a drop-in that overrides ours", f"printf '{OPEN}\\n' > {LATER}", LATER, 3),
    Writer("writes hosts into daemon.json",
           """printf '{"live-restore": true, "hosts": ["fd://", "tcp://0.0.0.0:2375"]}\\n' > /etc/docker/daemon.json""",
           "/etc/docker/daemon.json", 3),
)


def run_repeatedly(machine: Machine, line: str, every_s: float = 0.2) -> None:
    """Start the unit `conflict`, which runs a shell line again and again."""
    machine.run(["systemd-run", "--unit=conflict", "bash", "-c", f"while :; do {line}; sleep {every_s}; done"])


def reloads(machine: Machine) -> int:
    """Return how often systemd has reloaded its units."""
    machine.sync_journal()
    return len([entry for entry in machine.journal("_PID=1", "--boot")
                if entry["MESSAGE"] in ("Reloading.", "Reloading...")])


def starts(machine: Machine) -> int:
    """Return how often docker.service was started."""
    machine.sync_journal()
    return len(machine.journal(STARTED, "UNIT=docker.service"))


def all_entries(machine: Machine) -> int:
    machine.sync_journal()
    return len(machine.journal("SYSLOG_IDENTIFIER=dockerd-guard", "--boot"))


def check_conflict(machine: Machine, writer: Writer, seconds: float) -> None:
    """Let the other program write for `seconds`, and check the agent's actions and entries."""
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.run("systemctl reload docker")
    container = machine.start_container()
    machine.write(OVERRIDE, OPEN.replace("\\n", "\n") + "\n")
    enforce(machine, ENFORCE)
    wait_for(lambda: repaired(machine), "first correction")
    wait_for(lambda: machine.properties("dockerd-guard.service", "StatusText")["StatusText"].startswith("enforce: "),
             "agent at rest")
    before = (starts(machine), reloads(machine), all_entries(machine), len(repaired(machine)))
    began = time.monotonic()
    run_repeatedly(machine, writer.line)
    if writer.named:
        wait_for(lambda: entries(machine, "contested"), "contested entry")
    time.sleep(max(0.0, seconds - (time.monotonic() - began)))
    restarted, reloaded, logged, corrected = (
        after - was for after, was in zip(
            (starts(machine), reloads(machine), all_entries(machine), len(repaired(machine))), before, strict=True))
    print(f"{machine.release}: something {writer.name}: {time.monotonic() - began:.0f} s, {corrected} corrections, "
          f"{restarted} restarts, {reloaded} reloads, {logged} entries")
    assert machine.is_active("conflict.service")
    assert restarted == 0
    assert corrected <= writer.corrections
    assert reloaded <= 2 * writer.corrections, "one for each correction, one to undo it"
    assert logged <= ENTRIES * writer.corrections + 5, "not one for each time that it writes"
    contested = entries(machine, "contested")
    assert [entry["DOCKERD_GUARD_FILE"] for entry in contested] == ([writer.named] if writer.named else [])
    assert all(entry["PRIORITY"] == "2" for entry in contested)
    assert machine.container_pid() == container
    if writer.named:
        assert "contested" in machine.run("systemctl status dockerd-guard").out

    # A manual `fix` is carried out. dockerd was not restarted, so the port was never open.
    machine.run("systemctl stop conflict")
    assert not machine.api_answers()
    assert machine.run("dockerd-guard fix").status == 0
    assert machine.run("dockerd-guard diff").status == 0
