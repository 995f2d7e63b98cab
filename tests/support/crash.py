"""A correction with all kinds of steps, interrupted at any of them, and the state of the host afterwards.

The drift consists of a port in a drop-in that sorts after ours, another in docker.socket, a third in an additional
socket unit, and a key in daemon.json that no flag overrides. The correction writes three drop-ins of ours, edits and
saves daemon.json, moves the foreign drop-in aside, stops the additional socket unit, and restarts docker.socket and
docker.service.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.machines.machine import Machine, wait_for
from tests.support import crash_points
from tests.support.correction import DOCKERD, LIVE_RESTORE, POLICY, SOCKET_OVERRIDE

AGENT = "dockerd-guard.service"
STATE = "/var/lib/dockerd-guard"
MODULES = "/usr/lib/python3/dist-packages"
LATER = "/etc/systemd/system/docker.service.d/zzz.conf"

DRIFT = {
    LATER: f"[Service]\nExecStart=\nExecStart={DOCKERD} -H fd:// -H tcp://0.0.0.0:2375 --label=a=b\n",
    SOCKET_OVERRIDE: "[Socket]\nListenStream=0.0.0.0:4243\n",
    "/etc/systemd/system/docker-tcp.socket":
        "[Socket]\nListenStream=4244\nService=docker.service\n[Install]\nWantedBy=sockets.target\n",
    "/etc/docker/daemon.json": '{\n  "live-restore": true,\n  "tls": false\n}\n',
}

SOCKETS = """\
version: 1
sockets:
  - fd://
  - {address: 'tcp://127.0.0.1:2376', tls: none}
socket_unit: {listen: [/run/docker.sock, /run/docker-2.sock]}
"""
"""docker.socket has to be restarted for the second path."""
ENFORCE = f"{SOCKETS}mode: enforce\ncorrect: {{budget: 1000/1h}}\nwatch: {{resync: 5s}}\n"
OBSERVE = f"{SOCKETS}mode: observe\n"

RESET = f"""
systemctl stop {AGENT}
nft delete table inet dockerd_guard
rm -rf {STATE}/* /etc/systemd/system/docker*.d /etc/docker/daemon.json* {crash_points.ORDER_FILE}
"""
OPEN_UP = """
systemctl daemon-reload
systemctl enable --quiet docker-tcp.socket
systemctl stop docker.socket docker-tcp.socket docker.service
systemctl reset-failed
systemctl start docker.socket docker-tcp.socket docker.service
"""

SETTLED = f"""
systemctl show --property=StatusText {AGENT} | grep -q '=enforce: ' &&
dockerd-guard diff && [ ! -e {STATE}/intent.json ]
"""

LOOK = r"""
import json, os, re, subprocess
out = lambda line: subprocess.run(line, shell=True, capture_output=True, text=True).stdout
temporary = lambda: set(out("find /etc /var/lib/dockerd-guard -name '.dockerd-guard.*'").split())
before = temporary()
files = {}
for top in ("/etc/systemd/system", "/etc/docker"):
    for directory, _, names in os.walk(top):
        if "docker" in directory:
            files[directory] = ""
        for name in names:
            path = os.path.join(directory, name)
            if ("docker" in path or "guard" in name) and name != "key.json" and not os.path.islink(path):
                files[path] = open(path).read()
show = lambda unit, *names: out(f"systemctl show {unit} -p " + ",".join(names))
command = re.sub(r"; ignore_errors.*", "", show("docker.service", "ExecStart"))
print(json.dumps({
    "files": files,
    "loaded": [command, show("docker.service", "DropInPaths"),
               *(show(unit, "Listen", "DropInPaths") for unit in ("docker.socket", "docker-tcp.socket"))],
    "listening": sorted(set(re.findall(r"LISTEN +\d+ +\d+ +(\S+:\d+|/run/docker.sock) .*dockerd", out("ss -ltxnp")))),
    "active": [show(unit, "ActiveState").strip() for unit in ("docker.service", "docker.socket", "docker-tcp.socket")],
    # The agent that looks on may be writing one just now, under a name that it never uses again.
    "left": sorted(before & temporary()),
    "intent": os.path.exists("/var/lib/dockerd-guard/intent.json"),
}))
"""


class HostState(NamedTuple):
    """The state of a host: files and directories by path, what systemd has loaded, addresses where dockerd listens,
    states of the units, temporary files, and whether there is an intent."""

    files: Mapping[str, str]
    loaded: tuple[str, ...]
    listening: tuple[str, ...]
    active: tuple[str, ...]
    left: tuple[str, ...]
    intent: bool


def prepare(machine: Machine) -> None:
    """Install the crash points, disable the agent's restart, and start a container."""
    assert crash_points.__file__ is not None
    machine.run(f"systemctl stop {AGENT}")
    machine.copy_in(Path(crash_points.__file__), f"{MODULES}/crash_points.py")
    machine.write(f"{MODULES}/crash_points.pth", "import crash_points\n")
    machine.write(f"/run/systemd/system/{AGENT}.d/test.conf", "[Service]\nRestart=no\n")
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.run("systemctl daemon-reload; systemctl reload docker")
    machine.start_container()


def open_up(machine: Machine) -> None:
    """Stop the agent, remove all traces of corrections, and open the API."""
    machine.run(RESET, check=False)
    for path, text in DRIFT.items():
        machine.write(path, text)
    machine.run(OPEN_UP)


def host_state(machine: Machine) -> HostState:
    """Return the state of the host."""
    seen = json.loads(machine.run(["python3", "-c", LOOK]).out)
    return HostState(seen["files"], tuple(seen["loaded"]), tuple(seen["listening"]), tuple(seen["active"]),
                    tuple(seen["left"]), seen["intent"])


def start_agent(machine: Machine, policy: str, order: str = "") -> None:
    """Start the agent with a policy, and with an order to stop at a step."""
    machine.write(POLICY, policy)
    if order:
        machine.write(crash_points.ORDER_FILE, f"{order}\n")
    else:
        machine.remove(crash_points.ORDER_FILE)
    machine.run(f"systemctl start {'--no-block' if order else ''} {AGENT}")


def settled(machine: Machine) -> None:
    """Wait until the host complies and the agent is idle."""
    wait_for(lambda: machine.run(SETTLED, check=False).status == 0, "agent at rest on a host that complies")


def steps(machine: Machine) -> tuple[str, ...]:
    """Return the steps of one complete correction of the drift. The host complies afterwards."""
    open_up(machine)
    start_agent(machine, ENFORCE, "kill 0")
    settled(machine)
    machine.run(f"systemctl stop {AGENT}; journalctl --sync")
    messages = [entry["MESSAGE"] for entry in machine.journal(
        "--unit", AGENT, f"_SYSTEMD_INVOCATION_ID={machine.properties(AGENT, 'InvocationID')['InvocationID']}")]
    return tuple(message.partition(": ")[2] for message in messages if message.startswith("step "))


class States(NamedTuple):
    """The two consistent states of a host."""

    before: HostState
    after: HostState


def record_states(machine: Machine) -> tuple[States, tuple[str, ...]]:
    """Return the states of the host before and after the correction, and the steps in between."""
    open_up(machine)
    before = host_state(machine)
    taken = steps(machine)
    return States(before, host_state(machine)), taken


def between(now: HostState, known: States, *, cut: bool = False) -> list[str]:
    """Return one line for each part of the state that is neither as before nor as after the correction.

    The files and what systemd has loaded must match. dockerd may still run with the old configuration if the new files
    are in place, but not with the new configuration if the old files are in place. After a power cut systemd has
    started it with a part of the files; the undo restarts no running dockerd.
    """
    is_new = now.files == known.after.files
    wanted, others = (known.after, (known.before,)) if is_new else (known.before, ())
    wrong = []
    if not is_new:
        wrong += [f"{path}: {now.files.get(path)!r}" for path in sorted({*now.files, *wanted.files})
                  if now.files.get(path) != wanted.files.get(path)]
    if now.loaded != wanted.loaded:
        wrong.append(f"loaded: {now.loaded}")
    every, both = ({*known.before.listening, *known.after.listening},
                   {*known.before.listening} & {*known.after.listening})
    if cut:
        is_right = both <= {*now.listening} <= every
    else:
        is_right = now.listening in (wanted.listening, *(other.listening for other in others))
    if not is_right:
        wrong.append(f"listening: {now.listening}")
    if now.active not in (wanted.active, *(other.active for other in others)):
        wrong.append(f"active: {now.active}")
    if now.left:
        wrong.append(f"left behind: {now.left}")
    return wrong


def hold_at(machine: Machine, step: str) -> None:
    """Start a correction and hold the agent before this step."""
    start_agent(machine, ENFORCE, f"hold {step}")
    # The last reported step is the one at which the agent is held.
    line = f"journalctl --unit={AGENT} --output=cat --boot | grep '^step ' | tail -n 1"
    wait_for(lambda: _is_step(machine.run(line, check=False).out, step), f"step {step}")


def _is_step(message: str, step: str) -> bool:
    number, _, what = message.removeprefix("step ").strip().partition(": ")
    return number == step or what.startswith(step)


def try_point(machine: Machine, known: States, step: str, *, cut: bool) -> list[str]:
    """Interrupt the correction at this step by SIGKILL or a power cut, and start again. Return one line for each
    deviation."""
    open_up(machine)
    container = 0 if cut else machine.container_pid()
    if cut:
        hold_at(machine, step)
        machine.power_cut()
        machine.on_disk(f"rm -f root{crash_points.ORDER_FILE}; cat > root{POLICY}", input=OBSERVE)
        machine.power_on()
        wait_for(lambda: machine.is_active(AGENT), "agent after the boot")
    else:
        start_agent(machine, ENFORCE, f"kill {step}")
        wait_for(lambda: machine.properties(AGENT, "ActiveState")["ActiveState"] == "failed", f"step {step}")
        machine.run(f"systemctl reset-failed {AGENT}")
        start_agent(machine, OBSERVE)
    # The agent does not interrupt a pending start, which takes seconds on a busy host: it recovers afterwards.
    wait_for(lambda: machine.run(f"grep -qs '\"is_applied\": false' {STATE}/intent.json", check=False).status != 0,
             "end of the interrupted correction")
    wait_for(lambda: machine.properties("docker.service", "ActiveState")["ActiveState"] not in (
        "activating", "deactivating"), "dockerd that has started or failed")
    wrong = between(host_state(machine), known, cut=cut)
    if not machine.socket_answers():
        wrong.append("dockerd does not answer")
    machine.write(POLICY, ENFORCE)
    machine.run(f"systemctl reload {AGENT}")
    settled(machine)
    now = host_state(machine)
    if now != known.after:
        wrong += [f"settled: {name}: {value}" for name, value in now._asdict().items()
                  if value != known.after._asdict()[name]]
    if not cut and machine.container_pid() != container:
        wrong.append("the container was restarted")
    return wrong
