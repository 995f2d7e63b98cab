"""Held and rolled-back corrections: the host is never in a worse state than before."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping
from typing import NamedTuple

import pytest

from tests.machines.machine import ADDRESS, Machine, wait_for
from tests.support.contention import reloads, starts
from tests.support.correction import (
    DOCKERD,
    ENFORCE,
    LIVE_RESTORE,
    OBSERVE,
    OPEN,
    OUR_SERVICE_DROPIN,
    OVERRIDE,
    POLICY,
    SOCKET_OVERRIDE,
    enforce,
    entries,
    held_for,
    make_certificates,
    repaired,
    rests,
)
from tests.support.gate import FAILURES, LOOPBACK_TOO, Failure, fail

DROPIN_DIRECTORY, SOCKET_DIRECTORY = posixpath.dirname(OVERRIDE), posixpath.dirname(SOCKET_OVERRIDE)

LOOPBACK_DECLARED = """\
version: 1
mode: enforce
sockets: ["fd://", {address: "tcp://127.0.0.1:2375", tls: none}]
"""


class Obstacle(NamedTuple):
    """A policy that this host cannot comply with, a shell line before it, and text of the entry."""

    name: str
    sockets: str
    line: str
    words: str


# -not_before came with OpenSSL 3.4, which rejects -1 day.
EXPIRE = """
cd /etc/docker
sign() { openssl x509 -req -in server.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -out server-cert.pem "$@"; }
sign -not_before 20200101000000Z -not_after 20200102000000Z || sign -days -1
"""

OBSTACLES = (
    Obstacle("no certificates", f"[fd://, tcp://{ADDRESS}:2376]", "", "/etc/docker/server-cert.pem"),
    Obstacle("a key of another certificate", f"[fd://, tcp://{ADDRESS}:2376]",
             "cp /etc/docker/ca-key.pem /etc/docker/server-key.pem",
             "/etc/docker/server-key.pem does not match tlscert /etc/docker/server-cert.pem"),
    Obstacle("an expired certificate", f"[fd://, tcp://{ADDRESS}:2376]",
             EXPIRE, "/etc/docker/server-cert.pem expired on"),
    Obstacle("an invalid CA file", f"[fd://, tcp://{ADDRESS}:2376]", "echo none > /etc/docker/ca.pem",
             "/etc/docker/ca.pem cannot be used"),
    Obstacle("an address of another host", "[fd://, tcp://192.0.2.1:2376]", "",
             "192.0.2.1 is not an address of this host"),
    Obstacle("a port in use", f"[fd://, tcp://{ADDRESS}:2376]",
             f"systemd-run --unit=other socat TCP-LISTEN:2376,bind={ADDRESS},fork /dev/null; "
             "until ss -Hltn 'sport = :2376' | grep -q .; do sleep 0.05; done",
             f"{ADDRESS}:2376 is in use"),
)


@pytest.mark.parametrize("obstacle", OBSTACLES, ids=lambda obstacle: obstacle.name)
def test_preflight_finds_failures_before_changes(machine: Machine, obstacle: Obstacle) -> None:
    if obstacle.name != "no certificates":
        make_certificates(machine)
    if obstacle.line:
        machine.run(obstacle.line)
    dockerd = machine.main_pid()
    enforce(machine, f"version: 1\nmode: enforce\nsockets: {obstacle.sockets}\n")
    held = wait_for(lambda: entries(machine, "held"), "held correction")
    assert obstacle.words in held[-1]["MESSAGE"]
    assert not machine.exists(OUR_SERVICE_DROPIN)
    assert machine.main_pid() == dockerd


def test_option_that_only_dockerd_validates_holds_the_restart(machine: Machine) -> None:
    """The restart is held without asking dockerd: it would apply another pending change."""
    machine.write(OVERRIDE, f"[Service]\nExecStart=\nExecStart={DOCKERD} -H fd:// -H tcp://0.0.0.0:2375 "
                  "--userns-remap=nobodyhere\n")
    machine.run("systemctl daemon-reload")
    dockerd = machine.main_pid()
    # An additional declared port requires a restart of dockerd.
    enforce(machine, LOOPBACK_TOO)
    held = wait_for(lambda: entries(machine, "held"), "held correction")
    assert f"--userns-remap ({OVERRIDE}:3)" in held[0]["MESSAGE"]
    assert machine.exists(OUR_SERVICE_DROPIN)
    assert machine.main_pid() == dockerd


class Waiting(NamedTuple):
    """Files that dockerd runs with, a shell line that changes other options of its next start, and text of the reason
    for which the restart is held ("" for none)."""

    name: str
    files: Mapping[str, str]
    line: str
    words: str


DAEMON_JSON = "/etc/docker/daemon.json"
WRAPPER = "/usr/local/sbin/run-docker"
SETTINGS = '{"log-driver": "json-file", "log-opts": {"max-size": "10m"}%s}'

WAITING = (
    # A driver that this kernel or file system lacks: --validate accepts it.
    Waiting("a flag", {}, f"sed -i 's|tls=false|& --storage-driver=btrfs|' {OVERRIDE}",
            f"--storage-driver ({OVERRIDE}:3)"),
    Waiting("a key of daemon.json", {}, f"""echo '{{"storage-driver": "btrfs"}}' > {DAEMON_JSON}""",
            f'"storage-driver" ({DAEMON_JSON}:1)'),
    Waiting("a variable of the environment file", {},
            "echo DOCKER_DRIVER=btrfs >> /etc/default/docker", "DOCKER_DRIVER in the environment"),
    Waiting("a wrapper", {WRAPPER: f'#!/bin/sh\nexec {DOCKERD} "$@"\n'}, f"sed -i 's|{DOCKERD}|{WRAPPER}|' {OVERRIDE}",
            f"{WRAPPER} ({OVERRIDE}:3)"),
    Waiting("an upgraded dockerd that was not restarted", {},
            f"cp {DOCKERD} {DOCKERD}.dpkg-new; mv {DOCKERD}.dpkg-new {DOCKERD}", f"{DOCKERD}, which was replaced"),
    Waiting("another command", {}, f"echo ExecStartPre=/bin/false >> {OVERRIDE}", f"ExecStartPre= ({OVERRIDE}:4)"),
    Waiting("the advised change, with options in effect", {DAEMON_JSON: SETTINGS % ""},
            f"""echo '{SETTINGS % ', "live-restore": true'}' > {DAEMON_JSON}; systemctl reload docker""", ""),
    Waiting("our own edit of daemon.json, with options in effect",
            {DAEMON_JSON: SETTINGS % ', "hosts": ["fd://", "tcp://0.0.0.0:2375"], "tls": false'}, ":", ""),
)


@pytest.mark.parametrize("waiting", WAITING, ids=lambda waiting: waiting.name)
def test_restart_applies_no_other_change(machine: Machine, waiting: Waiting) -> None:
    for path, text in waiting.files.items():
        machine.write(path, text, mode=0o755 if path == WRAPPER else 0o644)
    hosts = "" if "hosts" in waiting.files.get(DAEMON_JSON, "") else " -H fd:// -H tcp://0.0.0.0:2375 --tls=false"
    machine.write(OVERRIDE, f"[Service]\nExecStart=\nExecStart={DOCKERD}{hosts}\n")
    machine.run("systemctl daemon-reload; systemctl restart docker")
    dockerd = machine.main_pid()
    # The arguments of the running dockerd can be compared only until the files change.
    wait_for(lambda: [found for found in entries(machine, "drift") if "listens there now" in found["MESSAGE"]], "drift")
    if not waiting.words:
        # The files are corrected first, and the restart happens later.
        enforce(machine, f"{ENFORCE}correct:\n  window: Mon 03:00-03:01 Pacific/Kiritimati\n")
        wait_for(lambda: [found for found in entries(machine, "held") if "window" in found["MESSAGE"]],
                 "held correction")
    machine.run(waiting.line)
    enforce(machine)
    if not waiting.words:
        wait_for(lambda: repaired(machine), "correction")
        assert machine.main_pid() != dockerd
        return
    held = wait_for(lambda: [found for found in entries(machine, "held") if waiting.words in found["MESSAGE"]],
                    "held correction")
    assert ("Next: Revert them, or run `systemctl daemon-reload` and `systemctl restart docker.service` at a suitable "
            "time.") in held[-1]["MESSAGE"]
    for verb in ("diff", "status"):
        # The status follows the entry. While dockerd is slow to answer, that is the reason.
        wait_for(lambda v=verb: all(words in machine.run(f"dockerd-guard {v}", check=False).out  # type: ignore[misc]
                                    for words in (waiting.words, "Revert them")), f"reason in {verb}")
    assert machine.main_pid() == dockerd


def test_correction_is_rolled_back_if_systemd_loads_something_else(machine: Machine) -> None:
    machine.write(OVERRIDE, f"[Service]\nExecStart=\nExecStart={DOCKERD} -H fd:// -H tcp://0.0.0.0:2375 --tls=false\n")
    machine.run("systemctl daemon-reload; systemctl restart docker")
    dockerd = machine.main_pid()
    # systemd does not read the directory that the agent writes to.
    inside = ["nsenter", "--mount", f"--target={machine.main_pid('dockerd-guard.service')}"]
    machine.run([*inside, "sh", "-c", 'text=$(cat "$1/$2"); mount -t tmpfs tmpfs "$1"; echo "$text" > "$1/$2"',
                 "sh", DROPIN_DIRECTORY, posixpath.basename(OVERRIDE)])
    enforce(machine)
    undone = wait_for(lambda: entries(machine, "rolled-back"), "roll-back")
    assert "systemd has loaded a different configuration: fd://, tcp://0.0.0.0:2375" in undone[0]["MESSAGE"]
    assert machine.main_pid() == dockerd
    assert machine.run([*inside, "ls", DROPIN_DIRECTORY]).out == "override.conf\n"


@pytest.mark.parametrize("failure", [each for each in FAILURES if not each.slow], ids=lambda failure: failure.name)
def test_failed_dockerd_is_rolled_back_in_time_and_not_retried(
        machine: Machine, failure: Failure) -> None:
    fail(machine, failure)


def test_budget_persists_across_agent_restarts(machine: Machine) -> None:
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.run("systemctl reload docker")
    policy = f"{ENFORCE}correct:\n  budget: 1/1h\n"
    machine.write(OVERRIDE, OPEN)
    machine.run("systemctl daemon-reload; systemctl restart docker")
    enforce(machine, policy)
    wait_for(lambda: repaired(machine), "correction")
    machine.write(POLICY, policy.replace("enforce", "observe"))
    machine.run("systemctl restart dockerd-guard")
    machine.remove(OUR_SERVICE_DROPIN)
    machine.run("systemctl daemon-reload; systemctl reset-failed docker; systemctl restart docker")
    enforce(machine, policy)
    held = wait_for(lambda: held_for(machine, "the budget of 1/1h restarts is used up"), "held correction")
    assert " until " in held[-1]["MESSAGE"]
    assert machine.exists(OUR_SERVICE_DROPIN)


@pytest.mark.parametrize(("correct", "words", "until"), [
    ("restart: never", "the policy has `restart: never`", ""),
    ("window: Mon 03:00-03:01 Pacific/Kiritimati", "outside the window Mon 03:00-03:01 Pacific/Kiritimati",
     "03:00 +14"),
], ids=["never", "window"])
def test_policy_restricts_restarts(machine: Machine, correct: str, words: str, until: str) -> None:
    machine.write(OVERRIDE, OPEN)
    machine.run("systemctl daemon-reload; systemctl restart docker")
    dockerd = machine.main_pid()
    enforce(machine, f"{ENFORCE}correct:\n  {correct}\n")
    held = wait_for(lambda: [found for found in entries(machine, "held") if words in found["MESSAGE"]],
                    "held correction")
    assert machine.main_pid() == dockerd
    assert machine.exists(OUR_SERVICE_DROPIN)
    wait_for(lambda: words in machine.properties("dockerd-guard.service", "StatusText")["StatusText"], "STATUS= line")
    # While dockerd is slow to answer, that is the reason.
    output = wait_for(lambda: next((out for out in [machine.run("dockerd-guard diff", check=False).out]
                                  if words in out), ""), "reason in the output")
    for found in (held[-1]["MESSAGE"], machine.properties("dockerd-guard.service", "StatusText")["StatusText"], output):
        assert words in found
        assert (" until " in found) == bool(until), found
        assert until in found
    shown = wait_for(lambda: next((held for held in [json.loads(
        machine.run("dockerd-guard diff --format json", check=False).out)["held"]] if held["reason"] == words), None),
        "reason in JSON")
    assert (shown["until"] is None) == (not until)


def predicted(machine: Machine) -> tuple[str, list[str]]:
    """The cost of `fix`, and the containers that it would stop."""
    foreseen = json.loads(machine.run("dockerd-guard diff --format json", check=False).out)
    return foreseen["cost"], foreseen["containers"]


def test_diff_predicts_the_cost_of_fix(machine: Machine) -> None:
    """In the order of the steps: the first action, the cost, and the containers that would stop."""
    machine.write(POLICY, f"{OBSERVE}correct: {{restart: always, budget: 100/1h}}\n")
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.run("systemctl reload docker")
    container = machine.start_container()
    restart = "systemctl daemon-reload; systemctl reset-failed docker; systemctl restart docker"
    for line, cost, stops in (
        ("true", "nothing", []),
        (f"printf '{OPEN}' > {OVERRIDE}", "reload", []),
        (f"rm {OUR_SERVICE_DROPIN}; {restart}", "restart", []),
        (f"echo '{{}}' > /etc/docker/daemon.json; systemctl reload docker; rm {OUR_SERVICE_DROPIN}; "
         "systemctl daemon-reload", "reload", []),
        (f"rm {OUR_SERVICE_DROPIN}; {restart}; docker start bystander || true", "containers", ["bystander"]),
    ):
        machine.run(f"mkdir -p {DROPIN_DIRECTORY}; {line}")
        container = machine.started_container_pid()
        # dockerd has 3 s to list its containers.
        wait_for(lambda foreseen=(cost, stops): predicted(machine) == foreseen,  # type: ignore[misc]
                 f"cost {cost}, {stops} after {line}")
        before = (reloads(machine), starts(machine))
        assert machine.run("dockerd-guard fix").status == 0
        was_reloaded, was_restarted = reloads(machine) > before[0], starts(machine) > before[1]
        assert (was_reloaded, was_restarted) == (cost != "nothing", cost in ("restart", "containers")), line
        assert (machine.container_pid() == container) == (cost != "containers"), line


@pytest.mark.parametrize("dependency", ["Requires=docker.service\nAfter=docker.service",
                                        "Requisite=docker.service\nAfter=docker.service",
                                        "StopPropagatedFrom=docker.service"])
def test_unit_that_would_stop_with_docker_holds_the_restart(machine: Machine, dependency: str) -> None:
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.write("/etc/systemd/system/shop.service",
                  f"[Unit]\n{dependency}\n[Service]\nExecStart=/bin/sleep infinity\n")
    machine.write(OVERRIDE, OPEN)
    machine.run("systemctl daemon-reload; systemctl restart docker; systemctl start shop")
    shop = machine.main_pid("shop.service")
    enforce(machine)
    held = wait_for(lambda: entries(machine, "held"), "held correction")
    assert "shop.service would be stopped with docker.service" in held[-1]["MESSAGE"]
    assert machine.main_pid("shop.service") == shop
    machine.run("systemctl stop shop")
    machine.run("systemctl reload dockerd-guard")
    wait_for(lambda: repaired(machine), "correction")
    assert not machine.api_answers()


NOTES = "/srv/notes.txt"
REPLACING = {
    "passed by systemd": f"sockets: [fd://]\nsocket_unit: {{listen: [/run/docker.sock, {NOTES}]}}\n",
    "bound by dockerd": f'sockets: [fd://, "unix://{NOTES}"]\n',
}


@pytest.mark.parametrize("sockets", REPLACING.values(), ids=REPLACING)
def test_no_file_is_replaced_by_a_socket(machine: Machine, sockets: str) -> None:
    """systemd and dockerd delete what is at the path of a socket that they bind."""
    text = f"version: 1\nmode: enforce\n{sockets}"
    dockerd = machine.main_pid()
    machine.write(NOTES, "important notes\n")
    enforce(machine, text)
    held = wait_for(lambda: entries(machine, "held"), "hold")
    assert NOTES in held[-1]["MESSAGE"]
    for verb in ("diff", "fix"):
        shown = machine.run(f"dockerd-guard {verb}", check=False)
        assert shown.status == 1
        assert f"Held: {NOTES} is a regular file, not a socket; " in shown.out
    assert machine.read(NOTES) == "important notes\n"
    assert machine.main_pid() == dockerd
    assert not machine.run("find /etc/systemd/system -name zz-dockerd-guard.conf").out
    # The correction follows without a command, once the file is gone.
    machine.run(f"mv {NOTES} /srv/moved.txt")
    wait_for(lambda: repaired(machine), "correction")
    assert machine.run(f"curl --silent --unix-socket {NOTES} http://d/_ping").out == "OK"
    assert machine.read("/srv/moved.txt") == "important notes\n"


def test_the_socket_of_another_program_is_not_taken(machine: Machine) -> None:
    path = "/run/other.sock"
    machine.write("/srv/other.py", "import socket, time\ns = socket.socket(socket.AF_UNIX)\n"
                  f"s.bind('{path}')\ns.listen()\ntime.sleep(3600)\n")
    machine.run("systemd-run --quiet --unit=other /usr/bin/python3 /srv/other.py")
    wait_for(lambda: machine.run(f"test -S {path}", check=False).status == 0, "socket")
    enforce(machine, "version: 1\nmode: enforce\nsockets: [fd://]\n"
                     f"socket_unit: {{listen: [/run/docker.sock, {path}]}}\n")
    held = wait_for(lambda: entries(machine, "held"), "hold")
    assert f"{path} is the socket of another program, which listens there" in held[-1]["MESSAGE"]
    assert not machine.run("find /etc/systemd/system -name zz-dockerd-guard.conf").out
    # A socket that nobody serves any more is replaced.
    machine.run("systemctl stop other; systemctl reload dockerd-guard")
    wait_for(lambda: repaired(machine), "correction")
    assert machine.run(f"curl --silent --unix-socket {path} http://d/_ping").out == "OK"


def test_a_stopped_docker_is_not_reported_to_listen(machine: Machine) -> None:
    enforce(machine)
    assert machine.run("dockerd-guard diff").out == "Nothing to change: Docker listens as declared.\n"
    user = machine.run("runuser -u nobody -- dockerd-guard diff", check=False)
    assert user.status == 2
    assert "as declared" not in user.out
    machine.run("systemctl stop docker.socket docker")
    lines = ("docker.service is not running: nothing listens on unix:///run/docker.sock.\n"
             "Next: `systemctl start docker.service`, if Docker should run on this host.\n")
    for verb, first in (("diff", "Nothing to change: the files comply with the policy.\n"),
                        ("fix", "The files comply with the policy.\n")):
        shown = machine.run(f"dockerd-guard {verb}", check=False)
        assert (shown.status, shown.out) == (1, first + lines)
    assert machine.run("dockerd-guard lint", check=False).status == 1
    machine.run("systemctl start docker")
    assert machine.run("dockerd-guard fix").out == "Docker listens as declared.\n"


def test_a_program_that_a_drop_in_had_hidden_is_not_run(machine: Machine) -> None:
    """daemon.json has changed between the start of dockerd and the first look of the agent (I4)."""
    hiding = f"{DROPIN_DIRECTORY}/20-hiding.conf"
    machine.run("systemctl stop dockerd-guard")
    machine.write("/srv/x/dockerd", f'#!/bin/sh\ntouch /srv/ran\nexec {DOCKERD} "$@"\n')
    machine.write(f"{DROPIN_DIRECTORY}/10-hidden.conf", "[Service]\nExecStart=\nExecStart=/srv/x/dockerd -H fd://\n")
    machine.write(hiding, f"[Service]\nExecStart=\nExecStart={DOCKERD} -H fd:// -H tcp://127.0.0.1:2375 --tls=false\n")
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.run("chmod 755 /srv/x/dockerd; systemctl daemon-reload; systemctl restart docker")
    machine.write("/etc/docker/daemon.json", json.dumps(json.loads(LIVE_RESTORE) | {"debug": False}))
    before = starts(machine)
    machine.run("systemctl start dockerd-guard")
    enforce(machine, LOOPBACK_DECLARED)
    wait_for(lambda: machine.run("dockerd-guard diff", check=False).status == 0, "host that complies")
    machine.remove(hiding)
    enforce(machine, ENFORCE)
    wait_for(lambda: held_for(machine, "/srv/x/dockerd"), "held correction")
    assert starts(machine) == before
    assert not machine.exists("/srv/ran")


def test_commands_of_socket_units_and_wanted_units_are_not_run(machine: Machine) -> None:
    """They came after the last start of docker.socket and docker.service, and a restart would run them (I4)."""
    machine.run("systemctl stop dockerd-guard")
    machine.write("/srv/x/run", "#!/bin/sh\ntouch /srv/ran-$1\n")
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.write(f"{SOCKET_DIRECTORY}/10-port.conf", "[Socket]\nListenStream=\nListenStream=2375\n")
    machine.run("chmod 755 /srv/x/run; systemctl daemon-reload; systemctl stop docker.socket docker.service; "
                "systemctl start docker.socket docker.service")
    machine.write(f"{SOCKET_DIRECTORY}/20-run.conf",
                  "[Socket]\nExecStartPre=/srv/x/run pre\nExecStopPost=/srv/x/run stop\n")
    machine.write("/etc/systemd/system/run@.service", "[Service]\nType=oneshot\nExecStart=/srv/x/run %i\n")
    for place in ("docker.service.wants", "docker.service.requires", "docker.socket.wants"):
        machine.run(f"mkdir -p /etc/systemd/system/{place}; "
                    f"ln -s /etc/systemd/system/run@.service /etc/systemd/system/{place}/run@{place}.service")
    before = starts(machine)
    machine.run("systemctl start dockerd-guard")
    # docker.socket has to be restarted, and the engine cannot be asked while its path is missing.
    enforce(machine, f"{ENFORCE}correct: {{restart: always}}\n")
    held = wait_for(lambda: held_for(machine, "docker.service.wants/run@docker.service.wants"), "held correction")
    assert "ExecStartPre=" in held[0]["MESSAGE"]
    assert "docker.socket.wants/run@docker.socket.wants.service" in held[0]["MESSAGE"]
    wait_for(lambda: rests(machine, 2), "agent at rest")
    assert starts(machine) == before
    assert machine.run("ls /srv").out.split() == ["x"]
    assert not machine.api_answers()
    # Once an administrator has restarted both, all of it has run.
    machine.run("systemctl daemon-reload; systemctl stop docker.socket docker.service; "
                "systemctl start docker.socket docker.service")
    assert machine.run("ls /srv").out.split() == [
        "ran-docker.service.requires", "ran-docker.service.wants", "ran-docker.socket.wants", "ran-pre", "ran-stop",
        "x"]
    wait_for(lambda: machine.run("dockerd-guard diff", check=False).status == 0, "host that complies")


DEPENDENTS = ("Requires=docker.socket", "BindsTo=docker.socket\nAfter=docker.socket", "PartOf=docker.socket")


class SocketDrift(NamedTuple):
    """A drop-in of docker.socket in force, the policy, and whether the correction has to restart docker.socket."""

    name: str
    text: str
    correct: str
    restarts_socket: bool


@pytest.mark.parametrize("drift", [
    SocketDrift("a port", "ListenStream=2375\n", "restart: live-restore", restarts_socket=False),
    SocketDrift("a port instead of the path", "ListenStream=\nListenStream=2375\n", "restart: always",
                restarts_socket=True),
], ids=lambda drift: drift.name)
def test_what_requires_docker_socket_keeps_running(machine: Machine, drift: SocketDrift) -> None:
    """A start of docker.socket replaces its file, which containers have mounted; a stop ends what requires it."""
    units = " ".join(f"dependent-{number}.service" for number in range(len(DEPENDENTS)))

    def seen() -> list[str]:
        return machine.run(f"systemctl show --property=MainPID --value {units}; "
                           "stat --format=%i /run/docker.sock").out.split()

    machine.run("systemctl stop dockerd-guard")
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.write(f"{SOCKET_DIRECTORY}/10-port.conf", f"[Socket]\n{drift.text}")
    for number, dependency in enumerate(DEPENDENTS):
        machine.write(f"/etc/systemd/system/dependent-{number}.service",
                      f"[Unit]\n{dependency}\n[Service]\nExecStart=/bin/sleep infinity\n")
    machine.run("systemctl daemon-reload; systemctl stop docker.socket docker.service; "
                f"systemctl start docker.socket docker.service {units}")
    before = seen()
    assert machine.api_answers()
    machine.run("systemctl start dockerd-guard")
    enforce(machine, f"{ENFORCE}correct: {{{drift.correct}}}\n")
    wait_for(lambda: machine.run("dockerd-guard diff", check=False).status == 0, "host that complies")
    assert not machine.api_answers()
    assert machine.socket_answers()
    line = f"systemctl is-active {units}"
    wait_for(lambda: set(machine.run(line, check=False).out.split()) == {"active"}, "units that require docker.socket")
    assert (seen() == before) is not drift.restarts_socket


def test_a_program_of_another_account_that_is_called_like_a_shim_holds_nothing(machine: Machine) -> None:
    """Live-restore is off, and no container runs."""
    machine.write(OVERRIDE, OPEN)
    machine.run("systemctl daemon-reload; systemctl restart docker")
    machine.run("cp /bin/sleep /srv/containerd-shim-runc-v2; systemd-run --quiet --unit=shim --uid=nobody "
                "/srv/containerd-shim-runc-v2 infinity")
    wait_for(lambda: "containerd-shim\n" in machine.run("cat /proc/[0-9]*/comm", check=False).out, "program")
    enforce(machine)
    wait_for(lambda: repaired(machine), "correction")
    assert not held_for(machine, "containers would be stopped")
    assert machine.is_active("shim.service")
