"""Files that the agent watches, and mutations of them."""

from __future__ import annotations

import posixpath
import time
from collections.abc import Iterable
from typing import NamedTuple

from tests.machines.machine import Machine, wait_for
from tests.support.correction import DOCKERD, OVERRIDE, POLICY, UNIT, entries, rests

DROPIN = "/run/systemd/system/docker.service.d/p-new.conf"
SOCKET_DROPIN = "/etc/systemd/system/docker.socket.d/port.conf"
DROPIN_DIRECTORY = posixpath.dirname(OVERRIDE)
ADDRESS = "tcp://0.0.0.0:2375"

DETECTED_S = 20.0
"""More than detection takes while all machines run at once, and less than the resync interval of five minutes."""

OBSERVE = "version: 1\nsockets: [fd://]\n"
RESYNC = "version: 1\nsockets: [fd://]\nwatch: {resync: 2s}\n"
OPEN = f"[Service]\nExecStart=\nExecStart={DOCKERD} -H fd:// -H {ADDRESS} --tls=false $DOCKER_OPTS\n"
CLOSED = f"[Service]\nExecStart=\nExecStart={DOCKERD} -H fd:// $DOCKER_OPTS\n"


class Target(NamedTuple):
    """A file, its content while the API is closed and while it is open, and the mutations that do not apply to it."""

    path: str
    closed: str
    open: str
    not_for: tuple[str, ...] = ()


TARGETS = {
    "the vendor's unit": Target(UNIT, "", "", ("first directory", "directory replaced")),
    "override": Target(OVERRIDE, CLOSED, OPEN),
    "new drop-in": Target(DROPIN, CLOSED, OPEN),
    "socket drop-in": Target(SOCKET_DROPIN, "[Socket]\n", "[Socket]\nListenStream=0.0.0.0:2375\n"),
    "daemon.json": Target("/etc/docker/daemon.json", "{}\n", f'{{"hosts": ["fd://", "{ADDRESS}"]}}\n',
                          ("first directory",)),
    "environment file": Target("/etc/default/docker", "# nothing\n", f'DOCKER_OPTS="-H {ADDRESS}"\n',
                               ("first directory",)),
}

# {path}: the file; {dir}: its directory; {open}, {closed}: directories with a file of the same name. The second value
# is the expected report of the agent: the API is open or closed, the mode is loose or tight, or nothing new.
MUTATIONS: dict[str, tuple[tuple[str, str], ...]] = {
    "first directory": (
        ("mkdir {dir}; sleep 0.25; cp {open}/* {path}", "open"),
        ("cp {closed}/* {path}", "closed")),
    "content": (
        ("cat {open}/* > {path}", "open"),
        ("cat {closed}/* > {path}", "closed")),
    "touch": (
        ("touch {path}", "quiet"),),
    "rename": (
        ("cp {open}/* {path}", "open"),
        ("mv {path} {path}.off", "closed"),
        ("mv {path}.off {path}", "open")),
    "delete": (
        ("cp {open}/* {path}", "open"),
        ("rm {path}", "closed")),
    "overwrite by rename": (
        ("cp {open}/* {path}.tmp; mv {path}.tmp {path}", "open"),
        ("cp {closed}/* {path}.tmp; mv {path}.tmp {path}", "closed")),
    "chmod": (
        ("chmod 666 {path}", "loose"),
        ("chmod 644 {path}", "tight")),
    "symlink swap": (
        ("ln -sfn {closed}/* {path}", "closed"),
        ("ln -sfn {open}/* {path}", "open"),
        ("cat {closed}/* > {open}/*", "closed")),
    "mask": (
        ("cp {open}/* {path}", "open"),
        ("ln -sfn /dev/null {path}", "closed")),
    "directory replaced": (
        ("cp {open}/* {path}", "open"),
        ("mv {dir} {dir}.away", "closed"),
        ("mkdir {dir}; cp {open}/* {path}", "open"),
        ("rm -r {dir}; mv {dir}.away {dir}; cp {closed}/* {path}", "closed")),
}

# The policy file: one that declares the open address, and one that does not.
POLICY_MUTATIONS: dict[str, tuple[tuple[str, str], ...]] = {
    "content": MUTATIONS["content"],
    "touch": MUTATIONS["touch"],
    "rename": (("mv {path} {path}.off", "refused"), ("cp {open}/* {path}.off; mv {path}.off {path}", "open")),
    "delete": (("rm {path}", "refused"), ("cp {open}/* {path}", "open")),
    "overwrite by rename": MUTATIONS["overwrite by rename"],
    "chmod": (("chmod 666 {path}", "refused"), ("cp {open}/* {path}; chmod 644 {path}", "open")),
    "symlink swap": MUTATIONS["symlink swap"],
    "mask": (("ln -sfn /dev/null {path}", "refused"), ("rm {path}; cp {open}/* {path}", "open")),
    "directory replaced": (("mv {dir} {dir}.away", "refused"), ("mkdir {dir}; cp {open}/* {path}", "open")),
}


def newest(machine: Machine, *matches: str) -> dict[str, str]:
    return next(iter(machine.journal("SYSLOG_IDENTIFIER=dockerd-guard", *matches, "--lines=1")), {})


def is_reported(machine: Machine, what: str, path: str) -> bool:
    """Whether the agent's latest entry about this has the expected event."""
    if what in ("open", "closed"):
        word = newest(machine, "DOCKERD_GUARD_RULE=DG101", f"DOCKERD_GUARD_SOCKET={ADDRESS}")
        return (word.get("DOCKERD_GUARD_EVENT") == "drift") == (what == "open")
    if what in ("loose", "tight"):
        # /lib is a link to /usr/lib.
        word = newest(machine, "DOCKERD_GUARD_RULE=DG401", f"DOCKERD_GUARD_FILE={path}",
                      f"DOCKERD_GUARD_FILE=/usr{path}")
        return (word.get("DOCKERD_GUARD_EVENT") == "drift") == (what == "loose")
    assert what == "refused", what
    return newest(machine, "DOCKERD_GUARD_EVENT=policy").get("MESSAGE", "").startswith("The last valid policy stays")


def mutate(machine: Machine, target: Target, name: str, steps: tuple[tuple[str, str], ...]) -> list[str]:
    """Apply the steps of a mutation to a closed file. Return one line for each step that was not detected. The file is
    closed again afterwards."""
    directory, base = posixpath.split(target.path)
    places = {"path": target.path, "dir": directory, "open": "/root/open", "closed": "/root/closed"}
    machine.run("rm -rf /root/open /root/closed")
    machine.write(f"/root/open/{base}", target.open)
    machine.write(f"/root/closed/{base}", target.closed)
    put_back = "mkdir -p {dir}; rm -f {path}; cp {closed}/* {path}".format(**places)
    if not name.endswith(": first directory"):
        machine.run(put_back)
    missed = []
    for line, expected in steps:
        if expected == "quiet":
            machine.run("systemctl daemon-reload")
            wait_for(lambda: rests(machine, 2), "agent at rest")
        cursor = newest(machine).get("__CURSOR", "")
        machine.run(["bash", "-euc", line.format(**places)])
        if expected == "quiet":
            time.sleep(1.5)
            new = machine.journal("SYSLOG_IDENTIFIER=dockerd-guard", f"--after-cursor={cursor}")
            missed += [f"{name}, {line}: not quiet but {entry['MESSAGE']}" for entry in new]
            continue
        try:
            wait_for(lambda s=expected: is_reported(machine, s, target.path),  # type: ignore[misc]
                     f"report of {expected}", timeout=DETECTED_S)
        except TimeoutError as error:
            missed.append(f"{name}, {line}: {error}")
    machine.run(put_back)
    wait_for(lambda: is_reported(machine, "closed", target.path), "entry about the closed API")
    return missed


def check_mutations(machine: Machine, cases: Iterable[tuple[str, str]]) -> None:
    """Apply mutations to targets, both by name. Assert that each is detected and that visibility is never degraded."""
    unit = machine.read(UNIT)
    missed: list[str] = []
    tried = 0
    for name, mutation in cases:
        target = TARGETS[name]
        if not target.closed:
            target = target._replace(closed=unit, open=unit.replace("-H fd://", f"-H fd:// -H {ADDRESS}"))
        missed += mutate(machine, target, f"{name}: {mutation}", MUTATIONS[mutation])
        tried += 1
    print(f"{machine.release}: {tried} mutations of files tried, {len(missed)} missed")
    assert missed == []
    assert entries(machine, "blind") == []


def check_policy_mutations(machine: Machine, mutations: Iterable[str]) -> None:
    """Apply mutations to the policy file, and assert that each is detected."""
    machine.write(OVERRIDE, OPEN)
    declares = f"version: 1\nsockets:\n  - fd://\n  - {{address: '{ADDRESS}', tls: none}}\n"
    machine.write(POLICY, declares)
    target = Target(POLICY, declares, OBSERVE)
    missed: list[str] = []
    tried = 0
    for mutation in mutations:
        missed += mutate(machine, target, f"the policy: {mutation}", POLICY_MUTATIONS[mutation])
        tried += 1
    print(f"{machine.release}: {tried} mutations of the policy tried, {len(missed)} missed")
    assert missed == []


def blind(machine: Machine, words: str, *, over: bool = False) -> list[str]:
    """Return the messages about degraded visibility, or with `over` about its end, that contain `words`."""
    return [entry["MESSAGE"] for entry in entries(machine, "blind")
            if words in entry["MESSAGE"] and entry["MESSAGE"].startswith("Visibility restored") == over]


def is_open(machine: Machine) -> bool:
    return is_reported(machine, "open", "")
