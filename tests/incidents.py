"""Ten incidents: what somebody did to a host, the journal entry about it, and the step that the entry names.

`python3 -m tests.incidents bookworm DEB [NAME...]` runs them and prints the entries, each on a machine of its own. The
entry, or the page that it refers to, names the step. After the step the host must comply.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.machines.machine import Machine, wait_for

POLICY = "/etc/dockerd-guard/config.yaml"
OVERRIDE = "/etc/systemd/system/docker.service.d/override.conf"
ENFORCE = "version: 1\\nmode: enforce\\nsockets: [fd://]\\n"
OPEN = "[Service]\\nExecStart=\\nExecStart=/usr/sbin/dockerd -H fd:// -H tcp://0.0.0.0:2375 --tls=false\\n"
RESTART = "systemctl daemon-reload; systemctl restart docker"


class Incident(NamedTuple):
    """`before` prepares the host, `did` is what somebody did. `event` and `words` identify the expected entry.

    `step` is the next step in the words of the entry, `steps` are the shell lines for it.
    """

    name: str
    before: str
    did: str
    event: str
    words: str
    step: str
    steps: str


INCIDENTS = (
    Incident("a guide that opens a port", "",
             f"mkdir -p $(dirname {OVERRIDE}); printf '{OPEN}' > {OVERRIDE}; {RESTART}",
             "drift", "it listens there now. Anyone who can reach it from the network has root on this host",
             "`dockerd-guard fix`", "dockerd-guard fix"),
    Incident("hosts for the IDE in daemon.json", "",
             "echo '{\"hosts\": [\"unix:///run/docker.sock\", \"tcp://0.0.0.0:2375\"]}' > /etc/docker/daemon.json; "
             "systemctl restart docker || :",
             "drift", "DG201 at ", "`dockerd-guard fix`", "dockerd-guard fix"),
    Incident("a socket with mode 0666", "",
             "chmod 666 /run/docker.sock", "drift", "/run/docker.sock has mode 0666",
             "chmod 0660 /run/docker.sock", "chmod 0660 /run/docker.sock"),
    Incident("a socket unit beside docker.socket", "",
             "printf '[Socket]\\nListenStream=2375\\nService=docker.service\\n[Install]\\nWantedBy=sockets.target\\n' "
             "> /etc/systemd/system/docker-tcp.socket; systemctl daemon-reload; "
             "systemctl stop docker.socket docker.service; systemctl enable --now docker-tcp.socket; "
             "systemctl start docker.socket docker.service",
             "drift", "DG101 at /etc/systemd/system/docker-tcp.socket:2", "`dockerd-guard fix`", "dockerd-guard fix"),
    Incident("enforce on a host with containers",
             f"mkdir -p $(dirname {OVERRIDE}); printf '{OPEN}' > {OVERRIDE}; {RESTART}; "
             "docker run -d --name=shop busybox sleep 1000",
             f"printf '{ENFORCE}' > {POLICY}; systemctl reload dockerd-guard",
             "held", "live-restore is off: 1 running container would be stopped",
             'Add `"live-restore": true` to /etc/docker/daemon.json and run `systemctl reload docker.service`',
             "echo '{\"live-restore\": true}' > /etc/docker/daemon.json; systemctl reload docker.service"),
    Incident("an invalid policy", "",
             f"printf 'version: 1\\nmode: enforced\\nsockets: [fd://]\\n' > {POLICY}",
             "policy", "The last valid policy stays in force: /etc/dockerd-guard/config.yaml:2:7: ",
             "Fix the file and save it", f"sed -i s/enforced/observe/ {POLICY}"),
    Incident("a script that rewrites its override",
             "printf '%s\\n' '#!/bin/sh' 'while :; do' "
             f"'printf \"{OPEN.replace(chr(92), chr(92) * 2)}\" > {OVERRIDE}.new; mv {OVERRIDE}.new {OVERRIDE}' "
             "'rm -f /etc/systemd/system/docker.service.d/zz-dockerd-guard.conf; sleep 2; done' > /usr/local/bin/cm; "
             "chmod +x /usr/local/bin/cm; echo '{\"live-restore\": true}' > /etc/docker/daemon.json; "
             f"systemctl reload docker; mkdir -p $(dirname {OVERRIDE}); "
             f"printf '{ENFORCE}' > {POLICY}; systemctl reload dockerd-guard",
             "systemd-run --unit=cm /usr/local/bin/cm",
             "contested", ": 3 corrections since",
             "stop it or align it with the policy; then run `dockerd-guard fix`",
             f"systemctl stop cm; rm -f {OVERRIDE} {OVERRIDE}.new; dockerd-guard fix; {RESTART}"),
    Incident("TLS declared without certificates",
             "echo '{\"live-restore\": true}' > /etc/docker/daemon.json; systemctl reload docker",
             "printf 'version: 1\\nmode: enforce\\nsockets:\\n  - fd://\\n  - address: tcp://10.77.0.2:2376\\n"
             f"    tls: mutual\\n' > {POLICY}; systemctl reload dockerd-guard",
             "held", "/etc/docker/server-cert.pem", "Fix this; the agent retries automatically",
             "cd /root; "
             "openssl req -x509 -newkey rsa:2048 -nodes -keyout ca-key.pem -out ca.pem -days 365 -subj /CN=ca; "
             "openssl req -newkey rsa:2048 -nodes -keyout server-key.pem -out server.csr -subj /CN=server; "
             "printf subjectAltName=IP:10.77.0.2 > ext; openssl x509 -req -in server.csr -CA ca.pem -CAkey ca-key.pem "
             "-CAcreateserial -days 365 -extfile ext -out server-cert.pem; chmod 600 *-key.pem; chmod 644 ca.pem "
             "server-cert.pem; cp ca.pem server-cert.pem server-key.pem /etc/docker"),
    Incident("Docker stopped", "",
             "systemctl stop docker.socket docker.service",
             "drift", "nothing listens there", "`systemctl start docker.service`",
             "systemctl start docker.service"),
    Incident("D-Bus stopped", "",
             "systemctl stop dbus.socket dbus.service", "blind", "cannot query systemd",
             "`systemctl start dbus.socket`", "systemctl start dbus.socket"),
)


class Played(NamedTuple):
    """The agent's entries from `did` to the step, the expected entry, and the output of `status` afterwards."""

    words: tuple[str, ...]
    awaited: str
    status: str


def play(machine: Machine, incident: Incident) -> Played:
    """Run one incident. Raises TimeoutError if the entry is missing or the host does not comply at the end."""
    if "docker run" in incident.before:
        machine.import_busybox()
    if incident.before:
        machine.run(incident.before)
    seen = len(_entries(machine))
    machine.run(incident.did)
    awaited = wait_for(lambda: next((
        entry["MESSAGE"] for entry in _entries(machine)[seen:]
        if entry["DOCKERD_GUARD_EVENT"] == incident.event and incident.words in entry["MESSAGE"]), None),
        f"entry of {incident.event}")
    words = tuple(entry["MESSAGE"] for entry in _entries(machine)[seen:])
    output = machine.run(incident.steps).out
    try:
        wait_for(lambda: machine.run("dockerd-guard status", check=False).status == 0, "host in order")
    except TimeoutError as error:
        error.add_note(f"{output}\n{machine.run('dockerd-guard status', check=False).out}")
        raise
    return Played(words, awaited, machine.run("dockerd-guard status").out)


def names_the_step(machine: Machine, incident: Incident, words: str) -> bool:
    """Whether the entry, or the page that it refers to, names the step."""
    page = words.partition("`dockerd-guard explain ")[2].partition("`")[0]
    named = machine.run(["dockerd-guard", "explain", page]).out if page else ""
    return incident.step in words or incident.step in " ".join(named.split())


def _entries(machine: Machine) -> list[dict[str, str]]:
    return [entry for entry in machine.journal("_SYSTEMD_UNIT=dockerd-guard.service")
            if "DOCKERD_GUARD_EVENT" in entry]


def main(arguments: Sequence[str]) -> int:
    """Run incidents and print them."""
    release, package, *names = arguments
    for number, incident in enumerate(INCIDENTS, 1):
        if names and not any(name in incident.name for name in names):
            continue
        with Machine.boot(release, package=Path(package)) as machine:
            wait_for(lambda machine=machine: machine.is_active("dockerd-guard.service"), "agent")  # type: ignore[misc]
            played = play(machine, incident)
            is_named = names_the_step(machine, incident, played.awaited)
        print(f"{number}. {incident.name}\n\n    # {incident.did}\n")
        print("".join(f"    {line}\n" for line in played.words))
        print(f"    Next: {incident.step}{'' if is_named else '   NOT NAMED BY THE ENTRY'}\n    # {incident.steps}\n")
        print("".join(f"    {line}\n" for line in played.status.splitlines()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
